"""Killed at every backend call, before and after its effect, of every operation on a small repository (family 1).

The kill is a BaseException that also answers every later call, so nothing can tidy up behind it.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from battery import model
from battery.oracle import Ledger

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
        with pytest.raises(Killed):
            act(faulty, ledger)
        faulty.assert_fired()
        yield store, ledger


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
