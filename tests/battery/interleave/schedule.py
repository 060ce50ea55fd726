"""Actors that take turns, from one call of the store to the next; who is next is drawn from a seed.

Each actor runs in a thread of its own, but only while it holds the baton, and everything that the library does in
threads is done at once in that one.  So a seed gives the same run again.
"""

import itertools
import os
import random
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from battery.inline import Inline
from blake3 import blake3

from snapvault.backend.memory import MemoryBackend
from snapvault.backend.protocol import Buffer, ObjectInfo
from snapvault.backend.retry import RetryBackend, RetryPolicy
from snapvault.backend.wrapper import Wrapper
from snapvault.crypto.hpke import HpkePrivateKey
from snapvault.foundation import ahead, clock
from snapvault.foundation.errors import Damaged, StoreUnavailable
from snapvault.operations import check_data, collect, fence, prune
from snapvault.repository import keyring, packer, session, site, writer
from snapvault.testing.faults import Killed

AT_ONCE = RetryPolicy(total=60.0, until_first_success=60.0, first_wait=0.0, longest_wait=0.0)
TURNS_MAX = 20_000


class Actor(threading.Thread):
    """Somebody who uses the repository."""

    def __init__(self, name: str, work: Callable[[], None], scheduler: "Scheduler") -> None:
        super().__init__(name=name, daemon=True)
        self.work, self.scheduler = work, scheduler
        self.turn = threading.Semaphore(0)
        self.fate = ""
        self.dead = self.ended = False
        self.error: BaseException | None = None

    def run(self) -> None:
        self.turn.acquire()
        try:
            self.work()
        except Killed:
            self.dead = True
        except BaseException as e:  # noqa: BLE001  told by the scheduler
            self.error = e
        finally:
            self.ended = True
            self.scheduler.back.release()


class Scheduler:
    """Gives the baton to one actor after another.  ``mishaps``: how many deaths and lost replies there may be."""

    def __init__(self, seed: int, mishaps: int) -> None:
        self.random = random.Random(seed)
        self.back = threading.Semaphore(0)
        self.trace: list[str] = []
        self._mishaps = mishaps
        self.clock = 0.0

    def run(self, actors: Sequence[Actor]) -> None:
        """Until all have ended."""
        for actor in actors:
            actor.start()
        alive = list(actors)
        for _ in range(TURNS_MAX):
            if not alive:
                return
            actor = self.random.choice(alive)
            # Some run long at a stretch, so that others sleep through much of what they do.
            for _ in range(self.random.choice((1, 1, 2, 5, 30))):
                actor.fate = self._draw()
                actor.turn.release()
                self.back.acquire()
                if actor.ended:
                    alive.remove(actor)
                    break
        raise AssertionError("somebody never ends")

    def _draw(self) -> str:
        if self._mishaps and self.random.random() < 0.02:
            self._mishaps -= 1
            return self.random.choice(("dies before", "dies after", "reply lost", "reply lost"))
        return ""

    def call(self, method: str, name: str, perform: Callable[[], Any]) -> Any:
        """One call of the store by the actor that runs."""
        me = threading.current_thread()
        assert isinstance(me, Actor)
        if me.dead:
            raise Killed
        self.back.release()
        me.turn.acquire()
        self.clock += 1
        fate = me.fate if method not in ("get", "head", "list") or me.fate.startswith("dies") else ""
        self.trace.append(f"{me.name:>8} {method} {name} {fate}".rstrip())
        if fate == "dies before":
            me.dead = True
            raise Killed
        result = perform()
        if fate == "dies after":
            me.dead = True
            raise Killed
        if fate == "reply lost":
            raise StoreUnavailable("the reply was lost")
        return result


class ScheduledBackend(Wrapper):
    """A memory backend whose every call waits for its turn."""

    def __init__(self, inner: MemoryBackend, scheduler: Scheduler) -> None:
        super().__init__(inner)
        self._scheduler = scheduler

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        self._scheduler.call("put", name, lambda: self.inner.put(name, data))

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        self._scheduler.call("create", name, lambda: self.inner.put_if_absent(name, data))

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        return bytes(self._scheduler.call("get", name, lambda: self.inner.get(name, start, length)))

    def head(self, name: str) -> ObjectInfo:
        found = self._scheduler.call("head", name, lambda: self.inner.head(name))
        assert isinstance(found, ObjectInfo)
        return found

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(self._scheduler.call("list", prefix, lambda: [*self.inner.list(prefix)]))

    def delete(self, name: str) -> None:
        self._scheduler.call("delete", name, lambda: self.inner.delete(name))


def _seal(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Stands for HPKE, which draws from a source of its own: for the same key and info only."""
    return blake3(public + info).digest() + plaintext


def _open(self: HpkePrivateKey, sealed: bytes, info: bytes) -> bytes:
    if sealed[:32] != blake3(self.public + info).digest():
        raise Damaged("something sealed to a public key does not verify")
    return sealed[32:]


@contextmanager
def seeded(seed: int, day: int, scheduler: Scheduler | None = None) -> Iterator[None]:
    """While this is open, keys, names, salts and times (of this day) are those of the seed.

    With a scheduler each call of a store takes a second.
    """
    draw = random.Random(f"randomness {seed} {day}")
    looks = itertools.count((1_700_000_000 + day * 86_400) * 10**9, 10**6)

    def time_ns() -> int:
        return next(looks) + (int(scheduler.clock) * 10**9 if scheduler is not None else 0)

    with (
        mock.patch.object(os, "urandom", draw.randbytes),
        mock.patch.object(secrets, "token_hex", lambda n=32: draw.randbytes(n).hex()),
        mock.patch.object(clock, "time", SimpleNamespace(time_ns=time_ns)),
        mock.patch.object(session, "hpke_seal", _seal),
        mock.patch.object(keyring, "hpke_seal", _seal),
        mock.patch.object(HpkePrivateKey, "open", _open),
    ):
        yield


@contextmanager
def scheduled(scheduler: Scheduler) -> Iterator[None]:
    """While this is open, actors meet at every call of a store, and the clock that decides anything counts calls."""

    def opened(url: str, *args: object, **options: object) -> RetryBackend | MemoryBackend:
        inner = MemoryBackend(url.removeprefix("memory://"))
        if not isinstance(threading.current_thread(), Actor):
            return inner
        return RetryBackend(ScheduledBackend(inner, scheduler), AT_ONCE)

    def tick() -> float:
        scheduler.clock += 1
        return scheduler.clock

    calls = SimpleNamespace(monotonic=tick, time=tick, sleep=lambda seconds: None)
    with (
        mock.patch.object(site, "open_backend", opened),
        mock.patch.object(fence, "time", calls),
        mock.patch.object(collect, "time", calls),
        mock.patch.object(prune, "time", calls),
        mock.patch.object(packer, "time", calls),
        mock.patch.object(fence, "LOOK", 0.0),
        mock.patch.object(session._Heart, "start", lambda self: None),
        mock.patch.object(ahead, "ThreadPoolExecutor", Inline),
        mock.patch.object(packer, "ThreadPoolExecutor", Inline),
        mock.patch.object(writer, "ThreadPoolExecutor", Inline),
        mock.patch.object(check_data, "ThreadPoolExecutor", Inline),
    ):
        yield
