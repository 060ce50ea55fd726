"""Fetching many chunks at once: by pack and segment, each segment opened once, each chunk verified by its id."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

from snapvault.backend.protocol import NotFound
from snapvault.format.tree import BlobType
from snapvault.foundation.errors import Damaged, SnapvaultError
from snapvault.foundation.ids import BlobId
from snapvault.repository.index import Place
from snapvault.repository.reader import BlobReader

RUN_BYTES = 4 << 20  # neighbouring segments are read together up to this
GAP = 128 << 10  # and across gaps of this

T = TypeVar("T")


class Piece(NamedTuple, Generic[T]):
    """A chunk that is wanted, and what for."""

    blob: BlobId
    use: T


class Fetcher(Generic[T]):
    """Delivers chunks to ``deliver(use, data)`` from worker threads; what cannot be had, to ``fail(use, error)``."""

    def __init__(
        self,
        reader: BlobReader,
        deliver: Callable[[T, memoryview], None],
        fail: Callable[[T, Damaged], None],
        threads: int | None = None,
    ) -> None:
        self._reader, self._deliver, self._fail = reader, deliver, fail
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), thread_name_prefix="snapvault-fetch")

    def fetch(self, pieces: Iterable[Piece[T]]) -> None:
        """Deliver all of these; returns when every one was delivered or failed.  Errors of the store are raised."""
        segments: dict[tuple[bytes, int], list[tuple[Piece[T], Place]]] = {}
        for piece in pieces:
            place = next(self._reader.index.places(piece.blob), None)
            if place is None:
                self._rescue([piece], Damaged(f"blob {piece.blob.hex()[:16]} is in no index"))
                continue
            segments.setdefault((place.pack.id, place.start), []).append((piece, place))
        tasks = [self._pool.submit(self._run, run) for run in _runs([segments[k] for k in sorted(segments)])]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    def _run(self, run: list[list[tuple[Piece[T], Place]]]) -> None:
        first, last = run[0][0][1], run[-1][0][1]
        length = last.start + last.sealed - first.start
        try:
            data = self._reader.fetch(first.pack, first.start, length)
        except (Damaged, NotFound) as e:
            for segment in run:
                self._rescue([piece for piece, _ in segment], e)
            return
        for segment in run:
            place = segment[0][1]
            start = place.start - first.start
            try:
                opened = self._reader.open_segment(place, data[start : start + place.sealed])
            except (Damaged, NotFound) as e:
                self._rescue([piece for piece, _ in segment], e)
                continue
            for piece, at in segment:
                try:
                    chunk = self._reader.verified(piece.blob, BlobType.DATA, at, opened)
                except Damaged as e:
                    self._rescue([piece], e)
                    continue
                self._deliver(piece.use, chunk)

    def _rescue(self, pieces: list[Piece[T]], error: SnapvaultError) -> None:
        """Try every other place of these chunks, also by the index as it is now; then give them up."""
        for piece in pieces:
            try:
                chunk = self._reader.blob(piece.blob, BlobType.DATA)
            except Damaged as e:
                self._fail(piece.use, e if e.affected else Damaged(error.message, affected=error.affected))
            else:
                self._deliver(piece.use, chunk)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _runs(segments: list[list[tuple[Piece[T], Place]]]) -> list[list[list[tuple[Piece[T], Place]]]]:
    """Segments that lie near one another in a pack, so that they are read at once."""
    runs: list[list[list[tuple[Piece[T], Place]]]] = []
    for segment in segments:
        place = segment[0][1]
        if runs:
            first, last = runs[-1][0][0][1], runs[-1][-1][0][1]
            near = place.start - (last.start + last.sealed) <= GAP
            small = place.start + place.sealed - first.start <= RUN_BYTES
            if place.pack.id == first.pack.id and near and small:
                runs[-1].append(segment)
                continue
        runs.append([segment])
    return runs
