"""Many entries at once: the compiled calls and their twins tell the same of everything that a folder can hold."""

import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trees import as_user

from snapvault.platform import bulk, metadata
from snapvault.platform.bulk import (
    Entry,
    Expected,
    NewFile,
    entry_from_stat,
    extras,
    names_in,
    read_files,
    stat_entry,
    write_files,
)


def twin_stat(fd: int, prefix: bytes, names: list[bytes]) -> list[Entry | int]:
    return [stat_entry(fd, prefix, n) for n in names]


Stat = Callable[[int, bytes, list[bytes]], list[Entry | int]]
STATS = pytest.mark.parametrize("stats", [bulk.stat_entries, twin_stat], ids=["native", "twin"])


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def expected(path: Path) -> Expected:
    st = path.lstat()
    return os.fsencode(path.name), st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino


def test_the_native_module_is_there() -> None:
    assert None not in (bulk._list_names, bulk._stat_entries, bulk._read_files, bulk._write_files)


def test_names(opened: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = sorted([b"a", b".hidden", b"\xff\xfe", "ü".encode(), b"x" * 255, *(b"%d" % i for i in range(3000))])
    for name in wanted:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=opened))
    for _ in range(2):  # once more: the descriptor stands where the last reading ended
        assert names_in(opened) == wanted
    monkeypatch.setattr(bulk, "_list_names", None)
    assert names_in(opened) == wanted


def test_names_of_what_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    for number in (fd, 9999):
        with pytest.raises(OSError, match=r"Not a directory|Bad file descriptor"):
            names_in(number)
    os.close(fd)


@STATS
def test_entries_of_every_kind(stats: Stat, opened: int, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"12345")
    os.chown(tmp_path / "plain", 4_000_000_000, 12345)
    (tmp_path / "plain").chmod(0o6751)
    os.utime(tmp_path / "plain", ns=(0, -1_500_000_001))
    (tmp_path / "folder").mkdir()
    (tmp_path / "twice").touch()
    os.link(tmp_path / "twice", tmp_path / "again")
    os.symlink("/nowhere", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "block", 0o60600, os.makedev(259, 70_000))
    (tmp_path / "marked").touch()
    os.setxattr(tmp_path / "marked", "user.a", b"1")
    os.setxattr(tmp_path / "marked", "trusted.bc", b"")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 42)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket")[-100:] if len(str(tmp_path)) < 90 else f"/proc/self/fd/{opened}/socket")
    (tmp_path / os.fsdecode(b"\xff name")).touch()
    names = names_in(opened)
    told = stats(opened, os.fsencode(tmp_path) + b"/", names)
    lengths = {b"marked": len("user.a") + len("trusted.bc") + 2}
    wanted = [entry_from_stat(n, (tmp_path / os.fsdecode(n)).lstat(), lengths.get(n, 0)) for n in names]
    assert told == wanted and len(told) == 11
    entries = {e[0]: e for e in told if isinstance(e, tuple)}
    assert entries[b"plain"][1:6] == (0, 0o6751, 4_000_000_000, 12345, -1_500_000_001)
    assert [e[0] for e in told if isinstance(e, tuple) and len(e) == 9] == [b"folder", b"huge", b"plain", b"\xff name"]
    assert extras(entries[b"block"])[2] == os.makedev(259, 70_000)
    assert extras(entries[b"again"])[0] == 2 and extras(entries[b"marked"])[3] == 18


@STATS
def test_what_cannot_be_told(stats: Stat, opened: int, tmp_path: Path) -> None:
    """An error number in its place, and the others beside it."""
    (tmp_path / "b").touch()
    told = stats(opened, os.fsencode(tmp_path) + b"/", [b"a", b"b", b"c" * 300])
    assert told == [errno.ENOENT, entry_from_stat(b"b", (tmp_path / "b").stat()), errno.ENAMETOOLONG]
    (entry,) = stats(opened, b"/gone/", [b"b"])
    assert isinstance(entry, tuple) and extras(entry)[3] == -errno.ENOENT
    (entry,) = stats(opened, b"/" + b"x" * 5000 + b"/", [b"b"])
    assert isinstance(entry, tuple) and extras(entry)[3] == -errno.ENAMETOOLONG


def test_files_are_read_whole(opened: int, tmp_path: Path) -> None:
    sizes = (0, 1, 4096, 1_000_000)
    for size in sizes:
        (tmp_path / f"{size}").write_bytes(os.urandom(size))
    paths = [tmp_path / f"{s}" for s in sizes]
    assert read_files(opened, [expected(p) for p in paths]) == [p.read_bytes() for p in paths]


def test_what_is_not_as_expected_is_not_read(opened: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    name, size, mtime, ctime, inode = expected(tmp_path / "f")
    wrong: list[Expected] = [
        (name, size - 1, mtime, ctime, inode), (name, size + 1, mtime, ctime, inode),
        (name, size, mtime + 1, ctime, inode), (name, size, mtime, ctime - 1, inode),
        (name, size, mtime, ctime, inode + 1), (b"gone", size, mtime, ctime, inode),
    ]  # fmt: skip
    assert read_files(opened, [*wrong, expected(tmp_path / "f")]) == [None] * 6 + [b"12345"]


def test_what_is_no_plain_file_is_not_read(opened: int, tmp_path: Path) -> None:
    """Nor does it block on a FIFO; holes are left to whoever keeps them."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"1")
    os.symlink("file", tmp_path / "link")
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 100_000)
    paths = [tmp_path / n for n in ("fifo", "folder", "link", "sparse")]
    assert read_files(opened, [expected(p) for p in paths]) == [None] * 4


def test_reading_leaves_the_access_time_alone(opened: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    os.utime(tmp_path / "f", ns=(10**18, 2 * 10**18))
    assert read_files(opened, [expected(tmp_path / "f")]) == [b"12345"]
    assert (tmp_path / "f").stat().st_atime_ns == 10**18


# -- new files --------------------------------------------------------------------------------------------------------


def new(fd: int, name: bytes, data: bytes = b"12345", mode: int = 0o640, uid: int = 0, mtime: int = 10**18) -> NewFile:
    return fd, name, memoryview(data), mode, uid, 12345, mtime


def test_files_are_made_whole(opened: int, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        files = [
            new(opened, b"a"), new(opened, b"b", os.urandom(1_000_000), 0o6755, 4_000_000_000, -1_500_000_001),
            new(opened, b"c", b"", 0o000), new(opened, b"\xff"),
        ]  # fmt: skip
        assert write_files(files) == [0] * 4
    finally:
        os.umask(before)
    for _, name, data, mode, uid, gid, mtime in files:
        path = tmp_path / os.fsdecode(name)
        st = path.stat()
        assert path.read_bytes() == data
        assert (st.st_mode & 0o7777, st.st_uid, st.st_gid, st.st_mtime_ns) == (mode, uid, gid, mtime)


def test_nothing_that_is_there_is_touched(opened: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    os.symlink(tmp_path / "elsewhere", tmp_path / "link")
    os.mkdir(tmp_path / "folder")
    errors = write_files([new(opened, n) for n in (b"file", b"link", b"folder", b"x" * 300, b"good", b"nowhere/f")])
    assert errors == [errno.EEXIST] * 3 + [errno.ENAMETOOLONG, 0, errno.ENOENT]
    assert (tmp_path / "file").read_bytes() == b"mine" and not (tmp_path / "elsewhere").exists()
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "good", "link"]


def test_what_fails_leaves_nothing(opened: int, tmp_path: Path) -> None:
    """A full disk in the middle, and an owner that may not be given."""
    os.mkdir(tmp_path / "small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path / "small"], check=True)
    small = os.open(tmp_path / "small", os.O_RDONLY)
    try:
        assert write_files([new(small, b"a", b"1" * 200_000), new(small, b"b")]) == [errno.ENOSPC, 0]
        assert os.listdir(tmp_path / "small") == ["b"]
    finally:
        os.close(small)
        subprocess.run(["umount", tmp_path / "small"], check=True)
    tmp_path.chmod(0o777)
    with as_user(12345, 12345):
        assert write_files([new(opened, b"c", uid=1), new(opened, b"d", uid=12345)]) == [errno.EPERM, 0]
    assert sorted(os.listdir(tmp_path)) == ["d", "small"]


def test_an_inherited_acl_is_left_to_whoever_knows_acls(opened: int, tmp_path: Path) -> None:
    subprocess.run(["setfacl", "-d", "-m", "u:nobody:rwx", tmp_path], check=True)
    assert write_files([new(opened, b"a")]) == [errno.EEXIST]
    assert os.listdir(tmp_path) == []


def test_arguments_that_are_none() -> None:
    native = bulk._stat_entries
    assert native is not None and bulk._read_files is not None
    with pytest.raises(TypeError):
        native(0, b"/", ["text"])
    with pytest.raises(TypeError):
        native(0, b"/", ("text",))
    with pytest.raises(TypeError):
        bulk._read_files(0, ((b"name",),))
    with pytest.raises((OSError, SystemError)):
        bulk._read_files(0, ((b"name", -1, 0, 0, 0),))
    assert bulk._write_files is not None
    for wrong in ([], ((0, b"name", "text", 0, 0, 0, 0),), ((0, b"a\0b", b"", 0, 0, 0, 0),)):
        with pytest.raises((TypeError, ValueError)):
            bulk._write_files(wrong)


def test_a_new_file_lets_nobody_in_before_it_has_its_group(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from snapvault.platform.bulk import write_files\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "wanted = [(fd, b'new %o' % m, memoryview(b'x'), m, 3, 9, 1) for m in (0o640, 0o664, 0o644)]\n"
        "assert write_files(wanted) == [0] * 3"
    )
    log = tmp_path / "log"
    subprocess.run(
        ["strace", "-qq", "-o", log, "-e", "trace=openat", sys.executable, "-c", program, tmp_path],
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(bulk.__file__).parents[2])},
    )
    made = [line.split("O_CLOEXEC, ")[1][:4] for line in log.read_text().splitlines() if '"new ' in line]
    assert made == ["0600", "0644", "0644"]
    assert [stat.S_IMODE((tmp_path / f"new {m:o}").stat().st_mode) for m in (0o640, 0o664, 0o644)] == [
        0o640, 0o664, 0o644,
    ]  # fmt: skip


def test_attributes_that_are_too_large_together_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        os.setxattr(tmp_path, f"user.{name}", name.encode() * 1000)
    monkeypatch.setattr(metadata, "ATTRIBUTES_MAX", 2 * (len("user.a") + 1000))
    values, failures = metadata.read_xattrs(tmp_path, ["user.a", "user.b", "user.c"])
    assert values == {b"user.a": b"a" * 1000, b"user.b": b"b" * 1000}
    assert [(name, error.errno) for name, error in failures] == [(b"user.c", errno.E2BIG)]
