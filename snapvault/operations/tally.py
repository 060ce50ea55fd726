"""What a restore did, counted by several threads."""

import os
import threading
import time
from dataclasses import replace

from snapvault.access.snapshot import Snapshot
from snapvault.format.tree import NodeKind
from snapvault.foundation.errors import Damaged
from snapvault.operations.results import Change, Issue, RestoreResult, text_path
from snapvault.operations.selection import Selection
from snapvault.target.attributes import Shortfall

UNREAD = "could not be looked at: permission denied"


class Tally:
    """Counts for a RestoreResult.  Thread-safe where threads write."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self.files_written = self.files_same = self.removed = self.folders = self.others = 0
        self.bytes_written = self.bytes_same = self.unprivileged = 0
        self.issues: list[Issue] = []
        self.lost: list[Issue] = []
        self.lost_paths: set[bytes] = set()
        self._unmade: set[str] = set()
        self.changes: list[Change] = []

    def wrote(self, size: int, files: int = 1) -> None:
        """Files were written, of so many bytes together."""
        with self._lock:
            self.files_written += files
            self.bytes_written += size

    def same(self, size: int, files: int = 1) -> None:
        """Files were there already, of so many bytes together."""
        with self._lock:
            self.files_same += files
            self.bytes_same += size

    def issue(self, path: bytes, message: str) -> None:
        """An entry is not restored in everything."""
        with self._lock:
            self.issues.append(Issue(text_path(path), message))

    def lose(self, path: bytes, error: Damaged) -> None:
        """An entry is lost to damage."""
        with self._lock:
            self.lost.append(Issue(text_path(path), error.message))
            self.lost_paths.add(path)

    def lose_folder(self, path: bytes, error: Damaged) -> None:
        """A folder's list of entries is damaged: what it held beyond what was read is lost."""
        self.lose(path or b"/", Damaged(f"entries of this folder are lost: {error.message}"))

    def shortfall(self, shortfall: Shortfall) -> None:
        """Metadata could not be set."""
        if shortfall.needs_root:
            with self._lock:
                self.unprivileged += 1
                if shortfall.what == "device":
                    self._unmade.add(text_path(shortfall.path))
        else:
            self.issue(shortfall.path, shortfall.message)

    def unseen(self, path: bytes) -> None:
        """Of a preview: only root could look at it."""
        self.unprivileged += 1
        self.issue(path, UNREAD)

    def change(self, path: bytes, kind: str, *, size: int = 0, details: tuple[str, ...] = ()) -> None:
        """Of a preview."""
        self.changes.append(Change(text_path(path), kind, details, size_after=size))

    def differing(self, path: bytes, differs: frozenset[str]) -> None:
        """Of a preview: an entry that is not a file, or only its metadata."""
        if not differs:
            return
        if "missing" in differs:
            self.change(path, "added")
        elif differs & {"kind", "target", "device"}:
            self.change(path, "type" if "kind" in differs else "modified", details=tuple(sorted(differs)))
        else:
            self.change(path, "metadata", details=tuple(sorted(differs)))

    def compare(self, again: "Tally") -> None:
        """What a second look found different from the snapshot, though it was just written."""
        known = {i.path for i in (*self.issues, *self.lost)} | self._unmade
        self.issues += [
            i if i.message == UNREAD else Issue(i.path, f"the restored entry could not be verified: {i.message}")
            for i in again.issues
            if i.path not in known
        ]
        self.lost += [i for i in again.lost if i.path not in known]
        excused = {"owner", "mode", "xattrs"} if self.unprivileged else set()
        for change in again.changes:
            content = change.kind in ("added", "modified", "type")
            if change.path not in known and (content or set(change.details) - excused):
                self.issues.append(Issue(change.path, f"differs after the restore: {change.kind}"))

    def result(
        self, snapshot: Snapshot, target: str, *, dry_run: bool = False, verified: bool = False
    ) -> RestoreResult:
        """The frozen result."""
        by_path = sorted(self.issues, key=lambda i: i.path)
        lost = sorted(self.lost, key=lambda i: i.path)
        return RestoreResult(
            snapshot.id, target, self.files_written, self.files_same, self.removed, self.folders, self.others,
            self.bytes_written, self.bytes_same, self.unprivileged, tuple(by_path), tuple(lost), tuple(self.changes),
            time.monotonic() - self._started, dry_run, verified,
        )  # fmt: skip


def in_the_snapshot(result: RestoreResult, snapshot: Snapshot, path: str, selection: Selection) -> RestoreResult:
    """Issues name paths as the snapshot and a check do; ``include`` patterns that match nothing are one, too."""
    missed = selection.narrow and not selection.matched
    if not (result.issues or result.lost or missed):
        return result
    top = snapshot.entry(path)
    folder = top.path if top.node.kind == NodeKind.DIRECTORY else os.path.dirname(top.path)

    def rooted(issues: tuple[Issue, ...]) -> tuple[Issue, ...]:
        return tuple(Issue(f"{folder}/{i.path}".replace("//", "/").rstrip("/") or "/", i.message) for i in issues)

    issues = rooted(result.issues)
    if missed and folder == top.path:
        patterns = ", ".join(repr(p) for p in selection.patterns)
        issues = (Issue(folder, f"nothing in it matches the include patterns ({patterns})"), *issues)
    return replace(result, issues=issues, lost=rooted(result.lost))
