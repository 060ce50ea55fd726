"""The real S3 server behind a proxy that spoils requests and replies (battery, family 5)."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import faultproxy
import pytest
import servers
from battery import model
from battery.faults.life import KEPT, OFTEN, OPERATIONS, Case, Life, every_case, sample

SEED = int(os.environ.get("SNAPVAULT_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
SECONDS = float(os.environ.get("SNAPVAULT_TEST_SECONDS", "3600"))
CASES_PER_LIFE, CASES_PER_LOOK = 15, 15
NewLife = Callable[[], Life]


@pytest.fixture
def new_life(seaweedfs: servers.Fresh, tmp_path: Path) -> Iterator[NewLife]:
    """Call it: a repository of its own behind the proxy."""
    place = url, options = seaweedfs()
    lives: list[Life] = []

    def make() -> Life:
        lives.append(Life(proxy, url.rpartition("/")[0], options, tmp_path / f"home-{len(lives)}"))
        return lives[-1]

    with model.small_parts(), faultproxy.serve(place) as proxy:
        yield make


def live_through(cases: Sequence[Case], life: Life, new_life: NewLife) -> Counter[str]:
    """Each case in turn, and how often each kind happened.

    AssertionError that names the last ones if the oracle does not hold after them.
    """
    fired = Counter[str]()
    for number, case in enumerate(cases, 1):
        try:
            outcome = case.run(life)
            fired[case.kind] += outcome.fired
            if number % CASES_PER_LOOK == 0 or number == len(cases):
                life.verify()
        except Exception as e:
            said = [str(c) for c in cases[max(0, number - CASES_PER_LOOK) : number]]
            raise AssertionError(f"seed {SEED}: after {said}") from e
        if number % CASES_PER_LIFE == 0 and number < len(cases):
            life = new_life()
    return fired


@pytest.mark.server
@pytest.mark.timeout(1500)
def test_each_kind(new_life: NewLife) -> None:
    """At methods and objects, how often, and in operations that are chosen anew each time."""
    print(f"seed {SEED}")
    life = new_life()
    found = every_case(life, random.Random(SEED))
    cases = sample(found)
    assert len(cases) > 25
    fired = live_through(cases, life, new_life)
    # What could be spoilt in a look at each operation may be in a cache by now; then another case of that kind.
    for case in found:
        if not fired[case.kind]:
            fired += live_through([case], new_life(), new_life)
    assert all(fired[case.kind] for case in found), f"never happened: {fired}"


@pytest.mark.long
@pytest.mark.server
@pytest.mark.timeout(4 * 3600)
def test_each_kind_at_each_call(new_life: NewLife) -> None:
    print(f"seed {SEED}")
    life = new_life()
    cases = every_case(life, random.Random(SEED))
    assert len(cases) > 1500
    fired = live_through(cases, life, new_life)
    assert all(fired[case.kind] for case in cases), f"never happened: {fired}"
    assert fired.total() > 0.9 * len(cases), f"{fired.total()} of {len(cases)} cases happened"


def random_rules(choose: random.Random) -> list[faultproxy.Rule]:
    """Several faults at any calls."""
    kinds = (*faultproxy.BEFORE, *faultproxy.AFTER, *faultproxy.SPOILT)
    return [
        faultproxy.Rule(choose.choice(kinds), None, "", choose.choice((*OFTEN, 10)), choose.randrange(40))
        for _ in range(choose.randint(1, 4))
    ]


@pytest.mark.long
@pytest.mark.server
@pytest.mark.timeout(2 * SECONDS + 600)
def test_a_random_mix(new_life: NewLife) -> None:
    """For an hour, or for SNAPVAULT_TEST_SECONDS."""
    print(f"seed {SEED}")
    choose, end, done, fired = random.Random(SEED), time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < end:
        life = new_life()
        for _ in range(KEPT):
            life.backup()
        for _ in range(CASES_PER_LIFE):
            operation, rules = choose.choice(OPERATIONS), random_rules(choose)
            try:
                fired += life.run(operation, *rules).fired
                life.verify()
            except Exception as e:
                raise AssertionError(f"seed {SEED}: number {done}, {operation} with {rules}") from e
            done += 1
    print(f"{done} operations, {fired} of them spoilt")
    assert fired > done / 2
