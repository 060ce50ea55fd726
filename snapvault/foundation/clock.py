"""The one place that tells the time, so that tests can turn it; and how times become numbers and back."""

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SKEW = timedelta(days=1)  # that clocks may differ


def now_ns() -> int:
    """Wall clock, nanoseconds since the epoch, UTC."""
    return time.time_ns()


def now() -> datetime:
    """The same as a time."""
    return time_of(now_ns())


def time_of(nanoseconds: int) -> datetime:
    """A time in UTC, to the microsecond, from nanoseconds since the epoch."""
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def nanoseconds(span: timedelta) -> int:
    """All of them: seconds as a float would lose some."""
    return (span.days * 86_400 + span.seconds) * 10**9 + span.microseconds * 1000
