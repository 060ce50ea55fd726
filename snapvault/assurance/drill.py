"""A drill: a dataset is brought back at a scratch place, compared, and asked whether it is alive.

It reads nothing of this machine's cache, plants damage to prove that it would see some, and measures how old the data
is and how long it took.  What it found becomes evidence only when somebody signs it (docs/guide/drills.md).
"""

import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from blake3 import blake3

from snapvault.access.resolve import list_snapshots
from snapvault.access.snapshot import Entry, Snapshot
from snapvault.assurance.dataset import LEVELS, Dataset
from snapvault.assurance.outcome import FAIL, NOT_RUN, PASSED, Outcome
from snapvault.assurance.planted import ControlResult, Planter
from snapvault.assurance.probes import check_probe
from snapvault.assurance.probing import Prober
from snapvault.assurance.restoring import BroughtBack, Place
from snapvault.assurance.results import PROBLEMS_MAX, DrillResult, recovery_of
from snapvault.assurance.sampling import PARTS, Sample
from snapvault.assurance.sandbox import Sandbox
from snapvault.assurance.scratch import Scratch
from snapvault.assurance.structure import Structure
from snapvault.format.keyset import Role
from snapvault.foundation.ahead import both
from snapvault.foundation.clock import SKEW, now
from snapvault.foundation.errors import Cancelled, Damaged, InvalidInput, SnapvaultError
from snapvault.foundation.events import Control, Reporter
from snapvault.foundation.words import count
from snapvault.operations.results import Issue
from snapvault.operations.selection import Selection
from snapvault.operations.tally import UNREAD
from snapvault.platform.remote import shown_url
from snapvault.repository.cache import Cache
from snapvault.repository.repository import Vault
from snapvault.version import VERSION

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

ALL = Selection()


@dataclass(frozen=True, slots=True)
class Before:
    """What earlier drills of a dataset say to the next one: which sample comes, and how new its data once was."""

    drills: int = 0
    samples: int = 0
    newest: datetime | None = None  # time of the newest snapshot that a drill has seen


class DrillGround:
    """Where drills are held: a repository as a bare machine would see it, at one site.  Thread-safe.

    A context manager.  What it reads of the repository serves all of its drills, and is gone with it.
    """

    def __init__(
        self, repo: "Repository", *, site: str = "", scratch: Path, quota: int | None = None,
        control: Control | None = None,
    ) -> None:  # fmt: skip
        """``site``: what the place is called that ``repo`` was opened at.  RoleRequired, InvalidInput."""
        repo.vault.ring.require_role(Role.READERS, "hold a drill")
        self.site, self.scratch, self.quota, self.control = site, scratch, quota, control
        self._cache = Scratch(scratch, quota)
        limited = repo.vault.limited(control)
        self.vault = limited.cold(Cache(self._cache.folder("cache")))
        self._lock = threading.Lock()
        self._snapshots: dict[str, list[Snapshot]] | None = None
        self._opened = 0  # milliseconds
        self._sandboxes: list[Sandbox] = []  # that nobody uses
        self.problems: list[Damaged] = []  # snapshots that cannot be read: whose they are is not known

    def snapshots(self, dataset: str) -> tuple[list[Snapshot], int]:
        """Those of a dataset, oldest first; and how many milliseconds it took to see any."""
        with self._lock:
            if self._snapshots is None:
                began, found = time.monotonic(), dict[str, list[Snapshot]]()
                for s in list_snapshots(self.vault, on_problem=self.problems.append):
                    found.setdefault(s.dataset, []).append(s)
                self.vault.index()
                self._snapshots, self._opened = found, _since(began)
            return self._snapshots.get(dataset, []), self._opened

    @contextmanager
    def sandbox(self) -> Iterator[Sandbox]:
        """One for the time of the block."""
        with self._lock:
            sandbox = self._sandboxes.pop() if self._sandboxes else Sandbox()
        try:
            yield sandbox
        finally:
            with self._lock:
                self._sandboxes.append(sandbox)

    def drill(
        self, dataset: Dataset, level: str, *, seed: str | None = None, before: Before | None = None
    ) -> DrillResult:
        """Hold one drill.  What goes wrong stands in the result; Cancelled, and InvalidInput for a wrong level."""
        if level not in LEVELS:
            raise InvalidInput(f"{level!r} is no level of a drill", hint=f"levels are {', '.join(LEVELS)}")
        return _Drill(self, dataset, level, seed or self.seed_of(dataset), before or Before()).run()

    def seed_of(self, dataset: Dataset) -> str:
        """By what samples and damage are drawn if nobody says otherwise: always the same for a dataset."""
        return blake3(f"{self.vault.id}/{dataset.name}".encode()).hexdigest()[:16]

    def close(self) -> None:
        """Leave nothing.  Idempotent."""
        for sandbox in self._sandboxes:
            sandbox.close()
        self._sandboxes.clear()
        self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Drill:
    """One drill, step by step."""

    def __init__(self, ground: DrillGround, dataset: Dataset, level: str, seed: str, before: Before) -> None:
        self._ground, self._dataset, self._level, self._seed, self._before = ground, dataset, level, seed, before
        self._vault: Vault = ground.vault
        self._reporter = Reporter("drill", ground.control)
        self._steps: dict[str, Outcome] = {}
        self._times: dict[str, int] = {}
        self._problems: list[str] = []
        self._found: dict[str, Any] = {}  # further fields of the result

    def run(self) -> DrillResult:
        began, started = now(), time.monotonic()
        try:
            self._hold(began)
        except Cancelled:
            raise
        except SnapvaultError as e:
            self._end(FAIL if isinstance(e, Damaged) else NOT_RUN, e.message)
            self._found["exit_code"] = 0 if isinstance(e, Damaged) else e.exit_code
        except OSError as e:
            self._end(NOT_RUN, f"{e.filename or self._ground.scratch}: {e.strerror}")
            self._found["exit_code"] = 1
        self._times["total"] = _since(started)
        problems = [*(p.message for p in self._ground.problems), *self._problems]
        return DrillResult(
            self._dataset, self._ground.site, shown_url(self._vault.backend.url), self._level, began,
            now(), socket.gethostname(), self._steps, self._seed,
            times=self._times, versions=versions(),
            problems=tuple(problems[:PROBLEMS_MAX]), **self._found,
        )  # fmt: skip

    def _end(self, value: str, why: str) -> None:
        """An error ended it: the steps that were not done say so."""
        for step in ("structure",) if self._level == "structure" else ("restored", "compared"):
            self._steps.setdefault(step, Outcome(value, why))

    def _hold(self, began: datetime) -> None:
        snapshots, self._times["open"] = self._ground.snapshots(self._dataset.name)
        if not snapshots:
            self._end(FAIL, f"there is no snapshot of {self._dataset.name} at this place")
            return
        # As on the board, what could not be read in full counts only where nothing else is.
        whole = [s for s in snapshots if not s.partial]
        snapshot = self._found["snapshot"] = (whole or snapshots)[-1]
        self._steps["freshness"] = freshness(snapshot, self._dataset.rpo, began, self._before.newest)
        if self._level == "structure":
            self._structure(snapshot)
            return
        with Scratch(self._ground.scratch, self._ground.quota) as scratch:
            self._restore(snapshot, scratch)
        self._steps["recovery"] = recovery(self._times, self._dataset.rto)

    # -- nothing is restored ---------------------------------------------------------------------------------------

    def _structure(self, snapshot: Snapshot) -> None:
        with self._timed("structure"):
            walk = Structure(self._vault, snapshot, self._vault.loader.packs_present(), self._reporter)
            walk.run()
        self._found["blobs"] = walk.blobs
        lacking = f"{count(walk.missing, 'blob')} of {walk.blobs:,} lie in no pack that is there"
        self._steps["structure"] = Outcome(FAIL, lacking) if walk.missing else PASSED
        control = self._plant(lambda planter: planter.in_tree(), snapshot)
        self._found["control"], self._steps["control"] = control, control.outcome

    # -- something is ----------------------------------------------------------------------------------------------

    def _restore(self, snapshot: Snapshot, scratch: Scratch) -> None:
        folder, top = scratch.folder("restored"), snapshot.entry("/")
        place = Place(self._vault, snapshot, folder, self._ground.control, scratch.quota)
        back, selection = self._bring_back(place, top)
        scratch.used = back.bytes
        damaged = scratch.folder("control")
        accept = selection.included if isinstance(selection, Sample) else lambda path, is_folder: True
        # One reads this disk, the other waits for the store.
        differing, control = both(
            lambda: self._compare(place, top, selection, back),
            lambda: self._plant(lambda planter: planter.in_file(lambda path: accept(path, False), damaged), snapshot),
        )
        self._judge(back, differing)
        if self._level == "alive":
            self._probe(snapshot, folder, scratch)
        self._found["control"], self._steps["control"] = control, control.outcome

    def _bring_back(self, place: Place, top: Entry) -> tuple[BroughtBack, Selection]:
        with self._timed("restore"):
            if self._level != "sample":
                return place.restore(top, ALL), ALL
            # A part in which there is nothing is no drill: then the next one is.
            for step in range(PARTS):
                sample = Sample(self._seed, (self._before.samples + step) % PARTS)
                back = place.restore(top, sample)
                if back.files or back.others or back.lost:
                    break
            self._found |= {"part": sample.part + 1, "parts": PARTS}
            return back, sample

    def _compare(self, place: Place, top: Entry, selection: Selection, back: BroughtBack) -> list[Issue]:
        with self._timed("compare"):
            return place.compare(top, selection, back.tally)

    def _judge(self, back: BroughtBack, differing: list[Issue]) -> None:
        self._found |= {"files": back.files, "bytes": back.bytes, "lost": len(back.lost)}
        for issue in (*back.lost, *back.incomplete, *differing):
            self._problems.append(f"/{issue.path.lstrip('/')}: {issue.message}")
        if back.lost:
            self._steps["restored"] = _failed(back.lost, "lost, since stored data is damaged")
        elif back.incomplete:
            self._steps["restored"] = _failed(back.incomplete, "not restored in everything")
        elif not (back.files or back.others):
            self._steps["restored"] = Outcome(NOT_RUN, "there is nothing in the snapshot but folders")
        else:
            self._steps["restored"] = PASSED
        if not differing:
            self._steps["compared"] = PASSED
        elif all(issue.message == UNREAD for issue in differing):
            unread = f"{count(len(differing), 'path')} could not be looked at without root: {differing[0].path}"
            self._steps["compared"] = Outcome(NOT_RUN, unread)
        else:
            self._steps["compared"] = _failed(differing, "not as the record says")

    def _probe(self, snapshot: Snapshot, folder: Path, scratch: Scratch) -> None:
        probe = self._dataset.probe
        if probe is None:
            self._steps["probe"] = Outcome(NOT_RUN, "no probe is declared")
            return
        if self._steps["restored"].value == FAIL:
            self._steps["probe"] = Outcome(NOT_RUN, "what was restored is not whole")
            return
        try:
            check_probe(probe)
        except InvalidInput as e:
            self._steps["probe"] = Outcome(NOT_RUN, e.message)
            return
        with self._ground.sandbox() as sandbox:
            prober = Prober(probe, sandbox, scratch, root_of(snapshot, folder), self._reporter)
            with self._timed("probe"):
                result = prober.run()
            with self._timed("probe_controls"):
                result = prober.controls(result, self._seed)
        self._found["probe"], self._steps["probe"] = result, result.outcome

    def _plant(self, plant: Callable[[Planter], ControlResult], snapshot: Snapshot) -> ControlResult:
        """Another place of the same dataset each time, and the same again for whoever repeats this drill."""
        planter = Planter(self._vault, snapshot, f"{self._seed}/{self._before.drills}")
        with self._timed("control"):
            try:
                return plant(planter)
            except Damaged as e:
                return ControlResult(Outcome(NOT_RUN, f"no damage could be planted where there is some: {e.message}"))

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._times[what] = _since(began)


def _failed(issues: Sequence[Issue], what: str) -> Outcome:
    return Outcome(FAIL, f"{count(len(issues), 'path')} {what}: /{issues[0].path.lstrip('/')}")


def freshness(snapshot: Snapshot, rpo: timedelta | None, now: datetime, seen: datetime | None) -> Outcome:
    """Whether the newest snapshot is as new as was promised, and no older than one that was there before."""
    age = now - snapshot.time
    if age < -SKEW:
        return Outcome(FAIL, f"the newest snapshot is of {snapshot.time.isoformat()}, which is still to come")
    if rpo is not None and age > rpo:
        return Outcome(FAIL, f"the newest snapshot is {_span(age)} old, and may be {_span(rpo)} (RPO)")
    if seen is not None and seen > snapshot.time:
        return Outcome(
            FAIL,
            f"the newest snapshot here is of {snapshot.time.isoformat()}, but a drill has seen one of "
            f"{seen.isoformat()}: it was forgotten, or this place plays back an old state",
        )
    return Outcome(NOT_RUN, "nothing was promised of how old the data may be (no RPO)") if rpo is None else PASSED


def recovery(times: dict[str, int], rto: timedelta | None) -> Outcome:
    """Whether bringing it back took no longer than was promised."""
    if rto is None:
        return Outcome(NOT_RUN, "nothing was promised of how long it may take (no RTO)")
    needed = recovery_of(times)
    if needed is None:
        return Outcome(NOT_RUN, "nothing was restored")
    took = timedelta(milliseconds=needed)
    if took > rto:
        return Outcome(FAIL, f"bringing it back took {_span(took)}, and may take {_span(rto)} (RTO)")
    return PASSED


def root_of(snapshot: Snapshot, folder: Path) -> Path:
    """The dataset in what was restored: its one folder, or that of its one file; of several, what holds them all."""
    if len(snapshot.paths) == 1:
        path = Path(f"{folder}{snapshot.paths[0]}")
        path = path if path.is_dir() else path.parent
        # A link in it could lead out.
        if path.is_dir() and path.resolve() == path:
            return path
    return folder


def versions() -> dict[str, str]:
    """What it was done with."""
    return {"snapvault": VERSION, "python": platform.python_version(), "system": platform.platform()}


def _since(began: float) -> int:
    return round(1000 * (time.monotonic() - began))


def _span(time_: timedelta) -> str:
    """Days, hours, minutes or seconds, whatever says most in two digits."""
    seconds = time_.total_seconds()
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"


def drill(
    repo: "Repository", dataset: Dataset, *, level: str = "", site: str = "", seed: str | None = None,
    scratch: Path, quota: int | None = None, before: Before | None = None, control: Control | None = None,
) -> DrillResult:  # fmt: skip
    """Bring a dataset back at a scratch place, and say how that went.

    ``repo``: opened at the place to drill, which is called ``site``; ``level``: by default what the dataset's rule
    says, else alive if it has a probe, else full.  ``scratch``: a folder for the time of the drill, in which ``quota``
    bytes may be used (default: nine tenths of what is free).  Owner, maintainers and readers may: RoleRequired.
    InvalidInput, Cancelled; everything else that goes wrong stands in the result.
    """
    with DrillGround(repo, site=site, scratch=scratch, quota=quota, control=control) as ground:
        return ground.drill(dataset, level or level_of(dataset), seed=seed, before=before)


def level_of(dataset: Dataset) -> str:
    """How far a dataset is to be drilled."""
    if dataset.drill is not None:
        return dataset.drill.level
    return "full" if dataset.probe is None else "alive"
