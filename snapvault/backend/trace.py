"""Records what is asked of a store, call by call."""

from collections import deque
from dataclasses import dataclass

from snapvault.backend.metrics import MetricsBackend
from snapvault.backend.protocol import Backend


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was made; ``size`` is bytes sent or received, 0 where none are."""

    method: str
    name: str
    size: int = 0


class TraceBackend(MetricsBackend):
    """Metrics, and with ``record`` also every call in ``log``."""

    def __init__(self, inner: Backend, *, record: bool = False) -> None:
        super().__init__(inner)
        self.log: deque[Call] = deque()
        self._record = record

    def _called(self, method: str, name: str, size: int = 0) -> None:
        super()._called(method, name, size)
        if self._record:
            self.log.append(Call(method, name, size))
