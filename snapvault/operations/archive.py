"""``restore --stdout``: one file's bytes, or a tar of a folder, into a stream."""

import errno
import io
import os
import stat
import struct
import tarfile
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, BinaryIO

from snapvault.access.snapshot import Entry, Snapshot, StoredFile
from snapvault.format.tree import Node, NodeKind
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Control, Reporter
from snapvault.operations.results import RestoreResult, text_path
from snapvault.operations.selection import Selection
from snapvault.operations.tally import Tally
from snapvault.operations.visit import Visited, visit
from snapvault.repository.reader import BlobReader

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

BLOCK = 1 << 20
_TYPES = {
    NodeKind.DIRECTORY: tarfile.DIRTYPE,
    NodeKind.SYMLINK: tarfile.SYMTYPE,
    NodeKind.CHARACTER: tarfile.CHRTYPE,
    NodeKind.BLOCK: tarfile.BLKTYPE,
    NodeKind.FIFO: tarfile.FIFOTYPE,
}
_ACLS = {b"system.posix_acl_access": "SCHILY.acl.access", b"system.posix_acl_default": "SCHILY.acl.default"}
_ACL_TAGS = {
    1: ("user", False), 2: ("user", True), 4: ("group", False), 8: ("group", True), 16: ("mask", False),
    32: ("other", False),
}  # fmt: skip


def archive(
    found: Snapshot, path: str, stream: BinaryIO, selection: Selection, control: Control | None
) -> RestoreResult:
    """Write the file at ``path`` to ``stream``, or a POSIX (pax) tar of the folder there.

    A single file that is damaged raises Damaged as soon as its bytes do not verify: nothing wrong was written, but the
    stream is cut short.  In a tar, lost files are left out and named.
    """
    whole = _Whole(stream)
    entry, reporter, tally = found.entry(path), Reporter("restore", control), Tally()
    if entry.node.kind != NodeKind.DIRECTORY:
        with found.open(path) as file:
            _copy(file, whole, reporter)
        tally.wrote(entry.size)
    else:
        _Tar(found.reader(), whole, reporter, tally).write(entry, selection)
    return tally.result(found, "stream")


class _Whole(io.BufferedIOBase):
    """A stream that takes all that is written: an unbuffered one may take a part of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: "Buffer", /) -> int:
        rest = bytes(data)
        while rest:
            taken: int | None = self._stream.write(rest)
            if taken is None and not isinstance(self._stream, io.RawIOBase):
                break  # of a simple writer, which took all
            if not taken:
                raise BlockingIOError(errno.EAGAIN, "the stream takes no more, and does not wait")
            rest = rest[taken:]
        return memoryview(data).nbytes


def _copy(file: IO[bytes], stream: _Whole, reporter: Reporter) -> None:
    done = 0
    while block := file.read(BLOCK):
        reporter.tick("write", 0, bytes_done=done)
        stream.write(block)
        done += len(block)


class _Tar:
    """Writes a folder as a tar."""

    def __init__(self, reader: BlobReader, stream: _Whole, reporter: Reporter, tally: Tally) -> None:
        self._reader, self._reporter, self._tally = reader, reporter, tally
        self._stream = stream
        self._linked: dict[tuple[int, int], str] = {}

    def write(self, top: Entry, selection: Selection) -> None:
        with tarfile.open(fileobj=self._stream, mode="w|", format=tarfile.PAX_FORMAT) as self._tar:
            for at in visit(self._reader, top.node, self._tally.lose_folder, selection):
                self._reporter.check()
                if at.path and not at.leaving:
                    self._entry(at)

    def _entry(self, at: Visited) -> None:
        node = at.node
        if node.kind == NodeKind.SOCKET:
            self._tally.issue(at.path, "a socket has no place in a tar")
            return
        info = _header(at)
        for name in _unstorable(node):
            self._tally.issue(at.path, f"its attribute {text_path(name)!r} has a name that a tar cannot hold")
        if node.link is not None:
            first = self._linked.setdefault(node.link, info.name)
            if first != info.name:
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
        if info.type == tarfile.REGTYPE:
            self._file(at, info)
            return
        if node.kind == NodeKind.DIRECTORY:
            self._tally.folders += 1
        else:
            self._tally.others += 1
        self._tar.addfile(info)

    def _file(self, at: Visited, info: tarfile.TarInfo) -> None:
        """A member cannot be taken back once its header is out, so all of it is opened and verified first."""
        try:
            stored = StoredFile(self._reader, Entry(text_path(at.path), at.node))
            while stored.read(BLOCK):
                self._tick("verify")
        except Damaged as e:
            self._tally.lose(at.path, e)
            if node_link := at.node.link:
                self._linked.pop(node_link, None)
            return
        stored.seek(0)
        self._tar.addfile(info, _Watched(stored, lambda: self._tick("write")))
        self._tally.wrote(at.node.size)
        self._tick("write")

    def _tick(self, phase: str) -> None:
        self._reporter.tick(phase, self._tally.files_written, bytes_done=self._tally.bytes_written)


class _Watched(io.BufferedReader):
    """Reads, and tells each time that it does."""

    def __init__(self, stored: StoredFile, tick: Callable[[], None]) -> None:
        super().__init__(stored, BLOCK)
        self._tick = tick

    def read(self, size: int | None = -1, /) -> bytes:
        self._tick()
        return super().read(size)


def _header(at: Visited) -> tarfile.TarInfo:
    node = at.node
    info = tarfile.TarInfo(text_path(at.path))
    info.type = _TYPES.get(node.kind, tarfile.REGTYPE)
    info.size = node.size if node.kind == NodeKind.FILE else 0
    info.mode, info.uid, info.gid = stat.S_IMODE(node.mode), node.uid, node.gid
    info.uname, info.gname = at.users.get(node.uid, ""), at.groups.get(node.gid, "")
    info.mtime = node.mtime_ns // 10**9
    seconds, fraction = divmod(abs(node.mtime_ns), 10**9)
    headers = {"mtime": f"{'-' if node.mtime_ns < 0 else ''}{seconds}.{fraction:09d}"}
    info.linkname = text_path(node.target)
    info.devmajor, info.devminor = os.major(node.device), os.minor(node.device)
    unstorable = _unstorable(node)
    for name, value in (node.xattrs or {}).items():
        if name in _ACLS:
            headers[_ACLS[name]] = _acl_text(value)
        elif name not in unstorable:
            headers["SCHILY.xattr." + name.decode()] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = headers
    return info


def _acl_text(value: bytes) -> str:
    """The words of acl(5) for an ACL as the kernel keeps it: a version, then a kind, rights and a number an entry."""
    entries, table = [], value[4:]
    for tag, rights, number in struct.iter_unpack("<HHI", table[: len(table) // 8 * 8]):
        word, has_number = _ACL_TAGS.get(tag, ("other", False))
        letters = "".join(c if rights & bit else "-" for c, bit in (("r", 4), ("w", 2), ("x", 1)))
        entries.append(f"{word}:{number if has_number else ''}:{letters}")
    return ",".join(entries)


def _unstorable(node: Node) -> list[bytes]:
    """Names of attributes that cannot be keywords of a pax header: not UTF-8, or with the sign that ends a keyword."""
    return [n for n in node.xattrs or () if b"=" in n or not _is_text(n)]


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
