"""What a local target does, call by call."""

import os
import resource
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from trees import NET_ADMIN, as_user

from snapvault.format.tree import Node, NodeKind
from snapvault.target.filesystem import FilesystemTarget
from snapvault.target.folders import KEPT


@pytest.fixture
def target(tmp_path: Path) -> FilesystemTarget:
    return FilesystemTarget(tmp_path / "new" / "target")


def _root(target: FilesystemTarget) -> Path:
    return Path(target.label)


def _node(kind: int = NodeKind.FILE, mode: int = 0o640, **more: object) -> Node:
    return Node(b"f", kind, mode, 0, 0, 10**18 + 1, **more)  # type: ignore[arg-type]


def test_a_new_file_is_private_until_its_mode_is_set(target: FilesystemTarget) -> None:
    fd = target.create_new(b"f")
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    assert target.apply(b"f", _node(mode=0o4755), fd=fd) == []
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o4755
    os.close(fd)


def test_setuid_outlives_a_change_of_owner(target: FilesystemTarget) -> None:
    """The mode is already right, but setting the owner takes the bits away."""
    (_root(target) / "f").touch()
    os.chmod(_root(target) / "f", 0o6755)
    node = _node(mode=0o6755)
    node.uid = 12345
    assert target.apply(b"f", node) == []
    assert stat.S_IMODE((_root(target) / "f").stat().st_mode) == 0o6755


def test_a_replacement_shows_nothing_before_its_commit(target: FilesystemTarget) -> None:
    (_root(target) / "f").write_bytes(b"old")
    new = target.create(b"f")
    os.write(new.fd, b"new")
    assert (_root(target) / "f").read_bytes() == b"old"
    new.commit()
    assert (_root(target) / "f").read_bytes() == b"new"
    assert target.listdir(b"") == [b"f"]


def test_an_abandoned_replacement_leaves_nothing(target: FilesystemTarget) -> None:
    (_root(target) / "f").write_bytes(b"old")
    new = target.create(b"f")
    os.write(new.fd, b"new")
    new.abort()
    new.abort()
    assert (_root(target) / "f").read_bytes() == b"old"
    assert target.listdir(b"") == [b"f"]


def test_a_replacement_takes_the_place_of_a_folder(target: FilesystemTarget) -> None:
    (_root(target) / "f/below").mkdir(parents=True)
    assert target.listdir(b"f/below") == []  # kept open
    new = target.create(b"f")
    new.commit()
    assert (_root(target) / "f").is_file()
    assert target.make_directory(b"f") is True
    assert target.make_directory(b"f") is False
    assert target.make_directory(b"f/below") is True  # the folder that was kept open is not taken for the new one
    assert (_root(target) / "f/below").is_dir()


def test_differs_names_each_difference(target: FilesystemTarget) -> None:
    (_root(target) / "f").write_bytes(b"12345")
    node = _node(size=5, xattrs={b"user.a": b"1"})
    assert target.differs(b"nothing", node) == {"missing"}
    assert target.differs(b"f", node) == {"mode", "xattrs", "mtime"}
    assert target.apply(b"f", node) == []
    assert target.differs(b"f", node) == frozenset()
    changes: dict[str, Node] = {
        "size": _node(size=6, xattrs=node.xattrs),
        "mode": _node(size=5, mode=0o641, xattrs=node.xattrs),
        "xattrs": _node(size=5),
        "kind": _node(NodeKind.FIFO),
    }
    for what, other in changes.items():
        assert target.differs(b"f", other) == {what}
    other = _node(size=5, xattrs=node.xattrs)
    other.mtime_ns += 1
    assert target.differs(b"f", other) == {"mtime"}
    other = _node(size=5, xattrs=node.xattrs)
    other.gid = 6
    assert target.differs(b"f", other) == {"owner"}
    target.symlink(b"l", b"a")
    assert target.differs(b"l", _node(NodeKind.SYMLINK, 0o644, target=b"b")) == {"target", "mtime"}
    target.special(b"d", _node(NodeKind.CHARACTER, device=os.makedev(1, 3)))
    assert "device" in target.differs(b"d", _node(NodeKind.CHARACTER, device=os.makedev(1, 5)))


def test_owners_are_mapped_by_name(tmp_path: Path) -> None:
    """uid 4000 was ``daemon`` where the snapshot was made; here that is user 1."""
    node = _node()
    node.uid, node.gid = 4000, 4001
    users, groups = {4000: "daemon"}, {4001: "no such group here"}
    for numeric, uid in ((False, 1), (True, 4000)):
        target = FilesystemTarget(tmp_path, numeric_owner=numeric)
        target.create(b"f").commit()
        assert "owner" in target.differs(b"f", node, users, groups)
        assert target.apply(b"f", node, users, groups) == []
        assert (os.lstat(tmp_path / "f").st_uid, os.lstat(tmp_path / "f").st_gid) == (uid, 4001)
        assert target.differs(b"f", node, users, groups) == frozenset()


def test_attributes_that_are_not_in_the_node_go(target: FilesystemTarget) -> None:
    path = _root(target) / "f"
    path.touch()
    subprocess.run(["setfacl", "-m", "u:2:rw,m::rwx", path], check=True)
    os.setxattr(path, "user.old", b"1")
    os.setxattr(path, "security.selinux", b"system_u:object_r:etc_t:s0\0")
    assert target.apply(b"f", _node(mode=0o604)) == []
    assert os.listxattr(path) == ["security.selinux"]  # the label is the system's own
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert target.differs(b"f", _node(mode=0o604)) == frozenset()


def test_a_new_file_does_not_keep_an_inherited_acl(target: FilesystemTarget) -> None:
    subprocess.run(["setfacl", "-d", "-m", "u:2:rwx,g::rwx,o::rwx", _root(target)], check=True)
    fd = target.create_new(b"f")
    assert target.apply(b"f", _node(mode=0o640), fd=fd) == []
    os.close(fd)
    assert os.listxattr(_root(target) / "f") == []
    assert stat.S_IMODE((_root(target) / "f").stat().st_mode) == 0o640


def test_attributes_that_do_not_fit_are_told(target: FilesystemTarget) -> None:
    (_root(target) / "f").touch()
    shortfalls = target.apply(b"f", _node(xattrs={b"user.huge": bytes(60_000), b"user.good": b"1", b"nonsense": b""}))
    assert {(s.what, s.needs_root) for s in shortfalls} == {("xattrs", False)}
    assert sorted(m for s in shortfalls for m in s.message.split("'") if "." in m or m == "nonsense")[0] == "nonsense"
    assert len(shortfalls) == 2 and os.listxattr(_root(target) / "f") == ["user.good"]


@pytest.mark.parametrize("seconds", [-(2**40), 2**40, 2**62, -(2**70), 2**70])
def test_a_time_out_of_range_is_told(seconds: int, target: FilesystemTarget) -> None:
    (_root(target) / "f").touch()
    node = _node()
    node.mtime_ns = seconds * 10**9
    assert [(s.what, s.needs_root) for s in target.apply(b"f", node)] == [("mtime", False)]


def test_hardlinks(target: FilesystemTarget) -> None:
    target.make_directory(b"d")
    os.close(target.create_new(b"f"))
    os.close(target.create_new(b"d/other"))
    target.link(b"f", b"d/other")
    target.link(b"f", b"d/other")
    target.symlink(b"l", b"nowhere")
    target.link(b"l", b"d/l")
    assert os.lstat(target.root + b"/f").st_ino == os.lstat(target.root + b"/d/other").st_ino
    assert os.lstat(target.root + b"/l").st_ino == os.lstat(target.root + b"/d/l").st_ino


def test_removing_what_is_deeper_than_any_path(target: FilesystemTarget) -> None:
    """1500 levels: no recursion limit, few descriptors, no PATH_MAX."""
    target.make_directory(b"t")
    path = b"t"
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (KEPT + 200, limits[1]))
    try:
        for level in range(1500):
            path += b"/%d" % level
            target.make_directory(path)
            if level % 100 == 0:
                os.close(target.create_new(path + b"/file"))
        assert target.node(path) is not None
        target._folders.clear()
        assert target.lstat(path) is not None  # walked anew from the root
        target.remove(b"t")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert target.listdir(b"") == []
    target.remove(b"t")  # nothing there is fine


def test_threads_and_more_folders_than_are_kept_open(target: FilesystemTarget) -> None:
    """An eviction never closes a folder under a thread that uses it: every file lands in its own folder."""
    folders = 3 * KEPT + 1  # a prime: each worker visits each folder once
    barrier = threading.Barrier(4)
    for i in range(folders):
        target.make_directory(b"%d" % i)

    def work(worker: int) -> None:
        barrier.wait()
        for i in range(folders):
            folder = (i * (2 * worker + 1) + worker) % folders
            fd = target.create_new(b"%d/%d" % (folder, worker))
            os.write(fd, b"%d/%d" % (folder, worker))
            target.apply(b"%d/%d" % (folder, worker), _node(mode=0o600), fd=fd)
            os.close(fd)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    for i in range(folders):
        for name in target.listdir(b"%d" % i):
            assert (_root(target) / str(i) / name.decode()).read_bytes() == b"%d/%s" % (i, name)
        assert len(target.listdir(b"%d" % i)) >= 1
    assert sum(len(target.listdir(b"%d" % i)) for i in range(folders)) == 4 * folders
    open_now = len(os.listdir("/proc/self/fd"))
    target.close()
    assert len(os.listdir("/proc/self/fd")) <= open_now - KEPT + 10


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder that user 12345 owns and can reach (pytest's own folders are root's alone)."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o711)
        folder = Path(name) / "mine"
        folder.mkdir()
        os.chown(folder, 12345, 12345)
        yield folder


def test_without_root_what_needs_it_is_told_apart(theirs: Path) -> None:
    node = Node(b"f", NodeKind.FILE, 0o6755, 1, 1, 5)
    node.xattrs = {b"user.a": b"1", b"trusted.b": b"2", b"security.capability": NET_ADMIN}
    with as_user(12345, 12345):
        target = FilesystemTarget(theirs)
        fd = target.create_new(b"f")
        shortfalls = target.apply(b"f", node, fd=fd)
        os.close(fd)
        device = target.special(b"d", Node(b"d", NodeKind.BLOCK, 0o600, 0, 0, 0, device=1))
        assert target.special(b"p", Node(b"p", NodeKind.FIFO, 0o600, 0, 0, 0)) is None
        differing = target.differs(b"f", node)
    assert sorted((s.what, s.needs_root) for s in shortfalls) == [("owner", True), ("xattrs", True), ("xattrs", True)]
    assert device is not None and device.needs_root
    assert not (theirs / "d").exists() and stat.S_ISFIFO((theirs / "p").stat().st_mode)
    st = (theirs / "f").stat()
    assert stat.S_IMODE(st.st_mode) == 0o755  # setuid of another owner's file would be a hole
    assert st.st_mtime_ns == 5 and os.listxattr(theirs / "f") == ["user.a"]
    assert "owner" in differing and "xattrs" in differing


def test_without_root_setuid_of_ones_own_file_stays(theirs: Path) -> None:
    with as_user(12345, 12345):
        target = FilesystemTarget(theirs)
        os.close(target.create_new(b"f"))
        assert target.apply(b"f", Node(b"f", NodeKind.FILE, 0o4700, 12345, 12345, 5)) == []
    assert stat.S_IMODE((theirs / "f").stat().st_mode) == 0o4700


def test_without_root_folders_of_others_are_refused(theirs: Path) -> None:
    (theirs / "roots").mkdir(mode=0o755)
    with as_user(12345, 12345):
        target = FilesystemTarget(theirs)
        assert target.make_directory(b"roots") is False
        with pytest.raises(PermissionError):
            target.create_new(b"roots/f")
        shortfalls = target.apply(b"roots", Node(b"roots", NodeKind.DIRECTORY, 0o700, 12345, 12345, 5))
    assert {(s.what, s.needs_root) for s in shortfalls} == {("owner", True), ("mode", True), ("mtime", True)}


def test_without_root_a_read_only_folder_can_be_written_again(theirs: Path) -> None:
    """The module cache of Go is full of such: a second restore, and a removal, must get in."""
    with as_user(12345, 12345):
        target = FilesystemTarget(theirs)
        for path in (b"a", b"a/b"):
            target.make_directory(path)
        os.close(target.create_new(b"a/b/f"))
        for path in (b"a/b", b"a"):
            target.apply(path, Node(b"x", NodeKind.DIRECTORY, 0o555, 12345, 12345, 5))
        assert target.make_directory(b"a") is False
        os.close(target.create_new(b"a/new"))
        target.apply(b"a", Node(b"x", NodeKind.DIRECTORY, 0o500, 12345, 12345, 5))
        target.remove(b"a")
    assert os.listdir(theirs) == []


def test_a_folder_of_the_target_is_not_touched_by_looking(target: FilesystemTarget) -> None:
    target.make_directory(b"d")
    os.utime(_root(target) / "d", ns=(5, 10**18))
    target.listdir(b"d")
    target.differs(b"d", _node(NodeKind.DIRECTORY))
    assert (_root(target) / "d").stat().st_atime_ns == 5


@pytest.mark.parametrize(("mode", "early"), [(0o640, 0o600), (0o664, 0o644), (0o644, 0o644), (0o604, 0o600)])
def test_a_new_file_lets_nobody_in_before_it_has_its_group(tmp_path: Path, mode: int, early: int) -> None:
    """In a folder with setgid a file first has the folder's group, which may be let in by a mode meant for another."""
    before = os.umask(0)
    try:
        fd = FilesystemTarget(tmp_path).create_new(b"f", mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == early
    os.close(fd)
