"""The chunker: content-defined cuts under a secret key (docs/format/chunking.md)."""

import struct
from typing import TYPE_CHECKING

from blake3 import blake3

from snapvault.chunking import twin
from snapvault.chunking.sizes import Chunking
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.native import native, warn_about_twin

if TYPE_CHECKING:
    from typing_extensions import Buffer

KEY_SIZE = 32
_TABLE_CONTEXT = b"snapvault/1 chunk table"
_TABLE_SIZE = 256 * 8


def chunk_table(key: bytes) -> bytes:
    """The secret table of a 32-byte key: 256 integers of 64 bits, little-endian, one for each byte value."""
    if len(key) != KEY_SIZE:
        raise InvalidInput(f"a chunker key has {KEY_SIZE} bytes, not {len(key)}")
    return blake3(_TABLE_CONTEXT, key=key).digest(length=_TABLE_SIZE)


class Chunker:
    """Finds where chunks end. Immutable, so that any number of threads may use one; the GIL is released meanwhile."""

    __slots__ = ("_table", "sizes")

    def __init__(self, sizes: Chunking, key: bytes) -> None:
        """Raises InvalidInput if the key is not 32 bytes."""
        self.sizes = sizes
        self._table = chunk_table(key)

    def cuts(self, data: "Buffer", *, final: bool) -> list[int]:
        """Ascending ends of the chunks in ``data``, as offsets into it; ``data`` begins where a chunk begins.

        Without ``final`` only ends that later data cannot move are given. What lies behind the last one is the
        caller's to put in front of the next data, so that the cuts do not depend on how a stream is split up. It is
        scanned again then: hand over several times the maximum at once. With ``final`` the last end is ``len(data)``.
        """
        sizes = self.sizes
        if native is not None:
            found: list[int] = native.cuts(data, self._table, sizes.minimum, sizes.average, sizes.maximum, final)
            return found
        warn_about_twin()
        return twin.cuts(memoryview(data).cast("B"), struct.unpack("<256Q", self._table), sizes, final=final)
