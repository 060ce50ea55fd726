"""Opening several places that hold one repository: which answer, which is near, and whether they hold the same."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log2
from queue import Empty, SimpleQueue

from snapvault.backend.protocol import Buffer, ObjectInfo
from snapvault.backend.retry import RetryPolicy
from snapvault.format import names
from snapvault.foundation.errors import RepositoryNotFound, SnapvaultError, StoreUnavailable
from snapvault.repository.failover import SILENT, FailoverBackend, Place
from snapvault.repository.keysets import read_config
from snapvault.repository.site import Site

log = logging.getLogger("snapvault")

PATIENCE = 5.0  # seconds for a place to show its config
SOON = RetryPolicy(total=5.0, until_first_success=2.0)  # there is another place to ask
NEAR = 0.025  # seconds of a request; nearer ones are equal, and so are those within a factor of 4


class Unreachable:
    """A place that cannot be opened: every call says why."""

    def __init__(self, url: str, error: SnapvaultError) -> None:
        self.url, self._error = url, error

    def _raise(self) -> SnapvaultError:
        return type(self._error)(self._error.message, hint=self._error.hint, affected=self._error.affected)

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        raise self._raise()

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        raise self._raise()

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        raise self._raise()

    def head(self, name: str) -> ObjectInfo:
        raise self._raise()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        raise self._raise()

    def delete(self, name: str) -> None:
        raise self._raise()

    def close(self) -> None:
        """Nothing was opened."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a place showed of itself."""

    place: Place
    config: bytes = b""  # its digest; empty: there is none that can be read
    distance: int = 0  # a class of nearness, see NEAR
    error: SnapvaultError | None = None


class Places:
    """All places of a repository that a reader was told of; opened when somebody needs them."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self._sites = sites
        self._lock = threading.Lock()
        self._answers: list[_Answer] = []
        self._failovers: dict[bytes, FailoverBackend] = {}

    def failover(self, config: bytes) -> FailoverBackend:
        """Those that hold the repository with this digest of its config, as one: sound and near ones are asked first.

        One that holds another is as good as one that is gone: what somebody put there takes nothing from the others.
        """
        with self._lock:
            if config not in self._failovers:
                ordered = sorted(self._asked(), key=lambda a: (a.config != config, not a.config, a.distance))
                self._failovers[config] = FailoverBackend([_of(a, config) for a in ordered])
            return self._failovers[config]

    def configs(self) -> list[bytes]:
        """Digests of the configs that the places show; more than one if somebody forged one, or named a wrong place."""
        with self._lock:
            return list(dict.fromkeys(a.config for a in self._asked() if a.config))

    def each(self) -> list[Place]:
        """Those that show a config, one by one: what was forged at one of them is at no other."""
        with self._lock:
            return [a.place for a in self._asked() if a.config]

    def _asked(self) -> list[_Answer]:
        if not self._answers:
            self._answers = _ask(self._sites)
            for a in self._answers:
                if a.error is not None:
                    log.warning("%s is read only where no other place helps: %s", a.place.url, a.error.message)
        return self._answers

    def close(self) -> None:
        """Let go of connections.  Idempotent."""
        with self._lock:
            for answer in self._answers:
                answer.place.close()


def _ask(sites: Sequence[Site]) -> list[_Answer]:
    """All at once, each in a thread that nobody waits for once it is late: a dead server must not hold up a restore."""
    answered: SimpleQueue[tuple[int, _Answer]] = SimpleQueue()
    for i, site in enumerate(sites):
        task = threading.Thread(target=lambda i=i, site=site: answered.put((i, _look(site))), daemon=True)
        task.start()
    found: dict[int, _Answer] = {}
    until = time.monotonic() + PATIENCE
    while len(found) < len(sites):
        try:
            i, answer = answered.get(timeout=max(0.0, until - time.monotonic()))
        except Empty:
            break
        found[i] = answer
    late = StoreUnavailable(f"no answer within {PATIENCE:.0f} seconds")
    return [found.get(i) or _unreachable(site, late) for i, site in enumerate(sites)]


def _look(site: Site) -> _Answer:
    try:
        place = Place(site.open(patience=SOON))
    except SnapvaultError as e:
        return _unreachable(site, e)
    try:
        config = read_config(place)[1]
        started = time.monotonic()
        place.head(names.CONFIG)
        return _Answer(place, config, _distance(time.monotonic() - started))
    except SnapvaultError as e:
        if isinstance(e, SILENT):
            place.is_silent(e)
        return _Answer(place, error=e)


def _of(answer: _Answer, config: bytes) -> Place:
    if answer.config in (b"", config):
        return answer.place
    other = other_repository(answer.place.url)
    log.warning("%s, and is not read", other.message)
    return _unreachable(Site(answer.place.url), other).place


def other_repository(url: str) -> RepositoryNotFound:
    """What a place says that holds another repository than the others."""
    return RepositoryNotFound(f"{url} holds another repository", hint="is the address right? 'snapvault site list'")


def _distance(seconds: float) -> int:
    return max(0, int(log2(max(seconds, NEAR) / NEAR) / 2))


def _unreachable(site: Site, error: SnapvaultError) -> _Answer:
    place = Place(Unreachable(site.url, error))
    place.is_silent(error)
    return _Answer(place, error=error)
