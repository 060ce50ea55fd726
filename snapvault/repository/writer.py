"""The hot path: blobs -> segments -> packs -> store, with bounded queues.

    caller's thread      id, deduplication, filling of segments
    sealing threads      zstd and AES-GCM of a segment (both release the GIL), then into the open pack
    upload threads       whole packs to the backend

Every stage waits for the next when its queue is full, so memory stays bounded; the first error of any stage is raised
in the caller's thread at its next call.
"""

import contextlib
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from blake3 import blake3

from snapvault.compression import LEVEL
from snapvault.format import names
from snapvault.format.pack import Segment
from snapvault.format.tree import BlobType
from snapvault.foundation.errors import SnapvaultError, StoreUnavailable
from snapvault.foundation.events import Limits
from snapvault.foundation.ids import BlobId, PackId
from snapvault.repository.index import BlobIndex, PackRow
from snapvault.repository.keyring import DomainKeys
from snapvault.repository.packs import pack_ending, pack_prefix, seal_segment
from snapvault.repository.session import Session

NO_LIMITS = Limits()
UPLOADS = 2  # packs on their way at once
INDEX_BYTES, INDEX_SECONDS, INDEX_BLOBS = 1 << 30, 300.0, 1 << 19  # an index object at least this often


@dataclass(slots=True)
class Written:
    """What a session stored: blobs that were new, their plaintext bytes, and the bytes of packs."""

    blobs: int = 0
    raw: int = 0
    stored: int = 0


class BlobWriter:
    """Stores blobs of one session, each once.  ``put`` and ``flush`` belong to one thread."""

    def __init__(
        self, session: Session, index: BlobIndex, domain: DomainKeys, *, limits: Limits = NO_LIMITS, level: int = LEVEL
    ) -> None:
        self.index, self._domain, self._session, self._level = index, domain, session, level
        keyset = session.ring.current
        self._segment_size = keyset.segment
        workers = limits.threads or max(1, len(os.sched_getaffinity(0)))
        in_flight, uploads = _queues(workers, keyset.segment, keyset.pack, limits.memory)
        self._sealing = ThreadPoolExecutor(workers, thread_name_prefix="snapvault-seal")
        self._slots = threading.BoundedSemaphore(in_flight)
        self._packs = PackAssembler(session, keyset.pack, uploads, index)
        self._pending: dict[bool, _Pending] = {False: _Pending(), True: _Pending()}  # trees and lists apart from data
        self.written = Written()
        self._ids = domain.id_keys

    def put(self, blob_type: int, data: bytes | memoryview) -> BlobId:
        """The id of this blob, which is stored unless a pack that counts has it already."""
        blob = BlobId(blake3(data, key=self._ids[blob_type]).digest())
        if blob in self.index:
            return blob
        self.index.new.add(blob)
        pending = self._pending[blob_type != BlobType.DATA]
        if pending.size and pending.size + len(data) > self._segment_size + (self._segment_size >> 2):
            self._seal(pending)
        pending.add(blob, blob_type, data)
        self.written.blobs += 1
        self.written.raw += len(data)
        if pending.size >= self._segment_size:
            self._seal(pending)
        return blob

    def _seal(self, pending: "_Pending") -> None:
        blobs, meta = pending.take()
        while not self._slots.acquire(timeout=0.5):
            self._packs.raise_error()
        self._packs.raise_error()
        self._sealing.submit(self._work, blobs, meta)

    def _work(self, blobs: list[bytes | memoryview], meta: Segment) -> None:
        try:
            sealed, raw = seal_segment(self._session.secrets, blobs, self._level)
            self._packs.add(sealed, replace(meta, raw=raw, sealed=len(sealed)))
        except BaseException as e:  # noqa: BLE001  raised again in the caller's thread
            self._packs.fail(e)
        finally:
            self._slots.release()

    def flush(self) -> None:
        """Everything that was put is in packs, uploaded and indexed when this returns."""
        for pending in self._pending.values():
            if pending.size or pending.ids:
                self._seal(pending)
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
    in_flight = 2 * workers + 2
    if memory is None:
        return in_flight, UPLOADS
    uploads = UPLOADS if memory >= (UPLOADS + 1) * pack + in_flight * 3 * segment else 1
    left = memory - (uploads + 1) * pack
    return max(workers, min(in_flight, left // (3 * segment))), uploads  # raw, compressed and sealed


class _Pending:
    """The segment that is being filled."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.size = 0
        self.ids: list[bytes] = []
        self._blobs: list[bytes | memoryview] = []
        self._lengths: list[int] = []
        self._types = bytearray()

    def add(self, blob: BlobId, blob_type: int, data: bytes | memoryview) -> None:
        if isinstance(data, memoryview):
            data = bytes(data)  # a slice would keep the whole buffer that it was read into
        self.ids.append(blob)
        self._blobs.append(data)
        self._lengths.append(len(data))
        self._types.append(blob_type)
        self.size += len(data)

    def take(self) -> tuple[list[bytes | memoryview], Segment]:
        taken = self._blobs, Segment(0, 0, 0, b"".join(self.ids), self._lengths, bytes(self._types))
        self._clear()
        return taken


class PackAssembler:
    """Collects sealed segments into packs, uploads them and writes the index.  Thread-safe."""

    def __init__(self, session: Session, target: int, uploads: int, index: BlobIndex) -> None:
        self._session, self._target, self._index = session, target, index
        self._prefix = pack_prefix(session.header)
        self._lock = (
            threading.Lock()
        )  # of the open pack; a cut holds it while it waits for uploads, which never take it
        self._counting = threading.Lock()  # of what was uploaded
        self._indexing = threading.Lock()
        self._uploads = ThreadPoolExecutor(uploads, thread_name_prefix="snapvault-upload")
        self._slots = threading.BoundedSemaphore(uploads)
        self._running: list[Future[None]] = []
        self._error: BaseException | None = None
        self._ready: list[tuple[PackRow, list[Segment]]] = []  # uploaded, not yet in an index object
        self._ready_bytes = self._ready_blobs = 0
        self._indexed = time.monotonic()
        self.stored = 0
        self._begin()

    def _begin(self) -> None:
        self._parts: list[bytes] = [self._prefix]
        self._size = len(self._prefix)
        self._segments: list[Segment] = []
        self._digest = blake3(self._prefix)

    def fail(self, error: BaseException) -> None:
        """Remember the first error."""
        if self._error is None:
            self._error = error

    def raise_error(self) -> None:
        """Raise the first error; never an OSError, which a caller would take for one of the file that it reads."""
        self._session.check_process()  # after a fork the threads are gone, and nothing would ever come
        if isinstance(self._error, OSError):
            reason = self._error.strerror or str(self._error)
            raise StoreUnavailable(f"what was read could not be stored: {reason}") from self._error
        if self._error is not None:
            raise self._error

    def add(self, sealed: bytes, segment: Segment) -> None:
        """Append a segment to the open pack; cut the pack if it is full."""
        with self._lock:
            self._segments.append(replace(segment, offset=self._size))
            self._parts.append(sealed)
            self._digest.update(sealed)
            self._size += len(sealed)
            if self._size >= self._target:
                self._cut(full=True)

    def _cut(self, *, full: bool) -> None:
        ending = pack_ending(self._session.secrets, self._segments, self._size, full=full)
        self._digest.update(ending)
        parts, segments = [*self._parts, ending], self._segments
        session, size = self._session, self._size + len(ending)
        row = PackRow(PackId(self._digest.digest()), size, session.sid, session.domain.id)
        self._begin()
        while not self._slots.acquire(timeout=0.5):
            self.raise_error()
        self._running = [f for f in self._running if not f.done()]
        self._running.append(self._uploads.submit(self._upload, row, parts, segments))

    def _upload(self, row: PackRow, parts: list[bytes], segments: list[Segment]) -> None:
        try:
            try:
                self.raise_error()
                self._session.put_object(names.pack(row.id), parts)
            finally:
                self._slots.release()
            self._uploaded(row, segments)
        except BaseException as e:  # noqa: BLE001  raised again in the caller's thread
            self.fail(e)

    def _uploaded(self, row: PackRow, segments: list[Segment]) -> None:
        with self._counting:
            self._ready.append((row, segments))
            self._ready_bytes += row.size
            self._ready_blobs += sum(len(s.lengths) for s in segments)
            self.stored += row.size
            due = self._ready_bytes >= INDEX_BYTES or self._ready_blobs >= INDEX_BLOBS
            due = due or time.monotonic() - self._indexed >= INDEX_SECONDS
            batch = self._take_ready() if due else []
        if batch:
            self._put_index(batch)

    def _put_index(self, batch: list[tuple[PackRow, list[Segment]]]) -> None:
        self._session.put_index(batch)
        with self._indexing:
            self._index.indexed(batch)

    def _take_ready(self) -> list[tuple[PackRow, list[Segment]]]:
        batch, self._ready = self._ready, []
        self._ready_bytes = self._ready_blobs = 0
        self._indexed = time.monotonic()
        return batch

    def finish(self) -> None:
        """Cut the last pack, wait for the uploads, write the last index object."""
        with self._lock:
            if self._segments and self._error is None:
                self._cut(full=False)
        self._uploads.shutdown(wait=True)
        self.raise_error()
        if self._ready:
            self._put_index(self._take_ready())

    def close(self, *, keep: bool) -> None:
        """Stop; with ``keep`` index what was uploaded, unless it was the store that failed."""
        if not keep:
            self.fail(InterruptedError("the session is being closed"))
        self._uploads.shutdown(wait=True)
        if self._ready and self._error is None:
            with contextlib.suppress(SnapvaultError):  # told is what the session ended for
                self._put_index(self._take_ready())
