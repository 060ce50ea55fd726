"""A pack, byte by byte, and the table of blobs that both its directory and an index hold (docs/format/pack.md).

    "SVPK" | version 1 | three zero bytes | header length (4) | session header | sealed segments ... |
    sealed directory, padded | sealed trailer (fixed size)

The trailer, sealed like everything else, says where the directory stands, so the store does not see how many bytes of
segments there are.
"""

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from snapvault.format.tree import ID_SIZE, BlobType
from snapvault.format.wire import FormatError, pack, shaped, typed, unpack
from snapvault.foundation.ids import BlobId

MAGIC = b"SVPK\x01\x00\x00\x00"
PREFIX = struct.Struct("<8sI")
TRAILER = struct.Struct("<QII")  # offset of the directory, its sealed length, zero
MAX_SEGMENT_RAW = 16 << 20  # plaintext bytes of a segment: a cap for readers
MAX_HEADER = 64 << 10
MAX_PACK = 1 << 30  # bytes; a larger one is hostile
SEGMENT_ROW = struct.Struct("<IIII")


class Blob(NamedTuple):
    """One blob in a segment: where its plaintext stands there."""

    id: BlobId
    type: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of blobs sealed together.  ``ids`` are 32 bytes each; ``lengths`` ("I") and ``types`` run beside them."""

    offset: int  # in the pack
    sealed: int  # bytes in the pack
    raw: int  # bytes of plaintext
    ids: bytes
    lengths: "array[int]"
    types: bytes

    def blobs(self) -> Iterator[Blob]:
        offset = 0
        for i, length in enumerate(self.lengths):
            yield Blob(BlobId(self.ids[i * ID_SIZE : (i + 1) * ID_SIZE]), self.types[i], offset, length)
            offset += length


def encode_segments(segments: Sequence[Segment]) -> list[bytes]:
    """The table of a pack's segments as four columns: rows, ids, lengths, types."""
    rows = b"".join(SEGMENT_ROW.pack(s.offset, s.sealed, s.raw, len(s.lengths)) for s in segments)
    lengths = array("I")
    for s in segments:
        lengths += s.lengths
    return [rows, b"".join(s.ids for s in segments), _swapped(lengths).tobytes(), b"".join(s.types for s in segments)]


def _swapped(words: "array[int]") -> "array[int]":
    """From little endian to what this machine has, or back; in place."""
    if sys.byteorder == "big":
        words.byteswap()
    return words


def decode_segments(columns: Any, pack_size: int) -> list[Segment]:
    """The segments of a pack of ``pack_size`` bytes; FormatError unless everything fits together."""

    def build() -> list[Segment]:
        rows, ids, lengths_bin, types = (typed(c, bytes, "column") for c in columns)
        lengths = array("I")
        lengths.frombytes(lengths_bin)
        lengths = _swapped(lengths)
        if len(ids) != ID_SIZE * len(lengths) or len(types) != len(lengths) or set(types) - set(BlobType.ALL):
            raise FormatError("the columns of a blob table do not fit together")
        segments, at = [], 0
        for offset, sealed, raw, count in SEGMENT_ROW.iter_unpack(rows):
            part = lengths[at : at + count]
            if len(part) != count or sum(part) != raw or raw > MAX_SEGMENT_RAW or offset + sealed > pack_size:
                raise FormatError("a segment states impossible bounds")
            end = at + count
            segments.append(Segment(offset, sealed, raw, ids[at * ID_SIZE : end * ID_SIZE], part, types[at:end]))
            at = end
        if at != len(lengths):
            raise FormatError("a blob table holds blobs of no segment")
        return segments

    try:
        return shaped(build, "blob table")
    except (struct.error, ValueError) as e:  # a column that is not whole rows
        raise FormatError("a blob table is malformed") from e


def encode_directory(segments: Sequence[Segment]) -> bytes:
    """The directory's plaintext."""
    return pack(encode_segments(segments))


def decode_directory(data: bytes | memoryview, pack_size: int) -> list[Segment]:
    """The segments that a directory lists; FormatError."""
    return decode_segments(unpack(data), pack_size)
