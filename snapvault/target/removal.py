"""Removing a tree without following links, however deep it is, with few descriptors and no recursion limit."""

import errno
import os
import secrets

from snapvault.platform.metadata import O_PATH

_DEPTH = 64  # folders deeper than this are first moved to the top of the tree that is being removed
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def remove_entry(parent_fd: int, name: bytes) -> bool:
    """Remove a file, link or whole folder.  True if it was a folder.  OSError goes through."""
    try:
        os.unlink(name, dir_fd=parent_fd)
        return False
    except IsADirectoryError:
        pass
    top = _open(parent_fd, name)
    try:
        while _empty(top, top, 0):
            pass
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent_fd)
    return True


def _empty(fd: int, top: int, depth: int) -> bool:
    """Remove everything in a folder.  True if something was moved to the top instead."""
    moved = False
    for entry in os.listdir(fd):
        name = os.fsencode(entry)
        try:
            os.unlink(name, dir_fd=fd)
            continue
        except IsADirectoryError:
            pass
        if depth >= _DEPTH:
            os.rename(name, b".snapvault-removed-" + secrets.token_hex(12).encode(), src_dir_fd=fd, dst_dir_fd=top)
            moved = True
            continue
        below = _open(fd, name)
        try:
            moved |= _empty(below, top, depth + 1)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=fd)
    return moved


def _open(parent_fd: int, name: bytes) -> int:
    make_usable(parent_fd, name)
    return os.open(name, _FLAGS, dir_fd=parent_fd)


def make_usable(parent_fd: int, name: bytes) -> None:
    """Give the owner of a folder all rights in it, where a missing one would stop us (never root)."""
    if os.geteuid() == 0:
        return
    fd = os.open(name, O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=parent_fd)
    try:
        st = os.fstat(fd)
        if st.st_mode & 0o700 != 0o700 and st.st_uid == os.geteuid():
            os.chmod(b"/proc/self/fd/%d" % fd, st.st_mode & 0o7777 | 0o700)
    except OSError as e:
        if e.errno != errno.EPERM:
            raise
    finally:
        os.close(fd)
