"""Deleting what nobody needs any more, as far as the store lets it go (docs/adr/0011-object-lock.md)."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from snapvault.access.resolve import list_snapshots
from snapvault.backend.object_lock import Lock, lock_rule, with_locks
from snapvault.backend.protocol import Backend, NotFound, ObjectInfo
from snapvault.format import names
from snapvault.foundation.ahead import ahead
from snapvault.foundation.clock import now
from snapvault.foundation.errors import StoreDenied
from snapvault.operations.survey import going_by
from snapvault.repository.repository import Vault
from snapvault.repository.store import FETCHERS


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What became of objects that were to be deleted.  A later prune deletes those that the store still keeps."""

    packs: int = 0
    bytes: int = 0  # of packs, as all bytes here
    packs_locked: int = 0
    bytes_locked: int = 0
    until: datetime | None = None  # when the last of their locks ends
    refused: int = 0  # objects that these credentials may not delete
    bytes_refused: int = 0
    refusal: str = ""  # what the store said of the first of them

    @property
    def complete(self) -> bool:
        """Whether all of them are gone."""
        return not (self.packs_locked or self.refused)

    def __add__(self, other: "Reclaimed") -> "Reclaimed":
        return Reclaimed(
            self.packs + other.packs, self.bytes + other.bytes,
            self.packs_locked + other.packs_locked, self.bytes_locked + other.bytes_locked,
            max((t for t in (self.until, other.until) if t is not None), default=None),
            self.refused + other.refused, self.bytes_refused + other.bytes_refused, self.refusal or other.refusal,
        )  # fmt: skip


NOTHING = Reclaimed()


def reclaim(backend: Backend, doomed: Sequence[ObjectInfo], *, hide: bool = False) -> Reclaimed:
    """Delete objects, the packs last; all errors of the store but StoreDenied, which only keeps the object.

    A pack that is locked stays where it is.  Everything else is deleted as anything is: a bucket with locks hides it.
    ``hide``: packs, too, so that they are out of sight although they are locked.
    """
    found = Reclaimed()
    packs = [o for o in doomed if o.name.startswith(names.PACKS)]
    for group in ([o for o in doomed if not o.name.startswith(names.PACKS)], packs):
        for_good = group is packs and not hide and lock_rule(backend) is not None
        delete = partial(_release if for_good else _delete, backend)
        for info, kept in zip(group, ahead(delete, group, FETCHERS), strict=True):
            found += _count(info, kept)
    return found


def _delete(backend: Backend, info: ObjectInfo) -> Lock | StoreDenied | None:
    """None, or why it is still there."""
    try:
        backend.delete(info.name)
    except StoreDenied as e:
        return e
    return None


def _release(backend: Backend, info: ObjectInfo) -> Lock | StoreDenied | None:
    try:
        lock = _lock_now(backend, info.name)
        if lock is None:
            with_locks(backend, info.name, lambda locks: locks.release(info.name))
        return lock
    except NotFound:
        return None
    except StoreDenied as e:
        return e


def _lock_now(backend: Backend, name: str) -> Lock | None:
    """The lock that holds, as far as it may be seen; NotFound."""
    lock = None
    with suppress(StoreDenied):
        lock = with_locks(backend, name, lambda locks: locks.of(name))
    return lock if lock is not None and lock.until > now() else None


def _count(info: ObjectInfo, kept: Lock | StoreDenied | None) -> Reclaimed:
    packs, size = (1, info.size) if info.name.startswith(names.PACKS) else (0, 0)
    if kept is None:
        return Reclaimed(packs=packs, bytes=size)
    if isinstance(kept, Lock):
        return Reclaimed(packs_locked=packs, bytes_locked=size, until=kept.until)
    return Reclaimed(refused=1, bytes_refused=size, refusal=kept.message)


def still_locked(backend: Backend, doomed: Sequence[ObjectInfo]) -> tuple[int, datetime | None]:
    """Bytes of the packs among these that are locked, and when the last of their locks ends; errors of the store."""
    if lock_rule(backend) is None:
        return 0, None

    def look(info: ObjectInfo) -> Lock | None:
        with suppress(NotFound):
            return _lock_now(backend, info.name)
        return None

    packs = [o for o in doomed if o.name.startswith(names.PACKS)]
    locked = [(o.size, lock.until) for o, lock in zip(packs, ahead(look, packs, FETCHERS), strict=True) if lock]
    return sum(size for size, _ in locked), max((until for _, until in locked), default=None)


def leftovers(vault: Vault) -> tuple[ObjectInfo, ...]:
    """What is still there of what slots with "GC done" name, and of what sessions need until they end."""
    slots = vault.history.all_slots()
    going, ended = going_by(vault, slots), {s.record.sid for s in slots}
    removed = {name for s in going for name in s.record.removed}
    listed = [o for prefix in (names.INDEX, names.PACKS) for o in vault.backend.list(prefix)]
    left = [o for o in listed if o.name in removed]
    there = {o.name for o in left}
    # At a copy it is by their records that these are known, so the records go last.
    needed = {s.record.sid for s in going if not there.isdisjoint(s.record.removed)} if vault.standing().since else ()
    records = [o for o in vault.backend.list(names.GC) if o.name.removeprefix(names.GC) in ended.difference(needed)]
    beats = [
        o for o in vault.backend.list(names.HEARTBEATS)
        if o.name.removeprefix(names.HEARTBEATS).partition("/")[0] in ended
    ]  # fmt: skip
    # Where paths are lost, somebody may have brought a pack back that a repair removed: the next repair looks into it.
    if any(n.startswith(names.PACKS) for n in there) and any(snapshot.lost for snapshot in list_snapshots(vault)):
        left = [o for o in left if not o.name.startswith((names.PACKS, names.INDEX))]
    return (*left, *records, *beats)
