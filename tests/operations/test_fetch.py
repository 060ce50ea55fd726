"""A restore in many batches reads every segment once, and says what is lost of one that two batches share."""

from collections import Counter
from pathlib import Path

import pytest

import snapvault
from snapvault import Repository
from snapvault.chunking import Chunking
from snapvault.format import names
from snapvault.operations import restore as restore_module
from tests.repos import again, back, contents, damage, make, save, traced


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Small files, some that are the same, and one in many chunks."""
    for number in range(150):
        folder = tmp_path / "source" / str(number // 40)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03}").write_bytes(f"{number % 140} ".encode() * 60)
    (tmp_path / "source/2/large").write_bytes(bytes(i * i % 251 for i in range(20_000)))
    return tmp_path / "source"


@pytest.fixture
def repo(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """One pack with few segments, of each of which several batches want a part."""
    monkeypatch.setattr(restore_module, "BATCH_PIECES", 16)
    repo = make(tmp_path / "repo", chunking=Chunking(256, 512, 1024))
    save(repo, source)
    return again(repo)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_every_segment_is_read_once(repo: Repository, source: Path, tmp_path: Path, threads: int) -> None:
    calls = traced(repo)
    control = snapvault.Control(limits=snapvault.Limits(threads=threads))
    assert contents(back(repo, tmp_path / "out", source, control=control)) == contents(source)
    read = Counter(c.name for c in calls.log if c.method == "get" and c.name.startswith(names.PACKS))
    trees = 1  # what the folders are in is read by itself
    assert sum(read.values()) <= 2 + trees, read


def test_a_damaged_segment_is_named_for_every_batch(repo: Repository, source: Path, tmp_path: Path) -> None:
    damage(repo, f"{source}/2/large")
    result = snapvault.restore(repo, "latest", tmp_path / "out")
    lost = {i.path for i in result.lost}
    assert result.status == "damaged" and len(lost) == 151
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
