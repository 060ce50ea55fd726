"""The cached tables of the index: what one run read, no later one reads again, and there are few of them."""

import os
from pathlib import Path

import pytest

import snapvault
from snapvault.format import names
from snapvault.repository.cache import TABLES
from snapvault.repository.loader import MAX_TABLES
from tests.repos import SEED, again, back, contents, make, save, traced


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.mark.parametrize("large", [-1, 0, MAX_TABLES], ids=["all small", "one large", "large when there are many"])
def test_what_others_store_is_read_once(tmp_path: Path, source: Path, large: int) -> None:
    repo = make(tmp_path / "repo")
    sizes = set()
    for number in range(3 * MAX_TABLES):
        for i in range(300 if number == large else 3):
            (source / f"{number}-{i}").write_bytes(os.urandom(100))
        save(repo, source)
        other = again(repo, cache=tmp_path / "cache")
        other.vault.index()
        (folder,) = other.vault.cache.names(TABLES)
        cached = other.vault.cache.names(folder + "/")
        assert len(cached) <= MAX_TABLES
        sizes.add(len(cached))
        later = again(repo, cache=tmp_path / "cache")
        calls = traced(later)
        assert {n for t in later.vault.index().tables for n in t.names} == {
            o.name for o in later.vault.backend.list(names.INDEX)
        }
        assert not [c for c in calls.log if c.name.startswith(names.INDEX) and c.method == "get"]
    assert max(sizes) > 2, "nothing was merged"
    assert contents(back(later, tmp_path / "out", source)) == contents(source)


def test_two_holders_who_share_a_cache(tmp_path: Path, source: Path) -> None:
    """Neither takes the other's tables for altered."""
    repo = make(tmp_path / "repo")
    snapvault.add_key(repo, "reader", "other", file=tmp_path / "key")
    (source / "f").write_bytes(os.urandom(100))
    save(repo, source)
    for number in range(3):
        for keys in (lambda: SEED, snapvault.KeyFile(tmp_path / "key")):
            one = snapvault.open(repo.url, cache=tmp_path / "cache", keys=keys)
            calls = traced(one)
            one.vault.index()
            read = [c for c in calls.log if c.name.startswith(names.INDEX) and c.method == "get"]
            assert bool(read) == (number == 0)
