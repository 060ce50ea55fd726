"""Try again after a passing fault, for a bounded time."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from snapvault.backend.names import total
from snapvault.backend.protocol import Backend, Buffer, Exists, NotFound, ObjectInfo
from snapvault.backend.wrapper import Wrapper, reach
from snapvault.foundation.errors import StoreUnavailable

if TYPE_CHECKING:
    from tenacity import Retrying

T = TypeVar("T")

# Set for the length of one call by whoever can be cancelled: one store serves many operations at once.
UNTIL: ContextVar[threading.Event | None] = ContextVar("snapvault_until", default=None)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to go on.  Seconds; waits grow exponentially from ``first_wait`` and are random below that."""

    total: float = 60.0  # no attempt begins later than this after the first
    until_first_success: float = 10.0  # the same, as long as the store never answered: a wrong address fails soon
    first_wait: float = 0.2
    longest_wait: float = 10.0


class RetryBackend(Wrapper):
    """Repeats calls that raised StoreUnavailable; every other error goes straight to the caller.

    ``cancel``: an event that ends the waiting; the last StoreUnavailable is raised then.  So does ``UNTIL``.
    ``retries`` counts the repetitions so far.
    """

    def __init__(
        self, inner: Backend, policy: RetryPolicy | None = None, *, cancel: threading.Event | None = None
    ) -> None:
        super().__init__(inner)
        self._policy = policy or RetryPolicy()
        self._cancel = cancel or threading.Event()
        self._answered = False
        self.retries = 0
        self._lock = threading.Lock()

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        self._again(lambda: self.inner.put(name, data))

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        failed = False

        def attempt() -> None:
            nonlocal failed
            try:
                self.inner.put_if_absent(name, data)
            except StoreUnavailable:
                failed = True
                raise
            except Exists:
                # an attempt of ours may have taken effect although its reply was lost
                if not (failed and self._holds(name, data)):
                    raise

        self._again(attempt)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        return self._again(lambda: self.inner.get(name, start, length))

    def head(self, name: str) -> ObjectInfo:
        return self._again(lambda: self.inner.head(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """A listing that breaks is begun again after the last name that was given out: names come in order."""
        last = ""
        source = self._after(prefix, last)

        def step() -> ObjectInfo | None:
            nonlocal source
            try:
                return next(source, None)
            except StoreUnavailable:
                source = self._after(prefix, last)
                raise

        while (info := self._again(step)) is not None:
            last = info.name
            yield info

    def delete(self, name: str) -> None:
        self._again(lambda: self.inner.delete(name))

    def reach(self, call: Callable[[Backend], T]) -> T:
        return self._again(lambda: reach(self.inner, call))

    def _after(self, prefix: str, last: str) -> Iterator[ObjectInfo]:
        yield from (info for info in self.inner.list(prefix) if info.name > last)

    def _holds(self, name: str, data: Sequence[Buffer]) -> bool:
        try:
            size = total(data)
            return self.inner.head(name).size == size and self.inner.get(name, 0, size) == b"".join(data)
        except NotFound:
            return False

    def _again(self, call: Callable[[], T]) -> T:
        try:
            result = call()  # the usual case pays nothing for the machinery
        except StoreUnavailable:
            result = self._retrying()(self._repeated, call)
        self._answered = True
        return result

    def _repeated(self, call: Callable[[], T]) -> T:
        with self._lock:
            self.retries += 1
        return call()

    def _retrying(self) -> "Retrying":
        import tenacity  # loaded when the first fault happens

        policy, until = self._policy, UNTIL.get() or self._cancel
        total = policy.total if self._answered else min(policy.total, policy.until_first_success)
        wait = tenacity.wait_random_exponential(multiplier=policy.first_wait, max=policy.longest_wait)
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(StoreUnavailable),
            wait=wait,
            stop=tenacity.stop_before_delay(total) | tenacity.stop_when_event_set(until),
            sleep=tenacity.sleep_using_event(until),
            reraise=True,
        )
