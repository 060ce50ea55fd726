"""What a file in a target lacks of a file in a snapshot, by content: the same size and time prove nothing."""

import errno
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, groupby, islice

from snapvault.format.tree import ID_SIZE, BlobType, Node, NodeKind
from snapvault.operations.visit import Visited
from snapvault.platform.sparse import Extent, data_extents
from snapvault.repository.index import Place
from snapvault.repository.keyring import DomainKeys
from snapvault.repository.reader import BlobReader
from snapvault.target.filesystem import FilesystemTarget, OwnedNode

IN_PLACE_FROM = 64 << 20  # a smaller file that differs is replaced as a whole, atomically; a larger one in place
PART_BYTES = 32 << 20  # of a file, read and hashed by one thread
READ_BYTES = 1 << 20  # at once, unless a piece is larger
AT_ONCE = 32  # small files that are read in one call, which nothing can cancel

Lacking = list[int] | None  # numbers of pieces; None: all of the file has to be written

_IN_THE_WAY = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EACCES, errno.EPERM}


# -- small files, many at once ----------------------------------------------------------------------------------------


def same_files(
    target: FilesystemTarget,
    reader: BlobReader,
    domain: DomainKeys,
    batch: Sequence[Visited],
    check: Callable[[], None],
) -> set[int]:
    """Which of a batch, by number, are plain files that are the same in the target: content and all metadata.

    Found folder by folder, some at a time, before which ``check`` is called.  Of the others nothing is said.
    """
    plain = [i for i, at in enumerate(batch) if _is_plain(at.node)]
    # What is in no index is lost, whatever the target holds.
    if not plain or not reader.index.surely_has_all(b"".join(batch[i].node.content.ids for i in plain)):
        return set()
    same: set[int] = set()
    for folder, numbers in groupby(plain, lambda i: batch[i].path.rpartition(b"/")[0]):
        while run := list(islice(numbers, AT_ONCE)):
            check()
            nodes = [OwnedNode(batch[i].node, batch[i].users, batch[i].groups) for i in run]
            for i, data in zip(run, target.read_plain(folder, nodes), strict=True):
                if data is not None and _is_content(domain, data, batch[i].node.content.ids):
                    same.add(i)
    return same


def _is_plain(node: Node) -> bool:
    """Whether it is a file of one piece at most, without attributes, holes or further names."""
    if node.kind != NodeKind.FILE or node.link is not None or node.xattrs or node.extents is not None:
        return False
    return not node.content.depth and len(node.content.ids) <= ID_SIZE and node.size == node.stored


def _is_content(domain: DomainKeys, data: bytes, ids: bytes) -> bool:
    return domain.blob_id(BlobType.DATA, data) == ids if ids else not data


# -- one file, part by part -------------------------------------------------------------------------------------------


def compare(
    target: FilesystemTarget, path: bytes, node: Node, ids: bytes, places: Sequence[Place], domain: DomainKeys
) -> "Comparison | None":
    """Begin to compare a file.  None: it is of another kind, has other holes or may not be read, and is replaced.

    OSError: it cannot be told.
    """
    try:
        comparison = Comparison(target, path, node, ids, [p.length for p in places], domain)
    except OSError as e:
        if e.errno in _IN_THE_WAY:
            return None
        raise
    return comparison if comparison.has_same_holes() else None


class Comparison:
    """One file in a target, against the pieces of a file in a snapshot: their ids, and lengths in bytes.

    The file is open until nobody holds this any more: parts may still be read when one of them has failed.
    """

    def __init__(
        self, target: FilesystemTarget, path: bytes, node: Node, ids: bytes, lengths: Sequence[int], domain: DomainKeys
    ) -> None:
        """OSError, ESTALE if it is no regular file."""
        self._node, self._ids, self._lengths, self._domain = node, ids, lengths, domain
        self._fd = -1
        self._fd = target.open_existing(path, write=False)
        self._stat = os.fstat(self._fd)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    @property
    def in_place(self) -> bool:
        """Whether the file is mended where it is, if it lacks something."""
        return self._node.extents is None and self._node.size >= IN_PLACE_FROM and self._stat.st_nlink == 1

    def has_same_holes(self) -> bool:
        """A file with holes is left alone only if they are where they should be.  Any file without is fine."""
        extents, size = self._node.extents, self._stat.st_size
        return extents is None or (size == self._node.size and data_extents(self._fd, size) == extents)

    def parts(self, check: Callable[[], None]) -> list[Callable[[], list[int]]]:
        """Each says what a part of the file lacks, in any thread and any order, for ``conclude``; OSError.

        ``check`` is called before each reading, and raises if all of it is to end.
        """
        found: list[Callable[[], list[int]]] = []
        first = position = length = 0
        for end, more in enumerate(self._lengths, 1):
            length += more
            if length >= PART_BYTES or end == len(self._lengths):
                found.append(partial(self._part, check, first, end, position))
                first, position, length = end, position + length, 0
        return found

    def _part(self, check: Callable[[], None], first: int, end: int, position: int) -> list[int]:
        """Of the pieces from ``first`` on, before ``end``; ``position`` counts stored bytes, holes left out."""
        data = _ExtentReader(self._fd, self._node.extents or ((0, self._node.size),), position, check)
        lacking = []
        for i, piece in zip(range(first, end), data.pieces(self._lengths[first:end]), strict=True):
            if self._domain.blob_id(BlobType.DATA, piece) != self._ids[i * ID_SIZE : (i + 1) * ID_SIZE]:
                lacking.append(i)
        return lacking

    def conclude(self, parts: Iterable[list[int]]) -> Lacking:
        """What all the parts say together."""
        lacking = [i for part in parts for i in part]
        if not lacking and self._stat.st_size == self._node.size:
            return lacking
        if not self.in_place:
            return None
        return lacking or [len(self._lengths) - 1]  # only its end has to go: one piece makes it a job


class _ExtentReader:
    """Reads what is stored of an open file, holes left out, from a position on."""

    def __init__(self, fd: int, extents: Iterable[Extent], position: int, check: Callable[[], None]) -> None:
        self._fd, self._check = fd, check
        self._rest: list[Extent] = []
        for offset, length in extents:
            skipped = min(position, length)
            position -= skipped
            self._rest.append((offset + skipped, length - skipped))
        self._rest.reverse()

    def pieces(self, lengths: Sequence[int]) -> Iterator[memoryview]:
        """So many bytes each, or fewer where the file ends; each is valid until the next."""
        memory = memoryview(bytearray(min(sum(lengths), max(READ_BYTES, *lengths))))
        ends = list(accumulate(lengths))
        first = begin = 0
        while first < len(ends):
            self._check()
            last = max(first + 1, bisect_right(ends, begin + len(memory)))
            there = self._read(memory[: ends[last - 1] - begin])
            for end, length in zip(ends[first:last], lengths[first:last], strict=True):
                yield there[end - length - begin : end - begin]
            first, begin = last, ends[last - 1]

    def _read(self, memory: memoryview) -> memoryview:
        filled = 0
        while filled < len(memory) and self._rest:
            offset, length = self._rest.pop()
            n = os.preadv(self._fd, [memory[filled : filled + length]], offset)
            filled += n
            if 0 < n < length:
                self._rest.append((offset + n, length - n))
        return memory[:filled]
