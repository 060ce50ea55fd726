"""Progress of long operations: a bar on a terminal, a line now and then on a pipe, JSON lines with ``--json``."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from snapvault.cli.interrupt import Interrupt
from snapvault.cli.output import Output
from snapvault.cli.text import harmless, human_seconds, human_size
from snapvault.foundation.events import Control, Event, Limits

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

BAR_AFTER = 0.5  # seconds: a quick command needs no bar, and rich takes a while to load
LINE_AFTER, LINE_EVERY = 10.0, 30.0  # seconds, on a pipe
JSON_EVERY = 1.0


class Lines:
    """JSON lines, or lines of text for a log."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._next = 0.0 if output.as_json else LINE_AFTER
        self._every = JSON_EVERY if output.as_json else LINE_EVERY

    def show(self, event: Event) -> None:
        """Write, unless the last line was a moment ago."""
        if event.seconds < self._next:
            return
        self._next = event.seconds + self._every
        if self._output.as_json:
            self._output.line("progress", event.to_dict())
        else:
            self._output.note(f"{event.operation}: {describe(event)}, {human_seconds(event.seconds)}")

    def close(self) -> None:
        """Nothing is open."""


class Bar:
    """A bar of rich's that vanishes at the end.  ``NO_COLOR`` is rich's to honour."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def show(self, event: Event) -> None:
        """Draw."""
        if event.seconds < BAR_AFTER:
            return
        if self._progress is None:
            self._progress = _make_bar()
            self._task = self._progress.add_task("", total=None)
            self._progress.start()
        assert self._task is not None
        by_bytes = event.bytes_total > 0
        done, total = (event.bytes_done, event.bytes_total) if by_bytes else (event.done, event.total)
        text = f"{event.operation}: {describe(event)}"
        self._progress.update(self._task, description=text, completed=done, total=total or None)

    def close(self) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.stop()


def _make_bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(bar_width=20), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def describe(event: Event) -> str:
    """Phase, counts and bytes in words."""
    words = [event.phase]
    if event.done:
        words.append(f"{event.done:,}" + (f" of {event.total:,}" if event.total else ""))
    if event.bytes_done:
        amount = human_size(event.bytes_done)
        words.append(amount + (f" of {human_size(event.bytes_total)}" if event.bytes_total else ""))
        if event.seconds >= 1:
            words.append(f"{human_size(event.bytes_done / event.seconds)}/s")
    return harmless(" ".join(words))


def _on_terminal() -> bool:
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


@contextlib.contextmanager
def long_operation(output: Output, *, limits: Limits | None = None) -> Iterator[Control]:
    """A Control that shows progress and that Ctrl-C cancels."""
    view = Lines(output) if output.as_json or not _on_terminal() else Bar()
    lock = threading.Lock()  # restores report from several threads

    def progress(event: Event) -> None:
        if output.quiet and not output.as_json:
            return
        # Nobody looks any more: an exception here would cancel the work.
        with lock, contextlib.suppress(OSError):
            view.show(event)

    with Interrupt() as interrupt:
        try:
            yield Control(progress=progress, cancel=interrupt.cancel, limits=limits)
        finally:
            view.close()
