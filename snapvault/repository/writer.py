"""The hot path: blobs -> segments -> packs -> store, with bounded queues.

    caller's thread      id, deduplication, filling of segments
    sealing threads      zstd and AES-GCM of a segment (both release the GIL), then into the open pack
    upload threads       whole packs to the backend

Every stage waits for the next when its queue is full, so memory stays bounded; the first error of any stage is raised
in the caller's thread at its next call.
"""

import mmap
import os
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from blake3 import blake3

from snapvault.compression import LEVEL
from snapvault.format.pack import MAX_SEGMENT_RAW, Segment
from snapvault.format.tree import BlobType
from snapvault.foundation.errors import StoreUnavailable
from snapvault.foundation.events import Limits
from snapvault.foundation.ids import BlobId
from snapvault.platform.memory import page_aligned
from snapvault.repository.index import BlobIndex
from snapvault.repository.keyring import DomainKeys
from snapvault.repository.packer import PATIENCE, Others, PackAssembler
from snapvault.repository.packs import encode_segment
from snapvault.repository.session import Session

NO_LIMITS = Limits()
UPLOADS = 2  # packs on their way at once


@dataclass(slots=True)
class Written:
    """What a session stored: blobs that were new, their plaintext bytes, and the bytes of packs."""

    blobs: int = 0
    raw: int = 0
    stored: int = 0


class BlobWriter:
    """Stores blobs of one session, each once.  ``put`` and ``flush`` belong to one thread."""

    def __init__(
        self,
        session: Session,
        index: BlobIndex,
        domain: DomainKeys,
        *,
        limits: Limits = NO_LIMITS,
        level: int = LEVEL,
        news: Others | None = None,
    ) -> None:
        """``news``: the sessions beside this one; None: nobody is asked what is stored."""
        self.index, self._domain, self._session, self._level = index, domain, session, level
        keyset = session.ring.current
        self._segment_size = keyset.segment
        workers = limits.threads or max(1, len(os.sched_getaffinity(0)))
        in_flight, uploads = _queues(workers, keyset.segment, keyset.pack, limits.memory)
        self._sealing = ThreadPoolExecutor(workers, thread_name_prefix="snapvault-seal")
        self._slots = threading.BoundedSemaphore(in_flight)
        self._packs = PackAssembler(session, keyset.pack, uploads, index, news)
        self._spare: list[mmap.mmap] = []  # buffers of segments that were sealed
        self._pending = {False: self._begin(), True: self._begin()}  # trees and lists apart from data
        self.written = Written()
        self._ids = domain.id_keys
        self._broken: BaseException | None = None  # a put that was left in its middle

    def put(self, blob_type: int, data: bytes | memoryview) -> BlobId:
        """The id of this blob, which is stored unless a pack that counts has it already."""
        blob = BlobId(blake3(data, key=self._ids[blob_type]).digest())
        if blob in self.index:
            return blob
        self._check()
        try:
            self._store(blob, blob_type, data)
        except BaseException as e:  # whatever it is: nobody may go on and commit without this blob
            self._broken = e
            raise
        return blob

    def _check(self) -> None:
        if self._broken is not None:
            raise StoreUnavailable("what was read before could not be stored") from self._broken

    def _store(self, blob: BlobId, blob_type: int, data: bytes | memoryview) -> None:
        self.index.new.add(blob)
        pending = self._pending[blob_type != BlobType.DATA]
        if pending.size and pending.size + len(data) > self._segment_size + (self._segment_size >> 2):
            pending = self._seal(blob_type != BlobType.DATA)
        pending.add(blob, blob_type, data)
        self.written.blobs += 1
        self.written.raw += len(data)
        if pending.size >= self._segment_size:
            self._seal(blob_type != BlobType.DATA)

    def _begin(self) -> "_Pending":
        try:
            return _Pending(self._spare.pop() if self._spare else page_aligned(MAX_SEGMENT_RAW))
        except OSError as e:  # not one of the file that is being read
            raise StoreUnavailable(
                f"there is no memory for what is to be stored: {e.strerror}", hint="free some, or use fewer threads"
            ) from e

    def _seal(self, which: bool) -> "_Pending":
        """Hand a segment over to the sealing threads and begin the next one."""
        following = self._begin()
        while not self._slots.acquire(timeout=PATIENCE):
            self._packs.raise_error()
        self._packs.raise_error()
        full, self._pending[which] = self._pending[which], following  # before: two threads must never have it
        self._sealing.submit(self._work, full)
        return following

    def _work(self, pending: "_Pending") -> None:
        try:
            encoded = encode_segment(pending.filled, self._level)
            self._packs.add(encoded, pending.described(encoded.sealed_length))
            del encoded
            self._spare.append(pending.buffer)
        except BaseException as e:  # noqa: BLE001  raised again in the caller's thread
            self._packs.fail(e)
        finally:
            self._slots.release()

    def flush(self) -> None:
        """Everything that was put is in packs, uploaded and indexed when this returns."""
        self._check()
        for which, pending in self._pending.items():
            if pending.ids:
                self._seal(which)
        self._sealing.shutdown(wait=True)
        self._packs.finish()
        self.written.stored = self._packs.stored

    def close(self, *, keep: bool = False) -> None:
        """Stop all threads; with ``keep`` what has reached the store is indexed, so that the next run finds it."""
        self._sealing.shutdown(wait=True, cancel_futures=True)
        self._packs.close(keep=keep)


def _queues(workers: int, segment: int, pack: int, memory: int | None) -> tuple[int, int]:
    """How many segments may be in flight, and how many packs uploaded at once, within ``memory`` bytes of data.

    The least is a segment a worker, one pack that fills and one that is uploaded.
    """
    in_flight = workers + 2
    if memory is None:
        return in_flight, UPLOADS
    uploads = UPLOADS if memory >= (UPLOADS + 1) * pack + in_flight * 3 * segment else 1
    left = memory - (uploads + 1) * pack
    return max(workers, min(in_flight, left // (3 * segment))), uploads  # raw, compressed and sealed


class _Pending:
    """The segment that is being filled, in a buffer that is used again."""

    __slots__ = ("_lengths", "_types", "_view", "buffer", "ids", "size")

    def __init__(self, buffer: mmap.mmap) -> None:
        self.buffer, self._view = buffer, memoryview(buffer)
        self.size = 0
        self.ids: list[bytes] = []
        self._lengths = array("I")
        self._types = bytearray()

    def add(self, blob: BlobId, blob_type: int, data: bytes | memoryview) -> None:
        start, length = self.size, len(data)
        self.size = start + length
        self._view[start : self.size] = data
        self.ids.append(blob)
        self._lengths.append(length)
        self._types.append(blob_type)

    @property
    def filled(self) -> memoryview:
        """The plaintext."""
        return self._view[: self.size]

    def described(self, sealed: int) -> Segment:
        """What the directory says of it, but for its place in the pack."""
        return Segment(0, sealed, self.size, b"".join(self.ids), self._lengths, bytes(self._types))
