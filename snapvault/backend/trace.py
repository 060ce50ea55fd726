"""Counts, and if wanted records, what is asked of a store."""

import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from snapvault.backend.names import total
from snapvault.backend.protocol import Backend, Buffer, ObjectInfo
from snapvault.backend.wrapper import Wrapper


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was made; ``size`` is bytes sent or received, 0 where none are."""

    method: str
    name: str
    size: int = 0


class TraceBackend(Wrapper):
    """``calls`` by method, ``bytes_sent`` and ``bytes_received``; with ``record`` also every call in ``log``.

    Calls are counted when they are made, bytes when the call succeeded.
    """

    def __init__(self, inner: Backend, *, record: bool = False) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.bytes_sent = 0
        self.bytes_received = 0
        self.log: deque[Call] = deque()
        self._record = record
        self._lock = threading.Lock()

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        size = total(data)
        self._called("put", name, size)
        self.inner.put(name, data)
        self._moved(sent=size)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        size = total(data)
        self._called("put_if_absent", name, size)
        self.inner.put_if_absent(name, data)
        self._moved(sent=size)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._called("get", name, length or 0)
        body = self.inner.get(name, start, length)
        self._moved(received=len(body))
        return body

    def head(self, name: str) -> ObjectInfo:
        self._called("head", name)
        return self.inner.head(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._called("list", prefix)
        return self.inner.list(prefix)

    def delete(self, name: str) -> None:
        self._called("delete", name)
        self.inner.delete(name)

    def _called(self, method: str, name: str, size: int = 0) -> None:
        with self._lock:
            self.calls[method] += 1
            if self._record:
                self.log.append(Call(method, name, size))

    def _moved(self, *, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            self.bytes_sent += sent
            self.bytes_received += received
