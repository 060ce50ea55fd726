"""Codecs: what the first byte of an envelope's plaintext says."""

import threading

import zstandard

from snapvault.foundation.errors import Damaged

RAW, ZSTD = 0, 1
LEVEL = 3

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


def decompress(codec: int, data: bytes | memoryview, raw_length: int) -> bytes | memoryview:
    """The ``raw_length`` bytes that were compressed; Damaged if the data says otherwise (never more is allocated)."""
    if codec == RAW:
        if len(data) != raw_length:
            raise Damaged("stored data has another length than it states")
        return data
    if codec != ZSTD:
        raise Damaged(f"data is compressed with codec {codec}, which this snapvault does not know")
    decompressor = getattr(_local, "d", None)
    if decompressor is None:
        decompressor = _local.d = zstandard.ZstdDecompressor()
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
