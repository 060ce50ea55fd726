"""Attestations: a signed inventory of what a place holds, by anybody with a key of any role (docs/replication.md)."""

import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from snapvault.backend.protocol import NotFound
from snapvault.format import names
from snapvault.format.attestation import HASHED, NAMES_MAX, PRESENT, AttestationRecord, decode_attestation
from snapvault.format.signed import decode_signed
from snapvault.format.snapshot import COMMIT, merkle
from snapvault.format.wire import Kind
from snapvault.foundation.ahead import ahead
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Control, Reporter
from snapvault.foundation.ids import DomainId, HolderId, SessionId
from snapvault.operations.results import CheckReport
from snapvault.repository.history import Slot
from snapvault.repository.repository import Vault
from snapvault.repository.store import fetch
from snapvault.repository.trust import Untrusted, sign, signed_by

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

KEPT = 30  # of one signer; the newest that was hashed stays, too
INDEXES_AT_ONCE = 2
LEFT_OUT = (names.LOCAL, names.ATTESTATIONS)


@dataclass(frozen=True, slots=True)
class Attestation:
    """What somebody signed about a place."""

    site: str
    by: str  # the name of the key
    level: str  # present: listed; hashed: read and found whole
    time: datetime
    snapshots: tuple[str, ...]  # ids of those whose data is all there
    objects: int
    bytes: int
    bad: int  # objects that are missing or damaged
    names: tuple[str, ...]  # of the first of them

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "time": self.time.isoformat()}


def attest(
    repo: "Repository", site: str, *, scrubbed: CheckReport | None = None, control: Control | None = None
) -> Attestation:
    """Take an inventory of the place that ``repo`` was opened at, sign it, and keep it there.

    ``site``: what the place is called.  ``scrubbed``: what ``scrub`` just found there; else objects are only listed.
    Any key will do.
    All errors of the store; RoleRequired for the recovery key, which cannot sign.
    """
    vault = repo.vault.limited(control)
    reporter = Reporter("attest", control)
    own = vault.ring.signing.id
    before = _latest(vault, own)
    record = _Inventory(vault, reporter).record(site, scrubbed, before)
    data = sign(Kind.ATTESTATION, record.encode(), own, vault.ring.signing.signer)
    vault.backend.put_if_absent(names.attestation(own, record.time, os.urandom(8)), [data])
    _thin_out(vault, own)
    return _shown(vault, own, record)


def attestations(repo: "Repository") -> list[Attestation]:
    """What keys that were not removed attest, newest first; what does not verify counts for nothing."""
    vault = repo.vault
    found = []
    for info in vault.backend.list(names.ATTESTATIONS):
        with suppress(Damaged, NotFound):
            holder, record, _ = _read(vault, info.name, info.size)
            found.append(_shown(vault, holder, record))
    return sorted(found, key=lambda a: a.time, reverse=True)


def _shown(vault: Vault, holder: HolderId, record: AttestationRecord) -> Attestation:
    return Attestation(
        record.site, vault.ring.name_of(holder), record.level, datetime.fromtimestamp(record.time / 1e9, UTC),
        record.snapshots, record.objects.count, record.objects.size, record.bad, record.names,
    )  # fmt: skip


def _read(vault: Vault, name: str, size: int) -> tuple[HolderId, AttestationRecord, bytes]:
    """Who signed, what, and the digest of the object; Untrusted, FormatError, NotFound."""
    data = fetch(vault.backend, name, size)
    signed = decode_signed(Kind.ATTESTATION, data)
    record = decode_attestation(signed.payload)
    for holder in vault.ring.current.holders:
        if name.startswith(names.attestations_of(holder.id)) and signed_by(Kind.ATTESTATION, signed, holder.sign):
            if record.config != vault.ring.config_digest:
                raise Untrusted(f"{name} is of another repository", affected=[name])
            return holder.id, record, blake3(data).digest()
    raise Untrusted(f"{name} is not signed by a holder whom its name states", affected=[name])


def _latest(vault: Vault, own: HolderId) -> tuple[AttestationRecord | None, bytes]:
    """This signer's newest, and its digest."""
    for info in sorted(vault.backend.list(names.attestations_of(own)), key=lambda o: o.name, reverse=True):
        with suppress(Damaged, NotFound):
            _, record, digest = _read(vault, info.name, info.size)
            return record, digest
    return None, bytes(32)


def _thin_out(vault: Vault, own: HolderId) -> None:
    """Whoever signs deletes what it signed long ago."""
    hashed = False
    mine = sorted(vault.backend.list(names.attestations_of(own)), key=lambda o: o.name, reverse=True)
    if len(mine) <= KEPT:
        return
    for number, info in enumerate(mine):
        with suppress(Damaged, NotFound):
            newest = _read(vault, info.name, info.size)[1].level == HASHED and not hashed
            hashed |= newest
            if number >= KEPT and not newest:
                vault.backend.delete(info.name)


class _Inventory:
    """What is there, and which snapshots have all of their data."""

    def __init__(self, vault: Vault, reporter: Reporter) -> None:
        self._vault, self._reporter = vault, reporter
        self._time = now_ns()
        self._sizes = {o.name: o.size for o in vault.backend.list() if not o.name.startswith(LEFT_OUT)}
        self._bad = dict[str, None]()  # an ordered set
        self._touched = set[DomainId]()  # domains in which something is missing or damaged
        self._written: dict[SessionId, list[tuple[str, int]]] = defaultdict(list)
        self._blind = False  # something is damaged of which nobody can tell what it concerns

    def record(
        self, site: str, scrubbed: CheckReport | None, before: tuple[AttestationRecord | None, bytes]
    ) -> AttestationRecord:
        """The record to sign."""
        objects = merkle(list(self._sizes.items()))
        last, head = before
        level = PRESENT if scrubbed is None else HASHED
        if level == PRESENT and last is not None and last.objects == objects and not last.bad:
            snapshots = last.snapshots  # nothing came and nothing went
        else:
            for finding in scrubbed.problems if scrubbed is not None else ():
                self._bad.update(dict.fromkeys(n for n in finding.objects if not n.startswith(LEFT_OUT)))
            snapshots = self._complete()
        return AttestationRecord(
            self._vault.ring.config_digest, site, level, self._time, objects, snapshots, len(self._bad),
            tuple(self._bad)[:NAMES_MAX], head,
        )  # fmt: skip

    def _complete(self) -> tuple[SessionId, ...]:
        """Commits of domains in which nothing is missing: without a key nobody knows which pack a snapshot needs."""
        slots, problems = self._vault.history.slots()
        self._bad.update(dict.fromkeys(n for p in problems for n in p.affected))
        removed = {names.pack(pack) for s in slots for pack in s.record.removed_packs()}
        collected = any(s.record.removed for s in slots)
        self._packs(removed)
        commits = [s for s in slots if s.record.kind == COMMIT]
        return tuple(sorted(s.record.sid for s in commits if self._is_complete(s, collected)))

    def _packs(self, removed: set[str]) -> None:
        indexes = [name for name in self._sizes if name.startswith(names.INDEX)]
        for name, found in zip(indexes, ahead(self._index, indexes, INDEXES_AT_ONCE), strict=True):
            self._reporter.check()
            if found is None:
                self._bad[name] = None
                self._blind = True
                continue
            domain, sid, packs = found
            self._written[sid].append((name, self._sizes[name]))
            for pack, size, of in packs:
                self._written[of].append((pack, size))
                if pack not in removed and self._sizes.get(pack) != size:
                    self._bad[pack] = None
                if pack in self._bad:
                    self._touched.add(domain)

    def _index(self, name: str) -> tuple[DomainId, SessionId, list[tuple[str, int, SessionId]]] | None:
        """Its domain, who wrote it, and the packs that it names; None if it is damaged or gone."""
        try:
            record, _ = self._vault.loader.verify(fetch(self._vault.backend, name, self._sizes[name]))
        except Untrusted:
            return DomainId(bytes(16)), SessionId(""), []  # somebody's invention: nobody heeds it
        except (Damaged, NotFound):
            return None
        return record.domain, record.sid, [(names.pack(pack), size, of) for pack, size, of in record.packs]

    def _is_complete(self, slot: Slot, collected: bool) -> bool:
        sid = slot.record.sid
        if self._blind or names.snapshot(sid) in self._bad:
            return False
        try:
            domain = self._vault.sessions.header(sid, holder=slot.holder)[0].head.domain
        except Damaged:
            return False
        # A prune may have removed some of what a session wrote; else all of it must be there.
        whole = collected or merkle(sorted(set(self._written[sid]))) == slot.record.objects
        return domain not in self._touched and whole
