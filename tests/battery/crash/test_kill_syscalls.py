"""A real process killed at every write, fsync, link, unlink, rename and mkdir of an operation (family 1)."""

import random
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

import pytest
import strace
from battery import model
from battery.killing import lost_of
from battery.oracle import Ledger, remember
from battery.process import Place

import snapvault
from snapvault.backend.local import LocalBackend

AT_ONCE = 2
TRIES = 6  # each misses a call of the clean run with a chance of a few in a hundred


@dataclass
class Killed:
    """What a killed process left."""

    place: Place
    run: strace.Run
    call: strace.Call  # at which it was killed


def points(run: strace.Run) -> list[strace.Call]:
    """The calls of a clean run, where a kill at "the third fsync" means the first thread that comes to its third."""
    assert run.returncode == 0, run.output
    return list({(c.name, c.ordinal): c for c in run.calls}.values())


def killed(base: Place, operation: str, *, at_least: int, serial: bool = True, every: int = 1) -> Iterator[Killed]:
    """Run the operation on a copy of ``base`` for each (or every so many-th) of its calls, and kill it there."""
    clean = copied(base, "clean")
    found = points(clean.run(operation, serial=serial))
    shutil.rmtree(clean.root)
    assert len(found) >= at_least, found
    found = found[::every]

    def kill(number: int, tries: int = TRIES) -> Killed:
        call, place = found[number], copied(base, f"killed-{number}")
        run = place.run(operation, serial=serial, inject=[f"{call.name}:signal=KILL:when={call.ordinal}"])
        dead = Killed(place, run, call)
        if run.returncode == -9 or reached(dead) or not serial or tries == 1:
            return dead
        shutil.rmtree(place.root)  # pack ids are random, and those that begin alike share a folder: a mkdir less
        return kill(number, tries - 1)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        numbers = iter(range(len(found)))
        running = deque(pool.submit(kill, number) for number in islice(numbers, 2 * AT_ONCE))
        while running:  # few at a time: what is left of a large repository is large
            result = running.popleft().result()
            if result.run.returncode == -9:
                yield result
            else:  # with several threads, none of them may have come to so many calls this time
                assert not serial and not reached(result), f"survived {result.call}"
            shutil.rmtree(result.place.root)
            running += (pool.submit(kill, number) for number in islice(numbers, 1))


def reached(dead: Killed) -> bool:
    """Whether a thread of a run came to the call at which it was to be killed."""
    return any(c.name == dead.call.name and c.ordinal >= dead.call.ordinal for c in dead.run.calls)


def copied(base: Place, name: str) -> Place:
    root = base.root.parent / name
    shutil.copytree(base.root, root, symlinks=True)
    return Place(root, base.source)


@pytest.fixture
def fresh(ram: Path) -> Iterator[tuple[Place, Ledger]]:
    """An empty place, and a source."""
    source, root = ram / "source", ram / "work" / "base"
    if not source.exists():
        model.make_source(source)
    root.mkdir(parents=True)
    yield Place(root, source), Ledger(source)
    shutil.rmtree(root.parent)


def opened(place: Place) -> snapvault.Repository:
    return snapvault.open(str(place.repository), keys=model.key, cache=place.root / "cache", state=place.root / "state")


def verify(place: Place, ledger: Ledger) -> set[str]:
    with opened(place) as repo:
        return ledger.verify(repo, place.root)


def resume(place: Place, ledger: Ledger) -> int:
    """The next backup uploads nothing that an index names.  How many blobs it did upload."""
    backend = LocalBackend(place.repository)
    before = model.indexed(backend)
    with opened(place) as repo:
        ledger.backup(repo)
    uploaded = model.indexed(backend) - before
    again = [blob.hex() for blob in uploaded if blob in before]
    assert not again, f"uploaded though indexed: {again}"
    return uploaded.total()


def test_init(fresh: tuple[Place, Ledger]) -> None:
    base, ledger = fresh
    again = 0
    for left in killed(base, "init", at_least=60):
        try:
            opened(left.place).close()
        except snapvault.RepositoryNotFound:
            snapvault.init(str(left.place.repository), keys=model.key, chunking=model.CHUNKING).repository.close()
            again += 1
        mine = ledger.copy()
        resume(left.place, mine)
        verify(left.place, mine)
    assert again >= 50


def back_up_once_more(base: Place, ledger: Ledger) -> None:
    with opened(base) as repo:
        ledger.backup(repo)
    model.change_source(ledger.source, 1)


@pytest.mark.parametrize("number", [1, 2])
def test_backup(fresh: tuple[Place, Ledger], number: int) -> None:
    """The first one, and a second one with caches, of which every other call."""
    base, ledger = fresh
    assert base.run("init").returncode == 0
    if number == 2:
        back_up_once_more(base, ledger)
    left = set()
    for dead in killed(base, "backup", at_least=50, every=number):
        mine = ledger.copy()
        if dead.run.output:  # it was acknowledged before the end
            mine.trees[dead.run.output.split()[0]] = remember(base.source)
        assert len(verify(dead.place, mine)) <= 1
        left.add(resume(dead.place, mine))
        verify(dead.place, mine)
    assert min(left) < 5 and len(left) >= 3, f"no kill came between two index objects: {left}"


def test_forget(fresh: tuple[Place, Ledger]) -> None:
    base, ledger = fresh
    assert base.run("init").returncode == 0
    back_up_once_more(base, ledger)
    back_up_once_more(base, ledger)
    latest = list(ledger.trees)[-1]
    for dead in killed(base, "forget", at_least=10):
        mine = ledger.copy()
        with opened(dead.place) as repo:
            if dead.run.output or latest not in {s.id for s in repo.snapshots()}:
                mine.forgotten.add(latest)
        resume(dead.place, mine)
        verify(dead.place, mine)


def test_prune(fresh: tuple[Place, Ledger]) -> None:
    """Every third call; then a prune that finishes, a backup, and all that is owed."""
    base, ledger = fresh
    assert base.run("init").returncode == 0
    back_up_once_more(base, ledger)
    back_up_once_more(base, ledger)
    first = next(iter(ledger.trees))
    with opened(base) as repo:
        snapvault.forget_snapshots(repo, [first], undelete_window=timedelta(0))
    ledger.forgotten.add(first)
    for dead in killed(base, "prune", at_least=40, every=3):
        verify(dead.place, ledger)
        done = dead.place.run("prune")
        assert done.returncode == 0, done.output
        mine = ledger.copy()
        resume(dead.place, mine)
        verify(dead.place, mine)


def lost(place: Place) -> dict[str, set[str]]:
    """What cannot be restored, by what is in the store alone."""
    with snapvault.open(str(place.repository), keys=model.key) as repo:
        return lost_of(repo, place.root)


def test_repair(fresh: tuple[Place, Ledger]) -> None:
    """Every third call: what could be restored before can be restored then, and after a repair that finishes."""
    base, ledger = fresh
    assert base.run("init").returncode == 0
    back_up_once_more(base, ledger)
    back_up_once_more(base, ledger)
    largest = max((base.repository / "packs").glob("*/*"), key=lambda p: p.stat().st_size)
    whole = largest.read_bytes()
    largest.chmod(0o600)
    largest.write_bytes(whole[: len(whole) // 2] + b"rot" + whole[len(whole) // 2 + 3 :])
    next((base.repository / "index").iterdir()).unlink()
    before = lost(base)
    assert any(before.values())
    for dead in killed(base, "repair", at_least=40, every=3):
        assert lost(dead.place) == before
        done = dead.place.run("repair")
        assert done.returncode == 0 and done.output.startswith("partial"), done.output
        assert lost(dead.place) == before
        with opened(dead.place) as repo:
            ledger.copy().backup(repo)


def test_rotate(fresh: tuple[Place, Ledger]) -> None:
    base, ledger = fresh
    assert base.run("init").returncode == 0
    back_up_once_more(base, ledger)
    for dead in killed(base, "rotate", at_least=8):
        mine = ledger.copy()
        with opened(dead.place) as repo:
            snapvault.rotate(repo)
        resume(dead.place, mine)
        verify(dead.place, mine)


def kill_a_large_backup(base: Place, ledger: Ledger, *, serial: bool, every: int) -> int:
    """A backup of 50 MB in packs of 64 KiB, killed at every call; how many kills."""
    content = random.Random(3)
    for i in range(50):
        (ledger.source / f"megabyte {i}").write_bytes(content.randbytes(1 << 20))
    assert base.run("init").returncode == 0
    kills = 0
    for dead in killed(base, "backup", at_least=3_000 if serial else 500, serial=serial, every=every):
        mine = ledger.copy()
        if dead.run.output:
            mine.trees[dead.run.output.split()[0]] = remember(base.source)
        resume(dead.place, mine)
        assert len(verify(dead.place, mine)) <= 1
        kills += 1
    return kills


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("serial", [True, False], ids=["one thread", "threads"])
def test_large_backup(tmp_path: Path, serial: bool) -> None:
    source, root = tmp_path / "source", tmp_path / "work" / "base"
    model.make_source(source)
    root.mkdir(parents=True)
    kills = kill_a_large_backup(Place(root, source), Ledger(source), serial=serial, every=11 if serial else 23)
    assert kills >= (600 if serial else 100)
