"""A folder behind an fsspec URL as the place that a restore writes to: bytes only."""

import errno
import os
from collections import Counter
from collections.abc import Mapping
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

    def listdir(self, path: bytes) -> list[tuple[bytes, bool]]:
        """Names of what is in a folder, and whether they are folders; FileNotFoundError where there are such."""
        address = self._address(path) if path else self._path
        return [(name.rpartition("/")[2].encode("utf-8", "surrogateescape"), f) for name, f in self._list(address)]

    def _list(self, address: str) -> list[tuple[str, bool]]:
        self._fs.invalidate_cache(address)
        with as_os_errors(address):
            found = self._fs.ls(address, detail=True)
        # A store without folders answers with the file itself, or with an object that stands for the folder.
        entries = ((info["name"].rstrip("/"), info["type"] == "directory") for info in found)
        return [(name, folder) for name, folder in entries if name.rpartition("/")[0] == address]

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

    def remove(self, path: bytes, *, folder: bool) -> None:
        """Remove a file, or a folder with all that is in it.  Nothing there is fine."""
        # Not by the recursive ``rm`` of fsspec, to which a * in a name is a pattern.
        address = self._address(path)
        if not folder:
            self._remove_file(address)
            return
        folders = [address]
        for below in folders:  # it grows meanwhile
            with suppress(FileNotFoundError):
                for name, is_folder in self._list(below):
                    if is_folder:
                        folders.append(name)
                    else:
                        self._remove_file(name)
        for below in reversed(folders):
            # A store without folders has none left, and says so in ways of its own.
            with suppress(OSError, NotImplementedError), as_os_errors(below):
                self._fs.rmdir(below)
        self._fs.invalidate_cache(address)

    def _remove_file(self, address: str) -> None:
        with suppress(FileNotFoundError), as_os_errors(address):
            self._fs.rm_file(address)

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
        try:
            with as_os_errors(address):
                self._file = fs.open(address, "wb")
        except NotImplementedError as e:
            raise OSError(errno.EROFS, "such a place can only be read", address) from e
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
