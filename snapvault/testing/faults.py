"""A backend that fails when and how a plan says.

Calls are counted from 1, over all methods.  A test that planned faults and met none of them proved nothing, so end it
with ``assert_fired``::

    store = FaultyBackend(MemoryBackend(), [Fault(at=3, error=StoreFull("disk full"))])
    ...
    store.assert_fired()
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from snapvault.backend.names import end_of
from snapvault.backend.protocol import Backend, Buffer, ObjectInfo
from snapvault.backend.wrapper import Wrapper
from snapvault.foundation.errors import SnapvaultError, StoreUnavailable


class Killed(BaseException):
    """The process is dead.  Not an Exception, so that nothing tidies up that a SIGKILL would not let tidy up."""


class Kind(Enum):
    ERROR = "error"  # raise ``Fault.error``
    KILL = "kill"  # raise Killed, now and at every later call
    TRUNCATE = "truncate"  # get: give only the first half of the body
    FLIP = "flip"  # get: change one bit in the middle
    TORN = "torn"  # put: store only the first half under the name, then raise ``Fault.error``
    OMIT = "omit"  # list: leave out the middle third, silently
    BREAK = "break"  # list: raise ``Fault.error`` after the first half


@dataclass(frozen=True, slots=True)
class Fault:
    """One planned fault.  It applies to call number ``at`` (None: to any), of ``method`` and of names with ``prefix``.

    ``after``: an error or a kill comes when the call already took effect, and only its reply is lost.
    ``times``: how often it fires, None for ever.
    """

    at: int | None = None
    method: str | None = None
    prefix: str = ""
    kind: Kind = Kind.ERROR
    error: SnapvaultError = field(default_factory=lambda: StoreUnavailable("planned fault"))
    after: bool = False
    times: int | None = 1

    def meets(self, number: int, method: str, name: str) -> bool:
        return self.at in (None, number) and self.method in (None, method) and name.startswith(self.prefix)


class FaultyBackend(Wrapper):
    """``count`` is the number of calls so far, ``log`` their methods and names, ``fired`` the faults that happened."""

    def __init__(self, inner: Backend, plan: Iterable[Fault] = ()) -> None:
        super().__init__(inner)
        self.plan = list(plan)
        self.count = 0
        self.log: list[tuple[str, str]] = []
        self.fired: list[Fault] = []
        self._dead = False
        self._lock = threading.Lock()

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        with self._call("put", name) as fault:
            self._tear(fault, name, data)
            self.inner.put(name, data)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        with self._call("put_if_absent", name) as fault:
            self._tear(fault, name, data)
            self.inner.put_if_absent(name, data)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        with self._call("get", name) as fault:
            body = self.inner.get(name, start, length)
        if fault is not None and fault.kind is Kind.TRUNCATE:
            kept = body[: len(body) // 2]
            if length is not None:
                end_of(name, start + len(kept), start, length)  # the protocol's own check of a length that is known
            return kept
        return _flipped(body) if fault is not None and fault.kind is Kind.FLIP else body

    def head(self, name: str) -> ObjectInfo:
        with self._call("head", name):
            return self.inner.head(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        with self._call("list", prefix) as fault:
            if fault is None:
                return self.inner.list(prefix)
            found = tuple(self.inner.list(prefix))
        if fault.kind is Kind.OMIT:
            return iter(found[: len(found) // 3] + found[len(found) - len(found) // 3 :])
        return _broken(found, fault.error) if fault.kind is Kind.BREAK else iter(found)

    def delete(self, name: str) -> None:
        with self._call("delete", name):
            self.inner.delete(name)

    def assert_fired(self) -> None:
        """AssertionError unless every planned fault happened at least once."""
        missed = [fault for fault in self.plan if fault not in self.fired]
        if missed:
            raise AssertionError(f"never happened in {self.count} calls: {missed}")

    @contextmanager
    def _call(self, method: str, name: str) -> Iterator[Fault | None]:
        """Around the call itself.  A fault that comes after it comes also if the store refused (Exists, NotFound)."""
        fault = self._begin(method, name)
        try:
            yield fault
        finally:
            if fault is not None and fault.after:
                self._strike(fault)

    def _begin(self, method: str, name: str) -> Fault | None:
        with self._lock:
            if self._dead:
                raise Killed
            self.count += 1
            self.log.append((method, name))
            fault = next((f for f in self.plan if f.meets(self.count, method, name) and self._left(f)), None)
            if fault is not None:
                self.fired.append(fault)
        if fault is not None and not fault.after:
            self._strike(fault)
        return fault

    def _left(self, fault: Fault) -> bool:
        return fault.times is None or self.fired.count(fault) < fault.times

    def _strike(self, fault: Fault) -> None:
        if fault.kind is Kind.KILL:
            self._dead = True
            raise Killed
        if fault.kind is Kind.ERROR:
            raise fault.error

    def _tear(self, fault: Fault | None, name: str, data: Sequence[Buffer]) -> None:
        if fault is not None and fault.kind is Kind.TORN:
            body = b"".join(data)
            self.inner.put(name, [body[: len(body) // 2]])
            raise fault.error


def _flipped(body: bytes) -> bytes:
    changed = bytearray(body)
    if changed:
        changed[len(changed) // 2] ^= 1
    return bytes(changed)


def _broken(found: Sequence[ObjectInfo], error: SnapvaultError) -> Iterator[ObjectInfo]:
    yield from found[: len(found) // 2]
    raise error
