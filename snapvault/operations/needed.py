"""Every blob that a folder needs: pieces of folders, lists of ids, chunks of files; each folder and list read once."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from snapvault.format.tree import BlobType, Content, NodeKind, each_id
from snapvault.foundation.ids import BlobId
from snapvault.repository.reader import BlobReader


class Needed(ABC):
    """Walks folders.  Whoever walks derives from it, so that nothing refers back to it: it holds all of the index."""

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader
        self._lists: set[tuple[BlobId, int, int]] = set()  # read at this depth, towards files or towards folders

    @abstractmethod
    def visit(self, ids: bytes, kind: int) -> Sequence[bool]:
        """Called with concatenated ids of one type of blobs; of pieces of folders: which were not here before."""

    @abstractmethod
    def is_lost(self, blob: BlobId) -> bool:
        """Whether this is a list of which nobody asks for more."""

    def walk(self, root: Content) -> None:
        """Everything below a folder; Damaged, and all errors of the store."""
        todo = [root]
        while todo:
            for ids in self._leaves(todo.pop(), BlobType.TREE):
                for blob, new in zip(each_id(ids), self.visit(ids, BlobType.TREE), strict=True):
                    if new:
                        todo += self._folder(blob)

    def _folder(self, blob: BlobId) -> list[Content]:
        """The files in a piece of a folder; what is given back are the folders in it."""
        nodes = self._reader.tree(blob).nodes
        files = [n.content for n in nodes if n.kind != NodeKind.DIRECTORY]
        self.visit(b"".join(c.ids for c in files if not c.depth), BlobType.DATA)
        for content in files:
            if content.depth:
                for ids in self._leaves(content, BlobType.DATA):
                    self.visit(ids, BlobType.DATA)
        return [n.content for n in nodes if n.kind == NodeKind.DIRECTORY]

    def _leaves(self, content: Content, towards: int) -> Iterator[bytes]:
        """The ids at depth 0 of a content; none of a list that was read before."""
        if not content.depth:
            yield content.ids
            return
        self.visit(content.ids, BlobType.LIST)
        for blob in each_id(content.ids):
            if (blob, content.depth, towards) not in self._lists and not self.is_lost(blob):
                self._lists.add((blob, content.depth, towards))
                yield from self._leaves(Content(content.depth - 1, self._reader.id_list(blob)), towards)
