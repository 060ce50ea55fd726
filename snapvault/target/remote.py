"""A folder behind an fsspec URL as the place that a restore writes to: bytes only."""

import errno
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

from snapvault.format.tree import Node, NodeKind
from snapvault.platform.remote import as_os_errors, connect, shown_url
from snapvault.target.folders import check_name


class RemoteTarget:
    """Writes files below a URL.  Such a place keeps names and bytes; what it cannot keep is counted by ``note``.

    Raises InvalidInput for a URL that fsspec does not know.  Methods raise OSError as it comes, EILSEQ for a name that
    is not UTF-8, and InvalidInput for a path with a component that no entry can have.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.label = shown_url(url)
        self._fs, path = connect(url, storage_options)
        self._path = path.rstrip("/")
        self.not_kept: Counter[str] = Counter()  # kinds of metadata and entries, and how often

    def files(self) -> Iterator[tuple[bytes, int]]:
        """Paths relative to the URL, and sizes in bytes, of all files that are there."""
        folders = [self._path]
        while folders:
            address = folders.pop()
            self._fs.invalidate_cache(address)
            try:
                with as_os_errors(address):
                    found = self._fs.ls(address, detail=True)
            except FileNotFoundError:
                if address != self._path:
                    raise
                return
            for info in found:
                name = info["name"].rstrip("/")
                if name == address:
                    continue
                if info["type"] == "directory":
                    folders.append(name)
                else:
                    yield name[len(self._path) :].lstrip("/").encode("utf-8", "surrogateescape"), int(info["size"] or 0)

    def size(self, path: bytes) -> int | None:
        """Size of a file in bytes; None if there is none."""
        address = self._address(path)
        self._fs.invalidate_cache(address)
        try:
            with as_os_errors(address):
                info = self._fs.info(address)
        except FileNotFoundError:
            return None
        return int(info["size"] or 0) if info["type"] == "file" else None

    def make_directory(self, path: bytes) -> None:
        """Make a folder where the store has such; elsewhere folders come with their files."""
        address = self._address(path) if path else self._path
        with as_os_errors(address):
            self._fs.makedirs(address, exist_ok=True)

    def create(self, path: bytes) -> "RemoteFile":
        """A new file that takes the place of what is at ``path``."""
        return RemoteFile(self._fs, self._address(path))

    def open(self, path: bytes) -> IO[bytes]:
        """A file that is there, for reading."""
        address = self._address(path)
        with as_os_errors(address):
            return self._fs.open(address, "rb")  # type: ignore[no-any-return]

    def delete(self, path: bytes) -> None:
        """Delete a file.  Nothing there is fine."""
        address = self._address(path)
        try:
            with as_os_errors(address):
                self._fs.rm_file(address)
        except FileNotFoundError:
            return

    def note(self, node: Node) -> None:
        """Count what of this node such a place cannot keep."""
        if node.kind not in (NodeKind.FILE, NodeKind.DIRECTORY):
            self.not_kept["symlinks" if node.kind == NodeKind.SYMLINK else "special files"] += 1
            return
        self.not_kept["owners, modes and times"] += 1
        if node.xattrs:
            self.not_kept["extended attributes"] += 1
        if node.link is not None:
            self.not_kept["hardlinks"] += 1
        if node.extents is not None:
            self.not_kept["holes"] += 1

    def _address(self, path: bytes) -> str:
        for name in path.split(b"/"):
            check_name(name, path)
        try:
            return f"{self._path}/{path.decode()}"
        except UnicodeDecodeError:
            reason = "the name is not UTF-8, and a URL has no other"
            raise OSError(errno.EILSEQ, reason, os.fsdecode(path)) from None


class RemoteFile:
    """A file being written to a URL, front to back."""

    __slots__ = ("_address", "_file", "_fs", "written")

    def __init__(self, fs: Any, address: str) -> None:
        self._fs, self._address = fs, address
        with as_os_errors(address):
            self._file = fs.open(address, "wb")
        self.written = 0  # bytes

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        with as_os_errors(self._address):
            self._file.write(data)
        self.written += len(data)

    def commit(self) -> None:
        """Finish.  OSError: the store holds another size than was written."""
        with as_os_errors(self._address):
            self._file.close()
            self._fs.invalidate_cache(self._address)
            size = self._fs.info(self._address).get("size")
        if size is not None and size != self.written:
            raise OSError(errno.EIO, f"the store holds {size} bytes of {self.written} that were written", self._address)

    def abort(self) -> None:
        """Give up.  A beginning that the store already shows under the final name is deleted."""
        discard = getattr(self._file, "discard", None)
        if discard is not None:
            with as_os_errors(self._address):
                discard()
        with suppress(AttributeError):  # some files cannot be told, but those have nothing left to upload
            self._file.closed = True  # closing would complete the upload
        self._fs.invalidate_cache(self._address)
        try:
            with as_os_errors(self._address):
                if self._fs.info(self._address).get("size") == self.written:
                    self._fs.rm_file(self._address)
        except FileNotFoundError:
            return
