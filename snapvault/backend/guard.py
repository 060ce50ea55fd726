"""Wrappers that refuse: calls from a forked process, and reads after the caller asked to stop."""

import os
import threading
from collections.abc import Iterator, Sequence

from snapvault.backend.protocol import Backend, Buffer, ObjectInfo
from snapvault.backend.wrapper import Wrapper
from snapvault.foundation.errors import Cancelled, InvalidInput


class OneProcess(Wrapper):
    """InvalidInput in a process that forked from the one that made this.

    Connections and threads did not survive the fork, and a child must not act in its parent's name, not even when it
    only tidies up what it inherited.
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._pid = os.getpid()

    @property
    def foreign(self) -> bool:
        """Whether this is another process than the one that it was made in."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """InvalidInput in another process."""
        if self.foreign:
            raise InvalidInput("this process forked after the repository was opened; open it again in the child")

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        self.check()
        self.inner.put(name, data)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        self.check()
        self.inner.put_if_absent(name, data)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self.check()
        return self.inner.get(name, start, length)

    def head(self, name: str) -> ObjectInfo:
        self.check()
        return self.inner.head(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.check()
        return self.inner.list(prefix)

    def delete(self, name: str) -> None:
        self.check()
        self.inner.delete(name)


class CancelBackend(Wrapper):
    """Reads raise Cancelled once ``cancel`` is set, however many are still to come.

    Writes go through: an operation that stops still puts the index of what it uploaded.
    """

    def __init__(self, inner: Backend, cancel: threading.Event) -> None:
        super().__init__(inner)
        self._cancel = cancel

    def _check(self) -> None:
        if self._cancel.is_set():
            raise Cancelled("the operation was cancelled")

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._check()
        return self.inner.get(name, start, length)

    def head(self, name: str) -> ObjectInfo:
        self._check()
        return self.inner.head(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for info in self.inner.list(prefix):
            self._check()
            yield info
