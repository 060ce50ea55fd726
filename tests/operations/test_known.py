"""A folder that is as it was is taken over whole; whatever differs in it is seen."""

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from repos import back, make, save
from trees import referee

import snapvault
from snapvault import Repository, StoreUnavailable
from snapvault.format.tree import TREE_VERSION, BlobType, Content
from snapvault.format.wire import pack
from snapvault.operations import parent, saver
from snapvault.platform.memory import page_aligned
from snapvault.repository import writer
from snapvault.repository.index import BlobIndex
from snapvault.repository.writer import BlobWriter

OLD = 1_600_000_000 * 10**9


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setattr(saver, "RACY_NS", -(10**9))
    return make(tmp_path / "repo")


@pytest.fixture
def src(tmp_path: Path, repo: Repository) -> Path:
    """Two folders in a folder, stored."""
    src = tmp_path / "src"
    for i in range(30):
        path = src / str(i % 2) / f"file {i}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1000 * i))
        os.utime(path, ns=(OLD, OLD))
    save(repo, src)
    return src


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the tree blobs that were given to a writer."""
    put, seen = BlobWriter.put, []

    def watched(self: BlobWriter, blob_type: int, data: bytes) -> object:
        if blob_type == BlobType.TREE:
            seen.append(len(data))
        return put(self, blob_type, data)

    monkeypatch.setattr(BlobWriter, "put", watched)
    return seen


def test_nothing_is_encoded_of_an_unchanged_tree(repo: Repository, src: Path, encoded: list[int]) -> None:
    result = save(repo, src)
    assert (result.files_unmodified, result.files_new, result.files_changed) == (30, 0, 0)
    assert result.bytes_total == sum(1000 * i for i in range(30)) and result.bytes_read == 0
    assert len(encoded) == len(src.parts) - 1  # only the folders above it


def attribute(path: Path) -> None:
    os.setxattr(path, "user.note", b"new")


def content(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)
    os.utime(path, ns=(OLD, OLD))


def link(path: Path) -> None:
    os.link(path, path.with_name("another name"))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "attribute": attribute,
    "content with the same size and time": content,
    "link": link,
    "mode": lambda path: path.chmod(0o600),
    "owner": lambda path: os.chown(path, 4242, 4242),
    "name": lambda path: path.replace(path.with_name("other")),
    "removed": lambda path: path.unlink(),
    "kind": folder,
    "of the folder": lambda path: path.parent.chmod(0o700),
    "new empty file": lambda path: path.with_name("new").touch(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change: str, repo: Repository, src: Path, tmp_path: Path) -> None:
    CHANGES[change](src / "1" / "file 7")
    save(repo, src)
    assert referee(src, back(repo, tmp_path / "out", src)) == []


def test_what_is_left_out_now_is_not_counted(repo: Repository, src: Path, tmp_path: Path) -> None:
    result = save(repo, src, exclude=["file 7", "/0"])
    assert result.files_unmodified == 14
    root = back(repo, tmp_path / "out", src)
    assert sorted(p.name for p in root.rglob("*")) == sorted(["1", *(f"file {i}" for i in range(1, 30, 2) if i != 7)])


def test_an_owner_of_another_name(
    repo: Repository, src: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same number, given to somebody else: what is stored says so."""
    run_owners = saver.Saver.__init__

    def renamed(self: saver.Saver, run: object, source: object, *rest: object, **options: object) -> None:
        source.users[os.getuid()] = "somebody else"  # type: ignore[attr-defined]
        run_owners(self, run, source, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(saver.Saver, "__init__", renamed)
    save(repo, src)
    assert len(encoded) == len(src.parts) - 1 + 3


@pytest.mark.parametrize("row", [[b"a"], [b"a", 0, 0o644, 0, 0, 1, 1, 1, 5, 7], [b"a", "x", *[0] * 7, b""]])
def test_a_malformed_row_is_no_entry(row: list[object]) -> None:
    before = parent.Before({b"a": row})
    assert before.get(b"b") is None
    if len(row) > 1:
        assert before.get(b"a") is None


def row(name: bytes) -> list[object]:
    return [name, 0, 0o644, 0, 0, 1, 1, 1, 0, b""]


PIECES = {
    "sound": [[row(b"a"), row(b"b")], [row(b"c")]],
    "empty piece": [[row(b"a")], []],
    "twice": [[row(b"a"), row(b"a")]],
    "out of order": [[row(b"b"), row(b"a")]],
    "out of order over pieces": [[row(b"b")], [row(b"a")]],
}


@pytest.mark.parametrize("shape", PIECES)
def test_a_folder_that_no_reader_takes_is_not_taken_over(shape: str) -> None:
    """Somebody else who may write to the same domain made it; its names and times are those that are there."""
    blobs = [pack([TREE_VERSION, {}, {}, rows]) for rows in PIECES[shape]]
    ids = [blake3(b).digest() for b in blobs]
    kept = parent.KeptTrees(dict(zip(ids, blobs, strict=True)), (b"",) * 3)  # type: ignore[arg-type]
    kept.blob = lambda blob, _: blobs[ids.index(blob)]  # type: ignore[method-assign]
    content = Content(0, b"".join(ids))
    before = parent.Parent(None, content, kept, BlobIndex()).root()
    assert before.sound == (shape == "sound")


def test_what_has_no_change_time_is_not_known() -> None:
    """Nothing says then whether its attributes changed."""
    timeless = [b"a", 0, 0o644, 0, 0, 1, 0, 1, 0, b""]
    more = [*row(b"b"), {6: 1}]
    before = parent.Before({b"a": timeless, b"b": more, b"c": row(b"c")})
    assert before.plain() == {b"c": tuple(row(b"c")[:9])}


@pytest.mark.parametrize("number", [5000.0, True])
def test_numbers_that_only_are_equal(number: object) -> None:
    good, bad = row(b"a"), row(b"b")
    bad[8] = number
    assert parent.Before({b"a": good}).holds_numbers()
    assert not parent.Before({b"a": good, b"b": bad}).holds_numbers()


NAMES: dict[str, tuple[dict[int, str], dict[int, str], bool]] = {
    "alike": ({0: "root"}, {0: "root"}, True),
    "none": ({}, {}, True),
    "another name": ({0: "mallory"}, {0: "root"}, False),
    "one lacks it": ({}, {0: "root"}, False),
    "one that nobody needs": ({0: "root", 7: "x"}, {0: "root"}, False),
}


@pytest.mark.parametrize("case", NAMES)
def test_pieces_that_name_an_owner_differently(case: str) -> None:
    """What restores by name would give the files of one piece to somebody else."""
    first, second, good = NAMES[case]
    blobs = [pack([TREE_VERSION, first, {}, [row(b"a")]]), pack([TREE_VERSION, second, {}, [row(b"b")]])]
    ids = [blake3(b).digest() for b in blobs]
    kept = parent.KeptTrees({}, (b"",) * 3)
    kept.blob = lambda blob, _: blobs[ids.index(blob)]  # type: ignore[method-assign]
    assert parent.Parent(None, Content(0, b"".join(ids)), kept, BlobIndex()).root().sound == good


def test_an_attribute_that_could_not_be_read_is_looked_at_again(
    repo: Repository, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file and a folder; the error passes, and nothing else changes."""
    for place in (src / "1" / "file 7", src / "1"):
        os.setxattr(place, "user.note", b"kept")
    real = os.getxattr

    def broken(place: Any, name: Any, **options: Any) -> bytes:
        if os.fsencode(name) == b"user.note":
            raise OSError(errno.EIO, "Input/output error")
        return real(place, name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "getxattr", broken)
        result = snapvault.backup(repo, src, dataset="d")
        assert result.status == "partial" and len(result.issues) == 2
    save(repo, src)
    assert referee(src, back(repo, tmp_path / "out", src)) == []


def test_another_user_may_see_more_attributes(
    repo: Repository, src: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver, "user_name", lambda: "somebody else")
    save(repo, src)
    assert len(encoded) == len(src.parts) - 1 + 3


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_no_memory_for_a_segment(after: int, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the backup, and is not taken for an error of the file that was being read; nobody can go on after it."""
    (src / "large").write_bytes(os.urandom(40 << 20))
    repo = make(tmp_path / "other")
    calls = []

    def scarce(size: int) -> object:
        calls.append(size)
        if len(calls) > after:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return page_aligned(size)

    monkeypatch.setattr(writer, "page_aligned", scarce)
    with pytest.raises(StoreUnavailable, match="no memory"):
        snapvault.backup(repo, src, dataset="d")
    calls.clear()
    if after > 1:
        with pytest.raises(StoreUnavailable), snapvault.SnapshotWriter(repo, dataset="d") as snapshot:
            for name in ("a", "b"):
                with contextlib.suppress(StoreUnavailable), snapshot.open(name) as file:
                    file.write(os.urandom(40 << 20))
    assert not list(repo.snapshots())
    monkeypatch.undo()
    save(repo, src)
    assert snapvault.check(repo, read_data=True).status == "ok"
