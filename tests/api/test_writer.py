"""SnapshotWriter: a service's own data, file by file."""

import gc
import io
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from repos import contents, make, objects

import snapvault
from snapvault import Command, InvalidInput, Repository, SourceError
from snapvault.operations.writer import SnapshotWriter


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return make(tmp_path / "repo")


def _kinds(repo: Repository) -> list[str]:
    return sorted({n.partition("/")[0] for n in objects(repo)} - {"sessions", "snapshots", "local"})


def _paths(repo: Repository) -> list[str]:
    return [e.path for e in repo.snapshot("latest").ls(recursive=True) if e.kind == "file"]


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
@pytest.mark.parametrize("piece", [1000, 1 << 20, 1 << 23])
def test_files(size: int, piece: int, repo: Repository) -> None:
    """In whatever pieces they are written."""
    data = random.Random(1).randbytes(size)
    with repo.writer("orders", tags=["nightly"]) as w:
        with w.open("exports/a.csv") as f:
            for i in range(0, size, piece):
                assert f.write(data[i : i + piece]) == len(data[i : i + piece])
        with w.open("/exports/b.csv") as f:
            f.write(bytearray(b"b"))
            f.write(memoryview(b"c"))
    assert w.result is not None
    assert (w.result.status, w.result.files_new, w.result.bytes_total, w.result.folders) == ("ok", 2, size + 2, 1)
    snapshot = repo.snapshot("orders@latest")
    assert (snapshot.id, snapshot.tags, snapshot.dataset) == (w.result.snapshot, ("nightly",), "orders")
    assert snapshot.open("/exports/a.csv").read() == data
    assert snapshot.open("exports/b.csv").read() == b"bc"


def test_it_deduplicates_against_files(repo: Repository, tmp_path: Path) -> None:
    """The same bytes, backed up as a file and written piece by piece, are cut alike."""
    (tmp_path / "f").write_bytes(random.Random(1).randbytes(2_000_000))
    file = snapvault.backup(repo, tmp_path / "f", dataset="d").snapshot
    with repo.writer("w") as w, w.open("copy") as f:
        for i in range(0, 2_000_000, 7777):
            f.write((tmp_path / "f").read_bytes()[i : i + 7777])
    assert w.result is not None
    before, now = repo.snapshot(file).entry(str(tmp_path / "f")), repo.snapshot(w.result.snapshot).entry("/copy")
    assert now.node.content == before.node.content
    assert w.result.bytes_new < len(now.node.content.ids) + 300, "more than the folder was stored"


def test_sources(repo: Repository, tmp_path: Path) -> None:
    """Paths, URLs, streams and commands, each at a place of its own."""
    import fsspec

    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/sub/f").write_bytes(b"f")
    fsspec.filesystem("memory").pipe_file(f"/{tmp_path.name}/remote/g", b"g")
    with repo.writer("w") as w:
        w.add(tmp_path / "src", at="/files")
        w.add(str(tmp_path / "src/sub"), at="again")
        w.add(f"memory://{tmp_path.name}/remote", at="/remote")
        w.add(io.BytesIO(b"stream"), at="streams")
        w.add(Command(["echo", "hello"], name="said"))
        with w.open("/remote/beside") as f:
            f.write(b"beside")
    snapshot = repo.snapshot("latest")
    found = {path: snapshot.open(path).read() for path in _paths(repo)}
    assert found == {
        f"/again{tmp_path}/src/sub/f": b"f",
        f"/files{tmp_path}/src/sub/f": b"f",
        "/remote/beside": b"beside",
        "/remote/remote/g": b"g",
        "/said": b"hello\n",
        "/streams/stdin": b"stream",
    }
    result = snapvault.restore(repo, snapshot, tmp_path / "out")
    assert result.status == "ok"
    assert contents(tmp_path / "out/remote") == {"beside": b"beside", "remote": "40755", "remote/g": b"g"}


class Oops(Exception):
    pass


def test_an_exception_aborts(repo: Repository, tmp_path: Path) -> None:
    """It goes through as it is; there is no snapshot, and the writer takes nothing more."""
    with pytest.raises(Oops), repo.writer("w") as w:
        with w.open("whole") as f:
            f.write(random.Random(1).randbytes(3_000_000))
        half = w.open("half")
        half.write(b"h")
        raise Oops
    assert list(repo.snapshots()) == [] and w.result is None
    assert "index" not in _kinds(repo)
    with pytest.raises(InvalidInput, match="finished"):
        w.open("more")
    with pytest.raises(InvalidInput, match="finished"):
        w.add(tmp_path)
    with pytest.raises(InvalidInput, match="finished"):
        half.write(bytes(2 << 20))
    half.close()


def test_a_file_that_was_not_closed(repo: Repository, capfd: pytest.CaptureFixture[str]) -> None:
    """Nobody knows whether it is whole: nothing is committed, and nothing is printed when it is collected."""
    with pytest.raises(InvalidInput, match="1 files of the snapshot were not closed"), repo.writer("w") as w:
        open_file = w.open("f")
        open_file.write(b"x" * 2_000_000)
    assert list(repo.snapshots()) == []
    del open_file
    gc.collect()
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_given_up(repo: Repository) -> None:
    """An exception in its own block drops the file; whoever catches it may go on."""
    with repo.writer("w") as w:
        with pytest.raises(Oops), w.open("dropped") as f:
            f.write(b"half")
            raise Oops
        with w.open("kept") as f:
            f.write(b"k")
    assert _paths(repo) == ["/kept"]


def test_after_the_commit(repo: Repository) -> None:
    with repo.writer("w") as w, w.open("f") as f:
        f.write(b"f")
    with pytest.raises(ValueError, match="closed"):
        f.write(b"g")
    f.close()
    with pytest.raises(InvalidInput, match="finished"):
        w.open("g")
    assert _paths(repo) == ["/f"]


def test_each_path_once(repo: Repository) -> None:
    """Also as a file and a folder; the file that cannot be placed is an error at its closing."""
    for first, second in (("a", "/a"), ("a", "a/b"), ("a/b", "a"), ("a//b", "/a/./b")):
        with pytest.raises(InvalidInput, match="already"), repo.writer("w") as w:
            for path in (first, second):
                with w.open(path) as f:
                    f.write(b"x")
    assert list(repo.snapshots()) == []


@pytest.mark.parametrize("path", ["", "/", ".", "a/../b", "..", "a\0b"])
def test_paths_that_are_none(path: str, repo: Repository) -> None:
    with repo.writer("w") as w, pytest.raises(InvalidInput):
        w.open(path)


def test_the_whole_system_does_not_replace_other_files(repo: Repository, tmp_path: Path) -> None:
    """A source whose root is / cannot silently take the place of what was written before."""
    from snapvault.source.stream import StreamSource

    class Whole(StreamSource):
        roots = (b"/",)

        def __init__(self) -> None:
            super().__init__("f", io.BytesIO(b"f"))
            self.roots = (b"/",)

    with pytest.raises(InvalidInput, match="already"), repo.writer("w") as w:
        with w.open("first") as f:
            f.write(b"1")
        w.add_trees([Whole()])
    with repo.writer("w") as w:
        w.add_trees([Whole()])
    assert _paths(repo) == ["/f"]


def test_a_very_deep_path(repo: Repository) -> None:
    path = "/" + "/".join("d" for _ in range(3000)) + "/f"
    with repo.writer("w") as w, w.open(path) as f:
        f.write(b"deep")
    assert repo.snapshot("latest").open(path).read() == b"deep"


def test_a_source_that_fails_inside(repo: Repository, tmp_path: Path) -> None:
    """Unhandled it aborts all; handled, the rest is committed, and marked."""
    with pytest.raises(SourceError), repo.writer("w") as w:
        w.add(tmp_path / "missing")
    assert list(repo.snapshots()) == []
    with repo.writer("w") as w:
        with pytest.raises(SourceError):
            w.add(tmp_path / "missing")
        with w.open("f") as f:
            f.write(b"f")
    assert w.result is not None
    assert (w.result.status, [i.path for i in w.result.issues]) == ("partial", [f"{tmp_path}/missing"])


def test_a_dry_run(repo: Repository) -> None:
    before = objects(repo)
    with repo.writer("w", dry_run=True) as w, w.open("f") as f:
        f.write(bytes(1_000_000))
    assert w.result is not None and (w.result.snapshot, w.result.files_new) == ("", 1)
    assert objects(repo) == before


def test_from_several_threads(repo: Repository) -> None:
    """Each writes files of its own, interleaved."""
    contents_of = {f"t{i}/{n}": random.Random(i * 100 + n).randbytes(150_000) for i in range(8) for n in range(4)}
    start = threading.Barrier(8)

    def write(i: int) -> None:
        start.wait()
        for n in range(4):
            with w.open(f"t{i}/{n}") as f:
                for at in range(0, 150_000, 10_000):
                    f.write(contents_of[f"t{i}/{n}"][at : at + 10_000])

    with repo.writer("w") as w, ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    snapshot = repo.snapshot("latest")
    assert {p[1:]: snapshot.open(p).read() for p in _paths(repo)} == contents_of


def test_an_empty_one(repo: Repository) -> None:
    with repo.writer("w"):
        pass
    assert list(repo.snapshot("latest").ls()) == []


def test_options_that_are_refused(repo: Repository) -> None:
    before = objects(repo)
    for dataset, options in (("no good", {}), ("d", {"tags": ["a,b"]}), ("d", {"tags": [""]}), ("d", {"tags": ["\n"]})):
        with pytest.raises(InvalidInput):
            SnapshotWriter(repo, dataset, **options)  # type: ignore[arg-type]
    assert objects(repo) == before
