"""The chunker alone, and with the hash and the lookup that known data costs."""

from array import array
from typing import Any

import pytest
from blake3 import blake3

from snapvault.chunking import Chunker, Chunking
from snapvault.format.pack import Segment
from snapvault.foundation.ids import BlobId, DomainId, PackId, SessionId
from snapvault.repository.index import BlobIndex, PackRow, build_table

KEY = bytes(range(32))
PACK = PackRow(PackId(bytes(32)), 1 << 30, SessionId("0" * 32), DomainId(bytes(16)))


def pieces(chunker: Chunker, data: bytes) -> list[memoryview]:
    view, ends = memoryview(data), chunker.cuts(data, final=True)
    return [view[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("average", [16, 64, 1024], ids=lambda kib: f"{kib}KiB")
@pytest.mark.parametrize("kind", ["text", "noise"])
def test_scan(meter: Any, request: pytest.FixtureRequest, kind: str, average: int) -> None:
    data: bytes = request.getfixturevalue(kind)
    chunker = Chunker(Chunking(average << 8, average << 10, average << 12), KEY)
    meter.rate(lambda: chunker.cuts(data, final=True), len(data) / 1e6, "MB")


def test_known_data(meter: Any, noise: bytes) -> None:
    """Chunk, hash and look up what is stored already: what reading everything costs when nothing is new."""
    chunker = Chunker(Chunking(), KEY)
    found = pieces(chunker, noise)
    ids = [blake3(piece, key=KEY).digest() for piece in found]
    whole = Segment(0, 0, len(noise), b"".join(ids), array("I", map(len, found)), bytes(len(ids)))
    index = BlobIndex([build_table((), [(PACK, [whole])])])

    def again() -> bool:
        return all(BlobId(blake3(piece, key=KEY).digest()) in index for piece in pieces(chunker, noise))

    assert again()
    meter.rate(again, len(noise) / 1e6, "MB")
