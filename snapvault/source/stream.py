"""One stream as a source: an open binary file, standard input, the far end of a pipe."""

import os
import time
from dataclasses import replace
from typing import Protocol

from snapvault.format.tree import EMPTY, Node, NodeKind
from snapvault.foundation.errors import InvalidInput, SourceError
from snapvault.platform.metadata import Owners
from snapvault.source.protocol import FileReader, Listing


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

    def scan(self, path: bytes) -> Listing:
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

    __slots__ = ("_done", "_label", "_size", "_stream", "node")

    def __init__(self, stream: Readable, node: Node, label: str) -> None:
        self.node, self._stream, self._label = node, stream, label
        self._size, self._done = 0, False

    def read(self, size: int) -> bytes:
        """See FileReader."""
        if self._done:
            return b""
        data = self._stream.read(size)
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
