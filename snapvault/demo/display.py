"""The story as it goes on: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Advance = Callable[[], None]


class Display(Protocol):
    """Where steps are shown."""

    def step(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """For the time of a step; called for each of so many things that are done."""


class Lines:
    """A line on standard error for each step that is done."""

    @contextmanager
    def step(self, what: str, total: int) -> Iterator[Advance]:
        """See Display."""
        began, done = time.monotonic(), 0

        def advance() -> None:
            nonlocal done
            done += 1

        yield advance
        print(f"{what}: {done:,} of {total:,}, {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)


class Bars:
    """A bar for each step; those that are done stay."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))

    @contextmanager
    def step(self, what: str, total: int) -> Iterator[Advance]:
        """See Display."""
        task = self._progress.add_task(what, total=total)
        yield lambda: self._progress.advance(task)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()
