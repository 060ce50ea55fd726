"""Forget: tombstones beside commit slots.  It frees nothing; until the undelete window is over it can be taken back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from blake3 import blake3

from snapvault.access.resolve import resolve
from snapvault.backend.protocol import Exists
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import TombstoneRecord, decode_tombstone
from snapvault.format.signed import decode_signed
from snapvault.format.wire import Kind
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Conflict, Damaged
from snapvault.foundation.ids import SnapshotId
from snapvault.operations.results import Result
from snapvault.repository.repository import Vault
from snapvault.repository.store import fetch
from snapvault.repository.trust import sign

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

UNDELETE_WINDOW = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class ForgetResult(Result):
    """Which snapshots were forgotten (or would be)."""

    forgotten: tuple[str, ...]
    dry_run: bool = False


def forget_snapshots(
    repo: "Repository", refs: Sequence[str], *, dry_run: bool = False, undelete_window: timedelta = UNDELETE_WINDOW
) -> ForgetResult:
    """Forget the named snapshots; all names are resolved before anything is written.

    Nothing is freed; a prune does that after ``undelete_window``.  RoleRequired unless owner or maintainer,
    InvalidInput for an unknown name.  One that cannot be opened any more is named by its id.
    """
    vault = repo.vault
    vault.ring.require_role(Role.MAINTAINERS, "forget snapshots")
    chosen = dict(_record(vault, ref) for ref in refs)
    keys, now = vault.ring.signing, now_ns()
    window = int(undelete_window.total_seconds()) * 10**9
    for sid, digest in () if dry_run else chosen.items():
        record = TombstoneRecord(vault.ring.config_digest, sid, digest, now, now + window)
        data = sign(Kind.TOMBSTONE, record.encode(), keys.id, keys.signer)
        name = names.tombstone(sid)
        try:
            vault.backend.put_if_absent(name, [data])
        except Exists:
            _check_other(fetch(vault.backend, name), record, name)
    return ForgetResult(tuple(chosen), dry_run)


def _record(vault: Vault, ref: str) -> tuple[SnapshotId, bytes]:
    """The id of a snapshot and the digest of its record; one that is damaged can be forgotten by its id, too."""
    try:
        snapshot = resolve(vault, ref)
    except Damaged:
        found = [o.name for o in vault.backend.list(names.SNAPSHOTS + ref.lower())]
        if len(found) != 1:
            raise
        return names.session_id(found[0], names.SNAPSHOTS), blake3(fetch(vault.backend, found[0])).digest()
    return snapshot.id, snapshot.slot.digest


def _check_other(data: bytes, record: TombstoneRecord, name: str) -> None:
    """Somebody else forgot it at the same moment: good, unless what stands there is no tombstone of it."""
    try:
        other = decode_tombstone(decode_signed(Kind.TOMBSTONE, data).payload)
    except Damaged:
        other = None
    if other is None or other.record != record.record:
        raise Conflict(f"{name} is taken by something that is no valid tombstone", hint="run 'snapvault check'")
