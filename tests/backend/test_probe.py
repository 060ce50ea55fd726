"""The probe finds stores out that promise what they do not keep."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine

from snapvault.backend import probe as module
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.probe import PREFIX, RACERS, Capabilities, probe, remove_stale_probes
from snapvault.backend.protocol import Buffer, Exists, ObjectInfo
from snapvault.backend.wrapper import Wrapper
from snapvault.format import names
from snapvault.foundation.errors import StoreDenied, StoreUnavailable
from snapvault.repository.capabilities import record_capabilities
from snapvault.testing.faults import Fault, FaultyBackend, Killed, Kind


class Honest(Wrapper):
    def __init__(self) -> None:
        super().__init__(MemoryBackend())


class IgnoresTheCondition(Honest):
    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        self.inner.put(name, data)


class ChecksThenPuts(Honest):
    """Refuses a second create, but racing ones all look before any of them puts."""

    def __init__(self) -> None:
        super().__init__()
        self._looked = threading.Barrier(RACERS)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        taken = any(self.inner.list(name))
        if threading.current_thread() is not threading.main_thread():
            self._looked.wait()
        self.inner.put_if_absent(name, data) if taken else self.inner.put(name, data)


class RefusesEverybody(Honest):
    """Of racing creators none is told that it won."""

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        self.inner.put_if_absent(name, data)
        if threading.current_thread() is not threading.main_thread():
            self.inner.put_if_absent(name, data)


class LosesTheObject(Honest):
    """One creator wins the race, and then nothing is there."""

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        self.inner.put_if_absent(name, data)
        if threading.current_thread() is not threading.main_thread():
            self.lost = name

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        if name == getattr(self, "lost", None):
            self.inner.delete(name)
        return self.inner.get(name, start, length)


class IgnoresRanges(Honest):
    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(name)


class CutsRangesSilently(Honest):
    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(name)[start : None if length is None else start + length]


class ListsLate(Honest):
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(())


class ListsTheDead(Honest):
    def __init__(self) -> None:
        super().__init__()
        self.ever: set[str] = set()

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        self.ever.add(name)
        self.inner.put(name, data)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return (ObjectInfo(name, 1) for name in sorted(self.ever) if name.startswith(prefix))


@pytest.mark.parametrize(
    ("backend", "missing"),
    [
        (Honest(), None),
        (IgnoresTheCondition(), "put_if_absent"),
        (ChecksThenPuts(), "put_if_absent"),
        (RefusesEverybody(), "put_if_absent"),
        (LosesTheObject(), "put_if_absent"),
        (IgnoresRanges(), "range_read"),
        (CutsRangesSilently(), "range_read"),
        (ListsLate(), "list_after_put"),
        (ListsTheDead(), "list_after_put"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Honest) else "",
)
def test_who_is_found_out(backend: Any, missing: str | None) -> None:
    found = probe(backend)
    expected = {name: name != missing for name in ("put_if_absent", "range_read", "list_after_put")}
    assert found == Capabilities(**expected)
    assert list(backend.inner.list()) == []


def test_no_answer_is_no_capability() -> None:
    """An error is raised and not taken for a store that cannot; what was put is removed."""
    clean = FaultyBackend(MemoryBackend())
    probe(clean)
    for method in ("put_if_absent", "get", "list", "head"):
        store = MemoryBackend()
        faulty = FaultyBackend(store, [Fault(method=method, error=StoreUnavailable("away"))])
        with pytest.raises(StoreUnavailable):
            probe(faulty)
        faulty.assert_fired()
        assert store.objects == {}


@pytest.mark.parametrize("always", [True, False])
def test_a_put_that_is_delivered_twice(monkeypatch: pytest.MonkeyPatch, always: bool) -> None:
    """The refusal of the second one is the answer: where that is always so, nobody wins a race."""
    if not always:
        monkeypatch.setattr(module, "RACERS", 1)  # so that it is a race's winner to whom it happens
    twice = Fault(method="put_if_absent", error=Exists("taken"), after=True, times=None if always else 1, at=None)
    first = FaultyBackend(MemoryBackend())
    probe(first)
    at = [n for n, (method, _) in enumerate(first.log, 1) if method == "put_if_absent"][2]  # after two to one name
    faulty = FaultyBackend(MemoryBackend(), [replace(twice, at=None if always else at)])
    assert probe(faulty) == Capabilities(put_if_absent=not always, range_read=True, list_after_put=True)
    faulty.assert_fired()


@pytest.mark.parametrize("prefix", [PREFIX, names.CAPABILITIES])
def test_a_name_that_is_said_to_be_taken_and_is_free(prefix: str) -> None:
    """What nobody else can have put is not there: it is the store that is wrong, and the error says so."""
    faulty = FaultyBackend(MemoryBackend(), [Fault(method="put_if_absent", prefix=prefix, error=Exists("taken"))])
    with pytest.raises(StoreUnavailable, match="as if it were there"):
        record_capabilities(faulty)
    faulty.assert_fired()


def test_without_the_right_to_delete_or_replace() -> None:
    """Credentials that may only add: the probe answers, and its throwaways wait for prune."""
    store = MemoryBackend()
    denied = [Fault(method=method, error=StoreDenied("no"), times=None) for method in ("delete", "put")]
    faulty = FaultyBackend(store, denied)
    assert probe(faulty) == Capabilities(put_if_absent=True, range_read=True, list_after_put=True)
    assert {fault.method for fault in faulty.fired} == {"delete"}
    assert store.objects and all(name.startswith(PREFIX) for name in store.objects)


def test_a_slow_store_is_raced_for_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One race may be won by luck."""
    races: list[str] = []

    def race(backend: object, fresh: Callable[[], str]) -> bool:
        races.append(fresh())
        return True

    monkeypatch.setattr(module, "_race", race)
    monkeypatch.setattr(module, "ENOUGH", -1.0)  # every race takes longer
    assert probe(MemoryBackend("slow")).put_if_absent
    assert len(set(races)) == len(races) == module.LEAST == 2


def test_left_overs_belong_to_prune() -> None:
    store = MemoryBackend()
    with time_machine.travel(datetime(2026, 11, 24, 23, 59, tzinfo=UTC)):
        with pytest.raises(Killed):
            probe(FaultyBackend(store, [Fault(at=4, kind=Kind.KILL)]))
        assert any(name.startswith(PREFIX) for name in store.objects)
        assert remove_stale_probes(store) == 0
    with time_machine.travel(datetime(2026, 11, 25, 12, 0, tzinfo=UTC)):
        assert remove_stale_probes(store) == 0  # may still be running, across midnight
    with time_machine.travel(datetime(2026, 11, 26, 0, 1, tzinfo=UTC)):
        store.put("local/other", [b"x"])
        assert remove_stale_probes(store) > 0
    assert set(store.objects) == {"local/other"}
