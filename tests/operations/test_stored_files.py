"""A stored file is a file: seekable, the same bytes at any place, and cheap to look into."""

import io
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repos import SMALL, again, damage, make, objects, save, traced

import snapvault
from snapvault import Damaged, InvalidInput, Repository
from snapvault.access.snapshot import Snapshot
from snapvault.format.tree import NodeKind
from snapvault.repository import repository
from snapvault.repository.create import SEGMENT_SIZE

SPARSE = ((0, 5000), (70_000, 1), (131_072, 4096), (400_000, 70_000))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Snapshot, Path]:
    """Plain files of some sizes, and sparse ones, in a repository with little chunks."""
    base = tmp_path_factory.mktemp("stored")
    src = base / "src"
    src.mkdir()
    content = random.Random(1)
    for size in (0, 1, 255, 100_000):
        (src / f"plain {size}").write_bytes(content.randbytes(size))
    (src / "zeros").write_bytes(bytes(50_000))
    for name, size in (("sparse", 470_000), ("sparse, hole at the end", 700_000)):
        with open(src / name, "wb") as f:
            for offset, length in SPARSE:
                f.seek(offset)
                f.write(content.randbytes(length))
            f.truncate(size)
    with open(src / "hole", "wb") as f:
        f.truncate(300_000)
    repo = make(base / "repo", chunking=SMALL)
    save(repo, src)
    return repo.snapshot("latest"), src


_NAMES = ("plain 0", "plain 1", "plain 255", "plain 100000", "zeros", "sparse", "sparse, hole at the end", "hole")
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["read", "seek", "seek from here", "seek from the end", "readinto", "read1", "line"]),
        st.integers(-100, 800_000) | st.sampled_from([0, 1, 5000, 70_000, 70_001, 131_072, 400_000, 470_000]),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(name=st.sampled_from(_NAMES), steps=_STEPS)
def test_like_the_file_itself(stored: tuple[Snapshot, Path], name: str, steps: list[tuple[str, int]]) -> None:
    snapshot, src = stored
    with snapshot.open(f"{src}/{name}") as a, open(src / name, "rb") as b:
        for what, n in steps:
            assert _step(a, what, n) == _step(b, what, n)
            assert a.tell() == b.tell()
        a.seek(0)
        assert a.read() == (src / name).read_bytes()


def _step(f: io.BufferedReader, what: str, n: int) -> object:
    try:
        if what == "read":
            return f.read(max(n, -1))
        if what == "read1":
            return len(f.read1(1)) if n < 2 else None  # how much it gives at once is its own affair
        if what == "line":
            return f.readline(n)
        if what == "readinto":
            buffer = bytearray(max(n, 0) % 10_000)
            return f.readinto(buffer), bytes(buffer)
        return f.seek(n, {"seek": 0, "seek from here": 1, "seek from the end": 2}[what])
    except (ValueError, OSError) as e:
        return "a negative position" if isinstance(e, ValueError) or e.errno == 22 else e


def test_it_is_read_only_and_no_folder(stored: tuple[Snapshot, Path]) -> None:
    snapshot, src = stored
    with snapshot.open(f"{src}/zeros") as f:
        assert (f.readable(), f.seekable(), f.writable()) == (True, True, False)
        with pytest.raises(io.UnsupportedOperation):
            f.write(b"x")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="is a folder, not a file"):
        snapshot.open(str(src))
    for path in (f"{src}/nothing", f"{src}/zeros/below", f"{src}/..", "/"):
        with pytest.raises(InvalidInput):
            snapshot.open(path)


def test_listing_and_walking(tmp_path: Path) -> None:
    src = tmp_path / "src"
    for name in ("b/c/d", "b/e", "a", "z/y"):
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        (src / name).write_bytes(b"x")
    (src / "l").symlink_to("a")
    repo = make(tmp_path / "repo")
    save(repo, src)
    snapshot = repo.snapshot("latest")
    below = len(str(src)) + 1
    assert [(e.path[below:], e.kind) for e in snapshot.ls(str(src))] == [
        ("a", "file"), ("b", "folder"), ("l", "symlink"), ("z", "folder"),
    ]  # fmt: skip
    names = [e.path[below:] for e in snapshot.ls(f"{src}/", recursive=True)]
    assert names == ["a", "b", "b/c", "b/c/d", "b/e", "l", "z", "z/y"]
    assert [e.path for e in snapshot.ls(f"{src}/a")] == [f"{src}/a"]
    walked = [
        (top[below:], [f.name for f in folders], [o.name for o in others])
        for top, folders, others in snapshot.walk(str(src))
    ]
    assert walked == [
        ("", ["b", "z"], ["a", "l"]), ("b", ["c"], ["e"]), ("b/c", [], ["d"]), ("z", [], ["y"]),
    ]  # fmt: skip
    assert isinstance(snapshot.ls("/"), Iterator)


class TestCost:
    """What the store is asked for."""

    @pytest.fixture
    def many(self, tmp_path: Path) -> tuple[Repository, Path]:
        """Some 20 MB of random small files: one pack of five segments."""
        src = tmp_path / "src"
        src.mkdir()
        for i in range(400):
            (src / f"{i:03d}").write_bytes(random.Random(i).randbytes(50_000))
        repo = make(tmp_path / "repo")
        save(repo, src)
        return repo, src

    def test_one_small_file_costs_at_most_its_segment(self, many: tuple[Repository, Path]) -> None:
        """And at first the segments of its folders; everything in pieces of 64 KiB, so that the store learns little."""
        repo, src = many
        snapshot = repo.snapshot("latest")
        list(snapshot.ls(str(src)))
        trace = traced(repo)
        list(snapshot.ls(str(src)))
        trees = trace.bytes_received
        trace.bytes_received = 0
        trace.log.clear()
        assert snapshot.open(f"{src}/200").read() == (src / "200").read_bytes()
        gets = [c for c in trace.log if c.method == "get" and c.name.startswith("packs/")]
        assert 0 < trees < 256 << 10
        assert trace.bytes_received <= SEGMENT_SIZE * 5 // 4 + 2 * (64 << 10)
        assert len(gets) == 1  # that of its folder is there already
        sizes = objects(repo)
        for call in trace.log:
            whole = call.name.startswith("packs/") and sizes[call.name]
            assert call.size % (64 << 10) == 0 or call.size < whole

    def test_neighbours_come_with_the_same_segment(self, many: tuple[Repository, Path]) -> None:
        """A look at a place far inside of a large file costs a segment, not the file."""
        repo, src = many
        (src / "large").write_bytes(random.Random(0).randbytes(30 << 20))
        save(repo, src)
        trace = traced(repo)
        with repo.snapshot("latest").open(f"{src}/large") as f:
            opened = trace.bytes_received
            f.seek(20 << 20)
            assert f.read(100) == random.Random(0).randbytes(30 << 20)[20 << 20 : (20 << 20) + 100]
            # The buffer asks for a megabyte: one segment, or two.
            assert trace.bytes_received - opened <= 2 * (SEGMENT_SIZE * 5 // 4) + 2 * (64 << 10)
            f.seek(-50, io.SEEK_CUR)
            before = trace.bytes_received
            f.read(50)
            assert trace.bytes_received == before


def test_damage_is_an_error_and_never_other_bytes(tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    for name in "ab":
        (src / name).write_bytes(random.Random(ord(name)).randbytes(3_000_000))
    repo = make(tmp_path / "repo")
    save(repo, src)
    snapshot = repo.snapshot("latest")
    damage(repo, f"{src}/b")
    whole, lost = 0, 0
    for name in "ab":
        try:
            assert snapshot.open(f"{src}/{name}").read() == (src / name).read_bytes()
            whole += 1
        except Damaged as e:
            lost += 1
            assert e.affected[0] == f"{src}/{name}" and "packs/" in e.affected[1]
    assert (whole, lost) == (1, 1)
    assert snapshot.entry(f"{src}/a").node.kind == NodeKind.FILE
    result = snapvault.restore(repo, snapshot, tmp_path / "out")
    assert (result.status, len(result.lost), result.files_written) == ("damaged", 1, 1)


def test_all_readers_of_a_repository_share_what_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each segment is fetched once, whoever asks; a later snapshot is found; a closed repository serves nobody."""
    src = tmp_path / "src"
    src.mkdir()
    for i in range(50):
        (src / f"{i}").write_bytes(b"%d" % i)
    repo = make(tmp_path / "repo")
    save(repo, src)
    repo = again(repo)
    trace = traced(repo)
    first = repo.snapshot("latest")
    assert first.open(f"{src}/7").read() == b"7"
    trace.log.clear()
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda i: first.open(f"{src}/{i}").read(), range(50))
        assert list(read) == [b"%d" % i for i in range(50)]
    assert len(list(repo.snapshot("latest").ls(str(src)))) == 50
    assert [call for call in trace.log if call.name.startswith("packs/")] == []
    (src / "new").write_bytes(b"new")
    save(again(repo), src)
    assert repo.snapshot("latest").open(f"{src}/new").read() == b"new"
    with monkeypatch.context() as patch:
        patch.setattr(repository, "MEASURES_KEPT", -1)
        assert first.reader() is not first.reader()  # it would remember too much
    assert first.reader() is first.reader()
    repo.close()
    with pytest.raises(InvalidInput, match="closed"):
        next(first.ls())
