"""Setting a node's metadata on what stands in the target, and finding what differs."""

import errno
import os
from collections.abc import Mapping
from typing import NamedTuple

from snapvault.format.nodes import node_from_stat
from snapvault.format.tree import Node, NodeKind
from snapvault.platform.metadata import Place, list_xattrs, may_remove, read_xattrs, set_xattrs

_ROOT_NAMESPACES = (b"trusted.", b"security.")
# Some file systems end in 1901 or 2038 and silently store their nearest time.
_SAFE_TIMES = (-(2**31) * 10**9, 2**31 * 10**9 - 1)


class Shortfall(NamedTuple):
    """Metadata of one entry that could not be set."""

    path: bytes  # relative to the target
    what: str  # owner, mode, xattrs, mtime, device
    needs_root: bool  # only because the caller is not root: counted, no error
    message: str


def is_root() -> bool:
    """True if this process may do what only root may."""
    return not hasattr(os, "geteuid") or os.geteuid() == 0


def is_simple(node: Node, uid: int, gid: int) -> bool:
    """Whether a new file of this node needs owner, mode and time alone, and nothing that may fall short."""
    if node.xattrs or node.extents is not None or not _SAFE_TIMES[0] <= node.mtime_ns <= _SAFE_TIMES[1]:
        return False
    return is_root() or (uid == os.geteuid() and gid == os.getegid() and not node.mode & 0o6000)


def apply_metadata(place: Place, path: bytes, node: Node, st: os.stat_result, uid: int, gid: int) -> list[Shortfall]:
    """Give ``place``, whose stat is ``st``, the owner, mode, attributes and time of ``node``.  Nothing raises.

    The order matters: a change of owner clears setuid and capabilities, every change moves the times.
    """
    shortfalls: list[Shortfall] = []
    mode, now = node.mode, st.st_mode & 0o7777
    if st.st_uid != uid or st.st_gid != gid:
        mode &= ~_change_owner(place, path, st, uid, gid, shortfalls)
        now = now & ~0o6000 if mode & 0o6000 else now
    if mode != now and node.kind != NodeKind.SYMLINK:
        _change_mode(place, path, mode, shortfalls)
    try:
        have = list_xattrs(place)
        if have or node.xattrs:
            _change_xattrs(place, path, have, node, shortfalls)
    except OSError as e:
        shortfalls.append(Shortfall(path, "xattrs", False, f"its attributes cannot be listed: {e.strerror}"))
    try:
        mtime = node.mtime_ns
        os.utime(place, ns=(mtime, mtime))
        if not _SAFE_TIMES[0] <= mtime <= _SAFE_TIMES[1] and os.stat(place).st_mtime_ns != mtime:
            shortfalls.append(Shortfall(path, "mtime", False, "its time is out of the file system's range"))
    except (OSError, OverflowError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is out of range"
        needs_root = isinstance(e, PermissionError) and not is_root()
        shortfalls.append(Shortfall(path, "mtime", needs_root, f"its time cannot be set: {reason}"))
    return shortfalls


def _change_owner(
    place: Place, path: bytes, st: os.stat_result, uid: int, gid: int, shortfalls: list[Shortfall]
) -> int:
    """Set owner and group.  Returns the mode bits that must not be set: setuid of somebody else's is a hole."""
    try:
        os.chown(place, uid, gid)
        return 0
    except OSError as e:
        needs_root = e.errno == errno.EPERM
        message = f"its owner {uid}:{gid} cannot be set: {e.strerror}"
        shortfalls.append(Shortfall(path, "owner", needs_root, message))
    if st.st_gid != gid:
        try:  # an owner may give a file to a group that they are in
            os.chown(place, -1, gid)
        except OSError:
            return 0o6000 if st.st_uid != uid else 0o2000
    return 0o4000 if st.st_uid != uid else 0


def _change_mode(place: Place, path: bytes, mode: int, shortfalls: list[Shortfall]) -> None:
    try:
        os.chmod(place, mode)
        # Linux drops setgid without a word where the caller is not in the group.
        if mode & 0o2000 and not is_root() and not os.stat(place).st_mode & 0o2000:
            shortfalls.append(Shortfall(path, "mode", True, "its setgid bit cannot be set"))
    except OSError as e:
        needs_root = e.errno == errno.EPERM and not is_root()
        shortfalls.append(Shortfall(path, "mode", needs_root, f"its mode {mode:04o} cannot be set: {e.strerror}"))


def _change_xattrs(place: Place, path: bytes, have: list[str], node: Node, shortfalls: list[Shortfall]) -> None:
    for name, error in set_xattrs(place, have, node.xattrs or {}):
        denied = isinstance(error, PermissionError)
        needs_root = denied and (name.startswith(_ROOT_NAMESPACES) or not is_root())
        message = f"its attribute {os.fsdecode(name)!r} cannot be set: {error.strerror}"
        shortfalls.append(Shortfall(path, "xattrs", needs_root, message))


def describe(place: bytes, name: bytes, st: os.stat_result) -> Node:
    """A node with all metadata of what stands at ``place``; its last component is never followed."""
    node = node_from_stat(name, st)
    node.xattrs, failures = read_xattrs(place, list_xattrs(place, False), False)
    if failures:
        raise failures[0][1]
    if node.kind == NodeKind.SYMLINK:
        node.target = os.readlink(place)
    return node


def differences(have: Node, want: Node, uid: int, gid: int) -> frozenset[str]:
    """What would have to change: of kind, size, target, device, owner, mode, xattrs, mtime."""
    if have.kind != want.kind:
        return frozenset({"kind"})
    pairs = (
        ("size", have.size, want.size),
        ("target", have.target, want.target),
        ("device", have.device, want.device),
        ("owner", (have.uid, have.gid), (uid, gid)),
        ("mode", have.mode, have.mode if want.kind == NodeKind.SYMLINK else want.mode),
        ("xattrs", *_comparable(have.xattrs or {}, want.xattrs or {})),
        ("mtime", have.mtime_ns, want.mtime_ns),
    )
    return frozenset(what for what, a, b in pairs if a != b)


def _comparable(
    have: Mapping[bytes, bytes], want: Mapping[bytes, bytes]
) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """Both sets of attributes without those that are the system's own, or that only root could see."""
    visible = want if is_root() else {k: v for k, v in want.items() if not k.startswith(b"trusted.")}
    return {k: v for k, v in have.items() if k in visible or may_remove(k)}, dict(visible)
