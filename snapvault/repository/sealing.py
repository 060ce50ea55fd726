"""The sealed part of a record: compressed, padded so that its length tells little, and sealed for one purpose."""

from snapvault.compression import compress, decompress
from snapvault.crypto.envelope import OVERHEAD, padme, seal, unseal


def seal_part(secret: bytes, purpose: str, context: bytes, raw: bytes) -> bytes:
    """The envelope of these bytes (docs/format/envelope.md)."""
    codec, data = compress(raw)
    padding = padme(OVERHEAD + len(data)) - OVERHEAD - len(data)
    return seal(secret, purpose, context, codec, len(raw), data, padding)


def open_part(secret: bytes, purpose: str, context: bytes, sealed: bytes | memoryview) -> bytes | memoryview:
    """The bytes in an envelope; Damaged."""
    opened = unseal(secret, purpose, context, sealed)
    return decompress(opened.codec, opened.data, opened.raw_length)
