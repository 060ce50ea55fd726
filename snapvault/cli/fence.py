"""Options and words of the verbs that wait for running backups before they remove anything."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import click

from snapvault.cli.text import SHORT, parse_duration
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
        click.option("--exclusive", is_flag=True, help="Nothing else uses the repository meanwhile: I see to that."),
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


def waits_lines(waits_for: Sequence[str]) -> list[str]:
    """What there is to say of sessions that have not ended."""
    if not waits_for:
        return []
    some = ", ".join(sid[:8] for sid in waits_for[:5])
    sessions = count(len(waits_for), "session")
    return [f"what {sessions} may need was left: {some} did not end; run it again later (see --lease)"]
