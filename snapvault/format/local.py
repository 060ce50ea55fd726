"""Objects of one site alone, under ``local/``; and notes (docs/format/local.md, docs/format/note.md)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from snapvault.format.names import checked_session_id
from snapvault.format.wire import FormatError, Kind, frame, pack, shaped, sized, typed, unframe, unpack
from snapvault.foundation.ids import PackId, SessionId


class TombstoneRecord(NamedTuple):
    """A snapshot is to be forgotten; GC treats it as live until ``not_before`` (nanoseconds, UTC).  Signed."""

    config: bytes
    sid: SessionId
    record: bytes  # BLAKE3 of the commit slot that is meant
    created: int
    not_before: int

    def encode(self) -> bytes:
        return pack(list(self))


def decode_tombstone(payload: bytes) -> TombstoneRecord:
    """FormatError if malformed."""

    def build() -> TombstoneRecord:
        config, sid, record, created, not_before = unpack(payload)
        return TombstoneRecord(
            sized(config, 32, "config"),
            checked_session_id(sid),
            sized(record, 32, "record"),
            typed(created, int, "time"),
            typed(not_before, int, "time"),
        )

    return shaped(build, "tombstone")


class GcRecord(NamedTuple):
    """``local/gc/<sid>``: the packs that a running GC condemns; nobody deduplicates onto them any more.  Signed."""

    config: bytes
    sid: SessionId
    condemned: tuple[PackId, ...]

    def encode(self) -> bytes:
        return pack([self.config, self.sid, b"".join(self.condemned)])


def decode_gc(payload: bytes) -> GcRecord:
    """FormatError if malformed."""

    def build() -> GcRecord:
        config, sid, condemned = unpack(payload)
        return GcRecord(sized(config, 32, "config"), checked_session_id(sid), _pack_ids(condemned))

    return shaped(build, "GC")


def _pack_ids(value: Any) -> tuple[PackId, ...]:
    ids = typed(value, bytes, "packs")
    if len(ids) % 32:
        raise FormatError("a list of packs is malformed")
    return tuple(PackId(ids[i : i + 32]) for i in range(0, len(ids), 32))


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """``local/replica/mark``: this place is a copy of a source that goes on elsewhere."""

    config: bytes
    since: int  # nanoseconds, UTC
    collected: tuple[SessionId, ...]  # GCs that had ended here by then: what they removed, the source may still need

    def encode(self) -> bytes:
        return frame(Kind.REPLICA, [self.config, self.since, self.collected])


def decode_replica(data: bytes) -> ReplicaRecord:
    """FormatError if malformed."""

    def build() -> ReplicaRecord:
        config, since, collected = unframe(Kind.REPLICA, data)
        return ReplicaRecord(
            sized(config, 32, "config"), typed(since, int, "time"), tuple(checked_session_id(sid) for sid in collected)
        )

    return shaped(build, "replica mark")


class PromotionRecord(NamedTuple):
    """``local/replica/promoted``: the source is retired, and this place is one from now on.  Signed by the owner."""

    config: bytes
    time: int  # nanoseconds, UTC

    def encode(self) -> bytes:
        return pack(list(self))


def decode_promotion(payload: bytes) -> PromotionRecord:
    """FormatError if malformed."""

    def build() -> PromotionRecord:
        config, time = unpack(payload)
        return PromotionRecord(sized(config, 32, "config"), typed(time, int, "time"))

    return shaped(build, "promotion")


class VerifiedRecord(NamedTuple):
    """These packs were read, and found whole at this level, or damaged.  Signed."""

    config: bytes
    level: str  # "data": every blob was opened and its id recomputed; "damaged": not all of it is whole
    time: int  # nanoseconds, UTC
    packs: tuple[PackId, ...]

    def encode(self) -> bytes:
        return pack([self.config, self.level, self.time, b"".join(self.packs)])


def decode_verified(payload: bytes) -> VerifiedRecord:
    """FormatError if malformed."""

    def build() -> VerifiedRecord:
        config, level, time, packs = unpack(payload)
        return VerifiedRecord(
            sized(config, 32, "config"),
            typed(level, str, "level"),
            typed(time, int, "time"),
            _pack_ids(packs),
        )

    return shaped(build, "verification")


@dataclass(frozen=True, slots=True)
class CapabilitiesRecord:
    """What a probe found out about the store."""

    put_if_absent: bool
    range_read: bool
    list_after_put: bool

    def encode(self) -> bytes:
        return frame(Kind.CAPABILITIES, [self.put_if_absent, self.range_read, self.list_after_put])


def decode_capabilities(data: bytes) -> CapabilitiesRecord:
    """FormatError if malformed."""

    def build() -> CapabilitiesRecord:
        a, b, c = (typed(v, bool, "capability") for v in unframe(Kind.CAPABILITIES, data))
        return CapabilitiesRecord(a, b, c)

    return shaped(build, "capabilities")


def encode_heartbeat(sid: SessionId, number: int) -> bytes:
    """A sign of life; what counts is that a new one appeared."""
    return frame(Kind.HEARTBEAT, [sid, number])


@dataclass(frozen=True, slots=True)
class NoteRecord:
    """A signed addition to a snapshot.  What it says is sealed to readers; it replaces the notes that it names."""

    config: bytes
    sid: SessionId
    created: int
    replaces: tuple[bytes, ...]  # digests of notes
    sealed_digest: bytes

    def encode(self) -> bytes:
        return pack([self.config, self.sid, self.created, self.replaces, self.sealed_digest])


def decode_note(payload: bytes) -> NoteRecord:
    """FormatError if malformed."""

    def build() -> NoteRecord:
        config, sid, created, replaces, digest = unpack(payload)
        return NoteRecord(
            sized(config, 32, "config"),
            checked_session_id(sid),
            typed(created, int, "time"),
            tuple(sized(r, 32, "digest") for r in replaces),
            sized(digest, 32, "digest"),
        )

    return shaped(build, "note")


@dataclass(frozen=True, slots=True)
class NoteDetails:
    """What a note says: tags that stand instead of the snapshot's, a hold, and paths lost to damage."""

    tags: tuple[str, ...] | None = None
    hold: bool | None = None
    lost: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        return pack([self.tags, self.hold, self.lost])


def decode_note_details(data: bytes | memoryview) -> NoteDetails:
    """FormatError if malformed."""

    def build() -> NoteDetails:
        tags, hold, lost = unpack(data)
        return NoteDetails(
            None if tags is None else tuple(typed(t, str, "tag") for t in tags),
            None if hold is None else typed(hold, bool, "hold"),
            tuple(typed(p, bytes, "path") for p in lost),
        )

    return shaped(build, "note details")
