"""Restore into an fsspec URL: names and bytes; what such a place cannot keep is counted and said."""

from collections.abc import Mapping
from typing import Any

from snapvault.access.snapshot import Entry, Snapshot, StoredFile
from snapvault.format.tree import NodeKind
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.foundation.events import Control, Reporter
from snapvault.operations.results import RestoreResult, text_path
from snapvault.operations.selection import Selection
from snapvault.operations.tally import Tally
from snapvault.operations.visit import Visited, visit
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
    entry = snapshot.entry(path)
    if entry.node.kind != NodeKind.DIRECTORY:
        raise InvalidInput("only a folder can be restored to a URL", hint="use --stdout for a single file")
    target = RemoteTarget(url, options)
    tally = Tally()
    work = _Remote(target, snapshot.reader(), tally, Reporter("restore", control), dry_run=dry_run)
    for at in visit(snapshot.reader(), entry.node, tally.lose_folder, selection):
        if not at.leaving:
            work.entry(at)
    if delete and not selection.narrow:
        # Of the whole snapshot: what a pattern leaves out is in it all the same.
        kept = {at.path for at in visit(snapshot.reader(), entry.node, tally.lose_folder)}
        if not tally.lost:
            work.remove_others(kept)
    if verify and not dry_run:
        work.verify()
    for what, count in target.not_kept.items():
        tally.unprivileged += count if what != "owners, modes and times" else 0
    return tally.result(snapshot, target.label, dry_run=dry_run, verified=verify)


class _Remote:
    def __init__(
        self, target: RemoteTarget, reader: BlobReader, tally: Tally, reporter: Reporter, *, dry_run: bool
    ) -> None:
        self._target, self._reader, self._tally, self._reporter = target, reader, tally, reporter
        self._dry = dry_run
        self._written: list[Visited] = []

    def entry(self, at: Visited) -> None:
        self._reporter.check()
        node = at.node
        self._target.note(node)
        if node.kind == NodeKind.DIRECTORY:
            self._folder(at)
            return
        if node.kind != NodeKind.FILE:
            self._tally.others += 1
            return
        try:
            size = self._target.size(at.path)
            if size == node.size and self._same(at):
                self._tally.same(node.size)
            elif self._dry:
                self._tally.change(at.path, "added" if size is None else "modified", size=node.size)
            else:
                self._write(at)
        except Damaged as e:
            self._tally.lose(at.path, e)
        except OSError as e:
            self._tally.issue(at.path, f"cannot be restored: {e.strerror or e}")

    def _folder(self, at: Visited) -> None:
        self._tally.folders += bool(at.path)
        if self._dry:
            return
        try:
            self._target.make_directory(at.path)
        except OSError as e:
            self._tally.issue(at.path, f"cannot be restored: {e.strerror or e}")

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
                file.abort()
                raise
        self._tally.wrote(at.node.size)
        self._written.append(at)

    def remove_others(self, kept: set[bytes]) -> None:
        """Delete files below the URL that the snapshot does not hold."""
        for path, _ in list(self._target.files()):
            if path in kept:
                continue
            self._tally.removed += 1
            if self._dry:
                self._tally.change(path, "removed")
            else:
                self._target.delete(path)

    def verify(self) -> None:
        """Read back what was written."""
        for at in self._written:
            if not self._same(at):
                self._tally.issue(at.path, "differs after the restore")


def _read(stored: StoredFile) -> bytes:
    return stored.read(BLOCK) or b""
