"""Retry, trace, limits, and the planned faults themselves."""

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from snapvault.backend.checked import CheckedBackend
from snapvault.backend.concurrency import ConcurrencyBackend
from snapvault.backend.control import controlled
from snapvault.backend.guard import CancelBackend, OneProcess
from snapvault.backend.limit import LimitBackend
from snapvault.backend.local import LocalBackend
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.metrics import MetricsBackend, metrics
from snapvault.backend.protocol import Backend, Exists, NotFound, ObjectInfo
from snapvault.backend.retry import RetryBackend, RetryPolicy
from snapvault.backend.trace import Call, TraceBackend
from snapvault.backend.wrapper import Wrapper, discard, innermost, reach, remove_stale_temps
from snapvault.foundation.errors import (
    Cancelled,
    Damaged,
    InvalidInput,
    SnapvaultError,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
)
from snapvault.foundation.events import Control, Limits
from snapvault.testing.faults import Fault, FaultyBackend, Killed, Kind

QUICK = RetryPolicy(total=5.0, until_first_success=5.0, first_wait=0.001, longest_wait=0.01)
BRIEF = RetryPolicy(total=0.2, until_first_success=0.2, first_wait=0.001, longest_wait=0.01)

CALLS: dict[str, Callable[[Backend], object]] = {
    "put": lambda b: b.put("a/new", [b"12", b"34"]),
    "put_if_absent": lambda b: b.put_if_absent("a/new", [b"12", b"34"]),
    "get": lambda b: b.get("a/1"),
    "head": lambda b: b.head("a/1"),
    "list": lambda b: list(b.list("a/")),
    "delete": lambda b: b.delete("a/1"),
}


def filled() -> MemoryBackend:
    backend = MemoryBackend()
    for i in range(9):
        backend.put(f"a/{i}", [b"body %d" % i])
    return backend


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("times", [1, 3])
def test_a_passing_fault_is_not_seen(method: str, after: bool, times: int) -> None:
    plain = filled()
    expected, content = CALLS[method](plain), dict(plain.objects)
    store = filled()
    faulty = FaultyBackend(store, [Fault(method=method, after=after, times=times)])
    assert CALLS[method](RetryBackend(faulty, QUICK)) == expected
    assert store.objects == content
    faulty.assert_fired()
    assert [m for m, _ in faulty.log].count(method) == times + 1


@pytest.mark.parametrize("method", CALLS)
def test_who_cancelled_waits_for_no_dead_store(method: str) -> None:
    cancel = threading.Event()
    plan = [Fault(method=method, times=None)]

    class Dying(FaultyBackend):
        def _call(self, *call: str) -> Any:
            cancel.set()  # while the call is under way
            return super()._call(*call)

    faulty = Dying(filled(), plan)
    backend = CancelBackend(RetryBackend(faulty, QUICK), cancel)
    with pytest.raises(StoreUnavailable):
        CALLS[method](backend)
    assert len(faulty.fired) == 2  # the call, and the one repetition that needs no waiting
    with pytest.raises((StoreUnavailable, Cancelled)):
        CALLS["put"](backend)
    assert len(faulty.log) == 2


@pytest.mark.parametrize("method", CALLS)
def test_a_lasting_fault_ends_in_bounded_time(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    faulty = FaultyBackend(filled(), [Fault(method=method, times=None)])
    with pytest.raises(StoreUnavailable):
        CALLS[method](RetryBackend(faulty, BRIEF, cancel=clock))
    assert len(faulty.fired) > 3 and clock.now - 1000.0 <= BRIEF.total


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("error", [StoreDenied("no"), StoreFull("full"), Damaged("bad")])
def test_other_errors_are_not_retried(method: str, error: SnapvaultError) -> None:
    faulty = FaultyBackend(filled(), [Fault(method=method, error=error)])
    with pytest.raises(type(error)):
        CALLS[method](RetryBackend(faulty, QUICK))
    assert faulty.count == 1


def test_exists_after_a_lost_reply_is_our_own_success() -> None:
    store = MemoryBackend()
    faulty = FaultyBackend(store, [Fault(method="put_if_absent", after=True)])
    RetryBackend(faulty, QUICK).put_if_absent("snapshots/x", [b"comm", b"it"])
    assert store.objects == {"snapshots/x": b"commit"}
    assert [m for m, _ in faulty.log] == ["put_if_absent", "put_if_absent", "head", "get"]


def test_exists_after_a_fault_with_other_bytes_is_somebody_else() -> None:
    store = MemoryBackend()
    store.put("snapshots/x", [b"revoked"])
    faulty = FaultyBackend(store, [Fault(method="put_if_absent")])
    with pytest.raises(Exists):
        RetryBackend(faulty, QUICK).put_if_absent("snapshots/x", [b"commit"])
    assert store.objects == {"snapshots/x": b"revoked"}
    faulty.assert_fired()


def test_exists_at_the_first_attempt_is_never_success() -> None:
    """Even with equal bytes: somebody else wrote them, and of racing creators one wins."""
    store = MemoryBackend()
    store.put("a", [b"same"])
    with pytest.raises(Exists):
        RetryBackend(store, QUICK).put_if_absent("a", [b"same"])


def test_a_broken_listing_is_continued_where_it_broke() -> None:
    store = filled()
    faulty = FaultyBackend(store, [Fault(method="list", kind=Kind.BREAK, times=2)])
    assert list(RetryBackend(faulty, QUICK).list("a/")) == list(store.list("a/"))
    faulty.assert_fired()
    assert faulty.count == 3


class Clock(threading.Event):
    """Waiting takes no time, but the clock moves on."""

    now = 1000.0

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0.0
        return False


@pytest.mark.parametrize(("answered", "least", "most"), [(False, 5.0, 10.0), (True, 50.0, 60.0)])
def test_gives_up_sooner_on_a_store_that_never_answered(
    monkeypatch: pytest.MonkeyPatch, answered: bool, least: float, most: float
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    faulty = FaultyBackend(filled(), [Fault(method="get", times=None)])
    backend = RetryBackend(faulty, RetryPolicy(first_wait=0.2, longest_wait=0.5), cancel=clock)
    if answered:
        backend.head("a/1")
    began = clock.now
    with pytest.raises(StoreUnavailable):
        backend.get("a/1")
    assert least < clock.now - began <= most
    assert len(faulty.fired) > 10


def test_cancel_ends_the_waiting() -> None:
    cancel = threading.Event()
    policy = RetryPolicy(total=3600.0, until_first_success=3600.0, first_wait=1000.0, longest_wait=1000.0)
    backend = RetryBackend(FaultyBackend(MemoryBackend(), [Fault(times=None)]), policy, cancel=cancel)
    threading.Timer(0.05, cancel.set).start()
    with pytest.raises(StoreUnavailable):  # or the test's own time-out
        backend.get("a")


def test_kill_passes_through_retry() -> None:
    faulty = FaultyBackend(filled(), [Fault(at=1, kind=Kind.KILL)])
    backend = RetryBackend(faulty, QUICK)
    for _ in range(2):
        with pytest.raises(Killed):
            backend.get("a/1")
    assert faulty.count == 1


def test_trace_counts_calls_and_bytes() -> None:
    trace = TraceBackend(filled(), record=True)
    for call in CALLS.values():
        if call is not CALLS["put_if_absent"]:
            call(trace)
    with pytest.raises(NotFound):
        trace.get("none")
    with pytest.raises(Exists):
        trace.put_if_absent("a/new", [b"123"])
    assert trace.calls == {"put": 1, "put_if_absent": 1, "get": 2, "head": 1, "list": 1, "delete": 1}
    assert (trace.bytes_sent, trace.bytes_received) == (4, 6)
    assert list(trace.log)[:2] == [Call("put", "a/new", 4), Call("get", "a/1", 0)]


def test_metrics_tell_what_was_asked_and_what_failed() -> None:
    """By attempt: what was repeated counts as often as it was asked."""
    broken = FaultyBackend(filled(), [Fault(method="get", times=2), Fault(method="list", kind=Kind.BREAK)])
    backend = RetryBackend(MetricsBackend(broken), QUICK)
    assert backend.get("a/1") == b"body 1"
    assert len(list(backend.list("a/"))) == 9
    backend.put("a/new", [b"12", b"34"])
    for call, answer in ((lambda: backend.get("none"), NotFound), (lambda: CALLS["put_if_absent"](backend), Exists)):
        with pytest.raises(answer):
            call()
    found = metrics(CancelBackend(backend, threading.Event()))
    counted = {method: (m.calls, m.errors) for method, m in found.methods.items()}
    assert counted == {"get": (4, 2), "list": (2, 1), "put": (1, 0), "put_if_absent": (1, 0)}
    assert (found.bytes_sent, found.bytes_received, found.retries) == (4, 6, 3)
    assert found.to_dict()["methods"]["get"]["calls"] == 4
    assert all(m.seconds >= 0 for m in found.methods.values())


def test_metrics_measure_the_store_and_not_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    backend = MetricsBackend(filled())
    listing = backend.list("a/")
    next(listing)
    for _ in range(1000):
        time.monotonic()  # the caller takes its time
    list(listing)
    assert metrics(backend).methods["list"].seconds == 11  # for the listing, nine names and its end, one tick each


@pytest.mark.parametrize("method", CALLS)
def test_no_more_calls_at_once_than_allowed(method: str) -> None:
    lock, inside, most = threading.Lock(), 0, 0
    full = threading.Barrier(2)  # both places are taken at the same moment

    class Slow(Wrapper):
        def _call(self) -> None:
            nonlocal inside, most
            with lock:
                inside, most = inside + 1, max(most, inside + 1)
            full.wait(10)
            with lock:
                inside -= 1

    for name in CALLS:
        setattr(Slow, name, lambda self, *args, _name=name: (self._call(), getattr(self.inner, _name)(*args))[1])
    Slow.list = lambda self, prefix="": (self._call(), (yield from self.inner.list(prefix)))[1]  # type: ignore[assignment]
    backend = ConcurrencyBackend(Slow(filled()), 2)

    def call(number: int) -> None:
        if method == "put_if_absent":
            backend.put_if_absent(f"b/{number}", [b"x"])
        else:
            CALLS[method](backend)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(8)))
    assert most == 2


def test_a_place_is_free_again_after_an_error_and_while_a_listing_is_looked_at() -> None:
    backend = ConcurrencyBackend(filled(), 1)
    for _ in range(3):
        with pytest.raises(NotFound):
            backend.get("none")
    for info in backend.list("a/"):
        backend.head(info.name)  # with the place held, it would wait for ever


def test_what_a_control_asks_for() -> None:
    """Whoever waits for bandwidth holds no place, and whoever got one looks once more whether to go on."""
    cancel = threading.Event()
    control = Control(cancel=cancel, limits=Limits(upload=1, download=2, connections=3))
    stack, kinds = controlled(MemoryBackend(), control), list[type]()
    while isinstance(stack, Wrapper):
        kinds.append(type(stack))
        stack = stack.inner
    assert kinds == [LimitBackend, ConcurrencyBackend, CancelBackend]
    plain = MemoryBackend()
    assert controlled(plain, None) is plain and controlled(plain, Control(limits=Limits())) is plain


@pytest.mark.parametrize("limit", ["threads", "memory", "upload", "download", "connections"])
def test_a_limit_of_nothing_is_refused(limit: str) -> None:
    for value in (0, -1):
        with pytest.raises(InvalidInput, match=limit):
            Limits(**{limit: value})


def test_limits_make_transfers_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: waits.append(timeout or 0.0))
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    backend = LimitBackend(MemoryBackend(), upload=1000, download=500, latency=0.25)
    backend.put("a", [bytes(100)])
    backend.put_if_absent("b", [bytes(100)])
    assert waits == pytest.approx([0.25, 0.1, 0.25, 0.2])  # the second waits for the first, too
    waits.clear()
    backend.get("a")
    assert waits == pytest.approx([0.25, 0.2])  # not for the uploads


def test_checked_looks_first() -> None:
    class Ignores(MemoryBackend):
        put_if_absent = MemoryBackend.put

    backend = CheckedBackend(Ignores())
    backend.put_if_absent("a", [b"1"])
    with pytest.raises(Exists):
        backend.put_if_absent("a", [b"2"])
    assert backend.get("a") == b"1"


def test_stale_temps_are_found_below_wrappers(tmp_path: object) -> None:
    local = LocalBackend(str(tmp_path))
    (open(f"{local.url}/.tmp-x", "wb")).close()
    assert remove_stale_temps(RetryBackend(TraceBackend(local)), 0) == 1
    assert remove_stale_temps(RetryBackend(MemoryBackend()), 0) == 0
    assert innermost(TraceBackend(TraceBackend(local))) is local


def test_fault_at_a_call_before_and_after() -> None:
    for after, there in ((False, False), (True, True)):
        store = MemoryBackend()
        faulty = FaultyBackend(store, [Fault(at=2, after=after, error=StoreFull("full"))])
        faulty.put("a", [b"1"])
        with pytest.raises(StoreFull):
            faulty.put("b", [b"2"])
        faulty.put("c", [b"3"])
        assert ("b" in store.objects) is there and "c" in store.objects
        assert faulty.count == 3 and len(faulty.fired) == 1


def test_faults_on_bodies_and_listings() -> None:
    def through(kind: Kind) -> FaultyBackend:
        return FaultyBackend(filled(), [Fault(prefix="a", kind=kind)])

    assert through(Kind.TRUNCATE).get("a/1") == b"bod"
    with pytest.raises(Damaged):
        through(Kind.TRUNCATE).get("a/1", 0, 6)
    assert through(Kind.FLIP).get("a/1") == b"bod\x78 1"
    assert [i.name for i in through(Kind.OMIT).list("a/")] == ["a/0", "a/1", "a/2", "a/6", "a/7", "a/8"]
    listing, got = through(Kind.BREAK).list("a/"), list[ObjectInfo]()
    with pytest.raises(StoreUnavailable):
        got.extend(listing)
    torn = through(Kind.TORN)
    with pytest.raises(StoreUnavailable):
        torn.put_if_absent("a/new", [b"1234"])
    assert torn.inner.get("a/new") == b"12"


def test_a_fault_that_never_fired_is_a_failure() -> None:
    faulty = FaultyBackend(MemoryBackend(), [Fault(at=5)])
    faulty.put("a", [b"1"])
    with pytest.raises(AssertionError, match="never happened in 1 calls"):
        faulty.assert_fired()


def test_what_is_not_in_the_protocol_is_called_as_any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = MemoryBackend(), list[Backend]()

    def call(inner: Backend) -> int:
        asked.append(inner)
        if len(asked) < 3:
            raise StoreUnavailable("away")
        return 7

    assert reach(TraceBackend(RetryBackend(CheckedBackend(store), QUICK)), call) == 7
    assert asked == [store] * 3
    cancel = threading.Event()
    assert reach(CancelBackend(OneProcess(store), cancel), call) == 7
    cancel.set()
    with pytest.raises(Cancelled):
        reach(CancelBackend(store, cancel), call)
    guard = OneProcess(store)
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(InvalidInput):
        reach(guard, call)
    assert len(asked) == 4


def test_what_may_not_be_deleted_is_left() -> None:
    store = filled()
    discard(store, "a/1")
    discard(FaultyBackend(store, [Fault(method="delete", error=StoreDenied("no"))]), "a/2")
    assert "a/1" not in store.objects and "a/2" in store.objects
    with pytest.raises(StoreUnavailable):
        discard(FaultyBackend(store, [Fault(method="delete", error=StoreUnavailable("away"))]), "a/2")
