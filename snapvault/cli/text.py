"""Text for people: names that cannot drive a terminal, sizes, times, tables."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from snapvault.foundation.errors import InvalidInput

EXAMPLES = 10  # lines of a long list that are shown
_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[\\ntr])")
_LETTERS = {"\\": "\\", "n": "\n", "t": "\t", "r": "\r"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DURATION = re.compile(r"(\d+)(min|mo|[smhdwy])")
SHORT = {
    "s": timedelta(seconds=1), "min": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}  # fmt: skip
LONG = SHORT | {"mo": timedelta(days=31), "y": timedelta(days=366)}
KEEPING = LONG | {"m": LONG["mo"]}  # as restic has it
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)


def printable(name: str) -> str:
    """A name with everything escaped that a terminal could act on, or that is no UTF-8; no two names look the same.

    A name comes from whoever wrote the backed up tree, so it may hold escape sequences.  Backslashes are doubled;
    ``\\xff`` is a byte that is no UTF-8, ``\\x1b`` or ``\\u202e`` a character.
    """
    return harmless(name.replace("\\", "\\\\"))


def unprintable(shown: str) -> str:
    """The name that ``printable`` showed: its escapes are read back, and everything else is left as it is."""
    return _ESCAPE.sub(_unescaped, shown)


def _unescaped(found: re.Match[str]) -> str:
    escape = found[0]
    if escape[1] in _LETTERS:
        return _LETTERS[escape[1]]
    code = int(escape[2:], 16)
    if code > 0x10FFFF:
        return escape
    return chr(0xDC00 + code) if escape[1] == "x" and code >= 0x80 else chr(code)


def harmless(text: str) -> str:
    """A line with everything escaped that a terminal could act on; leaves alone what ``printable`` made."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8 (surrogateescape)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if 0x80 <= code <= 0xFF else character.encode("unicode_escape").decode("ascii")


def harmless_lines(text: str) -> str:
    """The same for several lines."""
    return "\n".join(harmless(line) for line in text.split("\n"))


def human_size(count: float) -> str:
    """Bytes in binary units, three digits."""
    for unit in _UNITS:
        if abs(count) < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def parse_size(text: str) -> int:
    """Bytes from ``1500``, ``10M``, ``1.5GiB`` (binary units); InvalidInput."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(f"{text!r} is no size", hint="write it like 500K, 10M or 1.5GiB")
    factor = 1024 ** " kmgtp".index(found[2].lower() or " ")
    return int(float(found[1]) * factor)


def parse_duration(text: str, units: Mapping[str, timedelta]) -> timedelta:
    """A span of time from ``90min``, ``36h``, ``1y6mo``, in these units (SHORT, LONG or KEEPING).

    Months have 31 days, years 366.  InvalidInput; also for ``m``, if it could be minutes as well as months.
    """
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInput(f"{text!r} is no span of time", hint=f"write it like {_examples(units)}")
    unknown = {unit for _, unit in parts if unit not in units}
    if "m" in unknown:
        meanings = ("min", "mo") if "mo" in units else ("min",)
        written = ("".join(n + (meaning if unit == "m" else unit) for n, unit in parts) for meaning in meanings)
        raise InvalidInput(f"{text!r} is ambiguous: m could be minutes or months", hint=f"write {' or '.join(written)}")
    if unknown:
        raise InvalidInput(
            f"{text!r} is in months or years, too long for this", hint=f"write it like {_examples(units)}"
        )
    try:
        return sum((int(number) * units[unit] for number, unit in parts), timedelta(0))
    except (OverflowError, ValueError):  # ValueError: thousands of digits
        raise InvalidInput("that span is longer than anybody keeps anything") from None


def _examples(units: Mapping[str, timedelta]) -> str:
    return "90min, 36h, 30d or 1y6mo" if "mo" in units else "90s, 30min, 36h or 2d"


def human_seconds(seconds: float) -> str:
    """``0.4 s``, ``3:05``, ``2:03:05``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def local_time(time: datetime) -> str:
    """To the second, in the local zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> list[str]:
    """Lines of aligned columns; those in ``right`` to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    to_right = set(right)

    def pad(i: int, cell: str) -> str:
        return cell.rjust(widths[i]) if i in to_right else cell.ljust(widths[i])

    return ["  ".join(pad(i, cell) for i, cell in enumerate(line)).rstrip() for line in lines]


def examples(lines: Sequence[str], what: str) -> list[str]:
    """The first lines, and how many more there are: never a wall."""
    shown = list(lines[:EXAMPLES])
    if len(lines) > EXAMPLES:
        shown.append(f"... and {len(lines) - EXAMPLES:,} more {what} (--json lists them all)")
    return shown
