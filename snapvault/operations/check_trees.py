"""Every snapshot's trees, and whether every chunk that they name can be had; lost paths are named."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath

from blake3 import blake3

from snapvault.access.resolve import list_snapshots
from snapvault.access.snapshot import Snapshot
from snapvault.format.tree import ID_SIZE, Content, Node, NodeKind, Tree
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Reporter
from snapvault.foundation.ids import BlobId, DomainId
from snapvault.operations.check_data import Bad
from snapvault.operations.check_objects import ObjectCheck
from snapvault.operations.results import Finding, LostPath, lost_words, text_path
from snapvault.operations.visit import visit
from snapvault.repository.index import BlobIndex
from snapvault.repository.reader import BlobReader
from snapvault.repository.repository import Vault


def _key(content: Content) -> BlobId:
    """One id for a folder, however many pieces it has."""
    return BlobId(content.ids if len(content.ids) == ID_SIZE else blake3(content.ids).digest())


@dataclass(slots=True)
class _Open:
    """A folder whose folders are being looked at."""

    key: BlobId
    below: list[Content]
    sound: bool


@dataclass(slots=True)
class _Damaged:
    """Reads folders, but those in which all is whole as if they were empty: nothing in them has to be told."""

    reader: BlobReader
    sound: dict[BlobId, bool]

    def trees(self, content: Content) -> Iterator[Tree]:
        """The pieces of a folder."""
        return iter(()) if content.ids and self.sound.get(_key(content)) else self.reader.trees(content)


class TreeCheck:
    """Walks all snapshots; a folder that many of them share is walked once."""

    def __init__(self, vault: Vault, objects: ObjectCheck, bad: Bad, reporter: Reporter) -> None:
        self._objects, self._bad, self._reporter = objects, bad, reporter
        self._index = objects.index
        self._readers: dict[DomainId, BlobReader] = {}
        self._sound: dict[DomainId, dict[BlobId, bool]] = defaultdict(dict)  # folders: whether all below is there
        # Where this holds, one place of a blob is as good as any other.
        self._plain = not bad and not objects.misfits and len({row.domain for row in self._index.packs()}) == 1
        self._measured: dict[tuple[BlobId, int], int] = {}  # bytes below a list, at its depth
        self._walked = 0
        self.findings: list[Finding] = []
        self.snapshots: list[Snapshot] = []
        self._vault = vault

    def run(self) -> list[LostPath]:
        """The paths that are lost, snapshot by snapshot."""

        def report(problem: Damaged) -> None:
            known = {f.message for f in (*self._objects.findings, *self.findings)}
            if problem.message not in known:
                self.findings.append(Finding(problem.message, problem.affected))

        began = self._objects.began.snapshots
        self.snapshots = [s for s in list_snapshots(self._vault, on_problem=report) if s.id in began]
        lost: list[LostPath] = []
        for snapshot in self.snapshots:
            found = self.lost_of(snapshot)
            if found:
                lost += found
                noted = all(path.noted for path in found)
                message = f"snapshot {snapshot.id} ({snapshot.dataset}) lost {lost_words(found)}"
                message += ", as its note says" if noted else ""
                self.findings.append(Finding(message, (), (snapshot.id,), harmless=noted))
        return lost

    def lost_of(self, snapshot: Snapshot) -> list[LostPath]:
        """The paths that are lost in one snapshot."""
        reader = self._reader(snapshot.domain)
        if self._is_sound(snapshot.details.root, reader, snapshot.domain):
            return []
        return self._lost(snapshot, reader)

    def _reader(self, domain: DomainId) -> BlobReader:
        if domain not in self._readers:
            vault = self._vault
            self._readers[domain] = BlobReader(vault.backend, vault.ring, vault.sessions, self._index.of(domain))
        return self._readers[domain]

    def _available(self, blob: BlobId, index: BlobIndex) -> bool:
        """Whether some place of a blob is there (in a pack cut short, too), and was not found damaged."""
        if self._plain:
            return blob in self._index
        present, bad = self._objects.present, self._bad
        places = (p for p in index.places(blob) if p.start + p.sealed <= present.get(p.pack.id, 0))
        return any(not bad.has(blob, p) for p in places)

    def _is_sound(self, root: Content, reader: BlobReader, domain: DomainId) -> bool:
        """Whether nothing below this folder is lost; of each folder below it is remembered, so it is read once."""
        if not root.ids:
            return True
        known = self._sound[domain]
        open_ = [] if _key(root) in known else [_Open(_key(root), *self._look(root, reader))]
        while open_:
            folder = open_[-1]
            if folder.below:
                child = folder.below.pop()
                verdict = known.get(_key(child)) if child.ids else True
                if verdict is None:
                    open_.append(_Open(_key(child), *self._look(child, reader)))
                else:
                    folder.sound &= verdict
                continue
            known[folder.key] = folder.sound
            open_.pop()
            if open_:
                open_[-1].sound &= folder.sound
        return known[_key(root)]

    def _look(self, content: Content, reader: BlobReader) -> tuple[list[Content], bool]:
        """The folders in a folder, and whether the rest of it is whole."""
        below: list[Content] = []
        self._walked += 1
        self._reporter.tick("trees", self._walked)
        try:
            for tree in reader.trees(content):
                below += [n.content for n in tree.nodes if n.kind == NodeKind.DIRECTORY]
                files = [n for n in tree.nodes if n.kind != NodeKind.DIRECTORY and n.content.ids]
                if not self._all_there(files) and any(self._file_problem(n, reader) for n in files):
                    return below, False
        except Damaged:
            return below, False
        return below, True

    def _all_there(self, files: Sequence[Node]) -> bool:
        """Whether these files are whole, as a quick look at all of them together tells; False: look at each."""
        if not self._plain or any(n.content.depth for n in files):
            return False
        lengths = self._index.only_lengths(b"".join(n.content.ids for n in files))
        if lengths is None:
            return False
        rest = iter(lengths)
        return all(sum(islice(rest, len(n.content.ids) // ID_SIZE)) == n.stored for n in files)

    def _file_problem(self, node: Node, reader: BlobReader) -> str:
        """What is wrong with a file's content, or ""."""
        try:
            length = self._measure(node.content, reader)
        except Damaged as e:
            return e.message
        return "" if length == node.stored else f"its parts have {length} bytes instead of {node.stored}"

    def _measure(self, content: Content, reader: BlobReader) -> int:
        """Bytes of a content whose every chunk can be had; Damaged.

        Each list is measured once, so that lists which name one another a thousand times over cost nothing.
        """
        total = 0
        for i in range(0, len(content.ids), ID_SIZE):
            blob = BlobId(content.ids[i : i + ID_SIZE])
            if not content.depth:
                if not self._available(blob, reader.index):
                    raise Damaged(f"chunk {blob.hex()[:16]} is missing or damaged")
                total += reader.length(blob) or 0
                continue
            key = blob, content.depth
            if key not in self._measured:
                below = Content(content.depth - 1, reader.id_list(blob))
                self._measured[key] = self._measure(below, reader)
            total += self._measured[key]
        return total

    def _lost(self, snapshot: Snapshot, reader: BlobReader) -> list[LostPath]:
        """Name everything that is lost in a snapshot that is not sound."""
        lost: list[LostPath] = []
        noted = frozenset(snapshot.lost)

        def lose(path: bytes, error: Damaged) -> None:
            note(path, f"entries of this folder are lost: {error.message}", folder=True)

        def note(path: bytes, message: str, *, folder: bool = False) -> None:
            shown = "/" + text_path(path)
            known = shown in noted or any(str(above) in noted for above in PurePosixPath(shown).parents)
            lost.append(LostPath(snapshot.id, shown, message, known, folder))

        top = Node(b"", NodeKind.DIRECTORY, 0o755, 0, 0, 0, content=snapshot.details.root)
        for at in visit(_Damaged(reader, self._sound[snapshot.domain]), top, lose):
            self._reporter.check()
            if at.leaving or at.node.kind != NodeKind.FILE:
                continue
            problem = self._file_problem(at.node, reader)
            if problem:
                note(at.path, problem)
        return lost
