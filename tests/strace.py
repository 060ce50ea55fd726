"""Run Python under strace, to see its system calls or to make chosen ones fail."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import snapvault.foundation

_PACKAGE = str(Path(snapvault.foundation.__file__).parents[2])
_LINE = re.compile(r"^(?:(\d+) +)?(\w+)\((.*)$")


@dataclass(frozen=True)
class Call:
    """One traced system call: its name, the ordinal among those of this name, and the rest of its line.

    Ordinals count the calls of one thread, as the ``when`` of an injected fault does.
    """

    name: str
    ordinal: int
    text: str
    thread: str = ""

    @property
    def injected(self) -> bool:
        return "(INJECTED)" in self.text


@dataclass(frozen=True)
class Run:
    returncode: int
    output: str
    calls: list[Call]


def run(
    code: str, *args: str, trace: str, log: Path, inject: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Run:
    """Run ``python -c code args`` and trace the calls named in ``trace`` (as strace has it, such as ``fsync,link``).

    ``inject`` are strace's, such as ``fsync:error=EIO:when=2``.  File descriptors are shown with their paths.
    With ``env``, which is added to the environment, the program may write to standard error, yet no traceback.
    """
    argv = ["strace", "-f", "-y", "-s", "0", "-o", str(log), "-e", f"trace={trace}", "-e", "signal=none"]
    if not any("signal=" in fault for fault in inject):  # strace 6 loses the signal in this mode
        argv.append("--seccomp-bpf")
    for fault in inject:
        argv += ["-e", f"inject={fault}"]
    own = {"PYTHONPATH": _PACKAGE, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [*argv, sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        env={**os.environ, **own, **(env or {})},
        timeout=60,
        check=False,
    )
    if done.stderr and (env is None or "Traceback" in done.stderr):
        raise AssertionError(done.stderr)
    return Run(done.returncode, done.stdout, _parse(log))


def _parse(log: Path) -> list[Call]:
    seen: dict[tuple[str, str], int] = {}
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match:
            thread, name = match.group(1) or "", match.group(2)
            seen[thread, name] = seen.get((thread, name), 0) + 1
            calls.append(Call(name, seen[thread, name], match.group(3), thread))
    return calls
