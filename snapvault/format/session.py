"""The session header: stored as ``sessions/<sid>`` and at the head of every pack (docs/format/session.md)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from snapvault.format.names import GC_PREFIX, checked_session_id
from snapvault.format.wire import FormatError, pack, shaped, sized, typed, unpack
from snapvault.foundation.ids import DomainId, SessionId

SUITE = 1  # HPKE MLKEM768-X25519 / HKDF-SHA256 / AES-256-GCM, Ed25519, BLAKE3
READ, RECOVERY = "read", "recovery"
WRITER, GC, UNDELETE = "writer", "gc", "undelete"


class Stanza(NamedTuple):
    """Session secret and domain secret (64 bytes), sealed to one public key of an epoch."""

    recipient: str  # READ or RECOVERY
    epoch: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class SessionHead:
    """Everything but the stanzas; its encoding is the HPKE info of each stanza."""

    config: bytes
    keyset: int
    domain: DomainId
    sid: SessionId
    purpose: str  # WRITER, GC, UNDELETE
    certificate: bytes
    commitment: bytes  # to the session secret

    def encode(self) -> bytes:
        return pack(
            [SUITE, self.config, self.keyset, self.domain, self.sid, self.purpose, self.certificate, self.commitment]
        )


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A head, its exact bytes, and the stanzas."""

    head: SessionHead
    head_bytes: bytes
    stanzas: tuple[Stanza, ...]

    def encode(self) -> bytes:
        """The payload to sign."""
        return pack([self.head_bytes, self.stanzas])


def decode_session(payload: bytes) -> SessionRecord:
    """FormatError if malformed."""

    def build() -> SessionRecord:
        head, stanzas = unpack(payload)
        return SessionRecord(
            _head(*unpack(typed(head, bytes, "head"))),
            head,
            tuple(
                Stanza(typed(r, str, "recipient"), typed(e, int, "epoch"), typed(s, bytes, "stanza"))
                for r, e, s in stanzas
            ),
        )

    return shaped(build, "session")


def _head(
    suite: Any, config: Any, keyset: Any, domain: Any, sid: Any, purpose: Any, certificate: Any, commitment: Any
) -> SessionHead:
    if suite != SUITE:
        raise FormatError(f"a session uses suite {suite!r}, which this snapvault does not know")
    sid = checked_session_id(sid)
    if purpose not in (WRITER, GC, UNDELETE) or (purpose == GC) != sid.startswith(GC_PREFIX):
        raise FormatError("a session has a purpose that does not fit its id")
    return SessionHead(
        sized(config, 32, "config"),
        typed(keyset, int, "keyset"),
        DomainId(sized(domain, 16, "domain")),
        sid,
        purpose,
        typed(certificate, bytes, "certificate"),
        sized(commitment, 32, "commitment"),
    )
