"""Where the data of a sparse file lies."""

import errno
import os

Extent = tuple[int, int]  # offset, length; bytes

MAX_EXTENTS = 8192  # a map of 128 KiB


def data_extents(fd: int, size: int, limit: int = MAX_EXTENTS) -> tuple[Extent, ...] | None:
    """The parts of an open file that are not holes, in order; None where there are no holes (or nobody can tell).

    At most ``limit`` extents: of a more scattered file the smaller holes count as data, which costs reading zeros
    but no exactness.  Moves the file's position back to 0.  OSError goes through.
    """
    extents: list[Extent] = []
    gap, position = 0, 0
    try:
        while position < size:
            start = os.lseek(fd, position, os.SEEK_DATA)
            if start >= size:
                break
            position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            if extents and start - sum(extents[-1]) <= gap:
                extents[-1] = (extents[-1][0], position - extents[-1][0])
            else:
                extents.append((start, position - start))
            while len(extents) > limit:
                gap = gap * 2 or 4096
                extents = _joined(extents, gap)
    except OSError as e:
        if e.errno in (errno.EINVAL, errno.ENOTSUP):
            return None
        if e.errno != errno.ENXIO:  # ENXIO: only a hole is left
            raise
    finally:
        os.lseek(fd, 0, os.SEEK_SET)
    return None if extents == [(0, size)] or not size else tuple(extents)


def _joined(extents: list[Extent], gap: int) -> list[Extent]:
    """Extents with no more than ``gap`` bytes between them made one."""
    joined: list[Extent] = []
    for offset, length in extents:
        if joined and offset - sum(joined[-1]) <= gap:
            joined[-1] = (joined[-1][0], offset + length - joined[-1][0])
        else:
            joined.append((offset, length))
    return joined
