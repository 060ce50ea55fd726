"""Killing an operation at every backend call, on a small repository with a history."""

import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from battery import lab, model
from battery.oracle import Ledger

import snapvault
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.protocol import Backend
from snapvault.testing.faults import Fault, FaultyBackend, Killed, Kind

SEED = int(os.environ.get("SNAPVAULT_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)

Act = Callable[[Backend, Ledger], object]
Killings = Iterator[tuple[MemoryBackend, Ledger]]


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


def make_base(place: Path) -> Base:
    """Source, repository and scratch place below the folder ``place``."""
    model.make_source(place / "source")
    store, ledger = MemoryBackend(), Ledger(place / "source")
    with model.small_parts(), model.init(store) as repo:
        for step in (1, 2):
            ledger.backup(repo, control=model.ONE_THREAD)
            model.change_source(place / "source", step)
        lab.put_gc(repo.vault, [])  # so that its records are read, too
    return Base(dict(store.objects), ledger, place)


def killed(base: Base, act: Act, *, at_least: int, sample: int | None = None) -> Killings:
    """What is in the store, and what is owed, after a kill at each call of ``act``, or at a ``sample`` of so many."""
    clean = FaultyBackend(base.store())
    act(clean, base.ledger.copy())
    assert clean.count >= at_least, clean.log
    moments = list(itertools.product(range(1, clean.count + 1), (False, True)))
    if sample is not None:
        print(f"SNAPVAULT_TEST_SEED={SEED}")
        moments = random.Random(SEED).sample(moments, sample)
    for at, after in moments:
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


def lost(store: Backend, base: Base) -> dict[str, set[str]]:
    """What a restore of each snapshot cannot bring back."""
    with model.opened(store) as repo:
        return lost_of(repo, base.scratch)


def lost_of(repo: snapvault.Repository, scratch: Path) -> dict[str, set[str]]:
    """The same in a repository that is open."""
    found = {}
    for snapshot in repo.snapshots():
        with TemporaryDirectory(dir=scratch) as out:
            found[snapshot.id] = {i.path for i in snapvault.restore(repo, snapshot.id, out).lost}
    return found


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
