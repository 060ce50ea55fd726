"""Every blob that a folder needs: pieces of folders, lists of ids, chunks of files; each folder and list read once."""

from collections.abc import Callable, Iterator, Sequence

from snapvault.format.tree import BlobType, Content, NodeKind, each_id
from snapvault.foundation.ids import BlobId
from snapvault.repository.reader import BlobReader

Visit = Callable[[bytes, int], Sequence[bool]]


class Needed:
    """Calls ``visit(ids, type)`` with concatenated ids; of pieces of folders it answers which were not here before.

    ``is_lost``: lists of which nobody asks for more.
    """

    def __init__(self, reader: BlobReader, visit: Visit, is_lost: Callable[[BlobId], bool] = lambda _: False) -> None:
        self._reader, self._visit, self._is_lost = reader, visit, is_lost
        self._lists: set[tuple[BlobId, int, int]] = set()  # read at this depth, towards files or towards folders

    def walk(self, root: Content) -> None:
        """Everything below a folder; Damaged, and all errors of the store."""
        todo = [root]
        while todo:
            for ids in self._leaves(todo.pop(), BlobType.TREE):
                for blob, new in zip(each_id(ids), self._visit(ids, BlobType.TREE), strict=True):
                    if new:
                        todo += self._folder(blob)

    def _folder(self, blob: BlobId) -> list[Content]:
        """The files in a piece of a folder; what is given back are the folders in it."""
        nodes = self._reader.tree(blob).nodes
        files = [n.content for n in nodes if n.kind != NodeKind.DIRECTORY]
        self._visit(b"".join(c.ids for c in files if not c.depth), BlobType.DATA)
        for content in files:
            if content.depth:
                for ids in self._leaves(content, BlobType.DATA):
                    self._visit(ids, BlobType.DATA)
        return [n.content for n in nodes if n.kind == NodeKind.DIRECTORY]

    def _leaves(self, content: Content, towards: int) -> Iterator[bytes]:
        """The ids at depth 0 of a content; none of a list that was read before."""
        if not content.depth:
            yield content.ids
            return
        self._visit(content.ids, BlobType.LIST)
        for blob in each_id(content.ids):
            if (blob, content.depth, towards) not in self._lists and not self._is_lost(blob):
                self._lists.add((blob, content.depth, towards))
                yield from self._leaves(Content(content.depth - 1, self._reader.id_list(blob)), towards)
