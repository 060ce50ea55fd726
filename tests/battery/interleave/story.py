"""Writers, prunes, a forgetter and a reader on one repository, and whether anything is lost that was acknowledged."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from unittest import mock

from battery import lab
from battery.interleave.schedule import Actor, Scheduler, scheduled, seeded
from battery.lab import Lab, Objects, Tree

import snapvault
from snapvault.access.resolve import list_forgotten
from snapvault.format import names
from snapvault.foundation.clock import nanoseconds, now_ns
from snapvault.foundation.errors import Conflict, Damaged, SnapvaultError
from snapvault.operations.prune import PruneLimits, plan_prune
from snapvault.repository import create

NEVER, AT_ONCE = timedelta(days=10**6), timedelta(0)
WINDOWS = (AT_ONCE, timedelta(seconds=30), timedelta(seconds=300), timedelta(hours=36), timedelta(days=9))
ALL = PruneLimits(unused=0.0)
CONTENTS = [bytes([n]) * (600 + 90 * n) for n in range(8)]  # few, so that much of it was stored before


@dataclass
class Base:
    """A repository with three snapshots, made once."""

    objects: Objects
    trees: dict[str, Tree]


def base() -> Base:
    store = lab.memory()
    # So small that a backup has several packs, and hears of others' between them.
    small = mock.patch.object(create, "PACK_SIZE", 2048), mock.patch.object(create, "SEGMENT_SIZE", 1024)
    with lab.small_parts(), small[0], small[1], seeded(0, 0), scheduled(Scheduler(0, mishaps=0)):
        snapvault.init(store.url, keys=lambda: lab.SEED, chunking=lab.CHUNKING).repository.close()
        made = Lab(store, home=None)  # type: ignore[arg-type]
        with made.open() as repo:
            for number in range(3):
                made.backup(repo, {"a": CONTENTS[number], "b": CONTENTS[number + 1], "c/d": CONTENTS[7 - number]})
    return Base(dict(store.objects), made.trees)


@dataclass
class Story:
    """One run."""

    seed: int
    lab: Lab
    scheduler: Scheduler
    undone: set[str] = field(default_factory=set)  # committed by one who died before it could tell
    pruned: int = 0
    happened: set[str] = field(default_factory=set)
    machines: Path | None = None  # state directories of those who prune
    promised: dict[str, int] = field(default_factory=dict)  # forgotten, and until when each comes back (ns)

    def __post_init__(self) -> None:
        # By a source of its own, and in every fourth run: the others are those that they were without it.
        self.windows = Random(f"windows {self.seed}") if self.seed % 8 in (4, 5) else None

    def play(self) -> None:
        draw = self.scheduler.random
        cast = [("writer", self.write)] * draw.choice((1, 2, 2, 3)) + [("prune", self.prune)] * draw.choice(
            (1, 1, 2, 3)
        )
        cast += [("forgets", self.forget)] * (draw.choice((0, 1, 1)) + (self.windows is not None))
        cast += [("reader", self.read)] * draw.choice((0, 1))
        cast += [("cleaner", self.clean)] * draw.choice((0, 1))
        cast += [("undelete", self.undelete)] * draw.choice((0, 0, 1))
        actors = [Actor(f"{role} {n}", work, self.scheduler) for n, (role, work) in enumerate(cast)]
        with (
            seeded(self.seed, 1, self.scheduler),
            scheduled(self.scheduler),
            lab.small_parts(),
        ):
            first = draw.sample(sorted(self.lab.trees), draw.choice((1, 1, 2)))
            with self.lab.open() as repo:
                snapvault.forget_snapshots(repo, first, undelete_window=self._forgets(first))
            self.scheduler.run(actors)
        for actor in actors:
            if actor.error is not None:
                raise AssertionError(f"{actor.name}: {actor.error!r}") from actor.error

    def _forgets(self, sids: Iterable[str]) -> timedelta:
        """These are about to be forgotten, for as long as this."""
        self.lab.forgotten.update(sids)
        return self._promises(self.promised, sids)

    def _promises(self, promised: dict[str, int], sids: Iterable[str]) -> timedelta:
        window = self.windows.choice(WINDOWS) if self.windows is not None else AT_ONCE
        least = now_ns() + nanoseconds(window)
        promised |= {sid: min(least, promised.get(sid, least)) for sid in sids}
        return window

    def owed(self) -> set[str]:
        """What was acknowledged, and is not forgotten or could still be brought back."""
        return set(self.lab.trees) - (self.lab.forgotten - still_back(self.promised))

    # -- the cast --------------------------------------------------------------------------------------------------

    def write(self) -> None:
        draw = self.scheduler.random
        for _ in range(draw.choice((1, 1, 2))):
            tree: Tree = {name: draw.choice(CONTENTS) for name in ("a", "b", "c/d", "e")}
            try:
                with self.lab.open() as repo:
                    self.lab.backup(repo, tree)
                self.happened.add("backup")
            except Conflict:
                self.happened.add("revoked")

    def prune(self) -> None:
        """One or two in turn on the same machine; where one gave up waiting, another one soon goes on."""
        draw = self.scheduler.random
        machine = None if self.machines is None else self.machines / draw.choice("abc")
        waited, runs = False, draw.choice((1, 2))
        while runs:
            runs -= 1
            limits = PruneLimits(unused=0.0, time=draw.choice((None, None, AT_ONCE)))
            with self.lab.open(state=machine) as repo:
                plan = plan_prune(repo, limits=limits)
                try:
                    result = plan.execute(
                        wait=timedelta(seconds=draw.choice((0, 0, 20, 300))),
                        lease=draw.choice((NEVER, NEVER, NEVER, AT_ONCE)),
                    )
                except Conflict:
                    self.happened.add("prune revoked")
                    return
            self.pruned += result.packs_removed
            self.happened.add("prune waits" if result.waits_for else "resumed" if waited else "prune")
            runs = max(runs, bool(result.waits_for) - waited)
            waited = bool(result.waits_for)
            if result.bytes_copied:
                self.happened.add("copy")

    def forget(self) -> None:
        with self.lab.open() as repo:
            if self.windows is not None:
                return self._forget_planned(repo)
            found = [s.id for s in repo.snapshots()]
            chosen = self.scheduler.random.sample(found, min(len(found), 1))
            snapvault.forget_snapshots(repo, chosen, undelete_window=self._forgets(chosen))

    def _forget_planned(self, repo: snapvault.Repository) -> None:
        """By a plan that somebody thinks about, so that several forget the same, for other times."""
        assert self.windows is not None
        plan = snapvault.plan_forget(repo, snapvault.Retention(last=self.windows.choice((1, 2))))
        for _ in range(5):
            repo.snapshots()
        plan.execute(undelete_window=self._forgets([s.id for s in plan.forget]))

    def read(self) -> None:
        with self.lab.open() as repo:
            try:
                snapshot = repo.snapshot("lab@latest")
            except snapvault.InvalidInput:
                return  # none is left
            try:
                found = contents(snapshot)
            except Damaged:
                if snapshot.id in self.owed():
                    raise
                return
            assert found == self.lab.trees.get(snapshot.id, found)
            self.happened.add("read")

    def clean(self) -> None:
        """What nobody needs any more once a GC's slot is filled: its record."""
        with self.lab.open() as repo:
            backend = repo.vault.backend
            for _ in range(6):
                ended = {o.name.removeprefix(names.SNAPSHOTS) for o in backend.list(names.SNAPSHOTS)}
                for record in [o.name for o in backend.list(names.GC)]:
                    if record.removeprefix(names.GC) in ended:
                        backend.delete(record)
                        self.happened.add("cleaned")

    def undelete(self) -> None:
        with self.lab.open() as repo:
            sid = self.scheduler.random.choice(sorted(self.lab.forgotten))
            try:
                result = snapvault.undelete(repo, sid)
            except (Damaged, snapvault.InvalidInput, Conflict) as e:
                if isinstance(e, Damaged) and sid in self.owed():
                    raise
                self.happened.add("not undeleted")
                return
            if sid in self.lab.trees:
                self.lab.trees[result.snapshot] = self.lab.trees[sid]
            self.happened.add("undeleted")

    # -- the end ---------------------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Everything that is owed is there; also after one more prune, with nobody else."""
        for last in (False, True):
            with seeded(self.seed, 2 + last), self.lab.open() as repo:
                listed = {s.id: s for s in repo.snapshots()}
                missing = set(self.lab.trees) - self.lab.forgotten - set(listed)
                assert not missing, f"acknowledged, and gone: {missing}"
                back = {s.id: s for s, _ in list_forgotten(repo.vault)}
                owed = self.owed()
                assert owed <= {*listed, *back}, f"forgotten, and gone before its time: {owed - {*listed, *back}}"
                for sid, snapshot in {**listed, **back}.items():
                    if sid in owed or sid not in self.lab.forgotten:
                        found = contents(snapshot)
                        assert found == self.lab.trees.get(sid, found), f"snapshot {sid} is another"
                if last:
                    self._bring_back(repo, owed & set(back))
                report = snapvault.check(repo, read_data=True)
                problems = [f.message for f in report.findings if not f.harmless]
                assert not problems, problems
                if not last:
                    with lab.small_parts():
                        result = plan_prune(repo, limits=ALL).execute(wait=timedelta(0), lease=AT_ONCE)
                    assert not result.waits_for, result

    def _bring_back(self, repo: snapvault.Repository, sids: Iterable[str]) -> None:
        for sid in sids:
            try:
                result = snapvault.undelete(repo, sid)
            except snapvault.InvalidInput as e:
                assert "is back already" in e.message
                continue
            assert contents(repo.snapshot(result.snapshot)) == self.lab.trees[sid]
            self.happened.add("brought back")


def still_back(promised: dict[str, int]) -> set[str]:
    """What of this could still be brought back now."""
    now = now_ns()
    return {sid for sid, until in promised.items() if until > now}


def contents(snapshot: snapvault.Snapshot) -> Tree:
    """The files of a snapshot, read with everything verified."""
    found: Tree = {}
    for entry in snapshot.ls("/", recursive=True):
        if entry.kind == "file":
            with snapshot.open(entry.path) as file:
                found[entry.path.removeprefix(f"{lab.ROOT}/")] = file.read()
    return found


def play(made: Base, seed: int) -> Story:
    """One seeded run; AssertionError with the trace if anything is lost."""
    store = lab.memory()
    store.objects.update(made.objects)
    story = Story(seed, Lab(store, home=None, trees=dict(made.trees)), Scheduler(seed, mishaps=seed % 3))  # type: ignore[arg-type]
    story.machines = Path(mkdtemp(dir="/dev/shm", prefix="snapvault-"))
    try:
        story.play()
        story.verify()
    except (AssertionError, SnapvaultError) as e:
        raise AssertionError(f"seed {seed}: {e}\n" + "\n".join(story.scheduler.trace[-400:])) from e
    finally:
        store.objects.clear()
        shutil.rmtree(story.machines)
    return story
