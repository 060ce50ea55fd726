"""How much is asked of a store, how long it takes, and what fails: numbers that a service can show."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from snapvault.backend.names import total
from snapvault.backend.protocol import Backend, Buffer, Exists, NotFound, ObjectInfo
from snapvault.backend.retry import RetryBackend
from snapvault.backend.wrapper import Wrapper
from snapvault.foundation.errors import SnapvaultError


@dataclass(frozen=True, slots=True)
class MethodMetrics:
    """One method: every attempt is a call; ``errors`` are those that ended in no answer of the protocol."""

    calls: int
    errors: int
    seconds: float  # in all of them together, which may run side by side


@dataclass(frozen=True, slots=True)
class Metrics:
    """What was asked of a store since it was opened.  Bytes are those of objects, in calls that succeeded."""

    methods: dict[str, MethodMetrics]
    bytes_sent: int
    bytes_received: int
    retries: int  # calls that were made again after a passing fault

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"{n} {m.calls} ({m.errors} failed) in {m.seconds:.1f} s" for n, m in self.methods.items()]
        return "; ".join(
            [*parts, f"{self.bytes_sent} bytes sent, {self.bytes_received} received, {self.retries} retries"]
        )


class MetricsBackend(Wrapper):
    """``calls``, ``errors`` and ``seconds`` by method, ``bytes_sent`` and ``bytes_received``.

    Calls are counted when they are made, bytes when the call succeeded.  That something is not there, or is already, is
    an answer and no error.
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.bytes_sent = 0
        self.bytes_received = 0
        self._lock = threading.Lock()

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        size = total(data)
        self._called("put", name, size)
        with self._measured("put"):
            self.inner.put(name, data)
        self._moved(sent=size)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        size = total(data)
        self._called("put_if_absent", name, size)
        with self._measured("put_if_absent"):
            self.inner.put_if_absent(name, data)
        self._moved(sent=size)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._called("get", name, length or 0)
        with self._measured("get"):
            body = self.inner.get(name, start, length)
        self._moved(received=len(body))
        return body

    def head(self, name: str) -> ObjectInfo:
        self._called("head", name)
        with self._measured("head"):
            return self.inner.head(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._called("list", prefix)
        with self._measured("list"):
            found = self.inner.list(prefix)
        return self._listing(found)

    def _listing(self, found: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        """The time that the store takes for it, and not its caller; added up once, since there may be millions."""
        seconds, errors = 0.0, 0
        try:
            while True:
                began = time.monotonic()
                info = next(found, None)
                seconds += time.monotonic() - began
                if info is None:
                    return
                yield info
        except SnapvaultError:
            errors = 1
            raise
        finally:
            self._took("list", seconds, errors)

    def delete(self, name: str) -> None:
        self._called("delete", name)
        with self._measured("delete"):
            self.inner.delete(name)

    def _called(self, method: str, name: str, size: int = 0) -> None:
        with self._lock:
            self.calls[method] += 1

    @contextmanager
    def _measured(self, method: str) -> Iterator[None]:
        began, errors = time.monotonic(), 0
        try:
            yield
        except (NotFound, Exists):
            raise
        except SnapvaultError:
            errors = 1
            raise
        finally:
            self._took(method, time.monotonic() - began, errors)

    def _took(self, method: str, seconds: float, errors: int) -> None:
        with self._lock:
            self.seconds[method] += seconds
            self.errors[method] += errors

    def _moved(self, *, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            self.bytes_sent += sent
            self.bytes_received += received

    def methods(self) -> dict[str, MethodMetrics]:
        """The numbers of each method that was called."""
        with self._lock:
            return {m: MethodMetrics(n, self.errors[m], self.seconds[m]) for m, n in sorted(self.calls.items())}


def metrics(backend: Backend) -> Metrics:
    """What the metrics and retry wrappers in this stack have counted so far."""
    methods, sent, received, retries = dict[str, MethodMetrics](), 0, 0, 0
    while isinstance(backend, Wrapper):
        if isinstance(backend, MetricsBackend):
            methods, sent, received = backend.methods(), backend.bytes_sent, backend.bytes_received
        if isinstance(backend, RetryBackend):
            retries += backend.retries
        backend = backend.inner
    return Metrics(methods, sent, received, retries)
