"""Options of the verbs that move data: how much of the line, and how many connections, they may take."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from snapvault.cli.common import option_of_settings
from snapvault.cli.text import parse_size
from snapvault.foundation.errors import InvalidInput

F = TypeVar("F", bound=Callable[..., Any])
TRANSFER = ("upload", "download", "connections")


def transfer_options(function: F) -> F:
    """``--limit-upload``, ``--limit-download`` and ``--connections``; ``Settings.limits`` has what they say."""
    options = (
        option_of_settings(
            "--limit-upload", "upload", metavar="RATE", type=_rate, help="Bytes per second to a store, such as 500K."
        ),
        option_of_settings(
            "--limit-download", "download", metavar="RATE", type=_rate, help="The same from a store."
        ),
        option_of_settings(
            "--connections", metavar="N", type=click.IntRange(min=1), help="Requests to a store at once, at most."
        ),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def _rate(text: str) -> int:
    rate = parse_size(text)
    if not rate:
        raise InvalidInput(f"at {text!r} a second nothing would ever arrive", hint="write it like 500K or 2M")
    return rate
