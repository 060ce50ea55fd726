"""Spans of time as the register writes them: 90m, 24h, 30d, 1d12h."""

import re
from datetime import timedelta

from snapvault.foundation.errors import InvalidInput

_PART = re.compile(r"(\d+)(min|[smhdw])")
_UNITS = {
    "w": timedelta(weeks=1), "d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}  # fmt: skip
LONGEST = timedelta(days=36_525)


def parse_span(text: str) -> timedelta:
    """Seconds, minutes (``m`` or ``min``), hours, days and weeks; InvalidInput, also for nothing and for too long."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInput(f"{text!r} is no span of time: write it like 90m, 24h, 30d or 2w (m are minutes)")
    try:
        span = sum((int(number) * _UNITS[unit[0]] for number, unit in parts), timedelta(0))
    except (OverflowError, ValueError):  # ValueError: thousands of digits
        span = LONGEST * 2
    if not timedelta(0) < span <= LONGEST:
        raise InvalidInput(f"{text!r} is {'longer than a hundred years' if span else 'no time at all'}")
    return span


def format_span(span: timedelta) -> str:
    """What ``parse_span`` reads as this span of whole seconds, in the largest unit that measures it."""
    unit = next(unit for unit, size in _UNITS.items() if not span % size)
    return f"{span // _UNITS[unit]}{unit}"
