"""Every snapshot's trees, and whether every chunk that they name can be had; lost paths are named."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import PurePosixPath

from blake3 import blake3

from snapvault.access.resolve import list_snapshots
from snapvault.access.snapshot import Snapshot
from snapvault.format.tree import ID_SIZE, Content, Node, NodeKind
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Reporter
from snapvault.foundation.ids import BlobId, DomainId
from snapvault.foundation.words import count
from snapvault.operations.check_data import Bad
from snapvault.operations.check_objects import ObjectCheck
from snapvault.operations.results import Finding, LostPath, text_path
from snapvault.operations.visit import visit
from snapvault.repository.index import BlobIndex
from snapvault.repository.reader import BlobReader
from snapvault.repository.repository import Vault


class TreeCheck:
    """Walks all snapshots; a folder that many of them share is walked once."""

    def __init__(self, vault: Vault, objects: ObjectCheck, bad: Bad, reporter: Reporter) -> None:
        self._objects, self._bad, self._reporter = objects, bad, reporter
        self._index = objects.index
        self._readers: dict[DomainId, BlobReader] = {}
        self._sound: dict[DomainId, set[BlobId]] = defaultdict(set)  # trees below which nothing is wrong
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
                message = f"snapshot {snapshot.id} ({snapshot.dataset}) lost {count(len(found), 'path')}"
                message += ", as its note says" if noted else ""
                self.findings.append(Finding(message, (), (snapshot.id,), harmless=noted))
        return lost

    def lost_of(self, snapshot: Snapshot) -> list[LostPath]:
        """The paths that are lost in one snapshot."""
        reader = self._reader(snapshot.domain)
        if self._is_sound(snapshot.details.root, reader, self._sound[snapshot.domain]):
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

    def _is_sound(self, root: Content, reader: BlobReader, sound: set[BlobId]) -> bool:
        """Whether nothing below this folder is lost; quick where it was walked before."""
        seen: set[BlobId] = set()  # folders in this walk: one that stands in many places is looked at once
        todo = [root]
        while todo:
            content = todo.pop()
            if not content.ids:
                continue
            whole = BlobId(blake3(content.ids).digest()) if len(content.ids) > ID_SIZE else BlobId(content.ids)
            if whole in sound or whole in seen:
                continue
            seen.add(whole)
            try:
                for tree in reader.trees(content):
                    todo += [n.content for n in tree.nodes if n.kind == NodeKind.DIRECTORY]
                    files = [n for n in tree.nodes if n.kind != NodeKind.DIRECTORY and n.content.ids]
                    if not self._all_there(files) and any(self._file_problem(n, reader) for n in files):
                        return False
                    self._walked += 1
                    self._reporter.tick("trees", self._walked)
            except Damaged:
                return False
        sound.update(seen)
        return True

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
            note(path, f"entries of this folder are lost: {error.message}")

        def note(path: bytes, message: str) -> None:
            shown = "/" + text_path(path)
            known = shown in noted or any(str(folder) in noted for folder in PurePosixPath(shown).parents)
            lost.append(LostPath(snapshot.id, shown, message, known))

        top = Node(b"", NodeKind.DIRECTORY, 0o755, 0, 0, 0, content=snapshot.details.root)
        for at in visit(reader, top, lose):
            self._reporter.check()
            if at.leaving or at.node.kind != NodeKind.FILE:
                continue
            problem = self._file_problem(at.node, reader)
            if problem:
                note(at.path, problem)
        return lost
