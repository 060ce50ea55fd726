"""The one envelope for everything sealed (docs/format/envelope.md).

    salt (32) | AES-256-GCM( codec (1) | zero (3) | raw length (4) | data length (4) | data | zero padding ) | tag (16)

The key is HKDF-SHA256(secret, salt, purpose and context), used once, so the nonce is zero: there is no counter that a
crash, a fork or a second writer could repeat.  GCM does not commit to its key; where several keys may be tried against
one envelope (slots) or a secret comes from outside (session headers), a separate commitment is checked first.
"""

import os
import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import GCM

from snapvault.crypto.kdf import derive
from snapvault.foundation.errors import Damaged

SALT_SIZE = 32
TAG_SIZE = 16
HEADER = struct.Struct("<BxxxII")
OVERHEAD = SALT_SIZE + HEADER.size + TAG_SIZE
MAX_RAW = 64 << 20  # bytes of plaintext in any envelope: the format's maximum
_NONCE = bytes(12)


class Opened(NamedTuple):
    """An opened envelope: ``data`` is still encoded by ``codec`` and decodes to ``raw_length`` bytes."""

    codec: int
    raw_length: int
    data: memoryview


def seal(
    secret: bytes, purpose: str, context: bytes, codec: int, raw_length: int, data: bytes | memoryview, padding: int = 0
) -> bytes:
    """A fresh envelope, ``OVERHEAD + len(data) + padding`` bytes."""
    sealed = bytearray(OVERHEAD + len(data) + padding)
    seal_into(memoryview(sealed), secret, purpose, context, codec, raw_length, data)
    return bytes(sealed)


def seal_into(
    out: memoryview,
    secret: bytes,
    purpose: str,
    context: bytes,
    codec: int,
    raw_length: int,
    data: bytes | bytearray | memoryview,
) -> None:
    """A fresh envelope that fills ``out``; what is larger than ``OVERHEAD + len(data)`` is padding."""
    padding = len(out) - OVERHEAD - len(data)
    if raw_length > MAX_RAW or len(data) > MAX_RAW or padding < 0:
        raise ValueError("larger than an envelope may be")
    salt = os.urandom(SALT_SIZE)
    # In parts, so that the data need not be joined to its header first.
    cipher = Cipher(AES256(derive(secret, purpose, context, salt=salt)), GCM(_NONCE)).encryptor()
    out[:SALT_SIZE] = salt
    at = SALT_SIZE
    for part in (HEADER.pack(codec, raw_length, len(data)), data, bytes(padding)):
        at += cipher.update_into(part, out[at:])
    cipher.finalize()
    out[at:] = cipher.tag


def unseal(secret: bytes, purpose: str, context: bytes, sealed: bytes | memoryview) -> Opened:
    """Open an envelope.  Raises Damaged if a single bit differs from what was sealed for this purpose and context."""
    sealed = memoryview(sealed)
    if len(sealed) < OVERHEAD:
        raise Damaged(f"a sealed {purpose} is cut short")
    cipher = AESGCM(derive(secret, purpose, context, salt=bytes(sealed[:SALT_SIZE])))
    try:
        plain = memoryview(cipher.decrypt(_NONCE, sealed[SALT_SIZE:], None))
    except InvalidTag:
        raise Damaged(f"a sealed {purpose} does not verify") from None
    codec, raw_length, length = HEADER.unpack_from(plain)
    if raw_length > MAX_RAW or length > len(plain) - HEADER.size:
        raise Damaged(f"a sealed {purpose} states an impossible length")
    return Opened(codec, raw_length, plain[HEADER.size : HEADER.size + length])


def padme(length: int, floor: int = 4096) -> int:
    """The Padmé length for ``length`` (Nikitin et al., PETS 2019): at most 12 % more, O(log log) bits leak.

    Never below ``floor``.
    """
    if length <= floor:
        return floor
    e = length.bit_length() - 1
    s = e.bit_length()
    mask = (1 << (e - s)) - 1
    return (length + mask) & ~mask
