"""Bringing back a forgotten snapshot: a new one with the same content, by a session like any other writer's.

Its tombstone stays, since a prune may have acted on it already.  So each blob is read and verified, and looked for in
what this session may rely on (rule W2); what is only in packs that are about to go is stored again.
"""

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from snapvault.access.resolve import PREFIX_MIN, list_forgotten, list_snapshots
from snapvault.access.snapshot import Snapshot
from snapvault.format.keyset import Role
from snapvault.format.local import NoteDetails
from snapvault.format.tree import BlobType, each_id
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.foundation.events import Control
from snapvault.foundation.ids import BlobId, SessionId, SnapshotId
from snapvault.operations.needed import Needed
from snapvault.operations.results import OK, PARTIAL, Result
from snapvault.operations.run import Run
from snapvault.repository.reader import BlobReader
from snapvault.repository.repository import Vault

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository


@dataclass(frozen=True, slots=True)
class UndeleteResult(Result):
    """The new snapshot, the one that it brings back, and the bytes that had to be stored again."""

    snapshot: str
    original: str
    bytes_stored: int
    lost: tuple[str, ...] = ()  # paths that stay lost, as a repair noted

    @property
    def status(self) -> str:
        return PARTIAL if self.lost else OK


def undelete(repo: "Repository", ref: str, *, control: Control | None = None) -> UndeleteResult:
    """Bring back the forgotten snapshot whose id begins with ``ref``.

    RoleRequired unless owner or maintainer; InvalidInput if no forgotten snapshot is meant, or it is back already;
    Damaged if a part of it is gone, and then there is no snapshot; but what a repair noted as lost stays lost.
    """
    vault = repo.vault
    vault.ring.require_role(Role.MAINTAINERS, "bring snapshots back")
    snapshot, until = _forgotten(vault, ref)
    domain = vault.ring.domains.get(snapshot.domain)
    if domain is None:
        raise Damaged(f"the keyset does not name the domain of snapshot {snapshot.id}")
    with Run(vault, "undelete", control, domain=domain) as run:
        reader = run.vault.reader(snapshot.domain)
        keeper = _Keeper(run, reader, lost=bool(snapshot.lost))
        try:
            keeper.walk(snapshot.details.root)
        except Damaged as e:
            if until <= now_ns():
                raise InvalidInput(
                    f"snapshot {snapshot.id[:8]} cannot be brought back: a prune has removed what it needs",
                    hint="it could be brought back until its time was over ('snapvault snapshots --forgotten')",
                ) from e
            raise
        sid = run.acknowledge(replace(snapshot.details, tags=snapshot.tags, original=snapshot.id))
    lost = tuple(os.fsencode(path.removeprefix("/")) for path in snapshot.lost) if keeper.lacked else ()
    if snapshot.held or lost:
        vault.notes.add(SnapshotId(SessionId(sid)), vault.ring.signing.id, NoteDetails(hold=snapshot.held, lost=lost))
    named = snapshot.lost if lost else ()
    return UndeleteResult(sid, snapshot.id, run.blobs.written.stored, named)


def _forgotten(vault: Vault, ref: str) -> tuple[Snapshot, int]:
    """The snapshot, and until when it is not removed (nanoseconds, UTC)."""
    found = list_forgotten(vault)
    until, forgotten = {s.id: time for s, time in found}, [s for s, _ in found]
    meant = [s for s in forgotten if len(ref) >= PREFIX_MIN and s.id.startswith(ref.lower())]
    if len(meant) != 1:
        known = ", ".join(f"{s.id[:8]} ({s.dataset})" for s in forgotten)
        raise InvalidInput(
            f"{ref!r} names {'several forgotten snapshots' if meant else 'no forgotten snapshot'}",
            hint=f"forgotten, and not removed yet: {known or 'none'}",
        )
    for s in list_snapshots(vault):
        if s.details.original == meant[0].id:
            raise InvalidInput(f"snapshot {meant[0].id[:8]} is back already: it is {s.id[:8]} now")
    return meant[0], until[meant[0].id]


class _Keeper(Needed):
    """Puts what the session cannot rely on."""

    def __init__(self, run: Run, reader: BlobReader, *, lost: bool) -> None:
        """``lost``: of what is in no index it is known that it is lost."""
        super().__init__(reader)
        self._run, self._lost = run, lost
        self._seen: set[BlobId] = set()  # pieces of folders
        self.lacked = False  # something is lost, still

    def is_lost(self, blob: BlobId) -> bool:
        """Whether it is known to be lost, after everything was tried."""
        return self._lost and not self._reader.index.places(blob)

    def visit(self, ids: bytes, kind: int) -> list[bool]:
        """Some blobs of the snapshot; of folders, which were not here before."""
        self._run.reporter.check()
        for blob in each_id(ids):
            # Read, so that nothing comes back that is damaged; put only what the session cannot rely on.
            try:
                data = self._reader.blob(blob, kind)
            except Damaged:
                if not self.is_lost(blob):
                    raise
                self.lacked = True
                continue
            if self._run.blobs.put(kind, data) != blob:
                raise Damaged(f"blob {blob.hex()[:16]} is of another domain")
        wanted = each_id(ids) if kind == BlobType.TREE else []
        new = [blob not in self._seen and not self.is_lost(blob) for blob in wanted]
        if new:
            self._seen.update(each_id(ids))
        return new
