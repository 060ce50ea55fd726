"""Which blobs snapshots need: a mark for each record of the index, so that memory is a byte a blob (rule G2).

Any error ends the walk, since what is below it would look dead.
"""

from array import array
from collections.abc import Mapping, Sequence

from snapvault.format.tree import ID_SIZE, BlobType, Content
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import BlobId
from snapvault.foundation.table import mark_records
from snapvault.operations.needed import Needed
from snapvault.repository.index import IndexTable, PackRow
from snapvault.repository.reader import BlobReader
from snapvault.repository.records import WIDTH, add_marked, mark_spare

# Of a record's mark; any of them: needed.  A blob that was met as a part of a file may still have to be walked as a
# folder: a hostile file can name whatever it likes.
NEEDED, WALKED = 1, 2
SPARE = 4  # needed, but a pack of higher rank holds it, too
_SPARES = bytes(mark & SPARE for mark in range(256))


class Liveness(Needed):
    """What is needed in one domain, whose blobs stand in these tables and are read by this reader."""

    def __init__(self, tables: Sequence[IndexTable], reader: BlobReader) -> None:
        super().__init__(reader)
        self._tables = tables
        self.marks = [bytearray(len(table)) for table in tables]
        self._lost = False

    def add(self, root: Content, *, lost: bool = False) -> None:
        """Everything that a snapshot with this top folder needs; Damaged, and all errors of the store.

        ``lost``: some of it is known to be lost, so what is in no index is passed over.
        """
        self._lost = lost
        self.walk(root)

    def is_lost(self, blob: BlobId) -> bool:
        """See Needed."""
        return self._lost and not any(table.has(blob) for table in self._tables)

    def visit(self, ids: bytes, kind: int) -> list[bool]:
        """Mark every place of these blobs: whether each was new.  Damaged if one has no place."""
        bit = WALKED if kind == BlobType.TREE else NEEDED
        found = [bytes(len(ids) // ID_SIZE)]  # so that there is an answer without a table, too
        found += [mark_records(t.records, WIDTH, ids, m, bit) for t, m in zip(self._tables, self.marks, strict=True)]
        answers = found[1] if len(found) == 2 else bytes(map(max, zip(*found, strict=True)))
        if 0 in answers and not self._lost:
            missing = ids[answers.index(0) * ID_SIZE :][:ID_SIZE]
            raise Damaged(f"blob {missing.hex()[:16]} is in no index")
        return [answer == 1 for answer in answers]

    def live_bytes(self) -> list["array[int]"]:
        """For each table the plaintext bytes that are needed of each of its segments."""
        return self._sums(self.marks)

    def spare_bytes(self, ranks: Mapping[PackRow, int]) -> list["array[int]"]:
        """The same of what a pack of higher rank holds, too; a pack without a rank does not count.

        A rank is for what one session says of a pack: what another one says of it does not make it another pack.
        """
        by_segment = []
        for table in self._tables:
            of_pack = [ranks.get(row, 0) for row in table.packs]
            by_segment.append(array("I", [of_pack[number] for number in table.segments[::4]]))
        spare = []
        for table, marks, own in zip(self._tables, self.marks, by_segment, strict=True):
            found = bytearray(marks)
            for other, others in zip(self._tables, by_segment, strict=True):
                mark_spare(table.records, found, own, other.records, others, SPARE)
            spare.append(found.translate(_SPARES))
        return self._sums(spare)

    def _sums(self, marked: Sequence[bytearray]) -> list["array[int]"]:
        """Bytes of the marked blobs, by table and segment."""
        sums = [array("Q", bytes(8 * (len(table.segments) // 4))) for table in self._tables]
        for table, marks, total in zip(self._tables, marked, sums, strict=True):
            add_marked(table.records, marks, total)
        return sums
