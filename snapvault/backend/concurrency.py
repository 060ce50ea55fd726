"""A limit of the calls that are in flight at once."""

import threading
from collections.abc import Iterator, Sequence

from snapvault.backend.protocol import Backend, Buffer, ObjectInfo
from snapvault.backend.wrapper import Wrapper


class ConcurrencyBackend(Wrapper):
    """At most ``calls`` at once, over all threads; whoever comes next waits for one of them to return.

    A call that is being repeated counts as one, its waiting included: a store in trouble is asked less.  A listing
    counts while it fetches, and not while its caller looks at what came.
    """

    def __init__(self, inner: Backend, calls: int) -> None:
        super().__init__(inner)
        self._places = threading.BoundedSemaphore(calls)

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        with self._places:
            self.inner.put(name, data)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        with self._places:
            self.inner.put_if_absent(name, data)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        with self._places:
            return self.inner.get(name, start, length)

    def head(self, name: str) -> ObjectInfo:
        with self._places:
            return self.inner.head(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        found = self.inner.list(prefix)
        while True:
            with self._places:
                info = next(found, None)
            if info is None:
                return
            yield info

    def delete(self, name: str) -> None:
        with self._places:
            self.inner.delete(name)
