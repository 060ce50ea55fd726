"""Adversary, a writer (family 8): it has a good key of the role writer, code of its own, and may put what it likes.

It opens nothing.  It loses and hides nothing of anybody else, and a check reports what it tried.
"""

import contextlib
import io
import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from battery import lab
from battery.lab import Lab, Tree
from blake3 import blake3

import snapvault
from snapvault.compression import compress
from snapvault.crypto.envelope import seal, unseal
from snapvault.crypto.kdf import derive
from snapvault.format import names
from snapvault.format.index import IndexRecord, encode_table
from snapvault.format.keyset import Role
from snapvault.format.local import GcRecord, TombstoneRecord, VerifiedRecord
from snapvault.format.pack import Segment
from snapvault.format.session import GC
from snapvault.format.snapshot import GC_DONE, REVOKED, SnapshotDetails
from snapvault.format.tree import Content, encode_tree
from snapvault.format.wire import Kind
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import BlobId, DomainId, PackId, SessionId
from snapvault.operations.repository import Repository
from snapvault.repository.index import PackRow
from snapvault.repository.packs import encode_segment, pack_ending, pack_prefix
from snapvault.repository.repository import Vault
from snapvault.repository.session import Session, index_context
from snapvault.repository.sessions import stanza_info
from snapvault.repository.trust import sign


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


@pytest.fixture
def writer(made: Lab) -> Iterator[Repository]:
    with made.open((made.home / "writer.json").read_bytes()) as repo:
        assert repo.role == Role.WRITER
        yield repo


@pytest.fixture
def vault(writer: Repository) -> Vault:
    return writer.vault


def others(made: Lab) -> dict[str, Tree]:
    """What is owed to everybody else: the owner's snapshots."""
    return dict(list(made.trees.items())[:2])


def nobody_lost(made: Lab, scratch: Path) -> None:
    """All snapshots of all others are listed and restore, and a new backup of the same data does, too."""
    with made.open(state=made.state) as repo:
        listed = {s.id for s in repo.snapshots()}
        assert set(others(made)) <= listed
        for sid, tree in others(made).items():
            assert not lab.restore_one(repo, sid, tree, scratch)
    again = made.copy()
    with again.open(state=again.state) as repo:
        tree = next(iter(others(made).values()))
        sid = again.backup(repo, {**tree, "one more": b"more"})
        assert not lab.restore_one(repo, sid, again.trees[sid], scratch)
    again.drop()


def reported(made: Lab, what: str, *, read_data: bool = False) -> snapvault.CheckReport:
    """Check says so, and calls no path of anybody else lost."""
    with made.open(state=made.state) as repo:
        report = snapvault.check(repo, read_data=read_data)
    assert any(what in f.message for f in report.findings), report.findings
    assert not {p.snapshot for p in report.lost} & set(others(made))
    return report


# -- it opens nothing -------------------------------------------------------------------------------------------------

READING: dict[str, Callable[[Repository, str, Path], object]] = {
    "snapshots": lambda repo, sid, out: list(repo.snapshots()),
    "snapshot": lambda repo, sid, out: repo.snapshot(sid),
    "restore": lambda repo, sid, out: snapvault.restore(repo, sid, out),
    "restore to a stream": lambda repo, sid, out: snapvault.restore(repo, sid, io.BytesIO()),
    "stream": lambda repo, sid, out: snapvault.restore(repo, sid, io.BytesIO()),
    "diff": lambda repo, sid, out: list(snapvault.diff(repo, sid, sid)),
    "check": lambda repo, sid, out: snapvault.check(repo),
    "check data": lambda repo, sid, out: snapvault.check(repo, read_data=True),
    "forget": lambda repo, sid, out: snapvault.forget_snapshots(repo, [sid]),
    "rotate": lambda repo, sid, out: snapvault.rotate(repo),
    "add a key": lambda repo, sid, out: snapvault.add_key(repo, Role.READER, "x", file=out),
    "remove a key": lambda repo, sid, out: snapvault.remove_key(repo, "reader"),
    "reader": lambda repo, sid, out: repo.vault.reader(),
    "secrets": lambda repo, sid, out: repo.vault.sessions.secrets(SessionId(sid)),
}


@pytest.mark.parametrize("what", READING)
def test_every_other_verb_is_refused(what: str, writer: Repository, made: Lab, scratch: Path) -> None:
    """Also for its own snapshots, and before a name is resolved."""
    before = dict(made.store.objects)
    for sid in (*made.trees, "no such snapshot"):
        with pytest.raises(snapvault.RoleRequired) as refused:
            READING[what](writer, sid, scratch / "out")
        assert refused.value.exit_code == 13
    assert made.store.objects == before and not list(scratch.iterdir())


def secrets_of(vault: Vault) -> list[bytes]:
    """Every secret that the client has, and what can be derived from it."""
    ring = vault.ring
    assert ring.own is not None
    seeds = [ring.own.seeds[:32], ring.own.seeds[32:]]
    for domain in ring.domains.values():
        seeds += [domain.secret, *domain.id_keys, domain.chunk_key, domain.index_key]
    return seeds + [derive(s, p, ring.config_digest) for s in seeds for p in ("segment", "record", "recovery", "index")]


def test_its_keys_open_nothing(vault: Vault, made: Lab) -> None:
    """Not by the product's own code, nor by trying every secret that it has on everything that is sealed."""
    ring = vault.ring
    assert not ring.read_keys and not ring.can_read and set(ring.domains) == set(ring.holder.domains)  # type: ignore[union-attr]
    tried = 0
    with made.open() as owner:
        for sid in made.trees:
            session, _ = vault.sessions.header(SessionId(sid))
            with pytest.raises(Damaged):
                vault.sessions._open(session)
            context = owner.vault.sessions.secrets(SessionId(sid)).context  # not secret
            slot = next(s for s in owner.vault.history.all_slots() if s.record.sid == sid)
            sealed = [("record", slot.sealed)]
            for table in owner.vault.index().tables:
                for blob in table.ids():
                    for place in table.places(blob):
                        if place.pack.sid == sid:
                            data = made.store.objects[names.pack(place.pack.id)]
                            sealed.append(("segment", data[place.start : place.start + place.sealed]))
            assert len(sealed) > 3
            for purpose, data in sealed:
                for secret in secrets_of(vault):
                    with pytest.raises(Damaged):
                        unseal(secret, purpose, context, data)
                    tried += 1
            for stanza in session.stanzas:
                with pytest.raises(Damaged):
                    assert ring.own is not None
                    ring.own.hpke.open(stanza.sealed, stanza_info(stanza.recipient, session.head_bytes))
    assert tried > 300


def test_the_keyset_gives_it_its_own_domain_alone(vault: Vault) -> None:
    own, ring = vault.ring.own, vault.ring
    assert own is not None and ring.holder is not None
    sealed = [(e.number, to) for e in ring.current.epochs for to, _ in e.sealed if to == own.id]
    domains = [d.id for d in ring.current.domains for to, _ in d.sealed if to == own.id]
    assert sealed == [] and tuple(domains) == ring.holder.domains and len(domains) == 1


# -- forged index entries ---------------------------------------------------------------------------------------------


def owners_place(made: Lab) -> tuple[PackRow, list[Segment]]:
    """A pack of the owner's and what is in it: a former reader would know."""
    with made.open() as repo:
        digest, size = next(
            (d, s) for d, s in repo.vault.loader.packs_present().items()
            if repo.vault.loader.read_directory(d, s)[0].sid in others(made)
        )  # fmt: skip
        return repo.vault.loader.read_directory(digest, size)


def put_index(
    vault: Vault,
    session: Session,
    packs: list[tuple[PackRow, list[Segment]]],
    *,
    domain: DomainId | None = None,
    sid: SessionId | None = None,
) -> str:
    """An index object that says of these packs what it likes, signed by the writer."""
    own = vault.ring.write_domain
    raw = encode_table([segments for _, segments in packs])
    codec, data = compress(raw)
    context = index_context(vault.ring.config_digest, own.id)
    sealed = bytes(seal(own.index_key, "index", context, codec, len(raw), data))
    rows = tuple((row.id, row.size, row.sid) for row, _ in packs)
    digest = blake3(sealed).digest()
    record = IndexRecord(vault.ring.config_digest, sid or session.sid, domain or own.id, rows, digest)
    keys = vault.ring.signing
    signed = sign(Kind.INDEX, record.encode(), keys.id, keys.signer, sealed)
    name = names.index(blake3(signed).digest())
    vault.backend.put(name, [signed])
    return name


def announced(vault: Vault) -> Session:
    """A session of the writer's own."""
    session = Session(vault.store, vault.ring, vault.ring.write_domain)
    vault.backend.put(names.session(session.sid), [session.header])
    return session


def test_an_index_of_another_sessions_packs(vault: Vault, made: Lab, scratch: Path) -> None:
    row, segments = owners_place(made)
    name = put_index(vault, announced(vault), [(row, segments)])
    reported(made, "a writer lists packs of another session")
    assert reported(made, name)
    nobody_lost(made, scratch)


def test_an_index_in_another_domain(vault: Vault, made: Lab, scratch: Path) -> None:
    row, segments = owners_place(made)
    session = announced(vault)
    put_index(vault, session, [(row._replace(sid=session.sid), segments)], domain=row.domain)
    reported(made, "not signed by the session that it names")
    nobody_lost(made, scratch)


def test_an_index_in_the_name_of_anothers_session(vault: Vault, made: Lab, scratch: Path) -> None:
    row, segments = owners_place(made)
    put_index(vault, announced(vault), [(row, segments)], sid=row.sid, domain=row.domain)
    reported(made, "not signed by the session that it names")
    nobody_lost(made, scratch)


def test_anothers_packs_claimed_as_its_own(vault: Vault, made: Lab, scratch: Path) -> None:
    """It says that it wrote the owner's pack itself, and that other blobs are in it."""
    row, segments = owners_place(made)
    session = announced(vault)
    other = [replace(s, ids=bytes(b ^ 255 for b in s.ids), lengths=s.lengths[::-1]) for s in segments]
    put_index(vault, session, [(row._replace(sid=session.sid), other)])
    reported(made, f"an index of session {session.sid} lists it in a domain of which it is not", read_data=True)
    nobody_lost(made, scratch)
    lost_index = [n for n in made.store.objects if n.startswith(names.INDEX)]
    with made.open() as repo:
        for name in lost_index:  # the owner's own index is lost at the same time: the claim must not hide the pack
            record, _ = repo.vault.loader.verify(made.store.objects[name])
            if record.sid != session.sid and record.domain == row.domain:
                del made.store.objects[name]
    nobody_lost(made, scratch)
    with made.open(state=made.state) as repo:
        assert not {p.snapshot for p in snapvault.check(repo, read_data=True).lost} & set(others(made))


# -- garbage under a known id -----------------------------------------------------------------------------------------


def put_pack(session: Session, blobs: list[tuple[bytes, int, bytes]], lie: list[int] | None = None) -> PackRow:
    """A pack that says of each blob (id, type, bytes) what it likes, with an index object; also of their lengths."""
    prefix = pack_prefix(session.header)
    s = session.secrets
    encoded = encode_segment(b"".join(data for _, _, data in blobs))
    sealed, raw = seal(s.secret, "segment", s.context, *encoded), encoded.raw_length
    lengths = [len(data) for _, _, data in blobs] if lie is None else lie
    ids, types = b"".join(i for i, _, _ in blobs), bytes(t for _, t, _ in blobs)
    segment = Segment(len(prefix), len(sealed), sum(lengths), ids, array("I", lengths), types)
    body = prefix + sealed
    body += pack_ending(session.secrets, [segment], len(body), full=False)
    row = PackRow(PackId(blake3(body).digest()), len(body), session.sid, session.domain.id)
    session.put_object(names.pack(row.id), [body])
    session.put_index([(row, [segment])])
    assert raw == sum(len(data) for _, _, data in blobs)
    return row


def test_garbage_under_the_ids_of_others(vault: Vault, made: Lab, scratch: Path) -> None:
    """It knows ids of the owner's blobs (from a former reader) and offers them in its own domain.

    The owner neither deduplicates onto that nor looks for its data there, nor believes the lengths.
    """
    with made.open() as repo:
        known = [
            (b, p)
            for t in repo.vault.index().tables
            for b in t.ids()
            for p in t.places(b)
            if p.pack.sid in others(made)
        ]
    session = announced(vault)
    for n in range(0, len(known), 20):
        put_pack(session, [(b, p.type, os.urandom(p.length % 50 + 1)) for b, p in known[n : n + 20]])
    reported(made, "do not match their ids", read_data=True)
    nobody_lost(made, scratch)
    with made.open() as repo:  # the owner's packs vanish: what it backs up now must be stored again
        mine = {p.pack.id for _, p in known}
    for pack in mine:
        del made.store.objects[names.pack(pack)]
    with made.open(state=made.state) as repo:
        tree = list(others(made).values())[-1]
        sid = made.backup(repo, tree)
        assert not lab.restore_one(repo, sid, tree, scratch)


def test_garbage_in_its_own_domain_harms_itself_alone(writer: Repository, made: Lab, scratch: Path) -> None:
    """It stores garbage under the id of a file, then backs that file up: check and restore both call it lost."""
    vault = writer.vault
    victim = b"a file that will be backed up" * 8
    blob = vault.ring.write_domain.blob_id(0, victim)
    session = announced(vault)
    put_pack(session, [(blob, 0, b"x" * len(victim))])
    with made.open((made.home / "writer.json").read_bytes()) as fresh:
        sid = made.backup(fresh, {"victim": victim, "fine": b"fine" * 99}, dataset="other")
    verdict = lab.judge(made, scratch)
    assert verdict.lost == {(sid, f"{lab.ROOT}/victim")}
    nobody_lost(made, scratch)


@pytest.mark.parametrize("honest", [False, True])
@pytest.mark.parametrize("lie", [[5, 20, 10], [20, 10, 5], [10, 5, 20], [0, 30, 5]])
def test_lengths_that_are_not_those_of_the_blobs(
    lie: list[int], honest: bool, vault: Vault, made: Lab, scratch: Path
) -> None:
    """Places are sums of lengths: with lengths that lie no byte may land in the wrong place."""
    session, domain = announced(vault), vault.ring.write_domain
    parts = [b"a" * 10, b"b" * 20, b"c" * 5]
    ids = [domain.blob_id(0, p) for p in parts]
    put_pack(session, [(i, 0, p) for i, p in zip(ids, parts, strict=True)], lie)
    node = lab.file_node(b"file", 35, Content(0, b"".join(ids)))
    sid = put_snapshot(session, encode_tree([node], {}, {}))
    if honest:  # a true copy beside the lie: the file is whole
        put_pack(announced(vault), [(i, 0, p) for i, p in zip(ids, parts, strict=True)])
        with made.open() as repo:
            assert snapvault.restore(repo, sid, scratch / "out").status == "ok"
            assert (scratch / "out/file").read_bytes() == b"".join(parts)
            assert repo.snapshot(sid).open("/file").read() == b"".join(parts)
            assert not snapvault.check(repo, read_data=True).lost
        return
    with made.open() as repo:
        result = snapvault.restore(repo, sid, scratch / "out")
        assert [i.path for i in result.lost] == ["/file"] and not (scratch / "out/file").exists()
        with pytest.raises(Damaged), repo.snapshot(sid).open("/file") as file:
            file.read()
        report = snapvault.check(repo, read_data=True)
        assert {(p.snapshot, p.path) for p in report.lost} == {(sid, "/file")}
    nobody_lost(made, scratch)


def put_snapshot(session: Session, tree: bytes) -> str:
    """Commit a tree as it is."""
    blob = session.domain.blob_id(1, tree)
    put_pack(session, [(blob, 1, tree)])
    session.commit(SnapshotDetails("evil", "here", Content(0, blob), (b"/",), 1, 1), (), 1)
    return session.sid


def test_a_pack_that_claims_anothers_session(vault: Vault, made: Lab, scratch: Path) -> None:
    """The id of the owner's session in a header of its own, signed and entitled: nobody takes it for the owner's."""
    victim = SessionId(next(iter(others(made))))
    fake = Session(vault.store, vault.ring, vault.ring.write_domain)
    fake.sid, fake.secrets = victim, fake.secrets._replace(sid=victim)
    fake.header = fake._build_header("writer")
    prefix, body = pack_prefix(fake.header), b""
    packs = vault.loader.packs_present()
    while not body or blake3(body).digest() > min(packs):  # the first to be looked at
        body = prefix + os.urandom(3000)
    vault.backend.put(names.pack(PackId(blake3(body).digest())), [body])
    reported(made, names.pack(PackId(blake3(body).digest())), read_data=True)
    nobody_lost(made, scratch)
    del made.store.objects[names.session(victim)]  # the header is lost, too: the owner's packs carry it
    nobody_lost(made, scratch)
    for name in [n for n in made.store.objects if n.startswith(names.INDEX)]:
        del made.store.objects[name]  # and nothing says whose packs they are
    nobody_lost(made, scratch)


# -- false tombstones, records of GCs, filled slots -------------------------------------------------------------------


def test_a_false_tombstone(vault: Vault, made: Lab, scratch: Path) -> None:
    keys, config = vault.ring.signing, vault.ring.config_digest
    with made.open() as repo:
        slots = {s.record.sid: s.digest for s in repo.vault.history.all_slots()}
    for sid in others(made):
        record = TombstoneRecord(config, SessionId(sid), slots[SessionId(sid)], 1, 1)
        data = sign(Kind.TOMBSTONE, record.encode(), keys.id, keys.signer)
        vault.backend.put(names.tombstone(SessionId(sid)), [data])
    reported(made, "not signed by a maintainer")
    nobody_lost(made, scratch)


def gc_session(vault: Vault, sid: str) -> Session:
    """A session that says it is a GC's."""
    session = Session(vault.store, vault.ring, vault.ring.write_domain)
    session.sid, session.secrets = SessionId(sid), session.secrets._replace(sid=SessionId(sid))
    session.header = session._build_header(GC)
    vault.backend.put(names.session(session.sid), [session.header])
    return session


def test_a_false_gc_record(vault: Vault, made: Lab, scratch: Path) -> None:
    """It condemns every pack; nobody believes it, so nothing is stored twice."""
    session = gc_session(vault, "gc" + "ab" * 16)
    condemned = tuple(vault.loader.packs_present())
    record = GcRecord(vault.ring.config_digest, session.sid, condemned)
    keys = vault.ring.signing
    vault.backend.put(names.GC + session.sid, [sign(Kind.GC, record.encode(), keys.id, keys.signer)])
    reported(made, names.GC + session.sid)
    with made.open(state=made.state) as repo:
        assert repo.vault.loader.condemned() == set()
    nobody_lost(made, scratch)


@pytest.mark.parametrize("kind", [GC_DONE, REVOKED])
def test_a_slot_filled_as_only_a_maintainer_may(kind: str, vault: Vault, made: Lab, scratch: Path) -> None:
    """It also must not switch off the check that every session is complete."""
    session = gc_session(vault, "gc" + "cd" * 16)
    session._fill(kind, b"")
    reported(made, f"filled with {kind!r} by a writer")
    dropped = next(n for n in made.store.objects if n.startswith(names.INDEX))
    data = made.store.objects.pop(dropped)
    reported(made, "of which the store shows")
    made.store.objects[dropped] = data
    nobody_lost(made, scratch)


def test_a_commit_in_anothers_slot(vault: Vault, made: Lab, scratch: Path) -> None:
    """The victim's commit is refused and nothing acknowledged; its next run commits, and the slot is reported."""
    repo = made.open(state=made.state)
    with pytest.raises(snapvault.Conflict), repo, repo.writer("lab", host="here") as run:
        with run.open("/x") as file:
            file.write(b"x" * 1000)
        victim = run._run.session
        assert victim is not None
        thief = Session(vault.store, vault.ring, vault.ring.write_domain)
        thief.sid, thief.secrets = victim.sid, thief.secrets._replace(sid=victim.sid)
        thief.commit(SnapshotDetails("lab", "here", Content(), (b"/",), 1, 1), (), 1)
    reported(made, "committed by another holder")
    with made.open(state=made.state) as repo:
        assert victim.sid not in {s.id for s in repo.snapshots()}
    nobody_lost(made, scratch)


def test_a_false_record_of_what_was_verified(vault: Vault, made: Lab, scratch: Path) -> None:
    """A check of a share must not be led past damage by somebody who says that it was looked at just now."""
    with made.open() as repo:
        for name in [n for n in made.store.objects if n.startswith(names.VERIFIED)]:
            del made.store.objects[name]
        packs = tuple(repo.vault.loader.packs_present())
    keys = vault.ring.signing
    record = VerifiedRecord(vault.ring.config_digest, "data", 1 << 62, packs)
    name = names.VERIFIED + "ab" * 16
    vault.backend.put(name, [sign(Kind.VERIFIED, record.encode(), keys.id, keys.signer)])
    report = reported(made, name)
    assert report.verified_share == 0
    assert report.status == "ok"  # worth knowing, and no damage


def test_a_false_record_of_damage(vault: Vault, made: Lab, scratch: Path) -> None:
    """Nobody stores everything again because a write-only client says that it has rotted."""
    with made.open() as repo:
        packs = tuple(repo.vault.loader.packs_present())
    keys = vault.ring.signing
    record = VerifiedRecord(vault.ring.config_digest, "damaged", 1 << 62, packs)
    name = names.DAMAGED + "ab" * 16
    vault.backend.put(name, [sign(Kind.VERIFIED, record.encode(), keys.id, keys.signer)])
    assert reported(made, name).status == "ok"
    tree = next(iter(made.trees.values()))
    with made.open(state=made.state) as repo, repo.writer("lab", host="here") as run:
        for path, data in tree.items():
            if data is not None:
                with run.open(f"{lab.ROOT}/{path}") as file:
                    file.write(data)
    assert run.result is not None and not run.result.warnings
    assert run.result.bytes_new < 5000  # trees


# -- floods -----------------------------------------------------------------------------------------------------------

FLOOD = 150


def test_floods(vault: Vault, made: Lab, scratch: Path) -> None:
    """Sessions by the hundred, true ones and garbage, and garbage wherever an object could stand."""
    for i in range(FLOOD):
        announced(vault)
        garbage, sid = os.urandom(200), SessionId(f"{i:032x}")
        for name in (
            names.session(sid), names.snapshot(sid), names.tombstone(sid), names.GC + "gc" + sid,
            names.snapshot(SessionId("gc" + sid)), names.index(blake3(garbage).digest()), names.VERIFIED + sid,
            names.pack(PackId(blake3(garbage).digest())), f"{names.SLOTS}{sid}/{i:016x}", names.heartbeat(sid, i),
            f"{names.NOTES}{sid}/{blake3(garbage).hexdigest()}", f"{names.CAPABILITIES}{i:016x}", names.DAMAGED + sid,
        ):  # fmt: skip
            vault.backend.put(name, [garbage])
    with made.open(state=made.state) as repo:
        report = snapvault.check(repo, read_data=True)
        assert len({o for f in report.findings for o in f.objects}) >= 13 * FLOOD
        assert not {p.snapshot for p in report.lost}
    nobody_lost(made, scratch)


# -- keys that were removed -------------------------------------------------------------------------------------------


def test_a_removed_writer(writer: Repository, made: Lab, scratch: Path) -> None:
    """What it wrote stays; whatever it writes after is ignored and reported, also with code of its own."""
    session = Session(writer.vault.store, writer.vault.ring, writer.vault.ring.write_domain)
    with made.open(state=made.state) as owner:
        snapvault.remove_key(owner, "writer")
    with pytest.raises(snapvault.KeyRejected):
        made.open((made.home / "writer.json").read_bytes())
    with pytest.raises(snapvault.KeyRejected, match="removed"):  # it was open already
        made.backup(writer, {"x": b"x"}, dataset="other")
    writer.vault.backend.put(names.session(session.sid), [session.header])
    sid = put_snapshot(session, encode_tree([lab.file_node(b"late", 0, Content())], {}, {}))
    reported(made, f"snapshot {sid} was written by writer after that key was removed")
    with made.open(state=made.state) as owner:
        assert {s.id for s in owner.snapshots()} == set(made.trees)
        for known, tree in made.trees.items():
            assert not lab.restore_one(owner, known, tree, scratch)


def test_a_removed_reader(made: Lab) -> None:
    """It keeps what it could open; new data it cannot open, with whatever it kept."""
    reader = made.open((made.home / "reader.json").read_bytes())
    assert {s.id for s in reader.snapshots()} == set(made.trees)
    with made.open(state=made.state) as owner:
        snapvault.remove_key(owner, "reader")
        new = made.backup(owner, lab.make_tree(7))
    with pytest.raises(snapvault.KeyRejected):
        made.open((made.home / "reader.json").read_bytes())
    ring = reader.vault.ring
    assert ring.own is not None
    with pytest.raises(Damaged, match="sealed to no key"):
        reader.vault.sessions.secrets(SessionId(new))
    session, _ = reader.vault.sessions.header(SessionId(new))
    for key in (*ring.read_keys.values(), ring.own.hpke):
        for stanza in session.stanzas:
            with pytest.raises(Damaged):
                key.open(
                    stanza.sealed, b"snapvault/1 session " + stanza.recipient.encode() + b"\0" + session.head_bytes
                )


def test_a_removed_maintainer_forgets_nothing_more(made: Lab, scratch: Path) -> None:
    """Its tombstones of before stay; one that it writes after its removal is ignored and reported."""
    one, two = others(made)
    with made.open(state=made.state) as owner:
        snapvault.add_key(owner, Role.MAINTAINER, "maintainer", file=scratch / "maintainer.json")
        for sid in (one, two):
            snapvault.set_hold(owner, sid, held=False)
    with made.open((scratch / "maintainer.json").read_bytes()) as maintainer:
        snapvault.forget_snapshots(maintainer, [one])
        with made.open(state=made.state) as owner:
            assert one not in {s.id for s in owner.snapshots()}
            snapvault.remove_key(owner, "maintainer")
        snapvault.forget_snapshots(maintainer, [two])
    with made.open(state=made.state) as owner:
        listed = {s.id for s in owner.snapshots()}
        assert one not in listed and two in listed
        assert any("not signed by a maintainer" in f.message for f in snapvault.check(owner).problems)


def test_a_writer_under_load_of_its_own_lies(writer: Repository, made: Lab, scratch: Path) -> None:
    """All of it together, several times over."""
    vault = writer.vault
    row, segments = owners_place(made)
    for i in range(5):
        session = announced(vault)
        put_index(vault, session, [(row, segments)])
        put_index(vault, session, [(row._replace(sid=session.sid), segments)])
        put_pack(session, [(BlobId(segments[0].ids[:32]), 0, os.urandom(10 + i))])
        gc_session(vault, f"gc{i:032x}")._fill(GC_DONE, b"")
        with contextlib.suppress(snapvault.Conflict):
            session.abort()
    reported(made, "", read_data=True)
    nobody_lost(made, scratch)
