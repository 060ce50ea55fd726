"""What a check and a prune say of locks."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from machines import Machine

from snapvault import LockReport, PruneResult
from snapvault.cli.locks import lock_lines
from snapvault.cli.prune import result_lines

UNTIL = datetime(2027, 1, 3, 10, tzinfo=UTC)
GOOD = LockReport("governance", 30, 345, UNTIL, 0, 0, 0, 0, ())


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")


def report(**fields: object) -> LockReport:
    return LockReport(**{**{name: getattr(GOOD, name) for name in GOOD.__slots__}, **fields})  # type: ignore[arg-type]


def test_what_is_said_of_locks() -> None:
    locked = f"locked until {UNTIL.astimezone():%Y-%m-%d %H:%M:%S} at least (governance): 345 objects"
    assert lock_lines(None) == []
    assert lock_lines(GOOD) == [locked]
    assert lock_lines(report(extended=1)) == [locked, "the lock of 1 object was extended to 30 days from now"]
    assert lock_lines(report(until=None, unlocked=2, examples=("packs/a", "packs/b"))) == [
        "NOT LOCKED: 2 of 345 objects (packs/a, packs/b)"
    ]
    assert lock_lines(report(until=None, unknown=9, examples=("a", "b", "c", "d", "e"))) == [
        "it cannot be seen whether 9 of 345 objects are locked (a, b, c, d, e, ...)"
    ]
    assert lock_lines(report(refused=1, examples=("a",))) == [
        locked, "the store refused to extend the lock of 1 object (a)"
    ]  # fmt: skip


def test_what_is_said_of_what_stays() -> None:
    result = PruneResult(
        0, 0, 2048, 0, (), 0, packs_locked=2, bytes_locked=4096, locked_until=UNTIL, refused=3, bytes_refused=1024,
        refusal="a\x1b[0m: no", hidden=True,
    )  # fmt: skip
    assert result.status == "partial" and result.bytes_freed == -2048
    assert result_lines(result) == [
        "0 B freed: 0 packs removed, 2.0 KiB copied out of others, which cannot go yet",
        f"4.0 KiB of what may go is locked until {UNTIL.astimezone():%Y-%m-%d %H:%M:%S}; a later prune goes on",
        "3 objects, 1.0 KiB, could not be deleted: a\\x1b[0m: no; a prune with credentials that may delete goes on",
        "the bucket keeps what was removed as older versions; its own lifecycle rules free them",
    ]


def test_locks_are_extended_only_where_there_are_some(cli: Machine, repo: Path) -> None:
    done = cli("check", "--extend-locks")
    assert done.code == 2 and "no lock to extend" in done.err
    for other in ("--no-key", "--repair", "--repair-from=second"):
        assert cli("check", "--extend-locks", other).code == 2
    assert cli("check").out.count("locked") == 0
