"""A folder on a file system of this machine (docs/backends.md)."""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence

from snapvault.backend.names import check_name, check_prefix, check_range, end_of, is_name
from snapvault.backend.protocol import Buffer, Exists, NotFound, ObjectInfo
from snapvault.backend.walk import Entry, walk
from snapvault.foundation.errors import (
    InvalidInput,
    RepositoryNotFound,
    SnapvaultError,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
)
from snapvault.platform import durable

DAY = 86400.0  # seconds
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENOTSUP})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class LocalBackend:
    """Objects are files of mode 0600 below ``path``; every put is durable when it returns.

    Thread-safe and without state but for the folders that it knows to be durable.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        """``create``: make the folder if it is missing, else operations raise RepositoryNotFound."""
        self._root = os.path.abspath(os.fspath(path))
        self._known = {self._root}
        if create:
            try:
                durable.make_folders(self._root)
            except OSError as err:
                raise self._error(err, "") from err

    @property
    def url(self) -> str:
        return self._root

    def __repr__(self) -> str:
        return f"LocalBackend({self._root!r})"

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        self._put(name, data, replace=True)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        self._put(name, data, replace=False)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(name, start, length)
        try:
            # O_NONBLOCK: a FIFO planted under the name must not hang the reader
            fd = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                return _read(fd, name, start, length)
            finally:
                os.close(fd)
        except (FileNotFoundError, NotADirectoryError) as err:
            raise self._missing(name) from err
        except OSError as err:
            raise self._error(err, name) from err

    def head(self, name: str) -> ObjectInfo:
        try:
            found = os.stat(self._path(name))
        except (FileNotFoundError, NotADirectoryError) as err:
            raise self._missing(name) from err
        except OSError as err:
            raise self._error(err, name) from err
        if not stat.S_ISREG(found.st_mode):
            raise NotFound(f"{name} in {self._root} is not a file", affected=[name])
        return ObjectInfo(name, found.st_size)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return walk(self._entries, check_prefix(prefix))

    def delete(self, name: str) -> None:
        path = self._path(name)
        try:
            os.unlink(path)
            durable.sync_folder(os.path.dirname(path))
        except (FileNotFoundError, NotADirectoryError):
            self._require_root(name)
        except OSError as err:
            raise self._error(err, name) from err

    def settle(self, prefixes: Sequence[str]) -> None:
        """Make durable what is seen directly below these prefixes (``"index/"``), whoever put it.

        A writer that was killed between link and fsync leaves a name that all see, and that a power cut takes away.
        """
        try:
            for folder in (self._root, *(f"{self._root}/{check_prefix(prefix)}" for prefix in prefixes)):
                with contextlib.suppress(FileNotFoundError):
                    durable.sync_folder(folder)
        except OSError as err:
            raise self._error(err, "") from err

    def close(self) -> None:
        """Nothing is held open."""

    def remove_stale_temps(self, older_than: float = DAY) -> int:
        """Delete temporary files that killed writers left ``older_than`` seconds ago or longer; how many.

        Belongs to prune.  A writer that slept that long in the middle of one put gets an error, never a torn object.
        """
        count, limit = 0, time.time() - older_than
        try:
            for folder, _, files in os.walk(self._root, onerror=_raise):
                for file in files:
                    path = os.path.join(folder, file)
                    with contextlib.suppress(FileNotFoundError):
                        if file.startswith(durable.TEMP_PREFIX) and os.lstat(path).st_mtime <= limit:
                            os.unlink(path)
                            count += 1
        except OSError as err:
            raise self._error(err, "") from err
        return count

    def _path(self, name: str) -> str:
        return f"{self._root}/{check_name(name)}"

    def _put(self, name: str, data: Sequence[Buffer], *, replace: bool) -> None:
        folder, file = os.path.split(self._path(name))
        try:
            self._make_known(folder)
            try:
                durable.write_file(folder, file, data, replace=replace)
            except FileNotFoundError:  # somebody removed the folder since we made it
                self._known = {self._root}
                self._make_known(folder)
                durable.write_file(folder, file, data, replace=replace)
        except FileExistsError as err:
            raise Exists(f"{name} is already in {self._root}", affected=[name]) from err
        except OSError as err:
            raise self._error(err, name) from err

    def _make_known(self, folder: str) -> None:
        if folder not in self._known:
            self._make_known(os.path.dirname(folder))
            durable.make_folder(folder)
            self._known.add(folder)

    def _entries(self, folder: str) -> Sequence[Entry]:
        try:
            with os.scandir(f"{self._root}/{folder}") as found:
                return [sized for entry in found if (sized := _sized(folder, entry)) is not None]
        except (FileNotFoundError, NotADirectoryError):
            self._require_root(folder)
            return []  # no folder, no objects
        except OSError as err:
            raise self._error(err, folder) from err

    def _require_root(self, name: str) -> None:
        missing = self._missing(name)
        if isinstance(missing, RepositoryNotFound):
            raise missing

    def _missing(self, name: str) -> SnapvaultError:
        if os.path.isdir(self._root):
            return NotFound(f"there is no {name} in {self._root}", affected=[name])
        return RepositoryNotFound(f"there is no folder {self._root}")

    def _error(self, err: OSError, name: str) -> SnapvaultError:
        where, affected = (f"{name} in {self._root}", [name]) if name else (self._root, [])
        text = f"{where}: {err.strerror or err}"
        if err.errno in (errno.ENOENT, errno.ENOTDIR) and not os.path.isdir(self._root):
            return RepositoryNotFound(f"there is no folder {self._root}")
        if err.errno in _DENIED:
            return StoreDenied(text, affected=affected)
        if err.errno in _FULL:
            return StoreFull(text, affected=affected)
        if err.errno == errno.ENAMETOOLONG:
            return InvalidInput(text, affected=affected)
        return StoreUnavailable(text, affected=affected)


def _sized(folder: str, entry: os.DirEntry[str]) -> Entry | None:
    name = folder + entry.name
    if not is_name(name):  # a temporary file, or lost+found: not ours, maybe not even readable
        return None
    if entry.is_dir():
        return name + "/", 0
    try:
        return name, entry.stat().st_size
    except FileNotFoundError:
        return None  # deleted since the folder was read


def _read(fd: int, name: str, start: int, length: int | None) -> bytes:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise NotFound(f"{name} is not a file", affected=[name])
    position, end = start, end_of(name, found.st_size, start, length)
    parts = []
    while position < end:
        part = os.pread(fd, end - position, position)
        if not part:  # truncated while we read
            end_of(name, position, start, length if length is not None else found.st_size - start)
        parts.append(part)
        position += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _raise(err: OSError) -> None:
    raise err
