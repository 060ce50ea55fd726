"""snapvault: deduplicating, encrypted backups as a library.

    import snapvault

    repo = snapvault.open("/backup/repo", password="...")
    snapvault.backup(repo, "/srv/orders", dataset="orders")

Everything public is here.  Names load when they are first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {
    "init": "operations.repository",
    "open": "operations.repository",
    "Repository": "operations.repository",
    "InitResult": "operations.repository",
    "backup": "operations.backup",
    "restore": "operations.restore",
    "archive": "operations.archive",
    "BackupResult": "operations.results",
    "RestoreResult": "operations.results",
    "Change": "operations.results",
    "Issue": "operations.results",
    "SnapshotWriter": "operations.writer",
    "Snapshot": "access.snapshot",
    "Entry": "access.snapshot",
    "Command": "source.command",
    "Chunking": "chunking",
    "KeyFile": "repository.credentials",
    "Control": "foundation.events",
    "Event": "foundation.events",
    "Limits": "foundation.events",
    **dict.fromkeys(
        (
            "SnapvaultError", "RepositoryNotFound", "KeyRejected", "RoleRequired", "FormatTooNew", "Damaged", "StoreFull",
            "StoreDenied", "StoreUnavailable", "SourceError", "Conflict", "Cancelled", "InvalidInput",
        ),
        "foundation.errors",
    ),
}  # fmt: skip

if TYPE_CHECKING:
    from snapvault.access.snapshot import Entry, Snapshot
    from snapvault.chunking import Chunking
    from snapvault.foundation.errors import (
        Cancelled,
        Conflict,
        Damaged,
        FormatTooNew,
        InvalidInput,
        KeyRejected,
        RepositoryNotFound,
        RoleRequired,
        SnapvaultError,
        SourceError,
        StoreDenied,
        StoreFull,
        StoreUnavailable,
    )
    from snapvault.foundation.events import Control, Event, Limits
    from snapvault.operations.archive import archive
    from snapvault.operations.backup import backup
    from snapvault.operations.repository import InitResult, Repository, init, open
    from snapvault.operations.restore import restore
    from snapvault.operations.results import BackupResult, Change, Issue, RestoreResult
    from snapvault.operations.writer import SnapshotWriter
    from snapvault.repository.credentials import KeyFile
    from snapvault.source.command import Command

__all__ = [
    "BackupResult", "Cancelled", "Change", "Chunking", "Command", "Conflict", "Control", "Damaged", "Entry", "Event",
    "FormatTooNew", "InitResult", "InvalidInput", "Issue", "KeyFile", "KeyRejected", "Limits", "Repository",
    "RepositoryNotFound", "RestoreResult", "RoleRequired", "Snapshot", "SnapshotWriter", "SnapvaultError", "SourceError", "StoreDenied",
    "StoreFull", "StoreUnavailable", "archive", "backup", "init", "open", "restore",
]  # fmt: skip


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'snapvault' has no attribute {name!r}")
    value = getattr(import_module(f"snapvault.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
