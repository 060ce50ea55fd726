"""Many files at a time: what they are, what is in them, and making new ones.

With the native module each is one call that gives the GIL up once.  Without, entries are described one by one, and
reading and writing are left to whoever does it file by file.
"""

import errno
import os
import stat
from collections.abc import Sequence

from snapvault.foundation.native import native
from snapvault.platform.metadata import list_xattrs

BATCH = 1024  # entries described at a time, so that a huge folder is not held twice

# name, kind, permission bits, uid, gid, mtime and ctime (nanoseconds), inode, size (of files); and for what is neither
# a plain file nor a plain folder also: links, device, device that it is, and how long its attributes' names are (or
# minus an error number).  The kinds are those of a node.
Plain = tuple[bytes, int, int, int, int, int, int, int, int]
Special = tuple[bytes, int, int, int, int, int, int, int, int, int, int, int, int]
Entry = Plain | Special
Expected = tuple[bytes, int, int, int, int]  # name, size, mtime, ctime, inode
# Descriptor of its folder, name, bytes, permission bits, uid, gid, mtime.
NewFile = tuple[int, bytes, memoryview, int, int, int, int]

KINDS = {
    stat.S_IFREG: 0, stat.S_IFDIR: 1, stat.S_IFLNK: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
}  # fmt: skip
NO_KIND = -1

_list_names = getattr(native, "list_names", None)
_stat_entries = getattr(native, "stat_entries", None)
_read_files = getattr(native, "read_files", None)
_write_files = getattr(native, "write_files", None)


def names_in(fd: int) -> list[bytes]:
    """The names in an open folder, sorted by their bytes.  OSError."""
    if _list_names is not None:
        return sorted(_list_names(fd))
    return sorted(map(os.fsencode, os.listdir(fd)))


def stat_entries(fd: int, prefix: bytes, names: Sequence[bytes]) -> list[Entry | int]:
    """What each of these names in the open folder is, or the number of the error that says that it cannot be told.

    ``prefix``: the folder's path with a slash, by which attributes are looked up; b"": they are taken to be none.
    """
    if _stat_entries is not None:
        found: list[Entry | int] = _stat_entries(fd, prefix, tuple(names))
        return found
    return [stat_entry(fd, prefix, name) for name in names]


def stat_entry(fd: int, prefix: bytes, name: bytes) -> Entry | int:
    """The twin of ``stat_entries``, for one."""
    try:
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError as e:
        return e.errno or errno.EIO
    try:
        attributes = sum(len(n) + 1 for n in list_xattrs(prefix + name, False)) if prefix else 0
    except OSError as e:
        attributes = -(e.errno or errno.EIO)
    return entry_from_stat(name, st, attributes)


def entry_from_stat(name: bytes, st: os.stat_result, attributes: int = 0) -> Entry:
    """The entry that a stat describes."""
    kind = KINDS.get(stat.S_IFMT(st.st_mode), NO_KIND)
    plain = (
        name, kind, st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_mtime_ns, st.st_ctime_ns, st.st_ino,
        0 if kind else st.st_size,
    )  # fmt: skip
    if kind in (0, 1) and not attributes and (kind == 1 or st.st_nlink == 1):
        return plain
    return (*plain, st.st_nlink, st.st_dev, st.st_rdev, attributes)


def extras(entry: Entry) -> tuple[int, int, int, int]:
    """Links, device, device that it is, and length of the attributes' names (or minus an error number)."""
    return entry[9:] or (1, 0, 0, 0)


def read_files(fd: int, files: Sequence[Expected]) -> list[bytes | None]:
    """The bytes of regular files in the open folder that are, before and after, what was expected of them.

    None: it is not, has holes or cannot be read; then open it by itself and see.  So it is for every file where there
    is no native module.
    """
    if _read_files is None:
        return [None] * len(files)
    found: list[bytes | None] = _read_files(fd, tuple(files))
    return found


def write_files(files: Sequence[NewFile]) -> list[int]:
    """Make new files, whole and with owner, mode and time: 0 for each that was made, or an error number.

    Then nothing of it is left; make it by itself and see.  So it is for every file where there is no native module.
    """
    if _write_files is None:
        return [errno.ENOSYS] * len(files)
    errors: list[int] = _write_files(tuple(files))
    return errors
