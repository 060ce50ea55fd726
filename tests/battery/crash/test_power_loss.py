"""The power goes at any moment of a recorded run, and of what was not synced an arbitrary part is lost (family 2)."""

import logging
import os
import random
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from battery import model, powerloss
from battery.oracle import Ledger, remember

import snapvault
from snapvault.backend.local import LocalBackend
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.protocol import Backend
from snapvault.repository.loader import IndexLoader
from snapvault.testing.faults import Killed

log = logging.getLogger(__name__)

HOME = "deep/in/repository"  # below the disk's root; none of these folders is there before init


class Run:
    """A history on a recorded disk.  Marks in the record say from where on what was owed."""

    def __init__(self, disk: Path) -> None:
        self.disk, self.source = disk / "disk", disk / "source"
        self.disk.mkdir(parents=True)
        model.make_source(self.source)
        self.record = powerloss.Recorder(str(self.disk))
        self.place = self.disk / HOME
        self.key_file = disk / "writer.key"

    def backend(self) -> Backend:
        return LocalBackend(self.place, create=True)

    def init(self) -> None:
        model.init(self.backend()).close()
        self.record.mark(("init",))

    def backup(self) -> None:
        tree = remember(self.source)
        with model.opened(self.backend()) as repo:
            result = snapvault.backup(repo, self.source, dataset="model", host="here")
        self.record.mark(("backup", result.snapshot, tree))

    def change(self, step: int) -> None:
        model.change_source(self.source, step)

    def forget(self) -> None:
        with model.opened(self.backend()) as repo:
            first = next(repo.snapshots()).id
            self.record.mark(("forgetting", first))
            snapvault.forget_snapshots(repo, [first])
        self.record.mark(("forgot", first))

    def prune(self) -> None:
        """What only the first snapshot needs goes; packs that others need, too, are copied first."""
        with model.opened(self.backend()) as repo:
            first = next(repo.snapshots()).id
            self.record.mark(("forgetting", first))
            snapvault.forget_snapshots(repo, [first], undelete_window=timedelta(0))
            self.record.mark(("forgot", first))
            plan = snapvault.plan_prune(repo, limits=snapvault.PruneLimits(unused=0.0))
            result = plan.execute(wait=timedelta(0), lease=timedelta(0))
        self.record.mark(("pruned", result.packs_removed, result.bytes_copied))

    def rotate(self) -> None:
        with model.opened(self.backend()) as repo:
            snapvault.rotate(repo)

    def add_key(self) -> None:
        with model.opened(self.backend()) as repo:
            snapvault.add_key(repo, "writer", "client", file=self.key_file)
        self.record.mark(("key", self.key_file.read_bytes()))

    def check(self) -> None:
        with model.opened(self.backend()) as repo:
            snapvault.check(repo, read_data=True)


class Judge:
    """Looks at each state once: it opens, holds what is owed, and the next backup works."""

    def __init__(self, run: Run, scratch: Path) -> None:
        self._run, self._scratch = run, scratch
        self._seen: set[int] = set()

    @property
    def seen(self) -> int:
        return len(self._seen)

    def judge(self, state: powerloss.State, files: dict[str, bytes]) -> None:
        found = powerloss.objects(files, HOME)
        marks = state.marks
        fingerprint = hash((frozenset(found.items()), len(marks)))
        if fingerprint in self._seen:
            return
        self._seen.add(fingerprint)
        store, ledger = MemoryBackend(), self._ledger(marks)
        store.objects.update(found)
        if ("init",) not in marks:
            self._take_up(store)
        for key in (mark[1] for mark in marks if mark[0] == "key"):
            with model.served_by(store), snapvault.open("memory://", keys=lambda key=key: key) as repo:
                assert repo.role == "writer"
        no_scan = mock.patch.object(IndexLoader, "_scan", side_effect=AssertionError("a blob is in no index object"))
        with no_scan, model.opened(store) as repo:
            self._allow_forgetting(repo, marks, ledger)
            ledger.verify(repo, self._scratch)
            ledger.backup(repo)
        with model.opened(store) as repo:
            ledger.verify(repo, self._scratch)

    def _ledger(self, marks: list[tuple[object, ...]]) -> Ledger:
        ledger = Ledger(self._run.source)
        for mark in marks:
            if mark[0] == "backup":
                ledger.trees[str(mark[1])] = mark[2]  # type: ignore[assignment]
            elif mark[0] == "forgot":
                ledger.forgotten.add(str(mark[1]))
        return ledger

    def _allow_forgetting(self, repo: snapvault.Repository, marks: list[tuple[object, ...]], ledger: Ledger) -> None:
        """While a forget runs, its snapshot may be listed or not."""
        listed = {s.id for s in repo.snapshots()}
        ledger.forgotten |= {str(m[1]) for m in marks if m[0] == "forgetting" and m[1] not in listed}

    def _take_up(self, store: MemoryBackend) -> None:
        try:
            model.opened(store).close()
        except snapvault.RepositoryNotFound:
            model.init(store).close()


def states(notes: list[powerloss.Note], root: str) -> Iterator[powerloss.State]:
    """The disk after each note; one object that goes on."""
    state = powerloss.State(root)
    for note in notes:
        state.play(note)
        yield state


def history(run: Run) -> None:
    """Every operation of a sound repository once, and a backup that uploads nothing."""
    with run.record.recording():
        run.init()
        for step in (1, 2):
            run.backup()
            run.change(step)
        run.rotate()
        run.backup()
        run.add_key()
        run.backup()
        run.forget()
        run.check()
        run.change(3)
        run.backup()
        run.prune()
        run.backup()


@pytest.fixture
def run(ram: Path, request: pytest.FixtureRequest) -> Run:
    return Run(ram / request.node.name)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Not beside the source: a backup of what did not change at all shall find nothing to store."""
    return tmp_path


def test_the_record_is_whole(run: Run) -> None:
    """Played back with nothing lost it is what lies on the disk; so no call got past the recorder."""
    history(run)
    *_, last = states(run.record.notes, str(run.disk))
    real = {os.path.relpath(p, run.disk): p.read_bytes() for p in run.disk.rglob("*") if p.is_file()}
    assert last.lose(lambda: True, random.Random(0)) == real
    kinds = {note.what for note in run.record.notes}
    # No "rename": nothing is written in the place of something else.
    assert kinds == {"mkdir", "create", "write", "sync", "link", "unlink", "syncdir", "mark"}
    assert powerloss.objects(last.lose(lambda: False, random.Random(0)), HOME)  # and something was durable


def sampled(run: Run, scratch: Path, count: int, seed: int) -> None:
    history(run)
    choose, judge, tried, uncertain = random.Random(seed), Judge(run, scratch), 0, 0
    notes = run.record.notes
    picked = [choose.randrange(len(notes)) for _ in range(max(0, count - 2 * len(notes)))]
    often = {at: picked.count(at) for at in picked}
    for at, state in enumerate(states(notes, str(run.disk))):
        uncertain = max(uncertain, state.uncertain)
        for keep in (lambda: False, lambda: True):
            judge.judge(state, state.lose(keep, choose))
        for _ in range(often.get(at, 0)):
            share = choose.random()
            judge.judge(state, state.lose(lambda share=share: choose.random() < share, choose))
        tried += 2 + often.get(at, 0)
    log.info("seed %d: %d states, %d of them different", seed, tried, judge.seen)
    assert tried >= count and judge.seen > 40 and uncertain > 2


def test_any_moment(run: Run, scratch: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    sampled(run, scratch, 2_000, seed)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_any_moment_long(run: Run, scratch: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    sampled(run, scratch, 50_000, seed)


NAMES = ("mkdir", "link", "rename")  # what a kill may leave visible and not yet durable


def killed_at(run: Run, operation: str, nth: int) -> bool:
    """Kill the operation right after the nth name that it makes.  False: it makes fewer."""
    left = nth

    def due(note: powerloss.Note) -> bool:
        nonlocal left
        left -= note.what in NAMES
        return left == 0

    with run.record.recording():
        if operation != "init":
            run.init()
            run.backup()
            run.change(1)
        if operation == "prune":
            run.backup()
        run.record.kill_after = due
        try:
            getattr(run, operation)()
        except Killed:
            return True
        finally:
            run.record.revive()
        return False


@pytest.mark.parametrize("operation", ["init", "backup", "rotate", "add_key", "forget", "prune"])
def test_killed_before_the_power_goes(ram: Path, scratch: Path, operation: str) -> None:
    """The next process sees what the killed one did not make durable, builds on it, and acknowledges."""
    choose = random.Random(5)
    for nth in range(1, 1000):
        run = Run(ram / f"{operation}-{nth}")
        if not killed_at(run, operation, nth):
            break
        with run.record.recording():
            if operation == "init":
                try:
                    model.opened(run.backend()).close()
                except snapvault.RepositoryNotFound:
                    run.init()
                else:
                    run.record.mark(("init",))
            run.backup()
        *_, state = states(run.record.notes, str(run.disk))
        judge = Judge(run, scratch)
        for share in (0.0, 1.0, 0.5, 0.5, 0.5):
            judge.judge(state, state.lose(lambda share=share: choose.random() < share, choose))
        shutil.rmtree(run.disk.parent)
    assert nth > 1
