"""What a local source sees, and what it leaves out."""

import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from trees import as_user

import snapvault.source.filesystem as module
from snapvault.format.tree import Node, NodeKind
from snapvault.foundation.errors import InvalidInput, SourceError
from snapvault.platform.bulk import names_in
from snapvault.source.filesystem import FilesystemSource
from snapvault.source.protocol import FileReader


def _names(source: FilesystemSource, folder: Path | bytes) -> list[bytes]:
    listing = source.scan(os.fsencode(folder))
    assert listing.problems == []
    return [n.name for n in listing.nodes]


def _all(source: FilesystemSource, root: Path) -> set[str]:
    """Paths relative to ``root`` of all that would be stored."""
    found, folders = set(), [os.fsencode(root)]
    while folders:
        folder = folders.pop()
        for node in source.scan(folder).nodes:
            path = folder + b"/" + node.name
            found.add(os.fsdecode(path)[len(str(root)) + 1 :])
            if node.kind == NodeKind.DIRECTORY:
                folders.append(path)
    return found


def _make(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_bytes(path.encode())


def _open(source: FilesystemSource, path: Path) -> FileReader:
    node = next(n for n in source.scan(os.fsencode(path.parent)).nodes if n.name == os.fsencode(path.name))
    return source.open(os.fsencode(path), node)


def _read(reader: FileReader, size: int = 1000) -> bytes:
    return b"".join(iter(lambda: reader.read(size), b""))


def test_nodes_hold_what_lstat_tells(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.chmod(tmp_path / "file", 0o4750)
    os.chown(tmp_path / "file", 1, 12345)
    os.chmod(tmp_path / "file", 0o4750)
    os.utime(tmp_path / "file", ns=(1, -123_456_789))
    os.link(tmp_path / "file", tmp_path / "other")
    os.symlink(b"\xff\n", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "device", stat.S_IFBLK | 0o600, os.makedev(7, 1234))
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "socket"))
    (tmp_path / "folder").mkdir()
    os.setxattr(tmp_path / "file", "user.a", b"1")
    source = FilesystemSource([tmp_path])
    listing = source.scan(os.fsencode(tmp_path))
    assert [n.name for n in listing.nodes] == sorted(os.listdir(os.fsencode(tmp_path)))
    nodes = {n.name.decode(): n for n in listing.nodes}
    st = os.lstat(tmp_path / "file")
    assert nodes["file"] == Node(
        b"file", NodeKind.FILE, 0o4750, 1, 12345, -123_456_789, st.st_ctime_ns, st.st_ino, 5,
        link=(st.st_dev, st.st_ino), xattrs={b"user.a": b"1"},
    )  # fmt: skip
    assert nodes["other"].link == nodes["file"].link and nodes["folder"].link is None and nodes["fifo"].link is None
    assert nodes["link"].target == b"\xff\n" and nodes["device"].device == os.makedev(7, 1234)
    kinds = {n: nodes[n].kind for n in nodes}
    assert kinds == {
        "file": NodeKind.FILE, "other": NodeKind.FILE, "link": NodeKind.SYMLINK, "fifo": NodeKind.FIFO,
        "device": NodeKind.BLOCK, "socket": NodeKind.SOCKET, "folder": NodeKind.DIRECTORY,
    }  # fmt: skip
    assert source.users == {0: "root", 1: "daemon"} and 12345 not in source.groups


def test_roots_are_absolute_and_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path, "a/b/c/f", "ab/f", "x/f")
    monkeypatch.chdir(tmp_path / "a")
    root = os.fsencode(tmp_path)
    paths: list[Path | str | bytes] = [
        "b",
        "b/c",
        ".",
        tmp_path / "x",
        f"{tmp_path}//x/./",
        "../ab",
        os.fsencode(tmp_path) + b"/ab/f",
    ]
    assert FilesystemSource(paths).roots == (root + b"/a", root + b"/ab", root + b"/x")
    assert FilesystemSource([f"//{tmp_path}/x"]).roots == (root + b"/x",)
    assert FilesystemSource(["/"]).roots == (b"/",)
    for impossible in ([], [""], ["a\0b"]):
        with pytest.raises(InvalidInput):
            FilesystemSource(impossible)


def test_dotdot_after_a_symlink_is_resolved_as_the_kernel_does(tmp_path: Path) -> None:
    _make(tmp_path, "real/inner/f", "real/wanted/f", "wanted/other")
    (tmp_path / "link").symlink_to("real/inner")
    source = FilesystemSource([tmp_path / "link" / ".." / "wanted"])
    assert source.roots == (os.fsencode(tmp_path) + b"/real/wanted",)


def test_a_symlink_as_root(tmp_path: Path) -> None:
    _make(tmp_path, "real/f")
    link = tmp_path / "link"
    link.symlink_to("real")
    kept = FilesystemSource([link])
    assert kept.root_node(os.fsencode(link)).kind == NodeKind.SYMLINK
    assert kept.root_node(os.fsencode(link)).target == b"real"
    with pytest.raises(NotADirectoryError):
        kept.scan(os.fsencode(link))
    for followed in (FilesystemSource([f"{link}/"]), FilesystemSource([link, link / "f"])):
        assert followed.roots == (os.fsencode(link),)
        assert followed.root_node(os.fsencode(link)).kind == NodeKind.DIRECTORY
        assert _names(followed, link) == [b"f"]
    behind = FilesystemSource([link / "f"])
    assert behind.root_node(os.fsencode(link)).kind == NodeKind.DIRECTORY  # a folder above a root


def test_a_folder_replaced_by_a_link_is_not_followed(tmp_path: Path) -> None:
    _make(tmp_path, "root/folder/f", "secret/f")
    source = FilesystemSource([tmp_path / "root"])
    assert _names(source, tmp_path / "root") == [b"folder"]
    os.rename(tmp_path / "root/folder", tmp_path / "moved")
    os.symlink(tmp_path / "secret", tmp_path / "root/folder")
    with pytest.raises(NotADirectoryError):
        source.scan(os.fsencode(tmp_path / "root/folder"))


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    source = FilesystemSource([tmp_path / "missing"])
    with pytest.raises(SourceError, match=r"missing' cannot be read: No such file") as error:
        source.root_node(source.roots[0])
    assert error.value.affected == (str(tmp_path / "missing"),)


def test_patterns_are_those_of_gitignore(tmp_path: Path) -> None:
    _make(
        tmp_path, "keep.o", "a.o", "build/x", "sub/build/y", "sub/a.o", "doc/a.txt", "doc/deep/b.txt", "only/",
        "cache/c", "sub/cache",
    )  # fmt: skip
    source = FilesystemSource(
        [tmp_path], exclude=["*.o", "!keep.o", "/build", "doc/**/b.txt", "cache/", "# comment", ""]
    )
    assert _all(source, tmp_path) == {
        "keep.o", "sub", "sub/build", "sub/build/y", "sub/cache", "doc", "doc/a.txt", "doc/deep", "only"
    }  # fmt: skip


def test_the_patterns_do_what_git_does(tmp_path: Path) -> None:
    """git itself is the referee."""
    patterns = [
        "*.log",
        "!important.log",
        "/top",
        "sub/*.tmp",
        "**/deep/x",
        "dir/",
        "a?c",
        "[b-d]1",
        "\\#hash",
        "sp\\ ",
    ]
    paths = (
        "a.log", "important.log", "top", "sub/top", "sub/a.tmp", "sub/b/a.tmp", "q/deep/x", "q/deep/y", "dir/z",
        "s/dir", "abc", "ac", "b1", "e1", "#hash", "sp ", "sp", "é.log",
    )  # fmt: skip
    root = tmp_path / "root"
    _make(root, *paths)
    ours = _all(FilesystemSource([root], exclude=patterns), root)
    (tmp_path / "ignore").write_text("\n".join(patterns) + "\n")
    subprocess.run(["git", "init", "-q", "."], cwd=root, check=True)
    argv = ["git", "ls-files", "-z", "--others", "--exclude-from", str(tmp_path / "ignore")]
    listed = subprocess.run(argv, cwd=root, check=True, capture_output=True)
    assert {p for p in ours if (root / p).is_file()} == set(os.fsdecode(listed.stdout).split("\0")) - {""}


def test_a_name_that_ends_with_a_newline_is_not_taken_for_another(tmp_path: Path) -> None:
    for name in (b"skip", b"skip\n", b"\xff.skip", b"\xff"):
        (tmp_path / os.fsdecode(name)).touch()
    source = FilesystemSource([tmp_path], exclude=["skip", "*.skip"])
    assert _names(source, tmp_path) == [b"skip\n", b"\xff"]


def test_patterns_are_anchored_at_the_root_that_was_named(tmp_path: Path) -> None:
    _make(tmp_path, "a/x", "a/b/x", "a/b/c/x")
    assert _all(FilesystemSource([tmp_path / "a"], exclude=["/x"]), tmp_path) >= {"a/b/x", "a/b/c/x"}
    both = FilesystemSource([tmp_path / "a", tmp_path / "a/b"], exclude=["/x"])
    assert both.roots == (os.fsencode(tmp_path / "a"),)
    assert _all(both, tmp_path / "a") == {"b", "b/c", "b/c/x"}


def test_what_was_named_is_never_excluded(tmp_path: Path) -> None:
    _make(tmp_path, "a/cache/x", "a/other/cache/x")
    source = FilesystemSource([tmp_path / "a", tmp_path / "a/cache"], exclude=["cache"])
    assert _all(source, tmp_path / "a") == {"cache", "cache/x", "other"}


def test_a_malformed_pattern_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"'\!' is malformed|'!' is malformed"):
        FilesystemSource([tmp_path], exclude=["good", "!"])


def test_exclude_files_and_lists_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _make(tmp_path, "a/x.o", "a/y", "b", "c")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "excludes").write_text("# objects\n*.o\n\n")
    (tmp_path / "lines").write_bytes(b"a\n\n" + os.fsencode(tmp_path) + b"/b\n")
    (tmp_path / "zeros").write_bytes(b"a\0odd\nname\0")
    source = FilesystemSource([], exclude_files=["excludes"], files_from=["lines"])
    assert source.roots == (os.fsencode(tmp_path / "a"), os.fsencode(tmp_path / "b"))
    assert _names(source, tmp_path / "a") == [b"y"]
    assert FilesystemSource([], files_from=["zeros"]).roots[1] == os.fsencode(tmp_path / "odd\nname")
    for option in ("exclude_files", "files_from"):
        with pytest.raises(SourceError, match="nowhere"):
            FilesystemSource([tmp_path], **{option: ["nowhere"]})  # type: ignore[arg-type]


def test_cache_folders_keep_only_their_tag(tmp_path: Path) -> None:
    _make(tmp_path, "cache/x", "cache/sub/y", "other/CACHEDIR.TAG", "other/z", "fifo/q")
    os.mkfifo(tmp_path / "fifo/CACHEDIR.TAG")
    (tmp_path / "cache/CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55\n# more")
    assert _all(FilesystemSource([tmp_path], exclude_caches=True), tmp_path) == {
        "cache", "cache/CACHEDIR.TAG", "other", "other/CACHEDIR.TAG", "other/z", "fifo", "fifo/CACHEDIR.TAG", "fifo/q"
    }  # fmt: skip
    assert "cache/sub/y" in _all(FilesystemSource([tmp_path]), tmp_path)


def test_files_above_a_size_are_left_out(tmp_path: Path) -> None:
    for size in (0, 99, 100, 101):
        (tmp_path / str(size)).write_bytes(bytes(size))
    os.truncate(tmp_path / "0", 0)
    (tmp_path / "folder").mkdir()
    os.symlink("x" * 200, tmp_path / "link")
    source = FilesystemSource([tmp_path], exclude_larger_than=100)
    assert _names(source, tmp_path) == [b"0", b"100", b"99", b"folder", b"link"]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A tree with another file system at ``mount``, which holds ``inner``."""
    _make(tmp_path, "root/f", "root/mount/", "root/other/g")
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "root/mount"], check=True)
    try:
        _make(tmp_path, "root/mount/inner/h")
        yield tmp_path / "root"
    finally:
        subprocess.run(["umount", tmp_path / "root/mount"], check=True)


def test_other_file_systems(mounted: Path) -> None:
    """Left out with one_file_system (the mount point stays), unless they were named."""
    here = {"f", "mount", "other", "other/g"}
    assert _all(FilesystemSource([mounted]), mounted) == here | {"mount/inner", "mount/inner/h"}
    assert _all(FilesystemSource([mounted], one_file_system=True), mounted) == here
    both = FilesystemSource([mounted, mounted / "mount"], one_file_system=True)
    assert both.roots == (os.fsencode(mounted),)
    assert _all(both, mounted) == here | {"mount/inner", "mount/inner/h"}


def test_a_skipped_place_is_left_out_by_whatever_name(tmp_path: Path) -> None:
    _make(tmp_path, "root/repo/config", "root/f", "root/bound/")
    (tmp_path / "alias").symlink_to("root/repo")
    for skip in (tmp_path / "root/repo", tmp_path / "alias/"):
        source = FilesystemSource([tmp_path / "root"], skip=[skip])
        assert _all(source, tmp_path / "root") == {"f", "bound"}
    subprocess.run(["mount", "--bind", tmp_path / "root/repo", tmp_path / "root/bound"], check=True)
    try:
        assert _all(FilesystemSource([tmp_path / "root"], skip=[tmp_path / "root/repo"]), tmp_path / "root") == {"f"}
    finally:
        subprocess.run(["umount", tmp_path / "root/bound"], check=True)
    assert (
        _names(FilesystemSource([tmp_path / "root/repo"], skip=[tmp_path / "root/repo"]), tmp_path / "root/repo") == []
    )


def test_an_entry_that_vanishes_is_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(20):
        (tmp_path / f"{i}").touch()

    def deleting(fd: int) -> list[bytes]:
        names = names_in(fd)
        for name in names[1:]:
            os.unlink(name, dir_fd=fd)
        return names

    monkeypatch.setattr(module, "names_in", deleting)
    listing = FilesystemSource([tmp_path]).scan(os.fsencode(tmp_path))
    assert len(listing.nodes) == 1 and len(listing.problems) == 19
    assert all(p.vanished and p.path.startswith(os.fsencode(tmp_path) + b"/") for p in listing.problems)


def test_a_folder_that_vanished_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FilesystemSource([tmp_path]).scan(os.fsencode(tmp_path / "gone"))


def test_what_a_user_may_not_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        _make(root, "closed/f", "secret", "open")
        (root / "closed").chmod(0o711)
        (root / "secret").chmod(0o600)
        for path in ("open", "closed"):
            os.setxattr(root / path, "user.a", b"1")
        with as_user(12345, 12345):
            source = FilesystemSource([root])
            listing = source.scan(os.fsencode(root))
            assert [n.name for n in listing.nodes] == [b"closed", b"open", b"secret"]
            assert [(p.path, p.vanished) for p in listing.problems] == [(os.fsencode(root / "closed"), False)]
            assert "user.a" in listing.problems[0].message and "Permission denied" in listing.problems[0].message
            with pytest.raises(PermissionError):
                source.scan(os.fsencode(root / "closed"))
            with pytest.raises(PermissionError):
                source.open(os.fsencode(root / "secret"), listing.nodes[2])
            # Somebody else's file: O_NOATIME is refused, and reading still works.
            assert _read(source.open(os.fsencode(root / "open"), listing.nodes[1])) == b"open"


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    _make(tmp_path, "d/f")
    for path in (tmp_path / "d/f", tmp_path / "d"):
        os.utime(path, ns=(1, 10**18))
    source = FilesystemSource([tmp_path / "d"])
    assert _read(_open(source, tmp_path / "d/f")) == b"d/f"
    assert os.stat(tmp_path / "d/f").st_atime_ns == 1 and os.stat(tmp_path / "d").st_atime_ns == 1


def test_a_file_is_delivered_whole(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "f").write_bytes(data)
    reader = _open(FilesystemSource([tmp_path]), tmp_path / "f")
    assert _read(reader, 777) == data and reader.read(1) == b""
    assert reader.finish() is True
    assert reader.node.size == 100_000 and reader.node.extents is None
    assert reader.finish() is False  # closed


def test_a_file_not_read_to_its_end_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    reader = _open(FilesystemSource([tmp_path]), tmp_path / "f")
    assert reader.read(3) == b"123"
    assert reader.finish() is False and reader.node.size == 3


def test_descriptors_are_closed_without_finish(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    source = FilesystemSource([tmp_path])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        _open(source, tmp_path / "f").read(1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_node_is_that_of_the_open_file(tmp_path: Path) -> None:
    _make(tmp_path, "f")
    source = FilesystemSource([tmp_path])
    node = source.scan(os.fsencode(tmp_path)).nodes[0]
    assert source.open(os.fsencode(tmp_path / "f"), node).node is node
    os.unlink(tmp_path / "f")
    (tmp_path / "f").write_bytes(b"another file")
    os.setxattr(tmp_path / "f", "user.new", b"1")
    reader = source.open(os.fsencode(tmp_path / "f"), node)
    assert reader.node.size == 12 and reader.node.xattrs == {b"user.new": b"1"} and reader.node.name == b"f"
    assert reader.node.inode == os.stat(tmp_path / "f").st_ino
    assert _read(reader) == b"another file" and reader.finish()


def test_a_file_that_grows_ends_where_it_ended(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    reader = _open(FilesystemSource([tmp_path]), tmp_path / "f")
    with open(tmp_path / "f", "ab") as f:
        f.write(b"678")
    assert _read(reader) == b"12345" and reader.finish() is False and reader.node.size == 5


def test_a_file_that_changes_in_place_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    os.utime(tmp_path / "f", ns=(1, 1))
    reader = _open(FilesystemSource([tmp_path]), tmp_path / "f")
    with open(tmp_path / "f", "r+b") as f:
        f.write(b"x")
    os.utime(tmp_path / "f", ns=(1, 1))  # size and mtime as before: only ctime tells
    assert _read(reader) == b"x2345" and reader.finish() is False


def test_a_file_that_is_cut_gets_the_size_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(10_000))
    reader = _open(FilesystemSource([tmp_path]), tmp_path / "f")
    assert len(reader.read(4000)) == 4000
    os.truncate(tmp_path / "f", 6000)
    assert len(_read(reader)) == 2000
    assert reader.finish() is False and reader.node.size == 6000


def _sparse(path: Path, size: int, *islands: tuple[int, bytes]) -> None:
    with open(path, "wb") as f:
        for offset, data in islands:
            f.seek(offset)
            f.write(data)
        f.truncate(size)


def test_of_a_sparse_file_only_data_is_delivered(tmp_path: Path) -> None:
    block = os.urandom(4096)
    _sparse(tmp_path / "f", 1 << 40, (1 << 20, block), (1 << 39, block))
    reader = _open(FilesystemSource([tmp_path]), tmp_path / "f")
    assert reader.node.extents == ((1 << 20, 4096), (1 << 39, 4096)) and reader.node.size == 1 << 40
    assert _read(reader, 1000) == block + block
    assert reader.finish() is True
    _sparse(tmp_path / "f", 5000)
    reader = _open(FilesystemSource([tmp_path]), tmp_path / "f")
    assert reader.node.extents == () and _read(reader) == b"" and reader.finish() is True


def test_a_sparse_file_that_is_cut_gets_a_map_that_fits(tmp_path: Path) -> None:
    block = bytes(range(256)) * 16
    _sparse(tmp_path / "f", 1 << 20, (4096, block), (1 << 19, block))
    reader = _open(FilesystemSource([tmp_path]), tmp_path / "f")
    os.truncate(tmp_path / "f", (1 << 19) + 100)
    assert _read(reader) == block + block[:100]
    assert reader.finish() is False
    assert reader.node.extents == ((4096, 4096), (1 << 19, 100)) and reader.node.size == (1 << 19) + 100
    _sparse(tmp_path / "f", 1 << 20, (4096, block), (1 << 19, block))
    reader = _open(FilesystemSource([tmp_path]), tmp_path / "f")
    os.truncate(tmp_path / "f", 0)
    assert _read(reader) == b"" and reader.finish() is False
    assert reader.node.extents == () and reader.node.size == 0


def test_a_fifo_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1")
    source = FilesystemSource([tmp_path])
    node = source.scan(os.fsencode(tmp_path)).nodes[0]
    os.unlink(tmp_path / "f")
    os.mkfifo(tmp_path / "f")
    with pytest.raises(OSError) as error:
        source.open(os.fsencode(tmp_path / "f"), node)
    assert error.value.errno == errno.ESTALE
    os.unlink(tmp_path / "f")
    os.symlink("/etc/passwd", tmp_path / "f")
    with pytest.raises(OSError) as error:
        source.open(os.fsencode(tmp_path / "f"), node)
    assert error.value.errno == errno.ELOOP


_LEASE = """
import fcntl, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR)
signal.signal(signal.SIGIO, lambda *_: (fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK), os._exit(0)))
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
signal.pause()
signal.pause()
"""


def test_a_file_under_a_lease_is_waited_for(tmp_path: Path) -> None:
    """Samba leases files: the holder is asked to give way, instead of the file being reported as unreadable."""
    (tmp_path / "f").write_bytes(b"leased")
    holder = subprocess.Popen([sys.executable, "-c", _LEASE, str(tmp_path / "f")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"leased\n"
        assert _read(_open(FilesystemSource([tmp_path]), tmp_path / "f")) == b"leased"
    finally:
        holder.kill()
        holder.communicate()


def test_paths_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path / "root")
    os.mkdir(root)
    fd = os.open(root, os.O_RDONLY)
    for _ in range(60):  # more than two parts of PATH_MAX
        os.mkdir(b"d" * 250, dir_fd=fd)
        inner = os.open(b"d" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    file = os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.write(file, b"deep")
    os.setxattr(file, "user.a", b"1")
    os.close(file)
    os.symlink("target", b"l" * 255, dir_fd=fd)
    os.close(fd)
    source = FilesystemSource([root])
    path = root
    for _ in range(60):
        listing = source.scan(path)
        assert [n.name for n in listing.nodes] == [b"d" * 250] and not listing.problems
        path += b"/" + b"d" * 250
    nodes = source.scan(path).nodes
    assert nodes[0].xattrs == {b"user.a": b"1"} and nodes[1].target == b"target"
    assert len(path) > 15_000
    reader = source.open(path + b"/f", nodes[0])
    assert _read(reader) == b"deep" and reader.finish() is True
    assert FilesystemSource([path]).root_node(path).kind == NodeKind.DIRECTORY
    subprocess.run(["rm", "-rf", root], check=True)  # pytest's own removal gives up on such a tree


def test_reading_ahead_in_a_long_path_that_is_gone(tmp_path: Path) -> None:
    """Whoever opens the files then says what is wrong; the backup goes on."""
    node = Node(b"f", NodeKind.FILE, 0o644, 0, 0, 0, 0, 1, 1)
    gone = os.fsencode(tmp_path) + (b"/" + b"x" * 200) * 20
    assert FilesystemSource([tmp_path]).read_ahead(gone, [node]) == [None]
