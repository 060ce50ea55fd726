"""Who signed what: signatures over records, certificates, and which session may say what."""

from functools import lru_cache

from snapvault.crypto.signing import SigningKey, verify
from snapvault.format.keyset import CertificateRecord, Role, decode_certificate
from snapvault.format.session import GC, SessionRecord, decode_session
from snapvault.format.signed import Signature, Signed, decode_signed, encode_signed
from snapvault.format.wire import FormatError, Kind
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import HolderId

SCHEME = "ed25519"
LABELS = {
    Kind.KEYSET: "keyset",
    Kind.SESSION: "session",
    Kind.SNAPSHOT: "snapshot",
    Kind.INDEX: "index",
    Kind.NOTE: "note",
    Kind.TOMBSTONE: "tombstone",
    Kind.GC: "gc",
    Kind.VERIFIED: "verified",
    Kind.CERTIFICATE: "certificate",
    Kind.PROMOTION: "promotion",
    Kind.ATTESTATION: "attestation",
    Kind.REGISTER: "register",
    Kind.EVIDENCE: "evidence",
}


class Untrusted(Damaged):
    """An object is well formed, but whoever signed it may not say what it says."""

    code = "untrusted"
    hint = "somebody tampered with the store, or a client was taken over; 'snapvault check' lists what else is affected"


def sign(kind: int, payload: bytes, holder: HolderId, key: SigningKey, sealed: bytes = b"") -> bytes:
    """The framed, signed object."""
    return encode_signed(kind, Signed(payload, (Signature(holder, SCHEME, key.sign(LABELS[kind], payload)),), sealed))


def signed_by(kind: int, signed: Signed, public: bytes) -> bool:
    """Whether one of the signatures is by this key."""
    return any(s.scheme == SCHEME and verify(public, LABELS[kind], signed.payload, s.value) for s in signed.signatures)


def certify(record: CertificateRecord, owner: HolderId, key: SigningKey) -> bytes:
    """The owner's certificate of a holder."""
    return sign(Kind.CERTIFICATE, record.encode(), owner, key)


@lru_cache(maxsize=256)  # every session and every commit carries that of its writer
def trusted_certificate(data: bytes, config_digest: bytes, owner_sign: bytes) -> CertificateRecord:
    """A certificate that the owner of this repository signed; Untrusted otherwise."""
    signed = decode_signed(Kind.CERTIFICATE, data)
    record = decode_certificate(signed.payload)
    if record.config != config_digest or not signed_by(Kind.CERTIFICATE, signed, owner_sign):
        raise Untrusted("a certificate was not signed by the owner of this repository")
    return record


def trusted_session(data: bytes, config_digest: bytes, owner_sign: bytes) -> tuple[SessionRecord, CertificateRecord]:
    """A session header whose writer was entitled to it; Untrusted or FormatError otherwise."""
    signed = decode_signed(Kind.SESSION, data)
    session = decode_session(signed.payload)
    head = session.head
    certificate = trusted_certificate(head.certificate, config_digest, owner_sign)
    if head.config != config_digest:
        raise Untrusted(f"session {head.sid} belongs to another repository")
    if not signed_by(Kind.SESSION, signed, certificate.sign):
        raise Untrusted(f"session {head.sid} is not signed by the holder that it names")
    entitled = certificate.role in (Role.MAINTAINERS if head.purpose == GC else Role.WRITERS)
    if certificate.role in Role.MAINTAINERS:
        entitled = True  # a maintainer rebuilds and undeletes in every domain
    elif head.domain not in certificate.domains:
        entitled = False
    if not entitled:
        raise Untrusted(f"session {head.sid} was opened by a {certificate.role}, which may not")
    return session, certificate


def require(condition: bool, message: str) -> None:
    """FormatError unless the condition holds."""
    if not condition:
        raise FormatError(message)
