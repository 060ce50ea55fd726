"""Forget: tombstones beside commit slots.  It frees nothing; until the undelete window is over it can be taken back."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from snapvault.access.resolve import PREFIX_MIN, list_forgotten, list_snapshots, resolve
from snapvault.access.snapshot import Snapshot
from snapvault.backend.protocol import Exists
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import TombstoneRecord
from snapvault.format.wire import Kind
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.foundation.ids import SessionId, SnapshotId
from snapvault.operations.results import DAMAGED, OK, Result
from snapvault.operations.retention import Dated, Retention
from snapvault.operations.unlisted import predecessors
from snapvault.repository.repository import Vault
from snapvault.repository.store import fetch
from snapvault.repository.trust import sign

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

UNDELETE_WINDOW = timedelta(hours=24)
LONGEST = timedelta(days=36_525)


@dataclass(frozen=True, slots=True)
class ForgetResult(Result):
    """Which snapshots were forgotten (or would be)."""

    forgotten: tuple[str, ...]
    dry_run: bool = False
    snapshots: tuple[Snapshot, ...] = ()  # of these, the ones that could be opened

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"forgotten": list(self.forgotten), "dry_run": self.dry_run, "status": self.status}


def forget_snapshots(
    repo: "Repository", refs: Sequence[str], *, dry_run: bool = False, undelete_window: timedelta = UNDELETE_WINDOW
) -> ForgetResult:
    """Forget the named snapshots; all names are resolved before anything is written.

    Nothing is freed; a prune does that after ``undelete_window``.  RoleRequired unless owner or maintainer,
    InvalidInput for an unknown name, and for a snapshot that is held.  One that cannot be opened any more is named by
    its id.
    """
    vault = repo.vault
    vault.ring.require_role(Role.MAINTAINERS, "forget snapshots")
    opened: dict[SnapshotId, Snapshot] = {}
    chosen = dict(_record(vault, ref, opened) for ref in refs)
    if held := [s for s in opened.values() if s.held]:
        which = ", ".join(f"{s.id[:8]} of {s.dataset} is held" for s in held)
        hint = f"'snapvault snapshots release {held[0].id[:8]}' first"
        raise InvalidInput(f"{which}; nothing was forgotten", hint=hint)
    if not dry_run:
        _bury(vault, chosen, undelete_window)
    return ForgetResult(tuple(chosen), dry_run, tuple(opened.values()))


@dataclass(frozen=True, slots=True)
class ForgetPlan(Result):
    """What a policy keeps, and why; ``execute`` forgets the rest."""

    keep: tuple[Snapshot, ...]
    forget: tuple[Snapshot, ...]
    reasons: Mapping[str, tuple[str, ...]]  # by id, of what is kept
    problems: tuple[Damaged, ...]  # snapshots and notes that could not be read; whatever they are, they stay
    _vault: Vault = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "keep": [{"snapshot": s.id, "reasons": list(self.reasons[s.id])} for s in self.keep],
            "forget": [s.id for s in self.forget], "problems": [str(p) for p in self.problems], "status": self.status,
        }  # fmt: skip

    @property
    def status(self) -> str:
        return DAMAGED if self.problems else OK

    def execute(self, *, undelete_window: timedelta = UNDELETE_WINDOW) -> ForgetResult:
        """Forget what the plan does not keep; as ``forget_snapshots``."""
        _bury(self._vault, {s.id: s.slot.digest for s in self.forget}, undelete_window)
        return ForgetResult(tuple(s.id for s in self.forget), snapshots=self.forget)


def plan_forget(
    repo: "Repository", policy: Retention | Mapping[str, Retention], *, dataset: str | None = None
) -> ForgetPlan:
    """Apply a policy to the snapshots of one dataset, or of all; nothing is forgotten yet.

    Rules count by dataset, host and key (``Retention``).  Of several policies, by dataset, each applies to its own, and
    all snapshots of other datasets are kept.  A snapshot with a note that cannot be read is kept.
    RoleRequired unless owner or maintainer; InvalidInput if there is no such dataset.
    """
    vault = repo.vault
    vault.ring.require_role(Role.MAINTAINERS, "forget snapshots")
    problems: list[Damaged] = []
    snapshots = list_snapshots(vault, on_problem=problems.append)
    if dataset is not None:
        known = ", ".join(sorted({s.dataset for s in snapshots}))
        snapshots = [s for s in snapshots if s.dataset == dataset]
        if not snapshots:
            raise InvalidInput(f"there is no snapshot of the dataset {dataset!r}; there are {known or 'none at all'}")
    reasons = _reasons(policy, _dated(vault, snapshots), now_ns())
    unread = {name for p in problems for name in p.affected}
    for s in snapshots:
        if any(name.startswith(names.note_prefix(s.id)) for name in unread):
            reasons[s.id] += ("a note on it cannot be read",)
    keep = tuple(s for s in snapshots if reasons[s.id])
    forget = tuple(s for s in snapshots if not reasons[s.id])
    return ForgetPlan(keep, forget, {s.id: reasons[s.id] for s in keep}, tuple(problems), vault)


def _reasons(
    policy: Retention | Mapping[str, Retention], snapshots: Sequence[Dated], now: int
) -> dict[SnapshotId, tuple[str, ...]]:
    if isinstance(policy, Retention):
        return policy.reasons(snapshots, now)
    found: dict[SnapshotId, tuple[str, ...]] = {s.id: ("no policy",) for s in snapshots if s.dataset not in policy}
    by_dataset = defaultdict[str, list[Dated]](list)
    for s in snapshots:
        by_dataset[s.dataset].append(s)
    for dataset in by_dataset.keys() & policy.keys():
        found |= policy[dataset].reasons(by_dataset[dataset], now)
    return found


def _dated(vault: Vault, snapshots: Sequence[Snapshot]) -> list[Dated]:
    """What the rules look at; a snapshot that was brought back stands where it stood before."""
    slots = {s.record.sid: s for s in vault.history.all_slots()}
    trusted = {h.id for h in vault.ring.current.holders if h.role in Role.MAINTAINERS}
    found = []
    for s in snapshots:
        before = slots.get(SessionId(s.details.original)) if s.slot.holder in trusted else None
        slot = before or s.slot
        place = slot.holder, slot.record.number
        found.append(Dated(s.id, s.dataset, s.host, *place, s.time_ns, s.tags, s.partial, s.held))
    return found


def _bury(vault: Vault, chosen: Mapping[SnapshotId, bytes], undelete_window: timedelta) -> None:
    """Put a tombstone for each of these records."""
    keys, now = vault.ring.signing, now_ns()
    if undelete_window > LONGEST:
        raise InvalidInput("what is forgotten cannot be kept for more than a hundred years", hint="hold it instead")
    window = int(undelete_window.total_seconds()) * 10**9
    if window < 0:
        raise InvalidInput("the time in which a snapshot can be brought back cannot be negative")
    for sid, digest in chosen.items():
        record = TombstoneRecord(vault.ring.config_digest, sid, digest, now, now + window)
        data = sign(Kind.TOMBSTONE, record.encode(), keys.id, keys.signer)
        name = names.tombstone(sid)
        try:
            vault.backend.put_if_absent(name, [data])
        except Exists:
            other = vault.history.tombstone_now(sid)
            # What stands there forgets nothing, or what is damaged is forgotten again, to be gone earlier.
            if other is None or other.record != record.record or record.not_before < other.not_before:
                vault.backend.put(name, [data])


def _record(vault: Vault, ref: str, opened: dict[SnapshotId, Snapshot]) -> tuple[SnapshotId, bytes]:
    """The id of a snapshot and the digest of its record; ``opened`` gets the snapshot.

    One whose record is damaged can be forgotten by its id, too, or gone though a later one names it or this client saw
    it.
    """
    try:
        snapshot = resolve(vault, ref)
    except (Damaged, InvalidInput) as e:
        found = _unopened(vault, ref.lower(), damaged=isinstance(e, Damaged))
        if found is None:
            _refuse_forgotten(vault, ref.lower())
            raise
        return found
    opened[snapshot.id] = snapshot
    return snapshot.id, snapshot.slot.digest


def _refuse_forgotten(vault: Vault, start: str) -> None:
    """InvalidInput if the one snapshot whose id begins so is forgotten already."""
    if len(start) < PREFIX_MIN or not start.isalnum():
        return
    meant = [(s, until) for s, until in list_forgotten(vault) if s.id.startswith(start)]
    if len(meant) == 1 == len(list(vault.backend.list(names.SNAPSHOTS + start))):
        ((s, until),) = meant
        when = datetime.fromtimestamp(until // 10**9, UTC).isoformat()
        raise InvalidInput(
            f"snapshot {s.id[:8]} of {s.dataset} is forgotten already; until {when} nothing of it is removed",
            hint=f"'snapvault snapshots undelete {s.id[:8]}' brings it back, unless a prune has removed it since",
        )


def _unopened(vault: Vault, start: str, *, damaged: bool) -> tuple[SnapshotId, bytes] | None:
    """The one whose id begins so: the record that is there, if it is damaged, or what is known of one that is gone."""
    if len(start) < PREFIX_MIN or not start.isalnum():
        return None
    there = [o.name for o in vault.backend.list(names.SNAPSHOTS + start)]
    if there:
        if not damaged or len(there) > 1:
            return None
        return names.session_id(there[0], names.SNAPSHOTS), blake3(fetch(vault.backend, there[0])).digest()
    # What this client saw counts before what others say; if these differ, nobody knows.
    pins = vault.pins.site.records
    known = {(sid, bytes.fromhex(digest)) for sid, digest in pins.items() if sid.startswith(start)}
    said = {(sid, digest) for sid, digest, _ in predecessors(vault.commit_slots()[0]) if sid.startswith(start)}
    gone = known | {(sid, digest) for sid, digest in said if sid not in pins}
    return gone.pop() if len(gone) == 1 else None
