"""What data comes in: from empty to huge, unreadable, changing, vanishing, odd; the right thing is stored, and said."""

import io
import json
import os
import random
import shutil
import stat
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from repos import SEED, SMALL, again, back, contents, make, objects, python, save, traced
from trees import referee

import snapvault
from snapvault import Chunking, Command, Control, InvalidInput, Repository, SourceError
from snapvault.format import names
from snapvault.format.tree import INLINE_IDS, PIECE_MAX, BlobType, Node
from snapvault.foundation import clock
from snapvault.operations import run, saver, writer
from snapvault.source import filesystem
from snapvault.source.filesystem import FilesystemReader, FilesystemSource


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return make(tmp_path / "repo")


@pytest.fixture
def src(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    return tmp_path / "src"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written count as old."""
    monkeypatch.setattr(saver, "RACY_NS", -(10**12))


def _random(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_an_empty_tree(repo: Repository, src: Path, tmp_path: Path) -> None:
    result = save(repo, src)
    assert (result.files_new, result.bytes_total) == (0, 0)
    assert os.listdir(back(repo, tmp_path / "out", src)) == []


def test_empty_files(repo: Repository, src: Path, tmp_path: Path) -> None:
    for name in "ab":
        (src / name).touch()
    assert save(repo, src).files_new == 2
    assert contents(back(repo, tmp_path / "out", src, verify=True)) == {"a": b"", "b": b""}


def test_zeros(repo: Repository, src: Path, tmp_path: Path) -> None:
    """All of a file, its beginning, its end; written, so that they are no holes."""
    sizes = (1, 100, 16 << 10, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 3 << 20)
    for size in sizes:
        (src / f"all {size}").write_bytes(bytes(size))
        (src / f"first {size}").write_bytes(bytes(size) + b"end")
        (src / f"last {size}").write_bytes(b"start" + bytes(size))
    result = save(repo, src)
    assert result.bytes_new < result.bytes_total / 5
    assert contents(back(repo, tmp_path / "out", src, verify=True)) == contents(src)


@pytest.mark.parametrize("chunking", [Chunking(), SMALL, Chunking(1 << 20, 1 << 21, 8 << 20)], ids=["M", "S", "L"])
def test_edges_of_chunks_and_reads(chunking: Chunking, src: Path, tmp_path: Path) -> None:
    """Lengths around everything that is a limit somewhere, each once of random bytes and once of a constant."""
    repo = make(tmp_path / "repo", chunking=chunking)
    limits = {chunking.minimum, chunking.average, chunking.maximum, run.READ_SIZE, 2 * run.READ_SIZE}
    limits |= {64} | ({chunking.maximum * INLINE_IDS} if chunking is SMALL else set())
    for limit in limits:
        for size in (limit - 1, limit, limit + 1):
            (src / f"random {size}").write_bytes(_random(size, size))
            if limit < 1 << 21:
                (src / f"constant {size}").write_bytes(b"\x55" * size)
    save(repo, src)
    assert contents(back(repo, tmp_path / "out", src)) == contents(src)
    snapshot = repo.snapshot("latest")
    for entry in snapshot.ls(str(src)):
        assert snapshot.open(entry.path).read() == (src / entry.name).read_bytes()


def _many(folder: Path, count: int) -> None:
    for i in range(count):
        if i % 100 == 0:
            (folder / f"{i}").mkdir()
        (folder / f"{i - i % 100}/{i}").write_bytes(b"%d" % (i * i % 997) * (i % 50))


def _many_round(repo: Repository, src: Path, tmp_path: Path, count: int) -> None:
    _many(src, count)
    first = save(repo, src)
    assert first.files_new == count and first.folders >= count // 100
    root = back(repo, tmp_path / "out", src)
    assert contents(root) == contents(src)
    (src / "0/0").write_bytes(b"changed")
    second = save(repo, src)
    assert (second.files_changed, second.files_unmodified) == (1, count - 1)
    changes = snapvault.diff(repo, first.snapshot, second.snapshot, path=str(src))
    assert [(c.path, c.kind) for c in changes] == [(f"{src}/0/0", "modified")]


def test_many_tiny_files(repo: Repository, src: Path, tmp_path: Path, settled: None) -> None:
    _many_round(repo, src, tmp_path, 10_000)


@pytest.mark.long
def test_very_many_tiny_files(repo: Repository, src: Path, tmp_path: Path, settled: None) -> None:
    _many_round(repo, src, tmp_path, 100_000)


def test_a_huge_folder_is_stored_in_pieces(repo: Repository, src: Path, tmp_path: Path, settled: None) -> None:
    """And one more entry moves only the piece that it is in."""
    count = 20_001
    for i in range(count):
        (src / f"{i * 7919 % count:05d}-with-a-longer-name").touch()
    save(repo, src)
    root = repo.snapshot("latest").entry(str(src)).node.content
    assert root.depth == 0 and len(root.ids) // 32 > count // PIECE_MAX
    assert len(list(repo.snapshot("latest").ls(str(src)))) == count
    (src / "11111-with-a-longer-name!").touch()
    second = save(repo, src)
    whole = sum(len(n) + 80 for n in os.listdir(src))
    assert (second.files_new, second.files_unmodified) == (1, count)
    assert second.bytes_new < whole / 2, "more than the piece with the new entry was stored"
    assert sorted(os.listdir(back(repo, tmp_path / "out", src))) == sorted(os.listdir(src))


def test_a_huge_file_has_lists_of_chunks(
    src: Path, tmp_path: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two levels of lists; unchanged it is not read; with a byte inserted most of it and of its lists stays."""
    monkeypatch.setattr(run, "INLINE_IDS", 16)
    repo = make(tmp_path / "repo", chunking=SMALL)
    data = _random(4_000_000)
    (src / "huge").write_bytes(data)
    save(repo, src)
    node = repo.snapshot("latest").entry(f"{src}/huge").node
    assert node.content.depth >= 2
    second = save(repo, src)
    assert (second.files_unmodified, second.bytes_read, second.bytes_new) == (1, 0, 0)
    changed = data[:2_000_000] + b"!" + data[2_000_000:]
    (src / "huge").write_bytes(changed)
    third = save(repo, src)
    assert third.files_changed == 1 and third.bytes_new < 200_000
    assert contents(back(repo, tmp_path / "out", src)) == contents(src)
    with repo.snapshot("latest").open(f"{src}/huge") as f:
        for at in (0, 1_999_990, 3_999_990):
            f.seek(at)
            assert f.read(100) == changed[at : at + 100]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("kind", [BlobType.DATA, BlobType.LIST])
def test_lost_chunks_and_lists_are_stored_again(
    kind: int, depth: int, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pack is gone: the file is not taken over from the parent, whose trees are whole, and comes back whole."""
    monkeypatch.setattr(run, "INLINE_IDS", 16)
    for name, size in (("SEGMENT_SIZE", 4096), ("PACK_SIZE", 1)):  # every segment is a pack
        monkeypatch.setattr(f"snapvault.repository.create.{name}", size)
    repo = make(tmp_path / "repo", chunking=SMALL)
    (src / "f").write_bytes(_random({0: 1000, 1: 50_000, 2: 400_000}[depth]))
    save(repo, src)
    index = repo.vault.index()
    packs = {p.pack.id for t in index.tables for b in t.ids() for p in t.places(b) if p.type == kind}
    packs -= {p.pack.id for t in index.tables for b in t.ids() for p in t.places(b) if p.type == BlobType.TREE}
    assert bool(packs) == (kind == BlobType.DATA or depth > 0)
    if not packs:
        return
    os.unlink(f"{repo.url}/{names.pack(sorted(packs)[0])}")
    healed = snapvault.backup(again(repo), src, dataset="d")
    assert healed.parent and healed.bytes_read == (src / "f").stat().st_size and healed.bytes_new > 0
    assert any("missing or cut short" in w for w in healed.warnings)
    assert contents(back(again(repo), tmp_path / "out", src, healed.snapshot)) == contents(src)


# -- unchanged files --------------------------------------------------------------------------------------------------


class TestUnchanged:
    def test_without_any_state_of_its_own(self, repo: Repository, src: Path, settled: None) -> None:
        _many(src, 300)
        first = save(repo, src)
        second = save(again(repo), src)
        assert (second.parent, second.files_unmodified, second.bytes_read) == (first.snapshot, 300, 0)
        forced = save(repo, src, force_read=True)
        assert (forced.files_unmodified, forced.bytes_read, forced.bytes_new) == (300, forced.bytes_total, 0)
        assert (forced.files_new, forced.files_changed) == (0, 0)

    @pytest.mark.parametrize("what", ["size", "mtime", "ctime", "inode"])
    def test_every_sign_of_a_change_counts(
        self, what: str, repo: Repository, src: Path, settled: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each alone: all else is told as it was."""
        path = src / "f"
        path.write_bytes(b"12345")
        (src / "other").write_bytes(b"stays")
        save(repo, src)
        values = {"mtime": (5, 10**18), "ctime": (6, 10**18), "inode": (7, 1)}

        def told(fd: int, prefix: bytes, names: list[bytes]) -> list[Any]:
            at, value = values[what]
            return [(*e[:at], value, *e[at + 1 :]) if e[0] == b"f" else e for e in original(fd, prefix, names)]

        original: Any = filesystem.stat_entries
        assert save(repo, src).bytes_read == 0
        if what == "size":
            before = path.stat()
            path.write_bytes(b"123456")
            _freeze(monkeypatch, path, before.st_mtime_ns, before.st_ctime_ns)
        else:
            monkeypatch.setattr(filesystem, "stat_entries", told)
        result = save(repo, src)
        assert (result.files_new, result.bytes_read) == (0, path.stat().st_size)
        changed = what == "size"  # the others are reasons to look, and the open file is found to be as it was
        assert (result.files_changed, result.files_unmodified) == (changed, 2 - changed)

    @pytest.mark.parametrize("force", [False, True])
    def test_what_was_only_read_once_more_is_unmodified(
        self, force: bool, repo: Repository, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Young files: small, of several chunks, empty, with holes, linked; one by one and many at once."""
        monkeypatch.setattr(saver, "RACY_NS", 10**15)
        _many(src, 200)
        (src / "several").write_bytes(_random(3 << 20))
        (src / "two chunks").write_bytes(_random(900_000))
        with (src / "sparse").open("wb") as f:
            f.truncate(4 << 20)
            f.seek(1 << 20)
            f.write(_random(100_000))
        (src / "linked").write_bytes(b"linked")
        os.link(src / "linked", src / "again")
        os.setxattr(src / "several", "user.x", b"1")
        first = save(repo, src)
        second = save(repo, src, force_read=force)
        assert (second.files_new, second.files_changed, second.files_unmodified) == (0, 0, first.files_new)
        assert second.bytes_read == first.bytes_read > 0 and second.bytes_new == 0
        assert list(snapvault.diff(repo, first.snapshot, second.snapshot)) == []

    @pytest.mark.parametrize("what", ["content", "size", "mode", "mtime", "xattr", "more xattrs", "link", "hole"])
    def test_what_was_read_and_is_another_is_changed(
        self, what: str, repo: Repository, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each alone, among young files that are read anyway; all else of it is as it was."""
        monkeypatch.setattr(saver, "RACY_NS", 10**15)
        path = src / "f"
        for name in ("f", "other"):
            (src / name).write_bytes(bytes(1 << 20) + b"12345")
            os.setxattr(src / name, "user.x", b"1")
        save(repo, src)
        mtime = path.stat().st_mtime_ns
        if what in ("content", "size"):
            path.write_bytes(bytes(1 << 20) + {"content": b"abcde", "size": b"123456"}[what])
        elif what == "mode":
            path.chmod(0o600)
        elif "xattr" in what:
            os.setxattr(path, "user.x" if what == "xattr" else "user.y", b"2")
        elif what == "link":
            os.link(path, src.parent / "elsewhere")
        elif what == "hole":
            with path.open("r+b") as f:
                f.truncate(0)
                f.seek(1 << 20)
                f.write(b"12345")
        os.utime(path, ns=(1, mtime + (what == "mtime")))
        result = save(repo, src)
        assert (result.files_new, result.files_changed, result.files_unmodified) == (0, 1, 1)

    def test_content_that_changed_with_its_time_set_back(self, repo: Repository, src: Path, settled: None) -> None:
        for data in (b"12345", b"abcde"):
            (src / "f").write_bytes(data)
            os.utime(src / "f", ns=(1, 10**18))
            assert save(repo, src).bytes_read == 5

    @pytest.mark.parametrize("mtime", [None, 10**18], ids=["as it is", "set back"])
    def test_the_same_tick(
        self, mtime: int | None, repo: Repository, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file that changes right after it was read, with nothing that a stat shows, is read again next time."""
        path = src / "f"
        path.write_bytes(b"before")
        if mtime is not None:
            os.utime(path, ns=(1, mtime))
        save(repo, src)
        frozen = os.stat(path)
        path.write_bytes(b"AFTER!")
        _freeze(monkeypatch, path, frozen.st_mtime_ns, frozen.st_ctime_ns)
        assert save(repo, src).bytes_read == 6
        monkeypatch.undo()
        assert contents(back(repo, tmp_path / "out", src)) == {"f": b"AFTER!"}

    def test_a_file_of_the_past_is_not_read_for_ever(self, repo: Repository, src: Path) -> None:
        """Only one that is as young as the clock's tick is read once more."""
        (src / "f").write_bytes(b"x")
        time.sleep(saver.RACY_NS / 1e9)
        save(repo, src)
        assert save(repo, src).bytes_read == 0

    def test_other_datasets_hosts_and_roots_are_no_parent(self, repo: Repository, src: Path, settled: None) -> None:
        (src / "f").write_bytes(b"x")
        (src / "sub").mkdir()
        first = save(repo, src)
        assert save(repo, src, dataset="e").parent == ""
        assert save(repo, src, host="elsewhere").parent == ""
        assert save(repo, src / "sub").parent == ""
        assert save(repo, src).parent == first.snapshot
        chosen = save(repo, src, dataset="e", parent=first.snapshot[:8])
        assert (chosen.parent, chosen.files_unmodified) == (first.snapshot, 1)
        with pytest.raises(InvalidInput, match="there is no snapshot 000000000000"):
            snapvault.backup(repo, src, dataset="d", parent="000000000000")

    def test_a_writer_with_sources_finds_its_parent(self, repo: Repository, src: Path, settled: None) -> None:
        """Roots that come one by one are no reason to read everything again."""
        _many(src, 100)
        for expected in (0, 100):
            with repo.writer("w") as w:
                w.add(src, at="/data")
                with w.open("/note") as f:
                    f.write(b"n")
            assert w.result is not None and w.result.files_unmodified == expected


def _freeze(monkeypatch: pytest.MonkeyPatch, path: Path, mtime: int, ctime: int) -> None:
    """Let the kernel tell these times of a file, as within one tick of its clock."""
    inode = path.stat().st_ino

    def node(name: bytes, st: os.stat_result) -> Node:
        made = original(name, st)
        if made.inode == inode:
            made.mtime_ns, made.ctime_ns = mtime, ctime
        return made

    original = filesystem.node_from_stat
    monkeypatch.setattr(filesystem, "node_from_stat", node)
    entries: Any = filesystem.stat_entries
    monkeypatch.setattr(
        filesystem,
        "stat_entries",
        lambda *args: [(*e[:5], mtime, ctime, *e[7:]) if e[7] == inode else e for e in entries(*args)],
    )


@pytest.mark.parametrize("shift", [timedelta(days=365), timedelta(days=-365)], ids=["ahead", "behind"])
def test_a_clock_that_is_a_year_off(
    shift: timedelta, repo: Repository, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backups go on, find their parent, read what changed; a name by time means the time that a snapshot claims."""
    (src / "f").write_bytes(b"one")
    true = save(repo, src)
    for module in (run, saver, writer, clock):
        monkeypatch.setattr(module, "now_ns", lambda: time.time_ns() + int(shift.total_seconds()) * 10**9)
    (src / "f").write_bytes(b"two")
    off = save(repo, src)
    assert off.parent == true.snapshot and off.bytes_read == 3
    monkeypatch.undo()
    (src / "f").write_bytes(b"three")
    last = save(repo, src)
    assert last.bytes_read == 5
    for number, (result, data) in enumerate(((true, b"one"), (off, b"two"), (last, b"three"))):
        assert contents(back(repo, tmp_path / f"{number}", src, result.snapshot)) == {"f": data}
    order = [s.id for s in repo.snapshots()]
    ahead = shift > timedelta(0)
    assert order == [r.snapshot for r in ((true, last, off) if ahead else (off, true, last))]
    now = datetime.now(UTC) + timedelta(hours=1)
    assert repo.snapshot(f"d@{now.isoformat()}").id == last.snapshot
    if not ahead:
        assert repo.snapshot(f"d@{(now + shift).isoformat()}").id == off.snapshot


# -- trouble ----------------------------------------------------------------------------------------------------------


class _Reading:
    """Calls ``hook(path)`` in the middle of reading a file: after its first bytes were delivered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hook: Callable[[Path, int], None]) -> None:
        self.opened: dict[str, int] = {}
        open_file = FilesystemSource.open

        def opened(source: FilesystemSource, path: bytes, node: Node) -> "_Hooked":
            name = os.fsdecode(path)
            self.opened[name] = self.opened.get(name, 0) + 1
            reader = open_file(source, path, node)
            assert isinstance(reader, FilesystemReader)
            return _Hooked(reader, lambda: hook(Path(name), self.opened[name]))

        monkeypatch.setattr(FilesystemSource, "open", opened)
        monkeypatch.setattr(FilesystemSource, "read_ahead", lambda _, path, nodes: [None] * len(nodes))


class _Hooked:
    def __init__(self, reader: FilesystemReader, hook: Callable[[], None]) -> None:
        self._reader, self._hook, self._calls = reader, hook, 0

    @property
    def node(self) -> Node:
        return self._reader.node

    def read(self, size: int) -> bytes:
        self._calls += 1
        if self._calls == 2:
            self._hook()
        return self._reader.read(min(size, 4096))

    def finish(self) -> bool:
        return self._reader.finish()


class TestChangedWhileRead:
    """One retry; then it is stored and marked."""

    @pytest.fixture
    def tree(self, src: Path) -> Path:
        for name in "abc":
            (src / name).write_bytes(name.encode() * 10_000)
        return src

    def test_once_is_read_again(
        self, repo: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def hook(path: Path, time: int) -> None:
            if path.name == "b" and time == 1:
                path.write_bytes(b"B" * 12_000)

        reading = _Reading(monkeypatch, hook)
        result = save(repo, tree)
        assert reading.opened[f"{tree}/b"] == 2 and reading.opened[f"{tree}/a"] == 1
        assert result.bytes_total == 32_000
        assert contents(back(repo, tmp_path / "out", tree)) == contents(tree)
        assert not repo.snapshot("latest").entry(f"{tree}/b").node.changed

    @pytest.mark.parametrize("how", ["grows", "shrinks", "is emptied", "is written over"])
    def test_again_and_again_is_stored_and_marked(
        self, how: str, repo: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def hook(path: Path, time: int) -> None:
            if path.name == "b":
                size = {"grows": 10_000 + time, "shrinks": 10_000 - 5000 * time, "is emptied": 0}.get(how, 10_000)
                path.write_bytes(b"%d" % time * size)
                if how == "is emptied" and time == 1:
                    path.write_bytes(b"b" * 10_000)

        reading = _Reading(monkeypatch, hook)
        result = snapvault.backup(repo, tree, dataset="d")
        monkeypatch.undo()
        assert reading.opened[f"{tree}/b"] == 2
        assert (result.status, [i.path for i in result.issues]) == ("partial", [f"{tree}/b"])
        assert "changed while it was read" in result.issues[0].message
        snapshot = repo.snapshot("latest")
        assert snapshot.partial and snapshot.entry(f"{tree}/b").to_dict()["changed_while_read"]
        root = back(repo, tmp_path / "out", tree, verify=True)
        assert (root / "a").read_bytes() == (tree / "a").read_bytes()
        assert (root / "b").stat().st_size == snapshot.entry(f"{tree}/b").size
        following = save(repo, tree)
        assert following.bytes_read >= (tree / "b").stat().st_size, "a mixture must not be taken for unchanged"
        assert contents(back(repo, tmp_path / "out", tree)) == contents(tree)

    def test_a_mixture_is_never_taken_for_unchanged(
        self, repo: Repository, tree: Path, settled: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever its times say later."""
        with monkeypatch.context() as patch:
            _Reading(patch, lambda path, time: path.write_bytes(b"%d" % time * 10_000))
            assert len(snapvault.backup(repo, tree, dataset="d").issues) == 3
        stored = repo.snapshot("latest").entry(f"{tree}/b").node
        _freeze(monkeypatch, tree / "b", stored.mtime_ns, stored.ctime_ns)
        assert stored.size == 10_000
        assert save(repo, tree).bytes_read == 30_000

    def test_a_sparse_file(self, repo: Repository, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its map is of another moment than its bytes: what is stored can still be restored and read."""
        with open(src / "b", "wb") as f:
            f.truncate(1 << 20)
            for at in (0, 300_000, 900_000):
                f.seek(at)
                f.write(b"d" * 20_000)

        def hook(path: Path, time: int) -> None:
            os.truncate(path, 500_000 - time)

        _Reading(monkeypatch, hook)
        result = snapvault.backup(repo, src, dataset="d")
        monkeypatch.undo()
        assert result.status == "partial"
        root = back(repo, tmp_path / "out", src, verify=True)
        stored = repo.snapshot("latest").open(f"{src}/b").read()
        assert (root / "b").read_bytes() == stored and stored[:20_000] == b"d" * 20_000

    def test_a_real_writer_beside_it(
        self, repo: Repository, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Somebody appends and overwrites all the time: the backup ends, says so, and every other file is right."""
        for i in range(20):
            (src / f"{i:02d}").write_bytes(_random(200_000, i))
        (src / "log").write_bytes(b"0" * 400_000)
        stop, wrote = threading.Event(), threading.Event()

        def keep_writing() -> None:
            with open(src / "log", "r+b", buffering=0) as f:
                while not stop.is_set():
                    f.seek(random.randrange(400_000))
                    f.write(b"x" * 100)
                    f.seek(0, os.SEEK_END)
                    f.write(b"appended\n")
                    wrote.set()

        def hook(path: Path, time: int) -> None:  # without it, a busy machine may read all of it between two writes
            if path.name == "log":
                for _ in range(2):  # the first may tell of a write before this file was opened
                    wrote.clear()
                    assert wrote.wait(60)

        reading = _Reading(monkeypatch, hook)
        thread = threading.Thread(target=keep_writing)
        thread.start()
        try:
            result = snapvault.backup(repo, src, dataset="d")
        finally:
            stop.set()
            thread.join()
        monkeypatch.undo()
        assert reading.opened[f"{src}/log"] == 2
        assert (result.status, [i.path for i in result.issues]) == ("partial", [f"{src}/log"])
        root = back(repo, tmp_path / "out", src, verify=True)
        assert (root / "log").stat().st_size >= 400_000
        for i in range(20):
            assert (root / f"{i:02d}").read_bytes() == (src / f"{i:02d}").read_bytes()


class TestUnreadable:
    """The file is dropped and named; everything else is saved."""

    def test_one_among_ten_thousand(self, tmp_path: Path, src: Path) -> None:
        """As somebody who may not read it."""
        _many(src, 10_000)
        (src / "4200/4242").chmod(0)
        (src / "7700").chmod(0o311)
        for folder in (src.parent, *src.parent.parents[:2]):
            folder.chmod(0o755)
        (tmp_path / "mine").mkdir()
        os.chown(tmp_path / "mine", 65534, 65534)
        out = python(
            "import sys, json, snapvault\n"
            "repo = snapvault.init(sys.argv[1], keys=lambda: bytes(range(32))).repository\n"
            "print(json.dumps(snapvault.backup(repo, sys.argv[2], dataset='d').to_dict()))\n",
            tmp_path / "mine/repo", src, cwd="/",
            before=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"),
        )  # fmt: skip
        result = json.loads(out)
        assert (result["status"], result["files_new"]) == ("partial", 9_899)
        assert {i["path"]: i["message"].rpartition(": ")[2] for i in result["issues"]} == {
            f"{src}/4200/4242": "Permission denied",
            f"{src}/7700": "Permission denied",
        }
        repo = snapvault.open(str(tmp_path / "mine/repo"), keys=lambda: SEED)
        assert repo.snapshot("latest").partial
        root = back(repo, tmp_path / "out", src)
        wanted = {k: v for k, v in contents(src).items() if k != "4200/4242" and not k.startswith("7700")}
        assert contents(root) == wanted

    @pytest.mark.parametrize("after", [1, 2])
    def test_an_error_of_the_disk_gives_no_cut_file(self, after: int, tmp_path: Path, src: Path) -> None:
        """A real EIO from the kernel, at the first read of a file and in its middle."""
        for name in "abc":
            (src / name).write_bytes(_random(3_000_000, ord(name)))
        strace = (
            "strace", "-f", "-qq", "-o", "/dev/null", "-P", f"{src}/b", "-e", "trace=readv",
            "-e", f"inject=readv:error=EIO:when={after}+",
        )  # fmt: skip
        out = python(
            "import sys, json, snapvault\n"
            "repo = snapvault.init(sys.argv[1], keys=lambda: bytes(range(32))).repository\n"
            "print(json.dumps(snapvault.backup(repo, sys.argv[2], dataset='d').to_dict()))\n",
            tmp_path / "repo", src, before=strace,
        )  # fmt: skip
        result = json.loads(out)
        assert (result["status"], result["files_new"]) == ("partial", 2)
        assert result["issues"] == [
            {"path": f"{src}/b", "message": "cannot be read, and is not in the snapshot: Input/output error"}
        ]
        repo = snapvault.open(str(tmp_path / "repo"), keys=lambda: SEED)
        root = back(repo, tmp_path / "out", src)
        assert contents(root) == {k: v for k, v in contents(src).items() if k != "b"}

    def test_a_second_name_of_it_is_named_too(
        self, repo: Repository, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (src / "a").write_bytes(b"x" * 10_000)
        os.link(src / "a", src / "b")
        (src / "c").write_bytes(b"c")

        def hook(path: Path, time: int) -> None:
            if path.name in "ab":
                raise OSError(5, "Input/output error")

        _Reading(monkeypatch, hook)
        result = snapvault.backup(repo, src, dataset="d")
        assert sorted(i.path for i in result.issues) == [f"{src}/a", f"{src}/b"]
        assert contents(back(repo, tmp_path / "out", src)) == {"c": b"c"}

    def test_nothing_readable_is_no_snapshot(
        self, repo: Repository, src: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The one root there is cannot be read: an error, and no empty snapshot that looks like a backup."""
        (src / "f").write_bytes(b"x" * 10_000)

        def hook(path: Path, time: int) -> None:
            raise OSError(5, "Input/output error")

        _Reading(monkeypatch, hook)
        with pytest.raises(SourceError, match="Input/output error"):
            snapvault.backup(repo, src / "f", dataset="d")
        assert list(repo.snapshots()) == []


def test_what_vanishes_is_counted(repo: Repository, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between listing and opening: a file, a folder. It is no error."""
    for name in ("a", "b", "z"):
        (src / name).write_bytes(name.encode() * 10_000)
    (src / "y").mkdir()
    (src / "y/inside").touch()

    def hook(path: Path, time: int) -> None:
        if path.name == "a":
            (src / "b").unlink()
            shutil.rmtree(src / "y")

    _Reading(monkeypatch, hook)
    result = save(repo, src)
    assert (result.vanished, result.status, result.files_new) == (2, "ok", 2)
    assert sorted(contents(back(repo, tmp_path / "out", src))) == ["a", "z"]


def test_a_file_that_becomes_something_else(
    repo: Repository, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO or a link in its place is neither waited for nor followed."""
    for name in ("a", "b", "c"):
        (src / name).write_bytes(name.encode() * 10_000)
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")

    def hook(path: Path, time: int) -> None:
        if path.name == "a":
            for name in "bc":
                (src / name).unlink()
            os.mkfifo(src / "b")
            (src / "c").symlink_to(secret)

    _Reading(monkeypatch, hook)
    result = snapvault.backup(repo, src, dataset="d")
    assert sorted(Path(i.path).name for i in result.issues) == ["b", "c"]
    assert sorted(contents(back(repo, tmp_path / "out", src))) == ["a"]


# -- roots ------------------------------------------------------------------------------------------------------------


class TestRoots:
    @pytest.fixture
    def two(self, tmp_path: Path) -> tuple[Path, Path]:
        for name in ("one", "two"):
            (tmp_path / "tops" / name).mkdir(parents=True)
            (tmp_path / "tops" / name / "f").write_bytes(name.encode())
        os.chmod(tmp_path / "tops", 0o2751)
        return tmp_path / "tops/one", tmp_path / "tops/two"

    def test_a_single_file(self, repo: Repository, src: Path, tmp_path: Path, settled: None) -> None:
        (src / "f").write_bytes(b"x" * 100_000)
        os.chmod(src / "f", 0o640)
        (src / "other").touch()
        save(repo, src / "f")
        assert save(repo, src / "f").bytes_read == 0
        out = back(repo, tmp_path / "out", src)
        assert os.listdir(out) == ["f"]
        (src / "other").unlink()
        os.utime(src, ns=(1, (tmp_path / f"out{src}").stat().st_mtime_ns))
        assert referee(src, out) == []

    def test_two_roots_below_one_folder(
        self, repo: Repository, two: tuple[Path, Path], tmp_path: Path, settled: None
    ) -> None:
        """And the folder above keeps its metadata, but not what else is in it."""
        (tmp_path / "tops/unasked").touch()
        save(repo, *two)
        out = back(repo, tmp_path / "out", tmp_path / "tops")
        assert sorted(contents(out)) == ["one", "one/f", "two", "two/f"]
        assert stat.S_IMODE(out.stat().st_mode) == 0o2751
        assert out.stat().st_mtime_ns == (tmp_path / "tops").stat().st_mtime_ns
        swapped = save(repo, two[1], two[0], two[1])
        assert (swapped.parent != "", swapped.files_unmodified) == (True, 2)

    def test_nested_roots(self, repo: Repository, src: Path, tmp_path: Path) -> None:
        """One inside another is stored once, and stays in even where a pattern would take it out."""
        (src / "a/b/c").mkdir(parents=True)
        for name in ("f", "a/g", "a/b/h", "a/b/c/i"):
            (src / name).write_bytes(name.encode())
        save(repo, src / "a/b", src, src / "a", exclude=["b/"])
        root = back(repo, tmp_path / "out", src)
        assert sorted(k for k, v in contents(root).items() if isinstance(v, bytes)) == ["a/b/c/i", "a/b/h", "a/g", "f"]
        assert repo.snapshot("latest").paths == (str(src),)

    def test_one_that_is_not_there(self, repo: Repository, two: tuple[Path, Path], tmp_path: Path) -> None:
        """It is named, the rest is saved; none at all: no snapshot."""
        missing = tmp_path / "missing"
        result = snapvault.backup(repo, *two, missing, dataset="d")
        assert (result.status, [i.path for i in result.issues]) == ("partial", [str(missing)])
        assert sorted(contents(back(repo, tmp_path / "out", tmp_path / "tops"))) == ["one", "one/f", "two", "two/f"]
        before = {n for n in objects(repo) if not n.startswith(("sessions/", "snapshots/"))}
        with pytest.raises(SourceError, match=r"cannot be read: No such file") as e:
            snapvault.backup(repo, missing, tmp_path / "gone", dataset="d")
        assert e.value.exit_code == 1 and e.value.affected[0] in (str(missing), f"{tmp_path}/gone")
        assert len(list(repo.snapshots())) == 1
        assert {n for n in objects(repo) if not n.startswith(("sessions/", "snapshots/"))} == before

    def test_one_kind_of_source_that_is_not_there(self, repo: Repository, src: Path, tmp_path: Path) -> None:
        """A path is missing, but a stream is there: one root could be read."""
        result = snapvault.backup(repo, tmp_path / "missing", io.BytesIO(b"data"), dataset="d")
        assert (result.status, [i.path for i in result.issues]) == ("partial", [f"{tmp_path}/missing"])
        assert repo.snapshot("latest").open("/stdin").read() == b"data"

    def test_a_symlink_as_root(self, repo: Repository, src: Path, tmp_path: Path) -> None:
        """It is kept as a link; with a slash behind it, it is the folder that it stands for."""
        (src / "f").write_bytes(b"f")
        (tmp_path / "link").symlink_to(src)
        save(repo, tmp_path / "link")
        assert os.readlink(Path(f"{back(repo, tmp_path / 'out', Path('/'))}{tmp_path}/link")) == str(src)
        save(repo, f"{tmp_path}/link/")
        assert contents(Path(f"{back(repo, tmp_path / 'out2', Path('/'))}{tmp_path}/link")) == {"f": b"f"}

    def test_nothing_is_no_source(self, repo: Repository) -> None:
        with pytest.raises(InvalidInput, match="nothing to back up"):
            snapvault.backup(repo, dataset="d")
        with pytest.raises(InvalidInput, match="no source"):
            snapvault.backup(repo, 17, dataset="d")  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "d\n"])
    def test_names_of_datasets(self, name: str, repo: Repository, src: Path) -> None:
        with pytest.raises(InvalidInput, match="dataset name"):
            snapvault.backup(repo, src, dataset=name)


ROOT_PROGRAM = """
import ctypes, json, os, sys
import snapvault
KEY = dict(keys=lambda: bytes(range(32)))
def run(place, source, out):
    repo = snapvault.open(place, **KEY)
    options = dict(dataset="d", exclude=["/out"], one_file_system=True)
    first = snapvault.backup(repo, source, **options)
    again = snapvault.backup(repo, source, **options)
    done = snapvault.restore(repo, "latest", out, verify=True)
    return first.to_dict(), again.to_dict(), done.to_dict(), list(repo.snapshot("latest").paths)
snapvault.init(sys.argv[1] + "/repo", **KEY)
snapvault.init(sys.argv[2] + "/repo", **KEY)
run(sys.argv[2] + "/repo", sys.argv[2] + "/src", sys.argv[2] + "/out")  # everything that loads late is loaded
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0 and libc.mount(b"", b"/", b"", 0x44000, None) == 0  # mounts of our own
assert libc.mount(b"/proc", (sys.argv[1] + "/proc").encode(), b"", 0x5000, None) == 0
os.chroot(sys.argv[1])
os.chdir("/")
print(json.dumps(run("/repo", "/", "/out")))
"""


def test_the_root_of_a_system(tmp_path: Path) -> None:
    """ "/" of a small system (a chroot), with the repository in it."""
    system, warm = tmp_path / "system", tmp_path / "warm"
    for name in ("etc/f", "srv/data/g", "h"):
        (system / name).parent.mkdir(parents=True, exist_ok=True)
        (system / name).write_bytes(name.encode())
    (warm / "src").mkdir(parents=True)
    os.chmod(system, 0o751)
    (system / "proc").mkdir()
    first, again_, done, paths = json.loads(python(ROOT_PROGRAM, system, warm))
    assert paths == ["/"]
    assert any("/repo" in w and "left out" in w for w in first["warnings"]), first
    assert (first["files_new"], again_["files_new"], done["status"]) == (3, 0, "ok")
    out = contents(system / "out")
    assert sorted(out) == ["etc", "etc/f", "h", "proc", "srv", "srv/data", "srv/data/g"]


class TestRepositoryInTheSource:
    def test_it_is_left_out_with_a_warning(self, src: Path, tmp_path: Path) -> None:
        """By whatever way it is reached."""
        (src / "deep").mkdir()
        repo = make(src / "deep/repo")
        (src / "f").write_bytes(b"f")
        (tmp_path / "way").symlink_to(src)
        for root in (src, f"{tmp_path}/way/"):
            result = save(repo, root)
            assert any("deep/repo" in w and "left out" in w for w in result.warnings)
            place = f"{src}" if root == src else f"{tmp_path}/way"
            assert [e.name for e in repo.snapshot("latest").ls(place, recursive=True)] == ["deep", "f"]
        assert save(repo, src / "f").warnings == ()

    def test_also_by_a_writer(self, src: Path) -> None:
        repo = make(src / "repo")
        (src / "f").write_bytes(b"f")
        with repo.writer("w") as w:
            w.add(src)
        assert w.result is not None and any("left out" in m for m in w.result.warnings)
        assert [e.name for e in repo.snapshot("latest").ls(str(src), recursive=True)] == ["f"]

    def test_it_cannot_be_the_source(self, src: Path) -> None:
        repo = make(src / "repo")
        for root in (src / "repo", src / "repo/packs"):
            with pytest.raises(InvalidInput, match="into itself"):
                snapvault.backup(repo, root, dataset="d")


# -- streams and commands ---------------------------------------------------------------------------------------------


class TestStreams:
    @pytest.mark.parametrize("size", [0, 1, 1 << 20, 3_333_333])
    def test_a_stream(self, size: int, repo: Repository, tmp_path: Path) -> None:
        (tmp_path / "data").write_bytes(_random(size))
        with open(tmp_path / "data", "rb") as f:
            result = save(repo, f, stream_name="dump.sql")
        assert (result.files_new, result.bytes_read) == (1, size)
        assert repo.snapshot("latest").open("/dump.sql").read() == _random(size)

    def test_a_stream_in_little_pieces(self, repo: Repository) -> None:
        """Where its reads end does not show: it is the same as the file."""

        class Little:
            def __init__(self, data: bytes) -> None:
                self.left, self.calls = memoryview(data), 0

            def read(self, size: int) -> bytes:
                self.calls += 1
                part, self.left = self.left[: min(size, 999)], self.left[min(size, 999) :]
                return bytes(part)

        data = _random(2_000_000)
        save(repo, io.BytesIO(data), dataset="a")
        result = save(repo, Little(data), dataset="b")
        assert (result.bytes_read, result.bytes_total) == (2_000_000, 2_000_000)
        a, b = (repo.snapshot(f"{d}@latest").entry("/stdin").node.content for d in "ab")
        assert a == b

    def test_a_stream_that_fails_commits_nothing(self, repo: Repository) -> None:
        class Failing:
            def __init__(self) -> None:
                self.calls = 0

            def read(self, size: int) -> bytes:
                self.calls += 1
                if self.calls == 3:
                    raise OSError(104, "Connection reset by peer")
                return bytes(size)

        with pytest.raises(SourceError, match="Connection reset"):
            snapvault.backup(repo, Failing(), dataset="d")  # type: ignore[arg-type]
        assert list(repo.snapshots()) == []

    def test_one_that_keeps_silent_can_be_cancelled(self, repo: Repository) -> None:
        """Though nothing ever comes of its read."""
        reading, release, cancel = threading.Event(), threading.Event(), threading.Event()

        class Silent:
            def read(self, size: int) -> bytes:
                reading.set()
                release.wait()
                return b""

        timer = threading.Thread(target=lambda: (reading.wait(), cancel.set()))
        timer.start()
        with pytest.raises(snapvault.Cancelled):
            snapvault.backup(repo, Silent(), dataset="d", control=Control(cancel=cancel))  # type: ignore[arg-type]
        timer.join()
        release.set()
        assert list(repo.snapshots()) == []

    def test_text_is_refused(self, repo: Repository, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("text")
        with open(tmp_path / "f") as f, pytest.raises(InvalidInput, match="binary"):
            snapvault.backup(repo, f, dataset="d")  # type: ignore[arg-type]
        assert list(repo.snapshots()) == []


class TestCommands:
    def test_its_output_is_the_file(self, repo: Repository) -> None:
        result = save(repo, Command(["seq", "1", "300000"], name="numbers"))
        assert result.bytes_read == len(repo.snapshot("latest").open("/numbers").read()) > 1 << 20
        second = save(repo, Command(["seq", "1", "300000"], name="numbers"))
        assert second.bytes_new < 4096 and second.files_changed == 1  # the folder: fewer bytes than a chunk

    @pytest.mark.parametrize(
        ("argv", "says"),
        [
            (["sh", "-c", "seq 1 1000000; echo 'no space for you' >&2; exit 7"], "exit status 7.*no space for you"),
            (["sh", "-c", "seq 1 1000000; kill -9 $$"], "SIGKILL"),
            (["sh", "-c", "exit 1"], "exit status 1"),
            (["/no/such/program"], "cannot be started"),
        ],
    )
    def test_one_that_fails_commits_nothing(self, argv: list[str], says: str, repo: Repository, src: Path) -> None:
        """Neither its own half output, nor what else the backup was asked for."""
        (src / "f").touch()
        for sources in ([Command(argv)], [src, Command(argv)]):
            with pytest.raises(SourceError, match=f"(?s){says}") as e:
                snapvault.backup(repo, *sources, dataset="d")
            assert e.value.exit_code == 1
        assert list(repo.snapshots()) == []

    @pytest.mark.parametrize("does", ["while :; do seq 1 1000; done", "sleep 1000", "echo a; sleep 1000"])
    def test_one_that_hangs_is_ended_when_cancelled(self, does: str, repo: Repository, tmp_path: Path) -> None:
        """With everything that it started, whether it writes or not."""
        cancel = threading.Event()
        code = f"echo $$ > {tmp_path}/pid; sleep 1000 & {does}"
        timer = threading.Thread(target=lambda: (_wait_for(tmp_path / "pid"), cancel.set()))
        timer.start()
        with pytest.raises(snapvault.Cancelled):
            snapvault.backup(repo, Command(["sh", "-c", code]), dataset="d", control=Control(cancel=cancel))
        timer.join()
        pid = int((tmp_path / "pid").read_text())
        members = [s for s in Path("/proc").glob("[0-9]*/stat") if f" {pid} " in _stat(s) and ") Z" not in _stat(s)]
        assert members == []
        assert list(repo.snapshots()) == []


def _wait_for(path: Path) -> None:
    while not path.exists() or not path.read_text().strip():
        time.sleep(0.01)


def _stat(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


# -- what is left out -------------------------------------------------------------------------------------------------


def test_exclude_rules(repo: Repository, src: Path, tmp_path: Path) -> None:
    for name in (
        "a.txt", "b.log", "sub/b.log", "sub/c.txt", "sub/keep.log", "node_modules/x", "sub/node_modules/y", "build/z",
        "sub/build/z", "big", "cache/data", "cache/CACHEDIR.TAG", "listed",
    ):  # fmt: skip
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        (src / name).write_bytes(b"x")
    (src / "big").write_bytes(bytes(1001))
    (src / "cache/CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    (tmp_path / "patterns").write_text("# comment\n\n/listed\n")
    result = save(
        repo, src, exclude=["*.log", "!keep.log", "node_modules/", "/build"], exclude_files=[tmp_path / "patterns"],
        exclude_caches=True, exclude_larger_than=1000,
    )  # fmt: skip
    found = [e.path.removeprefix(f"{src}/") for e in repo.snapshot("latest").ls(str(src), recursive=True)]
    assert [f for f in found if "." in f or f.endswith("z")] == [
        "a.txt", "cache/CACHEDIR.TAG", "sub/build/z", "sub/c.txt", "sub/keep.log",
    ]  # fmt: skip
    assert result.files_new == 5


def test_other_file_systems_are_left_out(repo: Repository, tmp_path: Path) -> None:
    """A mount inside of the source: its folder is kept, empty."""
    code = (
        "import ctypes, os, sys, snapvault\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.unshare(0x20000) == 0 and libc.mount(b'', b'/', b'', 0x44000, None) == 0\n"
        "os.makedirs(sys.argv[2] + '/mnt')\n"
        "assert libc.mount(b'tmpfs', (sys.argv[2] + '/mnt').encode(), b'tmpfs', 0, None) == 0\n"
        "open(sys.argv[2] + '/mnt/there', 'w').close()\n"
        "open(sys.argv[2] + '/here', 'w').close()\n"
        "repo = snapvault.open(sys.argv[1], keys=lambda: bytes(range(32)))\n"
        "for one in (False, True):\n"
        "    snapvault.backup(repo, sys.argv[2], dataset='one' if one else 'all', one_file_system=one)\n"
    )
    python(code, repo.url, tmp_path / "src")
    assert [e.name for e in repo.snapshot("one@latest").ls(f"{tmp_path}/src", recursive=True)] == ["here", "mnt"]
    assert len(list(repo.snapshot("all@latest").ls(f"{tmp_path}/src", recursive=True))) == 3


def test_a_list_of_files(repo: Repository, src: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (src / name).write_bytes(name.encode())
    (tmp_path / "list").write_text(f"{src}/a\n{src}/c\n")
    save(repo, files_from=[tmp_path / "list"])
    assert sorted(contents(back(repo, tmp_path / "out", src))) == ["a", "c"]


def test_a_dry_run_stores_nothing(repo: Repository, src: Path, settled: None) -> None:
    """And says what a real one would have stored."""
    (src / "f").write_bytes(_random(1_000_000))
    before = objects(repo)
    dry = save(repo, src, dry_run=True)
    assert (dry.snapshot, dry.dry_run, objects(repo) == before) == ("", True, True)
    real = save(repo, src)
    same = ("files_new", "folders", "bytes_total", "bytes_read", "bytes_new")
    assert [getattr(dry, n) for n in same] == [getattr(real, n) for n in same]
    assert save(repo, src, dry_run=True).bytes_new == 0


def test_a_second_backup_of_the_same_stores_next_to_nothing(repo: Repository, src: Path) -> None:
    (src / "f").write_bytes(_random(2_000_000))
    save(repo, src)
    trace = traced(repo)
    second = save(repo, src, force_read=True)
    assert second.bytes_new == 0 and trace.bytes_sent < 20_000
    assert not [c for c in trace.log if c.method == "put_if_absent" and c.name.startswith("packs/")]


def test_little_is_read_ahead_in_folders_within_one_another(
    repo: Repository, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read ahead waits while a folder in between is stored: in all folders together it is bounded."""
    monkeypatch.setattr(saver, "AHEAD_BYTES", 10_000)
    folders: list[saver._Folder] = []
    enter, held = saver.Saver._enter, [0]

    def counting(self: saver.Saver, *given: Any) -> saver._Folder | None:
        held.append(sum(len(data or b"") for f in folders for data in f.ahead.values()))
        folder = enter(self, *given)
        folders.extend([folder] if folder else [])
        return folder

    monkeypatch.setattr(saver.Saver, "_enter", counting)
    place = src
    for i in range(8):
        for name in ("a", "c", "d"):
            (place / name).write_bytes(_random(3_000, i))
        place = place / "b"
        place.mkdir()
    save(repo, src)
    assert 0 < max(held) <= 10_000
    assert contents(back(repo, tmp_path / "out", src)) == contents(src)
