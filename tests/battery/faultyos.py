"""The kernel says no: ``os`` for the modules of the local backend, of which one chosen call fails."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from snapvault.backend import local
from snapvault.platform import durable

CHANGING = frozenset({"mkdir", "writev", "fsync", "link", "replace", "unlink", "close"})
READING = frozenset({"open", "stat", "fstat", "pread", "scandir"})


class FaultyOs:
    """Counts the calls of ``which``, from all threads, and fails number ``at`` with ``errno``.

    ``for_ever``: and all later ones.  A ``close`` that fails has closed.
    """

    def __init__(
        self, which: frozenset[str] = CHANGING, at: int = 0, errno: int = 0, *, for_ever: bool = False
    ) -> None:
        self._which, self.at, self._errno, self._for_ever = which, at, errno, for_ever
        self.log: list[str] = []
        self.failed = ""  # the call that failed first

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in self._which else real

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.log.append(name)
            number = len(self.log)
            due = number == self.at or (self._for_ever and bool(self.at) and number > self.at)
            if not due:
                return real(*args, **options)
            if name == "close":
                real(*args, **options)
            self.failed = self.failed or name
            raise OSError(self._errno, os.strerror(self._errno))

        return call

    @contextmanager
    def active(self) -> Iterator["FaultyOs"]:
        """While this is open, the local backend works through it."""
        durable.os = local.os = self  # type: ignore[assignment]
        try:
            yield self
        finally:
            durable.os = local.os = os
