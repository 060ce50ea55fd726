"""Sealing and opening of packs and their segments (docs/format/pack.md).  Pure, but for the reads."""

from collections.abc import Sequence
from typing import NamedTuple

from blake3 import blake3

from snapvault.backend.protocol import Backend
from snapvault.compression import LEVEL, compress, decompress, decompress_in_place, decompresses
from snapvault.crypto.envelope import OVERHEAD, padme, seal, seal_into, unseal
from snapvault.crypto.kdf import context_digest
from snapvault.format import names
from snapvault.format.pack import (
    MAGIC,
    MAX_HEADER,
    MAX_SEGMENT_RAW,
    PREFIX,
    TRAILER,
    Segment,
    decode_directory,
    encode_directory,
)
from snapvault.format.wire import FormatError
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import DomainId, PackId, SessionId

TRAILER_SIZE = OVERHEAD + TRAILER.size
FULL_UNIT = 64 << 10  # a pack that was cut because it was full is padded to this
LAST_FLOOR = 4 << 10  # a session's last packs are padded à la Padmé, never below this
HEADER_READ = 8 << 10  # bytes read to get at a pack's session header


class SessionSecrets(NamedTuple):
    """What opens everything that one session wrote."""

    sid: SessionId
    domain: DomainId
    secret: bytes
    context: bytes


def session_context(config_digest: bytes, sid: SessionId) -> bytes:
    """The context digest of all envelopes of a session."""
    return context_digest(config_digest, sid.encode())


class EncodeMismatch(Damaged):
    """Compressed data does not decompress to what went in: a fault of this machine, caught before it was stored."""

    code = "encode-mismatch"
    hint = "check this machine's memory; nothing wrong was stored"


class EncodedSegment(NamedTuple):
    """A segment compressed and not yet sealed."""

    codec: int
    raw_length: int  # bytes of plaintext
    data: bytes | memoryview

    @property
    def sealed_length(self) -> int:
        """Bytes in the pack."""
        return OVERHEAD + len(self.data)

    def seal_into(self, out: memoryview, secrets: SessionSecrets) -> None:
        """Fill ``out``, which has ``sealed_length`` bytes."""
        seal_into(out, secrets.secret, "segment", secrets.context, self.codec, self.raw_length, self.data)


def encode_segment(raw: bytes | memoryview, level: int = LEVEL) -> EncodedSegment:
    """The blobs of a segment, one after another, compressed.

    What was compressed is decompressed and compared first: a flipped bit in memory or a fault of the compressor must
    not become a backup that cannot be read (restic#4523, #4677).
    """
    codec, data = compress(raw, level)
    if not decompresses(codec, data, raw):
        raise EncodeMismatch("a segment did not survive compression")
    return EncodedSegment(codec, len(raw), data)


def open_segment(secrets: SessionSecrets, sealed: bytes | memoryview, *, in_place: bool = False) -> memoryview:
    """The plaintext of a segment; Damaged.  Blobs in it still have to be verified by their ids.

    ``in_place``: in memory that this thread's next call uses again.
    """
    opened = unseal(secrets.secret, "segment", secrets.context, sealed)
    if opened.raw_length > MAX_SEGMENT_RAW:
        raise Damaged("a segment is larger than the format allows")
    decode = decompress_in_place if in_place else decompress
    return memoryview(decode(opened.codec, opened.data, opened.raw_length))


def pack_prefix(header: bytes) -> bytes:
    """The beginning of a pack: magic, length of the session header, the header."""
    return PREFIX.pack(MAGIC, len(header)) + header


def pack_ending(secrets: SessionSecrets, segments: Sequence[Segment], size: int, *, full: bool) -> bytes:
    """Sealed directory and trailer for a pack that has ``size`` bytes so far, padded to a size that says little."""
    directory = encode_directory(segments)
    codec, data = compress(directory)
    bare = size + OVERHEAD + len(data) + TRAILER_SIZE
    wanted = -(-bare // FULL_UNIT) * FULL_UNIT if full else padme(bare, LAST_FLOOR)
    sealed = seal(secrets.secret, "directory", secrets.context, codec, len(directory), data, padding=wanted - bare)
    where = TRAILER.pack(size, len(sealed), 0)
    return sealed + seal(secrets.secret, "trailer", secrets.context, 0, len(where), where)


def read_header(backend: Backend, pack: PackId, size: int | None = None) -> bytes:
    """The session header (a framed object) at the head of a pack, whose size may be known; FormatError, NotFound."""
    name = names.pack(pack)
    head = backend.get(name, 0, min(HEADER_READ, backend.head(name).size if size is None else size))
    return parse_header(head, lambda length: backend.get(name, 0, length))


def parse_header(head: bytes | memoryview, more: object = None) -> bytes:
    """The session header in the first bytes of a pack; ``more(length)`` fetches a longer beginning."""
    if len(head) < PREFIX.size:
        raise FormatError("a pack is cut short")
    magic, length = PREFIX.unpack_from(head)
    if magic != MAGIC or length > MAX_HEADER:
        raise FormatError("this is not a pack")
    end = PREFIX.size + length
    if len(head) < end and callable(more):
        head = more(end)
    if len(head) < end:
        raise FormatError("a pack is cut short")
    return bytes(head[PREFIX.size : end])


def open_directory(secrets: SessionSecrets, pack: memoryview | bytes) -> list[Segment]:
    """The segments of a whole pack in memory, as its directory lists them; Damaged."""
    data = memoryview(pack)
    start, length = _open_trailer(secrets, data[max(0, len(data) - TRAILER_SIZE) :], len(data))
    return _open_directory(secrets, data[start : start + length], len(data))


def fetch_directory(backend: Backend, secrets: SessionSecrets, pack: PackId, size: int) -> list[Segment]:
    """The segments of a pack of ``size`` bytes in the store, by two range reads; Damaged, NotFound."""
    name = names.pack(pack)
    if size < TRAILER_SIZE:
        raise FormatError("a pack is cut short")
    start, length = _open_trailer(secrets, backend.get(name, size - TRAILER_SIZE, TRAILER_SIZE), size)
    return _open_directory(secrets, backend.get(name, start, length), size)


def _open_trailer(secrets: SessionSecrets, sealed: bytes | memoryview, size: int) -> tuple[int, int]:
    """Where the directory stands: offset and sealed length."""
    trailer = unseal(secrets.secret, "trailer", secrets.context, sealed)
    if len(trailer.data) != TRAILER.size:
        raise FormatError("a pack's trailer is malformed")
    start, length, _ = TRAILER.unpack(trailer.data)
    if start + length + TRAILER_SIZE != size:
        raise FormatError("a pack's trailer states impossible bounds")
    return start, length


def _open_directory(secrets: SessionSecrets, sealed: bytes | memoryview, size: int) -> list[Segment]:
    opened = unseal(secrets.secret, "directory", secrets.context, sealed)
    return decode_directory(decompress(opened.codec, opened.data, opened.raw_length), size)


def check_pack_name(pack: PackId, data: bytes | memoryview) -> None:
    """Damaged unless the bytes are those that the name states."""
    if blake3(data).digest() != pack:
        raise Damaged("a pack's bytes are not those that its name states", affected=[names.pack(pack)])
