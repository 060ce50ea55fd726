"""The snapshots of a repository: commit slots, tombstones, heads (docs/format/snapshot.md)."""

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from blake3 import blake3

from snapvault.backend.protocol import NotFound, ObjectInfo
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import TombstoneRecord, decode_tombstone
from snapvault.format.signed import decode_signed
from snapvault.format.snapshot import ABORT, COMMIT, SnapshotDetails, SnapshotRecord, decode_details, decode_snapshot
from snapvault.format.wire import Kind
from snapvault.foundation.ahead import ahead
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import HolderId, SessionId, SnapshotId
from snapvault.repository.failover import everywhere, once_more
from snapvault.repository.keyring import Keyring
from snapvault.repository.sealing import open_part
from snapvault.repository.sessions import Sessions
from snapvault.repository.store import FETCHERS, Store, fetch
from snapvault.repository.trust import Untrusted, signed_by, trusted_certificate

log = logging.getLogger("snapvault")


@dataclass(frozen=True, slots=True)
class Slot:
    """A verified commit slot."""

    record: SnapshotRecord
    digest: bytes  # BLAKE3 of the object
    holder: HolderId  # who signed
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """What one listing of the commit slots showed."""

    shown: frozenset[SessionId]  # all that were listed, whatever stands in them
    every: list[Slot]  # those that verify, also what a removed holder wrote after its removal
    accepted: list[Slot]
    problems: list[Damaged]  # what is wrong with the others
    given_up: frozenset[SessionId] = frozenset()  # nor can these be had, but they were forgotten for good


def is_due(tombstone: TombstoneRecord) -> bool:
    """Whether the time is over in which the snapshot can be brought back."""
    return tombstone.not_before <= now_ns()


class History:
    """Reads the commit slots and tombstones of one repository."""

    def __init__(self, store: Store, ring: Keyring, sessions: Sessions) -> None:
        self._store, self._ring, self._sessions = store, ring, sessions
        self._lock = threading.Lock()
        self._slots: dict[SessionId, Slot] = {}
        self._details: dict[SnapshotId, SnapshotDetails] = {}

    def through(self, store: Store, sessions: Sessions) -> "History":
        """The same history, read through another store; what is known of it is shared."""
        other = History(store, self._ring, sessions)
        other._lock, other._slots, other._details = self._lock, self._slots, self._details
        return other

    def slots(self) -> tuple[list[Slot], list[Damaged]]:
        """All filled slots of writers that verify and are accepted, and what was found wrong with the others.

        A listing that fails raises: it must never look like "no snapshots" (restic#4612).
        """
        reading = self.read()
        return reading.accepted, reading.problems

    def all_slots(self) -> list[Slot]:
        """All that verify, also what a removed holder wrote after its removal."""
        return self.read().every

    def read(self) -> Reading:
        """All of it by one listing; errors as of ``slots``."""
        sizes = {o.name: o.size for o in self._store.backend.list(names.SNAPSHOTS)}
        wanted: list[tuple[SessionId, str]] = []
        problems: list[Damaged] = []
        with self._lock:
            known = set(self._slots)
        for name in sizes:
            try:
                sid = names.session_id(name, names.SNAPSHOTS)
            except Damaged as e:
                problems.append(e)
                continue
            if sid not in known:
                wanted.append((sid, name))
        found = self._store.immutables([n for _, n in wanted], sizes)
        self._sessions.prefetch([sid for sid, _ in wanted])
        for (sid, name), data in zip(wanted, found, strict=True):
            if isinstance(data, Damaged):
                problems.append(data)  # names the object already
                continue
            try:
                slot = self._slot(sid, name, data)
            except Damaged as e:
                problems.append(type(e)(f"{name}: {e.message}", affected=[name]))
                continue
            with self._lock:
                self._slots[sid] = slot
        shown = frozenset(SessionId(n.removeprefix(names.SNAPSHOTS)) for n in sizes)
        with self._lock:
            every = [s for sid, s in self._slots.items() if sid in shown]
        return Reading(shown, every, self._accepted(every, problems), problems)

    def _slot(self, sid: SessionId, name: str, data: bytes) -> Slot:
        """A snapshot that any of several places has counts, though another one says that its session was ended."""
        try:
            slot = self.verify(sid, data)
        except Damaged as e:
            try:
                slot = once_more(self._store, name, lambda fresh: self.verify(sid, fresh))
            except NotFound:
                raise e from None
        if not slot.record.is_empty:
            return slot
        cache = self._store.cache
        others = everywhere(self._store.backend, lambda place: self.verify(sid, Store(place, cache).immutable(name)))
        return next((other for other in others if other.record.kind == COMMIT), slot)

    def verify(self, sid: SessionId, data: bytes) -> Slot:
        """The commit slot of a session, from its bytes; Untrusted, FormatError."""
        signed = decode_signed(Kind.SNAPSHOT, data)
        record = decode_snapshot(signed.payload)
        certificate = trusted_certificate(record.certificate, self._ring.config_digest, self._ring.config.owner_sign)
        if record.config != self._ring.config_digest or record.sid != sid:
            raise Untrusted(f"the record of snapshot {record.sid} does not belong here")
        if not signed_by(Kind.SNAPSHOT, signed, certificate.sign):
            raise Untrusted(f"the record of snapshot {sid} is not signed by the holder that it names")
        if record.sealed_digest != (blake3(signed.sealed).digest() if signed.sealed else bytes(32)):
            raise Untrusted(f"the sealed part of snapshot {sid} was replaced")
        if record.kind == COMMIT:
            self._check_author(record, certificate.holder, certificate.role)
        elif record.kind != ABORT and certificate.role not in Role.MAINTAINERS:
            raise Untrusted(f"the slot of session {sid} was filled with {record.kind!r} by a {certificate.role}")
        elif certificate.role not in Role.MAINTAINERS and certificate.role not in Role.WRITERS:
            raise Untrusted(f"the slot of session {sid} was filled by a {certificate.role}")
        return Slot(record, blake3(data).digest(), certificate.holder, signed.sealed)

    def _check_author(self, record: SnapshotRecord, holder: HolderId, role: str) -> None:
        """A commit must be by the holder who opened the session: nobody fills another's slot."""
        sid = record.sid
        if role not in Role.WRITERS and role not in Role.MAINTAINERS:
            raise Untrusted(f"snapshot {sid} was committed by a {role}")
        # None: the session object is lost or damaged, which check reports; the copy in the record says the same.
        if self._sessions.opened_by(sid) not in (None, holder) or self._sessions.by_commit(record) != holder:
            raise Untrusted(f"snapshot {sid} was committed by another holder than the one who began it")

    def _accepted(self, slots: list[Slot], problems: list[Damaged]) -> list[Slot]:
        """Without what a revoked holder wrote after the heads at which its revocation ends."""
        if self._ring.keyset is None or not self._ring.keyset.revocations:
            return slots
        by_id = {s.record.sid: s for s in slots}
        refused = set()
        for revocation in self._ring.keyset.revocations:
            reach, todo = set[SessionId](), list(revocation.heads)
            while todo:
                sid = todo.pop()
                if sid in by_id and sid not in reach:
                    reach.add(sid)
                    todo += [p for p, _ in by_id[sid].record.prevs]
            for s in slots:
                if s.holder == revocation.holder and s.record.kind == COMMIT and s.record.sid not in reach:
                    refused.add(s.record.sid)
                    problems.append(
                        Untrusted(
                            f"snapshot {s.record.sid} was written by {revocation.name} after that key was removed",
                            affected=[names.snapshot(s.record.sid)],
                        )
                    )
        return [s for s in slots if s.record.sid not in refused]

    def heads(self, slots: list[Slot], holder: HolderId) -> tuple[tuple[SessionId, bytes], ...]:
        """The commits of a holder that none of its other commits names as a predecessor."""
        mine = {s.record.sid: s.digest for s in slots if s.holder == holder and s.record.kind == COMMIT}
        seen = {p for s in slots if s.record.sid in mine for p, _ in s.record.prevs}
        return tuple(sorted((sid, digest) for sid, digest in mine.items() if sid not in seen))

    def tombstones(self, *, fresh: bool = False) -> tuple[dict[SnapshotId, TombstoneRecord], list[Damaged]]:
        """Valid tombstones by snapshot, and what was found wrong with the others (which then forget nothing).

        ``fresh``: not from the cache, since each may have been put anew, with another time (docs/adr/0013).
        """

        def read(info: ObjectInfo) -> TombstoneRecord | Damaged | None:
            try:
                return self._fresh_tombstone(info) if fresh else self.tombstone(info)
            except Damaged as e:
                reason = e.message.removeprefix(f"{info.name}: ")
                return type(e)(f"{info.name} is ignored: {reason}", affected=[info.name])
            except NotFound:
                return None  # taken back since it was listed

        every = list(ahead(read, list(self._store.backend.list(names.TOMBSTONES)), FETCHERS))
        found = {record.sid: record for record in every if isinstance(record, TombstoneRecord)}
        return found, [problem for problem in every if isinstance(problem, Damaged)]

    def tombstone_now(self, sid: SnapshotId) -> TombstoneRecord | None:
        """That of one snapshot, as the store has it now; None if there is none, or it does not verify."""
        name = names.tombstone(sid)
        try:
            return self.verify_tombstone(name, self._store.fresh(name))
        except (Damaged, NotFound):
            return None

    def given_up(self, reading: Reading, pinned: Mapping[SessionId, str]) -> frozenset[SessionId]:
        """Snapshots whose record is gone or cannot be read, and was forgotten so that nothing can bring it back.

        That very record, as it is there or was pinned: else somebody could take away another one in its name.
        """
        # Where the slot was lost, a prune may have filled it since, as that of a run that had died.
        readable, found = {s.record.sid for s in reading.every if not s.record.is_empty}, set[SessionId]()
        for sid, tombstone in self.tombstones(fresh=True)[0].items():
            if sid in readable or not is_due(tombstone):
                continue
            records = {pinned.get(SessionId(sid), "")}
            if sid in reading.shown:
                with suppress(Damaged, NotFound):
                    records.add(blake3(fetch(self._store.backend, names.snapshot(sid))).hexdigest())
            if tombstone.record.hex() in records:
                found.add(SessionId(sid))
        return frozenset(found)

    def tombstone(self, info: ObjectInfo) -> TombstoneRecord:
        """One that a maintainer or the owner signed; Untrusted, FormatError, NotFound."""
        try:
            return self.verify_tombstone(info.name, self._store.immutable(info.name, info.size))
        except Untrusted:  # the owner signs those of a maintainer anew who is removed
            return self._fresh_tombstone(info)

    def _fresh_tombstone(self, info: ObjectInfo) -> TombstoneRecord:
        return self.verify_tombstone(info.name, self._store.fresh(info.name, info.size))

    def verify_tombstone(self, name: str, data: bytes) -> TombstoneRecord:
        """The tombstone of this name, from its bytes; Untrusted, FormatError."""
        signed = decode_signed(Kind.TOMBSTONE, data)
        record = decode_tombstone(signed.payload)
        if record.config != self._ring.config_digest or names.tombstone(record.sid) != name:
            raise Untrusted("it does not belong here")
        if not any(signed_by(Kind.TOMBSTONE, signed, public) for public in self._ring.signers(Role.MAINTAINERS)):
            raise Untrusted("it is not signed by a maintainer or the owner")
        return record

    def details(self, slot: Slot) -> SnapshotDetails:
        """The sealed part of a commit; RoleRequired, Damaged."""
        sid = slot.record.sid
        known = self._details.get(sid)
        if known is None:
            secrets = self._sessions.secrets(sid, holder=slot.holder)
            known = decode_details(open_part(secrets.secret, "record", secrets.context, slot.sealed))
            self._details[sid] = known
        return known
