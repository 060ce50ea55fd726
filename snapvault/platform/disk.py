"""How much of a disk somebody fills, and where on it."""

import contextlib
import fcntl
import os
import struct
import time

_GET_FLAGS, _SET_FLAGS, _TOP_FOLDER = 0x80086601, 0x40086602, 0x00020000  # Linux's of ext2 to ext4, with 64 bits
MEASURE_EVERY, SHARE = 2.0, 20  # seconds between two walks through the folder, or so many times what the last one took


class Quota:
    """``most`` bytes on the disk below a folder.  Often to be asked: it looks closely only now and then."""

    def __init__(self, folder: str | os.PathLike[str], most: int, used: int = 0) -> None:
        """``used``: of these, what is there already."""
        self._folder, self._most = folder, most
        self._enough = free(folder) - (most - used)  # less is free: perhaps all of it was used here
        self._suspected = False
        self._next = time.monotonic() + MEASURE_EVERY

    def exceeded(self, written: int = 0, *, last: bool = False) -> bool:
        """Whether there is more.  ``written``: bytes that are known to have been written, holes included.

        ``last``: nobody asks again, so this must be sure.
        """
        suspicious = written > self._most or free(self._folder) < self._enough
        at_once = suspicious and (last or not self._suspected)
        self._suspected |= suspicious
        began = time.monotonic()
        if not at_once and began < self._next:
            return False
        found = size(self._folder)
        took = time.monotonic() - began
        self._next = began + max(MEASURE_EVERY, SHARE * took)
        return found > self._most


def free(folder: str | os.PathLike[str]) -> int:
    """Bytes that can still be written to the disk that a folder is on."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def size(folder: str | os.PathLike[str]) -> int:
    """Bytes on the disk below a folder."""
    total = 0
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(top, name)).st_blocks * 512
    return total


def spread(folder: str | os.PathLike[str]) -> None:
    """Let what is made in a folder lie anywhere on its disk, where the file system can be told so.

    ext4 keeps a folder's entries together, and looks for a long time for a free inode where many were just freed: in
    the place of the last drill a new file took thirty times as long.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, bytes(struct.calcsize("l"))))
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", flags | _TOP_FOLDER))
    finally:
        os.close(fd)
