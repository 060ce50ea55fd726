"""MessagePack as this format uses it, and the frame around every object that is not content-named.

Pure functions over bytes: nothing here reads a file or knows a key.  Whatever cannot be decoded raises FormatError.
See docs/format/frame.md.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgpack
from blake3 import blake3

from snapvault.foundation.errors import Damaged, FormatTooNew

T = TypeVar("T")

MAGIC = b"SNPV"
VERSION = 1
DIGEST_SIZE = 32
HEADER_SIZE = 8  # magic, kind, version, two zero bytes
MAX_RECORD = 64 << 20  # bytes of any framed object; a larger one is hostile
MAX_VALUES = 1 << 20  # MessagePack values in a record, keys and containers included: 70 MiB as Python objects


class FormatError(Damaged):
    """Bytes that are not what this format says."""

    code = "format-error"


class Kind:
    """The fifth byte of a frame."""

    CONFIG = 1
    KEYSET = 2
    SLOT = 3
    SESSION = 4
    SNAPSHOT = 5
    INDEX = 6
    NOTE = 7
    TOMBSTONE = 8
    GC = 9
    CAPABILITIES = 10
    HEARTBEAT = 11
    VERIFIED = 12
    CERTIFICATE = 13
    REPLICA = 14
    PROMOTION = 15
    ATTESTATION = 16
    REGISTER = 17
    EVIDENCE = 18


def pack(value: object) -> bytes:
    """One MessagePack value; str as str, bytes as bin, maps in insertion order."""
    return msgpack.packb(value, use_bin_type=True)  # type: ignore[no-any-return]


def _refuse(code: int, _: bytes) -> None:
    raise ValueError(f"extension type {code}")


def unpack(data: bytes | memoryview, *, limit: int = MAX_RECORD) -> Any:
    """The one MessagePack value that ``data`` holds, with every length capped by the bytes that are there."""
    size = len(data)
    if size > limit:
        raise FormatError(f"a record of {size} bytes is larger than the format allows")
    if size > MAX_VALUES:  # a smaller one cannot hold more values, since each takes a byte
        check_values(data)
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=False,
            use_list=True,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=size,
            max_ext_len=0,
            ext_hook=_refuse,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as e:
        raise FormatError(f"not a valid record: {type(e).__name__}") from e


# By the first byte of a value: bytes that follow; bytes of a length field; the same, and values for each counted.
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_NEVER = (0xC1, *range(0xC7, 0xCA), *range(0xD4, 0xD9))  # unused, and extension types
_HOLDING = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def check_values(data: bytes | memoryview) -> None:
    """FormatError if a record holds more values than the format allows.

    MessagePack makes a Python object of 56 bytes from one byte, so a large hostile record has to be counted before
    it is parsed.  Takes a third of a microsecond a value.
    """
    at, left, total = 0, 1, 1
    try:
        while left:
            first = data[at]
            at, left, held = at + 1, left - 1, 0
            if 0x80 <= first <= 0x9F:
                held = first & 15 if first >= 0x90 else 2 * (first & 15)
            elif 0xA0 <= first <= 0xBF:
                at += first & 31
            elif first in _FIXED:
                at += _FIXED[first]
            elif first in _SIZED:
                width = _SIZED[first]
                at += width + int.from_bytes(data[at : at + width], "big")
            elif first in _HOLDING:
                width, each = _HOLDING[first]
                held = each * int.from_bytes(data[at : at + width], "big")
                at += width
            elif first in _NEVER:
                raise FormatError("a record holds a value of a type that the format does not use")
            left, total = left + held, total + held
            if total > MAX_VALUES:
                raise FormatError("a record holds more values than the format allows")
    except IndexError:
        raise FormatError("a record is cut short") from None


def frame(kind: int, body: object) -> bytes:
    """Header, MessagePack body, BLAKE3 of both: scrubbed without a key."""
    head = MAGIC + bytes((kind, VERSION, 0, 0)) + pack(body)
    return head + blake3(head).digest()


def unframe(kind: int, data: bytes | memoryview) -> Any:
    """The body of a frame of this kind, after its digest was verified."""
    data = memoryview(data)
    check_frame(data)
    if data[4] != kind:
        raise FormatError(f"an object of kind {data[4]} stands where kind {kind} belongs")
    return unpack(data[HEADER_SIZE:-DIGEST_SIZE])


def check_frame(data: bytes | memoryview) -> None:
    """Verify magic, version and trailing digest; needs no key."""
    data = memoryview(data)
    if len(data) < HEADER_SIZE + 1 + DIGEST_SIZE or data[:4] != MAGIC:
        raise FormatError("not a snapvault object")
    if blake3(data[:-DIGEST_SIZE]).digest() != data[-DIGEST_SIZE:]:
        raise FormatError("the trailing digest does not match")
    if data[5] != VERSION:
        message = f"an object has format version {data[5]}; this snapvault reads version {VERSION}"
        # Only the config says what a repository is.  One stray object must not stop everybody: it is damage, and
        # features that came later are announced by a keyset that the owner signed.
        raise FormatTooNew(message) if data[4] == Kind.CONFIG else FormatError(message)
    if data[6] or data[7]:
        raise FormatError("reserved header bytes are not zero")


def shaped(build: Callable[[], T], what: str) -> T:
    """Run a parser's field accesses; a missing or mistyped field becomes FormatError."""
    try:
        return build()
    except FormatError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise FormatError(f"a {what} record has a missing or malformed field ({e})") from e


def typed(value: Any, kind: type[T], what: str) -> T:
    """``value`` if it is exactly of this type (bool is not int)."""
    if type(value) is not kind:
        raise FormatError(f"{what}: expected {kind.__name__}, found {type(value).__name__}")
    return value


def sized(value: Any, size: int, what: str) -> bytes:
    """``value`` if it is a byte string of exactly this size."""
    if type(value) is not bytes or len(value) != size:
        raise FormatError(f"{what}: expected {size} bytes")
    return value
