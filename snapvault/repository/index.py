"""The blob index in memory: sorted tables of fixed-width records, and a set for what this session adds.

Segments and packs stand in tables of their own, so that a blob's place costs 12 bytes.
"""

import struct
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from snapvault.format.pack import Segment
from snapvault.format.tree import ID_SIZE, each_id
from snapvault.format.wire import pack, unpack
from snapvault.foundation.ids import BlobId, DomainId, PackId, SessionId
from snapvault.foundation.table import find_record, find_records, sort_records
from snapvault.repository.records import (
    WIDTH,
    Records,
    blob_records,
    lengths_in,
    place_in,
    renumber,
    renumber_rows,
    segment_in,
)

MERGED_MAX = 1 << 21  # blobs of a table that a run makes of smaller ones


class PackRow(NamedTuple):
    """A pack, its size in the store, the session that wrote it, and the domain of whoever says so."""

    id: PackId
    size: int
    sid: SessionId
    domain: DomainId


class Place(NamedTuple):
    """Where a blob lies: the segment at ``start`` in the pack (``sealed`` bytes, ``raw`` of plaintext), and in it."""

    pack: PackRow
    start: int
    sealed: int
    raw: int
    offset: int
    length: int
    type: int


class IndexTable:
    """The blobs of some index objects, sorted by id.  Immutable."""

    def __init__(
        self,
        names: frozenset[str],
        packs: Sequence[PackRow],
        segments: "array[int]",
        records: Records,
    ) -> None:
        self.names = names
        self.packs = packs
        self.segments = segments  # four numbers a segment: pack, start, sealed, raw
        self.records = records
        self.usable = bytearray(b"\1" * len(packs))
        self.whole = True  # all of them
        self.domains = frozenset(p.domain for p in packs)

    def __len__(self) -> int:
        return len(self.records) // WIDTH

    def places(self, blob: BlobId) -> list[Place]:
        """Every place of a blob, packs that do not count included."""
        at = find_record(self.records, WIDTH, blob)
        if at < 0:
            return []
        at *= WIDTH
        found = [self._place(at)]
        while self.records[at + WIDTH : at + WIDTH + ID_SIZE] == blob:
            at += WIDTH
            found.append(self._place(at))
        return found

    def _place(self, at: int) -> Place:
        segment, offset, length, blob_type = place_in(self.records, at)
        s, row = self.segments, 4 * segment
        return Place(self.packs[s[row]], s[row + 1], s[row + 2], s[row + 3], offset, length, blob_type)

    def find(self, ids: bytes) -> tuple[int, ...]:
        """Numbers of the records of some concatenated ids; -1: not there, -2: several times."""
        return struct.unpack(f"<{len(ids) // ID_SIZE}q", find_records(self.records, WIDTH, ids, single=True))

    def place(self, number: int) -> Place:
        """What the record of this number says."""
        return self._place(number * WIDTH)

    def has(self, blob: BlobId) -> bool:
        """Whether the blob lies in a pack that counts."""
        at = find_record(self.records, WIDTH, blob)
        if at < 0:
            return False
        at *= WIDTH
        while at < len(self.records) and self.records[at : at + ID_SIZE] == blob:
            if self.usable[self.segments[4 * segment_in(self.records, at)]]:
                return True
            at += WIDTH
        return False

    def lacking(self, ids: bytes) -> bytes:
        """Those of some concatenated ids that lie in no pack that counts."""
        found = struct.unpack(f"<{len(ids) // ID_SIZE}q", find_records(self.records, WIDTH, ids))
        if self.whole and min(found, default=0) >= 0:
            return b""
        each = each_id(ids)
        return b"".join(id_ for id_, at in zip(each, found, strict=True) if at < 0 or not (self.whole or self.has(id_)))

    def lengths(self, numbers: Iterable[int]) -> list[int]:
        """Bytes of the blobs of these records."""
        return lengths_in(self.records, numbers)

    def ids(self) -> Iterator[BlobId]:
        for at in range(0, len(self.records), WIDTH):
            yield BlobId(bytes(self.records[at : at + ID_SIZE]))

    def dump(self) -> list[Records]:
        """The parts of a file that ``load`` reads."""
        head = pack([sorted(self.names), [list(p) for p in self.packs], len(self.segments)])
        return [len(head).to_bytes(4, "little"), head, self.segments.tobytes(), self.records]

    @classmethod
    def load(cls, data: memoryview) -> "IndexTable":
        """A table from the bytes that ``dump`` gave."""
        end = 4 + int.from_bytes(data[:4], "little")
        names, packs, count = unpack(data[4:end])
        segments = array("I")
        segments.frombytes(data[end : end + 4 * count])
        rows = [PackRow(PackId(i), size, SessionId(sid), DomainId(domain)) for i, size, sid, domain in packs]
        return cls(frozenset(names), rows, segments, data[end + 4 * count :])


class TableBuilder:
    """Makes a table of packs that come one by one, and keeps nothing of them but what the table needs."""

    def __init__(self) -> None:
        self.packs: list[PackRow] = []
        self._segments = array("I")
        self._records = bytearray()

    def add(self, row: PackRow, segments: Sequence[Segment]) -> None:
        """A pack."""
        for s in segments:
            self._records += blob_records(len(self._segments) // 4, s)
            self._segments.extend((len(self.packs), s.offset, s.sealed, s.raw))
        self.packs.append(row)

    def add_table(self, table: IndexTable) -> None:
        """All packs of another table."""
        segments = array("I", table.segments)
        renumber_rows(segments, len(self.packs))
        begin = len(self._records)
        self._records += table.records
        with memoryview(self._records)[begin:] as added:
            renumber(added, len(self._segments) // 4)
        self._segments += segments
        self.packs += table.packs

    def built(self, names: Iterable[str]) -> IndexTable:
        """The table; the builder is used up."""
        sort_records(self._records, WIDTH)
        return IndexTable(frozenset(names), self.packs, self._segments, self._records)


def build_table(names: Iterable[str], packs: Iterable[tuple[PackRow, Sequence[Segment]]]) -> IndexTable:
    """The table of these packs."""
    builder = TableBuilder()
    for row, segments in packs:
        builder.add(row, segments)
    return builder.built(names)


def merge_tables(tables: Sequence[IndexTable]) -> IndexTable:
    """One table with everything that these hold."""
    builder = TableBuilder()
    for table in tables:
        builder.add_table(table)
    return builder.built(frozenset().union(*(t.names for t in tables)))


class BlobIndex:
    """All that is known of where blobs lie, and which packs count for deduplication.

    ``domain``: only what was written in it is seen.  Ids are chosen by whoever writes an index object, so what one
    domain says of an id must not be believed in another.
    """

    def __init__(self, tables: Sequence[IndexTable] = (), domain: DomainId | None = None) -> None:
        self.tables = list(tables)
        self.domain = domain
        self.new: set[BlobId] = set()  # stored by this session, not yet in a table
        self._loaded = len(self.tables)

    def of(self, domain: DomainId) -> "BlobIndex":
        """The same, as it is seen in one domain."""
        return BlobIndex(self.tables, domain)

    def __contains__(self, blob: BlobId) -> bool:
        if blob in self.new:
            return True
        for table in self.tables:  # noqa: SIM110  called for every blob: 0.2 us, with a generator 0.6
            if table.has(blob):
                return True
        return False

    def has_all(self, ids: bytes) -> bool:
        """Whether every id of a concatenation is known in a pack that counts, in whatever domain."""
        for table in self.tables:
            if ids:
                ids = table.lacking(ids)
        return all(BlobId(ids[i : i + ID_SIZE]) in self for i in range(0, len(ids), ID_SIZE))

    def surely_has_all(self, ids: bytes) -> bool:
        """``has_all``, in this domain.  False also where that takes a look at each of them."""
        if self.domain is None or all(t.domains <= {self.domain} for t in self.tables):
            return self.has_all(ids)
        return not ids or self.only_places(ids) is not None

    def places(self, blob: BlobId) -> list[Place]:
        """Every known place of a blob."""
        found = []
        for table in self.tables:
            found += table.places(blob)
        if self.domain is None:
            return found
        return [p for p in found if p.pack.domain == self.domain]

    def _home(self, ids: bytes) -> tuple[IndexTable, tuple[int, ...]] | None:
        """The table with all of some concatenated ids, and their records; None unless each stands once, all in one."""
        home: tuple[IndexTable, tuple[int, ...]] | None = None
        for table in self.tables:
            found = table.find(ids)
            if max(found, default=-1) == -1 == min(found, default=-1):
                continue
            if home is not None or min(found) < 0:
                return None
            home = table, found
        return home

    def only_places(self, ids: bytes) -> list[Place] | None:
        """The place of each of some concatenated ids; None unless each has just one, all of them in the same table."""
        home = self._home(ids)
        if home is None:
            return None
        places = [home[0].place(number) for number in home[1]]
        if self.domain is not None and any(p.pack.domain != self.domain for p in places):
            return None
        return places

    def only_lengths(self, ids: bytes) -> list[int] | None:
        """Bytes of each of some blobs, all of them in packs that count; None as of ``only_places``."""
        home = self._home(ids)
        return home[0].lengths(home[1]) if home is not None and home[0].whole else None

    def indexed(self, packs: Sequence[tuple[PackRow, Sequence[Segment]]]) -> None:
        """Blobs of this session that an index object names now: they move from the set into a table.

        Tables of like size are merged, so that there are few, but not into ones that take much memory to make.  In this
        order, another thread always finds a blob in one of the two.
        """
        self.learnt(build_table((), packs))
        self.new.difference_update(
            BlobId(s.ids[i : i + ID_SIZE]) for _, parts in packs for s in parts for i in range(0, len(s.ids), ID_SIZE)
        )

    def learnt(self, table: IndexTable) -> None:
        """Take one more table."""
        tables = [*self.tables, table]
        while len(tables) - self._loaded > 1:
            before, last = map(len, tables[-2:])
            if before > 2 * last or before + last > MERGED_MAX:
                break
            tables[-2:] = [merge_tables(tables[-2:])]
        self.tables = tables

    def packs(self) -> Iterator[PackRow]:
        for t in self.tables:
            yield from t.packs

    def restrict(self, present: dict[PackId, int], condemned: Collection[PackId]) -> list[PackRow]:
        """Let only packs of this domain count that are there in their full size and are not condemned.

        The others of this domain are given back.
        """
        lost = []
        for t in self.tables:
            for i, row in enumerate(t.packs):
                ours = self.domain is None or row.domain == self.domain
                t.usable[i] = ours and present.get(row.id) == row.size and row.id not in condemned
                if ours and not t.usable[i]:
                    lost.append(row)
            t.whole = all(t.usable)
        return lost
