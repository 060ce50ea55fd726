"""What Linux keeps beside a file's bytes: names of owners, extended attributes (POSIX ACLs among them), long paths.

Elsewhere the missing calls answer "nothing there", so that importing and plain copying still work.
"""

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

try:
    import grp
    import pwd
except ImportError:  # Windows: owners are numbers without names
    pwd = grp = None  # type: ignore[assignment]

_T = TypeVar("_T")
Place = int | bytes  # an open descriptor, or a path

O_NOATIME: int = getattr(os, "O_NOATIME", 0)
O_PATH: int = getattr(os, "O_PATH", os.O_RDONLY)

# Linux refuses longer paths (PATH_MAX is 4096 with its NUL); room is left for one more name of 255 bytes.
LONG_PATH = 4096 - 255 - 32

# The file system has no attributes at all, or not of this namespace; or the attribute is gone again.
_NO_SUPPORT = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
ATTRIBUTES_MAX = 8 << 20  # bytes of names and values of one entry
_NOTHING = (*_NO_SUPPORT, errno.ENODATA)

ACL_PREFIX = b"system.posix_acl_"
_MANAGED = (b"user.", b"trusted.", b"security.", ACL_PREFIX)
# Labels that the kernel's security modules keep by themselves: never removed because a snapshot lacks them.
_KERNEL_OWN = (b"security.selinux", b"security.ima", b"security.evm", b"security.SMACK64", b"security.apparmor")


class Owners:
    """Names of the owners that were seen, each looked up once.  Ids without a name stay out of the tables."""

    __slots__ = ("_gids", "_uids", "groups", "users")

    def __init__(self) -> None:
        self.users: dict[int, str] = {}
        self.groups: dict[int, str] = {}
        self._uids: set[int] = set()
        self._gids: set[int] = set()

    def see(self, uid: int, gid: int) -> None:
        """Look both up unless they were seen before."""
        if uid not in self._uids:
            name = _lookup(lambda: pwd.getpwuid(uid).pw_name)
            if name is not None:
                self.users[uid] = name
            self._uids.add(uid)
        if gid not in self._gids:
            name = _lookup(lambda: grp.getgrgid(gid).gr_name)
            if name is not None:
                self.groups[gid] = name
            self._gids.add(gid)


class LocalOwners:
    """Maps an owner of a snapshot to an id of this machine: by name where the name exists here, else by number."""

    __slots__ = ("_gids", "_uids", "numeric")

    def __init__(self, numeric: bool = False) -> None:
        self.numeric = numeric
        self._uids: dict[tuple[int, str], int] = {}
        self._gids: dict[tuple[int, str], int] = {}

    def uid(self, uid: int, users: Mapping[int, str]) -> int:
        """The local id for user ``uid``, whose name is in ``users`` if it had one."""
        name = users.get(uid)
        if name is None or self.numeric:
            return uid
        found = self._uids.get((uid, name))
        if found is None:
            local = _lookup(lambda: pwd.getpwnam(name).pw_uid)
            found = self._uids[uid, name] = uid if local is None else local
        return found

    def gid(self, gid: int, groups: Mapping[int, str]) -> int:
        """The local id for group ``gid``, whose name is in ``groups`` if it had one."""
        name = groups.get(gid)
        if name is None or self.numeric:
            return gid
        found = self._gids.get((gid, name))
        if found is None:
            local = _lookup(lambda: grp.getgrnam(name).gr_gid)
            found = self._gids[gid, name] = gid if local is None else local
        return found


def _lookup(ask: Callable[[], _T]) -> _T | None:
    try:
        return ask()
    except (KeyError, ValueError, AttributeError):  # unknown; not an id of this system; no such database
        return None


def list_xattrs(place: Place, follow: bool = True) -> list[str]:
    """Names of the extended attributes; none where the file system has none.  OSError goes through."""
    try:
        return os.listxattr(place, follow_symlinks=follow)
    except AttributeError:
        return []
    except OSError as e:
        if e.errno in _NO_SUPPORT:
            return []
        raise


def read_xattrs(
    place: Place, names: list[str], follow: bool = True
) -> tuple[dict[bytes, bytes] | None, list[tuple[bytes, OSError]]]:
    """Values of these attributes, and those that could not be read.  Attributes that vanished are neither.

    What goes beyond ATTRIBUTES_MAX bytes of one entry is not taken: the entry could not be stored.
    """
    values: dict[bytes, bytes] = {}
    failures = []
    left = ATTRIBUTES_MAX
    for name in names:
        key = os.fsencode(name)
        try:
            value = os.getxattr(place, key, follow_symlinks=follow)
            left -= len(key) + len(value)
            if left < 0:
                raise OSError(errno.E2BIG, f"with it, the entry has attributes of more than {ATTRIBUTES_MAX} bytes")
            values[key] = value
        except OSError as e:
            if e.errno not in _NOTHING:
                failures.append((key, e))
    return values or None, failures


def set_xattrs(place: Place, have: list[str], wanted: Mapping[bytes, bytes]) -> list[tuple[bytes, OSError]]:
    """Make the attributes, whose names now are ``have``, those of ``wanted``.  Returns what failed."""
    there = {os.fsencode(n) for n in have}
    failures = []
    for name, value in wanted.items():
        try:
            if name not in there or os.getxattr(place, name) != value:
                os.setxattr(place, name, value)
        except OSError as e:
            failures.append((name, e))
    for name in sorted(there - wanted.keys()):
        if not may_remove(name):
            continue
        try:
            os.removexattr(place, name)
        except OSError as e:
            if e.errno not in _NOTHING:
                failures.append((name, e))
    return failures


def may_remove(name: bytes) -> bool:
    """True unless the attribute is one that the system keeps by itself."""
    return name.startswith(_MANAGED) and not name.startswith(_KERNEL_OWN)


def open_noatime(path: bytes | str, flags: int, dir_fd: int | None = None) -> int:
    """``os.open`` that leaves the access time alone where it may (the owner and root)."""
    try:
        return os.open(path, flags | O_NOATIME, dir_fd=dir_fd)
    except PermissionError as e:
        if e.errno != errno.EPERM or not O_NOATIME:
            raise
        return os.open(path, flags, dir_fd=dir_fd)


@contextmanager
def reachable(path: bytes) -> Iterator[bytes]:
    """A path to the same place that the kernel accepts: ``path`` itself unless it is too long for one call.

    A long one is walked in parts, and the rest starts at ``/proc/self/fd/N``; it is good inside the block only.
    """
    if len(path) < LONG_PATH:
        yield path
        return
    fd = -1
    try:
        while len(path) >= LONG_PATH:
            cut = path.rindex(b"/", 1, LONG_PATH)
            nearer = os.open(path[:cut], O_PATH | os.O_DIRECTORY, dir_fd=fd if fd >= 0 else None)
            if fd >= 0:
                os.close(fd)
            fd, path = nearer, path[cut:].lstrip(b"/")
        yield b"/proc/self/fd/%d/%s" % (fd, path)
    finally:
        if fd >= 0:
            os.close(fd)
