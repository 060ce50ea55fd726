"""``snapshots/<sid>``: the commit slot (docs/format/snapshot.md).

A signed record in clear, and a sealed part that only holders of a read key open.
"""

from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from snapvault.format.names import PACKS, checked_content_name, checked_session_id, content_digest
from snapvault.format.tree import ID_SIZE, Content
from snapvault.format.wire import FormatError, pack, shaped, sized, typed, unpack
from snapvault.foundation.ids import PackId, SessionId

COMMIT, ABORT, REVOKED, GC_DONE = "commit", "abort", "revoked", "gc-done"


@dataclass(frozen=True, slots=True)
class Objects:
    """What a session wrote: how many objects, how many bytes, and the Merkle root over names and sizes."""

    count: int = 0
    size: int = 0
    root: bytes = bytes(32)


def merkle(objects: list[tuple[str, int]]) -> Objects:
    """The summary of these (name, size) pairs; the order does not matter.

    Leaf: BLAKE3(0x00, size as 8 bytes little endian, name); inner node: BLAKE3(0x01, left, right); an odd one goes up.
    """
    level = [blake3(b"\0" + size.to_bytes(8, "little") + name.encode()).digest() for name, size in sorted(objects)]
    while len(level) > 1:
        pairs = [blake3(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return Objects(len(objects), sum(size for _, size in objects), level[0] if level else bytes(32))


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """The signed part."""

    config: bytes
    kind: str  # COMMIT, ABORT, REVOKED, GC_DONE
    sid: SessionId
    certificate: bytes  # of who signed this
    number: int  # 1 + the highest number among prevs
    prevs: tuple[tuple[SessionId, bytes], ...]  # heads of this writer that it saw: id and BLAKE3 of the record object
    keyset: int
    objects: Objects
    removed: tuple[str, ...]  # GC_DONE: names of packs removed for ever
    put: tuple[str, ...]  # GC_DONE: names of objects put
    sealed_digest: bytes  # BLAKE3 of the sealed part; zeros if there is none
    session: bytes = b""  # COMMIT: the session header, as in sessions/<sid>, so that the loss of that loses nothing

    @property
    def is_empty(self) -> bool:
        """Whether the session came to nothing: it gave up, or was ended by somebody else."""
        return self.kind not in (COMMIT, GC_DONE)

    def removed_packs(self) -> list[PackId]:
        """The packs that a slot with "GC done" names for ever; none of another kind."""
        found = [content_digest(n) for n in self.removed if n.startswith(PACKS)] if self.kind == GC_DONE else []
        return [PackId(digest) for digest in found if digest is not None]

    def encode(self) -> bytes:
        """The payload to sign."""
        o = self.objects
        return pack(
            [
                self.config, self.kind, self.sid, self.certificate, self.number, self.prevs, self.keyset,
                [o.count, o.size, o.root], self.removed, self.put, self.sealed_digest,
                self.session,
            ]
        )  # fmt: skip


def decode_snapshot(payload: bytes) -> SnapshotRecord:
    """FormatError if malformed."""

    def build() -> SnapshotRecord:
        config, kind, sid, certificate, number, prevs, keyset, objects, removed, put, digest, session = unpack(payload)
        if kind not in (COMMIT, ABORT, REVOKED, GC_DONE):
            raise FormatError(f"a commit slot says {kind!r}, which this snapvault does not know")
        count, size, root = objects
        return SnapshotRecord(
            sized(config, 32, "config"),
            kind,
            checked_session_id(sid),
            typed(certificate, bytes, "certificate"),
            typed(number, int, "number"),
            tuple((checked_session_id(s), sized(d, 32, "digest")) for s, d in prevs),
            typed(keyset, int, "keyset"),
            Objects(typed(count, int, "count"), typed(size, int, "size"), sized(root, 32, "root")),
            tuple(checked_content_name(n) for n in removed),
            tuple(checked_content_name(n) for n in put),
            sized(digest, 32, "digest"),
            typed(session, bytes, "session"),
        )

    return shaped(build, "snapshot")


@dataclass(frozen=True, slots=True)
class SnapshotDetails:
    """The sealed part.  Times are nanoseconds since the epoch, UTC."""

    dataset: str
    host: str
    root: Content  # the top folder
    paths: tuple[bytes, ...]  # the roots that were given, absolute
    time: int
    finished: int
    tags: tuple[str, ...] = ()
    partial: bool = False
    user: str = ""
    program: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    original: str = ""  # the snapshot that an undelete brought back

    def encode(self) -> bytes:
        return pack(
            {
                "dataset": self.dataset, "host": self.host, "root": [self.root.depth, self.root.ids],
                "paths": self.paths, "time": self.time, "finished": self.finished, "tags": self.tags,
                "partial": self.partial, "user": self.user, "program": self.program, "counts": self.counts,
                "original": self.original,
            }
        )  # fmt: skip


def decode_details(data: bytes | memoryview) -> SnapshotDetails:
    """FormatError if malformed."""

    def build() -> SnapshotDetails:
        m: dict[str, Any] = unpack(data)
        depth, ids = m["root"]
        if type(depth) is not int or not 0 <= depth <= 8 or type(ids) is not bytes or len(ids) % ID_SIZE:
            raise FormatError("a snapshot's root is malformed")
        counts = {typed(k, str, "count"): typed(v, int, "count") for k, v in m["counts"].items()}
        return SnapshotDetails(
            typed(m["dataset"], str, "dataset"),
            typed(m["host"], str, "host"),
            Content(depth, ids),
            tuple(typed(p, bytes, "path") for p in m["paths"]),
            typed(m["time"], int, "time"),
            typed(m["finished"], int, "time"),
            tuple(typed(t, str, "tag") for t in m["tags"]),
            typed(m["partial"], bool, "partial"),
            typed(m["user"], str, "user"),
            typed(m["program"], str, "program"),
            counts,
            typed(m["original"], str, "original"),
        )

    return shaped(build, "snapshot details")
