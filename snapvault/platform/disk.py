"""How much of a disk somebody fills."""

import contextlib
import os
import time

MEASURE_EVERY = 2.0  # seconds between two walks through the folder, which may be large


class Quota:
    """``most`` bytes on the disk below a folder.  Cheap to ask, as long as nothing else fills the disk."""

    def __init__(self, folder: str | os.PathLike[str], most: int, used: int = 0) -> None:
        """``used``: of these, what is there already."""
        self._folder, self._most = folder, most
        self._enough = free(folder) - (most - used)  # as long as so much is free, nobody can have used more
        self._measure_from = 0.0

    def exceeded(self) -> bool:
        """Whether there is more."""
        now = time.monotonic()
        if free(self._folder) >= self._enough or now < self._measure_from:
            return False
        self._measure_from = now + MEASURE_EVERY
        return size(self._folder) > self._most


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
