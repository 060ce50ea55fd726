"""Nodes from what ``os.stat`` answers (no I/O here): shared by sources and targets, so that both describe alike."""

import os
import stat

from snapvault.format.tree import EMPTY, Node, NodeKind

_KINDS = {
    stat.S_IFREG: NodeKind.FILE,
    stat.S_IFDIR: NodeKind.DIRECTORY,
    stat.S_IFLNK: NodeKind.SYMLINK,
    stat.S_IFCHR: NodeKind.CHARACTER,
    stat.S_IFBLK: NodeKind.BLOCK,
    stat.S_IFIFO: NodeKind.FIFO,
    stat.S_IFSOCK: NodeKind.SOCKET,
}
_TYPES = {kind: file_type for file_type, kind in _KINDS.items()}


def node_from_stat(name: bytes, st: os.stat_result) -> Node:
    """A node with everything that a stat tells.  KeyError: a kind of file that no node can be."""
    mode = st.st_mode
    kind = _KINDS[mode & 0o170000]
    node = Node(
        name, kind, mode & 0o7777, st.st_uid, st.st_gid, st.st_mtime_ns, st.st_ctime_ns, st.st_ino,
        0 if kind else st.st_size, EMPTY,
    )  # fmt: skip
    if st.st_nlink > 1 and kind != NodeKind.DIRECTORY:
        node.link = (st.st_dev, st.st_ino)
    if kind in (NodeKind.CHARACTER, NodeKind.BLOCK):
        node.device = st.st_rdev
    return node


def file_type(kind: int) -> int:
    """The ``S_IF…`` bits of a NodeKind."""
    return _TYPES[kind]
