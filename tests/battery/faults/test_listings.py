"""A listing that silently leaves something out: nothing that is needed is removed because of it.

No store says that a page is missing.  What stands in for it is what else names the same objects: session headers, the
index, predecessors, what was listed before; and each is asked for by its name.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from battery import model
from battery.lab import gc_session
from battery.oracle import Ledger, assert_sound

import snapvault
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.protocol import Backend, ObjectInfo
from snapvault.backend.wrapper import Wrapper
from snapvault.format import names
from snapvault.format.local import GcRecord, encode_heartbeat
from snapvault.format.wire import Kind
from snapvault.foundation.ids import PackId, SessionId
from snapvault.repository.session import open_sessions
from snapvault.repository.trust import sign

Page = Callable[[list[str]], set[str]]  # of the names of a listing, those that are left out
PAGES: dict[str, Page] = {
    "all": set,
    "first": lambda shown: set(shown[: -(-len(shown) // 2)]),
    "last": lambda shown: set(shown[len(shown) // 2 :]),
}
NOW = timedelta(0)


class Omitting(Wrapper):
    """Leaves a page out of listing number ``at`` (None: of every one) below ``prefix``; ``left_out``: how often."""

    def __init__(self, inner: Backend, page: Page, at: int | None = None, prefix: str = "") -> None:
        super().__init__(inner)
        self._page, self._at, self._prefix = page, at, prefix
        self.listings, self.left_out = 0, 0

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.listings += 1
        found = list(self.inner.list(prefix))
        if self._at in (None, self.listings) and prefix.startswith(self._prefix):
            gone = self._page([o.name for o in found])
            self.left_out += bool(gone)
            found = [o for o in found if o.name not in gone]
        return iter(found)


@dataclass
class Scene:
    """A repository of which a part can go: snapshots that share packs, the oldest forgotten."""

    store: MemoryBackend
    ledger: Ledger

    def copy(self) -> "Scene":
        store = MemoryBackend(f"listings-{next(_numbers)}")
        store.objects.update(self.store.objects)
        return Scene(store, self.ledger.copy())


_numbers = itertools.count()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    home = tmp_path_factory.mktemp("listings")
    model.make_source(home / "source")
    made = Scene(MemoryBackend("listings"), Ledger(home / "source"))
    with model.small_parts():
        with model.init(made.store) as repo:
            for step in range(4):
                made.ledger.backup(repo)
                model.change_source(home / "source", step)
            (home / "source" / "large").unlink()
            made.ledger.backup(repo)
            snapvault.forget_snapshots(repo, [next(iter(made.ledger.trees))], undelete_window=NOW)
            made.ledger.forgotten.add(next(iter(made.ledger.trees)))
        yield made


def prune(backend: Backend) -> None:
    with model.opened(backend) as repo:
        snapvault.plan_prune(repo, limits=snapvault.PruneLimits(unused=0)).execute(wait=NOW, lease=NOW)


def judge(scene: Scene, backend: Omitting, scratch: Path) -> bool:
    """Prune over such a store; whether it was refused.

    Whatever it did, everything that is owed is there, and the next prune needs nobody to clear up.
    """
    refused = False
    try:
        prune(backend)
    except snapvault.SnapvaultError:
        refused = True
    if not backend.left_out:
        return refused
    prune(scene.store)
    with model.opened(scene.store) as repo:
        scene.ledger.verify(repo, scratch, check=False)
        assert_sound(repo)
    return refused


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_is_missing_once(scene: Scene, page: str, tmp_path: Path) -> None:
    """In each listing of a prune."""
    for at in itertools.count(1):
        copy = scene.copy()
        backend = Omitting(copy.store, PAGES[page], at)
        judge(copy, backend, tmp_path)
        if backend.listings < at:
            break
    assert at > 20


@pytest.mark.parametrize("prefix", ["snapshots/", "sessions/", "index/", "packs/", "local/", "keyset/", "notes/", ""])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_is_always_missing(scene: Scene, page: str, prefix: str, tmp_path: Path) -> None:
    copy = scene.copy()
    judge(copy, Omitting(copy.store, PAGES[page], None, prefix), tmp_path)


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("also", ["", "sessions/", "index/"])
def test_a_snapshot_that_is_always_missing(scene: Scene, number: int, also: str, tmp_path: Path) -> None:
    """From the listings of commit slots; and its session header, or all that the index says."""
    copy = scene.copy()
    sid = list(scene.ledger.trees)[number]

    def page(shown: list[str]) -> set[str]:
        return {n for n in shown if n == f"snapshots/{sid}" or (n.startswith(also) and also)}

    backend = Omitting(copy.store, page)
    refused = judge(copy, backend, tmp_path)
    assert backend.left_out and refused


# -- others beside it -------------------------------------------------------------------------------------------------


CONTENT = bytes(range(256)) * 600


@pytest.fixture(scope="module")
def garbage() -> Iterator[MemoryBackend]:
    """A repository whose only snapshot is forgotten: all of its packs can go, and a writer may still find them."""
    store = MemoryBackend("garbage")
    with model.small_parts():
        with model.init(store) as repo:
            with repo.writer("d") as writer, writer.open("/file") as file:
                file.write(CONTENT)
            assert writer.result is not None
            snapvault.forget_snapshots(repo, [writer.result.snapshot], undelete_window=NOW)
        yield store


def copied(store: MemoryBackend) -> MemoryBackend:
    copy = MemoryBackend(f"listings-{next(_numbers)}")
    copy.objects.update(store.objects)
    return copy


def data_packs(store: MemoryBackend) -> set[str]:
    return {name for name in store.objects if name.startswith("packs/")}


def assert_restores(store: MemoryBackend) -> None:
    assert_restores_data(store)
    with model.opened(store) as repo:
        assert_sound(repo)


def assert_restores_data(store: MemoryBackend) -> None:
    with model.opened(store) as repo:
        assert repo.snapshot("latest").open("/file").read() == CONTENT


def test_a_prune_that_does_not_see_a_writer(garbage: MemoryBackend) -> None:
    """In each of its listings once: what a writer relies upon stays."""
    for at in itertools.count(1):
        store = copied(garbage)
        backend = Omitting(store, set, at)
        with model.opened(store) as repo, repo.writer("d") as writer:
            with writer.open("/file") as file:
                file.write(CONTENT)
            try:
                with model.opened(backend) as other:
                    snapvault.plan_prune(other, limits=snapvault.PruneLimits(unused=0)).execute(wait=NOW)
            except snapvault.SnapvaultError:
                pass
        assert data_packs(garbage) <= data_packs(store), "it was removed, and the writer relies on it"
        assert_restores(store)
        if backend.listings < at:
            break
    assert at > 15


@pytest.mark.parametrize("prefix", ["local/gc/", "sessions/gc", "snapshots/gc", "index/", "packs/"])
def test_a_writer_that_does_not_see_a_prune(garbage: MemoryBackend, prefix: str) -> None:
    """What a prune has condemned does not count, though the listing of the prunes that run is always empty."""
    store = copied(garbage)
    condemned = data_packs(store)
    with model.opened(store) as repo:
        gc = gc_session(repo.vault)
        gc.announce()
        keys = repo.vault.ring.signing
        packs = tuple(PackId(digest) for n in condemned if (digest := names.content_digest(n)) is not None)
        record = GcRecord(repo.vault.ring.config_digest, gc.sid, packs)
        store.put(names.GC + gc.sid, [sign(Kind.GC, record.encode(), keys.id, keys.signer)])
        gc.pause()
    backend = Omitting(store, set, None, prefix)
    with model.opened(backend) as repo, repo.writer("d") as writer, writer.open("/file") as file:
        file.write(CONTENT)
    assert backend.left_out or prefix == "snapshots/gc"
    for name in condemned:
        del store.objects[name]
    assert_restores_data(store)


def test_a_writer_that_gives_a_sign_of_life_is_waited_for(garbage: MemoryBackend) -> None:
    """Though the listing of sessions is always empty."""
    store = copied(garbage)
    with model.opened(store) as repo, repo.writer("d") as writer:
        with writer.open("/file") as file:
            file.write(CONTENT)
        (sid,) = open_sessions(store)
        store.put(names.heartbeat(sid, 1), [encode_heartbeat(sid, 1)])
        with model.opened(Omitting(store, set, None, "sessions/")) as other:
            plan = snapvault.plan_prune(other, limits=snapvault.PruneLimits(unused=0))
            assert plan.execute(wait=NOW).waits_for == (sid,)
    assert_restores(store)


@contextlib.contextmanager
def with_a_writer(garbage: MemoryBackend, folder: Path) -> Iterator[tuple[MemoryBackend, str]]:
    """A repository with a snapshot by somebody else, called m, and that snapshot."""
    store, key = copied(garbage), folder / f"key-{next(_numbers)}"
    with model.opened(store) as repo:
        snapvault.add_key(repo, "writer", "m", file=key)
    yield store, save_with(store, key)


def save_with(store: MemoryBackend, key: Path) -> str:
    """Store a snapshot with this key."""
    with model.served_by(store), snapvault.open("memory://x", keys=key.read_bytes) as repo:
        writer = repo.writer("d")
        with writer, writer.open("/file") as file:
            file.write(CONTENT)
    assert writer.result is not None
    return writer.result.snapshot


def test_a_removed_key_keeps_what_a_listing_left_out(garbage: MemoryBackend, tmp_path: Path) -> None:
    """Its newest snapshot would be refused for ever."""
    for at in itertools.count(1):
        with with_a_writer(garbage, tmp_path) as (store, _):
            backend = Omitting(store, set, at)
            for attempt in (backend, store):
                with contextlib.suppress(snapvault.SnapvaultError), model.opened(attempt) as repo:
                    snapvault.remove_key(repo, "m")
            assert_restores(store)
        if backend.listings < at:
            break
    assert at > 5


def test_no_key_is_removed_while_its_newest_snapshot_is_left_out(garbage: MemoryBackend, tmp_path: Path) -> None:
    with with_a_writer(garbage, tmp_path) as (store, sid):
        always = Omitting(store, lambda shown: {n for n in shown if n == names.snapshot(SessionId(sid))})
        with pytest.raises(snapvault.StoreUnavailable, match=sid), model.opened(always) as repo:
            snapvault.remove_key(repo, "m")
        with model.opened(store) as repo:
            assert any(key.name == "m" and not key.removed for key in snapvault.list_keys(repo))
            snapvault.remove_key(repo, "m")
        assert_restores(store)


# -- what is said of it -----------------------------------------------------------------------------------------------


def test_a_check_says_what_listings_leave_out(scene: Scene) -> None:
    """And does not call it lost."""
    newest = names.snapshot(SessionId(list(scene.ledger.trees)[-1]))
    pack = min(data_packs(scene.store))
    with model.opened(Omitting(scene.store, lambda shown: {n for n in shown if n in (newest, pack)})) as repo:
        report = snapvault.check(repo)
    assert report.status == "damaged" and not report.lost
    said = {name: f.message for f in report.problems for name in f.objects}
    assert said.keys() == {newest, pack} and all("leaves it out" in text for text in said.values())


def test_a_check_beside_a_commit(scene: Scene) -> None:
    """What was committed after everything was listed is in no listing yet."""
    store = scene.copy().store
    with model.opened(store) as other:
        writer = other.writer("late")
        writer.__enter__()
        with writer.open("/file") as file:
            file.write(b"late" * 10_000)

        def commit(shown: list[str]) -> set[str]:
            if names.CONFIG in shown and writer.result is None:
                writer.__exit__(None, None, None)
            return set()

        with model.opened(Omitting(store, commit)) as repo:
            report = snapvault.check(repo)
        assert writer.result is not None and report.status == "ok", report.problems


def test_a_predecessor_that_is_gone_stops_a_prune_until_it_is_forgotten(scene: Scene, tmp_path: Path) -> None:
    """Nobody saw it here before but the snapshot after it.  It can be forgotten though there is no record of it."""
    copy = scene.copy()
    lost = list(scene.ledger.trees)[2]
    del copy.store.objects[f"snapshots/{lost}"]
    packs = data_packs(copy.store)
    with pytest.raises(snapvault.Damaged, match=f"{lost} is gone") as caught:
        prune(copy.store)
    assert "forget it by its id" in caught.value.hint and data_packs(copy.store) == packs
    with model.opened(copy.store) as repo:
        with pytest.raises(snapvault.InvalidInput):
            snapvault.forget_snapshots(repo, ["0" * 8])
        assert snapvault.forget_snapshots(repo, [lost[:8]], undelete_window=NOW).forgotten == (lost,)
    copy.ledger.forgotten.add(lost)
    prune(copy.store)
    assert data_packs(copy.store) != packs
    with model.opened(copy.store) as repo:
        copy.ledger.verify(repo, tmp_path)


def test_a_predecessor_of_another_domain_stops_nobody(garbage: MemoryBackend, tmp_path: Path) -> None:
    """Else whoever may write could name one that never was."""
    with with_a_writer(garbage, tmp_path) as (store, sid):
        save_with(store, next(tmp_path.iterdir()))
        del store.objects[f"snapshots/{sid}"]
        with model.opened(store) as repo:
            result = snapvault.plan_prune(repo, limits=snapvault.PruneLimits(unused=0)).execute(wait=NOW, lease=NOW)
        assert result.status == "damaged" and any(sid in text for text in result.problems)
        assert result.packs_removed and not data_packs(garbage) & data_packs(store)
        assert_restores_data(store)
