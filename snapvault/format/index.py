"""``index/<digest>``: which blob lies in which segment of which pack (docs/format/index.md).

In clear and signed: the packs and their sizes, so that anybody can tell whether they are there.  Sealed under the
domain's index key: the table of blobs of each pack, in the same order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from snapvault.format.names import checked_session_id
from snapvault.format.pack import Segment, decode_segments, encode_segments
from snapvault.format.wire import FormatError, pack, shaped, sized, typed, unpack
from snapvault.foundation.ids import DomainId, PackId, SessionId


@dataclass(frozen=True, slots=True)
class IndexRecord:
    """The signed part."""

    config: bytes
    sid: SessionId  # the session that wrote this
    domain: DomainId
    packs: tuple[tuple[PackId, int, SessionId], ...]  # name, size, and the session that wrote it
    sealed_digest: bytes  # BLAKE3 of the sealed part

    def encode(self) -> bytes:
        """The payload to sign."""
        return pack([self.config, self.sid, self.domain, self.packs, self.sealed_digest])


def decode_index(payload: bytes) -> IndexRecord:
    """FormatError if malformed."""

    def build() -> IndexRecord:
        config, sid, domain, packs, digest = unpack(payload)
        return IndexRecord(
            sized(config, 32, "config"),
            checked_session_id(sid),
            DomainId(sized(domain, 16, "domain")),
            tuple((PackId(sized(p, 32, "pack")), typed(n, int, "size"), checked_session_id(s)) for p, n, s in packs),
            sized(digest, 32, "digest"),
        )

    return shaped(build, "index")


def encode_table(packs: Sequence[Sequence[Segment]]) -> bytes:
    """The plaintext of the sealed part."""
    return pack([encode_segments(segments) for segments in packs])


def decode_table(data: bytes | memoryview, record: IndexRecord) -> list[list[Segment]]:
    """The segments of each pack of ``record``; FormatError."""

    def build() -> list[list[Segment]]:
        tables = unpack(data)
        if len(tables) != len(record.packs):
            raise FormatError("an index lists other packs than it describes")
        return [decode_segments(t, size) for t, (_, size, _) in zip(tables, record.packs, strict=True)]

    return shaped(build, "index table")
