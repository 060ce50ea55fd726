"""A backend around another one; the wrappers change what they need and pass the rest on."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from snapvault.backend.protocol import Backend, Buffer, ObjectInfo
from snapvault.foundation.errors import StoreDenied

T = TypeVar("T")


class Wrapper:
    """Passes every call on to ``inner``."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    @property
    def url(self) -> str:
        return self.inner.url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        self.inner.put(name, data)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        self.inner.put_if_absent(name, data)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(name, start, length)

    def head(self, name: str) -> ObjectInfo:
        return self.inner.head(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self.inner.list(prefix)

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def close(self) -> None:
        self.inner.close()

    def reach(self, call: Callable[[Backend], T]) -> T:
        """Call something of the innermost backend that is not in the protocol, as this wrapper makes any call."""
        return reach(self.inner, call)


def reach(backend: Backend, call: Callable[[Backend], T]) -> T:
    """The result of ``call`` with the innermost backend, with what the wrappers add to calls: retries, cancellation."""
    return backend.reach(call) if isinstance(backend, Wrapper) else call(backend)


def discard(backend: Backend, name: str) -> None:
    """Delete what is in nobody's way: a store that allows no deletion keeps it."""
    with suppress(StoreDenied):
        backend.delete(name)


def innermost(backend: Backend) -> Backend:
    """The backend below all wrappers."""
    while isinstance(backend, Wrapper):
        backend = backend.inner
    return backend


def address(backend: Backend) -> str:
    """What opens the same store again; ``url`` is for messages."""
    return str(getattr(innermost(backend), "address", backend.url))


def rewrapped(backend: Backend, inner: Backend) -> Backend:
    """The same wrappers around another backend; they share what they count and limit."""
    if not isinstance(backend, Wrapper):
        return inner
    again = copy.copy(backend)
    again.inner = rewrapped(backend.inner, inner)
    return again


def is_remote(backend: Backend) -> bool:
    """Whether objects come over a network, so that what was read may be worth keeping."""
    return bool(getattr(innermost(backend), "remote", False))


def settle(backend: Backend, prefixes: Sequence[str]) -> None:
    """Before anything is built on objects that others put: make them durable, should their writers have been killed.

    Does nothing for stores where what is seen is durable.
    """
    make_durable = getattr(innermost(backend), "settle", None)
    if make_durable is not None:
        make_durable(prefixes)


def remove_stale_temps(backend: Backend, older_than: float = 86400.0) -> int:
    """Delete what killed writers left half-written ``older_than`` seconds ago or longer; how many.

    For prune, which owns this garbage.  0 for stores that never keep half an object.
    """
    sweep = getattr(innermost(backend), "remove_stale_temps", None)
    return int(sweep(older_than)) if sweep is not None else 0
