"""The probe of a drill, and whether it can tell: it must fail on an empty folder, and on a copy that is mutated."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from snapvault.assurance.dataset import Probe
from snapvault.assurance.outcome import NOT_RUN, PASS, Outcome
from snapvault.assurance.sandbox import ProbeRun, Sandbox
from snapvault.assurance.scratch import Scratch, remove_path
from snapvault.foundation.events import Reporter

# How a file is mutated, like by ransomware that is in a hurry: its beginning, its end, and a block now and then.
HEAD, BLOCK, STRIDE, BLOCKS_MAX = 64 << 10, 4 << 10, 1 << 20, 1024
LEAST, FACTOR = 10.0, 3.0  # seconds that a run which should fail gets: so many, and so many times the good run


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How the probe went on what was restored, and how it did where it must fail."""

    outcome: Outcome
    run: ProbeRun | None = None
    on_empty: str = ""  # the outcome there
    on_mutated: str = ""
    control_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        run = self.run
        return {
            **self.outcome.to_dict(), "facts": dict(run.facts) if run else {}, "output": run.output if run else "",
            "held": list(run.held) if run else [], "on_empty": self.on_empty, "on_mutated": self.on_mutated,
        }  # fmt: skip


class _Moved(Exception):
    """The folder is not where it was."""


class Prober:
    """Runs the probe of one drill.  What was restored is of no use after ``controls``."""

    def __init__(self, probe: Probe, sandbox: Sandbox, scratch: Scratch, root: Path, reporter: Reporter) -> None:
        """``root``: of the dataset, in what was restored."""
        self._probe, self._sandbox, self._scratch, self._reporter = probe, sandbox, scratch, reporter
        self._root = root

    def run(self) -> ProbeResult:
        """On what was restored.  Cancelled."""
        run = self._once(self._probe.timeout.total_seconds())
        return ProbeResult(run.outcome, run)

    def controls(self, result: ProbeResult, seed: str) -> ProbeResult:
        """A probe that passed must fail where there is nothing, and where all is overwritten, or it proves nothing."""
        run = result.run
        if run is None or result.outcome.value != PASS:
            return result
        seconds = min(self._probe.timeout.total_seconds(), LEAST + FACTOR * run.seconds)
        try:
            empty, mutated = self._on_empty(seconds), self._on_mutated(seconds, seed)
        except _Moved:
            why = "the probe put something else in place of the folder, so it cannot be asked where it must fail"
            return replace(result, outcome=Outcome(NOT_RUN, why))
        outcome = _told(result.outcome, (("an empty folder", empty), ("a mutated copy", mutated)))
        return replace(
            result, outcome=outcome, on_empty=empty.outcome.value, on_mutated=mutated.outcome.value,
            control_seconds=empty.seconds + mutated.seconds,
        )  # fmt: skip

    def _on_empty(self, seconds: float) -> ProbeRun:
        self._check_place()
        aside = self._root.with_name(f"{self._root.name}.aside")
        self._root.rename(aside)
        self._root.mkdir(mode=0o700)
        run = self._once(seconds)
        self._check_place()
        remove_path(self._root)
        aside.rename(self._root)
        return run

    def _on_mutated(self, seconds: float, seed: str) -> ProbeRun:
        self._check_place()
        mutate(self._root, seed)
        return self._once(seconds)

    def _check_place(self) -> None:
        """What a probe put in place of the folder could lead out, to what nobody restored."""
        if not self._root.is_dir() or self._root.resolve() != self._root:
            raise _Moved

    def _once(self, seconds: float) -> ProbeRun:
        probe = self._probe
        return self._sandbox.run(probe.kind, probe.options, self._root, self._scratch, seconds, self._reporter)


def _told(outcome: Outcome, controls: Sequence[tuple[str, ProbeRun]]) -> Outcome:
    """The outcome, if the probe failed wherever it must."""
    for value, said in ((PASS, "also passes"), (NOT_RUN, "could not tell")):
        where = [name for name, run in controls if run.outcome.value == value]
        if where:
            return Outcome(NOT_RUN, f"the probe {said} on {' and on '.join(where)}, so it proves nothing")
    return outcome


def mutate(root: Path, seed: str) -> None:
    """Overwrite parts of every file below a folder: names, sizes, modes and times stay as they are.

    A file that has a name elsewhere, too, is somebody else's and left alone.
    """
    noise, links = blake3(seed.encode()).digest(length=HEAD), dict[int, int]()
    for folder, _, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            if not stat.S_ISREG(st.st_mode) or not st.st_size:
                continue
            if st.st_nlink > 1:
                links[st.st_ino] = links.get(st.st_ino, 0) + 1
            if st.st_nlink in (1, links.get(st.st_ino)):
                _overwrite(path, st, noise)


def _overwrite(path: str, st: os.stat_result, noise: bytes) -> None:
    if not st.st_mode & stat.S_IWUSR and os.geteuid() != 0:
        os.chmod(path, st.st_mode | stat.S_IWUSR)
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        os.pwrite(fd, noise[: min(HEAD, st.st_size)], 0)
        stride = max(STRIDE, st.st_size // BLOCKS_MAX)
        for at in (*range(HEAD, st.st_size, stride), max(0, st.st_size - BLOCK)):
            os.pwrite(fd, noise[: min(BLOCK, st.st_size - at)], at)
        os.utime(fd, ns=(st.st_atime_ns, st.st_mtime_ns))
    finally:
        os.close(fd)
    if not st.st_mode & stat.S_IWUSR:
        os.chmod(path, st.st_mode)
