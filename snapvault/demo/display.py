"""The steps of a story as they go on: a bar on a terminal, and a line when one is done."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from snapvault.cli.text import human_seconds


class Display:
    """Shows steps on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    @contextmanager
    def step(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """For the time of a step; to be called for each of so many things that is done."""
        began, done = time.monotonic(), 0
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        terminal = self._console.is_terminal
        with Progress(*columns, console=self._console, transient=True, disable=not terminal) as bar:
            task = bar.add_task(what, total=total)

            def advance() -> None:
                nonlocal done
                done += 1
                bar.advance(task)

            yield advance
        print(f"{what}: {done:,} of {total:,}, {human_seconds(time.monotonic() - began)}", file=sys.stderr, flush=True)
