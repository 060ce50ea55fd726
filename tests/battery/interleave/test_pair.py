"""Replication beside writers, prunes and forgetting at both ends, interleaved; then promotion (family 6).

A failure names its seed.
"""

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest
from battery.interleave import pair
from battery.interleave.pair import Base

BATCH, BATCHES, LONG_BATCHES = 25, 12, 400
CATCHES = range(1000, 6000)  # seeds; the rarest mutant is caught by one of a hundred
FIRST = int(os.environ.get("SNAPVAULT_TEST_SEED", "0"))
ANY = FIRST or random.SystemRandom().randrange(1 << 32)
EXPECTED = {"backup", "prune", "pull", "removed there", "prune there", "copy", "could be brought back there"}


@pytest.fixture(scope="module")
def made() -> Base:
    return pair.base()


@pytest.fixture(scope="module")
def happened() -> Iterator[Counter[str]]:
    """What all runs of this process did; runs that did nothing prove nothing."""
    found: Counter[str] = Counter()
    yield found
    if found["runs"] >= 10 * BATCH:
        assert set(found) >= EXPECTED, found


def play(made: Base, happened: Counter[str], first: int) -> None:
    print(f"SNAPVAULT_TEST_SEED={first}")
    for seed in range(first, first + BATCH):
        happened.update({"runs", *pair.play(made, seed).happened})


@pytest.mark.parametrize("batch", range(BATCHES))
def test_nothing_is_lost(made: Base, happened: Counter[str], batch: int) -> None:
    play(made, happened, FIRST + batch * BATCH)


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("batch", range(LONG_BATCHES))
def test_nothing_is_lost_for_long(made: Base, happened: Counter[str], batch: int) -> None:
    play(made, happened, ANY + batch * BATCH)


def test_all_begin_with_the_same(made: Base) -> None:
    assert pair.base() == made


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", pair.MUTANTS)
def test_each_rule_is_needed(made: Base, name: str) -> None:
    with pair.mutant(name):
        for seed in CATCHES:
            try:
                pair.play(made, seed)
            except AssertionError:
                return
    pytest.fail(f"{name}: {len(CATCHES)} interleavings found nothing")
