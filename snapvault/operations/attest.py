"""Attestations: a signed inventory of what a place holds, by anybody with a key of any role (docs/replication.md)."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from snapvault.backend.own import put_own
from snapvault.backend.protocol import Backend, NotFound, ObjectInfo
from snapvault.backend.wrapper import discard
from snapvault.format import names
from snapvault.format.attestation import HASHED, NAMES_MAX, PRESENT, AttestationRecord, decode_attestation
from snapvault.format.index import IndexRecord
from snapvault.format.keyset import Holder, Role
from snapvault.format.signed import decode_signed
from snapvault.format.snapshot import COMMIT, GC_DONE, merkle
from snapvault.format.wire import Kind
from snapvault.foundation.ahead import ahead
from snapvault.foundation.clock import SKEW, nanoseconds, now_ns, time_of
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.foundation.events import Control, Reporter
from snapvault.foundation.ids import DomainId, HolderId, PackId, SessionId
from snapvault.operations.results import CheckReport
from snapvault.operations.scrub import Scrub
from snapvault.repository.history import Slot
from snapvault.repository.keyring import Keyring
from snapvault.repository.repository import Vault
from snapvault.repository.store import fetch
from snapvault.repository.trust import Untrusted, sign, signed_by

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

KEPT = 30  # of one signer about one site; the newest that was hashed stays, too
INDEXES_AT_ONCE = 2
SIGNERS = (*Role.READERS, Role.SITE)
_NAME = re.compile(r"[A-Za-z0-9._-]+")
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
    report: CheckReport | None = None  # of the scrub, if there was one

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found = {**asdict(self), "time": self.time.isoformat()}
        del found["report"]
        return found


def attest(repo: "Repository", site: str, *, read: bool = False, control: Control | None = None) -> Attestation:
    """Take an inventory of the place that ``repo`` was opened at, sign it, and keep it there.

    ``site``: what the place is called; a key of the role site signs for its own name only.  ``read``: every object is
    read and verified, as by ``scrub``; else they are only listed.  RoleRequired for a writer, and for the recovery key
    alone, which cannot sign; InvalidInput for a name that is none; all errors of the store.
    """
    vault = repo.vault.limited(control)
    reporter = Reporter("attest", control)
    require_witness(repo, site)
    own = vault.ring.signing.id
    scrub = Scrub(vault.backend, reporter) if read else None
    report = scrub.run() if scrub is not None else None
    record = _Inventory(vault, reporter, scrub).record(site, report, _latest(vault, own))
    data = sign(Kind.ATTESTATION, record.encode(), own, vault.ring.signing.signer)
    put_own(vault.backend, names.attestation(own, record.time, os.urandom(8)), data)
    _thin_out(vault, own)
    return _shown(vault.ring.name_of(own), record, report)


def require_witness(repo: "Repository", site: str) -> None:
    """What ``attest`` raises if this key may not say what this site holds."""
    ring = repo.vault.ring
    name = ring.name_of(ring.signing.id)
    ring.require_role(SIGNERS, "attest what a place holds")
    if not may_say(ring.role, name, checked_site(site)):
        raise InvalidInput(
            f"the key {name} signs for the site of its own name, not for {site}", hint=f"call this place {name}"
        )


def checked_site(name: str) -> str:
    """InvalidInput unless this is a name for a site."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no name for a site", hint="use letters, digits, '.', '_' and '-'")
    return name


def attestations(repo: "Repository") -> list[Attestation]:
    """What keys that may say so attest, newest first; what does not verify counts for nothing."""
    return newest_first(repo.vault)


def newest_first(vault: Vault) -> list[Attestation]:
    """The same, for the operations of this package."""
    found = []
    for info in vault.backend.list(names.ATTESTATIONS):
        with suppress(Damaged, NotFound):
            holder, record, _ = read_attestation(vault.backend, vault.ring, info)
            found.append(_shown(holder.name, record))
    return sorted(found, key=lambda a: a.time, reverse=True)


def may_say(role: str, name: str, site: str) -> bool:
    """Whether what this key says of a site counts: whoever may merely write is no witness."""
    return role in Role.READERS or (role == Role.SITE and name == site)


def _shown(name: str, record: AttestationRecord, report: CheckReport | None = None) -> Attestation:
    return Attestation(
        record.site, name, record.level, time_of(record.time),
        record.snapshots, record.objects.count, record.objects.size, record.bad, record.names, report,
    )  # fmt: skip


def read_attestation(backend: Backend, ring: Keyring, info: ObjectInfo) -> tuple[Holder, AttestationRecord, bytes]:
    """Who signed, what, and the digest of the object; Untrusted, FormatError, NotFound."""
    data = fetch(backend, info.name, info.size)
    signed = decode_signed(Kind.ATTESTATION, data)
    record = decode_attestation(signed.payload)
    for holder in ring.current.holders:
        place = f"{names.attestations_of(holder.id)}{record.time:020d}-"
        if info.name.startswith(place) and signed_by(Kind.ATTESTATION, signed, holder.sign):
            early = record.time <= now_ns() + nanoseconds(SKEW)
            if record.config != ring.config_digest or not (early and may_say(holder.role, holder.name, record.site)):
                raise Untrusted(f"{info.name} says what its signer cannot say", affected=[info.name])
            return holder, record, blake3(data).digest()
    raise Untrusted(f"{info.name} is not signed by a holder whom its name states", affected=[info.name])


def _latest(vault: Vault, own: HolderId) -> tuple[AttestationRecord | None, bytes]:
    """This signer's newest, and its digest."""
    for info in sorted(vault.backend.list(names.attestations_of(own)), key=lambda o: o.name, reverse=True):
        with suppress(Damaged, NotFound):
            _, record, digest = read_attestation(vault.backend, vault.ring, info)
            return record, digest
    return None, bytes(32)


def worth_keeping(found: Mapping[str, AttestationRecord]) -> set[str]:
    """Of one signer's, by their names: the last of each site, and the newest of it that was hashed."""
    kept, hashed, count = set[str](), set[str](), Counter[str]()
    for name in sorted(found, reverse=True):
        site, read = found[name].site, found[name].level == HASHED
        if count[site] < KEPT or (read and site not in hashed):
            kept.add(name)
        count[site] += 1
        hashed |= {site} if read else set()
    return kept


def _thin_out(vault: Vault, own: HolderId) -> None:
    """Whoever signs deletes what it signed long ago."""
    found = {}
    for info in list(vault.backend.list(names.attestations_of(own))):
        with suppress(Damaged, NotFound):
            found[info.name] = read_attestation(vault.backend, vault.ring, info)[1]
    for name in found.keys() - worth_keeping(found):
        discard(vault.backend, name)


class _Inventory:
    """What is there, and which snapshots have all of their data."""

    def __init__(self, vault: Vault, reporter: Reporter, scrub: Scrub | None) -> None:
        """``scrub``: only what it has read is spoken of."""
        self._vault, self._reporter = vault, reporter
        self._time = now_ns()
        listed = scrub.sizes.items() if scrub is not None else ((o.name, o.size) for o in vault.backend.list())
        self._sizes = {name: size for name, size in listed if not name.startswith(LEFT_OUT)}
        self._copy = bool(vault.standing().since)
        self._bad = dict[str, None]()  # an ordered set
        self._touched = set[DomainId]()  # domains in which something is missing or damaged
        self._written: dict[SessionId, list[tuple[str, int]]] = defaultdict(list)
        self._named = set[str]()  # packs
        self._blind = False  # something is damaged of which nobody can tell what it concerns

    def record(
        self, site: str, scrubbed: CheckReport | None, before: tuple[AttestationRecord | None, bytes]
    ) -> AttestationRecord:
        """The record to sign."""
        objects = merkle(list(self._sizes.items()))
        last, head = before
        level = PRESENT if scrubbed is None else HASHED
        rotten = self._rotten(site) if scrubbed is None else None
        if level == PRESENT and not rotten and last is not None and (last.site, last.objects) == (site, objects):
            snapshots, self._bad = last.snapshots, dict.fromkeys(last.names)  # nothing came and nothing went
        else:
            self._bad.update(dict.fromkeys(rotten or ()))
            for finding in scrubbed.problems if scrubbed is not None else ():
                self._bad.update(dict.fromkeys(n for n in finding.objects if not n.startswith(LEFT_OUT)))
            snapshots = self._complete()
        return AttestationRecord(
            self._vault.ring.config_digest, site, level, self._time, objects, snapshots, len(self._bad),
            tuple(self._bad)[:NAMES_MAX], head,
        )  # fmt: skip

    def _rotten(self, site: str) -> list[str]:
        """What the last reading of this site found damaged: being listed does not make it whole."""
        for attestation in newest_first(self._vault):
            if attestation.site == site and attestation.level == HASHED:
                self._blind |= attestation.bad > len(attestation.names)
                return [name for name in attestation.names if name in self._sizes]
        return []

    def _complete(self) -> tuple[SessionId, ...]:
        """Commits of domains in which nothing is missing: without a key nobody knows which pack a snapshot needs."""
        slots, problems = self._vault.history.slots()
        self._bad.update(dict.fromkeys(n for p in problems for n in p.affected))
        done = [s for s in slots if s.record.kind == GC_DONE and s.holder not in self._vault.ring.removed]
        removed = {name for s in done for name in s.record.removed}
        for name in {name for s in done for name in s.record.put} - removed - self._sizes.keys():
            self._bad[name] = None
            self._blind |= name.startswith(names.INDEX)
        # At a copy no index object comes that names what the source had removed.
        self._packs(set() if self._copy else removed)
        self._unlisted(removed, {s.record.sid for s in slots if not s.record.is_empty})
        collected = bool(removed)
        commits = [s for s in slots if s.record.kind == COMMIT and s.record.keyset <= self._vault.ring.current.number]
        return tuple(sorted(s.record.sid for s in commits if self._is_complete(s, collected)))

    def _packs(self, removed: set[str]) -> None:
        indexes = [name for name in self._sizes if name.startswith(names.INDEX)]
        for name, record in zip(indexes, ahead(self._index, indexes, INDEXES_AT_ONCE), strict=True):
            self._reporter.check()
            if isinstance(record, Untrusted):
                continue  # nobody heeds it; what it should say is missed where packs are listed nowhere
            if isinstance(record, Damaged):
                self._bad[name] = None
                self._blind = True
                continue
            self._written[record.sid].append((name, self._sizes[name]))
            for digest, size, of in record.packs:
                pack = names.pack(digest)
                self._named.add(pack)
                self._written[of].append((pack, size))
                if pack not in removed and self._sizes.get(pack) != size:
                    self._bad[pack] = None
                if pack in self._bad:
                    self._touched.add(record.domain)

    def _unlisted(self, removed: set[str], ended: set[SessionId]) -> None:
        """Packs of sessions that ended which no index object names: one is lost."""
        for name in [n for n in self._sizes if n.startswith(names.PACKS) and n not in self._named and n not in removed]:
            digest = names.content_digest(name)
            try:
                assert digest is not None
                head = self._vault.sessions.in_pack(PackId(digest), self._sizes[name])[0].head
            except (AssertionError, Damaged, NotFound):
                continue  # nobody's
            if head.sid in ended:
                self._bad[name] = None
                self._touched.add(head.domain)

    def _index(self, name: str) -> IndexRecord | Damaged:
        """The signed part; or what is wrong with it."""
        loader = self._vault.loader
        try:
            data = loader.fresh(ObjectInfo(name, self._sizes[name]))
            record, _ = loader.verify(data)
            if loader.author(data) in self._vault.ring.removed:
                return Untrusted("its writer's key was removed")  # others' index objects count
        except NotFound:
            return Damaged(f"{name} is gone")
        except Damaged as e:
            return e
        return record

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
