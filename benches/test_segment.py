"""Sealing and opening of segments beside what zstd, AES-GCM and BLAKE3 cost when they are called directly.

The bare side does the least that the result needs: join, compress, encrypt and hash what is uploaded; decrypt,
decompress, and hash each blob.  Sealing also decompresses and compares what it compressed before it trusts it; the
second bare side does so, too.
"""

import os
from typing import Any

import pytest
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from snapvault.crypto.envelope import OVERHEAD
from snapvault.foundation.ids import DomainId, SessionId
from snapvault.repository.packs import EncodedSegment, SessionSecrets, encode_segment, open_segment

SECRETS = SessionSecrets(SessionId("0" * 32), DomainId(bytes(16)), os.urandom(32), os.urandom(32))
KEY, NONCE = os.urandom(32), bytes(12)
SIZE, BLOB = 4 << 20, 64 << 10
PLACE = bytearray(SIZE + OVERHEAD)  # in a pack


@pytest.fixture(params=["text", "noise"])
def blobs(request: pytest.FixtureRequest) -> list[bytes]:
    """A segment's blobs."""
    data: bytes = request.getfixturevalue(request.param)
    return [data[at : at + BLOB] for at in range(0, SIZE, BLOB)]


def bare_seal(blobs: list[bytes], *, verified: bool) -> bytes:
    raw = b"".join(blobs)
    packed = zstandard.ZstdCompressor(level=3).compress(raw)
    if verified and zstandard.ZstdDecompressor().decompress(packed) != raw:
        raise AssertionError
    sealed = AESGCM(KEY).encrypt(NONCE, packed, None)
    blake3(sealed).digest()
    return sealed


def sealed(encoded: EncodedSegment) -> memoryview:
    place = memoryview(PLACE)[: encoded.sealed_length]
    encoded.seal_into(place, SECRETS)
    return place


@pytest.mark.parametrize("verified", [False, True], ids=["bare", "bare-verified"])
def test_seal(meter: Any, blobs: list[bytes], verified: bool) -> None:
    def seal() -> None:
        blake3(sealed(encode_segment(b"".join(blobs)))).digest()

    meter.beside(seal, lambda: bare_seal(blobs, verified=verified), SIZE)


def test_open(meter: Any, blobs: list[bytes]) -> None:
    ours = sealed(encode_segment(b"".join(blobs)))
    bare = bare_seal(blobs, verified=False)

    def hashed(raw: memoryview) -> None:
        for at in range(0, SIZE, BLOB):
            blake3(raw[at : at + BLOB], key=KEY).digest()

    def open_bare() -> None:
        packed = AESGCM(KEY).decrypt(NONCE, bare, None)
        hashed(memoryview(zstandard.ZstdDecompressor().decompress(packed)))

    meter.beside(lambda: hashed(open_segment(SECRETS, ours)), open_bare, SIZE)
