"""What a writer, or a bad read, can make a prune or a repair believe: nothing is lost by it that was there before."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from battery import lab
from battery.interleave.story import contents
from battery.lab import Lab, Tree

import snapvault
from snapvault.backend.memory import MemoryBackend
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.tree import ID_SIZE
from snapvault.foundation.errors import Conflict, Damaged
from snapvault.foundation.ids import BlobId, PackId
from snapvault.operations.collect import GarbageCollection
from snapvault.operations.reclaim import Reclaimed
from snapvault.repository.index import PackRow
from snapvault.repository.session import Session

NOW, NEVER = timedelta(0), timedelta(days=10**6)
TREE: Tree = {f"f{i}": random.Random(i).randbytes(1500) for i in range(6)}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Lab]:
    with lab.small_parts():
        store = lab.memory()
        snapvault.init(store.url, keys=lambda: lab.SEED, chunking=lab.CHUNKING).repository.close()
        yield Lab(store, tmp_path)


def save(made: Lab, tree: Tree, key: bytes | None = None) -> str:
    with made.open(key) as repo:
        return made.backup(repo, tree)


def prune(made: Lab) -> snapvault.PruneResult:
    with made.open() as repo:
        limits = snapvault.PruneLimits(unused=0.0)
        return snapvault.plan_prune(repo, limits=limits).execute(wait=NOW, lease=NEVER)


def repair(made: Lab) -> snapvault.RepairResult:
    with made.open() as repo:
        return snapvault.plan_repair(repo).execute(wait=NOW, lease=NEVER)


def lost(made: Lab, sid: str) -> lab.Lost:
    with made.open() as repo:
        return lab.restore_one(repo, sid, made.trees[sid], made.home)


def some(made: Lab, prefix: str) -> list[str]:
    return sorted(n for n in made.store.objects if n.startswith(prefix))


def flip(made: Lab, name: str, at: int) -> None:
    data = bytearray(made.store.objects[name])
    data[at] ^= 1
    made.store.objects[name] = bytes(data)


def place_of(made: Lab, sid: str, path: str = "") -> tuple[str, int]:
    """The pack that holds a file's first chunk, or a snapshot's top folder, and a byte of its segment."""
    with made.open() as repo:
        snapshot = repo.snapshot(sid)
        content = snapshot.entry(f"{lab.ROOT}/{path}").node.content if path else snapshot.details.root
        place = snapshot.reader().index.places(BlobId(content.ids[:ID_SIZE]))[0]
        return names.pack(place.pack.id), place.start + place.sealed // 2


def writer_key(made: Lab) -> bytes:
    with made.open() as repo:
        snapvault.add_key(repo, Role.WRITER, "w", file=made.home / "w")
    return (made.home / "w").read_bytes()


def claim_everything(made: Lab, key: bytes) -> None:
    """A writer lists all packs as its own, with nothing in them, in its own domain."""
    with made.open(key) as repo:
        vault = repo.vault
        session = Session(vault.store, vault.ring, vault.ring.write_domain)
        session.announce()
        packs = vault.loader.packs_present().items()
        session.put_index([(PackRow(p, size, session.sid, session.domain.id), []) for p, size in packs])
        session.abort()


@contextmanager
def one_bad_reply(matches: Callable[[str], bool], nth: int) -> Iterator[list[str]]:
    """Of all gets of such objects the nth one comes with a flipped bit.  The names that were asked for."""
    real, asked = MemoryBackend.get, list[str]()

    def get(self: MemoryBackend, name: str, start: int = 0, length: int | None = None) -> bytes:
        data = bytes(real(self, name, start, length))
        if matches(name):
            asked.append(name)
            if len(asked) == nth:
                data = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
        return data

    with mock.patch.object(MemoryBackend, "get", get):
        yield asked


@pytest.mark.parametrize("reclaim", [prune, repair])
def test_a_writer_that_lists_what_is_not_its_own(made: Lab, reclaim: Callable[[Lab], snapvault.PruneResult]) -> None:
    """Nothing goes by that, and nothing has to be written again."""
    sid, key = save(made, TREE), writer_key(made)
    claim_everything(made, key)
    before = some(made, names.PACKS)
    for _ in range(2):
        reclaim(made)
        assert some(made, names.PACKS) == before and not lost(made, sid)
    with made.open() as repo:
        assert repair(made).status == "ok"
        assert snapvault.check(repo, read_data=True).status == "ok"


def test_a_false_claim_on_a_damaged_pack(made: Lab) -> None:
    """Its directory is gone; whoever can open what is in it has it, whichever domain comes first."""
    for _ in range(4):
        sid, key = save(made, TREE), writer_key(made)
        for name in some(made, names.PACKS):
            flip(made, name, -5)
        claim_everything(made, key)
        assert not lost(made, sid)
        repair(made)
        assert not lost(made, sid)
        made = made.copy({})
        snapvault.init(made.url, keys=lambda: lab.SEED, chunking=lab.CHUNKING).repository.close()
        (made.home / "w").unlink()


def test_one_bad_reply_while_a_prune_copies(made: Lab) -> None:
    """Only the index says what is in the packs, since their directories are damaged."""
    first = save(made, {**TREE, "junk": random.Random(99).randbytes(700)})
    sid = save(made, TREE)
    with made.open() as repo:
        snapvault.forget_snapshots(repo, [first], undelete_window=NOW)
    for name in some(made, names.PACKS):
        flip(made, name, -5)
    before, refused = dict(made.store.objects), 0
    for nth in range(1, 12):
        made.store.objects.clear()
        made.store.objects.update(before)
        with one_bad_reply(lambda n: n.startswith(names.INDEX), nth), suppress(Damaged):
            refused += not prune(made).packs_removed
        assert not lost(made, sid), f"after a bad reply to get {nth}"


@pytest.mark.parametrize("which", [names.SESSIONS + names.GC_PREFIX, names.INDEX])
def test_one_bad_reply_while_a_repair_runs(made: Lab, which: str) -> None:
    """A prune merged the index, so its session alone vouches for it; and the directory of a pack is damaged."""
    sids = [save(made, {"a": random.Random(i).randbytes(1500)}) for i in range(17)]
    prune(made)
    assert len(some(made, names.INDEX)) == 1
    name, _ = place_of(made, sids[0])
    flip(made, name, -5)
    before = dict(made.store.objects)
    for nth in range(1, 7):
        made.store.objects.clear()
        made.store.objects.update(before)
        with one_bad_reply(lambda n: n.startswith(which), nth) as asked:
            repair(made)
        assert len(asked) >= 3
        assert not [sid for sid in sids if lost(made, sid)], f"after a bad reply to get {nth}"


def test_a_copy_that_is_going_does_not_survive(made: Lab) -> None:
    """A prune was killed before it deleted; then its slot rots, and the directory of the only other copy."""
    sid = save(made, TREE)
    old = some(made, names.PACKS)
    with made.open() as repo:
        lab.put_gc(repo.vault, list(repo.vault.loader.packs_present()))
    save(made, TREE)
    twice = [PackId(names.content_digest(n) or b"") for n in some(made, names.PACKS) if n not in old]
    assert twice
    for name in some(made, names.GC):
        del made.store.objects[name]
    with (
        made.open() as repo,
        mock.patch.object(GarbageCollection, "_delete", lambda self, doomed: Reclaimed(packs=len(doomed))),
    ):
        plan = snapvault.plan_prune(repo)
        (domain,) = plan.domains
        object.__setattr__(domain, "condemned", tuple(twice))
        assert plan.execute(wait=NOW, lease=NOW).packs_removed
    slot = max(some(made, names.SNAPSHOTS + names.GC_PREFIX), key=lambda n: len(made.store.objects[n]))
    whole = made.store.objects[slot]
    flip(made, slot, len(whole) // 2)
    for name in old:
        flip(made, name, -5)
    repair(made)
    made.store.objects[slot] = whole
    prune(made)
    assert not lost(made, sid)


def test_keys_that_were_changed_meanwhile(made: Lab) -> None:
    """What is sealed to keys that a handle does not have looks damaged to it."""
    save(made, {"x": b"first"})
    old = made.open()
    with made.open() as repo:
        snapvault.rotate(repo)
    sid = save(made, TREE)
    flip(made, *place_of(made, sid, "f0"))
    before = lost(made, sid)
    for plan in (snapvault.plan_repair, snapvault.plan_prune):
        with pytest.raises(Conflict, match="open it again"):
            plan(old)
    repair(made)
    assert lost(made, sid) == before


def test_what_is_damaged_and_locked_is_told_to_writers(made: Lab) -> None:
    """A check without the keys of a pack sees that its bytes are others; nobody relies on it then."""
    save(made, {"x": b"first"})
    old = made.open()
    with made.open() as repo:
        snapvault.rotate(repo)
    sid = save(made, TREE)
    flip(made, *place_of(made, sid, "f0"))
    assert snapvault.check(old, read_data=True).status == "damaged"
    assert some(made, names.DAMAGED)
    again = save(made, TREE)
    assert not lost(made, again)


def test_what_is_lost_in_part_comes_back_in_part(made: Lab) -> None:
    """Undelete of a snapshot with a note: what is there, with the note."""
    sid = save(made, TREE)
    flip(made, *place_of(made, sid, "f0"))
    assert repair(made).status == "partial"
    gone = {path for _, path in lost(made, sid)}
    with made.open() as repo:
        snapvault.forget_snapshots(repo, [sid])
    with made.open() as repo:
        back = snapvault.undelete(repo, sid).snapshot
    made.trees[back] = TREE
    assert {path for _, path in lost(made, back)} == gone
    with made.open() as repo:
        assert set(repo.snapshot(back).lost) == gone


def test_a_forgotten_snapshot_that_is_damaged_stops_no_prune_for_ever(made: Lab) -> None:
    """It can still be brought back, so a prune asks what it needs; a repair notes that this cannot be told."""
    sid = save(made, TREE)
    other = save(made, {"other": random.Random(50).randbytes(2500)})
    name, _ = place_of(made, sid)
    with made.open() as repo:
        snapvault.forget_snapshots(repo, [sid], undelete_window=timedelta(days=3650))
    del made.store.objects[name]
    with pytest.raises(Damaged):
        prune(made)
    repair(made)
    assert prune(made).status == "ok" and not lost(made, other)


def test_packs_of_a_run_that_was_cut_off_stay_in_the_index(made: Lab) -> None:
    """A later snapshot relies on them, and no other run would list them."""
    with suppress(KeyboardInterrupt), made.open() as repo, repo.writer("lab", host="here") as writer:
        for path, data in TREE.items():
            with writer.open(f"{lab.ROOT}/{path}") as file:
                file.write(data or b"")
        raise KeyboardInterrupt
    sid = save(made, TREE)
    for name in some(made, names.INDEX):
        flip(made, name, len(made.store.objects[name]) // 2)
    assert repair(made).status == "ok"
    with made.open() as repo:
        listed = {names.pack(row.id) for row in repo.vault.loader.load().packs()}
        assert listed == set(some(made, names.PACKS))
        assert contents(repo.snapshot(sid)) == TREE


def test_an_index_of_a_removed_key_that_names_what_is_gone(made: Lab) -> None:
    """Nobody relies on it, and nobody can mend it."""
    key = writer_key(made)
    sid = save(made, TREE, key)
    with made.open() as repo:
        snapvault.remove_key(repo, "w")
    for name in some(made, names.PACKS):
        del made.store.objects[name]
    assert repair(made).status == "partial"
    with made.open() as repo:
        report = snapvault.check(repo, read_data=True)
    assert (report.status, {p.snapshot for p in report.lost}) == ("partial", {sid})
