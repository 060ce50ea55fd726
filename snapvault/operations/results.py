"""What operations answer: frozen, with ``status`` and ``to_dict()``."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from snapvault.foundation.words import count
from snapvault.repository.failover import ReadFrom

OK, PARTIAL, DAMAGED = "ok", "partial", "damaged"


def text_path(path: bytes) -> str:
    """A path for people and JSON; bytes that are no UTF-8 appear as surrogate escapes."""
    return os.fsdecode(path)


@dataclass(frozen=True, slots=True)
class Issue:
    """Something about one path that went otherwise than asked."""

    path: str
    message: str


class Result:
    """Base of all results."""

    __slots__ = ()

    @property
    def status(self) -> str:
        """``ok``, ``partial`` (items were skipped, or are lost as is known) or ``damaged`` (stored data is lost)."""
        return OK

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "status": self.status}  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class BackupResult(Result):
    """A backup that was acknowledged (or, with ``dry_run``, one that would have been)."""

    snapshot: str  # id; "" on a dry run
    dataset: str
    parent: str  # id of the snapshot that was compared with; "" if none
    files_new: int
    files_changed: int  # in content, mode, owner, modification time, attributes, or whether it has other names
    files_unmodified: int  # also those that were read, and are what they were
    folders: int
    others: int  # symlinks, devices, FIFOs, sockets
    bytes_total: int  # of all files in the snapshot
    bytes_read: int
    bytes_new: int  # plaintext that was not stored before
    bytes_stored: int  # in packs, compressed and sealed
    vanished: int  # gone between listing and opening
    issues: tuple[Issue, ...]  # files that were dropped, or may be a mixture
    warnings: tuple[str, ...]
    seconds: float
    dry_run: bool = False

    @property
    def status(self) -> str:
        return PARTIAL if self.issues else OK


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that differs between two snapshots, or between a snapshot and a restore's target."""

    path: str
    kind: str  # added, removed, modified (content), metadata, type
    details: tuple[str, ...] = ()  # what of the metadata differs
    size_before: int = 0
    size_after: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RestoreResult(Result):
    """What a restore wrote, and what it could not."""

    snapshot: str
    target: str
    files_written: int
    files_same: int  # there already, with these bytes
    removed: int  # entries that were not in the snapshot (``delete``)
    folders: int
    others: int
    bytes_written: int
    bytes_same: int
    unprivileged: int  # entries whose owner or kind needs root; counted, no error
    issues: tuple[Issue, ...]  # entries that are restored, but not in everything
    lost: tuple[Issue, ...]  # entries that are not restored: their stored data is damaged
    changes: tuple[Change, ...]  # of a dry run: what would be done
    seconds: float
    dry_run: bool = False
    verified: bool = False  # everything was read back and compared
    came_from: tuple[ReadFrom, ...] = ()  # of a repository that was opened with other sites

    @property
    def status(self) -> str:
        if self.lost:
            return DAMAGED
        return PARTIAL if self.issues else OK


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check found."""

    message: str
    objects: tuple[str, ...] = ()  # names in the store
    snapshots: tuple[str, ...] = ()  # ids of snapshots that it touches
    harmless: bool = False  # worth knowing, but no stored data is affected


@dataclass(frozen=True, slots=True)
class LostPath:
    """A path of a snapshot whose stored data is damaged or missing."""

    snapshot: str
    path: str
    message: str
    noted: bool = False  # by a repair, so that it is nothing new
    folder: bool = False  # what is lost are entries of it, of which nobody knows the names


def lost_words(lost: Sequence[LostPath]) -> str:
    """``2 paths and entries of 1 folder``: how much is known to be lost."""
    folders = sum(path.folder for path in lost)
    words = [count(len(lost) - folders, "path")] if len(lost) > folders else []
    words += [f"entries of {count(folders, 'folder')}, whose names are lost with them"] if folders else []
    return " and ".join(words)


@dataclass(frozen=True, slots=True)
class LockReport(Result):
    """How the objects that must stay are locked: all but those of ``local/``, and what prunes removed."""

    mode: str  # governance, compliance: as was asked for
    days: int
    objects: int
    until: datetime | None  # all of them are locked until then at least; None: not all of them are known to be
    unlocked: int  # of which the store says that they are not
    unknown: int  # of which it does not say it
    extended: int  # by this run
    refused: int  # whose lock should have been extended, and the store refused
    examples: tuple[str, ...]  # names of the first that are not locked, not known to be, or were refused

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        until = self.until.isoformat() if self.until else None
        return {**asdict(self), "until": until, "status": self.status}

    @property
    def status(self) -> str:
        """``partial`` unless all of them are known to be locked, and for long enough."""
        return PARTIAL if self.until is None or self.refused else OK


@dataclass(frozen=True, slots=True)
class CheckReport(Result):
    """What a check looked at, and what it found."""

    level: str  # structure, data, scrub
    findings: tuple[Finding, ...]
    lost: tuple[LostPath, ...]
    objects: int
    snapshots: int
    blobs: int
    packs: int
    packs_read: int
    bytes_read: int
    share: float  # of the bytes of packs, read by this run
    verified_share: float  # of the bytes of packs, found whole by this or an earlier run
    seconds: float
    lock: LockReport | None = None  # None: nothing is to be locked

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "lock": self.lock.to_dict() if self.lock else None, "status": self.status}

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Findings that touch stored data."""
        return tuple(f for f in self.findings if not f.harmless)

    @property
    def status(self) -> str:
        if self.problems or not all(path.noted for path in self.lost):
            return DAMAGED
        return PARTIAL if self.lost or (self.lock is not None and self.lock.status != OK) else OK
