"""Find out what a store really does, instead of trusting the name of its protocol."""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from snapvault.backend.own import put_own
from snapvault.backend.protocol import Backend, Exists, NotFound
from snapvault.foundation.clock import now
from snapvault.foundation.errors import Damaged, SnapvaultError, StoreDenied

PREFIX = "local/probe-"
RACERS = 4
LEAST, MOST = 2, 8  # races
ENOUGH = 1.0  # seconds for them: a store that takes as long for one (SeaweedFS) has a lock
_BODY = 4096


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store was seen to do."""

    put_if_absent: bool  # a second create is refused, and of racing creates exactly one wins
    range_read: bool  # a range is answered with exactly its bytes, one beyond the end is refused
    list_after_put: bool  # a listing shows what was put before, and no longer what was deleted


def probe(backend: Backend) -> Capabilities:
    """Try the three properties with throwaway objects below ``local/probe-`` and remove them.

    Raises what the backend raises where no answer can be had.  Throwaways that may not be deleted (credentials
    without that right) or that a killed probe left are removed by ``remove_stale_probes``.
    """
    made: list[str] = []

    def fresh() -> str:
        made.append(f"{PREFIX}{_today():%Y%m%d}-{secrets.token_hex(12)}")
        return made[-1]

    with _removed(backend, made):
        return Capabilities(
            put_if_absent=_refuses_second(backend, fresh()) and _races(backend, fresh),
            range_read=_reads_ranges(backend, fresh()),
            list_after_put=_lists_at_once(backend, fresh()),
        )


def remove_stale_probes(backend: Backend) -> int:
    """Delete throwaways of probes that began before yesterday (UTC); how many.  For prune, which owns them."""
    limit = f"{PREFIX}{_today() - timedelta(days=1):%Y%m%d}"
    stale = [info.name for info in backend.list(PREFIX) if info.name < limit]
    for name in stale:
        backend.delete(name)
    return len(stale)


@contextlib.contextmanager
def _removed(backend: Backend, names: list[str]) -> Iterator[None]:
    try:
        yield
    finally:
        for name in names:
            with contextlib.suppress(SnapvaultError):
                backend.delete(name)


def _refuses_second(backend: Backend, name: str) -> bool:
    first, second = secrets.token_bytes(_BODY), secrets.token_bytes(_BODY)
    put_own(backend, name, first)
    try:
        backend.put_if_absent(name, [second])
    except Exists:
        return backend.get(name) == first
    return False


def _races(backend: Backend, fresh: Callable[[], str]) -> bool:
    """Several races: a store that looks first and then puts may win one by luck."""
    began = time.monotonic()
    for number in range(1, MOST + 1):
        if not _race(backend, fresh):
            return False
        if number >= LEAST and time.monotonic() - began > ENOUGH:
            break
    return True


def _race(backend: Backend, fresh: Callable[[], str]) -> bool:
    """Whether exactly one wins.  Once nobody may: who was delivered twice has won, and is told of a refusal."""
    name = fresh()
    won = _winners(backend, name) or _winners(backend, name := fresh())
    return len(won) == 1 and _holds(lambda: backend.get(name) == won[0])


def _winners(backend: Backend, name: str) -> list[bytes]:
    """The bodies of those who put it, of several at once."""
    bodies = [secrets.token_bytes(_BODY) for _ in range(RACERS)]
    start = threading.Barrier(RACERS)

    def create(body: bytes) -> bool:
        start.wait()
        try:
            backend.put_if_absent(name, [body])
        except Exists:
            return False
        return True

    with ThreadPoolExecutor(RACERS) as pool:
        return [body for body, winner in zip(bodies, pool.map(create, bodies), strict=True) if winner]


def _reads_ranges(backend: Backend, name: str) -> bool:
    body = secrets.token_bytes(_BODY)
    put_own(backend, name, body)
    right = _holds(lambda: backend.get(name, 100, 1000) == body[100:1100])
    return right and not _holds(lambda: backend.get(name, _BODY - 10, 20) is not None)


def _holds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except (Damaged, NotFound):  # some stores lose an object that was raced for
        return False


def _lists_at_once(backend: Backend, name: str) -> bool:
    put_own(backend, name, b"x")
    seen = [info.name for info in backend.list(name)]
    try:
        backend.delete(name)
    except StoreDenied:  # credentials that may only add: what they never delete is never listed wrongly
        return seen == [name]
    left = [info.name for info in backend.list(name)]
    try:
        backend.head(name)
    except NotFound:
        return seen == [name] and left == []
    return False


def _today() -> datetime:
    return now()
