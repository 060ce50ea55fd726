"""The local cache: disposable, capped, and never believed without a check.

Immutable objects are kept as the store has them (sealed and signed).  What is computed from them (tables, trees of a
last backup) is authenticated by a key that only this holder derives, since an entry that was altered here could make
a backup deduplicate onto nothing.
"""

import contextlib
import mmap
import os
import secrets
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from blake3 import blake3

MAC_SIZE = 32
PIECE = 4 << 20  # what is read at once: enough for each core to hash a part of it
MAX_BYTES = 2 << 30
SLACK = 64  # by such a part of its limit a cache may grow before its files are looked at again
TABLES = "tables/"  # of the index: as large as it has to be, and too dear to make again


class Cache:
    """Files in one folder of one repository.  Every failure to read or write means: not cached."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._put: int | None = None  # bytes, since all files were looked at; None: they never were
        if folder is not None:
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _path(self, name: str) -> Path | None:
        """None if nothing is cached, or for a name that leads out of the folder: some names come from the store."""
        if self.folder is None or name.startswith("/") or ".." in name.split("/") or "\0" in name:
            return None
        return self.folder / name

    def get(self, name: str) -> bytes | None:
        """The bytes under this name, or None."""
        path = self._path(name)
        if path is None:
            return None
        try:
            return path.read_bytes()
        except OSError:
            return None

    def put(self, name: str, *parts: bytes | memoryview | bytearray) -> None:
        """Keep the bytes: a reader sees all of them or none."""
        path = self._path(name)
        if path is None:
            return
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with temporary.open("xb") as f:
                f.writelines(parts)
            temporary.replace(path)
            self._put = None if self._put is None else self._put + sum(memoryview(part).nbytes for part in parts)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def remove(self, name: str) -> None:
        path = self._path(name)
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()

    def names(self, prefix: str) -> list[str]:
        """Names of the files in one folder of the cache."""
        path = self._path(prefix)
        try:
            return [] if path is None else [prefix + e for e in sorted(os.listdir(path)) if not e.startswith(".")]
        except OSError:
            return []

    def get_sealed(self, name: str, key: bytes) -> memoryview | None:
        """What ``put_sealed`` kept under this key, mapped into memory; None if it is absent or altered."""
        path = self._path(name)
        if path is None:
            return None
        try:
            with path.open("rb", buffering=0) as f:
                size = os.fstat(f.fileno()).st_size - MAC_SIZE
                digest = _keyed_digest(f, size, key)
                data = memoryview(mmap.mmap(f.fileno(), size + MAC_SIZE, access=mmap.ACCESS_READ))
        except (OSError, ValueError):
            return None
        if digest != data[size:]:
            self.remove(name)
            return None
        return data[:size]

    def put_sealed(self, name: str, key: bytes, parts: Iterable[bytes | memoryview | bytearray]) -> None:
        """Keep the bytes with a keyed BLAKE3 behind them."""
        if self.folder is None:
            return
        digest, kept = blake3(key=key), list(parts)
        for part in kept:
            digest.update(part)
        self.put(name, *kept, digest.digest())

    def touch(self, name: str) -> None:
        """It was of use just now, so it is among the last to be trimmed."""
        path = self._path(name)
        if path is not None:
            with contextlib.suppress(OSError):
                os.utime(path)

    def trim(self, limit: int = MAX_BYTES, prefix: str = "") -> None:
        """Remove the files below a folder that were not written or touched for longest, until ``limit`` bytes are left.

        Tables do not count.  The whole cache is looked at only if enough was put since it last was.
        """
        top = self._path(prefix)
        if top is None or (not prefix and self._put is not None and self._put < limit // SLACK):
            return
        if not prefix:
            self._put = 0
        files = []
        for root, folders, entries in os.walk(top):
            if root == str(self.folder):
                folders[:] = [f for f in folders if f != TABLES.rstrip("/")]
            for entry in entries:
                with contextlib.suppress(OSError):
                    path = os.path.join(root, entry)
                    s = os.stat(path)
                    files.append((s.st_mtime, s.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files, key=lambda f: f[0]):
            if total <= limit:
                return
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size


def _keyed_digest(file: FileIO, size: int, key: bytes) -> bytes:
    """Of the first bytes of a file; read and not mapped, so that none of it stays in this process's memory.

    ValueError if it has fewer.
    """
    digest, piece = blake3(key=key, max_threads=blake3.AUTO), memoryview(bytearray(min(PIECE, max(size, 0))))
    while size > 0:
        count = file.readinto(piece[: min(PIECE, size)])
        if not count:
            raise ValueError("the file ends early")
        digest.update(piece[:count])
        size -= count
    return digest.digest()
