"""Which rule keeps which snapshot; and that no time that a writer makes up takes a real snapshot's place."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.ids import HolderId, SnapshotId
from snapvault.operations.retention import Dated, Retention

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def made(*moments: datetime | str, zone: ZoneInfo | None = None, **fields: object) -> list[Dated]:
    """Snapshots of one writer in this sequence, numbered from 1, named by their place."""
    found = []
    for number, moment in enumerate(moments, 1):
        when = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        when = when if when.tzinfo else when.replace(tzinfo=zone or UTC)
        plain = Dated(SnapshotId(f"{number:032x}"), "d", "h", HolderId(b"w" * 16), number, ns(when))
        found.append(plain._replace(**fields))  # type: ignore[arg-type]
    return found


def kept(policy: Retention, snapshots: Sequence[Dated], now: datetime = NOW) -> dict[int, tuple[str, ...]]:
    """The rules by the snapshot's number; only of what is kept."""
    reasons = policy.reasons(snapshots, ns(now))
    assert set(reasons) == {s.id for s in snapshots}
    return {int(sid, 16): rules for sid, rules in reasons.items() if rules}


def days(count: int, *, end: datetime = NOW) -> list[datetime]:
    return [end - timedelta(days=n) for n in reversed(range(count))]


def test_last() -> None:
    assert kept(Retention(last=2), made(*days(5))) == {4: ("last",), 5: ("last", "minimum")}


@pytest.mark.parametrize(
    ("rule", "moments", "survivors"),
    [
        ("hourly", ["2026-11-26T09:10", "2026-11-26T09:50", "2026-11-26T10:00", "2026-11-26T11:59"], {2, 3, 4}),
        ("daily", ["2026-11-23T01:00", "2026-11-23T23:59", "2026-11-25T10:00", "2026-11-26T00:00"], {2, 3, 4}),
        ("weekly", ["2026-11-15T10:00", "2026-11-16T10:00", "2026-11-22T10:00", "2026-11-23T10:00"], {1, 3, 4}),
        ("monthly", ["2026-08-31T10:00", "2026-09-01T10:00", "2026-09-30T10:00", "2026-11-01T10:00"], {1, 3, 4}),
        ("yearly", ["2019-05-05T10:00", "2024-12-31T10:00", "2025-01-01T10:00", "2025-12-31T10:00"], {1, 2, 4}),
        # The ISO week of the turn of the year is one week.
        ("weekly", ["2025-12-28T10:00", "2025-12-29T10:00", "2026-01-04T10:00", "2026-01-05T10:00"], {1, 3, 4}),
    ],
)
def test_the_newest_of_each_period(rule: str, moments: list[str], survivors: set[int]) -> None:
    """Three of them; empty ones do not count."""
    found = kept(Retention(**{rule: 3, "zone": UTC}), made(*moments))  # type: ignore[arg-type]
    assert set(found) == survivors
    assert all(rule in rules for rules in found.values())


def test_days_are_those_of_the_zone() -> None:
    late = made("2026-11-24T23:30+00:00", "2026-11-25T00:30+00:00", "2026-11-25T22:50+00:00")
    assert set(kept(Retention(daily=3, zone=UTC), late)) == {1, 3}
    assert set(kept(Retention(daily=3, zone=BERLIN), late)) == {3}  # 00:30, 01:30, 23:50 of the 25th


def test_an_hour_that_comes_twice_is_two_and_one_that_is_left_out_is_none() -> None:
    """Clocks are set back on 25 October 2026 at 03:00 in Berlin, and forward on 29 March at 02:00."""
    back = made("2026-10-25T00:30+00:00", "2026-10-25T01:30+00:00", "2026-10-25T02:30+00:00")  # 02:30, 02:30, 03:30
    assert set(kept(Retention(hourly=3, zone=BERLIN), back)) == {1, 2, 3}
    forward = made("2026-03-29T00:30+00:00", "2026-03-29T01:30+00:00", "2026-03-29T01:45+00:00")  # 01:30, 03:30, 03:45
    assert set(kept(Retention(hourly=3, zone=BERLIN), forward)) == {1, 3}
    day = made("2026-10-24T22:30+00:00", "2026-10-25T22:30+00:00")  # 00:30 and 23:30 of the day with 25 hours
    assert set(kept(Retention(daily=2, zone=BERLIN), day)) == {2}


def test_within_counts_from_the_newest() -> None:
    """So that a source that went silent a year ago does not lose everything."""
    old = made(*days(5, end=NOW - timedelta(days=365)))
    assert set(kept(Retention(within=timedelta(days=2)), old)) == {3, 4, 5}


def test_tags_and_holds_keep() -> None:
    snapshots = made(*days(4))
    snapshots[0] = snapshots[0]._replace(tags=("release",))
    snapshots[1] = snapshots[1]._replace(held=True)
    assert kept(Retention(last=1, tags=("release", "audit")), snapshots) == {
        1: ("tag",),
        2: ("held",),
        4: ("last", "minimum"),
    }


def test_a_complete_one_stands_for_its_period_before_a_partial_one() -> None:
    snapshots = made("2026-11-25T01:00", "2026-11-25T02:00", "2026-11-26T01:00", "2026-11-26T02:00")
    snapshots[1] = snapshots[1]._replace(partial=True)
    snapshots[2] = snapshots[2]._replace(partial=True)
    assert set(kept(Retention(daily=2, zone=UTC), snapshots)) == {1, 4}


def test_never_fewer_than_the_minimum() -> None:
    found = kept(Retention(tags=("none has it",), minimum=3), made(*days(5)))
    assert found == {3: ("minimum",), 4: ("minimum",), 5: ("minimum",)}
    assert kept(Retention(tags=("none has it",), minimum=0), made(*days(5))) == {}


def test_each_dataset_host_and_key_by_itself() -> None:
    snapshots = made(*days(8))
    other = [("e", "h", b"w"), ("d", "i", b"w"), ("d", "h", b"x")]
    for i, (dataset, host, holder) in enumerate(other):
        for at in (2 * i, 2 * i + 1):
            snapshots[at] = snapshots[at]._replace(dataset=dataset, host=host, holder=HolderId(holder * 16))
    assert set(kept(Retention(last=1), snapshots)) == {2, 4, 6, 8}


@pytest.mark.parametrize(
    "fields", [{}, {"last": -1, "daily": 3}, {"within": timedelta(-1)}, {"last": 1, "minimum": -1}]
)
def test_a_policy_that_makes_no_sense(fields: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        Retention(**fields)  # type: ignore[arg-type]


# -- times that are not true ------------------------------------------------------------------------------------------


def test_one_clock_that_was_years_ahead_costs_nothing() -> None:
    moments = days(10)
    moments[4] = datetime(2099, 1, 1, tzinfo=UTC)
    found = kept(Retention(daily=7, zone=UTC), made(*moments))
    assert found.pop(5) == ("its time is in the future",)
    assert set(found) == {3, 4, 6, 7, 8, 9, 10}
    last = kept(Retention(last=1), made(*moments))
    assert set(last) == {5, 10}


def test_a_clock_that_was_set_back_costs_nothing() -> None:
    moments = days(10)
    moments[8] = moments[9] = datetime(1970, 1, 2, tzinfo=UTC)
    found = kept(Retention(daily=2, zone=UTC), made(*moments))
    assert {n: found[n] for n in (9, 10)} == dict.fromkeys((9, 10), ("its time is before that of an earlier one",))
    assert set(found) == {7, 8, 9, 10}


def test_two_runs_at_once_are_both_believed() -> None:
    """Neither saw the other: they have the same number, and either may have begun first."""
    one, two, three = made("2026-11-25T01:00", "2026-11-25T03:00", "2026-11-25T02:00")
    snapshots = [one, two, three._replace(number=two.number)]
    assert kept(Retention(last=3), snapshots).keys() == {1, 2, 3}
    assert all("its time" not in r for rules in kept(Retention(last=3), snapshots).values() for r in rules)


times = st.integers(-(10**9), 10**10).map(lambda s: ns(NOW) + s * 10**9)
POLICIES = [
    Retention(last=3, zone=UTC),
    Retention(daily=4, zone=UTC),
    Retention(hourly=2, weekly=2, yearly=3, zone=UTC),
    Retention(within=timedelta(days=2)),
]


@settings(max_examples=300, deadline=None)
@given(
    real=st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True),
    forged=st.lists(times, min_size=1, max_size=12),
    policy=st.sampled_from(POLICIES),
    same_key=st.booleans(),
)
def test_what_is_forged_takes_no_real_ones_place(
    real: list[int], forged: list[int], policy: Retention, same_key: bool
) -> None:
    """Behind the real ones, by another key at any time at all; by the same key at any time that cannot be true."""
    honest = made(*(NOW - timedelta(days=n) for n in sorted(real, reverse=True)))
    newest = honest[-1].time_ns
    if same_key:
        forged = [t for t in forged if t < newest or t > ns(NOW + timedelta(hours=1))]
    holder = honest[0].holder if same_key else HolderId(b"x" * 16)
    false = [
        Dated(SnapshotId(f"{1000 + i:032x}"), "d", "h", holder, len(honest) + 1 + i, t) for i, t in enumerate(forged)
    ]
    alone = kept(policy, honest)
    together = kept(policy, [*false, *honest])
    assert {n: rules for n, rules in together.items() if n < 1000} == alone
