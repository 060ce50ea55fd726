"""Passwords and key files: from files, commands, the environment or a terminal; never from the command line."""

import os
import shlex
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from snapvault.foundation.errors import InvalidInput

Password = Callable[[], str]


def password_source(prefix: str, *, file: str | None = None, command: str | None = None) -> Password | None:
    """The password that options or ``PREFIX``, ``PREFIX_FILE``, ``PREFIX_COMMAND`` give; None if none does.

    Options win over the environment.  InvalidInput if one level gives two: which of them counts must not be a guess.
    """
    options: dict[str, Password] = {}
    if file is not None:
        options["--password-file"] = lambda: _from_file(file)
    if command is not None:
        options["--password-command"] = lambda: _from_command(command)
    return _one(options) or _one(_from_environment(prefix))


def _from_environment(prefix: str) -> dict[str, Password]:
    found: dict[str, Password] = {}
    if direct := os.environ.get(prefix):
        found[prefix] = lambda: direct
    if file := os.environ.get(f"{prefix}_FILE"):
        found[f"{prefix}_FILE"] = lambda: _from_file(file)
    if command := os.environ.get(f"{prefix}_COMMAND"):
        found[f"{prefix}_COMMAND"] = lambda: _from_command(command)
    return found


def _one(sources: dict[str, Password]) -> Password | None:
    if len(sources) > 1:
        raise InvalidInput(f"{' and '.join(sources)} are both given", hint="give the password in one way only")
    return next(iter(sources.values()), None)


def _from_file(path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise InvalidInput(f"the password file {path} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError:
        raise InvalidInput(f"the password file {path} is no UTF-8 text") from None
    return _first_line(text, f"the password file {path}")


def _from_command(command: str) -> str:
    """Run without a shell; its standard error is the caller's, so that a pinentry can talk."""
    import subprocess  # seldom needed, and slow to load

    argv = _words(command)
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, check=False)
    except OSError as e:
        raise InvalidInput(f"the password command {argv[0]!r} cannot be started: {e.strerror}") from e
    if done.returncode:
        raise InvalidInput(f"the password command {argv[0]!r} failed with exit status {done.returncode}")
    try:
        return _first_line(done.stdout.decode(), f"what the password command {argv[0]!r} wrote")
    except UnicodeDecodeError:
        raise InvalidInput(f"what the password command {argv[0]!r} wrote is no UTF-8 text") from None


def _words(command: str) -> list[str]:
    try:
        argv = shlex.split(command)
    except ValueError as e:
        raise InvalidInput(f"the password command cannot be split into words: {e}") from e
    if not argv:
        raise InvalidInput("the password command is empty")
    return argv


def _first_line(text: str, where: str) -> str:
    """The password is the one line; a final newline does not belong to it."""
    lines = text.splitlines()
    if not lines or not lines[0]:
        raise InvalidInput(f"{where} holds no password")
    if len(lines) > 1:
        raise InvalidInput(f"{where} has several lines; a password is one")
    return lines[0]


def ask(prefix: str, what: str, *, twice: bool, password: str = "password") -> Password:
    """Ask at the terminal when the password is needed, once; InvalidInput where there is no terminal."""

    other = "" if twice else ", or a key file"

    @cache
    def prompt() -> str:
        if not sys.stdin.isatty():
            raise InvalidInput(
                f"a {password} is needed for {what}, and there is no terminal to ask at",
                hint=f"set {prefix}_FILE, {prefix}_COMMAND or {prefix}{other}",
            )
        typed = _typed(f"{password.capitalize()} for {what}: ")
        if twice and _typed("Once more: ") != typed:
            raise InvalidInput("the two passwords differ", hint="run the command again")
        return typed

    return prompt


def _typed(question: str) -> str:
    import getpass

    try:
        password = getpass.getpass(question, stream=sys.stderr)
    except EOFError:  # Ctrl-D
        password = ""
    if not password:
        raise InvalidInput("the password is empty")
    return password
