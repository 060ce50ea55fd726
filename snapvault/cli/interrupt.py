"""Ctrl-C and SIGTERM: a clean stop of a long operation, at once on the second."""

import signal
import threading
from types import FrameType
from typing import Self


class Interrupt:
    """While the context is open, the first signal sets ``cancel``, which operations look at; another raises."""

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.cancel.is_set():
            raise KeyboardInterrupt
        self.cancel.set()


def terminate_as_interrupt() -> None:
    """Outside long operations SIGTERM ends the process as Ctrl-C does: in order, with exit code 130."""
    signal.signal(signal.SIGTERM, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def ignore_interrupts() -> None:
    """For the end: the process has nothing left to do but go."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
