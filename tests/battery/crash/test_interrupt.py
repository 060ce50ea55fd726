"""Ctrl-C at every changing system call of the command (family 14)."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from battery import model
from battery.oracle import Ledger, remember
from battery.process import Place

import snapvault

BACKUP = ("backup", "--dataset", "model", "--host", "here", "--json")


@pytest.fixture
def base(ram: Path) -> Iterator[tuple[Place, Ledger]]:
    """A repository with one snapshot, and a source that has changed since."""
    source, root = ram / "source", ram / "work" / "base"
    model.make_source(source)
    root.mkdir(parents=True)
    place, ledger = Place(root, source), Ledger(source)
    with snapvault.init(str(place.repository), keys=model.key, chunking=model.CHUNKING).repository as repo:
        ledger.backup(repo)
    model.change_source(source, 1)
    yield place, ledger
    shutil.rmtree(root.parent)


def copied(base: Place, name: str) -> Place:
    root = base.root.parent / name
    shutil.copytree(base.root, root)
    return Place(root, base.source)


def test_ctrl_c_at_every_call(base: tuple[Place, Ledger]) -> None:
    """No snapshot and exit code 130, or (at the very end) the snapshot and 0; and the same command goes on."""
    place, ledger = base
    clean = copied(place, "clean").command(*BACKUP, place.source)
    assert clean.returncode == 0, clean.output
    calls = list({(c.name, c.ordinal): c for c in clean.calls}.values())
    assert len(calls) >= 40
    codes = []

    def interrupt(number: int) -> tuple[Place, int, str]:
        call, copy = calls[number], copied(place, f"interrupted-{number}")
        run = copy.command(*BACKUP, place.source, inject=[f"{call.name}:signal=INT:when={call.ordinal}"])
        return copy, run.returncode, run.output

    with ThreadPoolExecutor(2) as pool:
        for copy, code, output in pool.map(interrupt, range(0, len(calls), 2)):
            mine = ledger.copy()
            with snapvault.open(str(copy.repository), keys=model.key) as repo:
                new = {s.id for s in repo.snapshots()} - set(ledger.trees)
                assert code in (0, 130), output
                if code == 0:
                    [made] = new
                    mine.trees[made] = remember(place.source)
                assert len(mine.verify(repo, copy.root)) <= 1  # the slot was just filled, and could not be emptied
                mine.backup(repo)
                mine.verify(repo, copy.root)
            codes.append(code)
            shutil.rmtree(copy.root)
    assert codes.count(130) > 10, codes
