"""What a restore would change in a folder: for a dry run, and to see after a restore that nothing is left to change."""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from snapvault.access.snapshot import Entry
from snapvault.format.tree import NodeKind
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Control, Reporter, limits_of
from snapvault.operations.compare import PART_BYTES, Comparison, Lacking, compare, same_files
from snapvault.operations.hardlinks import HardLinks
from snapvault.operations.results import text_path
from snapvault.operations.selection import Selection
from snapvault.operations.tally import Tally
from snapvault.operations.target_errors import raise_if_fatal
from snapvault.operations.visit import Visited, visit_entry
from snapvault.repository.keyring import DomainKeys
from snapvault.repository.repository import Vault
from snapvault.target.attributes import is_root
from snapvault.target.filesystem import FilesystemTarget

BATCH, BATCH_BYTES = 512, 8 << 20  # entries that one thread looks at, and bytes of their files
LARGE = PART_BYTES  # a file of so many bytes is looked at by several threads
AHEAD, LARGE_AHEAD = 3, 2  # batches for each thread, and large files, that are begun and not yet told


class _Entry(NamedTuple):
    """What was found of an entry that is not, or perhaps not, as in the snapshot."""

    at: Visited
    differs: frozenset[str] = frozenset()  # as of FilesystemTarget.differs, and "content"
    there: os.stat_result | None = None  # of a file; with an error: its content is the same
    extraneous: Sequence[bytes] = ()  # in a folder that is left: names that are not in the snapshot
    error: Damaged | OSError | None = None


class _Batch(NamedTuple):
    """What was found of some entries: files that are the same in everything, their bytes, and the rest in order."""

    same: int
    same_bytes: int
    rest: Sequence[_Entry]
    last: bytes  # path


def verify(
    vault: Vault, target: FilesystemTarget, tally: Tally, domain: DomainKeys, top: Entry, selection: Selection,
    control: Control | None,
) -> None:  # fmt: skip
    """After a restore: read all of it back.  What differs, or cannot be seen, goes into its tally.

    Raises as ``Preview.run``.
    """
    again = Tally()
    Preview(vault, target, again, domain, control=control).run(top, selection)
    tally.compare(again)


class Preview:
    """Compares a tree of a snapshot with a local folder.  Nothing is written; what differs stands in the tally.

    ``run`` once.  The thread that calls it visits the tree and writes the tally; the threads of the pool look at what
    it has submitted, and change nothing here.
    """

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
        self._pending: deque[Callable[[], _Batch]] = deque()  # in the order of the entries
        self._batch: list[Visited] = []
        self._bytes = 0  # of the files in it
        self._top = False  # whether the target itself is a folder of the snapshot
        self._links = HardLinks()
        self._failed: set[bytes] = set()  # what could not be looked at

    def run(self, top: Entry, selection: Selection) -> None:
        """Compare everything that is selected below ``top``, or ``top`` itself if it is no folder.

        SourceError if the target fails; errors of the store, Cancelled.
        """
        self._top = top.path != "/"
        try:
            for at in visit_entry(self._reader, top, self._tally.lose_folder, selection):
                self._reporter.check()
                self._add(at)
            self._submit()
            self._tell(0)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pending.clear()  # whoever keeps the error keeps this, too

    # -- by the thread that visits ------------------------------------------------------------------------------

    def _add(self, at: Visited) -> None:
        if at.leaving and not self._delete:
            return
        other_name = self._links.first(at) is not None
        if at.node.kind == NodeKind.FILE and not other_name:
            if at.node.size >= LARGE:
                self._submit()
                self._pending.append(self._begin(at))
                self._tell(LARGE_AHEAD)
                return
            self._bytes += at.node.size
        self._batch.append(at)
        if len(self._batch) >= BATCH or self._bytes >= BATCH_BYTES:
            self._submit()

    def _submit(self) -> None:
        if self._batch:
            self._pending.append(self._pool.submit(self._look, self._batch).result)
            self._batch, self._bytes = [], 0
            self._tell(self._ahead)

    def _begin(self, at: Visited) -> Callable[[], _Batch]:
        """Begin to compare a large file, part by part."""
        try:
            there, comparison = self._open(at)
            parts = comparison.parts(self._reporter.check) if comparison else []
        except (Damaged, OSError) as e:
            return partial(_only, _Entry(at, error=e))
        return partial(self._end, at, there, comparison, [self._pool.submit(part) for part in parts])

    def _end(
        self, at: Visited, there: os.stat_result | None, comparison: Comparison | None, tasks: list[Future[list[int]]]
    ) -> _Batch:
        try:
            lacking = comparison.conclude(self._results(tasks, at.path)) if comparison else None
            return _only(self._file_entry(at, there, lacking))
        except OSError as e:
            return _only(_Entry(at, error=e))
        finally:
            tasks.clear()  # an error holds this frame, and a task the error and the open file

    def _results(self, tasks: Sequence[Future[list[int]]], path: bytes) -> Iterator[list[int]]:
        for task in tasks:
            self._reporter.tick("compare", self._tally.files_same, current=text_path(path))
            yield task.result()

    def _tell(self, ahead: int) -> None:
        """Take over what was found, until no more than so many batches are on their way."""
        while len(self._pending) > ahead:
            batch = self._pending.popleft()()
            if batch.same:
                self._tally.same(batch.same_bytes, batch.same)
            for entry in batch.rest:
                self._tell_entry(entry, self._links.first(entry.at))
            self._reporter.tick("compare", self._tally.files_same, current=text_path(batch.last))

    def _tell_entry(self, entry: _Entry, first: bytes | None) -> None:
        """``first``: the name of the same file that was visited before."""
        at, tally = entry.at, self._tally
        is_file = at.node.kind == NodeKind.FILE and first is None
        if at.leaving:
            tally.removed += len(entry.extraneous)
        elif at.node.kind == NodeKind.DIRECTORY:
            tally.folders += 1
        elif not is_file:
            tally.others += 1
        if self._tell_trouble(entry, first):
            return
        if at.leaving:
            for name in entry.extraneous:
                tally.change(at.path + b"/" + name if at.path else name, "removed")
        elif is_file:
            self._tell_file(entry)
        elif first is None:
            tally.differing(at.path or b"/", entry.differs)
        elif entry.differs:
            tally.change(at.path, "added" if "missing" in entry.differs else "modified", size=at.node.size)

    def _tell_trouble(self, entry: _Entry, first: bytes | None) -> bool:
        """Whether it could not be looked at, or the file that it is a name of could not."""
        at, error = entry.at, entry.error
        if first in self._tally.lost_paths:
            self._tally.lose(at.path, Damaged("the file that it is another name of is lost"))
        elif first in self._failed:
            self._tally.issue(at.path, "cannot be looked at: nor could the file that it is another name of")
        elif isinstance(error, Damaged):
            self._tally.lose(at.path, error)
        elif isinstance(error, PermissionError) and not is_root():
            if entry.there is not None:
                self._tally.same(at.node.size)  # that much was seen
            self._tally.unseen(at.path)  # a folder lets not even its owner in, and that is not changed here
        elif error is not None:
            reason = raise_if_fatal(at.path, error)
            self._failed.add(at.path)
            what = "restored" if error.errno == errno.ENOTEMPTY else "looked at"
            self._tally.issue(at.path, f"cannot be {what}: {reason}")
        return error is not None or first in self._tally.lost_paths or first in self._failed

    def _tell_file(self, entry: _Entry) -> None:
        at, there = entry.at, entry.there
        if there is None:
            self._tally.change(at.path, "added", size=at.node.size)
        elif not stat.S_ISREG(there.st_mode):
            self._tally.change(at.path, "type", size=at.node.size)
        # Claimed whether it is the same or not, as a restore does.
        elif not self._links.claim(at.path, at.node, there) or "content" in entry.differs:
            self._tally.change(at.path, "modified", size=at.node.size)
        else:
            self._tally.same(at.node.size)
            self._tally.differing(at.path, entry.differs)

    # -- by the threads of the pool -----------------------------------------------------------------------------

    def _look(self, batch: Sequence[Visited]) -> _Batch:
        same = same_files(self._target, self._reader, self._domain, batch, self._reporter.check)
        rest = []
        for i, at in enumerate(batch):
            if i not in same:
                self._reporter.check()
                rest.append(self._look_at(at))
        return _Batch(len(same), sum(batch[i].node.size for i in same), rest, batch[-1].path)

    def _look_at(self, at: Visited) -> _Entry:
        """One entry by itself."""
        try:
            first = self._links.first(at)
            if at.leaving:
                return _Entry(at, extraneous=self._extraneous(at))
            if first is not None:
                return _Entry(at, self._other_name(at.path, first))
            if at.node.kind == NodeKind.FILE:
                there, comparison = self._open(at)
                parts = comparison.parts(self._reporter.check) if comparison else []
                lacking = comparison.conclude(part() for part in parts) if comparison else None
                return self._file_entry(at, there, lacking)
            if at.node.kind == NodeKind.DIRECTORY:
                differs = self._differs(at) if at.path or self._top else frozenset[str]()
                return _Entry(at, differs - {"mtime", "size"})  # what is written into it changes them
            differs = self._differs(at)
            if "kind" in differs:
                self._target.check_way(at.path)
            return _Entry(at, differs)
        except (Damaged, OSError) as e:
            return _Entry(at, error=e)

    def _check_way(self, path: bytes, mode: int) -> None:
        if stat.S_ISDIR(mode):
            self._target.check_way(path)

    def _extraneous(self, at: Visited) -> list[bytes]:
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
        self._check_way(path, b.st_mode)
        same = a is not None and (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
        return frozenset() if same else frozenset({"content"})

    def _open(self, at: Visited) -> tuple[os.stat_result | None, Comparison | None]:
        """What has the name of a file, and a comparison if it may be the same; Damaged, OSError."""
        ids, places = self._reader.pieces(at.node.content, at.node.stored)
        there = self._target.lstat(at.path)
        if there is None or not stat.S_ISREG(there.st_mode):
            self._check_way(at.path, there.st_mode if there is not None else 0)
            return there, None
        return there, compare(self._target, at.path, at.node, ids, places, self._domain)

    def _file_entry(self, at: Visited, there: os.stat_result | None, lacking: Lacking) -> _Entry:
        if lacking is None or lacking:
            return _Entry(at, frozenset({"content"}), there)
        try:
            return _Entry(at, self._differs(at), there)
        except OSError as e:
            return _Entry(at, there=there, error=e)

    def _differs(self, at: Visited) -> frozenset[str]:
        return self._target.differs(at.path, at.node, at.users, at.groups)


def _only(entry: _Entry) -> _Batch:
    return _Batch(0, 0, [entry], entry.at.path)
