"""Which blobs snapshots need: a mark for each record of the index, so that memory is a byte a blob (rule G2).

Any error ends the walk, since what is below it would look dead.
"""

from array import array
from collections.abc import Sequence

from snapvault.format.tree import ID_SIZE, BlobType, Content
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import BlobId
from snapvault.foundation.table import mark_records
from snapvault.operations.needed import Needed
from snapvault.repository.index import IndexTable
from snapvault.repository.reader import BlobReader
from snapvault.repository.records import WIDTH, add_marked

# Of a record's mark; any of them: needed.  A blob that was met as a part of a file may still have to be walked as a
# folder: a hostile file can name whatever it likes.
NEEDED, WALKED = 1, 2


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
        sums = [array("Q", bytes(8 * (len(table.segments) // 4))) for table in self._tables]
        for table, marks, total in zip(self._tables, self.marks, sums, strict=True):
            add_marked(table.records, marks, total)
        return sums
