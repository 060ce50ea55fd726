"""Typed progress events, and the one object that controls every long operation."""

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from snapvault.foundation.errors import Cancelled, InvalidInput

INTERVAL = 0.1  # seconds between two progress events of one operation


@dataclass(frozen=True, slots=True)
class Event:
    """Where a long operation stands.  Totals are 0 while unknown; bytes are plaintext bytes."""

    operation: str  # backup, restore, check, ...
    phase: str  # scan, read, write, verify, ...
    done: int = 0
    total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    current: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one operation may use.  ``None``: the default of the operation, for what concerns a store no limit."""

    threads: int | None = None  # workers that compress, encrypt, fetch or compare; default: the cores
    memory: int | None = None  # bytes of data in flight
    upload: int | None = None  # bytes per second to a store
    download: int | None = None  # bytes per second from a store
    connections: int | None = None  # calls of a store at once

    def __post_init__(self) -> None:
        for name, limit in asdict(self).items():
            if limit is not None and limit < 1:
                raise InvalidInput(f"with a limit of {limit} {name} nothing would ever be done")


@dataclass(frozen=True, slots=True)
class Control:
    """Progress, cancellation and limits of a long operation."""

    progress: Callable[[Event], None] | None = None  # an exception in it cancels the operation
    cancel: threading.Event | None = None  # set it: the operation stops within a second
    limits: Limits | None = None


def limits_of(control: Control | None) -> Limits:
    """What a caller set, or no limits."""
    return (control.limits if control is not None else None) or Limits()


@dataclass(slots=True)
class Reporter:
    """Sends rate-limited events to a control's callback and raises Cancelled when asked to stop.

    ``tick`` is cheap enough to be called for every file or chunk.
    """

    operation: str
    control: Control | None = None
    started: float = field(default_factory=time.monotonic)
    _next: float = 0.0

    def check(self) -> None:
        """Raise Cancelled if the caller asked to stop."""
        if self.control is not None and self.control.cancel is not None and self.control.cancel.is_set():
            raise Cancelled(f"{self.operation} was cancelled")

    def tick(
        self, phase: str, done: int, total: int = 0, bytes_done: int = 0, bytes_total: int = 0, current: str = ""
    ) -> None:
        """Check for cancellation; report, unless the last report was a moment ago."""
        control = self.control
        if control is None:
            return
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + INTERVAL
        self.check()
        self.send(phase, done, total, bytes_done, bytes_total, current)

    def send(
        self, phase: str, done: int, total: int = 0, bytes_done: int = 0, bytes_total: int = 0, current: str = ""
    ) -> None:
        """Report now; for the last event of a phase."""
        if self.control is None or self.control.progress is None:
            return
        seconds = time.monotonic() - self.started
        self.control.progress(Event(self.operation, phase, done, total, bytes_done, bytes_total, current, seconds))
