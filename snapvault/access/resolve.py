"""Finding snapshots: listing, and the ways to name one."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from snapvault.access.snapshot import Snapshot
from snapvault.format import names
from snapvault.format.local import TombstoneRecord
from snapvault.format.snapshot import COMMIT
from snapvault.foundation.clock import EPOCH, nanoseconds, now_ns
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.foundation.ids import SnapshotId
from snapvault.foundation.words import count
from snapvault.repository.history import Slot
from snapvault.repository.notes import NOTHING
from snapvault.repository.repository import Vault

log = logging.getLogger("snapvault")

PREFIX_MIN = 4
MAX_NAMED = 10  # candidates that an error lists


def list_snapshots(
    vault: Vault,
    *,
    dataset: str | None = None,
    host: str | None = None,
    on_problem: Callable[[Damaged], None] | None = None,
) -> list[Snapshot]:
    """Snapshots that are not forgotten, oldest first.  A damaged record is reported, and hides no other."""
    vault.ring.require_read("list snapshots")
    found, _, problems = _find(vault)
    for problem in problems:
        if on_problem is not None:
            on_problem(problem)
        else:
            log.warning("%s", problem)
    return [s for s in found if (dataset is None or s.dataset == dataset) and (host is None or s.host == host)]


def list_forgotten(vault: Vault) -> list[tuple[Snapshot, int]]:
    """Snapshots that were forgotten and can still be opened, oldest first, with the time (ns) until which they stay."""
    vault.ring.require_read("list snapshots")
    found, tombstones, _ = _find(vault, forgotten=True)
    return [(s, tombstones[s.id].not_before) for s in found]


def _find(
    vault: Vault, *, forgotten: bool = False
) -> tuple[list[Snapshot], dict[SnapshotId, TombstoneRecord], list[Damaged]]:
    """All snapshots that are not forgotten (or those that are), all tombstones, and what was found wrong."""
    slots, problems = vault.commit_slots()
    tombstones, more = vault.history.tombstones(fresh=forgotten)  # after the slots: no older state than theirs
    notes, strange = vault.notes.read({s.record.sid: s.holder for s in slots if s.record.kind == COMMIT})
    found = []
    for slot in slots:
        if slot.record.kind != COMMIT:
            continue
        if _is_forgotten(vault, slot, tombstones) != forgotten:
            continue
        try:
            details = vault.history.details(slot)
        except Damaged as e:
            affected = [names.snapshot(slot.record.sid), *e.affected]
            problems.append(type(e)(f"snapshot {slot.record.sid} cannot be opened: {e.message}", affected=affected))
            continue
        found.append(Snapshot(vault, slot, details, notes.get(slot.record.sid, NOTHING)))
    return sorted(found, key=lambda s: (s.time_ns, s.slot.record.number, s.id)), tombstones, problems + more + strange


def _is_forgotten(vault: Vault, slot: Slot, tombstones: dict[SnapshotId, TombstoneRecord]) -> bool:
    """Whether one of these means this very record; one of the cache that means another may have been put anew."""
    sid = SnapshotId(slot.record.sid)
    buried = tombstones.get(sid)
    if buried is not None and buried.record != slot.digest and (now := vault.history.tombstone_now(sid)) is not None:
        buried = tombstones[sid] = now
    return buried is not None and buried.record == slot.digest


def resolve(vault: Vault, ref: str) -> Snapshot:
    """The snapshot that ``ref`` names; InvalidInput lists the candidates if it is unknown or ambiguous."""
    vault.ring.require_read("open snapshots")
    snapshots, _, problems = _find(vault)
    for problem in problems:
        log.warning("%s", problem)
    unread = [p for p in problems if any(name.startswith(names.SNAPSHOTS) for name in p.affected)]
    if unread and not snapshots:
        raise unread[0]  # there are some, and none can be had
    if "@" in ref:
        return _at(snapshots, *ref.split("@", 1), unread=len(unread))
    if ref == "latest":
        datasets = sorted({s.dataset for s in snapshots})
        if len(datasets) > 1:
            raise InvalidInput(
                f"'latest' is ambiguous: there are the datasets {_some(datasets)}", hint="say DATASET@latest"
            )
        if not snapshots:
            raise InvalidInput("there are no snapshots yet", hint="make one with 'snapvault backup'")
        return _newest(snapshots)
    matching = [s for s in snapshots if s.id.startswith(ref.lower())] if len(ref) >= PREFIX_MIN else []
    if len(matching) == 1:
        return matching[0]
    if len(matching) > 1:
        raise InvalidInput(f"{ref} is ambiguous: {_some([s.id for s in matching])}", hint="give more of the id")
    if len(ref) >= PREFIX_MIN:
        for problem in problems:
            if any(name.startswith(names.SNAPSHOTS + ref.lower()) for name in problem.affected):
                raise problem  # it was there, and cannot be had
    if not snapshots:
        raise InvalidInput(f"there is no snapshot {ref}: the repository holds none")
    near = [f"{s.id[:8]} ({s.dataset})" for s in reversed(snapshots)]
    raise InvalidInput(
        f"there is no snapshot {ref}; there are {_some(near)}",
        hint=f"name one by {PREFIX_MIN} or more digits of its id, or by DATASET@latest",
    )


def _at(snapshots: list[Snapshot], dataset: str, when: str, *, unread: int) -> Snapshot:
    mine = [s for s in snapshots if s.dataset == dataset]
    if not mine:
        known = sorted({s.dataset for s in snapshots})
        raise InvalidInput(
            f"there is no snapshot of the dataset {dataset!r}; there are {_some(known) or 'none at all'}",
            hint=f"{count(unread, 'snapshot')} cannot be read, and may be of it: 'snapvault check'" if unread else "",
        )
    if when == "latest":
        return _newest(mine)
    limit = parse_time(when)
    before = [s for s in mine if s.time_ns <= limit]
    if not before:
        raise InvalidInput(f"the oldest snapshot of {dataset} is of {mine[0].time.isoformat()}, after {when}")
    return _newest(before)


def _newest(snapshots: list[Snapshot]) -> Snapshot:
    """The last of a dataset's snapshots; a warning if it and an earlier one are not by the same holder.

    Dataset and time are what the writing key said, so any writer can put itself behind another's name.  All earlier
    ones are looked at: a second snapshot of the intruder must not silence this.
    """
    newest = snapshots[-1]
    other = next((s for s in reversed(snapshots) if s.slot.holder != newest.slot.holder), None)
    if other is not None:
        log.warning(
            "the newest snapshot of %s, %s, was written by the key of %s, but an earlier one, %s, by that of %s: if "
            "this is not as it should be, name one by its id ('snapvault snapshots' shows whose they are)",
            newest.dataset, newest.id[:8], _signer(newest), other.id[:8], _signer(other),
        )  # fmt: skip
    return newest


def _signer(snapshot: Snapshot) -> str:
    """With the id: a name can be given again when its key was removed."""
    return f"{snapshot.holder} ({snapshot.slot.holder.hex()[:8]})"


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of an ISO 8601 time; without a zone it is local time.  InvalidInput."""
    if text == "now":
        return now_ns()
    try:
        parsed = datetime.fromisoformat(text)
        parsed = parsed.astimezone() if parsed.tzinfo is None else parsed
        since = parsed.astimezone(UTC) - EPOCH
    except (ValueError, OverflowError) as e:
        raise InvalidInput(f"{text!r} is not a time", hint="write it like 2026-11-24T10:00 or 2026-11-24T10:00Z") from e
    return nanoseconds(since)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    return shown if len(names) <= MAX_NAMED else f"{shown} and {len(names) - MAX_NAMED} more"
