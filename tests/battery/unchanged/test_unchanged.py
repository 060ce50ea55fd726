"""Unchanged data: not read again, stored once, and never deduplicated onto what is not there.

What counts as unchanged is size, both times and inode; what counts as stored is a pack in its full size, by the index
that was loaded after the session began.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import strace
from battery import lab
from battery.lab import Objects, Tree

import snapvault
from snapvault.backend.memory import MemoryBackend
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.tree import BlobType, Node, NodeKind
from snapvault.foundation.clock import now_ns
from snapvault.operations import saver
from snapvault.operations.repository import Repository
from snapvault.repository import packs, writer
from snapvault.source.protocol import NOTHING_KNOWN, Known, Listing

OLD = 10**18  # a time long ago, nanoseconds
TREE: Tree = {f"file {i}": random.Random(i).randbytes(i * 700) for i in range(1, 9)}


class Reading:
    """A file that is being read."""

    def __init__(self, node: Node, data: bytes) -> None:
        self.node, self._data = node, data

    def read(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data

    def finish(self) -> bool:
        return True


class Counting:
    """A folder whose files have the times that the test wants; ``opened`` counts what is read."""

    def __init__(self, tree: Tree, time: int = OLD) -> None:
        self.roots, self.label = (b"/lab",), "counting"
        self.users: dict[int, str] = {}
        self.groups: dict[int, str] = {}
        self.tree = {os.fsencode(k): v or b"" for k, v in tree.items()}
        self.nodes = {
            name: Node(name, NodeKind.FILE, 0o644, 0, 0, time, time, i + 1, len(data))
            for i, (name, data) in enumerate(sorted(self.tree.items()))
        }
        self.opened: list[bytes] = []

    def root_node(self, path: bytes) -> Node:
        return Node(path.rpartition(b"/")[2], NodeKind.DIRECTORY, 0o755, 0, 0, OLD)

    def scan(self, path: bytes, known: Known = NOTHING_KNOWN) -> Listing:
        return Listing([replace(n) for _, n in sorted(self.nodes.items())], [])

    def open(self, path: bytes, node: Node) -> Reading:
        name = path.rpartition(b"/")[2]
        self.opened.append(name)
        return Reading(replace(node), self.tree[name])


@pytest.fixture
def store() -> Iterator[MemoryBackend]:
    with lab.small_parts():
        backend = lab.memory()
        snapvault.init(backend.url, keys=lambda: lab.SEED, chunking=lab.CHUNKING).repository.close()
        yield backend


def opened(store: MemoryBackend, keys: bytes = lab.SEED, cache: Path | None = None) -> Repository:
    return snapvault.open(store.url, keys=lambda: keys, cache=cache)


def save(repo: Repository, source: Counting, *, dataset: str = "d", **options: Any) -> snapvault.BackupResult:
    """Back the folder up; what was read is in ``source.opened``."""
    source.opened.clear()
    with repo.writer(dataset, host="here", paths=(b"/lab",), **options) as writer:
        writer.add_trees([source])
    assert writer.result is not None and writer.result.status == "ok"
    return writer.result


# -- what is not read -------------------------------------------------------------------------------------------------


def test_nothing_unchanged_is_opened(tmp_path: Path) -> None:
    """The kernel's own word for it: no file of the source is opened, unless it is asked for or something changed."""
    source = tmp_path / "source"
    for name, data in TREE.items():
        (source / "folder").mkdir(parents=True, exist_ok=True)
        (source / "folder" / name).write_bytes(data or b"")
    code = """
import sys, snapvault
from snapvault.operations import saver
saver.RACY_NS = -10**9
place, source, what = sys.argv[1:]
key = dict(keys=lambda: bytes(32))
repo = snapvault.init(place, **key).repository if what == "first" else snapvault.open(place, **key)
r = snapvault.backup(repo, source, dataset="d", force_read=what == "forced")
print(r.files_new, r.files_changed, r.files_unmodified)
"""

    def files_opened(what: str) -> tuple[int, str]:
        run = strace.run(
            code, str(tmp_path / "repo"), str(source), what, trace="openat,open,openat2", log=tmp_path / "log"
        )
        assert run.returncode == 0
        return sum(f"<{source}/folder/file" in c.text.rpartition("=")[2] for c in run.calls), run.output.strip()

    assert files_opened("first") == (8, "8 0 0")
    assert files_opened("again") == (0, "0 0 8")
    assert files_opened("forced") == (8, "0 0 8")
    changed = source / "folder/file 3"
    changed.write_bytes(bytes(changed.stat().st_size))
    assert files_opened("again") == (1, "0 1 7")


CHANGES: dict[str, Callable[[Node], Node]] = {
    "size": lambda n: replace(n, size=n.size - 1),
    "mtime": lambda n: replace(n, mtime_ns=n.mtime_ns + 1),
    "mtime back": lambda n: replace(n, mtime_ns=n.mtime_ns - 1),
    "ctime": lambda n: replace(n, ctime_ns=n.ctime_ns + 1),
    "inode": lambda n: replace(n, inode=n.inode + 1000),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_of_four_things_makes_a_file_read(what: str, store: MemoryBackend) -> None:
    source = Counting(TREE)
    with opened(store) as repo:
        save(repo, source)
        assert len(source.opened) == len(TREE)
        assert save(repo, source).files_unmodified == len(TREE) and source.opened == []
        source.nodes[b"file 4"] = CHANGES[what](source.nodes[b"file 4"])
        source.tree[b"file 4"] = source.tree[b"file 4"][: source.nodes[b"file 4"].size]
        save(repo, source)
        assert source.opened == [b"file 4"]


def test_metadata_alone_is_taken_without_reading(store: MemoryBackend) -> None:
    """Another owner, say: with the times it shows, and the new owner is stored."""
    source = Counting(TREE)
    with opened(store) as repo:
        save(repo, source)
        source.nodes[b"file 4"].uid = 7
        result = save(repo, source)
        assert source.opened == []
        assert repo.snapshot(result.snapshot).entry("/lab/file 4").node.uid == 7


def test_only_what_is_another_counts_as_changed(store: MemoryBackend) -> None:
    """All files are read: those whose owner is another, or whose content is, are changed; no others."""
    source = Counting(TREE)
    with opened(store) as repo:
        save(repo, source)
        source.nodes[b"file 4"].uid, source.nodes[b"file 5"].gid = 7, 7
        source.tree[b"file 6"] = bytes(len(source.tree[b"file 6"]))
        source.nodes[b"file 3"].inode += 1000
        for changed in (3, 0):
            result = save(repo, source, force_read=True)
            assert len(source.opened) == len(TREE)
            assert (result.files_changed, result.files_unmodified) == (changed, len(TREE) - changed)


# -- the same tick ----------------------------------------------------------------------------------------------------


def test_a_change_within_the_same_tick(store: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file changes after it was read, and none of size, times and inode shows it (borg#3536).

    Its times are of just now, so it is not believed; once a reading finds its times long past, it is.
    """
    source = Counting(TREE, time=now_ns())
    with opened(store) as repo:
        save(repo, source)
        source.tree[b"file 5"] = bytes(len(source.tree[b"file 5"]))
        result = save(repo, source)
        assert len(source.opened) == len(TREE)
        with repo.snapshot(result.snapshot).open("/lab/file 5") as file:
            assert file.read() == source.tree[b"file 5"]
        later = now_ns() + 3600 * 10**9
        monkeypatch.setattr(saver, "now_ns", lambda: later)
        assert save(repo, source).bytes_new < 2_000 and len(source.opened) == len(TREE)  # still of that tick: once more
        save(repo, source)
        assert source.opened == []


def test_a_real_file_in_a_tight_loop(tmp_path: Path, store: MemoryBackend) -> None:
    """Changed in place as fast as it goes, with the times put back: every snapshot has the bytes of its moment."""
    path = tmp_path / "file"
    path.write_bytes(bytes(3000))
    with opened(store) as repo:
        for i in range(25):
            data = i.to_bytes(2, "big") * 1500
            with open(path, "r+b") as file:
                file.write(data)
            os.utime(path, ns=(OLD, OLD))
            result = snapvault.backup(repo, path, dataset="d")
            with repo.snapshot(result.snapshot).open(str(path)) as file:
                assert file.read() == data, f"round {i}"


# -- without cache, without parent ------------------------------------------------------------------------------------


def test_with_the_cache_gone_the_parents_trees_are_used(store: MemoryBackend, tmp_path: Path) -> None:
    source = Counting(TREE)
    with opened(store, cache=tmp_path / "cache") as repo:
        save(repo, source)
    shutil.rmtree(tmp_path / "cache")
    for cache in (tmp_path / "cache", None):
        with opened(store, cache=cache) as repo:
            result = save(repo, source)
            assert source.opened == [] and result.parent and result.bytes_new == 0


def test_a_write_only_key(store: MemoryBackend, tmp_path: Path) -> None:
    """With its cache it reads nothing; without, everything, and stores nothing twice; no other cache is believed."""
    with opened(store) as owner:
        snapvault.add_key(owner, Role.WRITER, "w", file=tmp_path / "w")
        snapvault.add_key(owner, Role.WRITER, "v", file=tmp_path / "v")
    key, source = (tmp_path / "w").read_bytes(), Counting(TREE)
    with opened(store, key, tmp_path / "cache") as repo:
        assert save(repo, source).bytes_new > 20_000
    with opened(store, key, tmp_path / "cache") as repo:
        assert save(repo, source).bytes_new == 0 and source.opened == []
    with opened(store, key) as repo:
        result = save(repo, source)
        assert len(source.opened) == len(TREE) and result.bytes_new == 0 and result.bytes_stored == 0
    kept = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and "parents" in p.parts]
    assert kept
    with opened(store, (tmp_path / "v").read_bytes(), tmp_path / "cache") as repo:
        assert save(repo, source).bytes_new > 20_000  # another domain: nothing of it is known there
    for path in kept:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with opened(store, key, tmp_path / "cache") as repo:
        assert save(repo, source).bytes_new == 0 and len(source.opened) == len(TREE)


# -- what is not there any more ---------------------------------------------------------------------------------------


def packs_with(repo: Repository, blob_type: int) -> set[str]:
    index = repo.vault.index()
    return {names.pack(p.pack.id) for t in index.tables for b in t.ids() for p in t.places(b) if p.type == blob_type}


def lose_data(store: MemoryBackend, repo: Repository) -> list[str]:
    return sorted(packs_with(repo, BlobType.DATA))[:1]


def lose_trees(store: MemoryBackend, repo: Repository) -> list[str]:
    return sorted(packs_with(repo, BlobType.TREE))[:1]


def lose_all_packs(store: MemoryBackend, repo: Repository) -> list[str]:
    return [n for n in store.objects if n.startswith(names.PACKS)]


def lose_index(store: MemoryBackend, repo: Repository) -> list[str]:
    return [n for n in store.objects if n.startswith(names.INDEX)]


LOSSES = {"data": lose_data, "trees": lose_trees, "all packs": lose_all_packs, "index": lose_index}
MODES = ("parent", "cache", "no parent", "forced", "writer", "writer with cache")


def start(
    store: MemoryBackend, mode: str, home: Path
) -> tuple[Callable[[], Repository], dict[str, Any], dict[str, Any]]:
    """How to open it, and the options of the first and of the next backup."""
    cache = home / "cache" if "cache" in mode else None
    key = lab.SEED
    if mode.startswith("writer"):
        with opened(store) as owner:
            snapvault.add_key(owner, Role.WRITER, "w", file=home / "w")
        key = (home / "w").read_bytes()
    second: dict[str, Any] = {"force_read": True} if mode == "forced" else {}
    if mode == "no parent":
        second = {"dataset": "another"}
    return (lambda: opened(store, key, cache)), second


@pytest.mark.parametrize("how", ["gone", "cut short", "rotten"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_lost_is_stored_again(loss: str, mode: str, how: str, store: MemoryBackend, tmp_path: Path) -> None:
    """The source is the same; the store lost something of it.  The next backup is whole, and heals the one before.

    What is rotten in its full size is known by the check that found it.
    """
    open_it, second_options = start(store, mode, tmp_path)
    source = Counting(TREE)
    with open_it() as repo:
        first = save(repo, source)
    with opened(store) as owner:
        lost = LOSSES[loss](store, owner)
    assert lost
    damage(store.objects, lost, how)
    with opened(store) as owner:
        report = snapvault.check(owner, read_data=how == "rotten")
        assert loss == "index" or report.lost, "nothing was lost: the test proves nothing"
    with open_it() as repo:
        second = save(repo, source, **second_options)
    assert second.bytes_new > 0
    assert loss not in ("data", "trees") or second.bytes_new < first.bytes_new, "more was stored than was lost"
    with opened(store) as owner:
        for result in (first, second):
            assert not lab.restore_one(owner, result.snapshot, TREE, tmp_path)
        assert not snapvault.check(owner, read_data=True).lost
    with open_it() as repo:  # and a third one stores nothing more
        assert save(repo, source, **second_options).bytes_new == 0


def damage(objects: Objects, lost: list[str], how: str) -> None:
    """``how`` also damages: of a pack, little more than the session header is left."""
    for name in lost:
        data = objects.pop(name)
        if how != "gone":
            objects[name] = data[:3100] + (bytes(len(data) - 3100) if how == "rotten" else b"")


def test_rot_is_named_until_it_is_mended(store: MemoryBackend, tmp_path: Path) -> None:
    """Every check reads again what one found damaged; once it is whole again, it counts as before."""
    source = Counting(TREE)
    with opened(store) as repo:
        save(repo, source)
        lost = sorted(packs_with(repo, BlobType.DATA) - packs_with(repo, BlobType.TREE))[:1]  # no structure in it
        whole = {n: store.objects[n] for n in lost}
        damage(store.objects, lost, "rotten")
        assert not snapvault.check(repo).lost  # nobody has read it yet
        named = {p.path for p in snapvault.check(repo, read_data=True).lost}
        assert named
        for _ in range(2):
            report = snapvault.check(repo)
            assert {p.path for p in report.lost} == named and report.verified_share < 1
        assert len([n for n in store.objects if n.startswith(names.DAMAGED)]) == 1
        store.objects.update(whole)
        report = snapvault.check(repo)
        assert report.status == "ok" and report.packs_read == 1
        assert not [n for n in store.objects if n.startswith(names.DAMAGED)]
        assert save(repo, source, force_read=True).bytes_new == 0


def test_what_was_sealed_wrong_is_stored_again(store: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit that flipped in memory, between the id of a chunk and its encryption: the pack has the hash of its name."""
    encode = packs.encode_segment

    def flipping(raw: memoryview, *rest: Any) -> packs.EncodedSegment:
        wrong = bytearray(raw)
        at = wrong.find(TREE["file 8"][:64])
        if at >= 0:
            wrong[at] ^= 1
        return encode(wrong, *rest)

    with opened(store) as repo:
        with monkeypatch.context() as patch:
            patch.setattr(writer, "encode_segment", flipping)
            save(repo, Counting(TREE))
        assert {p.path for p in snapvault.check(repo, read_data=True).lost} == {"/lab/file 8"}
    with opened(store) as repo:
        assert save(repo, Counting(TREE)).bytes_new > 0
        assert not snapvault.check(repo, read_data=True).lost


def test_what_is_lost_while_a_backup_runs_is_of_the_next(store: MemoryBackend, tmp_path: Path) -> None:
    """A handle that was open all the time looks again with each backup."""
    source = Counting(TREE)
    with opened(store) as repo:
        save(repo, source)
        damage(store.objects, lose_all_packs(store, repo), "gone")
        second = save(repo, source)
        assert second.bytes_new > 20_000 and any("missing" in w for w in second.warnings)
    with opened(store) as repo:
        assert not lab.restore_one(repo, second.snapshot, TREE, tmp_path)


def test_a_damaged_tree_of_the_parent_costs_only_reading(store: MemoryBackend, tmp_path: Path) -> None:
    """Damage that no listing shows: the parent's tree cannot be read, so its files are; nothing is lost silently."""
    source = Counting(TREE)
    with opened(store) as repo:
        save(repo, source)
        (name,) = packs_with(repo, BlobType.TREE)
    data = bytearray(store.objects[name])
    for at in range(len(data) // 2, len(data)):
        data[at] ^= 1
    store.objects[name] = bytes(data)
    with opened(store) as repo:
        result = save(repo, source)
        assert len(source.opened) == len(TREE)
        lost = {(p.snapshot, p.path) for p in snapvault.check(repo, read_data=True).lost}
        restored = lab.restore_one(repo, result.snapshot, TREE, tmp_path)
        assert restored == {(s, p) for s, p in lost if s == result.snapshot}
