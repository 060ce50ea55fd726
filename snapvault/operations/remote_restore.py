"""Restore into an fsspec URL: names and bytes; what such a place cannot keep is counted and said."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from snapvault.access.snapshot import Entry, Snapshot, StoredFile
from snapvault.backend.remote_errors import kind_of, s3_code
from snapvault.format.tree import NodeKind
from snapvault.foundation.errors import Damaged, StoreDenied, StoreFull, StoreUnavailable
from snapvault.foundation.events import Control, Reporter
from snapvault.operations.results import RestoreResult, text_path
from snapvault.operations.selection import Selection
from snapvault.operations.tally import Tally
from snapvault.operations.target_errors import FULL, raise_if_fatal
from snapvault.operations.visit import Visited, visit_entry
from snapvault.repository.reader import BlobReader
from snapvault.repository.repository import Vault
from snapvault.target.remote import RemoteTarget

BLOCK = 1 << 20


def restore_remote(
    vault: Vault,
    snapshot: Snapshot,
    url: str,
    path: str,
    selection: Selection,
    options: Mapping[str, Any] | None,
    *,
    delete: bool,
    verify: bool,
    dry_run: bool,
    control: Control | None,
) -> RestoreResult:
    """Files of the same size are read and compared before they are written.  Errors as of ``restore``."""
    entry, tally = snapshot.entry(path), Tally()
    target = RemoteTarget(url, options)
    reader, reporter = vault.reader(snapshot.domain, cached=True), Reporter("restore", control)
    _Remote(target, reader, tally, reporter, delete=delete, dry_run=dry_run).run(entry, selection)
    tally.unprivileged = sum(n for what, n in target.not_kept.items() if what != "owners, modes and times")
    if verify and not dry_run:
        again = Tally()
        _Remote(target, reader, again, reporter, dry_run=True).run(entry, selection)
        tally.compare(again)
    return tally.result(snapshot, target.label, dry_run=dry_run, verified=verify)


class _Remote:
    """Restores a tree below a URL."""

    def __init__(
        self,
        target: RemoteTarget,
        reader: BlobReader,
        tally: Tally,
        reporter: Reporter,
        *,
        delete: bool = False,
        dry_run: bool = False,
    ) -> None:
        self._target, self._reader, self._tally, self._reporter = target, reader, tally, reporter
        self._delete, self._dry = delete, dry_run

    def run(self, top: Entry, selection: Selection) -> None:
        """Restore everything that is selected below ``top``, or ``top`` itself if it is no folder."""
        if not self._dry:
            self._make_folder(b"")
        for at in visit_entry(self._reader, top, self._tally.lose_folder, selection):
            self._reporter.check()
            if at.leaving:
                self._leave(at)
            else:
                self._entry(at)

    def _entry(self, at: Visited) -> None:
        node = at.node
        self._target.note(node)
        if node.kind == NodeKind.DIRECTORY:
            self._tally.folders += bool(at.path)
            if at.path and not self._dry:
                self._make_folder(at.path)
        elif node.kind != NodeKind.FILE:
            self._tally.others += 1
        else:
            try:
                self._file(at)
            except Damaged as e:
                self._tally.lose(at.path, e)
            except OSError as e:
                self._trouble(at.path, e)

    def _make_folder(self, path: bytes) -> None:
        try:
            self._target.make_directory(path)
        except OSError as e:
            self._trouble(path, e)

    # -- files --------------------------------------------------------------------------------------------------

    def _file(self, at: Visited) -> None:
        size = self._target.size(at.path)
        if size == at.node.size and self._same(at):
            self._tally.same(at.node.size)
        elif self._dry:
            self._tally.change(at.path, "added" if size is None else "modified", size=at.node.size)
        else:
            self._write(at)

    def _open(self, at: Visited) -> StoredFile:
        return StoredFile(self._reader, Entry(text_path(at.path), at.node))

    def _same(self, at: Visited) -> bool:
        with self._open(at) as stored, self._target.open(at.path) as there:
            while True:
                self._reporter.check()
                block = _read(stored)
                if there.read(len(block) or 1) != block:
                    return False
                if not block:
                    return True

    def _write(self, at: Visited) -> None:
        with self._open(at) as stored:
            file = self._target.create(at.path)
            try:
                while block := _read(stored):
                    self._reporter.tick("write", self._tally.files_written, bytes_done=self._tally.bytes_written)
                    file.write(block)
                file.commit()
            except BaseException:
                with suppress(OSError):  # what went wrong first counts
                    file.abort()
                raise
        self._tally.wrote(at.node.size)

    # -- what is more -------------------------------------------------------------------------------------------

    def _leave(self, at: Visited) -> None:
        """With ``delete``: remove what the snapshot does not hold, as in a local folder."""
        if not self._delete or at.names is None:
            return
        try:
            there = self._target.listdir(at.path)
        except FileNotFoundError:  # of a dry run, or without folders
            return
        except OSError as e:
            self._trouble(at.path, e)
            return
        for name, is_folder in there:
            kind = at.names.get(name)
            # A store without folders can hold a file and, under the same name, what is below it.
            if kind is None or (kind == NodeKind.FILE and is_folder) or (kind == NodeKind.DIRECTORY and not is_folder):
                self._remove(at.path + b"/" + name if at.path else name, is_folder)

    def _remove(self, path: bytes, is_folder: bool) -> None:
        if self._dry:
            self._tally.change(path, "removed")
        else:
            try:
                self._target.remove(path, folder=is_folder)
            except OSError as e:
                self._trouble(path, e, "removed")
                return
        self._tally.removed += 1

    def _trouble(self, path: bytes, error: OSError, what: str = "restored") -> None:
        """An entry that cannot be written is named; a target that is full or does not answer ends the restore."""
        reason = raise_if_fatal(path, error, fatal=_is_fatal(error), target=f"the target {self._target.label}")
        self._tally.issue(path, f"cannot be {what}: {reason}")


def _is_fatal(error: OSError) -> bool:
    """Going on would fail for every file: it is full, can only be read, does not answer, or knows no credentials."""
    if error.errno in FULL or kind_of(error) is StoreFull:
        return True
    cause = error.__cause__
    if not isinstance(cause, Exception) or isinstance(cause, OSError):
        return isinstance(error, ConnectionError | TimeoutError)
    # The driver's own error: an answer of the store is about one object, no answer is not.
    return s3_code(cause) == ("", 0) and kind_of(cause) in (StoreUnavailable, StoreDenied)


def _read(stored: StoredFile) -> bytes:
    return stored.read(BLOCK) or b""
