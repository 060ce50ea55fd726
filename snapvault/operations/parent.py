"""The parent of a backup: what was there last time, so that unchanged files need not be read.

Holders of a read key read the parent's trees from the repository, with no state of their own.  A write-only client
cannot; it keeps the trees of its last backup in its cache, and without them it reads the files (and stores nothing
twice, since deduplication needs only ids).
"""

import logging
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, islice
from operator import lt

import zstandard
from blake3 import blake3

from snapvault.access.resolve import resolve
from snapvault.crypto.kdf import derive
from snapvault.format.snapshot import COMMIT, SnapshotDetails
from snapvault.format.tree import (
    EMPTY,
    ID_SIZE,
    ROW,
    BlobType,
    Content,
    Node,
    NodeKind,
    Row,
    decode_content,
    decode_nodes,
    decode_rows,
    each_id,
)
from snapvault.format.wire import FormatError, pack, unpack
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.foundation.ids import BlobId, SnapshotId
from snapvault.foundation.words import count
from snapvault.operations.run import Run, user_name
from snapvault.repository.index import BlobIndex
from snapvault.repository.reader import BlobReader
from snapvault.repository.repository import Vault
from snapvault.repository.segments import segment_cache
from snapvault.source.protocol import Known

log = logging.getLogger("snapvault")

KEPT_MAX = 512 << 20  # bytes of trees that a write-only client keeps of one backup


@dataclass(slots=True)
class Before:
    """A folder as it was: its entries by name, decoded when they are asked for."""

    rows: dict[bytes, Row] = field(default_factory=dict)
    users: dict[int, str] = field(default_factory=dict)
    groups: dict[int, str] = field(default_factory=dict)
    sound: bool = True  # whether its pieces are what a reader takes: none is empty, and all names ascend

    def get(self, name: bytes) -> Node | None:
        """One entry; None also if it is malformed."""
        row = self.rows.get(name)
        try:
            return None if row is None else decode_nodes([row])[0]
        except FormatError:
            return None

    def content(self, name: bytes) -> Content | None:
        """The content of an entry that is there; None if it is malformed."""
        try:
            return decode_content(self.rows[name])
        except FormatError:
            return None

    def plain(self) -> Known:
        """Files and folders that have nothing but what stands in every row: also not racy, and not a mixture.

        And a change time, without which nobody knows what became of their attributes.
        """
        return {n: tuple(row[: ROW - 1]) for n, row in self.rows.items() if len(row) == ROW and row[6]}

    def holds_numbers(self) -> bool:
        """Whether what should be whole numbers is: 1.0 and True are equal to 1, and no reader takes them."""
        return all(set(map(type, column)) <= {int} for column in islice(zip(*self.rows.values(), strict=False), 1, 9))


NOTHING = Before()


def _names_alike(folder: Before, rows: list[Row], users: dict[int, str], groups: dict[int, str]) -> bool:
    """Whether a piece of a folder names its owners as the others do."""
    try:
        return all(
            names == {n: merged[n] for n in {row[place] for row in rows} if n in merged}
            for place, names, merged in ((3, users, folder.users), (4, groups, folder.groups))
        )
    except TypeError:  # an owner that is no number
        return False


class Parent:
    """Looks folders up in the last snapshot; whatever cannot be read counts as not there."""

    def __init__(
        self, snapshot: SnapshotId | None, root: Content, trees: "TreeReader | None", index: BlobIndex, user: str = ""
    ) -> None:
        """``user``: whose run it was.  Another one may see more attributes."""
        self.snapshot, self.content, self._trees, self._index, self.user = snapshot, root, trees, index, user
        self._unreadable = 0  # folders
        self._reason = ""

    def root(self) -> Before:
        return self.entries(self.content)

    def entries(self, content: Content) -> Before:
        """A folder as it was."""
        if self._trees is None or not content.ids:
            return NOTHING
        try:
            ids = self._trees.expand(content)
            found, last, pieces = Before(), b"", []
            for i in range(0, len(ids), ID_SIZE):
                rows, users, groups = decode_rows(self._trees.blob(BlobId(ids[i : i + ID_SIZE]), BlobType.TREE))
                names = [row[0] for row in rows]
                found.sound &= bool(names) and last < names[0] and all(map(lt, names, names[1:]))
                last = names[-1] if names else last
                found.rows.update(zip(names, rows, strict=True))
                found.users.update(users)
                found.groups.update(groups)
                pieces.append((rows, users, groups))
            if len(pieces) > 1:
                found.sound &= all(_names_alike(found, *piece) for piece in pieces)
            return found
        except Damaged as e:
            self._unreadable += 1
            self._reason = self._reason or e.message
            log.debug("a folder of the parent snapshot cannot be read, so its files are read again: %s", e.message)
            return NOTHING

    @property
    def warnings(self) -> tuple[str, ...]:
        """What somebody should know of it: one line, since one damaged pack may have held hundreds of folders."""
        if not self._unreadable:
            return ()
        folders = count(self._unreadable, "folder")
        return (f"{folders} of the parent snapshot cannot be read, so the files there are read again: {self._reason}",)

    def reusable(self, old: Node | None, new: Node) -> bool:
        """Whether ``new`` is the unchanged file ``old``, with every chunk in a pack that counts."""
        return (
            old is not None
            and old.kind == NodeKind.FILE
            and old.size == new.size
            and old.mtime_ns == new.mtime_ns
            and old.ctime_ns == new.ctime_ns
            and old.inode == new.inode
            and not old.racy
            and not old.changed
            and (new.ctime_ns != 0 or new.inode != 0)
            and self._complete(old.content)
        )

    def unmodified(self, before: Before, same: Iterable[bytes]) -> dict[bytes, Content]:
        """Files that are described as they were, with all of their chunks in packs that count."""
        files = (name for name in same if before.rows[name][1] == NodeKind.FILE)
        contents = {name: content for name in files if (content := before.content(name)) is not None}
        flat = b"".join(c.ids for c in contents.values() if not c.depth)
        if self._index.has_all(flat):
            return {name: c for name, c in contents.items() if not c.depth or self._complete(c)}
        return {name: c for name, c in contents.items() if self._complete(c)}

    def folder_is_stored(self, content: Content) -> bool:
        """Whether a folder need not be stored again.  Not so for a client that keeps trees: it has to see them all."""
        return not isinstance(self._trees, KeptTrees) and self._complete(content)

    def _complete(self, content: Content) -> bool:
        if not self._index.has_all(content.ids):
            return False
        if not content.depth:
            return True
        try:
            assert self._trees is not None
            level = content
            while level.depth:
                below = b"".join(self._trees.blob(b, BlobType.LIST) for b in each_id(level.ids))
                if not self._index.has_all(below):
                    return False
                level = Content(level.depth - 1, below)
            return True
        except Damaged:
            return False


class KeptTrees:
    """Tree and list blobs from the cache of a write-only client; each is verified by its id."""

    def __init__(self, blobs: dict[BlobId, bytes], id_keys: tuple[bytes, ...]) -> None:
        self._blobs, self._id_keys = blobs, id_keys

    def blob(self, blob: BlobId, blob_type: int) -> bytes:
        """Damaged if it was not kept or is not what its id says."""
        data = self._blobs.get(blob)
        if data is None or blake3(data, key=self._id_keys[blob_type]).digest() != blob:
            raise Damaged(f"tree {blob.hex()[:16]} is not in the cache")
        return data

    def expand(self, content: Content) -> bytes:
        depth, ids = content
        while depth:
            ids, depth = b"".join(self.blob(b, BlobType.LIST) for b in each_id(ids)), depth - 1
        return ids


TreeReader = BlobReader | KeptTrees


class KeepingTrees:
    """Wraps a run's blobs: remembers the trees that it stores, for a client that cannot read them back."""

    def __init__(self, run: Run) -> None:
        self._put = run.blobs.put
        self.kept: dict[BlobId, bytes] = {}
        self._size = 0

    def put(self, blob_type: int, data: bytes | memoryview) -> BlobId:
        blob = self._put(blob_type, data)
        if blob_type != BlobType.DATA and self._size <= KEPT_MAX and blob not in self.kept:
            self.kept[blob] = bytes(data)
            self._size += len(data)
        return blob


def _place(vault: Vault, dataset: str, host: str, paths: tuple[bytes, ...]) -> tuple[str, bytes]:
    label = blake3(pack([dataset, host, paths])).hexdigest()[:32]
    return f"parents/3-{label}", derive(vault.ring.signing.seeds, "parents", vault.ring.config_digest)


def keep_trees(
    vault: Vault, details: tuple[str, str, tuple[bytes, ...]], sid: str, root: Content, kept: dict[BlobId, bytes]
) -> None:
    """Cache the trees of a snapshot that was just committed."""
    name, key = _place(vault, *details)
    # Three columns, not a map: a record may hold only so many values, and a backup any number of folders.
    columns = [b"".join(kept), array("I", map(len, kept.values())).tobytes(), b"".join(kept.values())]
    body = zstandard.ZstdCompressor(level=1).compress(pack([sid, user_name(), [root.depth, root.ids], *columns]))
    vault.cache.put_sealed(name, key, [body])


def find_parent(run: Run, dataset: str, host: str, paths: tuple[bytes, ...] | None, wanted: str | None) -> Parent:
    """The newest snapshot of the same dataset, host, roots and domain, or the one that ``wanted`` names.

    ``paths`` is None while the roots are not known: then they do not count.  InvalidInput if ``wanted`` is unknown,
    ambiguous or of another domain.
    """
    vault = run.vault
    if not vault.ring.can_read:
        return _kept_parent(run, dataset, host, paths or (), wanted)
    best: tuple[int, SnapshotId, SnapshotDetails] | None = None
    chosen = None if wanted is None else resolve(vault, wanted).id
    for slot in run.slots:
        record = slot.record
        if record.kind != COMMIT or chosen not in (None, record.sid):
            continue
        try:
            if vault.sessions.secrets(record.sid, holder=slot.holder).domain != run.domain.id:
                continue
            details = vault.history.details(slot)
        except Damaged:
            continue
        same = details.dataset == dataset and details.host == host and paths in (None, details.paths)
        if (same or chosen is not None) and (best is None or (details.time, record.sid) > best[:2]):
            best = details.time, record.sid, details
    if best is None:
        if chosen is not None:
            raise InvalidInput(
                f"the snapshot {chosen[:8]} cannot be the parent: it was stored by another key",
                hint="name one that this key stored, or leave the parent out",
            )
        return Parent(None, EMPTY, None, run.index)
    kept = segment_cache(vault.cache, vault.ring, vault.backend)
    reader = BlobReader(vault.backend, vault.ring, vault.sessions, run.index, cache=kept)
    return Parent(best[1], best[2].root, reader, run.index, best[2].user)


def _kept_parent(run: Run, dataset: str, host: str, paths: tuple[bytes, ...], wanted: str | None) -> Parent:
    kept = _kept(run, dataset, host, paths)
    if wanted is not None and not (kept.snapshot or "").startswith(wanted.lower()):
        run.counts.warnings.append(
            f"{wanted} is not the parent: a key that opens nothing compares with its own last backup only"
        )
    return kept


def _kept(run: Run, dataset: str, host: str, paths: tuple[bytes, ...]) -> Parent:
    name, key = _place(run.vault, dataset, host, paths)
    body = run.vault.cache.get_sealed(name, key)
    if body is None:
        return Parent(None, EMPTY, None, run.index)
    sid, user, (depth, ids), names, sizes, data = unpack(
        zstandard.ZstdDecompressor().decompress(body), limit=4 * KEPT_MAX
    )
    if sid not in {s.record.sid for s in run.slots}:
        return Parent(None, EMPTY, None, run.index)
    lengths = array("I")
    lengths.frombytes(sizes)
    ends = accumulate(lengths)
    blobs = {b: data[end - n : end] for b, n, end in zip(each_id(names), lengths, ends, strict=True)}
    return Parent(sid, Content(depth, ids), KeptTrees(blobs, run.domain.id_keys), run.index, user)
