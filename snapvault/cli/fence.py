"""Options and words of the verbs that wait for running backups before they remove anything."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import click

from snapvault.cli.text import local_time, parse_duration
from snapvault.format.names import GC_PREFIX
from snapvault.foundation.words import count

F = Callable[..., Any]
NICENESS = 10


def fence_options(f: F) -> F:
    """``--wait``, ``--lease`` and ``--exclusive``."""
    options = (
        click.option(
            "--wait", metavar="SECONDS", type=click.IntRange(min=0), default=300, show_default=True,
            callback=lambda ctx, option, value: timedelta(seconds=value),
            help="For backups that run now; then leave, having removed nothing.",
        ),
        click.option(
            "--lease", metavar="DURATION", default="12h", show_default=True, callback=to_duration,
            help="A backup that gave no sign of life for so long cannot be finished any more.",
        ),
        click.option(
            "--exclusive", is_flag=True,
            help="Nothing else uses the repository meanwhile: I see to that.  What did not end is dead.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        f = option(f)
    return f


def give_way() -> None:
    """Nobody waits for what is to be removed; a backup or a restore that runs beside it has the cores first."""
    with suppress(OSError):
        os.nice(NICENESS)


def to_duration(context: click.Context, parameter: click.Parameter, value: str) -> timedelta:
    """A callback for options such as 36h or 8w."""
    return parse_duration(value)


def waits_lines(waits_for: Sequence[str], until: datetime | None) -> list[str]:
    """What there is to say of sessions that have not ended; ``until``: when those that died are waited for no more."""
    if not waits_for:
        return []
    some = ", ".join(f"{_kind(sid)} {sid[:8]}" for sid in waits_for[:5])
    more = f" and {count(len(waits_for) - 5, 'other')}" if len(waits_for) > 5 else ""
    ends = " until it gave no sign of life for the --lease" if until is None else f" until {local_time(until)} at most"
    return [
        f"what others may need was left: {some}{more} did not end; run it again later",
        f"one that was killed is waited for{ends}",
    ]


def _kind(sid: str) -> str:
    return "the prune" if sid.startswith(GC_PREFIX) else "the backup"
