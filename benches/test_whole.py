"""Whole operations on a small tree, through the library: 2000 files of text, and one large file."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import snapvault

SEED = bytes(range(32))
FILES = 2000
ROUNDS = 3


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, text: bytes, noise: bytes) -> Path:
    root, draw = tmp_path_factory.mktemp("tree"), random.Random("tree")
    for number in range(FILES):
        path = root / f"{number // 50}" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        at = draw.randrange(len(text) - 40_000)
        path.write_bytes(text[at : at + draw.randrange(40_000)])
    (root / "large").write_bytes(noise)
    return root


@pytest.fixture(scope="module")
def size(tree: Path) -> float:
    """MB in the tree."""
    return sum(p.stat().st_size for p in tree.rglob("*") if p.is_file()) / 1e6


def make(place: Path) -> snapvault.Repository:
    shutil.rmtree(place, ignore_errors=True)
    return snapvault.init(str(place / "repo"), keys=lambda: SEED, cache=place / "cache").repository


def save(repo: snapvault.Repository, tree: Path, **options: Any) -> snapvault.BackupResult:
    result = snapvault.backup(repo, tree, dataset="bench", **options)
    assert result.status == "ok"
    return result


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Iterator[snapvault.Repository]:
    """A repository that has the tree."""
    with make(tmp_path_factory.mktemp("stored") / "place") as repo:
        save(repo, tree)
        yield repo


def test_first(meter: Any, tree: Path, size: float, tmp_path: Path) -> None:
    def fresh() -> tuple[tuple[snapvault.Repository, Path], dict[str, Any]]:
        return (make(tmp_path / "place"), tree), {}

    meter.rate(save, size, "MB", setup=fresh, rounds=ROUNDS)


def test_unchanged(meter: Any, stored: snapvault.Repository, tree: Path) -> None:
    meter.rate(lambda: save(stored, tree), FILES, "files", rounds=ROUNDS)


def test_read_again(meter: Any, stored: snapvault.Repository, tree: Path, size: float) -> None:
    """Everything is read, chunked and hashed, and nothing of it is new."""
    meter.rate(lambda: save(stored, tree, force_read=True), size, "MB", rounds=ROUNDS)


def test_restore(meter: Any, stored: snapvault.Repository, size: float, tmp_path: Path) -> None:
    places = (tmp_path / f"{number}" for number in range(1000))

    def restore() -> None:
        assert snapvault.restore(stored, "bench@latest", next(places)).status == "ok"

    meter.rate(restore, size, "MB", rounds=ROUNDS)


def test_check(meter: Any, stored: snapvault.Repository, size: float) -> None:
    def check() -> None:
        assert snapvault.check(stored, read_data=True).status == "ok"

    meter.rate(check, size, "MB", rounds=ROUNDS)


def test_open(meter: Any, stored: snapvault.Repository, tmp_path: Path) -> None:
    """Open by a key and list the snapshots: the start of every command, but for the password's hash."""

    def listed() -> None:
        with snapvault.open(stored.url, keys=lambda: SEED, cache=tmp_path) as repo:
            assert list(repo.snapshots())

    meter.rate(listed, 1, "openings")
