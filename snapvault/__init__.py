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
    "diff": "operations.diff",
    "check": "operations.check",
    "scrub": "operations.scrub",
    "CheckReport": "operations.results",
    "Finding": "operations.results",
    "LostPath": "operations.results",
    "LockReport": "operations.results",
    "forget_snapshots": "operations.forget",
    "ForgetResult": "operations.forget",
    "plan_forget": "operations.forget",
    "ForgetPlan": "operations.forget",
    "Retention": "operations.retention",
    "plan_prune": "operations.prune",
    "PruneLimits": "operations.prune",
    "PrunePlan": "operations.prune",
    "PruneResult": "operations.prune",
    "plan_repair": "operations.repair",
    "RepairPlan": "operations.repair",
    "RepairResult": "operations.repair",
    "replicate": "operations.replicate",
    "ReplicaResult": "operations.replicate",
    "exchange_attestations": "operations.exchange",
    "promote": "operations.promote",
    "heal": "operations.heal",
    "HealResult": "operations.heal",
    "attest": "operations.attest",
    "attestations": "operations.attest",
    "Attestation": "operations.attest",
    "Site": "repository.site",
    "ReadFrom": "repository.failover",
    "set_tags": "operations.annotate",
    "set_hold": "operations.annotate",
    "NoteResult": "operations.annotate",
    "undelete": "operations.undelete",
    "UndeleteResult": "operations.undelete",
    "list_keys": "operations.keys",
    "add_key": "operations.keys",
    "remove_key": "operations.keys",
    "change_password": "operations.keys",
    "rotate": "operations.keys",
    "KeyInfo": "operations.keys",
    "KeyResult": "operations.keys",
    "Dataset": "assurance.dataset",
    "Declaration": "assurance.declaration",
    "read_declaration": "assurance.declaration",
    "Inventory": "assurance.inventory",
    "read_inventory": "assurance.inventory",
    "Register": "assurance.register",
    "RegisterResult": "assurance.register",
    "Retirement": "assurance.register",
    "read_register": "assurance.register",
    "import_register": "assurance.register",
    "retire": "assurance.register",
    "status": "report.board",
    "Board": "report.board",
    "DatasetState": "assurance.coverage",
    "backup_all": "assurance.fleet",
    "DatasetBackup": "assurance.fleet",
    "Probe": "assurance.dataset",
    "DrillRule": "assurance.dataset",
    "drill": "assurance.drill",
    "DrillGround": "assurance.drill",
    "DrillResult": "assurance.results",
    "record_evidence": "assurance.evidence",
    "EvidenceWriter": "assurance.evidence",
    "evidence": "assurance.evidence",
    "Evidence": "assurance.evidence",
    "standings": "assurance.evidence",
    "Standing": "assurance.evidence",
    "Standings": "assurance.evidence",
    "verify_evidence": "assurance.evidence",
    "EvidenceReport": "assurance.evidence",
    "export_evidence": "assurance.export",
    "due": "assurance.due",
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
    "Metrics": "backend.metrics",
    "MethodMetrics": "backend.metrics",
    **dict.fromkeys(
        (
            "SnapvaultError", "RepositoryNotFound", "KeyRejected", "RoleRequired", "FormatTooNew", "Damaged",
            "StoreFull", "StoreDenied", "StoreUnavailable", "SourceError", "Conflict", "Cancelled", "InvalidInput",
        ),
        "foundation.errors",
    ),
}  # fmt: skip

if TYPE_CHECKING:
    from snapvault.access.snapshot import Entry, Snapshot
    from snapvault.assurance.coverage import DatasetState
    from snapvault.assurance.dataset import Dataset, DrillRule, Probe
    from snapvault.assurance.declaration import Declaration, read_declaration
    from snapvault.assurance.drill import DrillGround, drill
    from snapvault.assurance.due import due
    from snapvault.assurance.evidence import (
        Evidence,
        EvidenceReport,
        EvidenceWriter,
        Standing,
        Standings,
        evidence,
        record_evidence,
        standings,
        verify_evidence,
    )
    from snapvault.assurance.export import export_evidence
    from snapvault.assurance.fleet import DatasetBackup, backup_all
    from snapvault.assurance.inventory import Inventory, read_inventory
    from snapvault.assurance.register import (
        Register,
        RegisterResult,
        Retirement,
        import_register,
        read_register,
        retire,
    )
    from snapvault.assurance.results import DrillResult
    from snapvault.backend.metrics import MethodMetrics, Metrics
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
    from snapvault.operations.annotate import NoteResult, set_hold, set_tags
    from snapvault.operations.attest import Attestation, attest, attestations
    from snapvault.operations.backup import backup
    from snapvault.operations.check import check
    from snapvault.operations.diff import diff
    from snapvault.operations.exchange import exchange_attestations
    from snapvault.operations.forget import ForgetPlan, ForgetResult, forget_snapshots, plan_forget
    from snapvault.operations.heal import HealResult, heal
    from snapvault.operations.keys import KeyInfo, KeyResult, add_key, change_password, list_keys, remove_key, rotate
    from snapvault.operations.promote import promote
    from snapvault.operations.prune import PruneLimits, PrunePlan, PruneResult, plan_prune
    from snapvault.operations.repair import RepairPlan, RepairResult, plan_repair
    from snapvault.operations.replicate import ReplicaResult, replicate
    from snapvault.operations.repository import InitResult, Repository, init, open
    from snapvault.operations.restore import restore
    from snapvault.operations.results import (
        BackupResult,
        Change,
        CheckReport,
        Finding,
        Issue,
        LockReport,
        LostPath,
        RestoreResult,
    )
    from snapvault.operations.retention import Retention
    from snapvault.operations.scrub import scrub
    from snapvault.operations.undelete import UndeleteResult, undelete
    from snapvault.operations.writer import SnapshotWriter
    from snapvault.report.board import Board, status
    from snapvault.repository.credentials import KeyFile
    from snapvault.repository.failover import ReadFrom
    from snapvault.repository.site import Site
    from snapvault.source.command import Command

__all__ = [
    "Attestation", "BackupResult", "Board", "Cancelled", "Change", "CheckReport", "Chunking", "Command", "Conflict",
    "Control", "Damaged", "Dataset", "DatasetBackup", "DatasetState", "Declaration", "DrillGround", "DrillResult",
    "DrillRule", "Entry", "Event", "Evidence", "EvidenceReport", "EvidenceWriter", "Finding", "ForgetPlan",
    "ForgetResult", "FormatTooNew", "HealResult", "InitResult", "InvalidInput", "Inventory", "Issue", "KeyFile",
    "KeyInfo", "KeyRejected", "KeyResult", "Limits", "LockReport", "LostPath", "MethodMetrics", "Metrics", "NoteResult",
    "Probe", "PruneLimits", "PrunePlan", "PruneResult", "ReadFrom", "Register", "RegisterResult", "RepairPlan",
    "RepairResult", "ReplicaResult", "Repository", "RepositoryNotFound", "RestoreResult", "Retention", "Retirement",
    "RoleRequired", "Site", "Snapshot", "SnapshotWriter", "SnapvaultError", "SourceError", "Standing", "Standings",
    "StoreDenied", "StoreFull", "StoreUnavailable", "UndeleteResult", "add_key", "attest", "attestations", "backup",
    "backup_all", "change_password", "check", "diff", "drill", "due", "evidence", "exchange_attestations",
    "export_evidence", "forget_snapshots", "heal", "import_register", "init", "list_keys", "open", "plan_forget",
    "plan_prune", "plan_repair", "promote", "read_declaration", "read_inventory", "read_register", "record_evidence",
    "remove_key", "replicate", "restore", "retire", "rotate", "scrub", "set_hold", "set_tags", "standings", "status",
    "undelete", "verify_evidence",
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
