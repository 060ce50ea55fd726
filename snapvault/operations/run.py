"""One writing run: session, index, pipeline; what backup and SnapshotWriter share."""

import os
import socket
from dataclasses import dataclass, field
from zlib import crc32

from blake3 import blake3

from snapvault.chunking import Chunker
from snapvault.format.keyset import Role
from snapvault.format.snapshot import SnapshotDetails
from snapvault.format.tree import (
    EMPTY,
    ID_SIZE,
    INLINE_IDS,
    BlobType,
    Content,
    Node,
    encode_trees,
    split_ids,
    split_nodes,
)
from snapvault.foundation.clock import now_ns
from snapvault.foundation.events import Control, Reporter, limits_of
from snapvault.foundation.ids import BlobId
from snapvault.operations.news import News
from snapvault.operations.results import Issue, text_path
from snapvault.platform.metadata import Owners
from snapvault.repository.history import Slot
from snapvault.repository.index import BlobIndex
from snapvault.repository.keyring import DomainKeys
from snapvault.repository.loader import IndexLoader
from snapvault.repository.repository import Vault
from snapvault.repository.session import Session
from snapvault.repository.verdicts import DAMAGED, read_verdicts
from snapvault.repository.writer import BlobWriter, Written
from snapvault.source.protocol import FileReader, ReadsInto, ReadsParts
from snapvault.version import PROGRAM

READ_SIZE = 1 << 20  # bytes asked of a source at once
PART_SIZE = 32 << 20  # of a large file, which several store at the same time


@dataclass(slots=True)
class Counts:
    """What a run saw."""

    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    folders: int = 0
    others: int = 0
    bytes_total: int = 0
    bytes_read: int = 0
    vanished: int = 0
    issues: list[Issue] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        return self.files_new + self.files_changed + self.files_unmodified

    def issue(self, path: bytes, message: str) -> None:
        self.issues.append(Issue(text_path(path), message))

    def stored(self) -> dict[str, int]:
        """The counts that a snapshot record keeps."""
        return {
            "files": self.files, "folders": self.folders, "others": self.others, "bytes": self.bytes_total,
            "issues": len(self.issues),
        }  # fmt: skip


class Run:
    """Opens a session by the rules W1 and W2, stores trees and files, commits.

    Leaving the context without a commit aborts: there is no snapshot, and what was uploaded is found by the next run.
    """

    def __init__(
        self,
        vault: Vault,
        operation: str,
        control: Control | None,
        *,
        dry_run: bool = False,
        domain: DomainKeys | None = None,
    ) -> None:
        if domain is None:  # else whoever asks has seen to it
            vault.ring.require_role(Role.WRITERS, "back up")
        if vault.rollback is not None:
            raise vault.rollback  # new data would be sealed to keys of an old keyset
        self.vault = vault = vault.limited(control)
        if dry_run:
            vault.standing().require_source("back up")
        self.dry_run = dry_run
        self.domain = domain or vault.ring.write_domain
        self.chunker: Chunker = self.domain.chunker(vault.ring.chunking)
        # What follows the last cut is scanned again with the next bytes, so it is to be a small part of the buffer.
        self._buffer = memoryview(bytearray(max(2 * READ_SIZE, 4 * vault.ring.chunking.maximum)))
        self.reporter = Reporter(operation, control)
        self.counts = Counts()
        self.started = now_ns()
        limits = limits_of(control)
        self.session = None if dry_run else Session(vault.store, vault.ring, self.domain)
        try:
            if self.session is not None:
                self.session.announce()
                vault.standing().require_source("back up")  # after W1: whoever makes this a copy looks for sessions
                vault.check_holder()  # after W1: a removal of this key revokes every session that it finds
            self.index, self.slots = self._load()
            self.blobs: BlobWriter | DryWriter
            self.news: News | None = None
            if self.session is None:
                self.blobs = DryWriter(self.index, self.domain.id_keys)
            else:
                if domain is None:  # who brings a snapshot back has all of it, and only looks for what is reliable
                    self.news = News(vault, self.domain.id, self.session.sid, self.index, self._warn)
                    self.news.look()
                self.blobs = BlobWriter(self.session, self.index, self.domain, limits=limits, news=self.news)
        except BaseException:
            if self.session is not None:
                self.session.abort()
            raise
        self.committed = False

    def _load(self) -> tuple[BlobIndex, list[Slot]]:
        """W2, in this order: what is condemned, then which packs there are, then the index.

        What a check found damaged is not relied upon either: it is there, but what it held is stored again.
        """
        # Its own: the loader that reads have in common is used by other threads at the same time.
        loader = IndexLoader(self.vault.store, self.vault.ring, self.vault.sessions)
        condemned = loader.condemned()
        self.counts.warnings += [str(p) for p in loader.problems]
        present = loader.packs_present()
        index = loader.load().of(self.domain.id)
        damaged = read_verdicts(self.vault.backend, self.vault.ring, DAMAGED).packs
        lost = index.restrict(present, condemned | damaged.keys())
        rotten = [row for row in lost if row.id in damaged]
        if rotten:
            self.counts.warnings.append(
                f"packs that a check found damaged: {len(rotten)}; what they held is stored again "
                "where the source still has it"
            )
        gone = [row for row in lost if row.id not in condemned and row.id not in damaged]
        if gone:
            self.counts.warnings.append(
                f"packs missing or cut short, though the index names them: {len(gone)}; what they held is stored again "
                "where the source still has it ('snapvault check' names the snapshots that this damages)"
            )
        self.counts.warnings += [str(p) for p in loader.problems]
        slots, problems = self.vault.commit_slots()
        self.counts.warnings += [str(p) for p in problems]
        return index, slots

    def _warn(self, message: str) -> None:
        if message not in self.counts.warnings:
            self.counts.warnings.append(message)

    @property
    def shared(self) -> bool:
        """Whether others store beside this run."""
        return self.news is not None and self.news.shared

    def place_in(self, path: bytes) -> int:
        """A number to sort by, so that sessions that store the same do it each in another order."""
        return crc32(path, crc32(self.session.sid.encode())) if self.session is not None else 0

    # -- storing -------------------------------------------------------------------------------------------------

    def store_file(self, reader: FileReader) -> tuple[bytes, int]:
        """Read a file to its end and store its chunks: their ids, and the bytes read."""
        node = reader.node
        if self.shared and isinstance(reader, ReadsParts) and node.extents is None and node.size > PART_SIZE:
            return self._store_parts(reader, node.size)
        return self._store_stream(reader)

    def _store_parts(self, reader: ReadsParts, size: int) -> tuple[bytes, int]:
        """The parts of a large file in an order of this run's own: most of them, others have stored by then."""
        ids, total = dict[int, bytes](), 0
        for start in sorted(range(0, size, PART_SIZE), key=lambda n: self.place_in(n.to_bytes(8))):
            reader.part(start, min(PART_SIZE, size - start))
            ids[start], got = self._store_stream(reader)
            total += got
        return b"".join([ids[start] for start in sorted(ids)]), total

    def _store_stream(self, reader: FileReader) -> tuple[bytes, int]:
        put, buffer, capacity = self.blobs.put, self._buffer, len(self._buffer)
        ids: list[bytes] = []
        total = have = 0
        while True:
            got = self._fill(reader, buffer[have:])
            have, total = have + got, total + got
            self.counts.bytes_read += got
            final, start = have < capacity, 0
            for end in self.chunker.cuts(buffer[:have], final=final):
                ids.append(put(BlobType.DATA, buffer[start:end]))
                start = end
            if final:
                return b"".join(ids), total
            buffer[: have - start] = buffer[start:have]
            have -= start
            self.reporter.tick("read", self.counts.files, bytes_done=self.counts.bytes_read)

    def _fill(self, reader: FileReader, out: memoryview) -> int:
        """Read into ``out`` until it is full or the file ends: how many bytes."""
        have = 0
        if isinstance(reader, ReadsInto):
            while have < len(out) and (got := reader.readinto(out[have:])):
                have += got
                self.reporter.check()
            return have
        while have < len(out) and (data := reader.read(min(READ_SIZE, len(out) - have))):
            out[have : have + len(data)] = data
            have += len(data)
            self.reporter.check()
        return have

    def store_bytes(self, data: bytes) -> bytes:
        """Store the chunks of a whole file in memory, not empty: their ids."""
        if len(data) <= self.chunker.sizes.minimum:
            return self.blobs.put(BlobType.DATA, data)
        view, ids, start = memoryview(data), [], 0
        for end in self.chunker.cuts(view, final=True):
            ids.append(self.blobs.put(BlobType.DATA, view[start:end]))
            start = end
        return b"".join(ids)

    def content(self, ids: bytes) -> Content:
        """A content for these ids; long lists go into LIST blobs."""
        depth = 0
        while len(ids) > INLINE_IDS * ID_SIZE:
            ids = b"".join([self.blobs.put(BlobType.LIST, part) for part in split_ids(ids)])
            depth += 1
        return Content(depth, ids)

    def folder(self, nodes: list[Node], users: dict[int, str], groups: dict[int, str]) -> Content:
        """Store the entries of a folder (in order of their names)."""
        if not nodes:
            return EMPTY
        put = self.blobs.put
        trees = (tree for part in split_nodes(nodes) for tree in encode_trees(part, users, groups))
        return self.content(b"".join([put(BlobType.TREE, tree) for tree in trees]))

    # -- the end -------------------------------------------------------------------------------------------------

    def commit(
        self,
        root: Content,
        *,
        dataset: str,
        host: str,
        paths: tuple[bytes, ...],
        tags: tuple[str, ...],
        time: int | None,
    ) -> str:
        """Everything is durable and acknowledged when this returns: the snapshot's id ("" on a dry run)."""
        details = SnapshotDetails(
            dataset, host, root, paths, self.started if time is None else time, now_ns(), tags,
            bool(self.counts.issues), user_name(), PROGRAM, self.counts.stored(),
        )  # fmt: skip
        return self.acknowledge(details)

    def acknowledge(self, details: SnapshotDetails) -> str:
        """Commit a snapshot whose blobs were all put: its id ("" on a dry run)."""
        self.blobs.flush()
        self.reporter.check()
        if self.session is None:
            return ""
        holder = self.vault.ring.signing.id
        heads = self.vault.history.heads(self.slots, holder)
        numbers = {s.record.sid: s.record.number for s in self.slots}
        number = 1 + max((numbers[sid] for sid, _ in heads), default=0)
        self.vault.check_holder()
        record = self.session.commit(details, heads, number)
        self.committed = True
        self.vault.remember(self.session.sid, record, self.slots)
        return self.session.sid

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self.vault.forked:
            return  # the session and its threads are the parent's
        if self.committed or self.session is None:
            self.blobs.close()
            return
        try:
            self.blobs.close(keep=True)  # what was uploaded is indexed, so that the next run finds it
        finally:
            self.session.abort()


class DryWriter:
    """Stands for a BlobWriter on a dry run: counts what would be stored."""

    def __init__(self, index: BlobIndex, id_keys: tuple[bytes, ...]) -> None:
        self.index, self._ids = index, id_keys
        self.written = Written()

    def put(self, blob_type: int, data: bytes | memoryview) -> BlobId:
        """The id that the blob would get."""
        blob = BlobId(blake3(data, key=self._ids[blob_type]).digest())
        if blob not in self.index:
            self.index.new.add(blob)
            self.written.blobs += 1
            self.written.raw += len(data)
        return blob

    def flush(self) -> None:
        """Nothing was put."""

    def close(self, *, keep: bool = False) -> None:
        """Nothing runs."""


def host_name() -> str:
    return socket.gethostname()


def user_name() -> str:
    """Who runs this, by the system's own table: not by what the environment claims."""
    owners, uid = Owners(), os.geteuid()
    owners.see(uid, os.getegid())
    return owners.users.get(uid, str(uid)).encode(errors="backslashreplace").decode()


def describe(error: OSError) -> str:
    return error.strerror or str(error)
