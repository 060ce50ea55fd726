"""Neither a hostile snapshot nor links in the target lead outside of it."""

import contextlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from snapvault.format.tree import Node, NodeKind
from snapvault.foundation.errors import InvalidInput, SourceError
from snapvault.target.filesystem import FilesystemTarget

_FILE = Node(b"x", NodeKind.FILE, 0o4777, 12345, 12345, 1)
_FOLDER = Node(b"x", NodeKind.DIRECTORY, 0o777, 12345, 12345, 1)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "victim").write_bytes(b"untouched")
    (folder / "sub").mkdir()
    return folder


@pytest.fixture
def target(tmp_path: Path) -> FilesystemTarget:
    return FilesystemTarget(tmp_path / "target")


def _state(folder: Path) -> list[tuple[str, int, int, int, int]]:
    found = []
    for path in sorted([folder, *folder.rglob("*")]):
        st = path.lstat()
        found.append((str(path), st.st_mode, st.st_uid, st.st_mtime_ns, st.st_ctime_ns))
    return found


_WRITERS: dict[str, Callable[[FilesystemTarget, bytes], object]] = {
    "make_directory": lambda t, p: t.make_directory(p),
    "create_new": lambda t, p: os.close(t.create_new(p)),
    "create": lambda t, p: t.create(p).commit(),
    "open_existing": lambda t, p: os.close(t.open_existing(p, write=True)),
    "symlink": lambda t, p: t.symlink(p, b"/"),
    "link to": lambda t, p: t.link(p, b"name"),
    "link": lambda t, p: t.link(b"real", p),
    "special": lambda t, p: t.special(p, Node(b"x", NodeKind.FIFO, 0, 0, 0, 0)),
    "apply": lambda t, p: t.apply(p, _FILE),
    "remove": lambda t, p: t.remove(p),
    "listdir": lambda t, p: t.listdir(p),
    "differs": lambda t, p: t.differs(p, _FILE),
    "node": lambda t, p: t.node(p),
    "lstat": lambda t, p: t.lstat(p),
}
_PATHS = (
    b"..", b".", b"../outside/victim", b"a/../../outside/victim", b"/etc/passwd", b"/x", b"a//b", b"a/", b"a/./b",
    b"a/..", b"a\0b", b"a\0/b",
)  # fmt: skip


@pytest.mark.parametrize("call", _WRITERS)
@pytest.mark.parametrize("path", _PATHS)
def test_impossible_paths_are_refused(call: str, path: bytes, target: FilesystemTarget, outside: Path) -> None:
    (Path(target.label) / "a").mkdir()
    (Path(target.label) / "real").touch()
    before = _state(outside)
    with pytest.raises(InvalidInput, match="outside of the target"):
        _WRITERS[call](target, path)
    assert _state(outside) == before


@pytest.mark.parametrize("call", _WRITERS)
def test_the_root_is_neither_removed_nor_replaced(call: str, target: FilesystemTarget) -> None:
    (Path(target.label) / "real").touch()
    if call not in ("make_directory", "apply", "listdir", "differs", "node", "lstat"):
        with pytest.raises(InvalidInput):
            _WRITERS[call](target, b"")
    assert sorted(os.listdir(target.root)) == [b"real"]


@pytest.mark.parametrize("call", _WRITERS)
@pytest.mark.parametrize("planted", ["before", "after"])
def test_a_planted_link_in_place_of_a_folder(call: str, planted: str, target: FilesystemTarget, outside: Path) -> None:
    """``a/b`` is a link to a folder outside; also when the folder was used (and kept open) before."""
    root = Path(target.label)
    (root / "real").touch()
    target.make_directory(b"a")
    if planted == "after":
        target.make_directory(b"a/b")
        os.close(target.create_new(b"a/b/first"))
        os.rename(root / "a/b", root / "a/moved")
    (root / "a/b").symlink_to(outside)
    before = _state(outside)
    for path in (b"a/b/victim", b"a/b/new", b"a/b/sub/new"):
        with contextlib.suppress(NotADirectoryError, FileNotFoundError, FileExistsError):
            _WRITERS[call](target, path)
        assert _state(outside) == before


@pytest.mark.parametrize("call", _WRITERS)
def test_a_planted_link_in_place_of_the_entry(call: str, target: FilesystemTarget, outside: Path) -> None:
    root = Path(target.label)
    (root / "real").touch()
    before = _state(outside)
    for name, to in (("file", "victim"), ("folder", "sub"), ("new", "not there")):
        (root / name).symlink_to(outside / to)
        with contextlib.suppress(OSError):
            _WRITERS[call](target, name.encode())
        assert _state(outside) == before


def test_apply_pins_the_kind(target: FilesystemTarget, outside: Path) -> None:
    """A link put where a folder or file was made gets nothing of what was meant for it."""
    (Path(target.label) / "f").symlink_to(outside / "victim")
    (Path(target.label) / "d").symlink_to(outside)
    before = _state(outside)
    for path, node in ((b"f", _FILE), (b"d", _FOLDER)):
        with pytest.raises(OSError, match="another kind"):
            target.apply(path, node)
    assert _state(outside) == before
    link = Node(b"f", NodeKind.SYMLINK, 0o777, 12345, 6, 7, target=b"t", xattrs={b"trusted.x": b"1"})
    assert target.apply(b"f", link) == []
    assert _state(outside) == before
    st = os.lstat(target.root + b"/f")
    assert (st.st_uid, st.st_gid, st.st_mtime_ns) == (12345, 6, 7)
    assert os.getxattr(target.root + b"/f", "trusted.x", follow_symlinks=False) == b"1"


def test_a_fifo_in_place_of_a_file_is_not_opened(target: FilesystemTarget) -> None:
    os.mkfifo(target.root + b"/f")
    for write in (False, True):
        with pytest.raises(OSError, match="no regular file"):
            target.open_existing(b"f", write=write)
    with pytest.raises(FileExistsError):
        target.create_new(b"f")
    new = target.create(b"f")
    os.write(new.fd, b"data")
    new.commit()
    assert Path(target.label, "f").read_bytes() == b"data"


def test_removing_never_follows(target: FilesystemTarget, outside: Path) -> None:
    folder = Path(target.label) / "tree"
    (folder / "below").mkdir(parents=True)
    (folder / "below/link").symlink_to(outside)
    (folder / "link").symlink_to(outside / "victim")
    before = _state(outside)
    target.remove(b"tree")
    assert target.listdir(b"") == [] and _state(outside) == before


def test_a_link_swapped_in_while_writing(target: FilesystemTarget, outside: Path) -> None:
    """Somebody swaps a folder for a link again and again: every write lands in the folder or fails."""
    root, stop = Path(target.label), threading.Event()
    (root / "real").mkdir()
    (root / "planted").symlink_to(outside)
    os.symlink("real", root / "d")
    before, swaps = _state(outside), 0
    os.unlink(root / "d")
    os.rename(root / "real", root / "d")

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            os.rename(root / "d", root / "aside")
            os.rename(root / "planted", root / "d")
            os.rename(root / "d", root / "planted")
            os.rename(root / "aside", root / "d")
            swaps += 1

    thread = threading.Thread(target=swap)
    thread.start()
    landed = 0
    try:
        for i in range(3000):
            target._folders.clear()  # forget, so that each round walks anew
            try:
                os.close(target.create_new(b"d/%d" % i))
                landed += 1
            except (NotADirectoryError, FileNotFoundError):
                continue
    finally:
        stop.set()
        thread.join()
    assert _state(outside) == before
    assert swaps > 0 and landed == len(os.listdir(root / "d"))


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(SourceError, match="cannot be opened"):
            FilesystemTarget(path)
    with pytest.raises(SourceError, match="No such file"):
        FilesystemTarget(tmp_path / "missing", create=False)
    assert stat.S_ISREG((tmp_path / "file").stat().st_mode)
