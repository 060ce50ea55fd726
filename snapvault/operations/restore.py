"""Restore: bring a snapshot, or a part of it, back to life."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import accumulate, islice
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO

from snapvault.access.resolve import resolve
from snapvault.access.snapshot import Entry, Snapshot
from snapvault.format.tree import ID_SIZE, Node, NodeKind
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.foundation.events import Control, Reporter, limits_of
from snapvault.foundation.ids import BlobId
from snapvault.operations.archive import archive
from snapvault.operations.compare import Lacking, compare, same_files
from snapvault.operations.fetch import Delivery, Fetcher, Piece
from snapvault.operations.files import FileJob, FileWriter
from snapvault.operations.hardlinks import HardLinks
from snapvault.operations.preview import Preview
from snapvault.operations.preview import verify as read_back
from snapvault.operations.remote_restore import restore_remote
from snapvault.operations.results import RestoreResult, text_path
from snapvault.operations.selection import Selection
from snapvault.operations.sources import is_url, local_path
from snapvault.operations.tally import Tally, in_the_snapshot
from snapvault.operations.target_errors import raise_if_fatal
from snapvault.operations.visit import Visited, visit_entry
from snapvault.repository.index import Place
from snapvault.repository.keyring import DomainKeys
from snapvault.repository.reader import BlobReader
from snapvault.repository.repository import Vault
from snapvault.target.attributes import Shortfall
from snapvault.target.filesystem import TEMPORARY, FilesystemTarget

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

BATCH_PIECES = 1 << 13  # chunks planned at once: what bounds the memory
BATCH_ENTRIES = 512  # looked at together where the target is not empty
WAITING_MAX = 1 << 12  # folders that were left, and further names of files, that wait for the end of a batch

Begun = tuple[Sequence[Future[None]], list[tuple[Visited, bytes]], list[Visited]]
NOTHING_BEGUN: Begun = ((), [], [])
Use = tuple[FileJob, int, int]  # a job, position of the piece in the file's stored bytes, and its length


def restore(
    repo: "Repository",
    snapshot: str | Snapshot,
    target: str | PathLike[str] | BinaryIO,
    *,
    path: str = "/",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    delete: bool = False,
    verify: bool = False,
    dry_run: bool = False,
    numeric_owner: bool = False,
    target_options: Mapping[str, Any] | None = None,
    control: Control | None = None,
) -> RestoreResult:
    """Write a snapshot, or what is inside its folder ``path`` (or the one file that it names), into ``target``.

    ``target`` is a folder, an fsspec URL, or a binary stream (one file's bytes, or a tar of a folder).  In a folder
    that exists, only what differs is written: files are compared by content.  The target itself gets owner, mode,
    attributes and time of the folder at ``path``, unless that is the whole snapshot.  ``delete`` removes what is not
    in the snapshot, never outside the target, and refuses ``/``.  ``verify`` reads everything back.  ``dry_run``
    writes nothing, and says in ``changes`` what would be written.  Paths that are lost to damage are named, all others
    are restored, and the status is ``damaged``; entries that could not be restored in everything or not be read back,
    and ``include`` patterns that match nothing, make it ``partial``; what needs root is counted.

    InvalidInput, RoleRequired, SourceError (the target cannot be written), StoreUnavailable, Cancelled.
    """
    vault = repo.vault.reading().limited(control).counting()
    vault.ring.require_read("restore")
    found = resolve(vault, snapshot) if isinstance(snapshot, str) else snapshot.through(vault)
    selection = Selection(include, exclude)
    if not isinstance(target, str | PathLike):
        if delete or verify or dry_run:
            raise InvalidInput("a stream can only be written to: delete, verify and dry_run need a folder or a URL")
        result = archive(found, path, target, selection, control)
    elif is_url(target):
        result = restore_remote(
            vault, found, str(target), path, selection, target_options, delete=delete, verify=verify, dry_run=dry_run,
            control=control,
        )  # fmt: skip
    else:
        place = local_path(target)
        if delete and os.path.realpath(place) == "/":
            raise InvalidInput("restore --delete into / would remove everything that is not in the snapshot")
        result = _restore_local(vault, found, place, path, selection, delete, verify, dry_run, numeric_owner, control)
    return replace(in_the_snapshot(result, found, path, selection), came_from=vault.came_from())


def _restore_local(
    vault: Vault, snapshot: Snapshot, place: str, path: str, selection: Selection, delete: bool, verify: bool,
    dry_run: bool, numeric_owner: bool, control: Control | None,
) -> RestoreResult:  # fmt: skip
    entry = snapshot.entry(path)
    if dry_run and not os.path.isdir(place):
        tally = Tally()
        _list_all(snapshot.reader(), entry, selection, tally)
        return tally.result(snapshot, place, dry_run=True)
    target = FilesystemTarget(place, numeric_owner=numeric_owner, clear=delete)
    try:
        tally = Tally()
        domain = snapshot_domain(vault, snapshot)
        if dry_run:
            Preview(vault, target, tally, domain, delete=delete, control=control).run(entry, selection)
        else:
            Restorer(vault, target, tally, domain, delete=delete, control=control).run(entry, selection)
            if verify:
                read_back(vault, target, tally, domain, entry, selection, control)
        return tally.result(snapshot, place, dry_run=dry_run, verified=verify)
    finally:
        target.close()


def _list_all(reader: BlobReader, top: Entry, selection: Selection, tally: Tally) -> None:
    """A dry run into a folder that does not exist: everything would be added."""
    for at in visit_entry(reader, top, tally.lose_folder, selection):
        if not at.leaving and at.path:
            tally.change(at.path, "added", size=at.node.size)


def snapshot_domain(vault: Vault, snapshot: Snapshot) -> DomainKeys:
    """The keys under which the blobs of a snapshot have their ids."""
    return vault.ring.domains[snapshot.domain]


class Restorer:
    """Restores a tree into a local folder."""

    def __init__(
        self,
        vault: Vault,
        target: FilesystemTarget,
        tally: Tally,
        domain: DomainKeys,
        *,
        delete: bool = False,
        control: Control | None = None,
    ) -> None:
        self._target, self._tally, self._delete = target, tally, delete
        self._reporter = Reporter("restore", control)
        self._reader = vault.reader(domain.id, cached=True)
        self._files = FileWriter(target)
        threads = limits_of(control).threads
        self._fetcher: Fetcher[Use] = Fetcher(self._reader, self._deliver, self._fail, threads)
        self._batch: list[Piece[Use]] = []
        self._begun = NOTHING_BEGUN  # what is being delivered, and the links and folders that wait for it
        self._top = False  # whether the target itself is a folder of the snapshot
        self._closing: list[Visited] = []  # folders that were left, and may wait for files of this batch
        self._barred: list[Visited] = []  # folders that will let nobody through
        self._fresh: set[bytes] = set()  # folders that this run made and has not left
        self._hardlinks = HardLinks()
        self._links: list[tuple[Visited, bytes]] = []  # further names of files, and the first of each
        self._unmade: set[bytes] = set()  # devices, which only root can make
        self._failed: set[bytes] = set()  # what could not be written: something older may stand there
        self._domain = domain
        self._beside: Sequence[Node] = ()
        self._places: dict[bytes, list[Place]] = {}

    def run(self, top: Entry, selection: Selection) -> None:
        """Restore everything that is selected below ``top``, or ``top`` itself if it is no folder."""
        self._top = top.path != "/"
        try:
            visited = visit_entry(self._reader, top, self._tally.lose_folder, selection)
            for at in visited if self._target.empty else self._differing(visited):
                self._reporter.check()
                try:
                    self._entry(at)
                except OSError as e:
                    self._trouble(at.path, e)
            self._drain()
            for at in self._barred:
                self._close_folder(at)
        finally:
            self._fetcher.close()
            self._files.close()

    def _differing(self, visited: Iterator[Visited]) -> Iterator[Visited]:
        """Without small files that are there already, and the same in everything."""
        while batch := list(islice(visited, BATCH_ENTRIES)):
            same = same_files(self._target, self._reader, self._domain, batch, self._reporter.check)
            self._tally.same(sum(batch[i].node.size for i in same), len(same))
            self._reporter.tick("compare", self._tally.files_same, current=text_path(batch[-1].path))
            yield from (at for i, at in enumerate(batch) if i not in same)

    # -- entries ------------------------------------------------------------------------------------------------

    def _entry(self, at: Visited) -> None:
        kind = at.node.kind
        if kind == NodeKind.DIRECTORY:
            if at.leaving:
                self._leave(at)
            else:
                self._enter(at)
            return
        fresh = at.path.rpartition(b"/")[0] in self._fresh
        first = self._hardlinks.first(at)
        if first is not None:
            self._links.append((at, first))
            if len(self._links) >= WAITING_MAX:
                self._flush()
            return
        if kind == NodeKind.FILE:
            self._file(at, fresh)
        else:
            self._other(at, fresh)

    def _enter(self, at: Visited) -> None:
        self._tally.folders += 1
        if self._target.make_directory(at.path):
            self._fresh.add(at.path)

    def _leave(self, at: Visited) -> None:
        try:
            if self._delete and at.path not in self._fresh and at.names is not None:
                self._remove_others(at.path, at.names)
        except OSError as e:  # the folder gets its metadata all the same
            self._trouble(at.path, e)
        self._fresh.discard(at.path)
        if at.path or self._top:
            at.names = None  # not to be kept until the end of the batch
            self._closing.append(at)
            if len(self._closing) >= WAITING_MAX:
                self._flush()

    def _remove_others(self, folder: bytes, names: Mapping[bytes, int]) -> None:
        there = self._target.listdir(folder)
        if any(n.startswith(TEMPORARY) and n not in names for n in there):
            self._drain()  # files that wait for pieces of the next batch get their names
            there = self._target.listdir(folder)
        for name in there:
            if name not in names:
                self._remove(folder + b"/" + name if folder else name)

    def _remove(self, path: bytes) -> None:
        try:
            self._target.remove(path)
        except OSError as e:  # others can still go
            self._trouble(path, e, "removed")
            return
        self._tally.removed += 1

    def _other(self, at: Visited, fresh: bool) -> None:
        self._tally.others += 1
        differs = frozenset({"missing"}) if fresh else self._target.differs(at.path, at.node, at.users, at.groups)
        if differs & {"missing", "kind", "target", "device"}:
            if at.node.kind == NodeKind.SYMLINK:
                self._target.symlink(at.path, at.node.target)
            else:
                shortfall = self._target.special(at.path, at.node)
                if shortfall is not None:
                    self._unmade.add(at.path)
                    self._tally.shortfall(shortfall)
                    return
        if differs:
            self._shortfalls(self._target.apply(at.path, at.node, at.users, at.groups))

    # -- files --------------------------------------------------------------------------------------------------

    def _file(self, at: Visited, fresh: bool) -> None:
        try:
            ids, places = self._reader.pieces(at.node.content, at.node.stored, self._places_beside(at))
        except Damaged as e:
            self._tally.lose(at.path, e)
            return
        count = len(places)
        job = FileJob(at, at.path, count, new=fresh)
        wanted: Iterable[int] = range(count)
        if not fresh:
            there = self._target.lstat(at.path)
            job.new = there is None
            if there is not None:
                missing = self._compare(job, ids, places, there)
                if missing is not None and not missing:
                    return
                wanted = range(count) if missing is None else missing
        self._plan(job, ids, places, wanted)

    def _places_beside(self, at: Visited) -> dict[bytes, list[Place]]:
        """Where the chunks of all files lie that stand in the same piece of a folder, by their ids; looked up at once.

        Those of which there is more to say are left out.
        """
        if self._beside is not at.beside:
            self._beside = at.beside
            self._places = self._reader.locate_many([n.content.ids for n in at.beside if _is_flat(n)])
        return self._places

    def _compare(self, job: FileJob, ids: bytes, places: list[Place], there: os.stat_result) -> Lacking:
        """Pieces that the file in the target lacks; [] if it is whole, and then its metadata is set right."""
        at = job.at
        self._reporter.tick("compare", self._tally.files_same, current=text_path(at.path))
        if not stat.S_ISREG(there.st_mode) or not self._hardlinks.claim(at.path, at.node, there):
            return None
        comparison = compare(self._target, at.path, at.node, ids, places, self._domain)
        if comparison is None:
            return None
        job.in_place = comparison.in_place
        parts = comparison.parts(self._reporter.check)
        if len(parts) == 1:  # here: the other threads are busy with what differs
            missing = comparison.conclude([parts[0]()])
        else:
            tasks = [self._fetcher.submit(part) for part in parts]
            missing = comparison.conclude(task.result() for task in tasks)
        if missing is None or missing:
            return missing
        self._tally.same(at.node.size)
        if self._target.differs(at.path, at.node, at.users, at.groups):
            self._shortfalls(self._target.apply(at.path, at.node, at.users, at.groups))
        return missing

    def _plan(self, job: FileJob, ids: bytes, places: list[Place], wanted: Iterable[int]) -> None:
        if len(places) == 1 and job.new:
            self._batch.append(Piece(BlobId(ids), places[0], (job, 0, places[0].length)))
            if len(self._batch) >= BATCH_PIECES:
                self._flush()
            return
        positions = list(accumulate((p.length for p in places), initial=0))
        pieces = list(wanted)
        job.remaining = len(pieces)
        if not pieces:
            self._shortfalls(self._files.finish(job))
            self._tally.wrote(job.at.node.size)
            return
        for i in pieces:
            use = job, positions[i], places[i].length
            self._batch.append(Piece(BlobId(ids[i * ID_SIZE : (i + 1) * ID_SIZE]), places[i], use))
            if len(self._batch) >= BATCH_PIECES:
                self._flush()

    def _flush(self) -> None:
        """Begin to deliver what is planned, and bring to its end what was begun before: one batch is always on its way.

        When a batch is at its end, only a file of which more was planned after it can be incomplete.  That is in no
        folder that was left by then, and no other name of it was visited before.
        """
        tasks = self._fetcher.start(self._batch)
        before, self._begun = self._begun, (tasks, self._links, self._closing)
        self._batch, self._links, self._closing = [], [], []
        self._end(*before)

    def _drain(self) -> None:
        """Deliver all that is planned."""
        self._flush()
        before, self._begun = self._begun, NOTHING_BEGUN
        self._end(*before)

    def _end(self, tasks: Sequence[Future[None]], links: list[tuple[Visited, bytes]], closing: list[Visited]) -> None:
        self._fetcher.finish(tasks)
        self._make_links(links)
        self._close_folders(closing)

    def _deliver(self, delivery: Delivery[Use]) -> None:
        """From worker threads: pieces of files.  Small new files, which are most, are made many at once."""
        self._reporter.check()
        small = [(use[0], data) for use, data in delivery if _is_whole(use, data)]
        if small:
            made = self._files.whole_many(small)
            sizes = [len(data) for (_, data), good in zip(small, made, strict=True) if good]
            self._tally.wrote(sum(sizes), len(sizes))
            done = {id(job) for (job, _), good in zip(small, made, strict=True) if good}
            delivery = [(use, data) for use, data in delivery if id(use[0]) not in done]
        for use, data in delivery:
            self._deliver_piece(use, data)
        self._reporter.tick("write", self._tally.files_written, bytes_done=self._tally.bytes_written)

    def _deliver_piece(self, use: Use, data: memoryview) -> None:
        job, position, length = use
        self._reporter.check()
        if len(data) != length:
            self._fail(use, Damaged("a part of it has another length than the index states"))
            return
        try:
            if _is_whole(use, data):
                self._shortfalls(self._files.whole(job, data))
            else:
                with job.lock:
                    if job.error:
                        return
                    self._files.write(job, position, data)
                    job.remaining -= 1
                    if job.remaining:
                        return
                self._shortfalls(self._files.finish(job))
        except OSError as e:
            self._give_up(job, e)
            return
        self._tally.wrote(job.at.node.size)
        self._reporter.tick("write", self._tally.files_written, bytes_done=self._tally.bytes_written)

    def _fail(self, use: Use, error: Damaged) -> None:
        job = use[0]
        if not job.error:
            job.error = error.message
            where = " (it was being mended in place and is now a mixture)" if job.in_place and job.written else ""
            self._tally.lose(job.path, Damaged(error.message + where, affected=error.affected))
            self._files.give_up(job)

    def _give_up(self, job: FileJob, error: OSError) -> None:
        first, job.error = not job.error, job.error or str(error)  # before: no other thread begins it anew
        self._files.give_up(job)
        if first:
            self._trouble(job.path, error)

    # -- the end of a batch -------------------------------------------------------------------------------------

    def _make_links(self, links: list[tuple[Visited, bytes]]) -> None:
        for at, first in links:
            self._tally.others += 1
            if first in self._tally.lost_paths:
                self._tally.lose(at.path, Damaged("the file that it is another name of is lost"))
                continue
            if first in self._unmade:
                self._tally.shortfall(Shortfall(at.path, "device", True, "it is another name of such a device"))
                continue
            if first in self._failed:
                self._tally.issue(at.path, "cannot be restored: the file that it is another name of was not")
                continue
            try:
                a, b = self._target.lstat(first), self._target.lstat(at.path)
                same = a is not None and b is not None and (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
                if not same:
                    self._target.link(first, at.path)
            except OSError as e:
                self._trouble(at.path, e)

    def _close_folders(self, closing: list[Visited]) -> None:
        """Folders get their metadata when nothing is written into them any more."""
        for at in closing:
            if at.node.mode & stat.S_IXUSR:
                self._close_folder(at)
            else:  # a file below it may get a name elsewhere until the end
                self._barred.append(at)

    def _close_folder(self, at: Visited) -> None:
        try:
            self._shortfalls(self._target.apply(at.path, at.node, at.users, at.groups))
        except OSError as e:
            self._trouble(at.path, e)

    def _shortfalls(self, shortfalls: list[Shortfall]) -> None:
        for shortfall in shortfalls:
            self._tally.shortfall(shortfall)

    def _trouble(self, path: bytes, error: OSError, what: str = "restored") -> None:
        """An entry that cannot be written is named; a target that is full or failing ends the restore."""
        reason = raise_if_fatal(path, error)
        self._failed.add(path)
        self._tally.issue(path, f"cannot be {what}: {reason}")


def _is_flat(node: Node) -> bool:
    """Whether the ids of a file's chunks stand in its own entry."""
    return node.kind == NodeKind.FILE and bool(node.content.ids) and not node.content.depth


def _is_whole(use: Use, data: memoryview) -> bool:
    """Whether a piece is all of a new file without holes, of which nothing was written yet."""
    job, position, length = use
    node = job.at.node
    if not job.new or job.remaining != 1 or job.written or position or job.error:
        return False
    return node.extents is None and len(data) == length == node.size
