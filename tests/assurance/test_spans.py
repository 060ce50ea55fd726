"""Spans of time: what is read, what is written, and what is none."""

from datetime import timedelta

import pytest

from snapvault.assurance.spans import format_span, parse_span
from snapvault.foundation.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30s", timedelta(seconds=30)), ("90m", timedelta(minutes=90)), ("24h", timedelta(hours=24)),
        ("30d", timedelta(days=30)), ("2w", timedelta(days=14)), ("1d12h", timedelta(hours=36)),
        ("90min", timedelta(minutes=90)), ("1h5min", timedelta(minutes=65)), ("5m1min", timedelta(minutes=6)),
        ("36525d", timedelta(days=36_525)),
    ],
)  # fmt: skip
def test_what_is_a_span(text: str, span: timedelta) -> None:
    assert parse_span(text) == span
    assert parse_span(format_span(span)) == span


@pytest.mark.parametrize(
    "text",
    [
        "",
        "24",
        "h",
        "0h",
        "-1h",
        "1.5h",
        "1 h",
        "1y",
        "1mo",
        "1mi",
        "1minutes",
        "1H",
        "24h ",
        "36526d",
        "9" * 5000 + "w",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"span of time|no time at all|hundred years"):
        parse_span(text)


def test_in_the_largest_unit_that_measures_it() -> None:
    texts = ["2w", "30d", "1d", "36h", "90m", "30s"]
    assert [format_span(parse_span(t)) for t in ("14d", "30d", "24h", "36h", "90m", "30s")] == texts
