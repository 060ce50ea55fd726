"""What keeps somebody else's program in its place: its processes, where it writes, and whom it reaches.  Linux.

Against accidents, not against malice: whoever runs as root can undo all of it.
"""

import ctypes
import fcntl
import os
import socket
import struct
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_SUBREAPER = 36  # of prctl
_NEWNS, _NEWUSER, _NEWNET = 0x00020000, 0x10000000, 0x40000000  # of unshare
_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18  # of mount
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _RDONLY = 442, -100, 0x8000, 1  # the number is the same on all machines
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_SHARED_MEMORY = "/dev/shm"


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends: none of them can get away."""
    _checked(_libc().prctl(_SUBREAPER, 1, 0, 0, 0))


def descendants(process: int) -> list[int]:
    """All processes that this one started, directly or not, and that have not ended."""
    children = defaultdict[int, list[int]](list)
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError, IndexError):
            state, parent = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                children[int(parent)].append(int(entry))
    found, todo = list[int](), [process]
    while todo:
        below = children[todo.pop()]
        found += below
        todo += below
    return found


def name_of(process: int) -> str:
    """What a process is called; "?" if it has just ended."""
    with suppress(OSError):
        return Path("/proc", str(process), "comm").read_text().strip()
    return "?"


def wall_off(writable: Path, work: Path, *, network: bool) -> Path:
    """From here on this process and its children write below ``writable`` alone, and without ``network`` reach nobody.

    They see ``work``, which lies below it, as a folder with a short path that everybody may enter, too; that is given
    back.  OSError: not permitted here, or not known to this kernel, and then anything of it may be in force: for a
    process that ends then.  Only for a process with one thread.
    """
    spaces = _NEWNS if network else _NEWNS | _NEWNET
    if os.geteuid() == 0:
        _checked(_libc().unshare(spaces))
    else:
        user, group = os.geteuid(), os.getegid()
        _checked(_libc().unshare(spaces | _NEWUSER))
        for name, said in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path("/proc/self", name).write_text(said)
    cover = Path("/var/tmp" if writable.resolve().is_relative_to("/tmp") else "/tmp")
    _mount("", "/", _REC | _PRIVATE)
    for source, target in ((writable, writable), (work, cover)):
        _mount(str(source), str(target), _BIND)
    _mount("shm", _SHARED_MEMORY, 0, kind="tmpfs", options="mode=1777,size=64m")
    _set_read_only("/", True, recursive=True)
    for place in (str(writable), str(cover), _SHARED_MEMORY):
        _set_read_only(place, False)
    if not network:
        _raise_loopback()
    return cover


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


def _mount(source: str, target: str, flags: int, *, kind: str = "", options: str = "") -> None:
    mount = _libc().mount
    mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
    _checked(mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, options.encode()))


def _set_read_only(place: str, yes: bool, *, recursive: bool = False) -> None:
    attributes = struct.pack("<4Q", _RDONLY if yes else 0, 0 if yes else _RDONLY, 0, 0)
    _checked(
        _libc().syscall(
            ctypes.c_long(_MOUNT_SETATTR), _AT_FDCWD, os.fsencode(place), _AT_RECURSIVE if recursive else 0,
            attributes, ctypes.c_size_t(len(attributes)),
        )
    )  # fmt: skip


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
