"""The chunker's scan in plain Python: the same cuts as the native module, and the readable form of its rules.

docs/format/chunking.md is the specification of both.
"""

from collections.abc import Sequence

from snapvault.chunking.sizes import WINDOW, Chunking

_MASK = (1 << 64) - 1
_SKEW = 2


def cuts(data: memoryview, table: Sequence[int], sizes: Chunking, *, final: bool) -> list[int]:
    """Ends of the chunks in ``data``, which begins at a chunk start; see :meth:`Chunker.cuts`."""
    ends: list[int] = []
    start = 0
    while start < len(data):
        length = _chunk_length(bytes(data[start : start + sizes.maximum]), table, sizes)
        if length is None:
            if not final:
                break
            length = len(data) - start
        start += length
        ends.append(start)
    return ends


def _chunk_length(data: bytes, table: Sequence[int], sizes: Chunking) -> int | None:
    """Length of the chunk at the start of ``data`` (at most the maximum), or None where the data do not decide it."""
    first = sizes.minimum - 1
    if len(data) <= first:
        return None
    fingerprint = 0
    for byte in data[sizes.minimum - WINDOW : first]:
        fingerprint = (fingerprint << 1) + table[byte]
    bits = sizes.average.bit_length() - 1
    strict, loose = 1 << (64 - bits - _SKEW), 1 << (64 - bits + _SKEW)
    for limit, begin, end in ((strict, first, sizes.average - 1), (loose, sizes.average - 1, sizes.maximum)):
        for length, byte in enumerate(data[begin:end], begin + 1):
            fingerprint = ((fingerprint << 1) + table[byte]) & _MASK
            if fingerprint < limit:
                return length
    return sizes.maximum if len(data) == sizes.maximum else None
