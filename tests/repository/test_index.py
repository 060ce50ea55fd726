"""The blob index against a dict."""

import os
from array import array
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapvault.format.pack import Segment
from snapvault.foundation.ids import BlobId, DomainId, PackId, SessionId
from snapvault.foundation.native import native
from snapvault.repository import index as index_module
from snapvault.repository import records as records_module
from snapvault.repository.index import BlobIndex, IndexTable, PackRow, build_table, merge_tables

SID = SessionId("a" * 32)
DOMAIN = DomainId(b"d" * 16)

Entry = tuple[PackRow, list[Segment]]


def entry(segments: list[list[tuple[bytes, int]]], size: int = 1 << 20) -> Entry:
    """A pack whose segments hold these (id, length) pairs."""
    made = [
        Segment(
            1000 * n, 900, sum(length for _, length in blobs), b"".join(i for i, _ in blobs),
            array("I", [length for _, length in blobs]), bytes(len(blobs)),
        )
        for n, blobs in enumerate(segments)
    ]  # fmt: skip
    return PackRow(PackId(os.urandom(32)), size, SID, DOMAIN), made


blobs = st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, 1 << 20))
packs = st.lists(st.lists(st.lists(blobs, max_size=5), max_size=4), max_size=6)


def expected(entries: list[Entry]) -> dict[bytes, set[tuple[bytes, int, int, int]]]:
    places: dict[bytes, set[tuple[bytes, int, int, int]]] = {}
    for row, segments in entries:
        for segment in segments:
            for blob in segment.blobs():
                places.setdefault(blob.id, set()).add((row.id, segment.offset, blob.offset, blob.length))
    return places


def found(index: BlobIndex, blob: bytes) -> set[tuple[bytes, int, int, int]]:
    return {(p.pack.id, p.start, p.offset, p.length) for p in index.places(BlobId(blob))}


@given(packs, packs)
@settings(max_examples=60, deadline=None)
def test_every_place_of_every_blob_is_found(first: list[list[list[tuple[bytes, int]]]], second: list) -> None:
    entries = [[entry(p) for p in group] for group in (first, second)]
    model = expected(entries[0] + entries[1])
    tables = [build_table([str(n)], group) for n, group in enumerate(entries)]
    reloaded = [IndexTable.load(memoryview(b"".join(t.dump()))) for t in tables]
    for index in (BlobIndex(tables), BlobIndex([merge_tables(tables)]), BlobIndex(reloaded)):
        for blob, places in model.items():
            assert blob in index
            assert found(index, blob) == places
        assert os.urandom(32) not in index


def test_what_another_domain_says_is_not_believed() -> None:
    """``surely_has_all`` says yes only of what has a place in its own domain."""
    ids = [bytes([n]) * 32 for n in range(3)]
    ours, theirs = (entry([[(i, 5)]]) for i in ids[:2])
    both = [ours, (theirs[0]._replace(domain=DomainId(b"e" * 16)), theirs[1])]
    index = BlobIndex([build_table(["x"], both)])
    assert index.surely_has_all(ids[0] + ids[1]) and not index.surely_has_all(ids[2])
    own = index.of(DOMAIN)
    assert own.surely_has_all(ids[0]) and own.surely_has_all(b"")
    assert not own.surely_has_all(ids[1]) and not own.surely_has_all(ids[0] + ids[1])
    alone = BlobIndex([build_table(["x"], [ours])], DOMAIN)
    assert alone.surely_has_all(ids[0]) and not alone.surely_has_all(ids[1])


@given(packs)
@settings(max_examples=60, deadline=None)
def test_native_records_are_those_of_the_twin(made: list[list[list[tuple[bytes, int]]]]) -> None:
    entries = [entry(p) for p in made]
    native = build_table(["x"], entries)
    merged = merge_tables([native, native])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "native", None)
        twin = build_table(["x"], entries)
        assert (native.records, native.segments) == (twin.records, twin.segments)
        again = merge_tables([twin, twin])
        assert (merged.records, merged.segments) == (again.records, again.segments)


few_ids = st.integers(0, 9).map(lambda n: bytes([n]) * 32)
shared = st.lists(st.lists(st.lists(st.tuples(few_ids, st.just(7)), max_size=4), max_size=3), max_size=4)


@given(shared, shared, st.lists(st.integers(0, 3), min_size=24, max_size=24), st.lists(st.booleans(), min_size=48))
@settings(max_examples=200, deadline=None)
def test_what_another_table_makes_spare(mine: list, others: list, ranks: list[int], marked: list[bool]) -> None:
    """A marked record, if the other table (or the same) has its id in a segment of a higher rank."""
    one, two = (build_table(["x"], [entry(p) for p in made]) for made in (mine, others))
    of_one, of_two = array("I", ranks[:12]), array("I", ranks[12:])
    for other, other_ranks in ((two, of_two), (one, of_one)):
        best = Counter[bytes]()
        for id_, segment in rows_of(other):
            best[id_] = max(best[id_], other_ranks[segment])
        wanted = [4 + m if m and of_one[s] < best[i] else m for (i, s), m in zip(rows_of(one), marked, strict=False)]
        for module in (native, None):
            marks = bytearray(marked[: len(one)])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(records_module, "native", module)
                records_module.mark_spare(one.records, marks, of_one, other.records, other_ranks, 4)
            assert list(marks) == wanted


def rows_of(table: IndexTable) -> list[tuple[bytes, int]]:
    """Id and segment of each record."""
    width = records_module.WIDTH
    return [
        (bytes(table.records[at : at + 32]), records_module.segment_in(table.records, at))
        for at in range(0, len(table.records), width)
    ]


def test_columns_that_do_not_fit_are_refused() -> None:
    ranks = array("I", [1])
    for records, marks, other in ((bytes(43), 0, b""), (bytes(44), 2, b""), (bytes(44), 1, bytes(45))):
        with pytest.raises(ValueError):
            native.mark_spare(records, bytearray(marks), ranks, other, ranks, 4)
    with pytest.raises(ValueError):
        native.mark_spare(bytes(44), bytearray(1), bytes(3), b"", ranks, 4)
    native.mark_spare(b"\xff" * 44, marks := bytearray(b"\1"), ranks, b"\xff" * 44, ranks, 4)  # no such segment
    assert marks == b"\1"
    with pytest.raises(ValueError):
        native.blob_records(0, bytes(32), bytes(8), bytes(1))
    with pytest.raises(ValueError):
        native.blob_records(0, bytes(33), bytes(4), bytes(1))
    for size in (1, 43, 45, 87):
        with pytest.raises(ValueError):
            native.renumber(bytearray(size), 1)


def test_a_run_moves_its_blobs_into_few_tables_and_loses_none() -> None:
    index, known = BlobIndex(), set()
    for _ in range(100):
        made = entry([[(os.urandom(32), 5) for _ in range(50)]])
        ids = {b.id for s in made[1] for b in s.blobs()}
        index.new |= ids
        known |= ids
        index.indexed([made])
    assert not index.new
    assert len(index.tables) < 10
    assert all(found(index, blob) for blob in known)


def test_no_table_that_a_run_makes_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merging takes as much memory again as what comes out of it."""
    monkeypatch.setattr(index_module, "MERGED_MAX", 400)
    index = BlobIndex()
    for _ in range(100):
        index.indexed([entry([[(os.urandom(32), 5) for _ in range(50)]])])
    sizes = [len(table) for table in index.tables]
    assert max(sizes) == 400 and sum(sizes) == 5000 and len(sizes) < 20, sizes


@pytest.mark.parametrize("present", ["missing", "cut short", "condemned"])
def test_a_pack_that_does_not_count_is_not_deduplicated_onto(present: str) -> None:
    lost, whole = entry([[(b"1" * 32, 5)]]), entry([[(b"2" * 32, 5)]])
    index = BlobIndex([build_table(["x"], [lost, whole])])
    there = {whole[0].id: whole[0].size}
    if present != "missing":
        there[lost[0].id] = lost[0].size - (present == "cut short")
    gone = index.restrict(there, {lost[0].id} if present == "condemned" else ())
    assert gone == [lost[0]]
    assert b"1" * 32 not in index
    assert b"2" * 32 in index
    assert index.has_all(b"2" * 32)
    assert not index.has_all(b"2" * 32 + b"1" * 32)


def test_a_second_copy_in_a_good_pack_counts() -> None:
    lost, whole = entry([[(b"1" * 32, 5)]]), entry([[(b"1" * 32, 5)]])
    index = BlobIndex([build_table(["x"], [lost, whole])])
    index.restrict({whole[0].id: whole[0].size}, ())
    assert b"1" * 32 in index
