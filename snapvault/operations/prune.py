"""Prune: remove what no snapshot needs, beside any number of writers, readers and other prunes."""

import math
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from snapvault.backend.object_lock import hides_deleted, lock_rule
from snapvault.backend.protocol import NotFound, ObjectInfo
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.foundation.ahead import ahead
from snapvault.foundation.errors import Conflict, Damaged, SnapvaultError
from snapvault.foundation.events import Control, Reporter, limits_of
from snapvault.foundation.ids import DomainId, PackId, SessionId
from snapvault.operations.collect import Collected, GarbageCollection, Job, is_replaceable
from snapvault.operations.fence import Fence
from snapvault.operations.object_lock import must_stay, review_locks
from snapvault.operations.reclaim import leftovers, reclaim, still_locked
from snapvault.operations.results import DAMAGED, OK, PARTIAL, LockReport, Result
from snapvault.operations.running import Found, Running
from snapvault.operations.survey import Survey, Use, survey
from snapvault.repository.capabilities import recorded_capabilities
from snapvault.repository.repository import Vault
from snapvault.repository.session import HEARTBEAT_SECONDS
from snapvault.repository.store import FETCHERS, fetch
from snapvault.repository.verdicts import DAMAGED as ROTTEN
from snapvault.repository.verdicts import read_verdicts

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

WAIT = timedelta(minutes=5)
LEASE = timedelta(hours=12)
MERGED_FROM = 16  # small index objects, from which on they are merged
SMALL_INDEX = 256 << 10  # bytes
NOBODY = SessionId("")  # gives way to no GC


@dataclass(frozen=True, slots=True)
class PruneLimits:
    """How far a prune goes.

    ``unused``: the share of the repository that may stay though nobody needs it, because it lies in packs beside what
    is needed.  ``rewrite``: bytes of packs that may be rewritten; None: as many as ``unused`` asks for.  ``time``: when
    it runs for so long, waiting included, no other pack is rewritten; None: it takes as long as it takes.
    """

    unused: float = 0.05
    rewrite: int | None = None
    time: timedelta | None = None


@dataclass(frozen=True, slots=True)
class DomainPlan:
    """What is to be done in one domain."""

    domain: DomainId
    condemned: tuple[PackId, ...]
    dead: frozenset[PackId]  # those of them of which nothing is needed
    merged: tuple[str, ...]  # small index objects, and those that name what a prune removed
    bytes_total: int
    bytes_unused: int
    bytes_freed: int
    bytes_rewritten: int  # packs of which something is copied
    bytes_waiting: int  # that only forgotten snapshots need, which can still be brought back
    alone: frozenset[PackId]  # packs that were removed, are back, and hold alone what somebody needs


@dataclass(frozen=True, slots=True)
class PruneResult(Result):
    """What was removed.  ``waits_for``: sessions of writers that have not ended, for the sake of which nothing was.

    What is ``locked`` or ``refused`` nobody needs, but the store does not let it go; a later prune deletes it.
    """

    packs_removed: int
    bytes_removed: int
    bytes_copied: int
    packs_spared: int  # for which there was no time
    waits_for: tuple[str, ...]
    bytes_waiting: int
    problems: tuple[str, ...] = ()  # why nothing was removed in some domains
    packs_locked: int = 0
    bytes_locked: int = 0
    locked_until: datetime | None = None  # when the last of their locks ends
    refused: int = 0  # objects that these credentials may not delete
    bytes_refused: int = 0
    refusal: str = ""  # what the store says to that
    hidden: bool = False  # the bucket keeps what was removed as older versions
    lock: LockReport | None = None  # how what is needed is locked; None: it is not to be
    waits_until: datetime | None = None  # when those that died are waited for no more; None: unknown
    packs_damaged: int | None = 0  # that a check or a prune found, and that are still there; None: not known

    @property
    def bytes_freed(self) -> int:
        """Negative if more was copied than could be removed yet."""
        return self.bytes_removed - self.bytes_copied

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        until = self.locked_until.isoformat() if self.locked_until else None
        lock = self.lock.to_dict() if self.lock else None
        waits_until = self.waits_until.isoformat() if self.waits_until else None
        return {
            **asdict(self), "locked_until": until, "lock": lock, "waits_until": waits_until,
            "bytes_freed": self.bytes_freed, "status": self.status,
        }  # fmt: skip

    @property
    def status(self) -> str:
        """``partial``: backups that did not end, a store that denies, something needed that is not locked."""
        if self.problems:
            return DAMAGED
        unlocked = self.lock is not None and self.lock.status != OK
        return PARTIAL if self.waits_for or self.refused or unlocked else OK


@dataclass(frozen=True, slots=True)
class PrunePlan(Result):
    """What would be freed and rewritten; ``execute`` does it."""

    domains: tuple[DomainPlan, ...]
    leftovers: tuple[ObjectInfo, ...]  # of earlier prunes, and of sessions: what they did not get to delete
    bytes_locked: int  # of packs that would go, and that the store does not let go yet
    locked_until: datetime | None  # the last of them
    problems: tuple[Damaged, ...]  # why nothing is removed in some domains
    _vault: Vault = field(repr=False)
    _control: Control | None = field(repr=False, default=None)
    _limits: PruneLimits = field(repr=False, default=PruneLimits())
    _exclusive: bool = field(repr=False, default=False)

    @property
    def status(self) -> str:
        return DAMAGED if self.problems else OK

    @property
    def bytes_total(self) -> int:
        return sum(d.bytes_total for d in self.domains)

    @property
    def bytes_unused(self) -> int:
        return sum(d.bytes_unused for d in self.domains)

    @property
    def bytes_freed(self) -> int:
        return sum(d.bytes_freed for d in self.domains)

    @property
    def bytes_rewritten(self) -> int:
        return sum(d.bytes_rewritten for d in self.domains)

    @property
    def bytes_waiting(self) -> int:
        return sum(d.bytes_waiting for d in self.domains)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        until = self.locked_until.isoformat() if self.locked_until else None
        shown = ("bytes_total", "bytes_unused", "bytes_freed", "bytes_rewritten", "bytes_waiting", "status")
        return {
            "packs": sum(len(d.condemned) for d in self.domains),
            "leftovers": len(self.leftovers),
            "bytes_locked": self.bytes_locked,
            "locked_until": until,
            "problems": [str(p) for p in self.problems],
            **{name: getattr(self, name) for name in shown},
        }

    def execute(self, *, wait: timedelta = WAIT, lease: timedelta = LEASE) -> PruneResult:
        """Do it: each domain whole or not at all.

        ``wait``: how long to wait, in all, for writers that run now.  ``lease``: a writer that gave no sign of life for
        so long cannot commit any more.  Errors of the store and Conflict end it; what was done before stays done.
        Damaged if it stands in the way in every domain.
        """
        backend = self._vault.backend
        self._vault.require_current()
        lock = self._extend_locks()
        done = reclaim(backend, self.leftovers)
        own = end_own_dead(self._vault)
        patience = patience_with(self._vault, lease, own, exclusive=self._exclusive)
        found, problems = self._collect(wait.total_seconds(), patience, anew=bool(own.ended))
        if not found and not problems and Fence(self._vault, NOBODY, patience).end_dead():  # a GC's fence does it, too
            found, problems = self._collect(wait.total_seconds(), patience, anew=True)
        if problems and len(problems) == len(self.domains) + len(self.problems):
            raise problems[-1]
        done = sum((c.reclaimed for c in found), done)
        waits_for = tuple(dict.fromkeys(sid for c in found for sid in c.waits_for))
        return PruneResult(
            done.packs, done.bytes, sum(c.bytes_copied for c in found), sum(c.spared for c in found), waits_for,
            self.bytes_waiting, tuple(str(p) for p in problems), done.packs_locked, done.bytes_locked, done.until,
            done.refused, done.bytes_refused, done.refusal, hides_deleted(backend) and lock is None, lock,
            latest(found), _damaged(self._vault),
        )  # fmt: skip

    def _extend_locks(self) -> LockReport | None:
        """First of all: what is needed stays locked whatever stands in the way of removing the rest."""
        vault = self._vault
        if lock_rule(vault.backend) is None:
            return None
        dead = {pack for plan in self.domains for pack in plan.dead}
        wanted = must_stay(vault, [o.name for o in vault.backend.list()], vault.history.all_slots(), dead)
        return review_locks(vault.backend, wanted, Reporter("prune", self._control), extend=True)

    def _collect(self, wait: float, lease: float, *, anew: bool) -> tuple[list[Collected], list[Damaged]]:
        """In each domain go on with what an earlier run left open; then what is left to do.

        ``anew``: what was planned is not all, since a session ended meanwhile.
        """
        vault, reporter = self._vault, Reporter("prune", self._control)
        limits = limits_of(self._control)
        found, problems = list[Collected](), list(self.problems)
        began = time.monotonic()
        until = math.inf if self._limits.time is None else began + self._limits.time.total_seconds()

        def run(gc: GarbageCollection) -> bool:
            found.append(gc.run(wait=max(0.0, began + wait - time.monotonic()), lease=lease, until=until))
            return not found[-1].waits_for

        for plan in self.domains:
            domain = vault.ring.domains[plan.domain]
            try:
                earlier = GarbageCollection.resume(vault, domain, reporter, limits)
                if earlier is not None and not run(earlier):
                    continue
                now = plan if earlier is None and not anew else _plan(vault, domain.id, self._limits)
                job = Job(frozenset(now.condemned), frozenset(now.merged))
                if job:
                    run(GarbageCollection(vault, domain, job, reporter, limits))
            except Damaged as e:
                problems.append(e)
            except NotFound as e:
                problems.append(Damaged(f"{e.message} while it was read: run it again", affected=e.affected))
        return found, problems


def plan_prune(
    repo: "Repository", *, limits: PruneLimits | None = None, exclusive: bool = False, control: Control | None = None
) -> PrunePlan:
    """Find out what no snapshot needs; nothing is removed yet.

    ``exclusive``: the caller sees to it that nobody else uses the repository meanwhile, which a store without
    put-if-absent needs.  RoleRequired unless owner or maintainer; Conflict for such a store; Damaged if what a snapshot
    needs cannot be told; all errors of the store.
    """
    vault = repo.vault.limited(control)
    vault.ring.require_role(Role.MAINTAINERS, "prune")
    require_safe(vault, exclusive=exclusive)
    limits = limits or PruneLimits()
    found, problems = list[DomainPlan](), list[Damaged]()
    left = leftovers(vault)  # first: each look at a domain sees what is among it
    for domain in sorted(vault.ring.domains):
        try:
            found.append(_plan(vault, domain, limits))
        except Damaged as e:  # one domain's damage is no other's
            problems.append(e)
    if not found and problems:
        raise problems[0]
    back = {names.pack(pack) for plan in found for pack in plan.alone}
    # Where a domain cannot be told, nobody knows what nothing else holds; an old index object may tell what is in it.
    stays = (names.PACKS, names.INDEX) if problems else (*back, names.INDEX) if back else ()
    left = tuple(o for o in left if not o.name.startswith(stays))
    problems += map(_is_back, sorted(back))
    locked = still_locked(vault.backend, [*left, *_condemned(vault, found)])
    return PrunePlan(tuple(found), left, *locked, tuple(problems), vault, control, limits, exclusive)


def _is_back(pack: str) -> Damaged:
    return Damaged(
        f"{pack} was removed for ever and is back: it stays, since it alone holds what snapshots need",
        hint="'snapvault check --repair' stores that anew",
        affected=[pack],
    )


def _damaged(vault: Vault) -> int | None:
    """How many packs are there that are known to be damaged; None if the store does not say it now."""
    with suppress(SnapvaultError):  # all that was to be done is done
        rotten = {names.pack(pack) for pack in read_verdicts(vault.backend, vault.ring, ROTTEN).packs}
        return sum(o.name in rotten for o in vault.backend.list(names.PACKS)) if rotten else 0
    return None


def _condemned(vault: Vault, plans: Sequence[DomainPlan]) -> list[ObjectInfo]:
    condemned = {names.pack(pack) for plan in plans for pack in plan.condemned}
    return [o for o in vault.backend.list(names.PACKS) if o.name in condemned] if condemned else []


def _plan(vault: Vault, domain: DomainId, limits: PruneLimits) -> DomainPlan:
    now = survey(vault, domain)
    uses = now.uses()
    free = [use for use in uses.values() if now.may_go(use.row.id)]
    dead, mixed = (_owned(now, found) for found in choose(free, now.filled, limits))
    gone = survey(vault, domain, waiting=False).uses() if now.waiting else uses
    condemned = [use.row.id for use in (*dead, *mixed)]
    return DomainPlan(
        domain,
        tuple(sorted(condemned)),
        frozenset(use.row.id for use in dead),
        () if now.standing.replica else _indexes_to_merge(vault, now),  # the source does, and would bring them back
        sum(u.row.size for u in uses.values()),
        sum(u.unused for u in uses.values()),
        sum(u.unused for u in (*dead, *mixed)),
        sum(u.row.size for u in mixed),
        sum(_needed(u) - _needed(gone[pack]) for pack, u in uses.items() if pack in gone),
        now.alone(),
    )


def _needed(use: Use) -> int:
    """Bytes of a pack that somebody needs, about; also what another one holds, too."""
    return use.row.size * use.live // use.raw if use.raw else 0


def _owned(now: Survey, uses: Sequence[Use]) -> list[Use]:
    """Those that are whose they are said to be."""
    owned = ahead(now.is_own, [use.row for use in uses], FETCHERS)
    return [use for use, own in zip(uses, owned, strict=True) if own]


def choose(uses: Sequence[Use], filled: Collection[SessionId], limits: PruneLimits) -> tuple[list[Use], list[Use]]:
    """Packs that nobody needs, and those of which so much is unused that what is needed is to be copied.

    Never one of a session that is still open.  All that are superseded, then the emptiest, until no more than the limit
    is unused.
    """
    ended = [u for u in uses if u.row.sid in filled]
    dead = [u for u in ended if not u.live]
    total = sum(u.row.size for u in uses) - sum(u.row.size for u in dead)
    unused = sum(u.unused for u in uses) - sum(u.unused for u in dead)
    mixed, rewritten = [], 0
    mixed_up = (u for u in ended if u.live and u.unused and (u.superseded or not u.damaged))  # else a repair's business
    order = sorted(mixed_up, key=lambda u: (-u.unused / u.row.size, u.row.id))
    for use in sorted(order, key=lambda u: not u.superseded):
        full = limits.rewrite is not None and rewritten + use.row.size > limits.rewrite
        if use.superseded and full:
            continue
        if full or (unused <= limits.unused * total and not use.superseded):
            break
        mixed.append(use)
        rewritten += use.row.size
        unused -= use.unused
        total -= use.unused
    return dead, mixed


def _indexes_to_merge(vault: Vault, now: Survey) -> tuple[str, ...]:
    """Small ones, if they are many, and those in which a writer that had been revoked named what a prune removed."""
    small, stale = [], []
    outdated = any(row.id in now.going for t in now.index.tables if t.names for row in t.packs)  # not by a pack itself
    for info in list(vault.backend.list(names.INDEX)):
        if info.name not in now.replaced and (outdated or info.size < SMALL_INDEX):
            with suppress(Damaged, NotFound):
                data = fetch(vault.backend, info.name, info.size)
                if is_replaceable(vault, now.domain, data):
                    if info.size < SMALL_INDEX:
                        small.append(info.name)
                    if outdated and any(row.id in now.going for row, _ in vault.loader.open(info.name, data)):
                        stale.append(info.name)
    return tuple(sorted({*stale, *(small if len(small) >= MERGED_FROM else ())}))


def end_own_dead(vault: Vault) -> Found:
    """See Running.end_dead."""
    return Running(vault).end_dead(safe=_is_safe(vault))


def patience_with(vault: Vault, lease: timedelta, own: Found, *, exclusive: bool) -> float:
    """For how many seconds a session may give no sign of life until it counts as dead.

    None, if nothing else uses the repository; but what is told is not believed while another GC of this client runs.
    Where put-if-absent is not known to hold, a writer could commit in spite of the revocation: so it has time for some
    heartbeats.
    """
    if not exclusive or own.alive:
        return lease.total_seconds()
    return 0.0 if _is_safe(vault) else min(lease.total_seconds(), 3 * HEARTBEAT_SECONDS)


def latest(found: Sequence[Collected]) -> datetime | None:
    """Until when those that died are waited for; None if that is not known of all."""
    waiting = [c.waits_until for c in found if c.waits_for]
    return datetime.fromtimestamp(max(waiting), UTC) if waiting and all(waiting) else None


def require_safe(vault: Vault, *, exclusive: bool) -> None:
    """Whether objects may be removed: Conflict, or what a rollback of the repository is told with."""
    if vault.rollback is not None:
        raise vault.rollback
    vault.require_current()
    if not exclusive and not _is_safe(vault):
        raise Conflict(
            "it is not known that this store keeps what a prune beside a backup needs (put-if-absent, true listings)",
            hint="see to it that nothing else uses the repository, and say --exclusive",
        )


def _is_safe(vault: Vault) -> bool:
    """Whether a probe found what the protocol needs; unknown is not yes."""
    found = recorded_capabilities(vault.backend)
    return bool(found) and all(c.put_if_absent and c.list_after_put for c in found)
