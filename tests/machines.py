"""The command line in a home of its own: in this process for speed, or as a real process where that matters."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from snapvault.cli.main import run

PASSWORD = "correct horse"
PYTHON = [sys.executable, "-m", "snapvault"]


@dataclass(frozen=True)
class Done:
    """How a command ended.  Nothing that a user reads may be a traceback."""

    code: int
    stdout: bytes
    err: str
    traceback: bool = False  # asked for

    def __post_init__(self) -> None:
        assert self.traceback or ("Traceback" not in self.err and b"Traceback" not in self.stdout), self.err

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        last = self.records[-1]
        assert last["type"] == "summary", last
        return last


class Machine:
    """A home, an environment, and the command."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[bytes], patch: pytest.MonkeyPatch) -> None:
        self.home, self._capture, self._patch = home, capture, patch
        home.mkdir()
        self.env = {
            "HOME": str(home), "PATH": os.environ["PATH"], "SNAPVAULT_PASSWORD": PASSWORD, "LC_ALL": "C.UTF-8",
            "TZ": "UTC", "NO_COLOR": "1",
        }  # fmt: skip

    def __call__(self, *argv: object, stdin: bytes = b"") -> Done:
        """Run in this process.  What nobody caught fails the test with its traceback."""
        with self._patch.context() as patch:
            for name in os.environ:
                if name.startswith(("SNAPVAULT_", "AWS_", "XDG_")):
                    patch.delenv(name)
            for name, value in self.env.items():
                patch.setenv(name, value)
            patch.setattr(os, "nice", lambda by: by)  # a prune gives way, and would so for the rest of this process
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            self._capture.readouterr()
            code = run([os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in argv])
            sys.stdout.flush()
        stdout, stderr = self._capture.readouterr()
        return Done(code, stdout, stderr.decode())

    def process(self, *argv: object, before: Sequence[str] = (), **options: Any) -> Done:
        """Run as a process of its own; ``before``: a command that starts it."""
        return self._process([*before, *PYTHON, *map(str, argv)], **options)

    def python(self, code: str, *, traceback: bool = False) -> Done:
        """Run a piece of Python as a process of its own."""
        return self._process([sys.executable, "-c", code], traceback=traceback)

    def _process(self, argv: Sequence[str], *, traceback: bool = False, **options: Any) -> Done:
        settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        done = subprocess.run(argv, env=self.env, timeout=60, check=False, **settings)
        return Done(done.returncode, done.stdout or b"", done.stderr.decode(), traceback)

    def start(self, *argv: object, **options: Any) -> "subprocess.Popen[bytes]":
        """Begin a process; the caller waits for it."""
        return subprocess.Popen(
            [*PYTHON, *map(str, argv)], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            **{"stdin": subprocess.DEVNULL, **options},
        )  # fmt: skip


def by_password(machine: Machine) -> Machine:
    """From now on it opens repositories by their password."""
    machine.env.pop("SNAPVAULT_KEY_FILE", None)
    return machine


def tree_of(root: Path) -> dict[str, bytes]:
    """Everything in a folder, to see that nothing changed."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
