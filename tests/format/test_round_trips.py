"""Every record comes back as it went in, whatever an honest writer may put into it."""

from array import array
from collections.abc import Callable
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from snapvault.format import names
from snapvault.format.chain import ChainRecord, decode_chain
from snapvault.format.config import ConfigRecord, decode_config
from snapvault.format.index import IndexRecord, decode_index, decode_table, encode_table
from snapvault.format.keyset import (
    CertificateRecord,
    Domain,
    Epoch,
    Holder,
    KeysetRecord,
    Revocation,
    Role,
    decode_certificate,
    decode_keyset,
)
from snapvault.format.local import (
    CapabilitiesRecord,
    GcRecord,
    NoteDetails,
    NoteRecord,
    TombstoneRecord,
    VerifiedRecord,
    decode_capabilities,
    decode_gc,
    decode_note,
    decode_note_details,
    decode_tombstone,
    decode_verified,
)
from snapvault.format.pack import Segment, decode_directory, encode_directory
from snapvault.format.register import RegisterRecord, RetiredRow, decode_register
from snapvault.format.session import SessionHead, SessionRecord, Stanza, decode_session
from snapvault.format.signed import Signature, Signed, decode_signed, encode_signed
from snapvault.format.slot import PasswordParameters, SlotRecord, decode_slot
from snapvault.format.snapshot import (
    ABORT,
    COMMIT,
    GC_DONE,
    REVOKED,
    Objects,
    SnapshotDetails,
    SnapshotRecord,
    decode_details,
    decode_snapshot,
    merkle,
)
from snapvault.format.tree import (
    LIST_MAX,
    LIST_MIN,
    PIECE_MAX,
    PIECE_MIN,
    TREE_BYTES,
    Content,
    Node,
    decode_tree,
    encode_tree,
    encode_trees,
    split_ids,
    split_nodes,
)
from snapvault.format.wire import MAX_VALUES, FormatError, Kind, frame, pack, unframe, unpack

FAST = settings(max_examples=60, deadline=None)


def fixed(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def large(size: int) -> st.SearchStrategy[bytes]:
    """A key: its bytes do not matter, and drawing a thousand of them would be slow."""
    return st.integers(0, 1 << 32).map(lambda n: blake3(str(n).encode()).digest(length=size))


def rows(of: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=3).map(tuple)


text, blob, number = st.text(max_size=20), st.binary(max_size=40), st.integers(0, 1 << 62)
time = st.integers(-(1 << 62), 1 << 62)
digest, holder, domain = fixed(32), fixed(16), fixed(16)
sid = st.builds(lambda h, gc: ("gc" if gc else "") + h.hex(), fixed(16), st.booleans())
role = st.sampled_from(Role.ALL)
sealed = rows(st.tuples(holder, blob))
object_name = st.one_of(digest.map(names.pack), digest.map(names.index))

RECORDS: dict[str, tuple[st.SearchStrategy[Any], Callable[[bytes], Any]]] = {
    "config": (st.builds(ConfigRecord, digest, large(1216), digest), decode_config),
    "certificate": (st.builds(CertificateRecord, digest, holder, role, digest, rows(domain)), decode_certificate),
    "keyset": (
        st.builds(
            KeysetRecord, digest, number, digest, st.just(()), st.tuples(number, number, number), number,
            st.integers(1, 1 << 29),
            rows(st.builds(Holder, holder, role, text, large(1216), digest, rows(domain), blob)),
            rows(st.builds(Epoch, number, large(1216), large(1216), sealed)),
            rows(st.builds(Domain, domain, text, sealed)),
            rows(st.builds(Revocation, holder, text, role, digest, rows(sid))),
            rows(st.tuples(text, digest)),
        ),
        decode_keyset,
    ),
    "slot": (
        st.one_of(
            st.builds(
                SlotRecord, digest, holder, st.just("argon2id"),
                st.builds(PasswordParameters, blob, number, number, number), digest, blob,
            ),
            st.builds(SlotRecord, digest, holder, st.sampled_from(["key-file", "recovery"]), st.none(), digest, blob),
        ),
        decode_slot,
    ),
    "snapshot": (
        st.builds(
            SnapshotRecord, digest, st.sampled_from([COMMIT, ABORT, REVOKED, GC_DONE]), sid, blob, number,
            rows(st.tuples(sid, digest)), number, st.builds(Objects, number, number, digest), rows(object_name),
            rows(object_name), digest, blob,
        ),
        decode_snapshot,
    ),
    "snapshot details": (
        st.builds(
            SnapshotDetails, text, text, st.builds(Content, st.integers(0, 8), st.integers(0, 3).flatmap(
                lambda n: fixed(32 * n)
            )),
            rows(blob), time, time, rows(text), st.booleans(), text, text,
            st.dictionaries(text, number, max_size=3), text,
        ),
        decode_details,
    ),
    "index": (
        st.builds(IndexRecord, digest, sid, domain, rows(st.tuples(digest, number, sid)), digest),
        decode_index,
    ),
    "tombstone": (st.builds(TombstoneRecord, digest, sid, digest, time, time), decode_tombstone),
    "gc": (st.builds(GcRecord, digest, sid, rows(digest)), decode_gc),
    "verified": (st.builds(VerifiedRecord, digest, text, time, rows(digest)), decode_verified),
    "capabilities": (st.builds(CapabilitiesRecord, st.booleans(), st.booleans(), st.booleans()), decode_capabilities),
    "note": (st.builds(NoteRecord, digest, sid, time, rows(digest), digest), decode_note),
    "chain": (
        st.builds(ChainRecord, digest, number, st.integers(1, 1 << 62), time, rows(digest), digest, digest),
        decode_chain,
    ),
    "register": (
        st.builds(
            RegisterRecord, st.dictionaries(text, st.dictionaries(text, number | text, max_size=3), max_size=3),
            rows(st.builds(RetiredRow, text, text, text, time)),
        ),
        decode_register,
    ),
    "note details": (
        st.builds(NoteDetails, st.none() | rows(text), st.none() | st.booleans(), rows(blob)),
        decode_note_details,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", RECORDS)
@FAST
@given(data=st.data())
def test_records(what: str, data: st.DataObject) -> None:
    strategy, decode = RECORDS[what]
    record = data.draw(strategy)
    encoded = record.encode()
    assert decode(encoded) == record
    assert decode(encoded).encode() == encoded


@FAST
@given(
    st.tuples(digest, number, domain, digest),
    sid,
    st.sampled_from(["writer", "undelete"]),
    blob,
    rows(st.builds(Stanza, text, number, blob)),
)
def test_sessions(fields: tuple[bytes, int, Any, bytes], sid: Any, purpose: str, blob: bytes, stanzas: Any) -> None:
    config, keyset, domain, commitment = fields
    head = SessionHead(config, keyset, domain, sid, "gc" if sid.startswith("gc") else purpose, blob, commitment)
    record = SessionRecord(head, head.encode(), stanzas)
    assert decode_session(record.encode()) == record


@FAST
@given(
    st.sampled_from([Kind.KEYSET, Kind.SNAPSHOT, Kind.INDEX]),
    blob,
    rows(st.builds(Signature, holder, text, blob)),
    blob,
)
def test_signed_objects(kind: int, payload: bytes, signatures: Any, sealed: bytes) -> None:
    signed = Signed(payload, signatures, sealed)
    assert decode_signed(kind, encode_signed(kind, signed)) == signed


# ---- tables of blobs -------------------------------------------------------------------------------------------------


@st.composite
def segments(draw: st.DrawFn) -> list[Segment]:
    found, offset = [], 100
    for _ in range(draw(st.integers(0, 4))):
        lengths = array("I", draw(st.lists(st.integers(0, 5000), max_size=4)))
        types = bytes(draw(st.integers(0, 2)) for _ in lengths)
        found.append(
            Segment(offset, draw(st.integers(0, 9000)), sum(lengths), draw(fixed(32 * len(lengths))), lengths, types)
        )
        offset += found[-1].sealed
    return found


@FAST
@given(segments())
def test_directories(found: list[Segment]) -> None:
    assert decode_directory(encode_directory(found), 100_000) == found


@FAST
@given(st.lists(segments(), max_size=3))
def test_index_tables(tables: list[list[Segment]]) -> None:
    packs = tuple((bytes([i]) * 32, 100_000, "0" * 32) for i in range(len(tables)))
    record = IndexRecord(bytes(32), "0" * 32, bytes(16), packs, bytes(32))  # type: ignore[arg-type]
    assert decode_table(encode_table(tables), record) == tables
    if tables:
        with pytest.raises(FormatError):
            decode_table(encode_table(tables[1:]), record)


@given(segments())
@FAST
def test_blobs_follow_one_another(found: list[Segment]) -> None:
    for segment in found:
        end = 0
        for b, length, blob_type in zip(segment.blobs(), segment.lengths, segment.types, strict=True):
            assert (b.offset, b.length, b.type) == (end, length, blob_type)
            end += length
        assert end == segment.raw


# ---- trees -----------------------------------------------------------------------------------------------------------

file_name = st.binary(min_size=1, max_size=20).filter(lambda n: n not in (b".", b"..") and not {0, 47} & set(n))
content = st.builds(Content, st.integers(0, 8), st.integers(0, 3).flatmap(lambda n: fixed(32 * n)))


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    kind = draw(st.integers(0, 6))
    node = Node(
        draw(file_name), kind, draw(st.integers(0, 0o7777)), draw(st.integers(0, 1 << 32)),
        draw(st.integers(0, 1 << 32)),
        draw(time), draw(time), draw(number), draw(number), draw(content) if kind < 2 else Content(),
        draw(st.binary(max_size=9).filter(lambda t: 0 not in t)), draw(number),
        draw(st.none() | st.tuples(number, number)),
        draw(st.none() | st.dictionaries(file_name, blob, min_size=1, max_size=3)), None, draw(st.booleans()),
        draw(st.booleans()),
    )  # fmt: skip
    if draw(st.booleans()):
        ends = sorted({draw(st.integers(0, node.size)) for _ in range(4)})
        node.extents = tuple((a, b - a) for a, b in zip(ends[::2], ends[1::2], strict=False))
    return node


@FAST
@given(st.lists(nodes(), max_size=5, unique_by=lambda n: n.name), st.dictionaries(st.integers(0, 99), text, max_size=3))
def test_trees(entries: list[Node], owners: dict[int, str]) -> None:
    entries.sort(key=lambda n: n.name)
    for i, node in enumerate(entries):
        node.uid, node.gid = i * 7, 99 - i
    tree = decode_tree(encode_tree(entries, owners, owners))
    assert tree.nodes == entries
    assert tree.users == {k: v for k, v in owners.items() if k in {n.uid for n in entries}}
    assert tree.groups == {k: v for k, v in owners.items() if k in {n.gid for n in entries}}


def test_equal_trees_are_equal_bytes() -> None:
    """Else a folder that did not change would be stored again: attributes in another order are the same attributes."""
    a, b = ({b"user.a": b"1", b"user.b": b"2"}, {b"user.b": b"2", b"user.a": b"1"})
    trees = [
        encode_tree([Node(b"n", 0, 0, 5, 5, 0, xattrs=x)], u, {}) for x, u in ((a, {5: "e", 1: "x"}), (b, {5: "e"}))
    ]
    assert trees[0] == trees[1]


def ids(count: int, seed: int = 0) -> bytes:
    return b"".join(blake3(f"{seed} {i}".encode()).digest() for i in range(count))


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 4096, 4097, 20_000])
def test_lists_of_ids_are_cut_in_bounds(count: int) -> None:
    parts = list(split_ids(ids(count)))
    assert b"".join(parts) == ids(count)
    assert all(LIST_MIN * 32 <= len(p) <= LIST_MAX * 32 for p in parts[:-1])
    assert all(parts) and (count < 20_000 or len(parts) > 10)
    constant = list(split_ids(b"\xff" * 32 * count))
    assert all(len(p) <= LIST_MAX * 32 for p in constant) and sum(map(len, constant)) == 32 * count


def test_an_insertion_moves_only_the_cuts_beside_it() -> None:
    before, extra = ids(20_000), ids(1, seed=1)
    old, new = set(split_ids(before)), set(split_ids(before[: 32 * 9000] + extra + before[32 * 9000 :]))
    assert len(new - old) <= 4 < len(old & new)


def test_huge_folders_are_cut_in_bounds_and_an_insertion_stays_local() -> None:
    entries = [Node(f"{i:06}".encode(), 0, 0, 0, 0, 0) for i in range(30_000)]
    pieces = [tuple(n.name for n in p) for p in split_nodes(entries)]
    assert [n for p in pieces for n in p] == [n.name for n in entries]
    assert all(PIECE_MIN <= len(p) <= PIECE_MAX for p in pieces[:-1]) and len(pieces) > 5
    entries.insert(15_000, Node(b"014999a", 0, 0, 0, 0, 0))
    again = {tuple(n.name for n in p) for p in split_nodes(entries)}
    assert len(again - set(pieces)) <= 4


# ---- frames, names, sums --------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | text | blob,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text | blob | number, inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_values_come_back_from_a_frame(value: Any) -> None:
    assert unframe(Kind.HEARTBEAT, frame(Kind.HEARTBEAT, value)) == value


def test_a_record_holds_a_million_values_and_no_more() -> None:
    filled = unpack(pack([list(range(9)) for _ in range(104_000)]))
    assert len(filled) == 104_000
    for value in (
        [0] * MAX_VALUES,
        dict.fromkeys(range(MAX_VALUES // 2 + 1), 0),
        [[]] * MAX_VALUES,
        ["ab"] * MAX_VALUES,
    ):
        with pytest.raises(FormatError, match="more values"):
            unpack(pack(value))
    everything = [None, True, -5, 1 << 40, -(1 << 40), 1.5, "t" * 300, b"b" * 70_000, "u" * 70_000, {"k": [1] * 20}]
    assert unpack(pack([everything, b"x" * (1 << 20)])) == [everything, b"x" * (1 << 20)]


@given(digest)
def test_names_of_content_state_their_digest(d: bytes) -> None:
    assert names.content_digest(names.pack(d)) == names.content_digest(names.index(d)) == d  # type: ignore[arg-type]
    assert names.content_digest(f"notes/{'0' * 32}/{d.hex()}") == d
    for other in (f"snapshots/{d.hex()}", f"packs/zz/{d.hex()}", f"packs/{d.hex()}", f"x/{names.index(d)}", d.hex()):
        assert names.content_digest(other) is None


@given(st.integers(1, 10**17))
def test_keysets_are_numbered(n: int) -> None:
    assert names.keyset_number(names.keyset(n)) == n


@pytest.mark.parametrize("tail", ["", "0", "01", "-1", "1.5", "x", "1/2", "\u0661", "9" * 5000, " 1", "1\n"])
def test_other_names_are_no_keysets(tail: str) -> None:
    with pytest.raises(FormatError):
        names.keyset_number("keyset/" + tail)


@pytest.mark.parametrize(
    "tail", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "../" + "0" * 32, "0" * 32 + "\n", "GC" + "0" * 32]
)
def test_other_names_are_no_sessions(tail: str) -> None:
    with pytest.raises(FormatError):
        names.session_id("sessions/" + tail, names.SESSIONS)


@given(st.lists(st.tuples(object_name, number), max_size=9, unique=True), st.randoms())
def test_merkle_roots_name_each_object(objects: list[tuple[str, int]], rng: Any) -> None:
    summary = merkle(objects)
    shuffled = list(objects)
    rng.shuffle(shuffled)
    assert merkle(shuffled) == summary
    assert (summary.count, summary.size) == (len(objects), sum(n for _, n in objects))
    for i, (name, size) in enumerate(objects):
        assert merkle([*objects[:i], *objects[i + 1 :]]).root != summary.root
        assert merkle([*objects[:i], (name, size + 1), *objects[i + 1 :]]).root != summary.root


def test_pieces_of_a_folder_are_never_too_large() -> None:
    """A few hundred entries with long maps or attributes: several blobs, each of which a reader takes."""
    extents = tuple((2 * i, 1) for i in range(8192))
    nodes = [Node(b"%03d" % i, 0, 0o644, 0, 0, 0, size=16384, extents=extents) for i in range(300)]
    trees = list(encode_trees(nodes, {}, {}))
    assert len(trees) > 8 and max(map(len, trees)) <= TREE_BYTES
    assert [n for t in trees for n in decode_tree(t).nodes] == nodes
    one = Node(b"a", 0, 0o644, 0, 0, 0, xattrs={b"user.a": bytes(7 << 20)})
    (tree,) = encode_trees([one], {}, {})
    assert decode_tree(tree).nodes == [one]
    assert len(list(encode_trees(nodes[:3], {}, {}))) == 1
