"""Object lock: objects that the store itself lets nobody remove before a time (docs/adr/0011-object-lock.md)."""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar, cast

from snapvault.backend.protocol import Backend
from snapvault.backend.wrapper import innermost, reach
from snapvault.foundation.errors import InvalidInput
from snapvault.platform.remote import OBJECT_LOCK

T = TypeVar("T")

MODES = ("governance", "compliance")
MOST_DAYS = 36_500  # what S3 takes


@dataclass(frozen=True, slots=True)
class LockRule:
    """What is asked of a store: for how long every object is locked when it is put."""

    mode: str  # of MODES: whether somebody with a special right may lift a lock, or nobody
    days: int

    @property
    def period(self) -> timedelta:
        return timedelta(days=self.days)


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock on one object, as the store tells it."""

    mode: str  # of MODES
    until: datetime


class ObjectLocks(Protocol):
    """The locks of one store.  Errors as of the protocol of backends; StoreDenied also if a lock holds."""

    def of(self, name: str) -> Lock | None:
        """None: the object is not locked."""
        ...

    def set(self, name: str, lock: Lock) -> None:
        """Lock an object, or for longer."""
        ...

    def release(self, name: str) -> None:
        """Remove an object for good, with all older versions that the store keeps of it."""
        ...


class LockingBackend(Backend, Protocol):
    """A backend that can lock objects."""

    @property
    def lock_rule(self) -> LockRule | None:
        """None: it locks nothing."""
        ...

    def with_locks(self, name: str, call: Callable[[ObjectLocks], T]) -> T:
        """The result of ``call``, which asks something about this object; the errors of the protocol."""
        ...


def take_rule(options: MutableMapping[str, Any]) -> LockRule | None:
    """Take ``object_lock = {mode = "governance", days = 30}`` out of storage options; InvalidInput."""
    value = options.pop(OBJECT_LOCK, None)
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"mode", "days"} or value["mode"] not in MODES:
        raise _invalid(f"the storage option {OBJECT_LOCK} has a mode ({' or '.join(MODES)}), days, and no more")
    if type(value["days"]) is not int or not 1 <= value["days"] <= MOST_DAYS:
        raise _invalid(f"an object is locked for 1 to {MOST_DAYS} whole days")
    return LockRule(value["mode"], value["days"])


def _invalid(message: str) -> InvalidInput:
    return InvalidInput(message, hint='write it like object_lock = {mode = "governance", days = 30}')


def lock_rule(backend: Backend) -> LockRule | None:
    """What a backend locks, below all wrappers; None: nothing."""
    return getattr(innermost(backend), "lock_rule", None)


def with_locks(backend: Backend, name: str, call: Callable[[ObjectLocks], T]) -> T:
    """``LockingBackend.with_locks`` of one that has a rule, with what its wrappers add to calls."""
    return reach(backend, lambda inner: cast(LockingBackend, inner).with_locks(name, call))


def hides_deleted(backend: Backend) -> bool:
    """Whether the store was seen to keep what was deleted, as an older version that is only not listed any more."""
    return bool(getattr(innermost(backend), "hides_deleted", False))
