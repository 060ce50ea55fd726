"""Options and words of the verbs that wait for running backups before they remove anything."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import click

from snapvault.cli.text import SHORT, local_time, parse_duration
from snapvault.format.names import GC_PREFIX
from snapvault.foundation.words import count

F = Callable[..., Any]
NICENESS = 10


def fence_options(f: F) -> F:
    """``--wait``, ``--lease`` and ``--exclusive``."""
    options = (
        click.option(
            "--wait", metavar="DURATION", default="5min", show_default=True, callback=to_duration(SHORT, plain="s"),
            help="For backups that run now (90s, 5min; 300 is seconds); then leave, having removed nothing.",
        ),
        click.option(
            "--lease", metavar="DURATION", default="12h", show_default=True, callback=to_duration(SHORT),
            help="A backup that gave no sign of life for so long (30min, 12h, 2d) cannot be finished any more.",
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


def to_duration(
    units: Mapping[str, timedelta], *, plain: str = ""
) -> Callable[[click.Context, click.Parameter, str | None], timedelta | None]:
    """A callback for options such as 36h or 8w; ``plain``: the unit of a number without one."""

    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
        if value is None:
            return None
        return parse_duration(value + plain if value.isdecimal() else value, units)

    return parse


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
