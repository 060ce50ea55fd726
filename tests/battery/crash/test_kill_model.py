"""Killed at every backend call, before and after its effect, of every operation on a small repository (family 1).

The kill is a BaseException that also answers every later call, so nothing can tidy up behind it.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from battery import model
from battery.oracle import Ledger, assert_sound

import snapvault
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.protocol import Backend
from snapvault.testing.faults import Fault, FaultyBackend, Killed, Kind

Act = Callable[[Backend, Ledger], object]


@dataclass
class Base:
    """A repository with two snapshots, and a source that changed since."""

    objects: dict[str, bytes]
    ledger: Ledger
    scratch: Path

    def store(self) -> MemoryBackend:
        store = MemoryBackend()
        store.objects.update(self.objects)
        return store


@pytest.fixture(scope="module")
def base(ram: Path) -> Base:
    model.make_source(ram / "source")
    store, ledger = MemoryBackend(), Ledger(ram / "source")
    with model.small_parts(), model.init(store) as repo:
        for step in (1, 2):
            ledger.backup(repo, control=model.ONE_THREAD)
            model.change_source(ram / "source", step)
    return Base(dict(store.objects), ledger, ram)


def killed(base: Base, act: Act, *, at_least: int) -> Iterator[tuple[MemoryBackend, Ledger]]:
    """What is in the store, and what is owed, after a kill at each call of ``act``."""
    clean = FaultyBackend(base.store())
    act(clean, base.ledger.copy())
    assert clean.count >= at_least, clean.log
    for at, after in itertools.product(range(1, clean.count + 1), (False, True)):
        store, ledger = base.store(), base.ledger.copy()
        faulty = FaultyBackend(store, [Fault(at=at, kind=Kind.KILL, after=after)])
        try:
            act(faulty, ledger)
        except Killed:
            yield store, ledger
        else:  # with several key slots it is chance which is tried first
            assert faulty.count < at and clean.count - at < 2, f"call {at} was not hit, or a kill was survived"


def back_up(backend: Backend, ledger: Ledger) -> snapvault.BackupResult:
    with model.opened(backend) as repo:
        return ledger.backup(repo, control=model.ONE_THREAD)


def verify(store: Backend, base: Base, ledger: Ledger) -> set[str]:
    with model.opened(store) as repo:
        return ledger.verify(repo, base.scratch)


def resume(store: MemoryBackend, ledger: Ledger) -> int:
    """The next run uploads no blob that an index names already.  How many it did upload."""
    before = model.indexed(store)
    packs = model.packs(store)
    result = back_up(store, ledger)
    assert result.bytes_stored == sum(model.packs(store).values()) - sum(packs.values())
    uploaded = model.indexed(store) - before
    again = [blob.hex() for blob in uploaded if blob in before]
    assert not again, f"uploaded though indexed: {again}"
    return uploaded.total()


def test_backup_and_its_resume(base: Base) -> None:
    all_new = resume(base.store(), base.ledger.copy())
    left = set()
    for store, ledger in killed(base, back_up, at_least=25):
        assert len(verify(store, base, ledger)) <= 1  # a commit whose reply was lost
        left.add(resume(store, ledger))
        verify(store, base, ledger)
    assert max(left) == all_new and min(left) < 5 and len(left) >= 3, "no kill came between two index objects"


def test_a_resume_is_killed_too(base: Base) -> None:
    """A second kill on top of a first one that came in the middle."""
    clean = FaultyBackend(base.store())
    back_up(clean, base.ledger.copy())
    calls = [name.partition("/")[0] if method == "put_if_absent" else "" for method, name in clean.log]
    middle = calls.index("index") + 2
    store = base.store()
    with pytest.raises(Killed):
        back_up(FaultyBackend(store, [Fault(at=middle, kind=Kind.KILL)]), base.ledger.copy())
    interrupted = Base(dict(store.objects), base.ledger, base.scratch)
    for twice, ledger in killed(interrupted, back_up, at_least=20):
        resume(twice, ledger)
        verify(twice, base, ledger)


def test_init(base: Base) -> None:
    empty, taken_up = Base({}, Ledger(base.ledger.source), base.scratch), 0
    for store, ledger in killed(empty, lambda backend, _: model.init(backend), at_least=40):
        try:
            model.opened(store).close()
        except snapvault.RepositoryNotFound:
            model.init(store).close()
            taken_up += 1
        else:
            with pytest.raises(snapvault.InvalidInput, match="already"):
                model.init(store)
        back_up(store, ledger)
        verify(store, base, ledger)
    assert taken_up >= 40


def test_forget(base: Base) -> None:
    first = next(iter(base.ledger.trees))

    def forget(backend: Backend, ledger: Ledger) -> None:
        with model.opened(backend) as repo:
            ledger.forget(repo, first)

    for store, ledger in killed(base, forget, at_least=10):
        with model.opened(store) as repo:
            if first in {s.id for s in repo.snapshots()}:
                ledger.forget(repo, first)
            else:
                ledger.forgotten.add(first)
        verify(store, base, ledger)


def test_check(base: Base) -> None:
    """It writes down what it read; a kill must not make it believe more than it saw."""

    def check(backend: Backend, ledger: Ledger) -> None:
        with model.opened(backend) as repo:
            assert_sound(repo, read_data=True)

    for store, ledger in killed(base, check, at_least=30):
        back_up(store, ledger)
        verify(store, base, ledger)
