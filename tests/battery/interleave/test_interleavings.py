"""The real code of writers, prunes, forget, undelete and readers, interleaved at every call of the store (family 6).

With deaths, replies that are lost after the call took effect, and revocations.  The long battery takes other seeds each
time.  A failure names its seed, and ``SNAPVAULT_TEST_SEED=<seed>`` begins with it.
"""

import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from unittest import mock

import pytest
from battery.interleave import mutants, story
from battery.interleave.story import Base

BATCH, BATCHES, LONG_BATCHES = 100, 30, 300
CATCHES = 5000  # seeds that a mutant may survive; the rarest is caught by one of two hundred
BEGIN = {"a prune that goes on waits for nobody": 1090}  # where a rare one was last caught: that saves minutes
TIDY = 150  # seeds for what is harmless
FIRST = int(os.environ.get("SNAPVAULT_TEST_SEED", "0"))
ANY = FIRST or random.SystemRandom().randrange(1 << 32)
EXPECTED = {
    "backup", "revoked", "prune", "prune waits", "prune revoked", "resumed", "copy", "read", "undeleted",
    "brought back",
}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> Base:
    return story.base()


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
        happened.update({"runs", *story.play(made, seed).happened})


@pytest.mark.parametrize("batch", range(BATCHES))
def test_nothing_is_lost(made: Base, happened: Counter[str], batch: int) -> None:
    play(made, happened, FIRST + batch * BATCH)


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("batch", range(LONG_BATCHES))
def test_nothing_is_lost_for_long(made: Base, happened: Counter[str], batch: int) -> None:
    play(made, happened, ANY + batch * BATCH)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", mutants.ALL)
def test_each_rule_is_needed(made: Base, name: str) -> None:
    with mutants.mutant(name):
        for seed in range(BEGIN.get(name, 0), CATCHES):
            try:
                story.play(made, seed)
            except AssertionError:
                return
    pytest.fail(f"{name}: {CATCHES} interleavings found nothing")


@pytest.mark.parametrize("name", mutants.HARMLESS)
def test_what_is_only_tidiness(made: Base, name: str) -> None:
    with mutants.mutant(name):
        for seed in range(TIDY):
            story.play(made, seed)


def test_all_begin_with_the_same(made: Base) -> None:
    assert story.base() == made


def test_a_seed_gives_the_same_run_again(made: Base) -> None:
    """Also on a machine that is much slower."""
    for seed in range(20):
        trace, slow = story.play(made, seed).scheduler.trace, itertools.count(time.monotonic(), 0.1)
        with mock.patch.object(time, "monotonic", slow.__next__):
            assert story.play(made, seed).scheduler.trace == trace, seed
