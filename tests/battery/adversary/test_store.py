"""Adversary, the store (family 8): it shows whatever it likes, and has no key."""

import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgpack
import pytest
import zstandard
from battery import lab
from battery.lab import Lab
from blake3 import blake3
from repos import flipped

import snapvault
from snapvault.compression import ZSTD, decompress
from snapvault.crypto.envelope import HEADER, MAX_RAW, seal, unseal
from snapvault.crypto.hpke import hpke_seal
from snapvault.crypto.recovery import decode_recovery_key
from snapvault.format import names
from snapvault.format.keyset import CertificateRecord, Holder, Role, decode_keyset
from snapvault.format.signed import decode_signed
from snapvault.format.slot import ARGON2ID, decode_slot
from snapvault.format.snapshot import decode_snapshot
from snapvault.format.tree import BlobType
from snapvault.format.wire import MAGIC, Kind
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import BlobId, PackId, SessionId
from snapvault.operations.repository import Repository
from snapvault.repository.index import Place
from snapvault.repository.keyring import HolderKeys, epoch_info
from snapvault.repository.trust import certify, sign


@pytest.fixture(scope="module")
def built() -> Iterator[Lab]:
    with lab.scratch_folder() as home:
        yield lab.build(home)


@pytest.fixture
def made(built: Lab) -> Iterator[Lab]:
    copy = built.copy()
    yield copy
    copy.drop()


@pytest.fixture
def scratch() -> Iterator[Path]:
    with lab.scratch_folder() as folder:
        yield folder


def mine(made: Lab) -> list[str]:
    """The owner's snapshots, oldest first."""
    return list(made.trees)[:2]


def everything_restores(made: Lab, scratch: Path, *, but: str = "") -> None:
    with made.open() as repo:
        for sid, tree in made.trees.items():
            if sid != but:
                assert not lab.restore_one(repo, sid, tree, scratch)


def found(made: Lab, what: str) -> None:
    """Check says so."""
    with made.open(state=made.state) as repo:
        report = snapvault.check(repo)
        assert report.status == "damaged"
        assert any(what in f.message for f in report.problems), report.problems


# -- an old state -----------------------------------------------------------------------------------------------------


def test_an_older_state_played_back(made: Lab, scratch: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = dict(made.store.objects)
    with made.open(state=made.state) as repo:
        newest = made.backup(repo, lab.make_tree(4))
        snapvault.rotate(repo)
    made.store.objects.clear()
    made.store.objects.update(before)
    found(made, newest)
    found(made, "an old state is shown")
    with made.open(state=made.state) as repo:
        caplog.clear()
        assert newest not in {s.id for s in repo.snapshots()}
        assert newest in caplog.text
        with pytest.raises(snapvault.Damaged, match="old state"):
            made.backup(repo, lab.make_tree(5))  # would be sealed to the keys of an old keyset
        with pytest.raises(snapvault.Damaged, match="old state"):
            snapvault.rotate(repo)
        for sid in mine(made):  # a restore is never stopped
            assert not lab.restore_one(repo, sid, made.trees[sid], scratch)


def test_the_newest_snapshots_dropped(made: Lab, scratch: Path) -> None:
    """The same keyset, one commit slot less: a backup says so, and goes on."""
    newest = mine(made)[-1]
    del made.store.objects[names.snapshot(newest)]
    found(made, newest)
    with made.open(state=made.state) as repo:
        with repo.writer("lab", host="here") as writer, writer.open("/x") as file:
            file.write(b"x")
        assert writer.result is not None
        assert any(newest in w for w in writer.result.warnings)


@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_what_is_lost_for_good_is_forgotten(made: Lab, scratch: Path, newest: bool, damage: str) -> None:
    """By its id, though its record cannot be had; then nobody misses it, once it could not be brought back any more."""
    victim = mine(made)[-1 if newest else 0]
    name = names.snapshot(SessionId(victim))
    if damage == "gone":
        del made.store.objects[name]
    else:
        made.store.objects[name] = flipped(made.store.objects[name])
    packs = {name for name in made.store.objects if name.startswith(names.PACKS)}
    for window, status in ((snapvault.operations.forget.UNDELETE_WINDOW, "damaged"), (timedelta(0), "ok")):
        found(made, victim)
        with made.open(state=made.state) as repo:
            assert snapvault.forget_snapshots(repo, [victim[:8]], undelete_window=window).forgotten == (victim,)
        with made.open(state=made.state) as repo:
            report = snapvault.check(repo, read_data=True)
            assert report.status == status, report.problems
    with made.open(state=made.state) as repo:
        assert not repo.vault.commit_slots()[1]
        assert [f.message for f in report.findings if victim in f.message] == [
            f"the record of snapshot {victim}, which was forgotten for good, is damaged or gone"
        ]
        pruned = snapvault.plan_prune(repo, limits=snapvault.PruneLimits(unused=0.0)).execute(wait=timedelta(0))
        assert pruned.status == ("partial" if damage == "gone" and pruned.waits_for else "ok")
        if damage == "flipped":  # where the slot is gone, nobody knows that its session has ended
            assert not packs <= set(made.store.objects)
    with made.open(state=made.state) as repo:  # where it is gone, this ends what looks like a run that died
        pruned = snapvault.plan_prune(repo, limits=snapvault.PruneLimits(unused=0.0), exclusive=True).execute()
        assert pruned.status == "ok" and not packs <= set(made.store.objects)
    with made.open(state=made.state) as repo:
        assert snapvault.check(repo, read_data=True).status == "ok" and not repo.vault.commit_slots()[1]
        for sid in set(mine(made)) - {victim}:
            assert not lab.restore_one(repo, sid, made.trees[sid], scratch / sid)


def test_a_record_that_came_back_is_missed_again(made: Lab) -> None:
    """What was forgotten was a damaged one; the true one is listed again, and then somebody takes it away."""
    victim = mine(made)[-1]
    name = names.snapshot(SessionId(victim))
    good = made.store.objects[name]
    made.store.objects[name] = flipped(good)
    with made.open(state=made.state) as repo:
        snapvault.forget_snapshots(repo, [victim], undelete_window=timedelta(0))
        assert not repo.vault.commit_slots()[1]
    made.store.objects[name] = good
    with made.open(state=made.state) as repo:
        assert victim in {s.id for s in repo.snapshots()}
    del made.store.objects[name]
    found(made, f"1 snapshot that this client saw here is gone or replaced: {victim}")


# -- records ----------------------------------------------------------------------------------------------------------


def forge(made: Lab, keys: HolderKeys, certificate: bytes, sid: str, like: str) -> None:
    """A commit slot at ``sid`` with the content of another one, signed by somebody."""
    signed = decode_signed(Kind.SNAPSHOT, made.store.objects[names.snapshot(SessionId(like))])
    record = replace(decode_snapshot(signed.payload), sid=SessionId(sid), certificate=certificate)
    data = sign(Kind.SNAPSHOT, record.encode(), keys.id, keys.signer, signed.sealed)
    made.store.objects[names.snapshot(SessionId(sid))] = data


def self_certified(repo: Repository, keys: HolderKeys) -> bytes:
    domain = repo.vault.ring.current.domains[0].id
    config = repo.vault.ring.config_digest
    return certify(CertificateRecord(config, keys.id, Role.OWNER, keys.signer.public, (domain,)), keys.id, keys.signer)


def test_a_forged_record(made: Lab, scratch: Path) -> None:
    keys = HolderKeys.generate()
    with made.open() as repo:
        forge(made, keys, self_certified(repo, keys), "ab" * 16, mine(made)[0])
    found(made, "was not signed by the owner")
    with made.open() as repo:
        assert "ab" * 16 not in {s.id for s in repo.snapshots()}
        with pytest.raises(snapvault.Damaged):
            repo.snapshot("ab" * 16)
    everything_restores(made, scratch)


def test_a_record_signed_again_by_another_holder(made: Lab, scratch: Path) -> None:
    victim = mine(made)[0]
    with made.open((made.home / "writer.json").read_bytes()) as writer:
        ring = writer.vault.ring
        assert ring.own is not None and ring.holder is not None
        forge(made, ring.own, ring.holder.certificate, victim, victim)
    found(made, "committed by another holder")
    with made.open() as repo, pytest.raises(snapvault.Damaged):
        repo.snapshot(victim)
    everything_restores(made, scratch, but=victim)


def test_a_record_of_one_snapshot_under_another_id(made: Lab, scratch: Path) -> None:
    one, two = mine(made)
    made.store.objects[names.snapshot(SessionId(one))] = made.store.objects[names.snapshot(SessionId(two))]
    found(made, "does not belong here")
    everything_restores(made, scratch, but=one)


def test_the_sealed_part_of_another_record(made: Lab, scratch: Path) -> None:
    one, two = (decode_signed(Kind.SNAPSHOT, made.store.objects[names.snapshot(SessionId(s))]) for s in mine(made))
    body = [one.payload, [list(s) for s in one.signatures], two.sealed]
    head = MAGIC + bytes((Kind.SNAPSHOT, 1, 0, 0)) + msgpack.packb(body)
    made.store.objects[names.snapshot(SessionId(mine(made)[0]))] = head + blake3(head).digest()
    found(made, "sealed part")
    everything_restores(made, scratch, but=mine(made)[0])


def test_objects_of_another_repository(made: Lab, scratch: Path) -> None:
    """Another repository of the same owner's, with the very same content."""
    with lab.scratch_folder() as home:
        other = lab.build(home)
    for name, data in other.store.objects.items():
        if name.startswith((names.SESSIONS, names.PACKS, names.INDEX, names.SNAPSHOTS, names.TOMBSTONES, names.GC)):
            made.store.objects[name] = data
    found(made, "")
    with made.open() as repo:
        assert {s.id for s in repo.snapshots()} == set(made.trees)
    everything_restores(made, scratch)


# -- blobs ------------------------------------------------------------------------------------------------------------


def places(repo: Repository) -> list[tuple[BlobId, Place]]:
    index = repo.vault.index()
    return [(blob, place) for table in index.tables for blob in table.ids() for place in table.places(blob)]


def test_a_segment_at_the_place_of_another(made: Lab, scratch: Path) -> None:
    """All segments of a session open with one secret: only the id of each blob says that it is in the right place."""
    tree: lab.Tree = {f"f{i}": blake3(bytes([i])).digest(length=256) for i in range(40)}  # eight chunks a segment
    with lab.small_parts(), made.open() as repo:
        sid = made.backup(repo, tree)
    with made.open() as repo:
        segments = {(p.pack, p.start, p.sealed) for _, p in places(repo) if p.pack.sid == sid and not p.type}
    by_size: dict[tuple[PackId, int], list[int]] = {}
    for pack, start, sealed in sorted(segments):
        by_size.setdefault((pack.id, sealed), []).append(start)
    (pack_id, sealed), starts = max(by_size.items(), key=lambda item: len(item[1]))
    assert len(starts) >= 2, "the test needs two segments of one length in a pack"
    name, (a, b) = names.pack(pack_id), starts[:2]
    data = bytearray(made.store.objects[name])
    data[a : a + sealed], data[b : b + sealed] = data[b : b + sealed], data[a : a + sealed]
    made.store.objects[name] = bytes(data)
    verdict = lab.judge(made, scratch)
    assert {s for s, _ in verdict.lost} == {sid}
    assert any("do not match their ids" in f for f in verdict.findings)


def test_a_blob_is_not_read_as_another_type_or_id(made: Lab) -> None:
    with made.open() as repo:
        reader = repo.vault.reader()
        blobs = places(repo)
        for blob, place in blobs:
            assert reader.blob(blob, place.type)
            for other in set(BlobType.ALL) - {place.type}:
                with pytest.raises(Damaged, match="does not match its id"):
                    reader.verified(blob, other, place, reader.segment(place))
        (one, at), (two, _) = blobs[:2]
        assert one != two
        with pytest.raises(Damaged, match="does not match its id"):
            reader.verified(two, at.type, at, reader.segment(at))


# -- keysets and slots ------------------------------------------------------------------------------------------------


def slip_in(made: Lab, repo: Repository, number: int) -> HolderKeys:
    """A keyset with a recipient of ours, who also knows an epoch's public key; signed by ourselves."""
    keys, ring = HolderKeys.generate(), repo.vault.ring
    record = decode_keyset(decode_signed(Kind.KEYSET, made.store.objects[names.keyset(4)]).payload)
    certificate = self_certified(repo, keys)
    holder = Holder(keys.id, Role.OWNER, "x", keys.hpke.public, keys.signer.public, (), certificate)
    epoch = record.epochs[-1]
    seed = hpke_seal(keys.hpke.public, bytes(32), epoch_info(ring.config_digest, epoch.number, epoch.read))
    epochs = (*record.epochs[:-1], replace(epoch, sealed=(*epoch.sealed, (keys.id, seed))))
    forged = replace(record, number=number, holders=(*record.holders, holder), epochs=epochs)
    made.store.objects[names.keyset(number)] = sign(Kind.KEYSET, forged.encode(), keys.id, keys.signer)
    return keys


@pytest.mark.parametrize("number", [4, 5, 999])
def test_a_recipient_slipped_into_a_keyset(number: int, made: Lab, scratch: Path) -> None:
    """It is not believed, nothing new is sealed to it, and it locks nobody out of what is there."""
    with made.open() as repo:
        keys = slip_in(made, repo, number)
    found(made, "not signed by the owner")
    with made.open() as repo:
        assert keys.id not in {h.id for h in repo.vault.ring.current.holders}
        with pytest.raises(snapvault.Damaged, match=f"keyset/{number}"):
            made.backup(repo, lab.make_tree(5))
        with pytest.raises(snapvault.Damaged, match=f"keyset/{number}"):
            snapvault.rotate(repo)
    everything_restores(made, scratch)


@pytest.mark.parametrize("name", ["keyset/nonsense", "keyset/0", "keyset/01", "keyset/-1"])
def test_what_is_no_keyset_is_in_nobodys_way(name: str, made: Lab, scratch: Path) -> None:
    made.store.objects[name] = made.store.objects[names.keyset(4)]
    found(made, "is not the name of a keyset")
    with made.open() as repo:
        made.backup(repo, lab.make_tree(5))
    everything_restores(made, scratch)


@pytest.fixture
def by_password(tmp_path: Path) -> Iterator[Lab]:
    store = lab.memory()
    snapvault.init(store.url, password="first").repository.close()
    yield Lab(store, tmp_path)


def password_slots(made: Lab) -> dict[str, bytes]:
    slots = {n: b for n, b in made.store.objects.items() if n.startswith(names.SLOTS)}
    return {n: b for n, b in slots.items() if decode_slot(b).wrapping == ARGON2ID}


@pytest.mark.parametrize(
    "memory, passes, lanes", [(8, 1, 1), (1 << 31, 3, 4), (64 << 10, 1 << 30, 4), (64 << 10, 3, 1 << 20), (-1, 3, 4)]
)
def test_a_weakened_or_absurd_slot(memory: int, passes: int, lanes: int, by_password: Lab) -> None:
    """It opens nothing, and costs nothing: neither an hour nor all memory."""
    ((name, data),) = password_slots(by_password).items()
    record = decode_slot(data)
    assert record.parameters is not None
    weak = record.parameters._replace(memory=memory, passes=passes, lanes=lanes)
    by_password.store.objects[name] = record._replace(parameters=weak).encode()
    with pytest.raises(snapvault.KeyRejected):
        snapvault.open(by_password.url, password="first")


def test_an_old_slot_revived(by_password: Lab) -> None:
    """After a change of the password the old one opens nothing; with the old slot put back by the store it does again.

    That is why the change says: whoever kept an old slot and its password still has these keys.
    """
    old = password_slots(by_password)
    with snapvault.open(by_password.url, password="first") as repo:
        snapvault.change_password(repo, "second")
    with pytest.raises(snapvault.KeyRejected):
        snapvault.open(by_password.url, password="first")
    by_password.store.objects.update(old)
    snapvault.open(by_password.url, password="first").close()
    snapvault.open(by_password.url, password="second").close()


def test_a_revived_slot_of_a_removed_key_opens_nothing(made: Lab) -> None:
    key = (made.home / "reader.json").read_bytes()
    with made.open() as repo:
        slots = {n: b for n, b in made.store.objects.items() if n.startswith(names.SLOTS)}
        snapvault.remove_key(repo, "reader")
    made.store.objects.update(slots)
    with pytest.raises(snapvault.KeyRejected, match="removed"):
        made.open(key)


def test_a_slot_under_another_holder(made: Lab) -> None:
    """The keys in a slot must be those of the holder that it names."""
    slots = [n for n in made.store.objects if n.startswith(names.SLOTS)]
    holders = {n.split("/")[1] for n in slots}
    assert len(holders) == 3
    one, two = sorted(holders)[:2]
    source = next(n for n in slots if one in n)
    made.store.objects[f"{names.SLOTS}{two}/{'0' * 16}"] = made.store.objects[source]
    found(made, "does not belong here")


# -- the rescue files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rescue-1.py", "RESCUE-1.md"])
def test_a_swapped_rescue_file(name: str, made: Lab) -> None:
    made.store.objects[name] += b"\nsend(the_key)\n"
    found(made, f"{name}: it is not the file that the owner signed: do not run it")
    assert any("do not run it" in f.message for f in snapvault.scrub(made.url).problems)


# -- bombs ------------------------------------------------------------------------------------------------------------


def grown(call: Callable[[], object]) -> int:
    """MiB by which the most memory that this process ever held went up."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10


def bomb(size: int) -> bytes:
    """A zstd frame of zeros that states its size."""
    return zstandard.ZstdCompressor(level=19).compress(bytes(size))


def lying_bomb(size: int) -> bytes:
    """A frame that states no size at all."""
    worker = zstandard.ZstdCompressor(level=19, write_content_size=False).compressobj()
    return b"".join(worker.compress(bytes(1 << 20)) for _ in range(size >> 20)) + worker.flush()


@pytest.mark.parametrize("make", [bomb, lying_bomb])
def test_a_zstd_bomb_is_not_inflated(make: Callable[[int], bytes]) -> None:
    data = make(256 << 20)
    assert len(data) < 100_000

    def open_it() -> None:
        with pytest.raises(Damaged):
            decompress(ZSTD, data, 1000)

    assert grown(open_it) < 64


def test_an_envelope_that_states_an_absurd_length() -> None:
    """Whoever has the key can seal it; whoever opens it must not believe it."""
    secret, data = bytes(32), bomb(1 << 20)
    sealed = seal(secret, "segment", b"", ZSTD, len(data), data)
    assert unseal(secret, "segment", b"", sealed).raw_length == len(data)
    with pytest.raises(ValueError):
        seal(secret, "segment", b"", ZSTD, MAX_RAW + 1, data)
    assert HEADER.size == 12


def framed(kind: int, body: bytes) -> bytes:
    head = MAGIC + bytes((kind, 1, 0, 0)) + body
    return head + blake3(head).digest()


BODIES = {
    "a string of 4 GB": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 GB": b"\xc6\xff\xff\xff\xff",
    "an array of 4 G": b"\xdd\xff\xff\xff\xff",
    "a map of 4 G": b"\xdf\xff\xff\xff\xff",
    "arrays in arrays": b"\xdd\x00\x0f\xff\xff" * 500 + bytes(1 << 20),
    "levels upon levels": b"\x91" * 100_000 + b"\x00",
    "maps in maps": b"\xdf\x00\x00\xff\xff\x00" * 1000 + bytes(1 << 16),
    "an extension": b"\xc9\xff\xff\xff\xff\x01",
    "a time": b"\xd6\xff\x00\x00\x00\x00",
    "two values": b"\x01\x02",
    "nothing": b"",
}


@pytest.mark.parametrize("what", BODIES)
def test_lengths_in_a_record_are_not_believed(what: str, made: Lab, scratch: Path) -> None:
    """Well-framed objects of every kind with hostile lengths inside: reported, and in nobody's way."""
    planted = {
        names.session(SessionId("ee" * 16)): Kind.SESSION,
        names.snapshot(SessionId("ee" * 16)): Kind.SNAPSHOT,
        names.tombstone(SessionId("ee" * 16)): Kind.TOMBSTONE,
        names.GC + "gc" + "ee" * 16: Kind.GC,
        names.VERIFIED + "ee" * 16: Kind.VERIFIED,
        names.DAMAGED + "ee" * 16: Kind.VERIFIED,
        names.slot(lab.holder_of(made, "owner"), b"\0" * 8): Kind.SLOT,
    }
    for name, kind in planted.items():
        made.store.objects[name] = framed(kind, BODIES[what])
    index = framed(Kind.INDEX, BODIES[what])
    made.store.objects[names.index(blake3(index).digest())] = index

    def look() -> None:
        with made.open() as repo:
            assert {s.id for s in repo.snapshots()} == set(made.trees)
            named = {o for f in snapvault.check(repo).findings for o in f.objects}
            assert set(planted) | {names.index(blake3(index).digest())} <= named
            made.backup(repo, lab.make_tree(6))

    assert grown(look) < 200
    everything_restores(made, scratch)


# -- what the recovery key needs --------------------------------------------------------------------------------------


def test_the_recovery_key_opens_without_slots_and_keysets(made: Lab, scratch: Path) -> None:
    for name in list(made.store.objects):
        if name.startswith((names.SLOTS, names.KEYSETS, names.SESSIONS, names.INDEX, names.LOCAL)):
            del made.store.objects[name]
    with made.open_recovery() as repo:
        for sid, tree in made.trees.items():
            assert not lab.restore_one(repo, sid, tree, scratch)
        assert any("there is no key slot" in f.message for f in snapvault.check(repo).problems)


def test_a_recovery_key_of_another_repository(made: Lab) -> None:
    key = decode_recovery_key(made.recovery)
    with pytest.raises(snapvault.KeyRejected):
        snapvault.open(made.url, keys=lambda: key._replace(config_digest=bytes(32)).encode().encode())


def test_a_swapped_repository(made: Lab) -> None:
    """The store shows a repository of its own making: a client file knows better, and no password is tried on it."""
    with lab.scratch_folder() as home:
        other = lab.build(home)
    made.store.objects.clear()
    made.store.objects.update(other.store.objects)
    with pytest.raises(snapvault.KeyRejected, match="another repository"):
        made.open((made.home / "reader.json").read_bytes())


def test_a_window_that_is_over_hides_nothing_early(made: Lab) -> None:
    """A tombstone says of which record it speaks: one for another record of the same id buries nothing."""
    victim = mine(made)[-1]
    with made.open() as repo:
        snapvault.forget_snapshots(repo, [victim], undelete_window=timedelta(0))
        assert victim not in {s.id for s in repo.snapshots()}
        name = names.tombstone(SessionId(victim))
        tombstone, gone = made.store.objects[name], next(iter(made.forgotten))
        made.store.objects[names.tombstone(SessionId(gone))] = tombstone
    with made.open() as repo:
        assert gone in {s.id for s in repo.snapshots()}
