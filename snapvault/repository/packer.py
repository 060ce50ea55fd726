"""Packs: sealed segments side by side in a buffer, then on their way to the store, then in an index object.

A buffer is page-aligned memory that is used again and again: a local store writes it past the page cache, and nothing
is allocated or copied for a pack.
"""

import contextlib
import mmap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from blake3 import blake3

from snapvault.crypto.envelope import OVERHEAD
from snapvault.format import names
from snapvault.format.pack import MAX_SEGMENT_RAW, Segment
from snapvault.foundation.errors import SnapvaultError, StoreUnavailable
from snapvault.foundation.ids import PackId
from snapvault.platform.memory import page_aligned
from snapvault.repository.index import BlobIndex, IndexTable, PackRow
from snapvault.repository.packs import EncodedSegment, pack_ending, pack_prefix
from snapvault.repository.session import Session

INDEX_BYTES, INDEX_SECONDS, INDEX_BLOBS = 1 << 30, 300.0, 1 << 18  # an index object at least this often
SHARED_SECONDS = 0.5  # or as often, where other sessions are open;
SHARED_PART = 16  # but only once that part of the session's time has passed again, and twice what it took
PATIENCE = 0.5  # seconds between looks at whether another stage failed


class _Pack:
    """A pack that is being filled, by several threads side by side."""

    __slots__ = ("buffer", "segments", "size", "writing")

    def __init__(self, buffer: mmap.mmap, prefix: bytes) -> None:
        self.buffer = buffer
        self.size = len(prefix)
        self.segments: list[Segment] = []
        self.writing = 0  # segments that have their place and are not yet sealed into it
        buffer[: self.size] = prefix


class Others(Protocol):
    """Sessions beside this one."""

    @property
    def shared(self) -> bool:
        """Whether there are any, as far as is known."""

    def look(self) -> bool:
        """Whether there are any now."""

    def learn(self) -> IndexTable:
        """What they stored since this was last asked."""


class PackAssembler:
    """Collects segments into packs, uploads them and writes the index.  Thread-safe."""

    def __init__(self, session: Session, target: int, uploads: int, index: BlobIndex, news: Others | None) -> None:
        self._session, self._target, self._index, self._news = session, target, index, news
        # Beside others one says early what is stored, and looks what they stored, at ever longer intervals.
        self._began = time.monotonic()
        self._cut_at = self._look_at = self._began + SHARED_SECONDS
        self._sharing = 0.0  # seconds that it took to tell and learn the last time
        self._prefix = pack_prefix(session.header)
        # A segment that begins before the target fits in any case; pages that nothing is written to take no memory.
        self._capacity = len(self._prefix) + target + OVERHEAD + MAX_SEGMENT_RAW
        self._changed = threading.Condition()  # its lock guards the three below
        self._filling: _Pack | None = None
        self._spare: list[mmap.mmap] = []
        self._room = uploads + 1  # packs that may still be begun
        self._counting = threading.Lock()  # of what was uploaded
        self._indexing = threading.Lock()
        self._uploads = ThreadPoolExecutor(uploads, thread_name_prefix="snapvault-upload")
        self._error: BaseException | None = None
        self._ready: list[tuple[PackRow, list[Segment]]] = []  # uploaded, not yet in an index object
        self._ready_bytes = self._ready_blobs = 0
        self._indexed = time.monotonic()
        self.stored = 0

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

    # -- filling -------------------------------------------------------------------------------------------------

    def add(self, encoded: EncodedSegment, segment: Segment) -> None:
        """Seal a segment into the open pack; a pack that is full by that is uploaded."""
        pack, offset = self._reserve(encoded.sealed_length)
        with memoryview(pack.buffer) as whole, whole[offset : offset + encoded.sealed_length] as place:
            encoded.seal_into(place, self._session.secrets)
        with self._changed:
            pack.segments.append(replace(segment, offset=offset))
            pack.writing -= 1
            due = pack is not self._filling and not pack.writing
        if due:
            self._submit(pack, full=pack.size >= self._target)

    def _reserve(self, length: int) -> tuple[_Pack, int]:
        """A place for so many bytes.  Waits while as many packs as may be are on their way."""
        with self._changed:
            while self._filling is None:
                if self._room:
                    self._room -= 1
                    buffer = self._spare.pop() if self._spare else page_aligned(self._capacity)
                    self._filling = _Pack(buffer, self._prefix)
                else:
                    self._changed.wait(PATIENCE)
                    self.raise_error()
            pack = self._filling
            offset = pack.size
            pack.size += length
            pack.writing += 1
            if pack.size >= self._target or self._is_cut_early():
                self._filling = None
            return pack, offset

    def _is_cut_early(self) -> bool:
        """Whether what is in the open pack is to reach others now, though the pack is not full."""
        now = time.monotonic()
        if self._news is None or now < self._cut_at or not self._news.shared:
            return False
        self._cut_at = self._later(now)
        return True

    def _later(self, now: float) -> float:
        """When to tell others the next time."""
        age = min((now - self._began) / SHARED_PART, INDEX_SECONDS)
        return now + max(SHARED_SECONDS, age, 2 * self._sharing)

    # -- uploading -----------------------------------------------------------------------------------------------

    def _submit(self, pack: _Pack, *, full: bool) -> None:
        self._uploads.submit(self._upload, pack, full)

    def _upload(self, pack: _Pack, full: bool) -> None:
        try:
            with memoryview(pack.buffer) as whole, whole[: pack.size] as filled:
                row, segments = self._put(pack, filled, full)
            with self._changed:
                self._spare.append(pack.buffer)
                self._room += 1
                self._changed.notify_all()
            self._uploaded(row, segments)
        except BaseException as e:  # noqa: BLE001  raised again in the caller's thread
            self.fail(e)

    def _put(self, pack: _Pack, filled: memoryview, full: bool) -> tuple[PackRow, list[Segment]]:
        self.raise_error()
        session = self._session
        segments = sorted(pack.segments, key=lambda s: s.offset)
        ending = pack_ending(session.secrets, segments, pack.size, full=full)
        digest = blake3(filled)
        digest.update(ending)
        row = PackRow(PackId(digest.digest()), pack.size + len(ending), session.sid, session.domain.id)
        session.put_object(names.pack(row.id), [filled, ending])
        return row, segments

    def _uploaded(self, row: PackRow, segments: list[Segment]) -> None:
        with self._counting:
            self._ready.append((row, segments))
            self._ready_bytes += row.size
            self._ready_blobs += sum(len(s.lengths) for s in segments)
            self.stored += row.size
            due = self._ready_bytes >= INDEX_BYTES or self._ready_blobs >= INDEX_BLOBS
            due = due or time.monotonic() - self._indexed >= INDEX_SECONDS or self._is_awaited()
            batch = self._take_ready() if due else []
        if batch:
            begin = time.monotonic()
            self._session.put_index(batch)
            with self._indexing:
                self._index.indexed(batch)
                if self._news is not None and self._news.shared:
                    with contextlib.suppress(SnapvaultError):  # then what others stored is stored again
                        self._index.learnt(self._news.learn())
                    self._sharing = time.monotonic() - begin
                    self._look_at = max(self._look_at, self._later(time.monotonic()))

    def _is_awaited(self) -> bool:
        """Whether it is time for an early index object, because others are there who may store the same."""
        now = time.monotonic()
        if self._news is None or now < self._look_at:
            return False
        self._look_at = self._later(now)
        with contextlib.suppress(SnapvaultError):
            return self._news.look()
        return False

    def _take_ready(self) -> list[tuple[PackRow, list[Segment]]]:
        batch, self._ready = self._ready, []
        self._ready_bytes = self._ready_blobs = 0
        self._indexed = time.monotonic()
        return batch

    def finish(self) -> None:
        """Cut the last pack, wait for the uploads, write the last index object."""
        pack, self._filling = self._filling, None  # nobody writes to it any more
        if pack is not None and self._error is None:
            self._submit(pack, full=False)
        self._uploads.shutdown(wait=True)
        self.raise_error()
        if self._ready:  # nothing is looked up in this session any more
            self._session.put_index(self._take_ready())

    def close(self, *, keep: bool) -> None:
        """Stop; with ``keep`` index what was uploaded, unless it was the store that failed."""
        if not keep:
            self.fail(InterruptedError("the session is being closed"))
        self._uploads.shutdown(wait=True)
        if self._ready and self._error is None:
            with contextlib.suppress(SnapvaultError):  # told is what the session ended for
                self._session.put_index(self._take_ready())
