"""Trees: the entries of a folder, as they stand in blobs of type TREE; and chunk lists of type LIST.

A folder's and a file's ``content`` is the same thing: a list of blob ids with a depth.  At depth 0 the ids are the
pieces themselves (tree pieces of a folder, data chunks of a file); at depth n the ids are LIST blobs that hold the
ids of depth n - 1.  So neither a huge file nor a huge folder makes a record without bound.  See docs/format/tree.md.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import lt
from typing import Any, NamedTuple
from zlib import crc32

from snapvault.format.wire import FormatError, pack, unpack
from snapvault.foundation.ids import BlobId

TREE_VERSION = 1
ID_SIZE = 32
MAX_DEPTH = 8
MAX_OWNER, MAX_SIZE = (1 << 32) - 1, (1 << 63) - 1  # what a system call takes
INLINE_IDS = 256  # a content with more ids is cut into LIST blobs
LIST_MIN, LIST_MASK, LIST_MAX = 128, 0x1FF, 4096  # ids in a LIST blob: a cut where the id's low bits are zero
PIECE_MIN, PIECE_MASK, PIECE_MAX = 512, 0x7FF, 8192  # entries in a TREE piece
TREE_BYTES = 4 << 20  # a piece of several entries is never larger; one entry with all its attributes may be


class BlobType:
    """What a blob holds; part of its id (each type has its own id key)."""

    DATA = 0
    TREE = 1
    LIST = 2

    ALL = (DATA, TREE, LIST)


class NodeKind:
    """What a node is."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2
    CHARACTER = 3
    BLOCK = 4
    FIFO = 5
    SOCKET = 6


class Content(NamedTuple):
    """Blob ids, 32 bytes each, one after another, and how many levels of LIST blobs lie between."""

    depth: int = 0
    ids: bytes = b""


EMPTY = Content()

Row = list[Any]  # an entry as it stands in a TREE blob: the first ten values of a Node, and perhaps its extras
ROW = 10  # values without extras

# Keys of the extra map.
_TARGET, _DEVICE, _LINK, _XATTRS, _EXTENTS, _FLAGS = 1, 2, 3, 4, 5, 6
_RACY, _CHANGED, _INCOMPLETE = 1, 2, 4


@dataclass(slots=True)
class Node:
    """One entry of a folder.  Times are nanoseconds since the epoch and may be negative."""

    name: bytes  # as the file system gave it; never "", ".", "..", nor with "/" or NUL
    kind: int  # NodeKind
    mode: int  # permission bits, 0o7777
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int = 0
    inode: int = 0
    size: int = 0  # files: length in bytes, holes included
    content: Content = EMPTY  # files and folders
    target: bytes = b""  # symlinks
    device: int = 0  # character and block devices: rdev
    link: tuple[int, int] | None = None  # files with several names: (st_dev, st_ino), the same for each name
    xattrs: dict[bytes, bytes] | None = None  # POSIX ACLs are among them
    extents: tuple[tuple[int, int], ...] | None = None  # sparse files: (offset, length) of the data; None: no holes
    racy: bool = False  # changed in the same tick as it was read: never reused as unchanged
    changed: bool = False  # changed while it was read, twice: the stored bytes may be a mixture
    incomplete: bool = False  # not all of its attributes could be read

    @property
    def stored(self) -> int:
        """Bytes of a file's content: its length without the holes."""
        return self.size if self.extents is None else sum(length for _, length in self.extents)


@dataclass(slots=True)
class Tree:
    """A piece of a folder: nodes in strictly ascending order of their names, and the names of their owners."""

    nodes: list[Node]
    users: dict[int, str] = field(default_factory=dict)
    groups: dict[int, str] = field(default_factory=dict)


def encode_tree(nodes: Sequence[Node], users: dict[int, str], groups: dict[int, str]) -> bytes:
    """One TREE blob.  ``users`` and ``groups`` may name more ids than these nodes use; only used ones are stored."""
    rows = [_row(n) for n in nodes]
    uids = {n.uid for n in nodes}
    gids = {n.gid for n in nodes}
    return pack(
        [
            TREE_VERSION,
            {u: users[u] for u in sorted(uids) if u in users},
            {g: groups[g] for g in sorted(gids) if g in groups},
            rows,
        ]
    )


def encode_trees(nodes: Sequence[Node], users: dict[int, str], groups: dict[int, str]) -> Iterator[bytes]:
    """TREE blobs of these nodes, in order: one, or several where one would be too large."""
    tree = encode_tree(nodes, users, groups)
    if len(tree) <= TREE_BYTES or len(nodes) == 1:
        yield tree
        return
    half = len(nodes) // 2
    yield from encode_trees(nodes[:half], users, groups)
    yield from encode_trees(nodes[half:], users, groups)


def _row(n: Node) -> list[Any]:
    depth, ids = n.content
    row: list[Any] = [
        n.name, n.kind, n.mode, n.uid, n.gid, n.mtime_ns, n.ctime_ns, n.inode, n.size, [depth, ids] if depth else ids
    ]  # fmt: skip
    extra: dict[int, Any] = {}
    if n.target:
        extra[_TARGET] = n.target
    if n.device:
        extra[_DEVICE] = n.device
    if n.link is not None:
        extra[_LINK] = n.link
    if n.xattrs:
        extra[_XATTRS] = dict(sorted(n.xattrs.items()))
    if n.extents is not None:
        extra[_EXTENTS] = b"".join(struct.pack("<QQ", *e) for e in n.extents)
    if n.racy or n.changed or n.incomplete:
        extra[_FLAGS] = n.racy * _RACY | n.changed * _CHANGED | n.incomplete * _INCOMPLETE
    if extra:
        row.append(extra)
    return row


def decode_tree(data: bytes | memoryview) -> Tree:
    """The nodes of a TREE blob.  Hostile names, disorder and impossible values raise FormatError."""
    rows, users, groups = decode_rows(data)
    return Tree(decode_nodes(rows) if rows else [], users, groups)


def decode_rows(data: bytes | memoryview) -> tuple[list[Row], dict[int, str], dict[int, str]]:
    """The entries of a TREE blob as they stand there, with any values, and the names of their owners; FormatError."""
    try:
        version, users, groups, rows = unpack(data)
        if version != TREE_VERSION:
            raise FormatError(f"a tree has version {version!r}; this snapvault reads version {TREE_VERSION}")
        if type(rows) is not list:
            raise FormatError("a tree's entries are no list")
        if not all(type(row) is list and ROW <= len(row) <= ROW + 1 and type(row[0]) is bytes for row in rows):
            raise FormatError("a tree holds an entry of another shape, or a name that no file can have")
        if not all(type(k) is int and type(v) is str for d in (users, groups) for k, v in d.items()):
            raise FormatError("a tree's table of owners is malformed")
    except (TypeError, ValueError, AttributeError) as e:
        raise FormatError("a tree is malformed") from e
    return rows, users, groups


def decode_nodes(rows: Sequence[Row]) -> list[Node]:
    """The nodes that these rows describe, at least one; FormatError."""
    try:
        return _nodes(rows)
    except (TypeError, ValueError, AttributeError, struct.error) as e:
        raise FormatError("a tree is malformed") from e


def _nodes(rows: Sequence[Row]) -> list[Node]:
    """Nodes of rows that are not trusted.  Checked by columns: there are many, and few calls are made for each."""
    columns = tuple(zip(*rows, strict=False))  # as long as the shortest row: extras are looked at below
    _check_names(columns[0])
    for column, (least, most) in zip(columns[1:9], _RANGES, strict=True):
        if not set(map(type, column)) <= {int}:
            raise FormatError("a tree holds a number that is none")
        if (least is not None and min(column) < least) or (most is not None and max(column) > most):
            raise FormatError("a tree holds a value out of range")
    nodes = list(map(Node, *columns[:9], map(_content, columns[9])))
    for node, row in zip(nodes, rows, strict=True):
        if len(row) > ROW:
            _extras(node, row[ROW])
        if node.kind > NodeKind.DIRECTORY and node.content[1]:
            raise FormatError("a tree gives content to an entry that has none")
    return nodes


# What the numbers of a row may be: kind, mode, uid, gid, mtime, ctime, inode, size.
_RANGES = (
    (0, NodeKind.SOCKET), (0, 0o7777), (0, MAX_OWNER), (0, MAX_OWNER), (None, None), (None, None), (None, None),
    (0, MAX_SIZE),
)  # fmt: skip


def _check_names(names: tuple[bytes, ...]) -> None:
    """Names that a file can have, in strictly ascending order."""
    together = b"".join(names)
    if b"/" in together or b"\0" in together or b"" in names or b"." in names or b".." in names:
        raise FormatError("a tree holds a name that no file can have")
    if not all(map(lt, names, names[1:])):
        raise FormatError("a tree's entries are not in order")


def decode_content(row: Row) -> Content:
    """The content of an entry; FormatError."""
    try:
        return _content(row[ROW - 1])
    except (TypeError, ValueError) as e:
        raise FormatError("a list of blob ids is malformed") from e


def _content(value: Any) -> Content:
    if type(value) is bytes and not len(value) % ID_SIZE:
        return Content(0, value)
    depth, ids = value
    if type(depth) is not int or not 0 <= depth <= MAX_DEPTH or type(ids) is not bytes or len(ids) % ID_SIZE:
        raise FormatError("a list of blob ids is malformed")
    return Content(depth, ids)


def _extras(node: Node, extra: dict[int, Any]) -> None:
    target, device = extra.get(_TARGET, b""), extra.get(_DEVICE, 0)
    xattrs, flags, link, extents = extra.get(_XATTRS), extra.get(_FLAGS, 0), extra.get(_LINK), extra.get(_EXTENTS)
    if type(target) is not bytes or b"\0" in target or type(device) is not int or device < 0 or type(flags) is not int:
        raise FormatError("a tree holds a malformed attribute")
    node.target, node.device = target, device
    node.racy, node.changed, node.incomplete = (bool(flags & bit) for bit in (_RACY, _CHANGED, _INCOMPLETE))
    if xattrs is not None:
        if not all(type(k) is bytes and type(v) is bytes and k and b"\0" not in k for k, v in xattrs.items()):
            raise FormatError("a tree holds a malformed extended attribute")
        node.xattrs = xattrs
    if link is not None:
        device_number, inode = link
        if type(device_number) is not int or type(inode) is not int:
            raise FormatError("a tree holds a malformed link")
        node.link = (device_number, inode)
    if extents is not None:
        node.extents = tuple(struct.iter_unpack("<QQ", extents))
        end = 0
        for offset, length in node.extents:
            if offset < end or not length or offset + length > node.size:
                raise FormatError("a tree holds a malformed sparse map")
            end = offset + length


def each_id(ids: bytes) -> list[BlobId]:
    """Concatenated ids, one by one."""
    return [BlobId(ids[i : i + ID_SIZE]) for i in range(0, len(ids), ID_SIZE)]


def split_ids(ids: bytes) -> Iterator[bytes]:
    """A long list of ids, cut where the ids themselves say so: an insertion moves only the cuts beside it."""
    start, count = 0, 0
    for end in range(ID_SIZE, len(ids) + 1, ID_SIZE):
        count += 1
        if count >= LIST_MAX or (count >= LIST_MIN and not int.from_bytes(ids[end - 2 : end], "little") & LIST_MASK):
            yield ids[start:end]
            start, count = end, 0
    if start < len(ids):
        yield ids[start:]


def split_nodes(nodes: Sequence[Node]) -> Iterator[Sequence[Node]]:
    """The entries of a huge folder, cut where the CRC-32 of a name has its low bits zero (trees are sealed)."""
    start = 0
    for i, node in enumerate(nodes, 1):
        count = i - start
        if count >= PIECE_MAX or (count >= PIECE_MIN and not crc32(node.name) & PIECE_MASK):
            yield nodes[start:i]
            start = i
    if start < len(nodes):
        yield nodes[start:]
