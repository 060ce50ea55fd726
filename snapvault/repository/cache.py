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
from pathlib import Path

from blake3 import blake3

MAC_SIZE = 32
MAX_BYTES = 2 << 30


class Cache:
    """Files in one folder of one repository.  Every failure to read or write means: not cached."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
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
        try:
            if path is None or path.stat().st_size < MAC_SIZE:
                return None
            with path.open("rb") as f:
                data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError):
            return None
        body = data[:-MAC_SIZE]
        if blake3(body, key=key).digest() != data[-MAC_SIZE:]:
            self.remove(name)
            return None
        return body

    def put_sealed(self, name: str, key: bytes, parts: Iterable[bytes | memoryview | bytearray]) -> None:
        """Keep the bytes with a keyed BLAKE3 behind them."""
        if self.folder is None:
            return
        digest, kept = blake3(key=key), list(parts)
        for part in kept:
            digest.update(part)
        self.put(name, *kept, digest.digest())

    def trim(self, limit: int = MAX_BYTES) -> None:
        """Remove the files that were not written for longest, until at most ``limit`` bytes are left."""
        if self.folder is None:
            return
        files = []
        for root, _, entries in os.walk(self.folder):
            for entry in entries:
                with contextlib.suppress(OSError):
                    path = Path(root, entry)
                    s = path.stat()
                    files.append((s.st_mtime, s.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files, key=lambda f: f[0]):
            if total <= limit:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size
