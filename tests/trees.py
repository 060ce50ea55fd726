"""A tree with everything a Linux file system can hold, and a referee that is not ours to compare two of them.

Needs root (devices, owners, trusted attributes) and the commands rsync, getfacl and setfacl.
"""

import contextlib
import hashlib
import os
import random
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

BIG_SPARSE = "sparse/10G"  # compared by its map and the hash of its data: rsync would read 10 GB twice
DEEP = "deep"  # paths beyond PATH_MAX, which neither rsync nor getfacl can walk
_APART = [f"/{BIG_SPARSE}", f"/{DEEP}"]
_DEEP_LEVELS, _DEEP_NAME = 26, "d" * 200
NET_ADMIN = struct.pack("<5I", 0x02000001, 1 << 12, 0, 0, 0)  # a security.capability, revision 2


def build_torture_tree(root: Path, *, entries: int = 20_000, big_sparse: int = 10 << 30) -> None:
    """Make the tree at ``root``, which must not exist.  ``entries``: of the huge folder; ``big_sparse``: bytes."""
    root.mkdir()
    _plain(root)
    _names(root / "names")
    _sparse(root / "sparse", big_sparse)
    _specials(root / "special")
    _attributes(root / "attributes")
    _owners(root / "owners")
    _links(root)
    _deep(root / DEEP)
    huge = root / "huge"
    huge.mkdir()
    for i in range(entries):
        (huge / f"{i * 7919 % entries:06d}").touch()
    _times(root)


def _plain(root: Path) -> None:
    content = random.Random(1)
    files = root / "files"
    files.mkdir()
    for size in (0, 1, 4095, 4096, 4097, 65_536, 3_000_000):
        (files / f"{size}").write_bytes(content.randbytes(size))
    (files / "zeros").write_bytes(bytes(200_000))
    for mode in (0o000, 0o400, 0o444, 0o777, 0o4755, 0o2755, 0o6711, 0o1644):
        path = files / f"mode-{mode:04o}"
        path.write_bytes(b"m")
        path.chmod(mode)
    for mode in (0o000, 0o700, 0o1777, 0o2775, 0o555):
        path = root / f"folder-{mode:04o}"
        path.mkdir()
        (path / "inside").write_bytes(b"i")
        path.chmod(mode)
    (root / "empty folder").mkdir()


def _names(folder: Path) -> None:
    folder.mkdir()
    for name in (
        b"\xff\xfe not UTF-8", b"new\nline", b"ends\n", b"tab\t", b" spaces ", b"-rf", b"*", b"back\\slash", b"'\"$`",
        b"n" * 255, "ümläut".encode(), "u\u0308mla\u0308ut".encode(), b"...", b".hidden", b"~", b"\x01", b"%2F",
    ):  # fmt: skip
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name)
    inside = os.fsencode(folder) + b"/folder \xe9"
    os.mkdir(inside)
    os.symlink(b"\xe9\n", inside + b"/\xe9")


def _sparse(folder: Path, big: int) -> None:
    folder.mkdir()
    for name, size, islands in (
        ("hole-only", 5_000_000, ()),
        ("hole-first", 2 << 20, ((1 << 20, 1 << 20),)),
        ("hole-last", 3 << 20, ((0, 4096),)),
        ("hole-between", (1 << 20) + 5, ((0, 65_536), (1 << 20, 5))),
        ("10G", big, ((big // 3 // 4096 * 4096, 8192), (big // 2 // 4096 * 4096, 100), (big - (1 << 20), 4096))),
    ):
        with open(folder / name, "wb") as f:
            for offset, length in islands:
                f.seek(offset)
                f.write(random.Random(offset).randbytes(length))
            f.truncate(size)


def _specials(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "fifo", 0o622)
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(folder / "block", stat.S_IFBLK | 0o660, os.makedev(259, 1_048_575))
    os.chown(folder / "block", 0, 6)
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as s, _inside(folder):
        s.bind("socket")  # a short path: a socket's address holds 108 bytes
    for name, target in (("dangling", "nowhere"), ("absolute", "/etc/hostname"), ("up", "../../.."), ("self", "self")):
        os.symlink(target, folder / name)
    os.symlink("l" * 4000, folder / "long")
    os.symlink("../files", folder / "to a folder")


def _attributes(folder: Path) -> None:
    folder.mkdir()
    for name in ("file", "acl", "capability", "mode-0000"):
        (folder / name).write_bytes(name.encode())
    os.setxattr(folder / "file", "user.empty", b"")
    os.setxattr(folder / "file", "user.binary", bytes(range(256)))
    os.setxattr(folder / "file", b"user.\xff\xfe", b"name is not UTF-8")
    os.setxattr(folder / "file", "user.large", b"v" * 2500)
    os.setxattr(folder / "file", "trusted.hidden", b"t")
    os.setxattr(folder / "capability", "security.capability", NET_ADMIN)
    os.chown(folder / "capability", 12345, 6)  # a change of owner drops it: the order of a restore matters
    os.setxattr(folder / "capability", "security.capability", NET_ADMIN)
    os.chmod(folder / "mode-0000", 0)
    os.setxattr(folder / "mode-0000", "user.still", b"there")
    os.symlink("file", folder / "symlink")
    os.setxattr(folder / "symlink", "trusted.on-link", b"l", follow_symlinks=False)
    os.mkfifo(folder / "fifo")
    os.setxattr(folder / "fifo", "trusted.on-fifo", b"f")
    (folder / "folder").mkdir()
    os.setxattr(folder / "folder", "user.on-folder", b"d")
    inherit = folder / "default acl"
    inherit.mkdir()
    _run("setfacl", "-m", "u:12345:rw,g:6:r,m::rwx,o::-", str(folder / "acl"))
    _run("setfacl", "-m", "u:1:rwx", "-d", "-m", "u:daemon:rx,g:12345:rwx,o::---", str(inherit))
    (inherit / "inherited").write_bytes(b"has an ACL by default")
    (inherit / "inherited folder").mkdir()
    (inherit / "without").write_bytes(b"its ACL was removed: a restore must not let it inherit one")
    _run("setfacl", "-b", str(inherit / "without"))
    (folder / "acl and setgid").mkdir()
    _run("setfacl", "-m", "g:6:rwx", str(folder / "acl and setgid"))
    os.chmod(folder / "acl and setgid", 0o2750)


def _owners(folder: Path) -> None:
    folder.mkdir()
    for name, uid, gid, mode in (
        ("nameless", 12345, 54321, 0o640), ("daemon", 1, 1, 0o600), ("nobody", 65534, 65534, 0o604),
        ("setuid", 12345, 6, 0o4755), ("setgid", 1, 12345, 0o2755), ("large", 2**31 + 5, 2**32 - 2, 0o644),
    ):  # fmt: skip
        (folder / name).write_bytes(b"o")
        os.chown(folder / name, uid, gid)
        os.chmod(folder / name, mode)
    os.symlink("nameless", folder / "link")
    os.lchown(folder / "link", 12345, 54321)
    (folder / "folder").mkdir()
    os.chown(folder / "folder", 12345, 1)


def _links(root: Path) -> None:
    first, second = root / "links a", root / "links b"
    first.mkdir()
    second.mkdir()
    (first / "file").write_bytes(b"one file, three names")
    for name in (first / "again", second / "elsewhere"):
        os.link(first / "file", name)
    os.symlink("target", first / "symlink")
    os.link(first / "symlink", second / "symlink", follow_symlinks=False)
    os.mkfifo(first / "fifo")
    os.link(first / "fifo", second / "fifo")
    os.mknod(second / "device", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.link(second / "device", first / "device")
    (second / "empty").touch()
    os.link(second / "empty", first / "z empty")
    (first / "outside").write_bytes(b"its other name is not in this tree")
    os.link(first / "outside", root.parent / f"{root.name} outside")


def _deep(folder: Path) -> None:
    """Folders so deep that the path of the innermost file has more than 5000 bytes."""
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    for level in range(_DEEP_LEVELS):
        name = f"{_DEEP_NAME}{level}"
        os.mkdir(name, dir_fd=fd)
        inner = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        for kind, make in (("file", _file_at), ("link", _link_at)):
            make(f"{kind} {level}", fd)
    os.mkfifo("fifo", 0o600, dir_fd=fd)
    os.setxattr(fd, "user.depth", b"deep")
    os.close(fd)


def _file_at(name: str, fd: int) -> None:
    file = os.open(name, os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=fd)
    os.write(file, name.encode())
    os.setxattr(file, "user.name", name.encode())
    os.utime(file, ns=(5, 1_234_567_890_123_456_789))
    os.close(file)


def _link_at(name: str, fd: int) -> None:
    os.symlink(f"{name} leads nowhere", name, dir_fd=fd)


def _times(root: Path) -> None:
    """Odd times, on entries that nothing changes afterwards; folders last."""
    odd = root / "times"
    odd.mkdir()
    times = {
        "nanoseconds": 1_600_000_000_123_456_789, "epoch": 0, "before": -1, "1960": -315_619_200_000_000_001,
        "1902": -2_145_916_800_999_999_999, "2038": 2_147_483_648_000_000_001, "2200": 7_258_118_400_987_654_321,
        "2300": 10_413_792_000_123_456_789,  # more than 64 bits with a sign hold

    }  # fmt: skip
    for name, time in times.items():
        (odd / name).write_bytes(b"t")
        os.symlink(name, odd / f"link {name}")
        (odd / f"folder {name}").mkdir()
        os.mkfifo(odd / f"fifo {name}")
        for path in (odd / name, odd / f"link {name}", odd / f"folder {name}", odd / f"fifo {name}"):
            os.utime(path, ns=(time, time), follow_symlinks=False)
    os.utime(odd, ns=(1, -987_654_321))
    os.utime(root / "huge", ns=(1, 1_700_000_000_000_000_001))
    os.utime(root, ns=(1, 1_111_111_111_111_111_111))


def referee(a: Path, b: Path) -> list[str]:
    """Differences between two trees, as rsync and getfacl see them; [] means the same.

    The folder DEEP and the file BIG_SPARSE, if they are there, are compared by a walk of our own.
    """
    _run("rsync", "--version")  # its absence must not look like equality
    apart = [f"--exclude={name}" for name in _APART]
    found = _rsync(a, b, "--checksum", "--delete", *apart)
    if (a / BIG_SPARSE).exists():
        found += _rsync(a / BIG_SPARSE, b / Path(BIG_SPARSE).parent)
    found += [f"ACL: {line}" for line in _changed_lines(_acls(a), _acls(b))]
    found += _walked(a, b)
    return found


def _rsync(a: Path, b: Path, *options: str) -> list[str]:
    source = f"{a}/" if a.is_dir() else str(a)
    out = _run("rsync", "-aHAXn", "--itemize-changes", *options, source, f"{b}/")
    return [f"rsync: {line}" for line in out.splitlines()]


def _acls(root: Path) -> list[str]:
    """The output of getfacl for all that it can reach."""
    tops = [e for e in sorted(os.listdir(root)) if e != DEEP]
    own = _run("getfacl", "-p", "--absolute-names", "-n", "--", ".", cwd=root)
    if tops:
        own += _run("getfacl", "-R", "-P", "-p", "--absolute-names", "-n", "--", *tops, cwd=root)
    return own.splitlines()


def _changed_lines(a: list[str], b: list[str]) -> list[str]:
    return [f"{x!r} became {y!r}" for x, y in zip(a, b, strict=False) if x != y][:20] + (
        [f"{len(a)} lines became {len(b)}"] if len(a) != len(b) else []
    )


def _run(*argv: str, cwd: Path | None = None) -> str:
    """Standard output of a command; anything but success is a failure of the test."""
    done = subprocess.run(argv, cwd=cwd, capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(f"{argv[0]} failed with {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout.decode(errors="surrogateescape")


def _walked(a: Path, b: Path) -> list[str]:
    """What a walk through descriptors finds in DEEP; holes that were filled; and the data of BIG_SPARSE."""
    found = [f"deep: {x}" for x in _changed_lines(list(_walk(a / DEEP)), list(_walk(b / DEEP)))]
    for path in sorted(a.glob("sparse/*")):
        other = b / path.relative_to(a)
        if not other.exists():
            found.append(f"{path.name} is missing")
        elif other.stat().st_blocks > path.stat().st_blocks + 64:
            found.append(f"{path.name} has {other.stat().st_blocks} blocks instead of {path.stat().st_blocks}")
        elif _data_of(path) != _data_of(other):
            found.append(f"{path.name} has other data")
    return found


def _walk(root: Path) -> Iterator[str]:
    if not root.exists():
        return
    for folder, names, files, fd in os.fwalk(root):
        names.sort()
        for name in [".", *sorted(files)]:
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            place = f"/proc/self/fd/{fd}/{name}"
            attributes = sorted((k, os.getxattr(place, k, follow_symlinks=False)) for k in _listed(place))
            content = b""
            if stat.S_ISREG(st.st_mode):
                content = Path(place).read_bytes()
            elif stat.S_ISLNK(st.st_mode):
                content = os.fsencode(os.readlink(place))
            depth = len(folder) - len(str(root))
            yield f"{depth} {name} {st.st_mode:o} {st.st_uid}:{st.st_gid} {st.st_mtime_ns} {attributes} {content!r}"


def _listed(place: str) -> list[str]:
    return os.listxattr(place, follow_symlinks=False)


def _data_of(path: Path) -> list[tuple[int, str]]:
    """The non-zero 4 KiB blocks of a file, found without reading its holes."""
    blocks = []
    with open(path, "rb") as f:
        size, position = os.fstat(f.fileno()).st_size, 0
        while position < size:
            try:
                position = os.lseek(f.fileno(), position, os.SEEK_DATA) // 4096 * 4096
            except OSError:
                break
            data = os.pread(f.fileno(), 4096, position)
            if data.strip(b"\0"):
                blocks.append((position, hashlib.sha256(data).hexdigest()))
            position += 4096
    return [(size, ""), *blocks]


@contextlib.contextmanager
def as_user(uid: int, gid: int) -> Iterator[None]:
    """Run the block without root's rights."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
