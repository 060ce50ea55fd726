"""What a file in a target lacks of a file in a snapshot, by content: the same size and time prove nothing."""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate

from snapvault.format.tree import ID_SIZE, BlobType, Node
from snapvault.foundation.errors import Damaged
from snapvault.platform.sparse import Extent, data_extents
from snapvault.repository.index import Place
from snapvault.repository.keyring import DomainKeys
from snapvault.repository.reader import BlobReader
from snapvault.target.filesystem import FilesystemTarget

IN_PLACE_FROM = 64 << 20  # a smaller file that differs is replaced as a whole, atomically; a larger one in place
PART_BYTES = 32 << 20  # of a file, read and hashed by one thread
READ_BYTES = 1 << 20  # at once, unless a piece is larger

Lacking = list[int] | None  # numbers of pieces; None: all of the file has to be written


def pieces_of(reader: BlobReader, node: Node, places: list[Place] | None = None) -> tuple[bytes, list[Place]]:
    """The ids of a file's pieces, and where they lie, which the caller may know; Damaged if they are not all there.

    Before anything is written: the position of a piece is the sum of lengths.
    """
    content = node.content
    if content.depth and reader.measure(content) != node.stored:
        raise Damaged("its parts do not add up to its size")
    ids = reader.expand(content)
    places = (not content.depth and places) or reader.locate(ids)
    if sum(p.length for p in places) != node.stored:
        raise Damaged("its parts do not add up to its size")
    return ids, places


def compare(
    target: FilesystemTarget, path: bytes, node: Node, ids: bytes, places: Sequence[Place], domain: DomainKeys
) -> "Comparison | None":
    """Begin to compare a file; None: it cannot be opened, and has to be replaced."""
    try:
        return Comparison(target, path, node, ids, [p.length for p in places], domain)
    except OSError:
        return None


class Comparison:
    """One file in a target, against the pieces of a file in a snapshot: their ids, and lengths in bytes."""

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

    def run(self, check: Callable[[], None]) -> Lacking:
        """What the file lacks; OSError if it cannot be read."""
        return self.conclude(part() for part in self.parts(check))

    def parts(self, check: Callable[[], None]) -> list[Callable[[], Lacking]]:
        """Each says what a part of the file lacks, in any thread and any order, for ``conclude``.

        ``check`` is called at the beginning of each, and raises if all of it is to end.
        """
        extents, size = self._node.extents, self._stat.st_size
        if extents is not None and (size != self._node.size or data_extents(self._fd, size) != extents):
            return [_everything]  # it is left alone only if its holes, too, are where they should be
        found: list[Callable[[], Lacking]] = []
        first = position = length = 0
        for end, more in enumerate(self._lengths, 1):
            length += more
            if length >= PART_BYTES or end == len(self._lengths):
                found.append(partial(self._part, check, first, end, position))
                first, position, length = end, position + length, 0
        return found

    def _part(self, check: Callable[[], None], first: int, end: int, position: int) -> Lacking:
        """Of the pieces from ``first`` on, before ``end``; ``position`` counts stored bytes, holes left out."""
        check()
        data = _Data(self._fd, self._node.extents or ((0, self._node.size),), position)
        lacking = []
        for i, piece in zip(range(first, end), data.pieces(self._lengths[first:end]), strict=True):
            if self._domain.blob_id(BlobType.DATA, piece) != self._ids[i * ID_SIZE : (i + 1) * ID_SIZE]:
                lacking.append(i)
        return lacking

    def conclude(self, parts: Iterable[Lacking]) -> Lacking:
        """What all the parts say together."""
        lacking: list[int] = []
        for part in parts:
            if part is None:
                return None
            lacking += part
        if not lacking and self._stat.st_size == self._node.size:
            return lacking
        if not self.in_place:
            return None
        return lacking or [len(self._lengths) - 1]  # only its end has to go: one piece makes it a job


def _everything() -> Lacking:
    return None


class _Data:
    """What is stored of an open file from a position on."""

    def __init__(self, fd: int, extents: Iterable[Extent], position: int) -> None:
        self._fd = fd
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


class Owners:
    """Whose the files with several names in a target are: two files of a snapshot must not share one."""

    def __init__(self) -> None:
        self._of: dict[tuple[int, int], object] = {}

    def owns(self, path: bytes, node: Node, there: os.stat_result) -> bool:
        """False if another file of the snapshot has this very file in the target: the two have to be parted."""
        if there.st_nlink == 1:
            return True
        own = node.link or path
        return self._of.setdefault((there.st_dev, there.st_ino), own) == own
