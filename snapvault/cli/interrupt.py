"""Ctrl-C and SIGTERM: a clean stop of a long operation, at once on the second."""

import signal
import threading
from types import FrameType
from typing import Self

from snapvault.foundation.errors import Cancelled

_READERS = ("snapvault/source/command.py", "snapvault/source/stream.py")
NUDGE = 0.3  # seconds between two looks at where a stopping operation is


class Interrupt:
    """While the context is open, signals set ``cancel``.

    An operation looks at ``cancel`` between two pieces of work.  One that waits for a pipe that delivers nothing has no
    such moment: there, and only there, the handler itself ends the wait with Cancelled.
    """

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number, handler in (
            (signal.SIGINT, self._stop),
            (signal.SIGTERM, self._stop),
            (signal.SIGALRM, self._nudge),
        ):
            self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.cancel.is_set():
            raise KeyboardInterrupt
        self.cancel.set()
        signal.setitimer(signal.ITIMER_REAL, NUDGE, NUDGE)
        self._nudge(number, frame)

    def _nudge(self, number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_name == "read" and frame.f_code.co_filename.replace("\\", "/").endswith(_READERS):
                signal.setitimer(signal.ITIMER_REAL, 0)
                raise Cancelled("the operation was cancelled")
            frame = frame.f_back


def terminate_as_interrupt() -> None:
    """Outside long operations SIGTERM ends the process as Ctrl-C does: in order, with exit code 130."""
    signal.signal(signal.SIGTERM, _interrupted)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
