"""Any other fsspec file system, with the calls that all of them have."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fsspec.core import url_to_fs

from snapvault.backend.names import end_of, total
from snapvault.backend.protocol import Buffer, Exists, ObjectInfo
from snapvault.backend.walk import Entry, walk
from snapvault.foundation.errors import Damaged, RepositoryNotFound


class GenericDriver:
    """put-if-absent is only as good as the file system's ``mode="create"``, and else a look before the put."""

    def __init__(self, url: str, options: Mapping[str, Any], *, create: bool) -> None:
        self._fs, root = url_to_fs(url, **options, use_listings_cache=False, skip_instance_cache=True)
        self._root = root.rstrip("/")
        self.place = url
        self._exclusive = True
        if create:
            self._fs.makedirs(self._root, exist_ok=True)

    def write(self, name: str, data: Sequence[Buffer], *, create: bool) -> None:
        path, body = self._path(name), b"".join(data)
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        if create:
            self._create(name, path, body)
        else:
            self._fs.pipe_file(path, body)
        stored = self._size(path)
        if stored != total(data):
            raise Damaged(f"{name}: {stored} of {len(body)} bytes were stored", affected=[name])

    def read(self, name: str, start: int, length: int | None) -> bytes:
        path = self._path(name)
        end = end_of(name, self._size(path), start, length)
        if start == end:
            return b""
        body = bytes(self._fs.cat_file(path, start=start, end=end))
        if len(body) != end - start:
            raise Damaged(f"{name}: {len(body)} bytes came instead of {end - start}", affected=[name])
        return body

    def size(self, name: str) -> int:
        return self._size(self._path(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return walk(self._entries, prefix)

    def remove(self, name: str) -> None:
        self._fs.rm_file(self._path(name))

    def remove_stale_temps(self, older_than: float) -> int:
        """There are none of ours."""
        return 0

    def close(self) -> None:
        """fsspec has no call for it; connections go with the object."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _create(self, name: str, path: str, body: bytes) -> None:
        try:
            self._size(path)
        except FileNotFoundError:
            pass
        else:
            raise Exists(f"{name} is already in {self.place}", affected=[name])
        if self._exclusive:
            try:
                self._fs.pipe_file(path, body, mode="create")
                return
            except (NotImplementedError, ValueError, TypeError):  # many file systems know no such mode
                self._exclusive = False
        self._fs.pipe_file(path, body)

    def _size(self, path: str) -> int:
        """Not ``exists()``, which says False when it may not look."""
        info = self._fs.info(path)
        if info["type"] == "directory":
            raise FileNotFoundError(path)
        return int(info["size"])

    def _entries(self, folder: str) -> Sequence[Entry]:
        """One level.  Not ``find()``: it drops the errors of sub-folders, so that a broken listing is short."""
        path = f"{self._root}/{folder}".rstrip("/")
        try:
            found = self._fs.ls(path, detail=True)
        except FileNotFoundError:
            self._require_gone(path)
            return []
        return [_entry(folder, info) for info in found if info["name"].rstrip("/") != path]

    def _require_gone(self, path: str) -> None:
        """Whether a folder that could not be listed is really not there, now that its parents are asked."""
        if path == self._root:
            raise RepositoryNotFound(f"there is nothing at {self.place}")
        parent = path.rpartition("/")[0]
        try:
            siblings = {info["name"].rstrip("/") for info in self._fs.ls(parent, detail=True)}
        except FileNotFoundError:
            self._require_gone(parent)
            return
        if path in siblings:
            raise OSError(f"{path} is shown in its parent but cannot be listed")


def _entry(folder: str, info: Mapping[str, Any]) -> Entry:
    base = info["name"].rstrip("/").rpartition("/")[2]
    return (f"{folder}{base}/", 0) if info["type"] == "directory" else (folder + base, int(info["size"]))
