"""A tree copied with nothing but a source and a target is the same to rsync and getfacl."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from trees import BIG_SPARSE, DEEP, build_torture_tree, referee

from snapvault.format.tree import Node, NodeKind
from snapvault.source.filesystem import FilesystemSource
from snapvault.target.attributes import Shortfall
from snapvault.target.filesystem import FilesystemTarget


class Copy:
    """Copies the one root of a source to the root of a target, as a restore would."""

    def __init__(self, source: FilesystemSource, target: FilesystemTarget) -> None:
        self.source, self.target = source, target
        self.shortfalls: list[Shortfall] = []
        self.problems: list[object] = []
        self.written: list[bytes] = []
        self._names: dict[tuple[int, int], bytes] = {}

    def run(self) -> "Copy":
        root = self.source.roots[0]
        self.target.make_directory(b"")
        self._folder(root, b"")
        self._apply(b"", self.source.root_node(root))
        return self

    def _folder(self, origin: bytes, path: bytes) -> None:
        listing = self.source.scan(origin)
        self.problems += listing.problems
        for node in listing.nodes:
            self._entry(origin + b"/" + node.name, path + b"/" + node.name if path else node.name, node)

    def _entry(self, origin: bytes, path: bytes, node: Node) -> None:
        if node.link is not None:
            first = self._names.setdefault(node.link, path)
            if first != path:
                self.target.link(first, path)
                return
        if node.kind == NodeKind.DIRECTORY:
            self.target.make_directory(path)
            self._folder(origin, path)
        elif not self.target.differs(path, node, self.source.users, self.source.groups):
            return
        elif node.kind == NodeKind.FILE:
            self._file(origin, path, node)
            return
        elif node.kind == NodeKind.SYMLINK:
            self.target.symlink(path, node.target)
        else:
            assert self.target.special(path, node) is None
        self._apply(path, node)

    def _file(self, origin: bytes, path: bytes, node: Node) -> None:
        self.written.append(path)
        new = None
        try:
            fd = self.target.create_new(path)
        except FileExistsError:
            new = self.target.create(path)
            fd = new.fd
        reader = self.source.open(origin, node)
        for offset, length in reader.node.extents if reader.node.extents is not None else ((0, node.size),):
            position = offset
            while position < offset + length:
                position += os.pwrite(fd, reader.read(min(1 << 20, offset + length - position)), position)
        os.ftruncate(fd, node.size)
        assert reader.finish()
        self._apply(path, reader.node, fd)
        if new is None:
            os.close(fd)
        else:
            new.commit()

    def _apply(self, path: bytes, node: Node, fd: int | None = None) -> None:
        self.shortfalls += self.target.apply(path, node, self.source.users, self.source.groups, fd=fd)


@pytest.fixture(scope="module")
def torture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("torture") / "tree"
    build_torture_tree(root, entries=100)
    return root


@pytest.fixture(scope="module")
def copied(torture: Path) -> Path:
    _copy(torture, torture.parent / "copy")
    return torture.parent / "copy"


def _copy(origin: Path, to: Path) -> Copy:
    copy = Copy(FilesystemSource([origin]), FilesystemTarget(to)).run()
    assert copy.shortfalls == [] and copy.problems == []
    return copy


def test_everything_comes_back(tmp_path: Path) -> None:
    """And copying once more writes nothing."""
    build_torture_tree(tmp_path / "tree")
    assert len(_copy(tmp_path / "tree", tmp_path / "copy").written) > 20_000
    assert referee(tmp_path / "tree", tmp_path / "copy") == []
    assert _copy(tmp_path / "tree", tmp_path / "copy").written == []
    assert referee(tmp_path / "tree", tmp_path / "copy") == []


def _set_default_acl(root: Path) -> None:
    subprocess.run(["setfacl", "-d", "-m", "u:2:rwx", root / "owners/folder"], check=True)


def _fill_hole(root: Path) -> None:
    before = os.stat(root / BIG_SPARSE)
    with open(root / BIG_SPARSE, "r+b") as f:
        f.seek(5 << 30)
        f.write(bytes(1 << 20))
    os.utime(root / BIG_SPARSE, ns=(1, before.st_mtime_ns))


def _change_big_data(root: Path) -> None:
    before = os.stat(root / BIG_SPARSE)
    with open(root / BIG_SPARSE, "r+b") as f:
        f.seek((10 << 30) - (1 << 20) + 7)
        f.write(b"other")
    os.utime(root / BIG_SPARSE, ns=(1, before.st_mtime_ns))


def _change_deep(root: Path) -> None:
    fd = os.open(root / DEEP, os.O_RDONLY)
    while inner := [n for n in os.listdir(fd) if n.startswith("ddd")]:
        following = os.open(inner[0], os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = following
    os.unlink("fifo", dir_fd=fd)
    os.close(fd)


def _change_content(root: Path) -> None:
    (root / "files/zeros").write_bytes(bytes(199_999) + b"1")
    os.utime(root / "files/zeros", ns=(1, 1))


def _change_device(root: Path) -> None:
    os.unlink(root / "special/null")
    os.mknod(root / "special/null", 0o020666, os.makedev(1, 7))


def _separate_links(root: Path) -> None:
    path = root / "links b/elsewhere"
    path.unlink()
    shutil.copy2(root / "links a/file", path)


_CHANGES: dict[str, Callable[[Path], object]] = {
    "content": _change_content,
    "mode": lambda r: os.chmod(r / "files/mode-4755", 0o755),
    "owner": lambda r: os.lchown(r / "owners/link", 1, 1),
    "time of a link": lambda r: os.utime(r / "times/link 2200", ns=(1, 1), follow_symlinks=False),
    "time of a folder": lambda r: os.utime(r / "times/folder before", ns=(1, 2_000_000_000)),
    "attribute": lambda r: os.removexattr(r / "attributes/mode-0000", "user.still"),
    "capability": lambda r: os.removexattr(r / "attributes/capability", "security.capability"),
    "default ACL": _set_default_acl,
    "device number": _change_device,
    "hardlink": _separate_links,
    "missing": lambda r: os.unlink(r / "huge/000077"),
    "additional": lambda r: (r / "empty folder/more").touch(),
    "a filled hole": _fill_hole,
    "data of the big file": _change_big_data,
    "depth": _change_deep,
}

# Changes that no stat shows, or that are another's to undo.
_UNSEEN = {
    "additional": (b"empty folder/more",),
    "a filled hole": (BIG_SPARSE.encode(),),
    "data of the big file": (BIG_SPARSE.encode(),),
}


@pytest.mark.parametrize("what", _CHANGES)
def test_the_referee_sees(what: str, torture: Path, copied: Path) -> None:
    """Each kind of difference is found, and copying once more repairs what a stat can tell."""
    _CHANGES[what](copied)
    assert referee(torture, copied) != []
    target = FilesystemTarget(copied)
    for path in _UNSEEN.get(what, ()):
        target.remove(path)
    Copy(FilesystemSource([torture]), target).run()
    assert referee(torture, copied) == []


def test_over_a_tree_of_other_kinds(torture: Path, tmp_path: Path) -> None:
    """Everything that stands in the way is replaced: folders by files, links by folders, files by devices."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "files").symlink_to(tmp_path)
    (out / "special").write_bytes(b"was a file")
    (out / "attributes/file/inside/deep").mkdir(parents=True)
    (out / "attributes/symlink").mkdir()
    (out / "names").mkdir()
    os.mkfifo(out / "names/...")
    (out / "links a").mkdir()
    (out / "links a/fifo").write_bytes(b"was a file")
    (out / "links a/again").mkdir()
    (out / "times").mkdir()
    subprocess.run(["setfacl", "-d", "-m", "u:2:rwx", out / "times"], check=True)
    os.setxattr(out / "times", "user.old", b"goes")
    before = sorted(os.listdir(tmp_path))
    _copy(torture, out)
    assert referee(torture, out) == []
    assert sorted(os.listdir(tmp_path)) == before
