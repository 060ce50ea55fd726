"""Ed25519 (RFC 8032) signatures over a label and the exact bytes of a payload."""

from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_SIZE, SIGNATURE_SIZE = 32, 64


def _message(label: str, payload: bytes) -> bytes:
    return f"snapvault/1 signed {label}".encode() + b"\0" + payload


class SigningKey:
    """A signer, from its 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @cached_property
    def public(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    def sign(self, label: str, payload: bytes) -> bytes:
        """A signature, 64 bytes.  ``label`` keeps a signature of one kind of object from standing for another."""
        return self._key.sign(_message(label, payload))


def verify(public: bytes, label: str, payload: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is the holder's over this label and payload."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _message(label, payload))
    except (InvalidSignature, ValueError):
        return False
    return True
