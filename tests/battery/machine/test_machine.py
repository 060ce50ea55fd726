"""A repository against a dict of trees (family 7): whatever is done in whatever order, what was acknowledged is there.

Edits, backups by two holders, forgetting, key changes, lost caches, runs killed at any call, lost and damaged objects.
Without damage nothing is ever lost.  With it, exactly what a restore names, and a check names the same; an index or a
session object that is lost costs nothing; a repair loses nothing more; the next backup stores again what is missing.
"""

import itertools
import random
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from battery import lab
from battery.lab import Lost, Objects, Tree
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

import snapvault
from snapvault.backend.memory import MemoryBackend
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.foundation.events import Control, Limits
from snapvault.foundation.ids import SessionId
from snapvault.operations import saver
from snapvault.repository import site
from snapvault.testing.faults import Fault, FaultyBackend, Killed, Kind

PATHS = ("one", "two", "a/three", "a/four", "a/b/five", "c/six")
SIZES = (0, 1, 300, 2_500, 7_000)
ONE_THREAD = Control(limits=Limits(threads=1))
numbers = st.integers(min_value=0, max_value=1 << 16)

done: Counter[str] = Counter()  # what the machines did, so that a run that tried nothing fails
_names = itertools.count()
_first: dict[str, tuple[Objects, str]] = {}


def fresh_repository() -> tuple[Objects, str]:
    """The objects of a new repository, and its recovery key; made once."""
    if not _first:
        store = lab.memory()
        made = snapvault.init(store.url, keys=lambda: lab.SEED, chunking=lab.CHUNKING)
        made.repository.close()
        _first["made"] = dict(store.objects), made.recovery_key
    return _first["made"]


class Machine(RuleBasedStateMachine):
    """The model: the source as it is, a tree for each snapshot, and what was done to the store.

    No rule has a precondition: keys are random, so what there is differs when hypothesis plays a run again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="snapvault-"))
        self.source = self.home / "src"
        self.source.mkdir()
        objects, self.recovery = fresh_repository()
        self.store = lab.memory()
        self.store.objects.update(objects)
        self.tree: Tree = {}
        self.trees: dict[str, Tree] = {}
        self.bare: set[str] = set()  # snapshots that stored nothing: their session object alone has their header
        self.forgotten: set[str] = set()
        self.damage: Objects = {}  # what was taken away or changed, as it was
        self.silent = False  # some of it cannot be seen by a backup
        self.mended = False  # repaired since something was last damaged
        self.repaired = False  # at some time since something was first damaged
        self.settled = False  # and pruned after that
        self.keys: dict[str, bytes] = {}  # of a reader, of a writer
        self.repo = self.open()
        self.patches = mock.patch.object(saver, "RACY_NS", -(10**9))  # else no file is ever taken as unchanged
        self.patches.start()
        self.small = lab.small_parts()
        self.small.__enter__()

    def teardown(self) -> None:
        try:
            self.verify(0)
        finally:
            self.repo.close()
            self.small.__exit__(None, None, None)
            self.patches.stop()
            self.store.objects.clear()
            shutil.rmtree(self.home)

    def open(self, keys: bytes | None = None, *, cached: bool = True) -> snapvault.Repository:
        cache = self.home / "cache" if cached else None
        return snapvault.open(self.store.url, keys=lambda: keys or lab.SEED, cache=cache, state=self.home / "state")

    # -- the source ------------------------------------------------------------------------------------------------

    @initialize(seed=numbers)
    def first_files(self, seed: int) -> None:
        for path in PATHS[:4]:
            self.write(path, seed, 2)

    @rule(path=st.sampled_from(PATHS), seed=st.integers(0, 3), size=st.integers(0, len(SIZES) - 1))
    def write(self, path: str, seed: int, size: int) -> None:
        """A file with one of a few contents, so that much of it was stored before."""
        data = random.Random(seed).randbytes(SIZES[size])
        place = self.source / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_name("new").write_bytes(data)
        place.with_name("new").rename(place)
        self._model(path, data)

    @rule(path=st.sampled_from(PATHS), at=st.integers(0, 9_000))
    def change(self, path: str, at: int) -> None:
        """A few bytes in the middle."""
        old = self.tree.get(path)
        if old:
            at %= len(old)
            self._replace(path, old[:at] + b"changed" + old[at + 7 :])

    @rule(path=st.sampled_from(PATHS))
    def delete(self, path: str) -> None:
        if path in self.tree:
            (self.source / path).unlink()
            del self.tree[path]

    def _replace(self, path: str, data: bytes) -> None:
        (self.source / "new").write_bytes(data)
        (self.source / "new").rename(self.source / path)
        self._model(path, data)

    def _model(self, path: str, data: bytes) -> None:
        self.tree[path] = data
        for folder in list(Path(path).parents)[:-1]:
            self.tree[str(folder)] = None

    # -- backups ---------------------------------------------------------------------------------------------------

    @rule(again=st.booleans(), force=st.booleans())
    def backup(self, again: bool, force: bool) -> None:
        """By the open repository, or by one that knows nothing but the cache."""
        if again:
            self.reopen()
        self._acknowledged(snapvault.backup(self.repo, self.source, dataset="d", force_read=force, control=ONE_THREAD))

    @rule(cached=st.booleans())
    def backup_by_writer(self, cached: bool) -> None:
        """A key that cannot read anything back, with or without its cache."""
        if "writer" not in self.keys:
            return
        with self.open(self.keys["writer"], cached=cached) as repo:
            self._acknowledged(snapvault.backup(repo, self.source, dataset="w", control=ONE_THREAD))

    def _acknowledged(self, result: snapvault.BackupResult) -> None:
        assert result.status == "ok", result
        done["backups"] += 1
        done["unmodified"] += result.files_unmodified
        done["healing"] += bool(self.damage) and not self.silent and result.bytes_stored > 0
        self.trees[result.snapshot] = dict(self.tree)
        if not result.bytes_stored:
            self.bare.add(result.snapshot)
        if not self.silent:  # whatever is lost was seen to be lost, so all of this is there
            with self.open(cached=False) as repo:
                assert not self._restore(repo, result.snapshot)

    @rule(at=st.integers(1, 45), after=st.booleans())
    def killed(self, at: int, after: bool) -> None:
        """A run that dies at any call; if it got as far as its commit, that counts."""
        before = set(self.store.objects)
        fault = Fault(at=at, kind=Kind.KILL, after=after)
        faulty = FaultyBackend(MemoryBackend(self.store.url.removeprefix("memory://")), [fault])
        with mock.patch.object(site, "open_backend", lambda *args, **options: faulty):
            try:
                repo = self.open(cached=False)
                self._acknowledged(snapvault.backup(repo, self.source, dataset="d", control=ONE_THREAD))
            except Killed:
                done["killed"] += 1
                for name in set(self.store.objects) - before:
                    if name.startswith(names.SNAPSHOTS):
                        done["killed after the commit"] += 1
                        self.trees[name.removeprefix(names.SNAPSHOTS)] = dict(self.tree)
                        self.bare.add(name.removeprefix(names.SNAPSHOTS))  # perhaps

    # -- snapshots and keys ----------------------------------------------------------------------------------------

    @rule(which=numbers)
    def forget(self, which: int) -> None:
        there = sorted(self.trees)  # also one that cannot be opened any more
        if len(there) > 1:
            sid = there[which % len(there)]
            snapvault.forget_snapshots(self.repo, [sid], undelete_window=timedelta(0))
            self.trees.pop(sid)
            self.forgotten.add(sid)

    @rule(which=numbers, unused=st.sampled_from([0.0, 0.3, 1.0]), mend=st.booleans())
    def prune(self, which: int, unused: float, mend: bool) -> None:
        """Whoever was killed before is revoked at once."""
        if self.damage and mend:
            self.bring_back()
        if self.damage and not self.mended:
            return
        self.forget(which)
        before = self._everything_lost()
        plan = snapvault.plan_prune(self.repo, limits=snapvault.PruneLimits(unused=unused))
        result = plan.execute(wait=timedelta(0), lease=timedelta(0))
        doubts = [p for p in result.problems if "its note says that it is lost, but index/" in p]
        if self.damage and doubts and len(doubts) == len(result.problems):
            done["prunes in doubt"] += 1
        else:
            assert result.status == "ok", result
        self.settled = bool(self.damage)
        done["pruned"] += bool(result.packs_removed)
        done["copied"] += bool(result.bytes_copied)
        assert self._everything_lost() == before
        self.reopen()

    @rule(which=numbers, at=st.integers(1, 90), after=st.booleans())
    def killed_prune(self, which: int, at: int, after: bool) -> None:
        if self.damage:
            return
        self.forget(which)
        fault = Fault(at=at, kind=Kind.KILL, after=after)
        faulty = FaultyBackend(MemoryBackend(self.store.url.removeprefix("memory://")), [fault])
        with mock.patch.object(site, "open_backend", lambda *args, **options: faulty):
            try:
                repo = self.open(cached=False)
                plan = snapvault.plan_prune(repo, limits=snapvault.PruneLimits(unused=0.0))
                plan.execute(wait=timedelta(0), lease=timedelta(0))
            except Killed:
                done["prunes killed"] += 1
        self.reopen()

    @rule()
    def rotate(self) -> None:
        snapvault.rotate(self.repo)

    @rule(role=st.sampled_from([Role.READER, Role.WRITER]))
    def add_key(self, role: str) -> None:
        if role not in self.keys:
            file = self.home / f"{role}-{next(_names)}"
            snapvault.add_key(self.repo, role, file.name, file=file)
            self.keys[role] = file.read_bytes()

    @rule(role=st.sampled_from([Role.READER, Role.WRITER]))
    def remove_key(self, role: str) -> None:
        if role in self.keys:
            key = self.keys.pop(role)
            with self.open(key) as repo:
                holder = repo.vault.ring.holder
            assert holder is not None
            snapvault.remove_key(self.repo, holder.name)
            with pytest.raises(snapvault.KeyRejected):
                self.open(key)

    @rule()
    def reopen(self) -> None:
        self.repo.close()
        self.repo = self.open()

    @rule()
    def lose_cache(self) -> None:
        shutil.rmtree(self.home / "cache", ignore_errors=True)

    # -- damage ----------------------------------------------------------------------------------------------------

    def _pick(self, prefix: str, which: int) -> str | None:
        found = sorted(n for n in self.store.objects if n.startswith(prefix) and n not in self.damage)
        return found[which % len(found)] if found else None

    def _take(self, prefix: str, which: int) -> str | None:
        name = self._pick(prefix, which)
        if name is not None:
            self.damage[name] = self.store.objects.pop(name)
            self.mended = False
            done[f"lost {prefix}"] += 1
            self.reopen()
        return name

    @rule(which=numbers)
    def lose_index(self, which: int) -> None:
        self._take(names.INDEX, which)

    @rule(which=numbers)
    def lose_pack(self, which: int) -> None:
        self._take(names.PACKS, which)

    @rule(which=numbers)
    def lose_session(self, which: int) -> None:
        self._take(names.SESSIONS, which)

    @rule(which=numbers, bit=numbers)
    def flip(self, which: int, bit: int) -> None:
        """A pack that looks whole from outside: no backup sees it, a check does."""
        name = self._pick(names.PACKS, which)
        if name is not None:
            data = bytearray(self.store.objects[name])
            self.damage[name] = bytes(data)
            data[bit % len(data)] ^= 1
            self.store.objects[name] = bytes(data)
            self.silent, self.mended = True, False
            done["flipped"] += 1

    @rule()
    def bring_back(self) -> None:
        """Everything that was taken or changed comes back from a copy; after a repair another one takes note of it."""
        if self.settled:  # what a lost folder needed is gone, too
            return
        self.store.objects.update(self.damage)
        self.damage, self.silent = {}, False
        self.reopen()
        if self.repaired:
            result = snapvault.plan_repair(self.repo).execute(wait=timedelta(0), lease=timedelta(0))
            assert result.status == "ok", result
            self.mended = self.repaired = False
            self.reopen()

    @rule()
    def repair(self) -> None:
        """What could be restored before, and no more, can be restored after it; nobody is misled by a flip any more."""
        if not self.damage:
            return
        before = self._everything_lost()
        result = snapvault.plan_repair(self.repo).execute(wait=timedelta(0), lease=timedelta(0))
        after = self._everything_lost()
        assert after.keys() == before.keys(), result
        assert all(_is_within(p, before[sid]) for sid in after for p in after[sid]), (before, after, result)
        self.reopen()
        assert {(p.snapshot, p.path) for p in result.after.lost} == {p for lost in after.values() for p in lost}
        self.silent, self.mended, self.repaired = False, True, True
        done["repaired"] += bool(result.packs_salvaged + result.packs_listed + result.objects_restored)

    # -- the oracle ------------------------------------------------------------------------------------------------

    def _restore(self, repo: snapvault.Repository, sid: str) -> Lost:
        return lab.restore_one(repo, sid, self.trees[sid], self.home, str(self.source))

    def _everything_lost(self) -> dict[str, Lost]:
        """By what is in the store, not what a cache still knows of it."""
        with self.open(cached=False) as repo:
            return {s.id: self._restore(repo, s.id) for s in repo.snapshots()}

    def _unopened(self) -> set[str]:
        """Snapshots whose session object is lost, and perhaps no pack has their header."""
        sessions = {n.removeprefix(names.SESSIONS) for n in self.damage if n.startswith(names.SESSIONS)}
        return sessions & (self.bare | {s for s in self.trees if self._packs_lost(s)})

    def _packs_lost(self, sid: str) -> bool:
        """Whether a pack is lost that may have been the only one of this session."""
        return any(n.startswith(names.PACKS) for n in self.damage) and SessionId(sid) in self.trees

    def _reasons(self, repo: snapvault.Repository, report: snapvault.CheckReport, sids: set[str]) -> str:
        """Why a check and a restore do not agree about these snapshots.  Keys are random, so no seed brings it back."""
        told = [f"check: {f.message}" for f in report.findings]
        told += [f"check: {p.path} of {p.snapshot}: {p.message}" for p in report.lost if p.snapshot in sids]
        for sid in sids:
            try:
                result = snapvault.restore(repo, sid, self.home / "again")
                told += [f"restore: {i.path} of {sid}: {i.message}" for i in result.lost]
            except snapvault.Damaged as e:
                told.append(f"restore of {sid}: {e}\n{traceback.format_exc()}")
        for name, data in self.damage.items():
            there = self.store.objects.get(name)
            where = (
                "gone" if there is None else next(i for i, (a, b) in enumerate(zip(data, there, strict=True)) if a != b)
            )
            told.append(f"damage: {name} of {len(data)} bytes: {where}")
        return "\n".join(told)

    @rule(who=st.integers(0, 2))
    def verify(self, who: int) -> None:
        """Owner, reader or recovery key: everything comes back, or is named; and check says the same."""
        openers: list[Callable[[], snapvault.Repository]] = [lambda: self.open(cached=False)]
        if "reader" in self.keys:
            openers.append(lambda: self.open(self.keys["reader"], cached=False))
        openers.append(lambda: snapvault.open(self.store.url, keys=lambda: self.recovery.encode()))
        with openers[who % len(openers)]() as repo:
            report = snapvault.check(repo, read_data=True)
        with openers[who % len(openers)]() as repo:
            listed = {s.id for s in repo.snapshots()}
            missing = set(self.trees) - listed
            assert missing <= self._unopened(), f"acknowledged snapshots are not listed: {missing}"
            assert not self.forgotten & listed
            assert listed <= set(self.trees)
            lost = {p for sid in listed for p in self._restore(repo, sid)}
            named = {(p.snapshot, p.path) for p in report.lost}
            assert named == lost, self._reasons(repo, report, {sid for sid, _ in named ^ lost})
        done["lost paths"] += len(lost)
        packs = [n for n in self.damage if n.startswith(names.PACKS)]
        assert packs or not lost, f"lost without a damaged pack: {lost}"
        assert self.damage or report.status == "ok", report.findings
        noted = report.status == "partial" and all(p.noted for p in report.lost)
        assert not lost or report.status == "damaged" or noted


def _is_within(path: tuple[str, str], lost: Lost) -> bool:
    """Whether it was lost, or a folder above it was: what comes back of that may lack something deeper."""
    return any(path[0] == sid and Path(path[1]).is_relative_to(above) for sid, above in lost)


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None, print_blob=True,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        ),
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_the_machine() -> None:
    done.clear()
    run(200, 30)
    for _ in range(4):
        if _everything_happened():
            break
        run(100, 30)  # what is rare did not come up often enough
    print(done)
    assert _everything_happened(), done


def _everything_happened() -> bool:
    often = [
        "backups", "unmodified", "healing", "killed", "killed after the commit", "flipped", "lost paths",
        "prunes killed", "repaired", *(f"lost {prefix}" for prefix in (names.PACKS, names.INDEX, names.SESSIONS)),
    ]  # fmt: skip
    return all(done[what] >= 5 for what in often) and bool(done["pruned"])


@pytest.mark.long
@pytest.mark.timeout(0)
def test_the_machine_for_long() -> None:
    run(5_000, 100)
