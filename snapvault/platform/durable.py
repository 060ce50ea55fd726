"""Files that are whole and on the disk once a call returned, and absent or whole if it did not.

The order is: temporary file beside the target, write, fsync, link (or rename) to the final name, fsync the folder.
An fsync that failed is final: the kernel may have dropped the dirty pages and answers the next fsync with success, so
the file is given up and nothing is ever synced a second time.
"""

import contextlib
import ctypes
import errno
import functools
import mmap
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

Buffer = bytes | bytearray | memoryview

TEMP_PREFIX = ".tmp-"  # hidden, so that no listing takes a half-written file for an object
_IOV_MAX = 1024  # Linux; buffers of one writev call
_DIRECT = getattr(os, "O_DIRECT", 0)  # 0 where the system has no such thing
_DIRECT_FROM, _DIRECT_UNIT = 1 << 20, 4096  # bytes: what is worth it, and what all file systems are content with
_RENAME_NOREPLACE = 1
_NEITHER = "this file system has neither hard links nor a rename that replaces nothing"
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def write_file(folder: str | Path, name: str, data: Sequence[Buffer], *, replace: bool, mode: int = 0o600) -> None:
    """Store ``data`` as ``folder/name``, durably.

    ``replace=False`` raises FileExistsError and changes nothing if the name is taken; of racing callers one wins.
    Any other OSError: the name is as it was, or (if the last fsync, that of the folder, failed) holds the whole file.
    """
    at = open_folder(folder)
    try:
        temp = _write_temp(at, data, mode)
        try:
            _publish(at, temp, name, replace=replace)
        finally:
            with contextlib.suppress(OSError):  # gone already after a rename; else remove_stale_temps gets it
                os.unlink(temp, dir_fd=at)
        os.fsync(at)
    finally:
        os.close(at)


def open_folder(folder: str | Path) -> int:
    """A descriptor of a folder, for ``dir_fd`` and fsync."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def sync_folder(folder: str | Path) -> None:
    """Make the names in ``folder`` durable."""
    at = open_folder(folder)
    try:
        os.fsync(at)
    finally:
        os.close(at)


def make_folder(folder: str | Path, mode: int = 0o700) -> None:
    """Make one folder and its name durable.

    The parent is synced also when the folder is there: whoever made it may not have come that far.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, mode)
    sync_folder(os.path.dirname(os.path.abspath(folder)))


def make_folders(folder: str | Path, mode: int = 0o700) -> None:
    """Make a folder and what is missing above it, and the names of all folders up to the mount point durable.

    Those that are there may have been made a moment ago, by a process that was killed or by a plain mkdir.
    """
    path = Path(os.path.abspath(folder))
    for each in reversed([p for p in (path, *path.parents) if not p.is_dir()]):
        make_folder(each, mode)
    while path != path.parent and path.stat().st_dev == path.parent.stat().st_dev:
        path = path.parent
        with contextlib.suppress(PermissionError):  # we could not have made a name in it
            sync_folder(path)


def _write_temp(at: int, data: Sequence[Buffer], mode: int) -> str:
    temp = TEMP_PREFIX + secrets.token_hex(12)
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode, dir_fd=at)
    try:
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)  # network file systems report a full disk here, so before the name is given
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temp, dir_fd=at)
        raise
    return temp


def write_all(fd: int, data: Sequence[Buffer]) -> None:
    """Write all buffers without joining them; short writes are continued."""
    left = [view for view in (memoryview(part).cast("B") for part in data) if view.nbytes]
    if left:
        done = _write_direct(fd, left[0])
        left[:1] = [left[0][done:]] if done < left[0].nbytes else []
    first = 0
    while first < len(left):
        written = os.writev(fd, left[first : first + _IOV_MAX])
        if written <= 0:
            raise OSError(errno.EIO, "nothing was written")
        while first < len(left) and written >= left[first].nbytes:
            written -= left[first].nbytes
            first += 1
        if written:
            left[first] = left[first][written:]


def _write_direct(fd: int, view: memoryview) -> int:
    """Write the beginning of a mapped buffer past the page cache: how many bytes were written, in whole blocks.

    What is fsynced at once need not be copied there first, and does not push out what others keep in it.  Where the
    file system or the buffer does not allow it, nothing is written, and the usual way is left.
    """
    if not _DIRECT or len(view) < _DIRECT_FROM or not isinstance(view.obj, mmap.mmap):
        return 0
    import fcntl

    flags, done = fcntl.fcntl(fd, fcntl.F_GETFL), 0
    end = len(view) // _DIRECT_UNIT * _DIRECT_UNIT
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | _DIRECT)
        while done < end:
            done += os.writev(fd, [view[done:end]])
    except OSError as err:
        if err.errno != errno.EINVAL:  # the answer where it is not supported, or after a short write
            raise
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    return done


def _publish(at: int, temp: str, name: str, *, replace: bool) -> None:
    if replace:
        os.replace(temp, name, src_dir_fd=at, dst_dir_fd=at)
        return
    try:
        os.link(temp, name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)
    except FileExistsError:
        os.fsync(at)  # what we report as taken shall not vanish with the power: others act on it
        raise
    except OSError as err:
        if err.errno not in _NO_HARD_LINKS:
            raise
        _rename_noreplace(at, temp, name)


def _rename_noreplace(at: int, temp: str, name: str) -> None:
    """The same promise on file systems without hard links (FAT, exFAT); ENOTSUP where that is missing, too."""
    rename = _renameat2()
    if rename is None:
        raise OSError(errno.ENOTSUP, _NEITHER, name)
    if rename(at, os.fsencode(temp), at, os.fsencode(name), _RENAME_NOREPLACE) == 0:
        return
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        os.fsync(at)
        raise FileExistsError(code, os.strerror(code), name)
    if code in (errno.EINVAL, errno.ENOSYS):
        raise OSError(errno.ENOTSUP, _NEITHER, name)
    raise OSError(code, os.strerror(code), name)


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    rename.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return rename
