"""A writer's session, by the rules W1 to W5 (docs/format/session.md, docs/concurrency.md).

W1 announce; W2 then see what is condemned, what packs there are, and only then which blobs may be deduplicated onto;
W3 packs; W4 index; W5 commit by put-if-absent.
"""

import contextlib
import os
import secrets as random
import threading
from collections.abc import Sequence

from blake3 import blake3

from snapvault.backend.own import holds, put_own
from snapvault.backend.protocol import Backend, Exists
from snapvault.backend.wrapper import discard, settle
from snapvault.crypto.hpke import hpke_seal
from snapvault.crypto.kdf import SECRET_SIZE, context_digest
from snapvault.format import names
from snapvault.format.index import IndexRecord, encode_table
from snapvault.format.local import encode_heartbeat
from snapvault.format.pack import Segment
from snapvault.format.session import READ, RECOVERY, WRITER, SessionHead, SessionRecord, Stanza
from snapvault.format.snapshot import ABORT, COMMIT, GC_DONE, REVOKED, Objects, SnapshotDetails, SnapshotRecord, merkle
from snapvault.format.wire import Kind
from snapvault.foundation.errors import Conflict, InvalidInput, SnapvaultError
from snapvault.foundation.ids import DomainId, SessionId
from snapvault.repository.index import PackRow
from snapvault.repository.keyring import DomainKeys, Keyring
from snapvault.repository.packs import SessionSecrets, session_context
from snapvault.repository.sealing import seal_part
from snapvault.repository.sessions import secret_commitment, stanza_info
from snapvault.repository.store import Store
from snapvault.repository.trust import sign

HEARTBEAT_SECONDS = 60.0
ZERO = bytes(32)


class Session:
    """One run of a writer: a header, an id, a secret that only readers can open later."""

    def __init__(
        self, store: Store, ring: Keyring, domain: DomainKeys, *, purpose: str = WRITER, sid: SessionId | None = None
    ) -> None:
        self.ring, self._store, self.domain = ring, store, domain
        self.sid = sid or SessionId(random.token_hex(16))
        secret = os.urandom(SECRET_SIZE)
        context = session_context(ring.config_digest, self.sid)
        self.secrets = SessionSecrets(self.sid, domain.id, secret, context)
        self.header = self._build_header(purpose)
        self._objects: list[tuple[str, int]] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._heart = _Heart(store, self.sid)

    def _build_header(self, purpose: str) -> bytes:
        ring, s = self.ring, self.secrets
        keys = ring.signing
        if ring.holder is None:
            raise Conflict("this key is no holder of the repository any more")
        commitment = secret_commitment(s.secret, s.context)
        certificate = ring.holder.certificate
        head = SessionHead(ring.config_digest, ring.current.number, s.domain, s.sid, purpose, certificate, commitment)
        info = head.encode()
        epoch = ring.current.epochs[-1]
        both = s.secret + self.domain.secret
        stanzas = tuple(
            Stanza(recipient, epoch.number, hpke_seal(public, both, stanza_info(recipient, info)))
            for recipient, public in ((READ, epoch.read), (RECOVERY, epoch.recovery))
        )
        return sign(Kind.SESSION, SessionRecord(head, info, stanzas).encode(), keys.id, keys.signer)

    @classmethod
    def resume(
        cls, store: Store, ring: Keyring, domain: DomainKeys, secrets: SessionSecrets, header: bytes
    ) -> "Session":
        """A session of one's own that an earlier process announced and left open, having put nothing."""
        session = cls(store, ring, domain, sid=secrets.sid)
        session.secrets, session.header = secrets, header
        session._heart.start()
        return session

    def pause(self) -> None:
        """Leave it open for a later process, which resumes it."""
        self._heart.stop()

    def announce(self) -> None:
        """W1.  From here on a GC waits for this session."""
        put_own(self._store.backend, names.session(self.sid), self.header)
        self._heart.start()

    def check_process(self) -> None:
        """InvalidInput in a process that forked from the one that opened the repository."""
        if os.getpid() != self._pid:
            raise InvalidInput("this process forked after the repository was opened; open it again in the child")

    def put_object(self, name: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """A content-named object of this session, whole in the store when this returns."""
        backend = self._store.backend
        with self._lock:  # before: it may be there although the put fails
            self._objects.append((name, sum(len(p) for p in parts)))
        try:
            backend.put_if_absent(name, parts)
        except Exists:
            # A put whose reply was lost, or one that a store without atomic puts left half done: the name is that of
            # these very bytes, so nothing else may stand there, and what does may be replaced.
            if not holds(backend, name, parts):
                backend.put(name, parts)

    @property
    def wrote(self) -> bool:
        """Whether there are objects that need this session's header."""
        return bool(self._objects)

    def put_index(self, packs: Sequence[tuple[PackRow, Sequence[Segment]]]) -> None:
        """W4: an index object for packs that are all in the store."""
        name, data = encode_index(self.ring, self.domain, self.sid, packs)
        self.put_object(name, [data])

    def commit(self, details: SnapshotDetails, heads: tuple[tuple[SessionId, bytes], ...], number: int) -> bytes:
        """W5: the snapshot is durable when this returns.  Its record's bytes; Conflict if the session was revoked."""
        sealed = seal_part(self.secrets.secret, "record", self.secrets.context, details.encode())
        with self._lock:
            objects = merkle(self._objects)
        # The keys that this is sealed to, the blobs it deduplicated onto and its predecessors may be another's.
        settle(self._store.backend, (names.KEYSETS, names.INDEX, names.SNAPSHOTS))
        record = self._fill(COMMIT, sealed, objects=objects, prevs=heads, number=number)
        self._heart.stop()
        return record

    def finish_gc(self, removed: Sequence[str]) -> None:
        """G7: fill the slot of a GC's session with what it removes for ever; Conflict if it was revoked before."""
        with self._lock:
            put = tuple(sorted(name for name, _ in self._objects))
        settle(self._store.backend, (names.PACKS, names.INDEX, names.SNAPSHOTS))
        self._fill(GC_DONE, b"", removed=tuple(removed), put=put)
        self._heart.stop()

    def abort(self) -> bool:
        """Fill the slot with "abort", so that a GC need not wait for this session: whether that is what it holds now.

        Failures are left to the lease.
        """
        self._heart.stop()
        with contextlib.suppress(SnapvaultError):
            self._fill(ABORT, b"")
            return True
        return False

    def _fill(
        self,
        kind: str,
        sealed: bytes,
        *,
        objects: Objects | None = None,
        prevs: tuple[tuple[SessionId, bytes], ...] = (),
        number: int = 0,
        removed: tuple[str, ...] = (),
        put: tuple[str, ...] = (),
    ) -> bytes:
        ring, keys = self.ring, self.ring.signing
        certificate = ring.holder.certificate if ring.holder is not None else b""
        digest = blake3(sealed).digest() if sealed else ZERO
        summary = objects or merkle([])
        header = self.header if kind == COMMIT else b""
        record = SnapshotRecord(
            ring.config_digest, kind, self.sid, certificate, number, prevs, ring.current.number, summary, removed, put,
            digest, header,
        )  # fmt: skip
        data = sign(Kind.SNAPSHOT, record.encode(), keys.id, keys.signer, sealed)
        try:
            self._store.backend.put_if_absent(names.snapshot(self.sid), [data])
        except Exists:
            self._settle(data)
        return data

    def _settle(self, data: bytes) -> None:
        """The slot is taken: by our own put whose reply was lost, or by a revocation."""
        if not holds(self._store.backend, names.snapshot(self.sid), [data]):
            raise Conflict(
                f"session {self.sid} was revoked before it could commit; nothing was acknowledged",
                hint="run the backup again; what was indexed is not uploaded twice",
            )


def open_sessions(backend: Backend) -> set[SessionId]:
    """The sessions whose slot is empty: of writers that run, or died.  Names that no session can have are left out."""
    found = {o.name.removeprefix(names.SESSIONS) for o in backend.list(names.SESSIONS)}
    found -= {o.name.removeprefix(names.SNAPSHOTS) for o in backend.list(names.SNAPSHOTS)}
    return {SessionId(sid) for sid in found if names.is_session_id(sid)}


def revoke(store: Store, ring: Keyring, sid: SessionId) -> bool:
    """Fill the slot of another's session with "revoked", if it is still empty; then it can never commit.

    Whether it was empty, as far as that is known.
    """
    if ring.holder is None:
        raise Conflict("this key is no holder of the repository any more")
    keys = ring.signing
    record = SnapshotRecord(
        ring.config_digest, REVOKED, sid, ring.holder.certificate, 0, (), ring.current.number, merkle([]), (), (), ZERO
    )
    with contextlib.suppress(Exists):
        data = sign(Kind.SNAPSHOT, record.encode(), keys.id, keys.signer)
        store.backend.put_if_absent(names.snapshot(sid), [data])
        return True
    return False


def encode_index(
    ring: Keyring, domain: DomainKeys, sid: SessionId, packs: Sequence[tuple[PackRow, Sequence[Segment]]]
) -> tuple[str, bytes]:
    """Name and bytes of an index object."""
    table = encode_table([segments for _, segments in packs])
    sealed = seal_part(domain.index_key, "index", index_context(ring.config_digest, domain.id), table)
    rows = tuple((row.id, row.size, row.sid) for row, _ in packs)
    record = IndexRecord(ring.config_digest, sid, domain.id, rows, blake3(sealed).digest())
    keys = ring.signing
    signed = sign(Kind.INDEX, record.encode(), keys.id, keys.signer, sealed)
    return names.index(blake3(signed).digest()), signed


def index_context(config_digest: bytes, domain: DomainId) -> bytes:
    """The context digest of an index object's sealed part."""
    return context_digest(config_digest, domain)


class _Heart:
    """Puts ``local/heartbeats/<sid>/<n>`` once a minute while the session lives, and removes those before.

    Each under a new name, whatever became of the last: where nothing may be deleted or replaced, they pile up, and a
    prune removes them.
    """

    def __init__(self, store: Store, sid: SessionId) -> None:
        self._store, self._sid = store, sid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="snapvault-heartbeat", daemon=True)
        self._first = self._number = 0  # the oldest that may be there, and the newest

    def start(self) -> None:
        self._thread.start()

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            self._number += 1
            with contextlib.suppress(SnapvaultError):  # a lost beat costs at worst a revocation, never data
                name = names.heartbeat(self._sid, self._number)
                self._store.backend.put_if_absent(name, [encode_heartbeat(self._sid, self._number)])
                self._remove_before(self._number)

    def _remove_before(self, number: int) -> None:
        while self._first < number:
            if self._first:
                discard(self._store.backend, names.heartbeat(self._sid, self._first))
            self._first += 1

    def stop(self) -> None:
        """Idempotent."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(SnapvaultError):
            self._remove_before(self._number + 1)
