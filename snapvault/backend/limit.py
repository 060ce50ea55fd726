"""Bandwidth limits, and a latency that makes a fast store as slow as a far one."""

import threading
import time
from collections.abc import Iterator, Sequence

from snapvault.backend.names import total
from snapvault.backend.protocol import Backend, Buffer, ObjectInfo
from snapvault.backend.wrapper import Wrapper


class _Rate:
    """Hands out slots of time: whoever moves n bytes waits until the line was free for them."""

    def __init__(self, bytes_per_second: float | None, cancel: threading.Event) -> None:
        self._rate = bytes_per_second
        self._cancel = cancel
        self._free_at = 0.0
        self._lock = threading.Lock()

    def wait(self, count: int) -> None:
        if not self._rate or not count:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self._rate
            delay = self._free_at - now
        self._cancel.wait(delay)


class LimitBackend(Wrapper):
    """``upload`` and ``download`` in bytes per second, over all threads together; ``latency`` in seconds a call.

    ``cancel``: an event that ends all waiting, so that a slow transfer does not hold up a caller who wants to stop.
    """

    def __init__(
        self,
        inner: Backend,
        *,
        upload: float | None = None,
        download: float | None = None,
        latency: float = 0.0,
        cancel: threading.Event | None = None,
    ) -> None:
        super().__init__(inner)
        self._cancel = cancel or threading.Event()
        self._up, self._down = _Rate(upload, self._cancel), _Rate(download, self._cancel)
        self._latency = latency

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        self._before(total(data))
        self.inner.put(name, data)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        self._before(total(data))
        self.inner.put_if_absent(name, data)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._before()
        body = self.inner.get(name, start, length)
        self._down.wait(len(body))
        return body

    def head(self, name: str) -> ObjectInfo:
        self._before()
        return self.inner.head(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._before()
        return self.inner.list(prefix)

    def delete(self, name: str) -> None:
        self._before()
        self.inner.delete(name)

    def _before(self, sent: int = 0) -> None:
        if self._latency:
            self._cancel.wait(self._latency)
        self._up.wait(sent)
