"""Tables of fixed-width records that begin with a 32-byte id: sort one, look ids up in one.

A table is any buffer of whole records, each ``width`` bytes (32 to 256); sorted means ascending by all bytes of the
record, so that records of one id stand together. The ids are hashes, hence spread evenly, and a lookup finds its
place in two or three probes; ids made up to be uneven cost a lookup no more than a binary search and eight probes.
"""

import struct
from bisect import bisect_left
from typing import TYPE_CHECKING

from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.ids import ID_SIZE
from snapvault.foundation.native import NATIVE, native, warn_about_twin

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["NATIVE", "WIDTH_MAX", "find_record", "find_records", "mark_records", "sort_records"]

WIDTH_MAX = 256


def sort_records(table: bytearray, width: int) -> None:
    """Sort the records in place. The table must not be changed by another thread meanwhile.

    Raises InvalidInput if the table is not a whole number of records of this width.
    """
    _check(table, width)
    if native is not None:
        native.sort_records(table, width)
        return
    warn_about_twin()
    table[:] = b"".join(sorted(_records(table, width)))


def find_record(table: "Buffer", width: int, key: "Buffer") -> int:
    """Index of the first record of a sorted table whose id is ``key`` (32 bytes), or -1.

    Raises InvalidInput if the table is not whole records or the key is not 32 bytes.
    """
    if native is not None:
        try:
            return int(native.find_record(table, width, key))
        except ValueError as error:
            raise InvalidInput(str(error)) from None
    view = _check(table, width)
    ids = _check_keys(key)
    if len(ids) != ID_SIZE:
        raise InvalidInput(f"an id has {ID_SIZE} bytes, not {len(ids)}")
    warn_about_twin()
    return _find(view, width, ids)


def find_records(table: "Buffer", width: int, keys: "Buffer", *, single: bool = False) -> bytes:
    """:func:`find_record` for many ids, given one after the other: the indexes as signed 64-bit little-endian.

    ``single``: -2 for an id that more than one record has.

    Raises InvalidInput if the table is not whole records or the keys are not 32 bytes each.
    """
    view = _check(table, width)
    ids = _check_keys(keys)
    if native is not None:
        return bytes(native.find_records(view, width, ids, single))
    warn_about_twin()
    find = _find_single if single else _find
    found = [find(view, width, ids[at : at + ID_SIZE]) for at in range(0, len(ids), ID_SIZE)]
    return struct.pack(f"<{len(found)}q", *found)


def mark_records(table: "Buffer", width: int, keys: "Buffer", marks: bytearray, bit: int) -> bytes:
    """Set a bit in the marks (a byte for each record) of all records of some ids, given one after the other.

    Gives for each id 0 if no record has it, 1 if the bit was not set before, 2 if it was.  Raises InvalidInput if the
    table is not whole records, the keys are not 32 bytes each, or there is not one mark for each record.
    """
    view, ids = _check(table, width), _check_keys(keys)
    if len(marks) != len(view) // width:
        raise InvalidInput(f"{len(marks)} marks are not one for each of {len(view) // width} records")
    if native is not None:
        return bytes(native.mark_records(view, width, ids, marks, bit))
    warn_about_twin()
    return bytes(_mark(view, width, ids[at : at + ID_SIZE], marks, bit) for at in range(0, len(ids), ID_SIZE))


def _mark(view: memoryview, width: int, id_: memoryview, marks: bytearray, bit: int) -> int:
    at = _find(view, width, id_)
    if at < 0:
        return 0
    if marks[at] & bit:
        return 2
    while at < len(marks) and view[at * width : at * width + ID_SIZE] == id_:
        marks[at] |= bit
        at += 1
    return 1


def _check(table: "Buffer", width: int) -> memoryview:
    view = memoryview(table).cast("B")
    if not ID_SIZE <= width <= WIDTH_MAX or len(view) % width:
        raise InvalidInput(f"a table of {len(view)} bytes is not whole records of {width} bytes (32 to {WIDTH_MAX})")
    return view


def _check_keys(keys: "Buffer") -> memoryview:
    view = memoryview(keys).cast("B")
    if len(view) % ID_SIZE:
        raise InvalidInput(f"ids have {ID_SIZE} bytes each, got {len(view)}")
    return view


def _records(table: bytearray, width: int) -> list[bytes]:
    return [bytes(table[at : at + width]) for at in range(0, len(table), width)]


def _find(view: memoryview, width: int, id_: memoryview) -> int:
    key = bytes(id_)
    count = len(view) // width
    at = bisect_left(range(count), key, key=lambda i: bytes(view[i * width : i * width + ID_SIZE]))
    return at if at < count and view[at * width : at * width + ID_SIZE] == key else -1


def _find_single(view: memoryview, width: int, id_: memoryview) -> int:
    at = _find(view, width, id_)
    following = view[(at + 1) * width : (at + 1) * width + ID_SIZE]
    return -2 if at >= 0 and following == id_ else at
