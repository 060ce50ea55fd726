"""Nodes from what a file system tells (no I/O here): shared by sources and targets, so that both describe alike."""

import os

from snapvault.format.tree import Node, NodeKind
from snapvault.platform.bulk import KINDS, NO_KIND, Entry, entry_from_stat, extras

_TYPES = {kind: file_type for file_type, kind in KINDS.items()}


def node_from_entry(entry: Entry) -> Node:
    """A node with everything that an entry tells.  KeyError: a kind of file that no node can be."""
    node = Node(*entry[:9])
    if node.kind == NO_KIND:
        raise KeyError(node.name)
    links, device, is_device, _ = extras(entry)
    if links > 1 and node.kind != NodeKind.DIRECTORY:
        node.link = (device, node.inode)
    if node.kind in (NodeKind.CHARACTER, NodeKind.BLOCK):
        node.device = is_device
    return node


def node_from_stat(name: bytes, st: os.stat_result) -> Node:
    """The same from a stat."""
    return node_from_entry(entry_from_stat(name, st))


def file_type(kind: int) -> int:
    """The ``S_IF…`` bits of a NodeKind."""
    return _TYPES[kind]
