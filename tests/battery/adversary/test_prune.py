"""What somebody, or a bad read, can make a prune believe: nothing is lost by it that was there before."""

import random
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from battery import lab
from battery.interleave.story import contents
from battery.lab import Lab

import snapvault
from snapvault.backend.memory import MemoryBackend
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.pack import Segment
from snapvault.format.tree import BlobType
from snapvault.format.wire import FormatError
from snapvault.foundation.errors import Damaged
from snapvault.operations import fence
from snapvault.operations.writer import SnapshotWriter
from snapvault.repository.repository import Vault
from snapvault.repository.session import Session, encode_index
from snapvault.repository.store import TRIES, Store

NOW, MINUTE, NEVER = timedelta(0), timedelta(minutes=1), timedelta(days=10**6)
TREE = {"a": random.Random(1).randbytes(1500), "b": random.Random(2).randbytes(1500)}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Lab]:
    with lab.small_parts():
        store = lab.memory()
        snapvault.init(store.url, keys=lambda: lab.SEED, chunking=lab.CHUNKING).repository.close()
        yield Lab(store, tmp_path)


def prune(made: Lab, between: Callable[[], None] = lambda: None, *, wait: timedelta = NOW) -> snapvault.PruneResult:
    """``between``: what happens while it waits."""
    with made.open() as repo, mock.patch.object(fence.time, "sleep", lambda seconds: between()):
        plan = snapvault.plan_prune(repo, limits=snapvault.PruneLimits(unused=0.0))
        return plan.execute(wait=wait, lease=NEVER)


def forgotten(made: Lab, tree: lab.Tree) -> None:
    with made.open() as repo:
        snapvault.forget_snapshots(repo, [made.backup(repo, tree)], undelete_window=NOW)


def begun(made: Lab) -> SnapshotWriter:
    """A writer that has stored TREE, relying on all that it may rely on, and has not committed."""
    writer = made.open().writer("lab", host="here")
    writer.__enter__()
    for path, data in TREE.items():
        with writer.open(f"{lab.ROOT}/{path}") as file:
            file.write(data)
    return writer


def committed(writer: SnapshotWriter) -> str:
    if writer.result is None:
        writer.__exit__(None, None, None)
    assert writer.result is not None
    return writer.result.snapshot


def whole(made: Lab, sid: str, tree: lab.Tree = TREE) -> None:
    with made.open() as repo:
        assert contents(repo.snapshot(sid)) == tree


# -- reads that fail once ---------------------------------------------------------------------------------------------


def test_a_snapshot_that_could_not_be_read_once(made: Lab) -> None:
    """It was committed while the prune waited; the first look at its slot comes damaged, the next one whole."""
    forgotten(made, TREE)
    writer, real, left = begun(made), Store.fresh, [1]

    def fresh(self: Store, name: str, size: int | None = None, *, keep: bool = True) -> bytes:
        if writer.result is not None and name == f"{names.SNAPSHOTS}{writer.result.snapshot}" and left[0]:
            left[0] -= 1
            raise FormatError(f"{name}: a bit flipped", affected=[name])
        return real(self, name, size, keep=keep)

    with mock.patch.object(Store, "fresh", fresh), suppress(Damaged):  # it may refuse, too
        prune(made, lambda: (committed(writer), None)[1], wait=MINUTE)
    whole(made, committed(writer))
    assert left == [0]


@pytest.mark.parametrize("times", [1, TRIES], ids=["once", "each time"])
def test_a_writer_that_could_not_read_what_is_condemned(made: Lab, times: int) -> None:
    """It begins while the prune waits for another, and gets the record damaged; the prune does not wait for it."""
    forgotten(made, TREE)
    other, real, left, late = begun(made), MemoryBackend.get, [times], list[SnapshotWriter]()

    def get(self: MemoryBackend, name: str, start: int = 0, length: int | None = None) -> bytes:
        data = bytearray(real(self, name, start, length))
        if name.startswith(names.GC) and left[0]:
            left[0] -= 1
            data[40] ^= 1
        return bytes(data)

    def between() -> None:
        if not late:
            with mock.patch.object(MemoryBackend, "get", get):
                late.append(begun(made))
            other.__exit__(RuntimeError, RuntimeError(), None)

    assert prune(made, between, wait=MINUTE).packs_removed > 0
    whole(made, committed(late[0]))
    assert left == [0] and late[0].result is not None
    assert bool(late[0].result.warnings) == (times == TRIES)


def test_a_damaged_slot_that_may_still_be_brought_back(made: Lab) -> None:
    with made.open() as repo:
        sid = made.backup(repo, TREE)
        made.backup(repo, {"other": b"x"})
        snapvault.forget_snapshots(repo, [sid])
    name = f"{names.SNAPSHOTS}{sid}"
    slot = made.store.objects[name]
    made.store.put(name, [slot[:-1]])
    with pytest.raises(Damaged, match="nothing is removed"):
        prune(made)
    made.store.put(name, [slot])
    with made.open() as repo:
        new = snapvault.undelete(repo, sid).snapshot
    whole(made, new)


# -- what others say --------------------------------------------------------------------------------------------------


def removed_maintainer(made: Lab) -> Vault:
    with made.open() as repo:
        snapvault.add_key(repo, Role.MAINTAINER, "m", file=made.home / "m")
    thief = made.open((made.home / "m").read_bytes())
    with made.open() as repo:
        snapvault.remove_key(repo, "m")
    return thief.vault


def say(thief: Vault, made: Lab, segments: list[Segment], count: int = 1 << 30) -> None:
    """That these segments are what is in the packs of the owner."""
    domain = next(iter(thief.ring.domains.values()))
    session = Session(thief.store, thief.ring, domain)
    made.store.put(names.session(session.sid), [session.header])
    rows = list(thief.loader.load().packs())[:count]
    name, data = encode_index(thief.ring, domain, session.sid, [(row, segments) for row in rows])
    made.store.put(name, [data])


def test_a_removed_maintainers_words_are_not_repeated(made: Lab) -> None:
    """A merge of index objects signs only what counts already."""
    with made.open() as repo:
        for number in range(16):
            made.backup(repo, {"a": random.Random(number).randbytes(300)})
    thief = removed_maintainer(made)
    new = random.Random(99).randbytes(200)
    blob = next(iter(thief.ring.domains.values())).blob_id(BlobType.DATA, new)
    say(thief, made, [Segment(100, 60, len(new), blob, array("I", [len(new)]), bytes((BlobType.DATA,)))], 1)
    before = [n for n in made.store.objects if n.startswith(names.INDEX)]
    prune(made)
    assert len([n for n in made.store.objects if n.startswith(names.INDEX)]) < len(before)
    with made.open() as repo:
        assert not repo.vault.index().places(blob)
        sid = made.backup(repo, {"new": new})
    whole(made, sid, {"new": new})


def test_who_says_that_packs_are_empty(made: Lab) -> None:
    """And the index object that knows better is damaged: what a pack says itself is looked at before it goes."""
    forgotten(made, {**TREE, "junk": random.Random(7).randbytes(700)})
    with made.open() as repo:
        sid = made.backup(repo, TREE)
    true = [n for n in made.store.objects if n.startswith(names.INDEX)]
    say(removed_maintainer(made), made, [])
    for name in true:
        data = bytearray(made.store.objects[name])
        data[len(data) // 2] ^= 1
        made.store.put(name, [bytes(data)])
    whole(made, sid)
    prune(made)
    whole(made, sid)


def test_strangers_sessions_and_names_stop_nothing(made: Lab) -> None:
    forgotten(made, TREE)
    made.store.put(f"{names.SESSIONS}gc{0:032x}", [b"nobody signed this"])
    made.store.put(f"{names.SESSIONS}{7:032x}", [b"nor this"])
    made.store.put(f"{names.SNAPSHOTS}DS_Store", [b"nor this"])
    assert prune(made).packs_removed > 0


def test_one_writers_bad_snapshot_stops_only_its_own_domain(made: Lab) -> None:
    with made.open() as repo:
        snapvault.add_key(repo, Role.WRITER, "w", file=made.home / "w")
    key = (made.home / "w").read_bytes()
    with made.open(key) as repo:
        made.backup(repo, {"a": random.Random(5).randbytes(3000)}, dataset="w")
    pack = next(n for n in made.store.objects if n.startswith(names.PACKS))
    del made.store.objects[pack]
    for name in [n for n in made.store.objects if n.startswith(names.INDEX)]:
        del made.store.objects[name]
    forgotten(made, TREE)
    result = prune(made)
    assert result.status == "damaged" and result.packs_removed > 0 and len(result.problems) == 1


def test_without_a_probe_it_is_not_safe(made: Lab) -> None:
    for name in [n for n in made.store.objects if n.startswith(names.CAPABILITIES)]:
        del made.store.objects[name]
    with pytest.raises(snapvault.Conflict):
        prune(made)
    with made.open() as repo:
        assert snapvault.plan_prune(repo, exclusive=True).status == "ok"
