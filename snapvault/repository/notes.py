"""Notes: signed additions to snapshots, which themselves never change (docs/format/note.md)."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from blake3 import blake3

from snapvault.backend.own import put_own
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import NoteDetails, NoteRecord, decode_note, decode_note_details
from snapvault.format.signed import Signed, decode_signed
from snapvault.format.wire import Kind
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import HolderId, SnapshotId
from snapvault.repository.keyring import Keyring
from snapvault.repository.sealing import open_part, seal_part
from snapvault.repository.sessions import Sessions
from snapvault.repository.store import Store
from snapvault.repository.trust import Untrusted, sign, signed_by

NOTHING = NoteDetails()


class Notes:
    """Reads and writes the notes of one repository."""

    def __init__(self, store: Store, ring: Keyring, sessions: Sessions) -> None:
        self._store, self._ring, self._sessions = store, ring, sessions

    def read(self, writers: Mapping[SnapshotId, HolderId]) -> tuple[dict[SnapshotId, NoteDetails], list[Damaged]]:
        """What the notes of these snapshots say together, and what is wrong with some notes, which then say nothing."""
        found, problems = self._valid(names.NOTES)
        said = {
            sid: self._together(sid, writers[sid], notes, problems) for sid, notes in found.items() if sid in writers
        }
        return said, problems

    def add(self, sid: SnapshotId, holder: HolderId, change: NoteDetails) -> None:
        """Say something more of a snapshot, whose writer is ``holder``: what ``change`` leaves open stays as it is."""
        self._add(sid, holder, lambda old: _changed(old, change))

    def set_lost(self, sid: SnapshotId, holder: HolderId, lost: Iterable[bytes]) -> None:
        """Say which paths of a snapshot are lost now."""
        self._add(sid, holder, lambda old: replace(old, lost=tuple(sorted(lost))))

    def _add(self, sid: SnapshotId, holder: HolderId, change: Callable[[NoteDetails], NoteDetails]) -> None:
        self._ring.require_role(Role.MAINTAINERS, "write notes on snapshots")
        notes = self._valid(names.note_prefix(sid))[0].get(sid, {})
        old = self._together(sid, holder, notes, [])
        self._put(sid, holder, change(old), tuple(sorted(notes)))

    def take_over(self, author: bytes, writers: Mapping[SnapshotId, HolderId]) -> None:
        """Say as the owner what is said in notes signed by this key, which is to count no more."""
        for sid, notes in self._valid(names.NOTES)[0].items():
            if sid in writers and any(signed_by(Kind.NOTE, signed, author) for _, signed in notes.values()):
                details = self._together(sid, writers[sid], notes, [])
                self._put(sid, writers[sid], details, tuple(sorted(notes)))

    def _put(self, sid: SnapshotId, holder: HolderId, details: NoteDetails, replaces: tuple[bytes, ...]) -> None:
        secrets = self._sessions.secrets(sid, holder=holder)
        sealed = seal_part(secrets.secret, "note", secrets.context, details.encode())
        record = NoteRecord(self._ring.config_digest, sid, now_ns(), replaces, blake3(sealed).digest())
        keys = self._ring.signing
        note = sign(Kind.NOTE, record.encode(), keys.id, keys.signer, sealed)
        put_own(self._store.backend, names.note(sid, blake3(note).digest()), note)

    def _valid(self, prefix: str) -> tuple[dict[SnapshotId, dict[bytes, tuple[NoteRecord, Signed]]], list[Damaged]]:
        """The notes below a prefix that count, by snapshot and digest."""
        sizes = {o.name: o.size for o in self._store.backend.list(prefix)}
        found: dict[SnapshotId, dict[bytes, tuple[NoteRecord, Signed]]] = defaultdict(dict)
        problems: list[Damaged] = []
        for name, data in zip(sizes, self._store.immutables(list(sizes), sizes), strict=True):
            try:
                if isinstance(data, Damaged):
                    raise data
                digest = blake3(data).digest()
                signed = decode_signed(Kind.NOTE, data)
                record = decode_note(signed.payload)
                self._verify(name, digest, record, signed)
                found[record.sid][digest] = record, signed
            except Damaged as e:
                reason = e.message.removeprefix(f"{name}: ")
                problems.append(type(e)(f"{name} is ignored: {reason}", affected=[name]))
        for notes in found.values():
            for replaced in {digest for record, _ in notes.values() for digest in record.replaces}:
                notes.pop(replaced, None)
        return found, problems

    def _verify(self, name: str, digest: bytes, record: NoteRecord, signed: Signed) -> None:
        if record.config != self._ring.config_digest or name != names.note(record.sid, digest):
            raise Untrusted("it does not belong here")
        if record.sealed_digest != blake3(signed.sealed).digest():
            raise Untrusted("its sealed part was replaced")
        if not any(signed_by(Kind.NOTE, signed, public) for public in self._ring.signers(Role.MAINTAINERS)):
            raise Untrusted("it is not signed by a maintainer or the owner")

    def _together(
        self,
        sid: SnapshotId,
        holder: HolderId,
        notes: Mapping[bytes, tuple[NoteRecord, Signed]],
        problems: list[Damaged],
    ) -> NoteDetails:
        """Several count if their authors did not see one another's: of each thing, what was said last."""
        total, holds = NOTHING, list[bool]()
        for digest, (_, signed) in sorted(notes.items(), key=lambda n: (n[1][0].created, n[0])):
            name = names.note(sid, digest)
            try:
                secrets = self._sessions.secrets(sid, holder=holder)
                said = decode_note_details(open_part(secrets.secret, "note", secrets.context, signed.sealed))
            except Damaged as e:
                problems.append(type(e)(f"{name} is ignored: {e.message}", affected=[name]))
                continue
            total = _changed(total, said)
            holds += [] if said.hold is None else [said.hold]
        # Who says something else repeats what was held when it looked; so whoever holds is believed before the others.
        return replace(total, hold=any(holds)) if holds else total


def _changed(old: NoteDetails, new: NoteDetails) -> NoteDetails:
    return NoteDetails(
        old.tags if new.tags is None else new.tags,
        old.hold if new.hold is None else new.hold,
        tuple(sorted({*old.lost, *new.lost})),
    )
