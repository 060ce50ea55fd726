"""Fetching many chunks at once: by pack and segment, each segment opened once, each chunk verified by its id."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, NamedTuple, ParamSpec, TypeVar

from snapvault.backend.protocol import NotFound
from snapvault.format.tree import BlobType
from snapvault.foundation.errors import Damaged, SnapvaultError
from snapvault.foundation.ids import BlobId
from snapvault.repository.index import Place
from snapvault.repository.reader import BlobReader, part

RUN_BYTES = 4 << 20  # neighbouring segments are read together up to this
GAP = 128 << 10  # and across gaps of this

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Piece(NamedTuple, Generic[T]):
    """A chunk that is wanted, where it is, and what for."""

    blob: BlobId
    place: Place
    use: T


Delivery = Sequence[tuple[T, memoryview]]
Key = tuple[bytes, int]  # of a segment: its pack, and where it begins there


@dataclass(slots=True, eq=False)
class _Last:
    """The last segment of a batch, of which the next one mostly wants the rest."""

    key: Key
    opened: bytes | None = None  # once ``task`` is done, if all went well
    task: Future[None] | None = None


class Fetcher(Generic[T]):
    """Delivers the chunks of a segment to ``deliver([(use, data), ...])`` from worker threads.

    The data is there until that returns.  What cannot be had goes to ``fail(use, error)``.
    """

    def __init__(
        self,
        reader: BlobReader,
        deliver: Callable[[Delivery[T]], None],
        fail: Callable[[T, Damaged], None],
        threads: int | None = None,
    ) -> None:
        self._reader, self._deliver, self._fail = reader, deliver, fail
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), thread_name_prefix="snapvault-fetch")
        self._last: _Last | None = None

    def start(self, pieces: Iterable[Piece[T]]) -> list[Future[None]]:
        """Begin to deliver all of these, best in the order in which they were stored; ``finish`` waits for it."""
        segments: dict[Key, list[Piece[T]]] = {}
        for piece in pieces:
            segments.setdefault((piece.place.pack.id, piece.place.start), []).append(piece)
        before, tasks = self._last, []
        if before is not None and before.key in segments:
            tasks.append(self._pool.submit(self._rest, before, segments.pop(before.key)))
        self._last = last = _Last(next(reversed(segments))) if segments else before
        for run in _runs([segments[k] for k in sorted(segments)]):
            tasks.append(self._pool.submit(self._run, run, last))
            if last is not None and any(_key(segment) == last.key for segment in run):
                last.task = tasks[-1]
        return tasks

    def submit(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Something else for the same threads."""
        return self._pool.submit(call, *args, **kwargs)

    def finish(self, tasks: Sequence[Future[None]]) -> None:
        """Returns when every chunk was delivered or failed.  Errors of the store are raised."""
        try:
            for task in tasks:
                task.result()
        except BaseException:
            for task in tasks:
                task.cancel()
            raise

    def _rest(self, before: _Last, segment: list[Piece[T]]) -> None:
        """Of a segment that the batch before opened.  Its task was submitted earlier, so it is done or at work."""
        if before.task is not None:
            wait([before.task])
        if before.opened is None:
            self._run([segment], None)
        else:
            self._deliver_from(segment, memoryview(before.opened))

    def _run(self, run: list[list[Piece[T]]], kept: _Last | None) -> None:
        first, last = run[0][0].place, run[-1][0].place
        length = last.start + last.sealed - first.start
        try:
            data = self._reader.fetch(first.pack, first.start, length)
        except (Damaged, NotFound) as e:
            for segment in run:
                self._rescue(segment, e)
            return
        for segment in run:
            place = segment[0].place
            start = place.start - first.start
            try:
                opened = self._reader.open_segment(place, data[start : start + place.sealed], in_place=True)
            except (Damaged, NotFound) as e:
                self._rescue(segment, e)
                continue
            if kept is not None and _key(segment) == kept.key:
                kept.opened = bytes(opened)  # what is opened in place lasts until this thread opens the next
            self._deliver_from(segment, opened)

    def _deliver_from(self, segment: list[Piece[T]], opened: memoryview) -> None:
        place = segment[0].place
        try:
            keys = self._reader.keys(place)
        except (Damaged, NotFound) as e:
            self._rescue(segment, e)
            return
        whole, broken = [], []
        for piece in segment:
            chunk = part(keys, piece.blob, BlobType.DATA, piece.place, opened)
            if chunk is None:
                broken.append(piece)
            else:
                whole.append((piece.use, chunk))
        self._deliver(whole)
        if broken:
            self._rescue(broken, self._reader.mismatch(place))

    def _rescue(self, pieces: Sequence[Piece[T]], error: SnapvaultError) -> None:
        """Try every other place of these chunks, also by the index as it is now; then give them up."""
        for piece in pieces:
            try:
                chunk = self._reader.blob(piece.blob, BlobType.DATA)
            except Damaged as e:
                self._fail(piece.use, e if e.affected else Damaged(error.message, affected=error.affected))
            else:
                self._deliver([(piece.use, chunk)])

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _key(segment: list[Piece[T]]) -> Key:
    return segment[0].place.pack.id, segment[0].place.start


def _runs(segments: list[list[Piece[T]]]) -> list[list[list[Piece[T]]]]:
    """Segments that lie near one another in a pack, so that they are read at once."""
    runs: list[list[list[Piece[T]]]] = []
    for segment in segments:
        place = segment[0].place
        if runs:
            first, last = runs[-1][0][0].place, runs[-1][-1][0].place
            near = place.start - (last.start + last.sealed) <= GAP
            small = place.start + place.sealed - first.start <= RUN_BYTES
            if place.pack.id == first.pack.id and near and small:
                runs[-1].append(segment)
                continue
        runs.append([segment])
    return runs
