"""Which blobs snapshots need: a mark for each record of the index, so that memory is a byte a blob (rule G2).

Any error ends the walk, since what is below it would look dead.
"""

from array import array
from collections.abc import Iterator, Sequence

from snapvault.format.tree import ID_SIZE, Content, NodeKind
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import BlobId
from snapvault.foundation.table import mark_records
from snapvault.repository.index import IndexTable
from snapvault.repository.reader import BlobReader
from snapvault.repository.records import WIDTH, add_marked

# Of a record's mark; any of them: needed.  A blob that was met as a part of a file may still have to be walked as a
# folder: a hostile file can name whatever it likes.
NEEDED, WALKED = 1, 2


class Liveness:
    """What is needed in one domain, whose blobs stand in these tables and are read by this reader."""

    def __init__(self, tables: Sequence[IndexTable], reader: BlobReader) -> None:
        self._tables, self._reader = tables, reader
        self.marks = [bytearray(len(table)) for table in tables]
        self._lists: set[tuple[BlobId, int, int]] = set()  # at a depth, towards files or towards folders

    def add(self, root: Content) -> None:
        """Everything that a snapshot with this top folder needs; Damaged, and all errors of the store."""
        todo = [root]
        while todo:
            for ids in self._leaves(todo.pop(), WALKED):
                for blob, new in zip(_each(ids), self._mark(ids, WALKED), strict=True):
                    if new:
                        todo += self._folder(blob)

    def _folder(self, blob: BlobId) -> list[Content]:
        """Mark the files in a piece of a folder; the folders in it."""
        nodes = self._reader.tree(blob).nodes
        folders = [n.content for n in nodes if n.kind == NodeKind.DIRECTORY]
        files = [n.content for n in nodes if n.kind != NodeKind.DIRECTORY]
        self._mark(b"".join(c.ids for c in files if not c.depth), NEEDED)
        for content in files:
            if content.depth:
                for ids in self._leaves(content, NEEDED):
                    self._mark(ids, NEEDED)
        return folders

    def _leaves(self, content: Content, towards: int) -> Iterator[bytes]:
        """The ids at depth 0 of a content, its lists marked; none of a list that was here before."""
        if not content.depth:
            yield content.ids
            return
        self._mark(content.ids, NEEDED)
        for blob in _each(content.ids):
            if (blob, content.depth, towards) not in self._lists:
                self._lists.add((blob, content.depth, towards))
                yield from self._leaves(Content(content.depth - 1, self._reader.id_list(blob)), towards)

    def _mark(self, ids: bytes, bit: int) -> list[bool]:
        """Mark every place of these blobs: whether each was new.  Damaged if one has no place."""
        found = [mark_records(t.records, WIDTH, ids, m, bit) for t, m in zip(self._tables, self.marks, strict=True)]
        answers = [max(each) for each in zip(*found, strict=True)] if len(found) != 1 else found[0]
        if 0 in answers or (ids and not found):
            missing = ids[answers.index(0) * ID_SIZE :][:ID_SIZE] if found else ids[:ID_SIZE]
            raise Damaged(f"blob {missing.hex()[:16]} is in no index")
        return [answer == 1 for answer in answers]

    def live_bytes(self) -> list["array[int]"]:
        """For each table the plaintext bytes that are needed of each of its segments."""
        sums = [array("Q", bytes(8 * (len(table.segments) // 4))) for table in self._tables]
        for table, marks, total in zip(self._tables, self.marks, sums, strict=True):
            add_marked(table.records, marks, total)
        return sums


def _each(ids: bytes) -> Iterator[BlobId]:
    return (BlobId(ids[i : i + ID_SIZE]) for i in range(0, len(ids), ID_SIZE))
