"""Writing the files of a restore: new ones, and those that a target has in part."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

from snapvault.operations.visit import Visited
from snapvault.target.attributes import Shortfall
from snapvault.target.filesystem import FilesystemTarget, NewFile, WholeFile

OPEN_MAX = 128  # files that are open at once


class FileJob:
    """One file that is being restored.  Its pieces arrive from several threads."""

    __slots__ = ("at", "error", "fd", "in_place", "inode", "lock", "new", "path", "remaining", "temporary", "written")

    def __init__(self, at: Visited, path: bytes, remaining: int, *, new: bool) -> None:
        self.at, self.path = at, path
        self.remaining = remaining  # pieces that are still to come
        self.new = new  # nothing has its name
        self.in_place = False
        self.temporary: NewFile | None = None
        self.fd = -1
        self.written = 0
        self.error = ""
        self.inode = 0
        self.lock = threading.Lock()


class FileWriter:
    """Opens, fills and finishes file jobs in a target."""

    def __init__(self, target: FilesystemTarget) -> None:
        self._target = target
        self._open: OrderedDict[int, FileJob] = OrderedDict()
        self._begun: dict[int, FileJob] = {}  # neither finished nor given up
        self._lock = threading.Lock()

    def whole_many(self, parts: Sequence[tuple[FileJob, memoryview]]) -> list[bool]:
        """New files of one piece each, written and finished together.  False: not so, write it by itself."""
        return self._target.create_whole(
            [WholeFile(job.path, data, job.at.node, job.at.users, job.at.groups) for job, data in parts]
        )

    def whole(self, job: FileJob, data: memoryview) -> list[Shortfall]:
        """A file of one piece and no holes that nothing stands in the way of: written and finished at once."""
        node = job.at.node
        try:
            fd = self._target.create_new(job.path, node.mode if not node.xattrs else 0o600)
        except FileExistsError:
            job.new = False
            with job.lock:
                self.write(job, 0, data)
            return self.finish(job)
        try:
            try:
                _write_all(fd, data, 0)
                return self._target.apply(job.path, node, job.at.users, job.at.groups, fd=fd)
            finally:
                os.close(fd)
        except OSError:
            with suppress(OSError):
                self._target.remove(job.path)  # it is ours, and cut short under its final name
            raise

    def write(self, job: FileJob, position: int, data: memoryview) -> None:
        """Write a piece; ``position`` counts stored bytes, holes left out.  The job's lock is held."""
        self._make_ready(job)
        extents = job.at.node.extents
        job.written += len(data)
        if extents is None:
            _write_all(job.fd, data, position)
            return
        start = 0  # of the extent, in stored bytes
        for offset, length in extents:
            if start + length > position and len(data):
                n = min(len(data), start + length - position)
                _write_all(job.fd, data[:n], offset + position - start)
                data, position = data[n:], position + n
            start += length

    def _make_ready(self, job: FileJob) -> None:
        if job.fd < 0:
            self._begun[id(job)] = job
            if job.temporary is not None:
                job.temporary.reopen()
                job.fd = job.temporary.fd
            elif job.in_place:
                job.fd = self._target.open_existing(job.path, write=True)
            else:
                job.temporary = self._target.create(job.path)
                job.fd = job.temporary.fd
                os.ftruncate(job.fd, job.at.node.size)
        self._touch(job)

    def _touch(self, job: FileJob) -> None:
        """Keep only so many files open: those that were not written to for longest are closed for now."""
        with self._lock:
            self._open[id(job)] = job
            self._open.move_to_end(id(job))
            victims = list(self._open.values())[: max(0, len(self._open) - OPEN_MAX)]
            for victim in victims:
                if victim is not job and victim.lock.acquire(blocking=False):
                    try:
                        self._close(victim)
                    finally:
                        victim.lock.release()

    def _close(self, job: FileJob) -> None:
        self._open.pop(id(job), None)
        fd, job.fd = job.fd, -1
        if job.temporary is not None:
            job.temporary.close()
        elif fd >= 0:
            os.close(fd)

    def finish(self, job: FileJob) -> list[Shortfall]:
        """All pieces are there: set the metadata, put it under its name."""
        with job.lock:
            self._make_ready(job)
            if job.in_place:
                os.ftruncate(job.fd, job.at.node.size)
            try:
                shortfalls = self._target.apply(job.path, job.at.node, job.at.users, job.at.groups, fd=job.fd)
            finally:
                with self._lock:
                    self._close(job)
            if job.temporary is not None:
                job.temporary.commit()
                job.temporary = None
            self._begun.pop(id(job), None)
            return shortfalls

    def give_up(self, job: FileJob) -> None:
        """Leave nothing of a file whose data is lost; one that is mended in place stays as it is."""
        with job.lock:
            with self._lock:
                self._close(job)
            if job.temporary is not None:
                with suppress(OSError):
                    job.temporary.abort()
                job.temporary = None
            self._begun.pop(id(job), None)

    def close(self) -> None:
        """Once no thread writes any more: leave nothing of files that a cancelled or failed restore did not finish."""
        for job in list(self._begun.values()):
            self.give_up(job)


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        n = os.pwrite(fd, data, offset)
        data, offset = data[n:], offset + n
