"""One stream as a source: an open binary file, standard input, the far end of a pipe."""

import io
import os
import select
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from snapvault.format.tree import EMPTY, Node, NodeKind
from snapvault.foundation.errors import InvalidInput, SourceError
from snapvault.platform.metadata import Owners
from snapvault.source.protocol import NOTHING_KNOWN, FileReader, Known, Listing


class Readable(Protocol):
    """What is asked of a stream."""

    def read(self, size: int, /) -> bytes | None: ...


class SingleFile:
    """A source with one root that is a file.  See SourceTree; ``open`` is the subclass's."""

    def __init__(self, name: str | bytes, label: str) -> None:
        raw = os.fsencode(name).strip(b"/")
        if not raw or b"/" in raw or b"\0" in raw or raw in (b".", b".."):
            raise InvalidInput(f"{os.fsdecode(name)!r} is no name for a file")
        self.roots: tuple[bytes, ...] = (b"/" + raw,)
        self.label = label
        owners = Owners()
        uid, gid = (os.geteuid(), os.getegid()) if hasattr(os, "geteuid") else (0, 0)
        owners.see(uid, gid)
        self.users, self.groups = owners.users, owners.groups
        self._node = Node(raw, NodeKind.FILE, 0o600, uid, gid, time.time_ns(), 0, 0, 0, EMPTY)

    def root_node(self, path: bytes) -> Node:
        """The file, of unknown size until it was read; or ``/`` above it."""
        node = replace(self._node)
        if path == b"/":
            node.name, node.kind, node.mode = b"", NodeKind.DIRECTORY, 0o755
        elif path != self.roots[0]:
            raise SourceError(f"there is no {os.fsdecode(path)!r} in this source", affected=[os.fsdecode(path)])
        return node

    def scan(self, path: bytes, known: Known = NOTHING_KNOWN) -> Listing:
        """The one file, below ``/``."""
        if path != b"/":
            raise NotADirectoryError(20, "Not a directory", path)
        return Listing([replace(self._node)], [])


class StreamSource(SingleFile):
    """The bytes of an open binary stream as the file ``name``, mode 0600, the caller's.  It can be read once.

    InvalidInput: the name cannot be a file's, or the stream delivers text.
    """

    def __init__(self, name: str | bytes, stream: Readable) -> None:
        super().__init__(name, f"stream {os.fsdecode(name)!r}")
        self._stream = stream
        self._opened = False

    def open(self, path: bytes, node: Node) -> FileReader:
        """See SourceTree.  SourceError when it was opened before: a stream has no second reading."""
        if self._opened:
            raise SourceError(f"the {self.label} can be read only once")
        self._opened = True
        return StreamReader(self._stream, node, self.label)


class StreamReader:
    """Counts what a stream delivers.  See FileReader; does not close the stream, which is the caller's."""

    __slots__ = ("_done", "_label", "_read", "_size", "node")

    def __init__(self, stream: Readable, node: Node, label: str) -> None:
        self.node, self._read, self._label = node, _reading(stream), label
        self._size, self._done = 0, False

    def read(self, size: int) -> bytes:
        """See FileReader."""
        if self._done:
            return b""
        try:
            data = self._read(size)
        except BlockingIOError:
            data = None
        if data is None:
            raise BlockingIOError(11, f"the {self._label} is in non-blocking mode and has no data now")
        if not isinstance(data, bytes | bytearray | memoryview):
            raise InvalidInput(f"the {self._label} delivers text", hint="open it in binary mode")
        self._size += len(data)
        self._done = not data
        return bytes(data)

    def finish(self) -> bool:
        """See FileReader: True once the stream was read to its end."""
        self.node.size = self._size
        return self._done


def _reading(stream: Readable) -> Callable[[int], bytes | None]:
    """How to read a stream: past Python's buffer where that may wait, as in standard input and pipes.

    A backup reads in a thread.  If that still waits in the buffer's ``read`` when the process ends, it holds the
    buffer's lock, and Python aborts.
    """
    if type(stream) is not io.BufferedReader or type(stream.raw) is not io.FileIO or not hasattr(select, "poll"):
        return stream.read
    fd = stream.fileno()
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)):
        return stream.read
    rest = _buffered(stream, fd)

    def read(size: int) -> bytes | None:
        nonlocal rest
        data, rest = rest[:size], rest[size:]
        return data or os.read(fd, size)

    return read


def _buffered(stream: io.BufferedReader, fd: int) -> bytes:
    """What the caller's own reads left in the buffer, without waiting for more."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if poll.poll(0) or not os.get_blocking(fd):
        return stream.read1()  # what is buffered, else what there is: it does not wait
    if os.isatty(fd):
        return b""
    os.set_blocking(fd, False)  # the buffer has no other call that looks without waiting
    try:
        return stream.read1()
    finally:
        os.set_blocking(fd, True)
