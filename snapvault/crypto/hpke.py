"""HPKE (RFC 9180) in base mode with the hybrid KEM MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM.

A private key is a 32-byte seed, expanded by HKDF into the 64-byte ML-KEM seed and the X25519 private key; the hybrid
keys of ``cryptography`` do not serialise themselves.  A public key is the ML-KEM-768 encapsulation key (1184 bytes)
followed by the X25519 key (32 bytes).
"""

from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from snapvault.crypto.kdf import derive
from snapvault.foundation.errors import Damaged

MLKEM_PUBLIC, X25519_PUBLIC = 1184, 32
PUBLIC_SIZE = MLKEM_PUBLIC + X25519_PUBLIC
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class HpkePrivateKey:
    """A recipient's key, from its 32-byte seed."""

    def __init__(self, seed: bytes) -> None:
        self._mlkem = MLKEM768PrivateKey.from_seed_bytes(derive(seed, "hpke ml-kem-768", length=64))
        self._x25519 = X25519PrivateKey.from_private_bytes(derive(seed, "hpke x25519"))

    @cached_property
    def public(self) -> bytes:
        """The public key, ``PUBLIC_SIZE`` bytes."""
        return self._mlkem.public_key().public_bytes_raw() + self._x25519.public_key().public_bytes_raw()

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """What was sealed to this key under the same ``info``; Damaged otherwise."""
        try:
            return _SUITE.decrypt(sealed, MLKEM768X25519PrivateKey(self._mlkem, self._x25519), info)
        except (InvalidTag, ValueError):
            raise Damaged("something sealed to a public key does not verify") from None


def hpke_seal(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Encapsulated key and ciphertext, for the holder of ``public`` alone.  Damaged if ``public`` is no key."""
    if len(public) != PUBLIC_SIZE:
        raise Damaged("a public key has the wrong size")
    try:
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:MLKEM_PUBLIC]),
            X25519PublicKey.from_public_bytes(public[MLKEM_PUBLIC:]),
        )
        return _SUITE.encrypt(plaintext, key, info)
    except ValueError:
        raise Damaged("a public key is malformed") from None
