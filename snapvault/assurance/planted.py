"""Planted damage: what a drill does to itself, to prove that it would see it.

In the store: a backend that flips a bit of an object of this very drill, which is restored through it.  On the disk: a
bit of what was restored.  Neither the store nor anything outside of the scratch place is changed.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snapvault.access.snapshot import Entry, Snapshot
from snapvault.assurance.outcome import FAIL, NOT_RUN, PASSED, Outcome
from snapvault.assurance.restoring import Place
from snapvault.assurance.sampling import scatter
from snapvault.assurance.structure import reads_tree
from snapvault.backend.protocol import Backend, ObjectInfo
from snapvault.backend.wrapper import Wrapper
from snapvault.format import names
from snapvault.format.tree import ID_SIZE, BlobType, Content, Node, NodeKind
from snapvault.foundation.ahead import both
from snapvault.foundation.ids import BlobId
from snapvault.operations.selection import Selection
from snapvault.repository.index import Place as BlobPlace
from snapvault.repository.repository import Vault

NOTHING = "nothing"  # by which a damage was caught
KEPT = 4  # replies of a store, each of which has some MiB


@dataclass(frozen=True, slots=True)
class Damage:
    """A bit that is flipped on its way from the store."""

    object: str
    offset: int  # of the byte


class RememberingBackend(Wrapper):
    """Asks the store once for what is read and looked for again and again, as everything is that comes damaged."""

    def __init__(self, inner: Backend, objects: Container[str]) -> None:
        """``objects``: of which replies are kept; the last few."""
        super().__init__(inner)
        self._objects = objects
        self._replies: OrderedDict[tuple[str, int, int | None], bytes] = OrderedDict()
        self._listings: dict[str, list[ObjectInfo]] = {}
        self._lock = threading.Lock()

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes as they came before, if that was not long ago."""
        key = name, start, length
        with self._lock:
            reply = self._replies.get(key)
        if reply is None:
            reply = self.inner.get(name, start, length)
        if name in self._objects:
            with self._lock:
                self._replies[key] = reply
                self._replies.move_to_end(key)
                if len(self._replies) > KEPT:
                    self._replies.popitem(last=False)
        return reply

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """What there was at the first time."""
        with self._lock:
            if prefix not in self._listings:
                self._listings[prefix] = [*self.inner.list(prefix)]
        return iter(self._listings[prefix])


class DamagingBackend(Wrapper):
    """Gives some bytes back with a bit flipped."""

    def __init__(self, inner: Backend, damages: Sequence[Damage]) -> None:
        super().__init__(inner)
        self._damages = damages
        self.given = False  # whether a damaged byte was ever given back

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """The bytes, damaged where they are to be."""
        data = self.inner.get(name, start, length)
        for damage in self._damages:
            at = damage.offset - start
            if damage.object == name and 0 <= at < len(data):
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
                self.given = True
        return data


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What was planted, and what caught it."""

    outcome: Outcome
    path: str = ""  # whose data, or folder, was damaged
    damages: tuple[Damage, ...] = ()  # in the store: at all places of one blob
    caught_by: str = ""
    disk_offset: int | None = None  # on the disk, in the same file
    disk_caught_by: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **self.outcome.to_dict(), "path": self.path,
            "store": [{"object": d.object, "offset": d.offset} for d in self.damages], "caught_by": self.caught_by,
            "disk_offset": self.disk_offset, "disk_caught_by": self.disk_caught_by,
        }  # fmt: skip


class Planter:
    """Plants damage in one snapshot; where, the seed says."""

    def __init__(self, vault: Vault, snapshot: Snapshot, seed: str) -> None:
        self._vault, self._snapshot, self._seed = vault, snapshot, seed

    def in_tree(self) -> ControlResult:
        """Damage the top folder; walking must fail."""
        root = self._snapshot.details.root
        if not root.ids:
            return ControlResult(Outcome(NOT_RUN, "the snapshot is empty: there is nothing to damage"))
        reader = self._vault.reader(self._snapshot.domain)
        first = next(reader.leaves(root))[:ID_SIZE]
        backend, damages = self._damaged(reader.index.places(BlobId(first)))
        problem = reads_tree(self._vault.through(backend), self._snapshot)
        caught = "walk" if problem is not None else NOTHING
        return ControlResult(_outcome(caught == "walk", backend.given), "/", damages, caught)

    def in_file(self, accept: Callable[[bytes], bool], folder: Path) -> ControlResult:
        """Damage a piece of a file that is accepted; restoring that piece must fail, and else comparing it.

        Only the piece is restored, through the same restore: so this takes as long for a huge file as for a small one.
        """
        found = self._pick(accept)
        if found is None:
            return self.in_tree()
        path, piece, places = found
        backend, damages = self._damaged(places)
        offset = scatter(self._seed, b"disk") % piece.node.size
        caught, caught_on_disk = both(
            lambda: _caught(Place(self._vault.through(backend), self._snapshot, folder / "store", None), piece),
            lambda: _caught_on_disk(self._vault, self._snapshot, folder / "disk", piece, offset),
        )
        outcome = _outcome(NOTHING not in (caught, caught_on_disk), backend.given)
        return ControlResult(outcome, path, damages, caught, offset, caught_on_disk)

    def _damaged(self, places: Sequence[BlobPlace]) -> tuple[DamagingBackend, tuple[Damage, ...]]:
        damages = tuple(
            Damage(names.pack(p.pack.id), p.start + scatter(self._seed, b"store") % p.sealed) for p in places
        )
        return DamagingBackend(RememberingBackend(self._vault.backend, {d.object for d in damages}), damages), damages

    def _pick(self, accept: Callable[[bytes], bool]) -> tuple[str, Entry, list[BlobPlace]] | None:
        """A file that is accepted and not empty: its path, a piece of it as if it were a file, and where that lies."""
        todo = [self._snapshot.entry("/")]
        while todo:
            entry = todo.pop()
            if entry.node.kind == NodeKind.DIRECTORY:
                below = list(self._snapshot.ls(entry.path))
                todo += sorted(below, key=lambda e: scatter(self._seed, path_bytes(e)))
            elif entry.node.kind == NodeKind.FILE and entry.node.content.ids and accept(path_bytes(entry)):
                return entry.path, *self._piece(entry)
        return None

    def _piece(self, entry: Entry) -> tuple[Entry, list[BlobPlace]]:
        reader = self._snapshot.reader()
        ids = next(reader.leaves(entry.node.content))
        at = scatter(self._seed, b"piece") % (len(ids) // ID_SIZE) * ID_SIZE
        blob = BlobId(ids[at : at + ID_SIZE])
        size = len(reader.blob(blob, BlobType.DATA))
        node = Node(entry.node.name, NodeKind.FILE, 0o600, os.geteuid(), os.getegid(), 0, size=size)
        node.content = Content(0, blob)
        return replace(entry, node=node), reader.index.places(blob)


def path_bytes(entry: Entry) -> bytes:
    """The path as a restore visits it."""
    return os.fsencode(entry.path).lstrip(b"/")


def _caught(place: Place, piece: Entry) -> str:
    """What sees that something is wrong."""
    restored = place.restore(piece, Selection())
    if restored.lost:
        return "restore"
    return "compare" if place.compare(piece, Selection(), restored.tally) else NOTHING


def _caught_on_disk(vault: Vault, snapshot: Snapshot, folder: Path, piece: Entry, offset: int) -> str:
    """The same where the store is as it is, and a bit is flipped on the disk after the restore."""
    place = Place(vault, snapshot, folder, None)
    restored = place.restore(piece, Selection())
    path = folder / piece.name
    with path.open("r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 1]))
    os.utime(path, ns=(piece.mtime_ns, piece.mtime_ns))  # the content must tell, not the time
    return "compare" if place.compare(piece, Selection(), restored.tally) else NOTHING


def _outcome(caught: bool, given: bool) -> Outcome:
    if not given:
        return Outcome(FAIL, "the planted damage was never read, so the drill proves nothing")
    return PASSED if caught else Outcome(FAIL, "the planted damage was not caught, so the drill proves nothing")
