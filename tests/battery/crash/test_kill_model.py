"""Killed at every backend call, before and after its effect, of every operation on a small repository (family 1).

The kill is a BaseException that also answers every later call, so nothing can tidy up behind it.
"""

from datetime import timedelta
from pathlib import Path

import pytest
from battery import killing, model
from battery.oracle import Ledger, assert_sound

import snapvault
from snapvault.backend.protocol import Backend
from snapvault.format import names
from snapvault.testing.faults import Fault, FaultyBackend, Killed, Kind

SAMPLES = [80, pytest.param(None, marks=pytest.mark.long)]  # kills; None: at every call


@pytest.fixture(scope="module")
def base(ram: Path) -> killing.Base:
    return killing.make_base(ram)


def test_backup_and_its_resume(base: killing.Base) -> None:
    all_new = killing.resume(base.store(), base.ledger.copy())
    left = set()
    for store, ledger in killing.killed(base, killing.back_up, at_least=25):
        assert len(killing.verify(store, base, ledger)) <= 1  # a commit whose reply was lost
        left.add(killing.resume(store, ledger))
        killing.verify(store, base, ledger)
    assert max(left) == all_new and min(left) < 5 and len(left) >= 3, "no kill came between two index objects"


def test_a_resume_is_killed_too(base: killing.Base) -> None:
    """A second kill on top of a first one that came in the middle."""
    clean = FaultyBackend(base.store())
    killing.back_up(clean, base.ledger.copy())
    calls = [name.partition("/")[0] if method == "put_if_absent" else "" for method, name in clean.log]
    middle = calls.index("index") + 2
    store = base.store()
    with pytest.raises(Killed):
        killing.back_up(FaultyBackend(store, [Fault(at=middle, kind=Kind.KILL)]), base.ledger.copy())
    interrupted = killing.Base(dict(store.objects), base.ledger, base.scratch)
    for twice, ledger in killing.killed(interrupted, killing.back_up, at_least=20):
        killing.resume(twice, ledger)
        killing.verify(twice, base, ledger)


def test_init(base: killing.Base) -> None:
    empty, taken_up = killing.Base({}, Ledger(base.ledger.source), base.scratch), 0
    for store, ledger in killing.killed(empty, lambda backend, _: model.init(backend), at_least=40):
        try:
            model.opened(store).close()
        except snapvault.RepositoryNotFound:
            model.init(store).close()
            taken_up += 1
        else:
            with pytest.raises(snapvault.InvalidInput, match="already"):
                model.init(store)
        killing.back_up(store, ledger)
        killing.verify(store, base, ledger)
    assert taken_up >= 40


def test_forget(base: killing.Base) -> None:
    first = next(iter(base.ledger.trees))

    def forget(backend: Backend, ledger: Ledger) -> None:
        with model.opened(backend) as repo:
            ledger.forget(repo, first)

    for store, ledger in killing.killed(base, forget, at_least=10):
        with model.opened(store) as repo:
            if first in {s.id for s in repo.snapshots()}:
                ledger.forget(repo, first)
            else:
                ledger.forgotten.add(first)
        killing.verify(store, base, ledger)


def pruned(backend: Backend) -> snapvault.PruneResult:
    """All that can be had; whoever died before is dead."""
    with model.opened(backend) as repo, model.small_parts():
        plan = snapvault.plan_prune(repo, limits=snapvault.PruneLimits(unused=0.0), control=model.ONE_THREAD)
        return plan.execute(wait=timedelta(0), lease=timedelta(0))


@pytest.mark.parametrize("sample", SAMPLES)
def test_prune_and_the_next_one(base: killing.Base, sample: int | None) -> None:
    """Whenever it dies, nothing is lost, and the next one frees what it would have freed."""
    first, store = next(iter(base.ledger.trees)), base.store()
    ledger = base.ledger.copy()
    with model.opened(store) as repo:
        snapvault.forget_snapshots(repo, [first], undelete_window=timedelta(0))
    ledger.forgotten.add(first)
    forgotten = killing.Base(dict(store.objects), ledger, base.scratch)
    result = pruned(store)
    assert result.packs_removed > 1 and result.bytes_copied > 0
    left = sum(model.packs(store).values())
    for dead, owed in killing.killed(forgotten, lambda backend, _: pruned(backend), at_least=40, sample=sample):
        killing.verify(dead, base, owed)
        assert pruned(dead).status == "ok"
        killing.verify(dead, base, owed)
        # A copy that nobody finished is garbage, or is copied into packs of other sizes.
        assert sum(model.packs(dead).values()) <= left + result.bytes_copied
        killing.resume(dead, owed)
        killing.verify(dead, base, owed)


def repaired(backend: Backend) -> snapvault.RepairResult:
    """Whoever died before is dead."""
    with model.opened(backend) as repo, model.small_parts():
        return snapvault.plan_repair(repo, control=model.ONE_THREAD).execute(wait=timedelta(0), lease=timedelta(0))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("sample", SAMPLES)
def test_repair_and_the_next_one(base: killing.Base, sample: int | None) -> None:
    """Whenever it dies, what could be restored before can be restored, and the next one ends it."""
    store = base.store()
    packs, indexes, headers = (
        sorted(n for n in store.objects if n.startswith(p)) for p in (names.PACKS, names.INDEX, names.SESSIONS)
    )
    largest = max(packs, key=lambda n: len(store.objects[n]))
    rotten = bytearray(store.objects[largest])
    rotten[len(rotten) // 2] ^= 1
    store.objects[largest] = bytes(rotten)
    del store.objects[indexes[0]], store.objects[headers[0]]
    store.objects[indexes[-1]] = store.objects[indexes[-1]][:-1]
    damaged = killing.Base(dict(store.objects), base.ledger, base.scratch)
    before = killing.lost(store, base)
    assert any(before.values()) and len(before) == 2
    assert repaired(store).packs_salvaged == 1
    assert killing.lost(store, base) == before
    for dead, ledger in killing.killed(damaged, lambda backend, _: repaired(backend), at_least=60, sample=sample):
        assert killing.lost(dead, base) == before
        assert repaired(dead).status == "partial"
        assert killing.lost(dead, base) == before
        with model.opened(dead) as repo:
            assert snapvault.check(repo, read_data=True).status == "partial"
        killing.back_up(dead, ledger)


def test_check(base: killing.Base) -> None:
    """It writes down what it read; a kill must not make it believe more than it saw."""

    def check(backend: Backend, ledger: Ledger) -> None:
        with model.opened(backend) as repo:
            assert_sound(repo, read_data=True)

    for store, ledger in killing.killed(base, check, at_least=30):
        killing.back_up(store, ledger)
        killing.verify(store, base, ledger)
