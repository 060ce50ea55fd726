"""What the verbs share: the common options, and how a command ends."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
from click.core import ParameterSource

import snapvault
from snapvault.cli.settings import Settings
from snapvault.cli.text import unprintable
from snapvault.foundation.errors import InvalidInput

_CODES = {"ok": 0, "partial": 3, "damaged": 20, "breached": 21, "failed": 22}
_GRAVEST = (130, 1, 20, 22, 21, 3)
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])


def status_code(status: str) -> int:
    """The exit code of a result's status; that of several is the gravest already."""
    return _CODES[status]


def status_of(code: int) -> str:
    """The status that an exit code stands for; ``failed`` for what was aborted."""
    return next((status for status, of_status in _CODES.items() if of_status == code), "failed")


def gravest(codes: Iterable[int]) -> int:
    """The exit code of several things that were done one after the other; what was refused of them is aborted."""
    found = {code if code in _GRAVEST else 1 for code in codes if code}
    return next((code for code in _GRAVEST if code in found), 0)


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """An option before the verb and the same one after it set one value; the one after it wins."""
    if value is None or value is False:
        return
    settings = context.ensure_object(Settings)
    if parameter.name in ("as_json", "quiet"):
        setattr(settings.out, parameter.name, value)
    else:
        assert parameter.name is not None
        setattr(settings, parameter.name, value)


def option_of_settings(*names: str, **attributes: Any) -> Callable[[F], F]:
    """An option that the verb does not see: its value goes to the Settings, if it is given."""
    return click.option(*names, expose_value=False, callback=_keep, **attributes)


_COMMON = (
    option_of_settings("-r", "--repository", metavar="URL", help="A folder or an fsspec URL.  [SNAPVAULT_REPOSITORY]"),
    option_of_settings("--key-file", metavar="F", help="A client key or the recovery key.  [SNAPVAULT_KEY_FILE]"),
    option_of_settings("--password-file", metavar="F", help="Read the password from F.  [SNAPVAULT_PASSWORD_FILE]"),
    option_of_settings(
        "--password-command", metavar="CMD", help="Run CMD for the password.  [SNAPVAULT_PASSWORD_COMMAND]"
    ),
    option_of_settings("--storage-options", metavar="F", help="TOML for fsspec, by URL.  [SNAPVAULT_STORAGE_OPTIONS]"),
    option_of_settings("--cache-dir", metavar="DIR", help="[SNAPVAULT_CACHE_DIR]"),
    option_of_settings("--no-cache", is_flag=True, help="Keep and use no local cache."),
    option_of_settings("--state-dir", metavar="DIR", help="[SNAPVAULT_STATE_DIR]"),
    option_of_settings("--json", "as_json", is_flag=True, help="Lines of JSON on standard output."),
    option_of_settings("-q", "--quiet", is_flag=True, help="No progress and no notes."),
    option_of_settings(
        "--debug", is_flag=True, help="Log what happens; show where an error came from.  [SNAPVAULT_DEBUG]"
    ),
)


def common_options(function: F) -> F:
    """The options that every command understands, at the end of its own."""
    for option in reversed(_COMMON):
        function = option(function)
    return function


def verb(function: Callable[Concatenate[Settings, P], int]) -> Callable[P, int]:
    """A verb gets the Settings first and answers its exit code; it also takes all common options."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> int:
        return function(click.get_current_context().ensure_object(Settings), *args, **kwargs)

    return common_options(call)


def given(*parameters: str) -> bool:
    """Whether one of these options was given, and does not stand at its default."""
    context = click.get_current_context()
    return any(context.get_parameter_source(name) is not ParameterSource.DEFAULT for name in parameters)


def split_reference(text: str) -> tuple[str, str]:
    """``SNAP[:/PATH]``: the path starts at the first ``:/``; without one it is ``/``."""
    snapshot, colon, path = text.partition(":/")
    if not snapshot:
        raise InvalidInput(f"{text!r} names no snapshot", hint="write SNAP or SNAP:/PATH")
    return snapshot, "/" + path if colon else "/"


def stored_path(snapshots: Sequence[snapvault.Snapshot], path: str) -> str:
    """``path`` as it is, or, if no snapshot holds that, as ``ls`` prints it: with escapes (docs/guide/restore.md)."""
    plain = unprintable(path)
    if plain == path:
        return path
    for candidate in (path, plain):
        for snapshot in snapshots:
            with suppress(InvalidInput):
                snapshot.entry(candidate)
                return candidate
    return path
