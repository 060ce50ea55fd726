"""The read cache: folders of a remote repository are fetched once, and nothing in it is believed unseen."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import snapvault
from snapvault.backend.factory import open_backend
from snapvault.backend.local import LocalBackend
from snapvault.backend.wrapper import is_remote
from snapvault.format.tree import BlobType
from snapvault.foundation.ids import PackId
from snapvault.repository import segments
from snapvault.repository.cache import Cache
from snapvault.repository.segments import SEGMENTS, SegmentCache
from tests.repos import again, back, contents, damage, make, save, traced

PACK = PackId(bytes(range(32)))
KEY = b"k" * 32


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> snapvault.Repository:
    """A folder that passes for a remote place, with a snapshot in it."""
    monkeypatch.setattr(LocalBackend, "remote", True, raising=False)
    for name in ("a", "b"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "f").write_bytes(os.urandom(20_000))
    made = make(tmp_path / "repo", cache=tmp_path / "cache")
    save(made, tmp_path / "source")
    return made


def entries(cache: Path) -> list[Path]:
    return [p for p in cache.rglob(f"{SEGMENTS}*/*/*") if p.is_file()]


def pack_reads(repo: snapvault.Repository, tmp_path: Path, act: Callable[[snapvault.Repository], object]) -> int:
    """Reads of packs by something that is done in a fresh process, as far as memory goes."""
    with again(repo, cache=tmp_path / "cache") as fresh:
        trace = traced(fresh)
        act(fresh)
        return sum(call.method == "get" and call.name.startswith("packs/") for call in trace.log)


def walk(repo: snapvault.Repository) -> list[str]:
    return [e.path for e in repo.snapshot("latest").ls("/", recursive=True)]


def test_folders_are_fetched_once(repo: snapvault.Repository, tmp_path: Path) -> None:
    assert pack_reads(repo, tmp_path, walk) > 0
    assert entries(tmp_path / "cache")
    assert pack_reads(repo, tmp_path, walk) == 0
    assert pack_reads(repo, tmp_path, lambda r: save(r, tmp_path / "source")) == 0  # it looks through its parent


def test_data_of_files_is_not_kept(repo: snapvault.Repository, tmp_path: Path) -> None:
    pack_reads(repo, tmp_path, walk)
    pack_reads(repo, tmp_path, lambda r: back(r, tmp_path / "out", tmp_path / "source"))
    (table,) = repo.vault.loader.load().tables
    places = [table.place(n) for n in range(len(table))]
    kept = {int(p.name.split("-")[1]) for p in entries(tmp_path / "cache")}
    assert {p.type for p in places if p.start in kept} == {BlobType.TREE}
    assert {p.type for p in places} == {BlobType.TREE, BlobType.DATA}


@pytest.mark.parametrize("act", [lambda r: snapvault.check(r), lambda r: snapvault.check(r, read_data=True)])
def test_a_check_sees_the_store(repo: snapvault.Repository, tmp_path: Path, act: Callable[..., object]) -> None:
    pack_reads(repo, tmp_path, walk)
    assert pack_reads(repo, tmp_path, act) > 0


def test_a_near_store_is_not_cached(tmp_path: Path) -> None:
    made = make(tmp_path / "repo", cache=tmp_path / "cache")
    save(made, __file__)
    walk(made)
    assert not entries(tmp_path / "cache")
    options = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": "http://127.0.0.1:1"}}
    assert is_remote(open_backend("s3://bucket/x", options)) and not is_remote(open_backend("memory://x"))


def swap(found: list[Path]) -> None:
    """Each has another's bytes."""
    bodies = [p.read_bytes() for p in found]
    for path, body in zip(found, [*bodies[1:], bodies[0]], strict=True):
        path.write_bytes(body)


SPOILT: dict[str, Callable[[list[Path]], object]] = {
    "flipped": lambda found: [_flip(p) for p in found],
    "cut": lambda found: [p.write_bytes(p.read_bytes()[:-1]) for p in found],
    "empty": lambda found: [p.write_bytes(b"") for p in found],
    "swapped": swap,
    "a folder": lambda found: [(p.unlink(), p.mkdir()) for p in found],
}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", SPOILT)
def test_what_was_altered_is_fetched_again(repo: snapvault.Repository, tmp_path: Path, how: str) -> None:
    expected = walk(repo)
    (tmp_path / "source" / "c").mkdir()
    save(repo, tmp_path / "source")  # so that there are two segments of folders
    walk(again(repo, cache=tmp_path / "cache"))
    found = entries(tmp_path / "cache")
    assert len(found) > 1
    SPOILT[how](found)
    assert pack_reads(repo, tmp_path, walk) > 0
    assert set(expected) < set(walk(again(repo, cache=tmp_path / "cache")))
    if how != "a folder":
        assert pack_reads(repo, tmp_path, walk) == 0  # and is whole again


def test_another_key_finds_nothing_in_it(repo: snapvault.Repository, tmp_path: Path) -> None:
    walk(repo)
    snapvault.add_key(repo, "reader", "r", file=tmp_path / "r.json")
    mine = entries(tmp_path / "cache")
    with snapvault.open(repo.url, keys=(tmp_path / "r.json").read_bytes, cache=tmp_path / "cache") as other:
        own = other.vault.ring.signing.id.hex()[:16]
        for path in mine:  # somebody puts them where the other looks
            there = path.parents[2] / own / path.parent.name / path.name
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())
        trace = traced(other)
        walk(other)
    assert [c for c in trace.log if c.method == "get" and c.name.startswith("packs/")]
    assert all(path.exists() for path in mine)


def test_damage_in_the_store_is_not_made_good_by_what_is_wrong(repo: snapvault.Repository, tmp_path: Path) -> None:
    """Nor kept: a segment that opens and is not the one that was asked for is forgotten."""
    name = damage(repo, f"{tmp_path}/source/a/f")
    report = snapvault.check(again(repo, cache=tmp_path / "cache"), read_data=True)
    assert any(name in f.objects for f in report.problems)


def test_a_wrong_segment_is_forgotten(
    repo: snapvault.Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that opens, and holds other blobs than the index says: the next look reads the store."""
    with again(repo, cache=tmp_path / "cache") as fresh:
        reader = fresh.vault.reader(cached=True)
        real, lies = reader.open_segment, [True]

        def lying(*args: object, **options: object) -> memoryview:
            opened = real(*args, **options)  # type: ignore[arg-type]
            return memoryview(bytes(len(opened))) if lies and lies.pop() else opened

        monkeypatch.setattr(reader, "open_segment", lying)
        monkeypatch.setattr(fresh.vault, "reader", lambda *args, **options: reader)
        assert walk(fresh)
    assert contents(back(again(repo, cache=tmp_path / "cache"), tmp_path / "out", tmp_path / "source"))


def test_it_is_capped_and_keeps_what_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MAX_BYTES", 5000)
    monkeypatch.setattr(segments, "STEP", 1000)
    cache = SegmentCache(Cache(tmp_path), "", KEY)
    cache.put(PACK, 0, memoryview(bytes(100)))
    for path in tmp_path.rglob(f"{SEGMENTS}*/*"):
        os.utime(path, (1, 1))  # long ago
    for start in range(1, 200):
        cache.put(PACK, start, memoryview(bytes(100)))
        if start % 5 == 0:
            assert cache.get(PACK, 0, 100) is not None, "it was used all the time"
        assert sum(p.stat().st_size for p in tmp_path.rglob(f"{SEGMENTS}*/*")) <= 5000
    assert cache.get(PACK, 1, 100) is None and cache.get(PACK, 199, 100) is not None
