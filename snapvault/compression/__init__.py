"""Codecs: what the first byte of an envelope's plaintext says."""

import threading

import zstandard

from snapvault.foundation.errors import Damaged
from snapvault.foundation.native import same_bytes

RAW, ZSTD = 0, 1
LEVEL = 3

_ROOM = 5 << 20  # bytes that a thread has ready to decompress to
_local = threading.local()  # zstd contexts are not for two threads at once, and costly to make


def compress(data: bytes | memoryview, level: int = LEVEL) -> tuple[int, bytes | memoryview]:
    """(codec, encoded bytes); what does not shrink is kept as it is."""
    key = f"c{level}"
    compressor = getattr(_local, key, None)
    if compressor is None:
        compressor = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
        setattr(_local, key, compressor)
    packed = compressor.compress(data)
    return (ZSTD, packed) if len(packed) < len(data) else (RAW, data)


def decompresses(codec: int, data: bytes | memoryview, raw: bytes | memoryview) -> bool:
    """Whether ``data`` decompresses to ``raw``."""
    try:
        return same_bytes(decompress_in_place(codec, data, len(raw)), raw)
    except Damaged:
        return False


def decompress_in_place(codec: int, data: bytes | memoryview, raw_length: int) -> bytes | memoryview:
    """``decompress`` into memory that this thread's next call uses again."""
    if codec != ZSTD:
        return decompress(codec, data, raw_length)
    room: bytearray | None = getattr(_local, "room", None)
    if room is None or len(room) < raw_length:
        room = _local.room = bytearray(max(raw_length, _ROOM))
    out = memoryview(room)[:raw_length]
    try:
        if zstandard.frame_content_size(data) != raw_length or _frame_length(data) != len(data):
            raise Damaged("compressed data states another length than was sealed")
        with _decompressor().stream_reader(data) as reader:
            if reader.readinto(out) != raw_length or reader.read(1):
                raise Damaged("compressed data has another length than it states")
    except zstandard.ZstdError as e:
        raise Damaged("compressed data does not decompress") from e
    return out


def decompress(codec: int, data: bytes | memoryview, raw_length: int) -> bytes | memoryview:
    """The ``raw_length`` bytes that were compressed; Damaged if the data says otherwise (never more is allocated)."""
    if codec == RAW:
        if len(data) != raw_length:
            raise Damaged("stored data has another length than it states")
        return data
    if codec != ZSTD:
        raise Damaged(f"data is compressed with codec {codec}, which this snapvault does not know")
    decompressor = _decompressor()
    try:
        if zstandard.frame_content_size(data) != raw_length:
            raise Damaged("compressed data states another length than was sealed")
        raw = decompressor.decompress(
            data, max_output_size=raw_length, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError as e:
        raise Damaged("compressed data does not decompress") from e
    if len(raw) != raw_length:
        raise Damaged("compressed data has another length than it states")
    return raw


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_local, "d", None)
    if found is None:
        found = _local.d = zstandard.ZstdDecompressor()
    return found


def _frame_length(data: bytes | memoryview) -> int:
    """Bytes of the frame at the beginning of ``data`` by the headers of its blocks (RFC 8878, 3.1.1); -1: cut short.

    A stream reader does not say whether it came to the end of a frame.
    """
    at = zstandard.frame_header_size(data)
    checksum = 4 if data[4] & 4 else 0
    while at + 3 <= len(data):
        header = int.from_bytes(data[at : at + 3], "little")
        at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)  # a block of one byte repeated has just that byte
        if header & 1:
            return at + checksum
    return -1
