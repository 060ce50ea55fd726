"""What a restore would change in a folder: for a dry run, and to see after a restore that nothing is left to change."""

import os
import stat
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import NamedTuple

from snapvault.access.snapshot import Entry
from snapvault.format.tree import ID_SIZE, BlobType, NodeKind
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Control, Reporter, limits_of
from snapvault.operations.compare import PART_BYTES, Comparison, Lacking, Owners, compare, pieces_of
from snapvault.operations.results import text_path
from snapvault.operations.selection import Selection
from snapvault.operations.tally import Tally
from snapvault.operations.target_errors import reason_of
from snapvault.operations.visit import Visited, visit_entry
from snapvault.repository.keyring import DomainKeys
from snapvault.repository.repository import Vault
from snapvault.target.attributes import Shortfall, is_root
from snapvault.target.filesystem import FilesystemTarget

BATCH, BATCH_BYTES = 512, 8 << 20  # entries that one thread looks at, and bytes of their files
LARGE = PART_BYTES  # a file of so many bytes is looked at by several threads
AHEAD = 3  # batches for each thread that were begun and not told


class _Seen(NamedTuple):
    """What there is to say of an entry that is not, or perhaps not, as in the snapshot."""

    at: Visited
    differs: frozenset[str] = frozenset()  # as of FilesystemTarget.differs, and "content"
    there: os.stat_result | None = None  # of a file
    others: Sequence[bytes] = ()  # in a folder that is left: entries that are not in the snapshot
    error: Damaged | OSError | None = None


class _Looked(NamedTuple):
    """What came of a batch: files that are the same in everything, their bytes, and the rest in the batch's order."""

    files: int
    bytes: int
    rest: Sequence[_Seen]


class Preview:
    """Compares a tree of a snapshot with a local folder.  Nothing is written; what differs stands in the tally."""

    def __init__(
        self, vault: Vault, target: FilesystemTarget, tally: Tally, domain: DomainKeys, *, delete: bool = False,
        control: Control | None = None,
    ) -> None:  # fmt: skip
        """``delete``: what is not in the snapshot counts as to be removed."""
        self._target, self._tally, self._domain, self._delete = target, tally, domain, delete
        self._reporter = Reporter("restore", control)
        self._reader = vault.reader(domain.id, cached=True)
        threads = limits_of(control).threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="snapvault-look")
        self._ahead = AHEAD * threads
        self._coming: deque[Callable[[], _Looked]] = deque()  # in the order of the entries
        self._batch: list[Visited] = []
        self._bytes = 0  # of the files in it
        self._top = False  # whether the target itself is a folder of the snapshot
        self._linked: dict[tuple[int, int], bytes] = {}  # the first name of files with several
        self._failed: set[bytes] = set()  # what could not be looked at
        self._owners = Owners()

    def run(self, top: Entry, selection: Selection) -> None:
        """Compare everything that is selected below ``top``, or ``top`` itself if it is no folder.

        SourceError if the target fails; errors of the store, Cancelled.
        """
        self._top = top.path != "/"
        try:
            for at in visit_entry(self._reader, top, self._tally.lose_folder, selection):
                self._reporter.check()
                self._take(at)
            self._submit()
            while self._coming:
                self._tell(self._coming.popleft()())
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    # -- by the thread that visits ------------------------------------------------------------------------------

    def _take(self, at: Visited) -> None:
        if at.leaving and not self._delete:
            return
        node = at.node
        if node.link is not None:
            self._linked.setdefault(node.link, at.path)
        if node.kind == NodeKind.FILE:
            if node.size >= LARGE and self._first_name(at) is None:
                self._submit()
                self._come(self._large(at))
                return
            self._bytes += node.size
        self._batch.append(at)
        if len(self._batch) >= BATCH or self._bytes >= BATCH_BYTES:
            self._submit()

    def _first_name(self, at: Visited) -> bytes | None:
        """The name of the same file that was visited before; None: this is the first one."""
        first = at.path if at.node.link is None else self._linked[at.node.link]
        return None if first == at.path else first

    def _submit(self) -> None:
        if self._batch:
            self._come(self._pool.submit(self._look, self._batch).result)
        self._batch, self._bytes = [], 0

    def _come(self, looked: Callable[[], _Looked]) -> None:
        self._coming.append(looked)
        if len(self._coming) > self._ahead:
            self._tell(self._coming.popleft()())

    def _large(self, at: Visited) -> Callable[[], _Looked]:
        """Begin to compare a file, part by part."""
        try:
            there, comparison = self._open(at)
            parts = comparison.parts(self._reporter.check) if comparison else []
            tasks = [self._pool.submit(part) for part in parts]
        except (Damaged, OSError) as e:
            return partial(_one, _Seen(at, error=e))
        return partial(self._concluded, at, there, comparison, tasks)

    def _concluded(
        self, at: Visited, there: os.stat_result | None, comparison: Comparison | None, tasks: Sequence[Future[Lacking]]
    ) -> _Looked:
        try:
            lacking = comparison.conclude(task.result() for task in tasks) if comparison else None
            return _one(self._file_seen(at, there, lacking))
        except OSError as e:
            return _one(_Seen(at, error=e))

    def _tell(self, looked: _Looked) -> None:
        if looked.files:
            self._tally.same(looked.bytes, looked.files)
        for seen in looked.rest:
            self._tell_entry(seen)
        current = text_path(looked.rest[-1].at.path) if looked.rest else ""
        self._reporter.tick("compare", self._tally.files_same, current=current)

    def _tell_entry(self, seen: _Seen) -> None:
        at, tally = seen.at, self._tally
        kind = at.node.kind
        if at.leaving:
            for name in seen.others:
                tally.change(at.path + b"/" + name if at.path else name, "removed")
            tally.removed += len(seen.others)
        elif kind == NodeKind.DIRECTORY:
            tally.folders += 1
        elif kind != NodeKind.FILE or self._first_name(at) is not None:
            tally.others += 1
        if self._is_excused(seen) or at.leaving:
            return
        if self._first_name(at) is not None:
            if seen.differs:
                tally.change(at.path, "added" if "missing" in seen.differs else "modified", size=at.node.size)
        elif kind == NodeKind.FILE:
            self._tell_file(seen)
        else:
            tally.differing(at.path or b"/", seen.differs)

    def _is_excused(self, seen: _Seen) -> bool:
        """Whether it could not be looked at, or the file that it is a name of could not."""
        at, error = seen.at, seen.error
        first = self._first_name(at)
        if first in self._tally.lost_paths:
            self._tally.lose(at.path, Damaged("the file that it is another name of is lost"))
        elif first in self._failed:
            self._tally.issue(at.path, "cannot be restored: the file that it is another name of was not")
        elif isinstance(error, Damaged):
            self._tally.lose(at.path, error)
        elif isinstance(error, PermissionError) and not is_root():
            # A folder that lets not even its owner in, which a dry run does not change.
            self._tally.shortfall(Shortfall(at.path, "content", True, "it cannot be looked at"))
        elif error is not None:
            reason = reason_of(at.path, error)
            self._failed.add(at.path)
            self._tally.issue(at.path, f"cannot be restored: {reason}")
        else:
            return False
        return True

    def _tell_file(self, seen: _Seen) -> None:
        at, there = seen.at, seen.there
        if there is None:
            self._tally.change(at.path, "added", size=at.node.size)
        elif not stat.S_ISREG(there.st_mode):
            self._tally.change(at.path, "type", size=at.node.size)
        elif "content" in seen.differs or not self._owners.owns(at.path, at.node, there):
            self._tally.change(at.path, "modified", size=at.node.size)
        else:
            self._tally.same(at.node.size)
            self._tally.differing(at.path, seen.differs)

    # -- by the threads that look -------------------------------------------------------------------------------

    def _look(self, batch: Sequence[Visited]) -> _Looked:
        same = self._same(batch)
        size = sum(batch[i].node.size for i in same)
        return _Looked(len(same), size, [self._seen(at) for i, at in enumerate(batch) if i not in same])

    def _same(self, batch: Sequence[Visited]) -> set[int]:
        """Which of them are plain files that are the same in everything, found folder by folder in a few calls."""
        plain = [i for i, at in enumerate(batch) if _is_plain(at)]
        # What is in no index is lost, whatever the target holds.
        if not self._reader.index.has_all(b"".join(batch[i].node.content.ids for i in plain)):
            return set()
        same: set[int] = set()
        for folder, numbers in groupby(plain, lambda i: batch[i].path.rpartition(b"/")[0]):
            run = list(numbers)
            self._reporter.check()
            nodes = [(batch[i].node, batch[i].users, batch[i].groups) for i in run]
            for i, data in zip(run, self._target.read_plain(folder, nodes), strict=True):
                if data is not None and self._is_content(data, batch[i].node.content.ids):
                    same.add(i)
        return same

    def _is_content(self, data: bytes, ids: bytes) -> bool:
        return self._domain.blob_id(BlobType.DATA, data) == ids if ids else not data

    def _seen(self, at: Visited) -> _Seen:
        """One entry by itself."""
        try:
            if at.leaving:
                return _Seen(at, others=self._others(at))
            first = self._first_name(at)
            if first is not None:
                return _Seen(at, self._other_name(at.path, first))
            if at.node.kind == NodeKind.FILE:
                return self._file(at)
            if at.node.kind == NodeKind.DIRECTORY:
                differs = self._differs(at) if at.path or self._top else frozenset[str]()
                return _Seen(at, differs - {"mtime", "size"})  # what is written into it changes them
            return _Seen(at, self._differs(at))
        except (Damaged, OSError) as e:
            return _Seen(at, error=e)

    def _others(self, at: Visited) -> list[bytes]:
        names = at.names
        if names is None:
            return []
        try:
            return [name for name in self._target.listdir(at.path) if name not in names]
        except (FileNotFoundError, NotADirectoryError):  # the folder would be made
            return []

    def _other_name(self, path: bytes, first: bytes) -> frozenset[str]:
        a, b = self._target.lstat(first), self._target.lstat(path)
        if b is None:
            return frozenset({"missing"})
        same = a is not None and (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
        return frozenset() if same else frozenset({"content"})

    def _file(self, at: Visited) -> _Seen:
        there, comparison = self._open(at)
        return self._file_seen(at, there, comparison.run(self._reporter.check) if comparison else None)

    def _open(self, at: Visited) -> tuple[os.stat_result | None, Comparison | None]:
        """What has the name of a file, and a comparison if that is a regular file; Damaged, OSError."""
        ids, places = pieces_of(self._reader, at.node)
        there = self._target.lstat(at.path)
        if there is None or not stat.S_ISREG(there.st_mode):
            return there, None
        return there, compare(self._target, at.path, at.node, ids, places, self._domain)

    def _file_seen(self, at: Visited, there: os.stat_result | None, lacking: Lacking) -> _Seen:
        if lacking is None or lacking:
            return _Seen(at, frozenset({"content"}), there)
        return _Seen(at, self._differs(at), there)

    def _differs(self, at: Visited) -> frozenset[str]:
        return self._target.differs(at.path, at.node, at.users, at.groups)


def _one(seen: _Seen) -> _Looked:
    return _Looked(0, 0, [seen])


def _is_plain(at: Visited) -> bool:
    """Whether it is a file of one chunk at most, without attributes, holes or further names."""
    node = at.node
    if node.kind != NodeKind.FILE or node.link is not None or node.xattrs or node.extents is not None:
        return False
    return not node.content.depth and len(node.content.ids) <= ID_SIZE and node.size == node.stored
