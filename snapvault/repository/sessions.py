"""Opening what sessions wrote: header -> stanza -> session secret (docs/format/session.md)."""

import hmac
import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress

from blake3 import blake3

from snapvault.backend.protocol import Backend, NotFound
from snapvault.crypto.kdf import SECRET_SIZE, derive
from snapvault.format import names
from snapvault.format.keyset import CertificateRecord
from snapvault.format.session import READ, RECOVERY, SessionHead, SessionRecord
from snapvault.format.snapshot import SnapshotRecord
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import HolderId, PackId, SessionId
from snapvault.repository.failover import first_whole, once_more
from snapvault.repository.keyring import DomainKeys, Keyring
from snapvault.repository.packs import SessionSecrets, read_header, session_context
from snapvault.repository.store import Store, reread
from snapvault.repository.trust import Untrusted, trusted_session

log = logging.getLogger("snapvault")


def stanza_info(recipient: str, head: bytes) -> bytes:
    """HPKE info of a stanza: its purpose, and all other fields of the header."""
    return b"snapvault/1 session " + recipient.encode() + b"\0" + head


def secret_commitment(secret: bytes, context: bytes) -> bytes:
    """Pins the one session secret that a header may open to."""
    return derive(secret, "session commitment", context)


Header = tuple[SessionRecord, CertificateRecord]


class Sessions:
    """Verified headers and secrets of sessions, remembered.  Thread-safe.

    The object ``sessions/<sid>`` says which header a session has.  Only where it is lost do the copies count, the one
    in the commit slot and those in packs, each for its own: whoever may write can put any session's id into its own.
    """

    def __init__(self, store: Store, ring: Keyring) -> None:
        self._store, self._ring = store, ring
        self._lock = threading.Lock()
        self._headers: dict[SessionId, Header | Damaged] = {}  # by the object, or why there is none
        self._copies: dict[tuple[SessionId, PackId], Header] = {}
        self._commits: dict[SessionId, Header] = {}  # by the copy in a commit slot
        self._verified: dict[bytes, Header] = {}  # by the digest of the exact bytes
        self._secrets: dict[bytes, SessionSecrets] = {}  # by the exact bytes of the head
        self._domains: dict[tuple[SessionId, bytes], DomainKeys] = {}  # of a session, by its id and secret
        self.problems: list[Damaged] = []  # sessions that contradict what is known of their domain
        self.locate: Callable[[SessionId], Iterable[PackId]] = lambda _: ()  # packs that may carry a session's header

    def through(self, store: Store) -> "Sessions":
        """The same sessions, read through another store; what is known of them is shared."""
        other = Sessions(store, self._ring)
        other._lock, other._headers, other._copies = self._lock, self._headers, self._copies
        other._secrets, other._commits, other._verified = self._secrets, self._commits, self._verified
        other._domains, other.problems = self._domains, self.problems
        return other

    def verify(self, data: bytes, sid: SessionId | None = None) -> Header:
        """A header that was signed by an entitled writer (and is that of ``sid``); Untrusted or FormatError."""
        digest = blake3(data).digest()
        with self._lock:
            known = self._verified.get(digest)  # a commit carries the same bytes as the object
        if known is None:
            known = trusted_session(data, self._ring.config_digest, self._ring.config.owner_sign)
            with self._lock:
                self._verified[digest] = known
        session, certificate = known
        if sid is not None and session.head.sid != sid:
            raise Untrusted(f"the header of session {session.head.sid} stands where {sid} belongs")
        return session, certificate

    def header(self, sid: SessionId, packs: Iterable[PackId] = (), holder: HolderId | None = None) -> Header:
        """The header of a session: its object, or the copy in its commit, or at the head of a pack of it.

        ``packs``: those alone, before the commit.  Damaged if it cannot be had.  ``holder``: a copy by somebody else
        does not count.
        """
        known = self._by_object(sid)
        if not isinstance(known, Damaged):
            return known
        given = tuple(packs)
        with self._lock:
            commit = self._commits.get(sid)
        if not given and commit is not None and holder in (None, commit[1].holder):
            return commit
        for pack in given or self.locate(sid):
            try:
                copy = self._by_copy(sid, pack)
            except (NotFound, Damaged):
                continue
            if holder is None or copy[1].holder == holder:
                return copy
        raise known

    def opened_by(self, sid: SessionId) -> HolderId | None:
        """The holder who opened a session, by its object; None if that cannot be had."""
        known = self._by_object(sid)
        return None if isinstance(known, Damaged) else known[1].holder

    def by_commit(self, record: SnapshotRecord) -> HolderId:
        """Take the copy of the header in a commit; the holder in it.  Untrusted, FormatError."""
        header = self.verify(record.session, record.sid)
        with self._lock:
            self._commits[record.sid] = header
        return header[1].holder

    def prefetch(self, sids: Iterable[SessionId]) -> None:
        """Fetch the objects of many sessions at once; what is wrong with them is told by ``header``."""
        with self._lock:
            wanted = [sid for sid in sids if sid not in self._headers]
        for sid, data in zip(wanted, self._store.immutables([names.session(sid) for sid in wanted]), strict=True):
            with suppress(Damaged):  # told to whoever asks for it
                if not isinstance(data, Damaged):
                    self.learn(sid, data)

    def learn(self, sid: SessionId, data: bytes) -> None:
        """Take the bytes of a session's object; Untrusted, FormatError."""
        known = self.verify(data, sid)
        with self._lock:
            self._headers.setdefault(sid, known)

    def _by_object(self, sid: SessionId) -> Header | Damaged:
        with self._lock:
            known = self._headers.get(sid)
        if known is None:
            known = self._read(sid)
            with self._lock:
                self._headers[sid] = known
        return known

    def _read(self, sid: SessionId) -> Header | Damaged:
        name = names.session(sid)
        try:
            try:
                return self.verify(self._store.immutable(name), sid)
            except Damaged:
                return once_more(self._store, name, lambda fresh: self.verify(fresh, sid))
        except NotFound:
            return Damaged(f"the header of session {sid} is gone", affected=[name])
        except Damaged as e:
            return e

    def _by_copy(self, sid: SessionId, pack: PackId) -> Header:
        with self._lock:
            known = self._copies.get((sid, pack))
        if known is None:
            known = self.in_pack(pack, sid=sid)
            with self._lock:
                self._copies[sid, pack] = known
        return known

    def in_pack(self, pack: PackId, size: int | None = None, *, sid: SessionId | None = None) -> Header:
        """The header at the head of a pack, whose size may be known (and that of ``sid``); Damaged, NotFound."""

        def read(place: Backend) -> Header:
            return self.verify(read_header(place, pack, size), sid)

        return reread(lambda: first_whole(self._store.backend, names.pack(pack), read))

    def secrets(self, sid: SessionId, pack: PackId | None = None, holder: HolderId | None = None) -> SessionSecrets:
        """What opens this session's objects; RoleRequired for holders that may not read, Damaged."""
        self._ring.require_read("open stored data")
        session, _ = self.header(sid, () if pack is None else (pack,), holder)
        with self._lock:
            known = self._secrets.get(session.head_bytes)
        if known is None:
            known = self._open(session)
            with self._lock:
                self._secrets[session.head_bytes] = known
        return known

    def _open(self, session: SessionRecord) -> SessionSecrets:
        head = session.head
        both = self._open_stanza(session)
        if len(both) != 2 * SECRET_SIZE:
            raise Damaged(f"session {head.sid} seals secrets of the wrong size")
        secret, domain_secret = both[:SECRET_SIZE], both[SECRET_SIZE:]
        context = session_context(self._ring.config_digest, head.sid)
        if not hmac.compare_digest(secret_commitment(secret, context), head.commitment):
            raise Damaged(f"session {head.sid} does not hold the secret that it commits to")
        self._learn_domain(head, secret, domain_secret)
        return SessionSecrets(head.sid, head.domain, secret, context)

    def _open_stanza(self, session: SessionRecord) -> bytes:
        ring, info = self._ring, session.head_bytes
        for stanza in session.stanzas:
            if stanza.recipient == READ and stanza.epoch in ring.read_keys:
                return ring.read_keys[stanza.epoch].open(stanza.sealed, stanza_info(READ, info))
            if stanza.recipient == RECOVERY and ring.recovery is not None:
                with suppress(Damaged):  # sealed to another recovery key, issued before or after this one
                    return ring.recovery.open(stanza.sealed, stanza_info(RECOVERY, info))
        raise Damaged(
            f"session {session.head.sid} is sealed to no key that is at hand",
            hint="it belongs to an epoch that this key was never given, or to another recovery key",
        )

    def domain_keys(self, secrets: SessionSecrets) -> DomainKeys:
        """What verifies the blobs of a session: its domain as the keyset has it, else as the session itself says.

        Whoever lies about it then verifies nothing of its own, and harms no other session.
        """
        with self._lock:
            return self._domains[secrets.sid, secrets.secret]

    def _learn_domain(self, head: SessionHead, session_secret: bytes, secret: bytes) -> None:
        """With the recovery key alone, domains are known only from sessions; so is one that a lost keyset added."""
        stated = DomainKeys(head.domain, secret, self._ring.config_digest)
        known = self._ring.domains.setdefault(head.domain, stated)
        certain = self._ring.keyset is not None and any(d.id == head.domain for d in self._ring.keyset.domains)
        with self._lock:
            self._domains[head.sid, session_secret] = known if certain else stated
        if not hmac.compare_digest(known.secret, secret):
            problem = Untrusted(
                f"session {head.sid} states another secret of its domain than "
                f"{'the keyset' if certain else 'another session'}",
                affected=[names.session(head.sid)],
            )
            log.warning("%s", problem)
            self.problems.append(problem)
