"""Segments that were read from a remote store, kept in the local cache: disposable, capped, verified.

Only those with folders, and with the lists of large files and folders: each ``ls``, ``diff``, restore and backup reads
them again.  Data of files is read once, mostly, and would push them out.  Entries are as the store has them, sealed.
"""

import threading

from blake3 import blake3

from snapvault.backend.protocol import Backend
from snapvault.backend.wrapper import is_remote
from snapvault.crypto.kdf import context_digest, derive
from snapvault.foundation.ids import PackId
from snapvault.repository.cache import MAC_SIZE, Cache
from snapvault.repository.keyring import Keyring

SEGMENTS = "segments/"
MAX_BYTES = 1 << 30
STEP = 64 << 20  # bytes that are put between two looks at what there is


class SegmentCache:
    """Sealed segments by pack, offset and length, each with a keyed digest over its name and bytes.

    So one that was damaged, moved to another name, or put by somebody else is no entry.  Thread-safe.
    """

    def __init__(self, cache: Cache, folder: str, key: bytes) -> None:
        """``folder``: where the entries of this key are; those of others would not verify."""
        self._cache, self._folder, self._key = cache, SEGMENTS + folder, key
        self._lock = threading.Lock()
        self._room = 0  # bytes that may be put until the next look

    def get(self, pack: PackId, start: int, length: int) -> memoryview | None:
        """The sealed bytes, or None."""
        name = self._name(pack, start, length)
        data = self._cache.get_sealed(name, self._key_of(name))
        if data is not None:
            self._cache.touch(name)
        return data

    def put(self, pack: PackId, start: int, sealed: memoryview) -> None:
        """Keep bytes that were opened and found to be what they must be."""
        name = self._name(pack, start, len(sealed))
        size = len(sealed) + MAC_SIZE
        with self._lock:
            if self._room < size:
                self._cache.trim(MAX_BYTES - STEP, SEGMENTS)
                self._room = STEP
            self._room -= size
        self._cache.put_sealed(name, self._key_of(name), [sealed])

    def remove(self, pack: PackId, start: int, length: int) -> None:
        """Forget what turned out to be something else."""
        self._cache.remove(self._name(pack, start, length))

    def _name(self, pack: PackId, start: int, length: int) -> str:
        digits = pack.hex()
        return f"{self._folder}{digits[:2]}/{digits}-{start}-{length}"

    def _key_of(self, name: str) -> bytes:
        return blake3(name.encode(), key=self._key).digest()


def segment_cache(cache: Cache, ring: Keyring, backend: Backend) -> SegmentCache | None:
    """The cache of this holder; None without a folder or keys of one's own, and where the store is as near itself."""
    if cache.folder is None or ring.own is None or not is_remote(backend):
        return None
    key = derive(ring.own.seeds, "segment cache", context_digest(ring.config_digest))
    return SegmentCache(cache, f"{ring.own.id.hex()[:16]}/", key)
