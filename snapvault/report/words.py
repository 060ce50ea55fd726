"""Words and signs that all reports share."""

from datetime import UTC, datetime, timedelta
from html import escape

from snapvault.assurance.marks import ALIVE, BACKED_UP, BAD, DECLARED, GOOD, INTACT, REPLICATED, RESTORED, UNKNOWN
from snapvault.report.board import DARK, DOWN, FINE, KEPT_NOT

STEPS = {
    DECLARED: "declared", BACKED_UP: "backed up", REPLICATED: "replicated", INTACT: "intact", RESTORED: "restored",
    ALIVE: "alive",
}  # fmt: skip
SIGNS = {GOOD: "✓", BAD: "✗", UNKNOWN: "?"}  # never by colour alone
TONES = {
    FINE: ("✓", "can be brought back"), KEPT_NOT: ("!", "can be brought back, but something is owed"),
    DOWN: ("✗", "cannot be brought back as promised"), DARK: ("?", "not known"),
}  # fmt: skip


def age(span: timedelta) -> str:
    """In the unit that says most in two or three digits."""
    minutes = max(0, round(span.total_seconds() / 60))
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"


def minute(time: datetime | None) -> str:
    """To the minute, in UTC."""
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def plain(text: str) -> str:
    """Escaped for HTML, and without what cannot be printed: it may turn the text around it."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split())))
