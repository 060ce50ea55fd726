"""Names that cannot drive a terminal, sizes, tables."""

import ast
import os
import re
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapvault.cli.common import split_reference, status_code
from snapvault.cli.text import (
    KEEPING,
    LONG,
    SHORT,
    examples,
    harmless,
    human_seconds,
    human_size,
    parse_duration,
    parse_size,
    printable,
    table,
)
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.words import count
from snapvault.operations.results import Issue, RestoreResult


def read_back(shown: str) -> str:
    """What a person can do with the escapes."""

    def character(found: re.Match[str]) -> str:
        escape = found[0]
        if escape[1] == "x" and int(escape[2:], 16) >= 0x80:
            return chr(0xDC00 + int(escape[2:], 16))
        return str(ast.literal_eval(f'"{escape}"'))

    return re.sub(r"\\(x..|u....|U........|.)", character, shown)


@settings(deadline=None)
@given(st.binary(max_size=40) | st.text(st.characters(exclude_categories=["Cs"])).map(os.fsencode))
def test_a_name_is_printable_and_says_its_bytes(raw: bytes) -> None:
    shown = printable(os.fsdecode(raw))
    assert shown.isprintable()
    assert os.fsencode(read_back(shown)) == raw
    assert harmless(shown) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain ümläut", "plain ümläut"),
        ("back\\slash", "back\\\\slash"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("new\nline \\", "new\\nline \\\\"),
        (os.fsdecode(b"\xff"), "\\xff"),
        ("right\u202eto left", "right\\u202eto left"),
    ],
)
def test_escapes(name: str, shown: str) -> None:
    assert printable(name) == shown


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1500", 1500), ("10M", 10 << 20), ("1.5GiB", 3 << 29), ("2kb", 2048), (" 7 B", 7)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "1 0", "1e3", "ten"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(InvalidInput, match="no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "units", "span"),
    [
        ("20s", SHORT, timedelta(seconds=20)), ("30min", SHORT, timedelta(minutes=30)), ("0h", LONG, timedelta(0)),
        ("1h30min", SHORT, timedelta(minutes=90)), ("2w", SHORT, timedelta(days=14)), ("2mo", LONG, timedelta(days=62)),
        ("90min", LONG, timedelta(minutes=90)), ("1y6mo", LONG, timedelta(days=366 + 186)),
        ("3m", KEEPING, timedelta(days=93)), ("3mo", KEEPING, timedelta(days=93)),
        ("36h", KEEPING, timedelta(hours=36)), ("1y6m", KEEPING, timedelta(days=366 + 186)),
        ("30min", KEEPING, timedelta(minutes=30)),
    ],
)  # fmt: skip
def test_spans_are_read(text: str, units: dict[str, timedelta], span: timedelta) -> None:
    assert parse_duration(text, units) == span


@pytest.mark.parametrize(
    ("text", "units", "message", "hint"),
    [
        ("30m", LONG, "ambiguous", "write 30min or 30mo"), ("1m", SHORT, "ambiguous", "write 1min"),
        ("1h30m", LONG, "ambiguous", "write 1h30min or 1h30mo"), ("2mo", SHORT, "too long", "write it like 90s, 30min"),
        ("1y", SHORT, "too long", "write it like"), ("soon", LONG, "no span", "write it like 90min, 36h, 30d or 1y6mo"),
        ("20", LONG, "no span", "write it like"), ("", SHORT, "no span", "write it like"),
        ("-1h", KEEPING, "no span", "write it like"), ("9" * 5000 + "d", LONG, "longer than anybody", ""),
        ("9999999999d", LONG, "longer than anybody", ""),
    ],
)  # fmt: skip
def test_no_spans(text: str, units: dict[str, timedelta], message: str, hint: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        parse_duration(text, units)
    assert (caught.value.hint or "").startswith(hint)


def test_sizes_and_times_are_written() -> None:
    assert [human_size(n) for n in (0, 1023, 1024, 150 << 10, 3 << 29)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "150 KiB",
        "1.5 GiB",
    ]
    assert human_size(1 << 70) == "1,048,576 PiB".replace(",", "")
    assert [human_seconds(s) for s in (0.44, 59.94, 185, 7385)] == ["0.4 s", "59.9 s", "3:05", "2:03:05"]
    assert [count(n, w) for n, w in ((1, "entry"), (2, "entry"), (1234, "file"))] == [
        "1 entry",
        "2 entries",
        "1,234 files",
    ]


def test_a_table_is_aligned() -> None:
    assert table(("Name", "Size"), [("a", "10"), ("long name", "5")], right=(1,)) == [
        "Name       Size",
        "a            10",
        "long name     5",
    ]


def test_no_walls() -> None:
    lines = examples([str(i) for i in range(1000)], "paths")
    assert len(lines) == 11 and lines[-1] == "... and 990 more paths (--json lists them all)"
    assert examples(["one"], "paths") == ["one"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("3f2a", ("3f2a", "/")),
        ("home@latest:/srv/a:/b", ("home@latest", "/srv/a:/b")),
        ("home@2026-11-24T10:00", ("home@2026-11-24T10:00", "/")),
        ("home@2026-11-24T10:00:/etc", ("home@2026-11-24T10:00", "/etc")),
        ("latest:/", ("latest", "/")),
    ],
)
def test_a_path_starts_at_the_first_colon_slash(text: str, parts: tuple[str, str]) -> None:
    assert split_reference(text) == parts


def test_a_reference_without_a_snapshot() -> None:
    with pytest.raises(InvalidInput, match="names no snapshot"):
        split_reference(":/etc")


def test_of_several_statuses_the_gravest_is_the_exit_code() -> None:
    issue = (Issue("a", "b"),)

    def code(issues: tuple[Issue, ...], lost: tuple[Issue, ...]) -> int:
        return status_code(RestoreResult("", "", 0, 0, 0, 0, 0, 0, 0, 0, issues, lost, (), 0.0).status)

    assert [code((), ()), code(issue, ()), code((), issue), code(issue, issue)] == [0, 3, 20, 20]
