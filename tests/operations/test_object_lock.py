"""What is locked, for how long, and what a prune does where the store lets nothing go."""

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from locking import RULE, LockingStore

import snapvault
from snapvault import PruneResult, Repository
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.object_lock import Lock
from snapvault.format import names
from snapvault.foundation.errors import InvalidInput, StoreDenied
from snapvault.foundation.events import Reporter
from snapvault.operations import check_data
from snapvault.operations import prune as prune_module
from snapvault.operations.object_lock import review_locks
from snapvault.operations.prune import PruneLimits, plan_prune
from snapvault.repository import session
from snapvault.repository.credentials import Password
from snapvault.repository.store import fetch
from tests.repos import SEED, SMALL, again, damage, make, open_session, small_packs

NOW = timedelta(0)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """In a store that locks for 30 days, with small packs."""
    small_packs(monkeypatch)
    made = make(tmp_path / "repo", chunking=SMALL)
    store = LockingStore(made.vault.backend)
    made.vault.store.backend = store
    for info in store.list():
        if not info.name.startswith(names.LOCAL):
            store.locks[info.name] = Lock(RULE.mode, datetime.now(UTC) + RULE.period)
    return made


def store_of(repo: Repository) -> LockingStore:
    store = repo.vault.store.backend
    assert isinstance(store, LockingStore)
    return store


def anew(repo: Repository) -> Repository:
    """Opened anew, with the same store."""
    other = again(repo)
    other.vault.store.backend = store_of(repo)
    return other


def content(number: int) -> bytes:
    """Of several packs, and nothing else has any of it."""
    return random.Random(number).randbytes(150_000)


def backup(repo: Repository, data: bytes) -> str:
    """A snapshot of one file, which shares no folder with another."""
    with repo.writer("d") as writer, writer.open("/file") as file:
        file.write(data)
    return writer.result.snapshot


def forget(repo: Repository, *snapshots: str) -> None:
    snapvault.forget_snapshots(anew(repo), snapshots, undelete_window=NOW)


def prune(repo: Repository, *, unused: float = 1.0) -> PruneResult:
    return plan_prune(anew(repo), limits=PruneLimits(unused)).execute(wait=NOW)


def listed(repo: Repository, prefix: str = "") -> dict[str, int]:
    return {o.name: o.size for o in store_of(repo).list(prefix)}


def with_garbage(repo: Repository) -> str:
    """Two snapshots with nothing in common; the first one is forgotten.  The other one's id."""
    forgotten, kept = (backup(anew(repo), content(number)) for number in range(2))
    forget(repo, forgotten)
    return kept


def whole(repo: Repository, snapshot: str, data: bytes) -> None:
    """That it comes back, and nothing is said against it."""
    with anew(repo).snapshot(snapshot).open("/file") as file:
        assert file.read() == data
    report = snapvault.check(anew(repo), read_data=True)
    assert report.status == "ok", report


# -- which locks are extended, and what is said of them ----------------------------------------------------------------

AGES: dict[str, tuple[str, int | None, str, bool]] = {  # mode, days until it ends, mode afterwards, whether extended
    "fresh": ("governance", 30, "governance", False),
    "more than half": ("governance", 16, "governance", False),
    "less than half": ("governance", 14, "governance", True),
    "of another mode": ("compliance", 14, "compliance", True),
    "ended": ("compliance", -1, "governance", True),
    "never locked": ("", None, "governance", True),
}


@pytest.mark.parametrize(("mode", "days", "then", "extended"), AGES.values(), ids=list(AGES))
def test_which_locks_are_extended(mode: str, days: int | None, then: str, extended: bool) -> None:
    store = LockingStore(MemoryBackend())
    store.put("packs/1", [b"x"])
    before = None if days is None else Lock(mode, datetime.now(UTC) + timedelta(days=days))
    store.locks = {} if before is None else {"packs/1": before}
    locked = days is not None and days > 0
    seen = review_locks(store, ["packs/1"], Reporter("test"))
    assert seen is not None and (seen.extended, seen.unlocked, seen.unknown) == (0, not locked, 0)
    assert seen.until == (before.until if before is not None and locked else None)
    assert (seen.status, seen.examples) == (("ok", ()) if locked else ("partial", ("packs/1",)))
    assert store.locks == ({} if before is None else {"packs/1": before})  # it only looked

    done = review_locks(store, ["packs/1"], Reporter("test"), extend=True)
    assert done is not None and (done.extended, done.unlocked, done.status) == (extended, 0, "ok")
    lock = store.locks["packs/1"]
    assert lock.mode == then and done.until == lock.until
    assert (lock.until - datetime.now(UTC) > timedelta(days=29)) == (extended or days == 30)


@pytest.mark.parametrize("days", [None, -1, 14])
def test_a_store_that_says_yes_and_locks_nothing(days: int | None) -> None:
    class Deaf(LockingStore):
        def set(self, name: str, lock: Lock) -> None:
            pass

    store = Deaf(MemoryBackend())
    store.put("packs/1", [b"x"])
    until = None if days is None else datetime.now(UTC) + timedelta(days=days)
    store.locks = {} if until is None else {"packs/1": Lock("governance", until)}
    done = review_locks(store, ["packs/1"], Reporter("test"), extend=True)
    assert done is not None and (done.extended, done.refused, done.examples) == (0, 1, ("packs/1",))
    assert (done.until, done.unlocked, done.status) == ((until, 0, "partial") if days == 14 else (None, 1, "partial"))


def test_what_is_not_known_is_not_good() -> None:
    store = LockingStore(MemoryBackend())
    for name in ("packs/1", "packs/2"):
        store.put(name, [b"x"])
    early = datetime.now(UTC) + timedelta(days=3)
    store.locks["packs/2"] = Lock("governance", early)
    wanted = ["packs/1", "packs/2", "packs/gone"]
    seen = review_locks(store, wanted, Reporter("test"))
    assert seen is not None and (seen.objects, seen.until, seen.status) == (2, early, "ok")
    store.denied = {"set"}
    refused = review_locks(store, wanted, Reporter("test"), extend=True)
    assert refused is not None and (refused.refused, refused.extended, refused.until) == (1, 0, early)
    assert refused.examples == ("packs/2",) and refused.status == "partial"
    store.denied = {"of packs/1"}
    unknown = review_locks(store, wanted, Reporter("test"), extend=True)
    assert unknown is not None and (unknown.unknown, unknown.until, unknown.status) == (1, None, "partial")
    assert unknown.examples == ("packs/1",)
    assert review_locks(LockingStore(MemoryBackend(), None), wanted, Reporter("test")) is None


def test_a_check_shows_until_when_everything_is_locked(repo: Repository) -> None:
    backup(anew(repo), content(0))
    store = store_of(repo)
    store.pass_time(20)
    report = snapvault.check(anew(repo))
    assert report.status == "ok" and report.lock is not None
    assert report.lock.until == min(lock.until for lock in store.locks.values())
    assert report.lock.objects == len([n for n in listed(repo) if not n.startswith(names.LOCAL)])
    assert report.to_dict()["lock"]["until"] == report.lock.until.isoformat()

    extended = snapvault.check(anew(repo), extend_locks=True).lock
    assert extended is not None and extended.until is not None and extended.extended == extended.objects
    assert extended.until > report.lock.until + timedelta(days=19)

    name = next(iter(listed(repo, names.PACKS)))
    del store.locks[name]
    report = snapvault.check(anew(repo))
    assert report.status == "partial" and not report.problems and report.lock is not None
    assert (report.lock.until, report.lock.unlocked, report.lock.examples) == (None, 1, (name,))
    with pytest.raises(InvalidInput, match="object_lock"):
        snapvault.check(again(repo), extend_locks=True)
    assert snapvault.check(again(repo)).lock is None


# -- a prune and what is locked ----------------------------------------------------------------------------------------


def test_a_locked_pack_goes_once_its_lock_ends(repo: Repository, tmp_path: Path) -> None:
    kept = with_garbage(repo)
    before, store = listed(repo, names.PACKS), store_of(repo)
    plan = plan_prune(anew(repo), limits=PruneLimits(1.0))
    ends = max(lock.until for name, lock in store.locks.items() if name in before)
    assert 0 < plan.bytes_locked < sum(before.values()) and plan.locked_until is not None
    assert plan.to_dict()["locked_until"] == plan.locked_until.isoformat()
    result = plan.execute(wait=NOW)
    assert (result.status, result.packs_removed, result.bytes_freed, result.refused) == ("ok", 0, 0, 0)
    assert result.packs_locked > 0 and result.bytes_locked == plan.bytes_locked
    assert result.locked_until is not None and result.locked_until <= ends
    assert listed(repo, names.PACKS) == before and not listed(repo, names.GC)
    whole(repo, kept, content(1))

    objects = set(listed(repo))
    waits = prune(repo)  # nothing is to be done, so nothing is written
    assert waits.packs_locked == result.packs_locked and waits.packs_removed == 0 and set(listed(repo)) == objects

    for name in before:  # only what is condemned
        if name in removed(repo):
            store.locks[name] = Lock("governance", datetime.now(UTC) - timedelta(seconds=1))
    done = prune(repo)
    assert (done.packs_removed, done.bytes_removed) == (result.packs_locked, result.bytes_locked)
    assert (done.packs_locked, done.locked_until, done.status) == (0, None, "ok")
    assert sum(listed(repo, names.PACKS).values()) == sum(before.values()) - done.bytes_freed
    whole(repo, kept, content(1))
    assert prune(repo).packs_removed == 0


def removed(repo: Repository) -> set[str]:
    """What slots with "GC done" name."""
    return {name for slot in anew(repo).vault.history.all_slots() for name in slot.record.removed}


def test_a_prune_extends_what_is_needed_and_nothing_else(repo: Repository) -> None:
    with_garbage(repo)
    store = store_of(repo)
    store.pass_time(20)
    before = dict(store.locks)
    result = prune(repo)
    assert result.lock is not None and result.lock.status == result.status == "ok"
    longer = {name for name, lock in store.locks.items() if name in before and lock.until > before[name].until}
    needed = {n for n in listed(repo) if not n.startswith(names.LOCAL)} & before.keys() - removed(repo)
    replaced = {n for n in removed(repo) if n.startswith(names.INDEX)}  # known only afterwards; they are small
    assert needed == longer - replaced and result.lock.extended == len(longer)
    for some in (needed, before.keys() - needed):
        assert any(n.startswith(names.PACKS) for n in some)
    assert not any(n.startswith(names.LOCAL) for n in store.locks)
    again_ = prune(repo).lock
    assert again_ is not None and (again_.extended, again_.until) == (0, result.lock.until)


def test_what_is_copied_out_of_locked_packs(repo: Repository, tmp_path: Path) -> None:
    """More is stored until the locks end, and so it is said."""
    # Several pieces: where chunks are cut hangs on the key, and the edge of one piece may be that of a pack.
    data = b"".join(content(0)[at : at + 20_000] for at in range(0, 150_000, 30_000)) + content(1)
    first, second = backup(anew(repo), content(0)), backup(anew(repo), data)
    forget(repo, first)
    result = prune(repo, unused=0.0)
    assert result.bytes_copied > 0 and result.bytes_freed == -result.bytes_copied and result.packs_locked > 0
    whole(repo, second, data)


def test_a_repair_takes_a_damaged_pack_out_of_sight(repo: Repository) -> None:
    """It is locked, but would be found damaged again and again."""
    backup(anew(repo), content(0))
    name = damage(anew(repo), "/file")
    assert name in listed(repo)
    snapvault.plan_repair(anew(repo)).execute(wait=NOW)
    assert name not in listed(repo) and name in removed(repo)
    assert not snapvault.check(anew(repo), read_data=True).problems


# -- a store that lets nobody delete -----------------------------------------------------------------------------------


@pytest.fixture
def denying(repo: Repository) -> LockingStore:
    """The same without locks, where nothing is deleted or replaced."""
    store = store_of(repo)
    store.lock_rule = None
    store.denied = {"delete", "put", "release"}
    return store


def test_a_prune_that_may_delete_nothing_goes_on(
    repo: Repository, denying: LockingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever may delete finishes it, however often it was tried."""
    monkeypatch.setattr(prune_module, "MERGED_FROM", 2)  # small index objects are merged, too
    kept = with_garbage(repo)
    before = listed(repo)
    result = prune(repo)
    assert (result.status, result.packs_removed, result.bytes_removed) == ("partial", 0, 0)
    assert result.refused >= 3 and result.bytes_refused > 0 and "delete of index/" in result.refusal
    assert before.items() <= listed(repo).items()
    whole(repo, kept, content(1))
    objects = set(listed(repo))
    for _ in range(2):
        assert prune(repo).status == "partial" and set(listed(repo)) == objects, "each run would store more"
    denying.denied = set()
    done = prune(repo)
    assert (done.status, done.refused, done.bytes_removed) == ("ok", 0, result.bytes_refused)
    assert removed(repo).isdisjoint(listed(repo)) and not listed(repo, names.GC)
    assert done.hidden  # this bucket has versions, and nobody said that it locks
    whole(repo, kept, content(1))


def test_an_index_object_that_stays_is_replaced_once(
    repo: Repository, denying: LockingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_module, "MERGED_FROM", 2)
    kept, forgotten = (backup(anew(repo), content(number)) for number in range(2))
    prune(repo)
    forget(repo, forgotten)
    prune(repo)
    first, second = (slot.record.removed for slot in anew(repo).vault.history.all_slots() if slot.record.removed)
    assert first and second and set(first).isdisjoint(second)
    whole(repo, kept, content(0))


def test_locked_leftovers_make_a_prune_read_no_index(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an index object that names them is a reason."""
    with_garbage(repo)
    assert prune(repo).packs_locked
    monkeypatch.setattr(prune_module, "SMALL_INDEX", 0)
    monkeypatch.setattr(prune_module, "fetch", lambda backend, name, *size: read.append(name) or fetch(backend, name))
    read: list[str] = []
    assert plan_prune(anew(repo)).bytes_locked
    assert not [name for name in read if name.startswith(names.INDEX)]


def test_a_prune_that_is_refused_one_thing_deletes_the_rest(repo: Repository) -> None:
    forget(repo, *(backup(anew(repo), content(number)) for number in range(2)))
    store = store_of(repo)
    store.pass_time(31)
    plan = plan_prune(anew(repo))
    stays, *others = [names.pack(pack) for pack in plan.domains[0].condemned]
    real = store.release

    def release(name: str) -> None:
        if name == stays:
            raise StoreDenied(f"{name} is held", affected=[name])
        real(name)

    store.release = release  # type: ignore[method-assign]
    result = plan.execute(wait=NOW)
    assert (result.status, result.refused, result.refusal) == ("partial", 1, f"{stays} is held")
    assert others and list(listed(repo, names.PACKS)) == [stays] and result.packs_removed == len(others)


def test_a_copy_remembers_what_may_go(repo: Repository, tmp_path: Path) -> None:
    """There, the record of a prune says that its deletions may be finished, so it stays as long as a pack does."""
    forgotten = backup(again(repo), content(0))
    second = tmp_path / "second"
    snapvault.replicate(repo.url, str(second))
    forget(repo, forgotten)
    plan_prune(again(repo), limits=PruneLimits(1.0)).execute(wait=NOW)
    snapvault.replicate(repo.url, str(second))
    there = snapvault.open(second, keys=lambda: SEED)
    snapvault.forget_snapshots(there, [forgotten], undelete_window=NOW)
    store = LockingStore(there.vault.backend)
    there.vault.store.backend = store
    for info in store.list(names.PACKS):
        store.locks[info.name] = Lock("governance", datetime.now(UTC) + timedelta(days=9))
    result = prune(there)
    assert result.packs_locked > 0 and result.packs_removed == 0
    assert prune(there).packs_locked == result.packs_locked and list(store.list(names.GC))
    store.pass_time(10)
    assert prune(there).packs_removed == result.packs_locked and not list(store.list(names.PACKS))
    prune(there)
    assert not list(store.list(names.GC))


def test_heartbeats_that_cannot_be_deleted(
    repo: Repository, denying: LockingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session whose heartbeat stands still is taken for dead: each beat has a name of its own, come what may."""
    enough, real = threading.Event(), LockingStore.put_if_absent

    def put_if_absent(self: LockingStore, name: str, data: list[bytes]) -> None:
        real(self, name, data)
        if name.startswith(names.HEARTBEATS) and name.endswith("/4"):
            enough.set()

    monkeypatch.setattr(LockingStore, "put_if_absent", put_if_absent)
    monkeypatch.setattr(session, "HEARTBEAT_SECONDS", 0.001)
    opened = anew(repo)
    begun = session.Session(opened.vault.store, opened.vault.ring, opened.vault.ring.write_domain)
    begun.announce()
    assert enough.wait(20)
    begun.abort()
    beats = [n for n in listed(repo) if n.startswith(names.heartbeat_prefix(begun.sid))]
    assert len(beats) >= 4
    denying.denied = set()
    prune(repo)
    assert not listed(repo, names.HEARTBEATS)


def test_a_living_session_keeps_its_heartbeats(repo: Repository) -> None:
    begun = open_session(anew(repo))
    store_of(repo).put(names.heartbeat(begun.sid, 1), [b"x"])
    prune(repo)
    assert listed(repo, names.HEARTBEATS)
    begun.abort()


CHANGES: dict[str, Callable[[Repository, Path], object]] = {
    "backup": lambda repo, path: backup(anew(repo), content(1)),
    "attest": lambda repo, path: snapvault.attest(anew(repo), "here", read=False),
    "tag": lambda repo, path: snapvault.set_tags(anew(repo), "latest", add=["good"]),
    "forget": lambda repo, path: snapvault.forget_snapshots(anew(repo), ["latest"]),
    "add a key": lambda repo, path: snapvault.add_key(anew(repo), "reader", "r", file=path / "key"),
    "remove a key": lambda repo, path: snapvault.remove_key(anew(repo), "old"),
    "rotate": lambda repo, path: snapvault.rotate(anew(repo)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_needs_no_right_to_delete_or_replace(
    repo: Repository, denying: LockingStore, tmp_path: Path, change: Callable[[Repository, Path], object]
) -> None:
    snapvault.add_key(anew(repo), "reader", "old", file=tmp_path / "old-key")
    backup(anew(repo), content(0))
    change(repo, tmp_path)


def test_what_a_check_found_is_written_down(
    repo: Repository, denying: LockingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the records that it replaces stay."""
    monkeypatch.setattr(check_data, "RECORDS_MAX", 1)
    backup(anew(repo), content(0))
    for _ in range(3):
        assert snapvault.check(anew(repo), read_data=0.5).findings == ()
    assert snapvault.check(anew(repo)).verified_share == 1.0


def test_an_old_password_that_cannot_be_deleted_is_told(repo: Repository, denying: LockingStore) -> None:
    denying.denied = set()
    snapvault.change_password(anew(repo), "first")
    denying.denied = {"delete"}
    with pytest.raises(StoreDenied, match="so is the old one"):
        snapvault.change_password(anew(repo), "second")
    for password in ("first", "second"):
        snapvault.open(repo.url, password=Password(password).get()).close()


def test_a_copy_is_made_where_nothing_is_deleted_or_replaced(repo: Repository, tmp_path: Path) -> None:
    """What is damaged there cannot be mended; the rest comes all the same."""
    backup(again(repo), content(0))
    target = LockingStore(MemoryBackend(), None)
    target.denied = {"delete", "put"}

    class There(snapvault.Site):
        def open(self, *, create: bool = False) -> LockingStore:
            return target

    there = There("memory://there")
    assert snapvault.replicate(repo.url, there).status == "ok"
    name = next(o.name for o in target.list(names.PACKS))
    target.inner.objects[name] = target.inner.objects[name][:-1]
    new = backup(again(repo), content(1))
    result = snapvault.replicate(repo.url, there)
    assert [p.objects for p in result.problems] == [(name,)] and "lets nobody replace it" in result.problems[0].message
    assert result.status == "damaged" and names.snapshot(new) in target.inner.objects


def test_locked_leftovers_do_not_make_a_copy_read_everything(repo: Repository, tmp_path: Path) -> None:
    """Packs that a prune removed are not at the copy, and nobody looks for an index object that names them."""
    with_garbage(repo)
    second = str(tmp_path / "second")
    prune(repo)
    assert listed(repo, names.PACKS).keys() & removed(repo)

    class Here(snapvault.Site):
        def open(self, *, create: bool = False) -> LockingStore:
            return store_of(repo)

    here = Here(repo.url)
    snapvault.replicate(here, second)
    read: list[str] = []
    store, real = store_of(repo), store_of(repo).inner.get

    def get(name: str, start: int = 0, length: int | None = None) -> bytes:
        read.append(name)
        return real(name, start, length)

    store.get = get  # type: ignore[attr-defined]
    assert snapvault.replicate(here, second).objects == 0
    assert not any(name.startswith(names.INDEX) for name in read)
