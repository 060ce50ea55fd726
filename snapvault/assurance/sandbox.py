"""Running probes in a process of their own, which watches them (assurance/probes/runner.py)."""

import json
import secrets
import select
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from snapvault.assurance.outcome import NOT_RUN, Outcome
from snapvault.assurance.scratch import Scratch, remove_path
from snapvault.foundation.events import Reporter

_TICK = 0.2  # seconds between two looks whether the drill was cancelled
# Isolated: nothing of the caller's environment, which may hold a password, and no folder but those of this Python.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.stdin.readline()); "
    "from snapvault.assurance.probes.runner import main; main()"
)


@dataclass(frozen=True, slots=True)
class ProbeRun:
    """How one run of a probe went."""

    outcome: Outcome
    facts: Mapping[str, int | str]
    output: str  # the end of what it wrote
    held: tuple[str, ...]  # what it was kept to: time, processes, disk, writes (outside), network
    seconds: float


class Sandbox:
    """Runs one probe at a time; its process is started with the first."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(
        self, kind: str, options: Mapping[str, Any], root: Path, scratch: Scratch, seconds: float, reporter: Reporter
    ) -> ProbeRun:
        """Run a probe on what was restored at ``root``, for at most so many ``seconds``.  Cancelled."""
        work, token = scratch.folder("work", 0o1777), secrets.token_hex(16)
        output = scratch.top / f"output-{token}"
        task = {
            "token": token,
            "kind": kind, "options": dict(options), "timeout": seconds, "root": str(root), "scratch": str(scratch.top),
            "work": str(work), "output": str(output), "quota": scratch.quota, "used": scratch.used,
        }  # fmt: skip
        try:
            report = self._ask(task, reporter)
        finally:
            remove_path(work)
            remove_path(output)
        outcome = Outcome(report["outcome"], report["why"])
        return ProbeRun(outcome, report["facts"], report["output"], tuple(report["held"]), report["seconds"])

    def _ask(self, task: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(task) + "\n")
                process.stdin.flush()
            while not select.select([process.stdout], [], [], _TICK)[0]:
                reporter.check()
            line = process.stdout.readline()
        except BaseException:
            self.close()
            raise
        with suppress(ValueError, TypeError):
            report = dict(json.loads(line or "null"))
            if report.pop("token", "") == task["token"]:
                return report
        why = "somebody answered in place of the process that runs probes"  # which then says nothing more that counts
        if not line:
            assert process.stderr is not None
            words = process.stderr.read().strip().splitlines() or ["it said nothing"]
            why = f"the process that runs probes ended: {words[-1]}"
        self.close()
        return {"outcome": NOT_RUN, "why": why, "facts": {}, "output": "", "held": (), "seconds": 0.0}

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", env={}, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(sys.path) + "\n")
        return process

    def close(self) -> None:
        """End the process with all that it started."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(BrokenPipeError):
                process.communicate()  # it goes by the end of its input

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
