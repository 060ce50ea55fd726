"""Reading from several places that hold the same objects: what one cannot give whole comes from the next.

For readers alone.  Whoever writes or reclaims must know what one place holds, and asks that place.
"""

import copy
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from snapvault.backend.protocol import Backend, Buffer, NotFound, ObjectInfo
from snapvault.backend.wrapper import Wrapper, address, innermost, rewrapped
from snapvault.format import names
from snapvault.foundation.errors import (
    Damaged,
    InvalidInput,
    RepositoryNotFound,
    SnapvaultError,
    StoreDenied,
    StoreUnavailable,
)
from snapvault.repository.store import Store, check_whole, fetch, is_possible

T = TypeVar("T")

LACKING = (NotFound, Damaged)  # what a place says of one object
SILENT = (StoreUnavailable, StoreDenied, RepositoryNotFound)  # and of itself
ASKED_AGAIN = 60.0  # seconds until a place that was silent is asked before others again
UNSOUND = 8  # objects that were damaged or missing at a place; from then on it is asked last
OF_ONE_PLACE = (names.LOCAL, names.INDEX)  # not united: the first that answers says it all


@dataclass(frozen=True, slots=True)
class ReadFrom:
    """What a reading took from one place, and what it could not have there."""

    place: str
    bytes: int
    lacking: tuple[str, ...]  # names of objects that were missing or damaged
    silent: str = ""  # why it was not asked any more, if it did not answer


@dataclass(slots=True)
class _Known:
    """Of a place, for all who read there: what it lacks, and until when it is not asked since it did not answer."""

    lacking: set[str] = field(default_factory=set)
    silent: str = ""  # why
    silent_until: float = 0.0  # of the monotonic clock

    @property
    def is_silent(self) -> bool:
        return time.monotonic() < self.silent_until


class Place(Wrapper):
    """One of several places.  Thread-safe."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._known, self._lock = _Known(), threading.Lock()
        self._count_anew()

    def _count_anew(self) -> None:
        self._bytes, self._lacking, self._silent = 0, set[str](), ""

    def fresh(self) -> "Place":
        """The same place, and all that is known of it, for somebody who counts anew what comes from here."""
        again = copy.copy(self)
        again._count_anew()
        return again

    @property
    def silent(self) -> bool:
        """Whether it did not answer, a moment ago."""
        return self._known.is_silent

    def rank(self, name: str) -> tuple[bool, bool]:
        """Sorts a place behind those that are likelier to have an object whole."""
        known = self._known
        return known.is_silent, name in known.lacking or len(known.lacking) >= UNSOUND

    def lacks(self, name: str) -> None:
        """An object was missing or damaged here."""
        with self._lock:
            self._known.lacking.add(name)
            self._lacking.add(name)

    def is_silent(self, error: SnapvaultError) -> None:
        """It did not answer."""
        with self._lock:
            self._known.silent, self._known.silent_until = error.message, time.monotonic() + ASKED_AGAIN
            self._silent = error.message

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        data = self.inner.get(name, start, length)
        with self._lock:
            self._bytes += len(data)
        return data

    def used(self) -> ReadFrom:
        """What was read here so far."""
        with self._lock:
            silent = self._silent or (self._known.silent if self._known.is_silent else "")
            return ReadFrom(self.url, self._bytes, tuple(sorted(self._lacking)), silent)


class FailoverBackend:
    """The union of several places for a reader; in the order in which they are to be asked.

    Objects that end with their digest are verified here, so that a damaged one is looked for elsewhere; parts of packs
    are verified by whoever opens them (``first_whole``).
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places

    @property
    def url(self) -> str:
        return self.places[0].url

    @property
    def address(self) -> str:
        """That of all of them: what is read from several places is that of none of them."""
        return " ".join(sorted(address(place) for place in self.places))

    def __repr__(self) -> str:
        return f"FailoverBackend({list(self.places)!r})"

    def fresh(self) -> "FailoverBackend":
        """The same places for somebody who counts anew what comes from where."""
        return FailoverBackend([place.fresh() for place in self.places])

    def used(self) -> tuple[ReadFrom, ...]:
        """What came from where."""
        return tuple(place.used() for place in self.places)

    def first(self, name: str, read: Callable[[Place], T]) -> T:
        """``read`` of the first place where it gives no error; the errors of the protocol, if it does at all.

        An object that one place lacks while another is silent is lacking, as far as anybody can tell now.
        """
        lacking, silent = list[NotFound | Damaged](), list[StoreUnavailable | StoreDenied | RepositoryNotFound]()
        for place in sorted(self.places, key=lambda p: p.rank(name)):
            try:
                return read(place)
            except LACKING as e:
                place.lacks(name)
                lacking.append(e)
            except SILENT as e:
                place.is_silent(e)
                silent.append(e)
        if not lacking:
            raise silent[0]
        worst = next((e for e in lacking if isinstance(e, Damaged)), lacking[0])
        unasked = "".join(f"; it could not be asked for elsewhere: {e.message}" for e in silent)
        raise type(worst)(worst.message + unasked, affected=worst.affected) from worst

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        def read(place: Place) -> bytes:
            if start or not _is_framed(name):
                return place.get(name, start, length)
            try:
                data = place.get(name, start, length)
                check_whole(name, data)
            except Damaged:  # its size may be that of another place
                data = fetch(place, name)
                check_whole(name, data)
            return data

        return self.first(name, read)

    def head(self, name: str) -> ObjectInfo:
        return self.first(name, lambda place: place.head(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        if prefix.startswith(OF_ONE_PLACE):
            return iter(self.first(prefix, lambda place: list(place.list(prefix))))
        return self._united(prefix)

    def _united(self, prefix: str) -> Iterator[ObjectInfo]:
        found, silent = dict[str, ObjectInfo](), list[StoreUnavailable | StoreDenied | RepositoryNotFound]()
        for place in sorted(self.places, key=lambda p: p.rank(prefix)):
            try:
                for info in place.list(prefix):
                    if not is_possible(found.setdefault(info.name, info)):  # another place may say it right
                        found[info.name] = info
            except SILENT as e:
                place.is_silent(e)
                silent.append(e)
        if len(silent) == len(self.places):
            raise silent[0]
        return iter([found[name] for name in sorted(found)])

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        raise _read_only()

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        raise _read_only()

    def delete(self, name: str) -> None:
        raise _read_only()

    def close(self) -> None:
        for place in self.places:
            place.close()


def first_whole(backend: Backend, name: str, read: Callable[[Backend], T]) -> T:
    """``read`` of the first place behind ``backend`` whose bytes verify; of ``backend`` itself if that is one place."""
    failover = innermost(backend)
    if not isinstance(failover, FailoverBackend):
        return read(backend)
    return failover.first(name, lambda place: read(rewrapped(backend, place)))


def everywhere(backend: Backend, read: Callable[[Backend], T]) -> Iterator[T]:
    """What ``read`` gives at each of several places that answer and can tell; nothing if ``backend`` is one place."""
    failover = innermost(backend)
    for place in failover.places if isinstance(failover, FailoverBackend) else ():
        try:
            if not place.silent:
                yield read(rewrapped(backend, place))
        except LACKING:
            continue
        except SILENT as e:
            place.is_silent(e)


def once_more(store: Store, name: str, verify: Callable[[bytes], T]) -> T:
    """What ``verify`` says of an object that it refused: not as it was kept, and at the first place that has it so.

    Anybody can put a digest behind what they invented, so one place, or one reply, must not speak for all.
    """
    return first_whole(store.backend, name, lambda place: verify(Store(place, store.cache).fresh(name)))


def _is_framed(name: str) -> bool:
    """Whether an object of this name ends with its own digest; names that the format does not know do not count."""
    return not name.startswith((names.PACKS, *names.RESCUE))


def _read_only() -> InvalidInput:
    return InvalidInput("several places are read at once: nothing can be written there")
