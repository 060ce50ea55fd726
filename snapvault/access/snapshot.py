"""A snapshot, and the entries in it."""

import copy
import io
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from snapvault.format.local import NoteDetails
from snapvault.format.snapshot import SnapshotDetails
from snapvault.format.tree import ID_SIZE, BlobType, Node, NodeKind
from snapvault.foundation.clock import time_of
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.foundation.ids import BlobId, DomainId, SnapshotId
from snapvault.repository.history import Slot
from snapvault.repository.reader import BlobReader
from snapvault.repository.repository import Vault

KIND_NAMES = {
    NodeKind.FILE: "file",
    NodeKind.DIRECTORY: "folder",
    NodeKind.SYMLINK: "symlink",
    NodeKind.CHARACTER: "character device",
    NodeKind.BLOCK: "block device",
    NodeKind.FIFO: "fifo",
    NodeKind.SOCKET: "socket",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a folder in a snapshot."""

    path: str  # absolute in the snapshot; bytes that are no UTF-8 as surrogate escapes
    node: Node = field(repr=False, hash=False)
    user: str = ""
    group: str = ""

    @property
    def name(self) -> str:
        return os.fsdecode(self.node.name)

    @property
    def kind(self) -> str:
        """``file``, ``folder``, ``symlink``, ``fifo``, ..."""
        return KIND_NAMES[self.node.kind]

    @property
    def size(self) -> int:
        return self.node.size

    @property
    def mtime_ns(self) -> int:
        return self.node.mtime_ns

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        n = self.node
        return {
            "path": self.path, "kind": self.kind, "size": n.size, "mode": n.mode, "uid": n.uid, "gid": n.gid,
            "user": self.user, "group": self.group, "mtime_ns": n.mtime_ns, "target": os.fsdecode(n.target),
            "changed_while_read": n.changed,
        }  # fmt: skip


class Snapshot:
    """A committed snapshot.  Immutable."""

    def __init__(self, vault: Vault, slot: Slot, details: SnapshotDetails, note: NoteDetails) -> None:
        self._vault, self.slot, self.details = vault, slot, details
        self.id: SnapshotId = slot.record.sid
        self.dataset, self.host, self.partial = details.dataset, details.host, details.partial
        self.holder = vault.ring.name_of(slot.holder)  # whose key signed it; dataset and host are what that key said
        self.tags = details.tags if note.tags is None else note.tags
        self.held = bool(note.hold)  # it cannot be forgotten, by a rule or by name
        self.lost = tuple("/" + os.fsdecode(path) for path in note.lost)  # to damage, as a repair found
        self.time = time_of(details.time)
        self.time_ns = details.time
        self.paths = tuple(os.fsdecode(p) for p in details.paths)
        self._made = True

    def __setattr__(self, name: str, value: object) -> None:
        if "_made" in self.__dict__:
            raise AttributeError(f"a snapshot is immutable: its {name} cannot be set")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"<Snapshot {self.id[:8]} {self.dataset} {self.time.isoformat(timespec='seconds')}>"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        d = self.details
        return {
            "id": self.id, "dataset": self.dataset, "host": self.host, "user": d.user, "holder": self.holder,
            "holder_id": self.slot.holder.hex(), "time": self.time.isoformat(), "paths": list(self.paths),
            "tags": list(self.tags), "partial": self.partial, "held": self.held, "lost": list(self.lost),
            "counts": dict(d.counts),
        }  # fmt: skip

    def through(self, vault: Vault) -> "Snapshot":
        """The same snapshot, read through another view of its repository."""
        other = copy.copy(self)
        object.__setattr__(other, "_vault", vault)
        return other

    @property
    def domain(self) -> DomainId:
        """Who deduplicated it with whom."""
        return self._vault.sessions.secrets(self.id, holder=self.slot.holder).domain

    def reader(self) -> BlobReader:
        """Reads the blobs of this snapshot.  Shared, with what it keeps, by all that read in the repository."""
        return self._vault.shared_reader(self.domain)

    def ls(self, path: str = "/", *, recursive: bool = False) -> Iterator[Entry]:
        """The entries of a folder (or the one file that ``path`` names), in order of their names.

        InvalidInput if there is no such path; Damaged if its tree cannot be read.
        """
        reader = self.reader()
        top = self._find(reader, os.fsencode(path))
        if top.node.kind != NodeKind.DIRECTORY:
            yield top
            return
        todo = [iter(self._entries(reader, top))]
        while todo:
            entry = next(todo[-1], None)
            if entry is None:
                todo.pop()
                continue
            yield entry
            if recursive and entry.node.kind == NodeKind.DIRECTORY:
                todo.append(iter(self._entries(reader, entry)))

    def walk(self, top: str = "/") -> Iterator[tuple[str, list[Entry], list[Entry]]]:
        """(path, folders, others) of every folder from ``top`` down, as ``os.walk`` does."""
        reader = self.reader()
        todo = [self._find(reader, os.fsencode(top))]
        while todo:
            folder = todo.pop()
            entries = list(self._entries(reader, folder))
            folders = [e for e in entries if e.node.kind == NodeKind.DIRECTORY]
            yield folder.path, folders, [e for e in entries if e.node.kind != NodeKind.DIRECTORY]
            todo += reversed(folders)

    def entry(self, path: str) -> Entry:
        """One entry by its path; InvalidInput if there is none."""
        return self._find(self.reader(), os.fsencode(path))

    def open(self, path: str) -> io.BufferedReader:
        """A seekable binary file; reads only the segments that it needs.  InvalidInput, Damaged."""
        reader = self.reader()
        entry = self._find(reader, os.fsencode(path))
        if entry.node.kind != NodeKind.FILE:
            raise InvalidInput(f"{path} is a {entry.kind}, not a file")
        return io.BufferedReader(StoredFile(reader, entry), 1 << 20)

    def _entries(self, reader: BlobReader, folder: Entry) -> Iterator[Entry]:
        prefix = folder.path.rstrip("/") + "/"
        try:
            for tree in reader.trees(folder.node.content):
                for node in tree.nodes:
                    user, group = tree.users.get(node.uid, ""), tree.groups.get(node.gid, "")
                    yield Entry(prefix + os.fsdecode(node.name), node, user, group)
        except Damaged as e:
            raise type(e)(f"{folder.path}: {e.message}", affected=[folder.path, *e.affected]) from e

    def _find(self, reader: BlobReader, path: bytes) -> Entry:
        root = Node(b"", NodeKind.DIRECTORY, 0o755, 0, 0, self.details.time, content=self.details.root)
        entry = Entry("/", root)
        for name in path.split(b"/"):
            if name in (b"", b"."):
                continue
            found = None
            if entry.node.kind == NodeKind.DIRECTORY:
                found = next((e for e in self._entries(reader, entry) if e.node.name == name), None)
            if found is None:
                raise InvalidInput(
                    f"snapshot {self.id[:8]} holds no {os.fsdecode(path)}",
                    hint=f"'snapvault ls {self.id[:8]}' shows what it holds",
                )
            entry = found
        return entry


class StoredFile(io.RawIOBase):
    """A file in a snapshot, read from where it is stored, holes as zeros."""

    def __init__(self, reader: BlobReader, entry: Entry) -> None:
        self._reader, self._entry = reader, entry
        self._at, self._ids = 0, b""
        try:
            self._ids, places = reader.pieces(entry.node.content, entry.node.stored)
            self._ends = list(accumulate(p.length for p in places))
        except Damaged as e:
            raise type(e)(f"{entry.path}: {e.message}", affected=[entry.path, *e.affected]) from e
        self._extents = entry.node.extents if entry.node.extents is not None else ((0, entry.node.size),)
        self._starts = [o for o, _ in self._extents]
        self._data_starts = list(accumulate((n for _, n in self._extents), initial=0))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._entry.node.size}[whence]
        if base + offset < 0:
            raise ValueError("a negative position")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Up to the end of one chunk or hole."""
        view = memoryview(buffer).cast("B")
        size = self._entry.node.size
        if self._at >= size or not len(view):
            return 0
        i = bisect_right(self._starts, self._at) - 1
        if i >= 0 and self._at < self._extents[i][0] + self._extents[i][1]:
            n = self._read_data(view, self._data_starts[i] + self._at - self._extents[i][0], i)
        else:
            end = self._extents[i + 1][0] if i + 1 < len(self._extents) else size
            n = min(len(view), end - self._at)
            view[:n] = bytes(n)
        self._at += n
        return n

    def _read_data(self, view: memoryview, position: int, extent: int) -> int:
        """``position`` counts stored bytes, holes left out."""
        k = bisect_right(self._ends, position)
        blob = BlobId(self._ids[k * ID_SIZE : (k + 1) * ID_SIZE])
        try:
            data = self._reader.blob(blob, BlobType.DATA)
        except Damaged as e:
            raise type(e)(f"{self._entry.path}: {e.message}", affected=[self._entry.path, *e.affected]) from e
        before = self._ends[k - 1] if k else 0
        if len(data) != self._ends[k] - before:
            raise Damaged(f"{self._entry.path}: a part of it has another length", affected=[self._entry.path])
        start = position - before
        n = min(len(view), len(data) - start, self._data_starts[extent + 1] - position)
        view[:n] = data[start : start + n]
        return n
