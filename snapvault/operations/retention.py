"""Retention rules: which snapshots of a dataset are kept, and by which rule.  Decides only; forgets nothing.

A writer says itself when its snapshot was made.  So rules are applied to the snapshots of one dataset, host and key at
a time, and a time that cannot be true (of the future, or before that of an earlier one in the writer's own sequence)
counts for no rule: such a snapshot is kept, and takes no other one's place.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import NamedTuple

from snapvault.foundation.clock import EPOCH, nanoseconds
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.ids import HolderId, SnapshotId

TOLERANCE = timedelta(hours=1)  # clocks may differ by so much before a time is of the future


class Dated(NamedTuple):
    """What the rules look at.  ``number``: its place in the sequence of its writer."""

    id: SnapshotId
    dataset: str
    host: str
    holder: HolderId
    number: int
    time_ns: int
    tags: tuple[str, ...] = ()
    partial: bool = False
    held: bool = False


@dataclass(frozen=True, slots=True)
class Retention:
    """How many to keep: the newest (``last``), and the newest of each of so many hours, days, weeks, months, years.

    Periods without a snapshot do not count; weeks are ISO weeks; all are those of ``zone`` (None: of this machine).  Of
    a period with both, a complete snapshot is kept before a partial one.  ``within``: all that are not older than the
    newest by more than this.  ``tags``: all with one of these.  ``minimum``: never fewer than so many, whatever the
    rules say.  Raises InvalidInput for a policy that keeps nothing.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: timedelta = timedelta(0)
    tags: tuple[str, ...] = ()
    minimum: int = 1
    zone: tzinfo | None = None

    def __post_init__(self) -> None:
        counts = (self.last, *(getattr(self, name) for name in PERIODS))
        if min(*counts, self.minimum) < 0 or self.within < timedelta(0):
            raise InvalidInput("a retention rule cannot keep less than nothing")
        if not any(counts) and not self.within and not self.tags:
            raise InvalidInput("no retention rule says what to keep", hint="give at least one, such as --keep-daily 7")

    def reasons(self, snapshots: Iterable[Dated], now_ns: int) -> dict[SnapshotId, tuple[str, ...]]:
        """For each snapshot the rules that keep it; none: it may be forgotten."""
        groups: dict[tuple[str, str, HolderId], list[Dated]] = defaultdict(list)
        found: dict[SnapshotId, list[str]] = {}
        for snapshot in snapshots:
            groups[snapshot.dataset, snapshot.host, snapshot.holder].append(snapshot)
            found[snapshot.id] = []
        for group in groups.values():
            for snapshot, reason in self._kept(sorted(group, key=_sequence), now_ns):
                found[snapshot.id].append(reason)
        return {sid: tuple(reasons) for sid, reasons in found.items()}

    def _kept(self, group: Sequence[Dated], now_ns: int) -> Iterable[tuple[Dated, str]]:
        """What is kept of one writer's snapshots, oldest first, and why."""
        plausible, others = believed(group, now_ns)
        yield from others
        newest = plausible[::-1]
        yield from ((s, "held") for s in group if s.held)
        yield from ((s, "tag") for s in group if set(s.tags) & set(self.tags))
        yield from ((s, "last") for s in _with_siblings(newest[: self.last], newest))
        for name, period in PERIODS.items():
            yield from (
                (s, name) for s in _with_siblings(self._of_periods(newest, period, getattr(self, name)), newest)
            )
        if newest and self.within:
            limit = max(s.time_ns for s in newest) - nanoseconds(self.within)
            yield from ((s, "within") for s in newest if s.time_ns >= limit)
        yield from ((s, "minimum") for s in _with_siblings(newest[: self.minimum], newest))
        whole = next((s for s in newest if not s.partial), None)
        if self.minimum and whole is not None and newest[0].partial:
            yield whole, "newest complete"

    def _of_periods(self, newest: Sequence[Dated], period: Callable[[datetime], object], count: int) -> list[Dated]:
        chosen: dict[object, Dated] = {}
        for s in sorted(newest, key=lambda s: s.time_ns, reverse=True) if count else ():
            key = period(_moment(s.time_ns).astimezone(self.zone))
            if key not in chosen:
                if len(chosen) == count:
                    break
                chosen[key] = s
            elif chosen[key].partial and not s.partial:
                chosen[key] = s
        return list(chosen.values())


# By UTC offset too: where clocks are set back, an hour comes twice, and they are two.
PERIODS: dict[str, Callable[[datetime], object]] = {
    "hourly": lambda t: (t.date(), t.hour, t.utcoffset()),
    "daily": lambda t: t.date(),
    "weekly": lambda t: t.isocalendar()[:2],
    "monthly": lambda t: (t.year, t.month),
    "yearly": lambda t: t.year,
}


def believed(group: Sequence[Dated], now_ns: int) -> tuple[list[Dated], list[tuple[Dated, str]]]:
    """Of one writer's snapshots in its own sequence: those whose time may be true; the others, and why not."""
    good: list[Dated] = []
    others: list[tuple[Dated, str]] = []
    latest = latest_before = -(1 << 63)  # of all believed so far; of those with a smaller number
    number = -1
    for s in group:
        if s.number != number:
            number, latest_before = s.number, latest
        if s.time_ns > now_ns + nanoseconds(TOLERANCE):
            others.append((s, "its time is in the future"))
        elif s.time_ns < latest_before:
            others.append((s, "its time is before that of an earlier one"))
        else:
            good.append(s)
            latest = max(latest, s.time_ns)
    return good, others


def _with_siblings(chosen: Sequence[Dated], group: Sequence[Dated]) -> list[Dated]:
    """Those of the same number too: two runs at once, or one that somebody with the writer's key slipped in later."""
    numbers = {s.number for s in chosen}
    return [s for s in group if s.number in numbers]


def _sequence(s: Dated) -> tuple[int, int, SnapshotId]:
    return s.number, s.time_ns, s.id


def _moment(time_ns: int) -> datetime:
    return EPOCH + timedelta(microseconds=time_ns // 1000)
