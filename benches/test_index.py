"""The blob index: building it, opening it from the cache, looking blobs up, at 10^5, 10^6 and (long) 10^7 blobs."""

import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snapvault.format.pack import Segment
from snapvault.format.tree import ID_SIZE
from snapvault.foundation.ids import BlobId, DomainId, PackId, SessionId
from snapvault.repository.cache import Cache
from snapvault.repository.index import BlobIndex, IndexTable, PackRow, build_table

COUNTS = [100_000, 1_000_000, pytest.param(10_000_000, marks=pytest.mark.long)]
KEY = bytes(32)
IN_SEGMENT, IN_PACK, LENGTH = 16, 256, 64 << 10  # blobs in a segment, segments in a pack, bytes in a blob
LOOKUPS = 10_000


def packs(count: int) -> Iterator[tuple[PackRow, list[Segment]]]:
    """``count`` blobs with random ids, as an index object lists them."""
    lengths, types = array("I", [LENGTH] * IN_SEGMENT), bytes(IN_SEGMENT)
    for _ in range(0, count, IN_SEGMENT * IN_PACK):
        ids = os.urandom(ID_SIZE * IN_SEGMENT * IN_PACK)
        step = ID_SIZE * IN_SEGMENT
        segments = [
            Segment(at * 1000, 500_000, LENGTH * IN_SEGMENT, ids[at : at + step], lengths, types)
            for at in range(0, len(ids), step)
        ]
        yield PackRow(PackId(os.urandom(32)), 1 << 27, SessionId("0" * 32), DomainId(bytes(16))), segments


@pytest.fixture(scope="module", params=COUNTS, ids=lambda count: f"{count:.0e}")
def table(request: pytest.FixtureRequest) -> IndexTable:
    return build_table(["index/x"], packs(request.param))


def some_ids(table: IndexTable) -> list[BlobId]:
    """Ids from all over the table."""
    step = max(1, len(table) // LOOKUPS)
    return [blob for number, blob in enumerate(table.ids()) if number % step == 0]


@pytest.mark.parametrize("count", COUNTS, ids=lambda count: f"{count:.0e}")
def test_build(meter: Any, count: int) -> None:
    """Out of decoded index objects: what a cold start costs beside fetching and opening them."""
    made = list(packs(count))
    meter.rate(lambda: build_table(["index/x"], made), count / 1e6, "million blobs", rounds=2, iterations=1)


def test_open(meter: Any, table: IndexTable, tmp_path: Path) -> None:
    """From the cache, authenticated, with one lookup."""
    cache, blob = Cache(tmp_path), next(table.ids())
    cache.put_sealed("tables/x", KEY, table.dump())

    def opened() -> bool:
        data = cache.get_sealed("tables/x", KEY)
        return data is not None and blob in BlobIndex([IndexTable.load(data)])

    assert opened()
    meter.rate(opened, len(table) / 1e6, "million blobs")


def test_known(meter: Any, table: IndexTable) -> None:
    index, ids = BlobIndex([table]), some_ids(table)
    assert all(blob in index for blob in ids)
    meter.rate(lambda: [blob in index for blob in ids], len(ids) / 1e6, "million lookups")


def test_unknown(meter: Any, table: IndexTable) -> None:
    index, ids = BlobIndex([table]), [BlobId(os.urandom(ID_SIZE)) for _ in range(LOOKUPS)]
    assert not any(blob in index for blob in ids)
    meter.rate(lambda: [blob in index for blob in ids], len(ids) / 1e6, "million lookups")


def test_places(meter: Any, table: IndexTable) -> None:
    index, ids = BlobIndex([table]), some_ids(table)
    assert all(place.length == LENGTH for blob in ids for place in index.places(blob))
    meter.rate(lambda: [list(index.places(blob)) for blob in ids], len(ids) / 1e6, "million places")
