"""Sessions that are open at the same time learn from one another what is stored already (rule W2, once more)."""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from battery import lab

import snapvault
from snapvault import BackupResult, Repository
from snapvault.format import names
from snapvault.operations import run
from snapvault.repository import packer
from snapvault.source.filesystem import FilesystemReader
from tests.repos import SMALL, again, back, beside, contents, make, objects, open_session, python, save, small_packs


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "deep").mkdir(parents=True)
    for i in range(60):
        (root / ("deep" if i % 2 else ".") / f"{i:02}").write_bytes(random.Random(i).randbytes(20_000))
    return root


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    small_packs(monkeypatch)
    monkeypatch.setattr(packer, "SHARED_SECONDS", 0.0)
    return make(tmp_path / "repo", chunking=SMALL)


def test_what_another_stored_meanwhile_is_not_stored_again(repo: Repository, source: Path, tmp_path: Path) -> None:
    open_session(repo)
    whole: list[BackupResult] = []
    result = beside(repo, source, lambda: whole.append(save(again(repo), source, dataset="other")))
    assert result.bytes_stored < whole[0].bytes_stored / 2
    for snapshot in (result.snapshot, whole[0].snapshot):
        assert contents(back(again(repo), tmp_path / snapshot, source, snapshot)) == contents(source)
    assert snapvault.check(again(repo), read_data=True).status == "ok"


def test_what_another_stored_of_a_large_file_is_not_stored_again(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PART_SIZE", 1 << 16)
    source = tmp_path / "large"
    source.mkdir()
    (source / "file").write_bytes(random.Random(5).randbytes(2_000_001))
    open_session(repo)
    whole: list[BackupResult] = []
    result = beside(repo, source, lambda: whole.append(save(again(repo), source, dataset="other")))
    assert result.bytes_stored < whole[0].bytes_stored / 2
    assert contents(back(again(repo), tmp_path / "out", source, result.snapshot)) == contents(source)


def test_who_is_alone_asks_nobody(repo: Repository, source: Path) -> None:
    """And what others have stored by the time it ends is stored twice."""
    whole: list[BackupResult] = []
    result = beside(repo, source, lambda: whole.append(save(again(repo), source, dataset="other")))
    assert result.bytes_stored > whole[0].bytes_stored / 2


def test_nothing_that_is_condemned_is_relied_upon(repo: Repository, source: Path, tmp_path: Path) -> None:
    """A GC that began after this session waits for it; one that had begun before does not."""
    open_session(repo)
    whole: list[BackupResult] = []

    def meanwhile() -> None:
        whole.append(save(again(repo), source, dataset="other"))
        vault = again(repo).vault
        lab.put_gc(vault, list(vault.loader.packs_present()))

    result = beside(repo, source, meanwhile)
    assert result.bytes_stored > whole[0].bytes_stored / 2
    assert contents(back(again(repo), tmp_path / "out", source, result.snapshot)) == contents(source)


WRITER = """
import sys, time
from pathlib import Path
from snapvault.operations import run
from snapvault.repository import packer
packer.SHARED_SECONDS, run.PART_SIZE = 0.0, 1 << 19
import snapvault
url, source, go, name = sys.argv[1:]
repo = snapvault.open(url, keys=lambda: bytes(range(32)), cache=None, state=None)
Path(go + name).touch()
while not Path(go).exists():
    time.sleep(0.001)
print(snapvault.backup(repo, source, dataset=name).snapshot)
"""


def test_parts_of_a_large_file_in_an_order_of_ones_own(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PART_SIZE", 1 << 16)
    source, orders = tmp_path / "source", list[list[int]]()
    source.mkdir()
    (source / "large").write_bytes(random.Random(5).randbytes(2_000_001))
    plain, part = FilesystemReader.part, FilesystemReader.part

    def watched(self: FilesystemReader, offset: int, length: int) -> None:
        orders[-1].append(offset)
        part(self, offset, length)

    monkeypatch.setattr(FilesystemReader, "part", watched)
    open_session(repo)
    for number in range(4):  # two may agree by chance
        orders.append([])
        result = save(again(repo), source, dataset=f"{number}")
        assert result.bytes_read == 2_000_001
        assert contents(back(again(repo), tmp_path / f"{number}", source, result.snapshot)) == contents(source)
    monkeypatch.setattr(FilesystemReader, "part", plain)
    assert all(sorted(order) == list(range(0, 2_000_001, 1 << 16)) for order in orders)
    assert len(set(map(tuple, orders))) > 1


def test_a_large_file_that_is_cut_short_meanwhile(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is stored of it is of the size that the snapshot says, and the file is named."""
    monkeypatch.setattr(run, "PART_SIZE", 1 << 16)
    source = tmp_path / "source"
    source.mkdir()
    data = random.Random(5).randbytes(2_000_001)
    (source / "large").write_bytes(data)
    part, cut = FilesystemReader.part, 1_500_000

    def cutting(self: FilesystemReader, offset: int, length: int) -> None:
        nonlocal cut
        os.truncate(source / "large", cut)
        cut -= 10_000
        part(self, offset, length)

    monkeypatch.setattr(FilesystemReader, "part", cutting)
    open_session(repo)
    result = snapvault.backup(again(repo), source, dataset="d")
    assert result.status == "partial" and "changed while it was read" in result.issues[0].message
    restored = back(again(repo), tmp_path / "out", source, result.snapshot)
    assert (
        0 < len(contents(restored)["large"]) < 1_500_000 and snapvault.check(again(repo), read_data=True).status == "ok"
    )


def test_four_processes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same source, begun at the same moment: far less is stored than four times all of it."""
    small_packs(monkeypatch, segment=1 << 16, pack=1 << 19)
    source, go = tmp_path / "source", tmp_path / "go"
    for i in range(200):
        (source / f"{i % 20}").mkdir(parents=True, exist_ok=True)
        (source / f"{i % 20}" / f"{i}").write_bytes(random.Random(i).randbytes(80_000))
    alone = make(tmp_path / "alone")
    one = save(alone, source).bytes_stored
    repo = make(tmp_path / "repo")
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(python, WRITER, repo.url, source, go, f"w{number}") for number in range(4)]
        while len(list(tmp_path.glob("gow*"))) < 4:
            time.sleep(0.01)
        go.touch()
        made = [task.result().strip() for task in running]
    stored = sum(size for name, size in objects(repo).items() if name.startswith(names.PACKS))
    assert stored < 3.5 * one
    for snapshot in made:
        assert contents(back(again(repo), tmp_path / snapshot, source, snapshot)) == contents(source)
