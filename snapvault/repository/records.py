"""The records of the blob index: what a sorted table says of each blob.

A record is 44 bytes: id (32), number of the segment (4), offset in the segment's plaintext (4), type and length (4);
little endian.
"""

import struct
from array import array
from collections.abc import Iterable

from snapvault.format.pack import Segment
from snapvault.format.tree import ID_SIZE
from snapvault.foundation.native import native, warn_about_twin

WIDTH = ID_SIZE + 12
_LENGTH_BITS = 28
_LENGTH_MASK = (1 << _LENGTH_BITS) - 1
_PLACE = struct.Struct("<III")
_WORD = struct.Struct("<I")  # one of these
Records = bytes | bytearray | memoryview


def blob_records(number: int, segment: Segment) -> bytes:
    """The records of the blobs of a segment, which is to have this number."""
    if native is not None:
        return bytes(native.blob_records(number, segment.ids, segment.lengths, segment.types))
    warn_about_twin()
    rows = [b.id + _PLACE.pack(number, b.offset, b.type << _LENGTH_BITS | b.length) for b in segment.blobs()]
    return b"".join(rows)


def place_in(records: Records, at: int) -> tuple[int, int, int, int]:
    """Of the record at this byte: number of the segment, offset in it, length and type of the blob."""
    number, offset, word = _PLACE.unpack_from(records, at + ID_SIZE)
    return number, offset, word & _LENGTH_MASK, word >> _LENGTH_BITS


def segment_in(records: Records, at: int) -> int:
    """The number of the segment alone."""
    return int.from_bytes(records[at + ID_SIZE : at + ID_SIZE + _WORD.size], "little")


def lengths_in(records: Records, numbers: Iterable[int]) -> list[int]:
    """Bytes of the blobs of some records."""
    unpack_from, end = _WORD.unpack_from, WIDTH - _WORD.size
    return [unpack_from(records, number * WIDTH + end)[0] & _LENGTH_MASK for number in numbers]


def add_marked(records: Records, marks: bytes | bytearray, sums: "array[int]") -> None:
    """Add the bytes of each marked blob to the sum ("Q") of its segment."""
    if native is not None:
        native.add_marked(records, marks, sums)
        return
    warn_about_twin()
    for number, marked in enumerate(marks):
        if marked:
            segment, _, length, _ = place_in(records, number * WIDTH)
            sums[segment] += length


def mark_spare(
    records: Records, marks: bytearray, ranks: "array[int]", other: Records, other_ranks: "array[int]", bit: int
) -> None:
    """Set a bit in the marks of what a table need not hold, since ``other`` has the blob in a segment of higher rank.

    Both are sorted, and may be the same; ``ranks`` ("I"): a number for each segment.  What has no mark gets none.
    """
    if native is not None:
        native.mark_spare(records, marks, ranks, other, other_ranks, bit)
        return
    warn_about_twin()
    of_mine, of_others = dict(enumerate(ranks)), dict(enumerate(other_ranks))
    at, best, found = 0, 0, b""
    for number, marked in enumerate(marks):
        start = number * WIDTH
        id_ = bytes(records[start : start + ID_SIZE])
        if id_ != found:
            while at < len(other) and bytes(other[at : at + ID_SIZE]) < id_:
                at += WIDTH
            best, found = 0, id_
            while at < len(other) and other[at : at + ID_SIZE] == id_:
                best = max(best, of_others.get(segment_in(other, at), 0))
                at += WIDTH
        if marked and of_mine.get(segment_in(records, start), 0) < best:
            marks[number] |= bit


def renumber(records: bytearray | memoryview, by: int) -> None:
    """Add to the number of each record's segment, in place."""
    if native is not None:
        native.renumber(records, by)
        return
    warn_about_twin()
    for at in range(ID_SIZE, len(records), WIDTH):
        _WORD.pack_into(records, at, _WORD.unpack_from(records, at)[0] + by)


def renumber_rows(rows: "array[int]", by: int) -> None:
    """Add to the first of every four numbers, in place."""
    rows[::4] = array("I", [n + by for n in rows[::4]])
