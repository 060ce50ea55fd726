"""Key derivation: HKDF-SHA256 (RFC 5869) with one labelled purpose for each use, and the session's context digest."""

from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

LABEL = "snapvault/1 "
SECRET_SIZE = 32


def derive(secret: bytes, purpose: str, context: bytes = b"", *, salt: bytes = b"", length: int = SECRET_SIZE) -> bytes:
    """HKDF-SHA256(secret, salt, info = "snapvault/1 " + purpose + NUL + context), ``length`` bytes."""
    info = (LABEL + purpose).encode() + b"\0" + context
    return HKDF(hashes.SHA256(), length, salt or None, info).derive(secret)


def context_digest(*parts: bytes) -> bytes:
    """BLAKE3 over the parts, each preceded by its length (8 bytes, little endian): unambiguous."""
    digest = blake3()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
