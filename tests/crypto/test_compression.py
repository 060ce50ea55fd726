"""Compressed data: what one way of decompressing refuses, the other one does as well."""

import contextlib
import os

import pytest
import zstandard

from snapvault.compression import RAW, ZSTD, compress, decompress, decompress_in_place, decompresses
from snapvault.foundation.errors import Damaged

TEXT = b"".join(b"line %d of a text that shrinks\n" % (i * i % 977) for i in range(20_000))
RUNS = bytes(300_000) + TEXT + b"\xff" * 200_000
WAYS = pytest.mark.parametrize("way", [decompress, decompress_in_place])


@WAYS
@pytest.mark.parametrize("raw", [b"", b"a", TEXT, RUNS, os.urandom(100_000) + RUNS], ids=len)
def test_round_trip(way: object, raw: bytes) -> None:
    codec, data = compress(raw)
    assert bytes(way(codec, data, len(raw))) == raw  # type: ignore[operator]
    assert decompresses(codec, data, raw)
    assert not raw or not decompresses(codec, data, raw[:-1] + bytes([raw[-1] ^ 1]))


@WAYS
def test_frames_of_other_shapes(way: object) -> None:
    """With a checksum, and of many blocks as a stream writer makes them, the last one empty."""
    whole = zstandard.ZstdCompressor(write_checksum=True).compress(RUNS)
    stream = zstandard.ZstdCompressor().compressobj(size=len(RUNS))
    parts = stream.compress(RUNS[:200_000]) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    parts += stream.compress(RUNS[200_000:]) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) + stream.flush()
    for frame in (whole, parts):
        assert bytes(way(ZSTD, frame, len(RUNS))) == RUNS  # type: ignore[operator]
        for wrong in (*(frame[:-n] for n in range(1, 12)), frame + b"x", frame + frame):
            with pytest.raises(Damaged):
                way(ZSTD, wrong, len(RUNS))  # type: ignore[operator]


@WAYS
def test_what_is_refused(way: object) -> None:
    codec, data = compress(TEXT)
    assert codec == ZSTD
    for wrong in ((codec, data, len(TEXT) + 1), (codec, b"no frame", 8), (codec, b"", 0), (RAW, TEXT, 1), (9, TEXT, 1)):
        with pytest.raises(Damaged):
            way(*wrong)  # type: ignore[operator]
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 0xFF
    with contextlib.suppress(Damaged):
        assert bytes(way(codec, bytes(changed), len(TEXT))) != TEXT  # type: ignore[operator]
