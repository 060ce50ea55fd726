"""Descriptors of a target's folders, opened component by component so that no link can lead outside."""

import errno
import os
import threading
from collections import OrderedDict
from contextlib import suppress

from snapvault.foundation.errors import InvalidInput
from snapvault.platform.metadata import O_PATH

_FLAGS = O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW  # O_PATH: to pass through a folder, the right to search it is enough
_UNSAFE = (b"", b".", b"..")

KEPT = 256  # folders kept open


class Folder:
    """An open folder.  Closed when nobody holds it any more: eviction cannot close it under a thread that uses it."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent.  For the end, when nothing uses it any more."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)


def check_name(name: bytes, path: bytes) -> None:
    """InvalidInput unless ``name`` can be the name of an entry."""
    if name in _UNSAFE or b"\0" in name or b"/" in name:
        raise InvalidInput(
            f"the path {os.fsdecode(path)!r} is refused: a component of it could lead outside of the target",
            affected=[os.fsdecode(path)],
        )


def split(path: bytes) -> tuple[bytes, bytes]:
    """The folder and the name of a path relative to the root.  InvalidInput: absolute, or an unsafe name."""
    folder, _, name = path.rpartition(b"/")
    if name in _UNSAFE or b"\0" in name or path[:1] == b"/":
        check_name(b"", path)
    return folder, name


class Folders:
    """Opens folders below one root and keeps the last used ones open.  Safe for several threads.

    ``at`` raises OSError: ENOENT; ENOTDIR also where a symlink stands in the place of a folder.
    """

    def __init__(self, root: Folder, kept: int = KEPT) -> None:
        self._root, self._kept = root, kept
        self._open: OrderedDict[bytes, Folder] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, path: bytes) -> Folder:
        """The folder at ``path``; b"" is the root.  Hold the result for as long as its descriptor is used."""
        if not path:
            return self._root
        folder = self._open.get(path)
        if folder is None:
            return self._walk(path)
        with suppress(KeyError):  # evicted in between
            self._open.move_to_end(path)
        return folder

    def _walk(self, path: bytes) -> Folder:
        if path[:1] == b"/":
            check_name(b"", path)
        missing, above = [path], path.rpartition(b"/")[0]
        while above and above not in self._open:
            missing.append(above)
            above = above.rpartition(b"/")[0]
        folder = self._open.get(above, self._root) if above else self._root
        if above and folder is self._root:  # evicted in between: begin at the root
            while above:
                missing.append(above)
                above = above.rpartition(b"/")[0]
        for whole in reversed(missing):
            name = whole.rpartition(b"/")[2]
            check_name(name, whole)
            try:
                folder = Folder(os.open(name, _FLAGS, dir_fd=folder.fd))
            except OSError as e:
                if e.errno == errno.ELOOP:
                    e = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                raise type(e)(e.errno, e.strerror, whole) from None
            self._keep(whole, folder)
        return folder

    def _keep(self, path: bytes, folder: Folder) -> None:
        with self._lock:
            self._open[path] = folder
            if len(self._open) > self._kept:
                self._open.popitem(last=False)

    def forget(self, path: bytes) -> None:
        """Let go of a folder that is removed, and of everything below it."""
        below = path + b"/"
        with self._lock:
            for known in [p for p in self._open if p == path or p.startswith(below)]:
                del self._open[known]

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._open.clear()
