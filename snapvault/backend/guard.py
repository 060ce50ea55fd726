"""Wrappers that refuse: calls from a forked process, and reads after the caller asked to stop."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from snapvault.backend.protocol import Backend, Buffer, ObjectInfo
from snapvault.backend.retry import UNTIL
from snapvault.backend.wrapper import Wrapper, reach
from snapvault.foundation.errors import Cancelled, InvalidInput, StoreUnavailable

T = TypeVar("T")


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

    def reach(self, call: Callable[[Backend], T]) -> T:
        self.check()
        return reach(self.inner, call)


class CancelBackend(Wrapper):
    """Reads raise Cancelled once ``cancel`` is set, however many are still to come; no call is repeated any more.

    Writes go through: an operation that stops still puts the index of what it uploaded.  But the first one that fails
    because the store does not answer is the last: nobody who asked to stop waits for a dead store.
    """

    def __init__(self, inner: Backend, cancel: threading.Event) -> None:
        super().__init__(inner)
        self._cancel = cancel
        self._dead = False

    def _check(self) -> None:
        if self._cancel.is_set():
            raise Cancelled("the operation was cancelled")

    @contextlib.contextmanager
    def _until_cancelled(self) -> Iterator[None]:
        if self._dead and self._cancel.is_set():
            raise StoreUnavailable(f"{self.url} did not answer before the operation was cancelled")
        token = UNTIL.set(self._cancel)
        try:
            yield
        except StoreUnavailable:
            self._dead = self._cancel.is_set()
            raise
        finally:
            UNTIL.reset(token)

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        with self._until_cancelled():
            self.inner.put(name, data)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        with self._until_cancelled():
            self.inner.put_if_absent(name, data)

    def delete(self, name: str) -> None:
        with self._until_cancelled():
            self.inner.delete(name)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._check()
        with self._until_cancelled():
            return self.inner.get(name, start, length)

    def head(self, name: str) -> ObjectInfo:
        self._check()
        with self._until_cancelled():
            return self.inner.head(name)

    def reach(self, call: Callable[[Backend], T]) -> T:
        self._check()
        with self._until_cancelled():
            return reach(self.inner, call)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        listing = self.inner.list(prefix)
        while True:
            with self._until_cancelled():  # not around the yield: the caller does other things in between
                info = next(listing, None)
            if info is None:
                return
            self._check()
            yield info
