"""Prune: remove what no snapshot needs, beside any number of writers, readers and other prunes."""

import math
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from snapvault.access.resolve import list_snapshots
from snapvault.backend.protocol import NotFound
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import decode_capabilities
from snapvault.foundation.ahead import ahead
from snapvault.foundation.errors import Conflict, Damaged
from snapvault.foundation.events import Control, Reporter, limits_of
from snapvault.foundation.ids import DomainId, PackId, SessionId
from snapvault.operations.collect import Collected, GarbageCollection, Job, is_replaceable
from snapvault.operations.results import DAMAGED, OK, PARTIAL, Result
from snapvault.operations.survey import Survey, Use, going_by, survey
from snapvault.repository.repository import Vault
from snapvault.repository.store import FETCHERS, fetch

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

WAIT = timedelta(minutes=5)
LEASE = timedelta(hours=12)
MERGED_FROM = 16  # small index objects, from which on they are merged
SMALL_INDEX = 256 << 10  # bytes


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
    merged: tuple[str, ...]  # small index objects, and those that name what a prune removed
    bytes_total: int
    bytes_unused: int
    bytes_freed: int
    bytes_rewritten: int  # packs of which something is copied
    bytes_waiting: int  # that only forgotten snapshots need, which can still be brought back


@dataclass(frozen=True, slots=True)
class PruneResult(Result):
    """What was removed.  ``waits_for``: sessions of writers that have not ended, for the sake of which nothing was."""

    packs_removed: int
    bytes_removed: int
    bytes_copied: int
    packs_spared: int  # for which there was no time
    waits_for: tuple[str, ...]
    bytes_waiting: int
    problems: tuple[str, ...] = ()  # why nothing was removed in some domains

    @property
    def bytes_freed(self) -> int:
        return self.bytes_removed - self.bytes_copied

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "bytes_freed": self.bytes_freed, "status": self.status}

    @property
    def status(self) -> str:
        return DAMAGED if self.problems else PARTIAL if self.waits_for else OK


@dataclass(frozen=True, slots=True)
class PrunePlan(Result):
    """What would be freed and rewritten; ``execute`` does it."""

    domains: tuple[DomainPlan, ...]
    leftovers: tuple[str, ...]  # that an earlier prune removed for ever, or needs no more, and did not get to delete
    problems: tuple[Damaged, ...]  # why nothing is removed in some domains
    _vault: Vault = field(repr=False)
    _control: Control | None = field(repr=False, default=None)
    _limits: PruneLimits = field(repr=False, default=PruneLimits())

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
        shown = ("bytes_total", "bytes_unused", "bytes_freed", "bytes_rewritten", "bytes_waiting", "status")
        return {
            "packs": sum(len(d.condemned) for d in self.domains),
            "leftovers": len(self.leftovers),
            "problems": [str(p) for p in self.problems],
            **{name: getattr(self, name) for name in shown},
        }

    def execute(self, *, wait: timedelta = WAIT, lease: timedelta = LEASE) -> PruneResult:
        """Do it: each domain whole or not at all.

        ``wait``: how long to wait, in all, for writers that run now.  ``lease``: a writer that gave no sign of life for
        so long cannot commit any more.  Errors of the store and Conflict end it; what was done before stays done.
        Damaged if it stands in the way in every domain.
        """
        self._vault.require_current()
        for name in self.leftovers:
            self._vault.backend.delete(name)
        found, problems = self._collect(wait.total_seconds(), lease.total_seconds())
        if problems and len(problems) == len(self.domains) + len(self.problems):
            raise problems[0]
        return PruneResult(
            sum(c.packs for c in found),
            sum(c.bytes_removed for c in found),
            sum(c.bytes_copied for c in found),
            sum(c.spared for c in found),
            tuple(dict.fromkeys(sid for c in found for sid in c.waits_for)),
            self.bytes_waiting,
            tuple(str(p) for p in problems),
        )

    def _collect(self, wait: float, lease: float) -> tuple[list[Collected], list[Damaged]]:
        """In each domain go on with what an earlier run left open; then what is left to do."""
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
                now = plan if earlier is None else _plan(vault, domain.id, self._limits)
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
    for domain in sorted(vault.ring.domains):
        try:
            found.append(_plan(vault, domain, limits))
        except Damaged as e:  # one domain's damage is no other's
            problems.append(e)
    if not found and problems:
        raise problems[0]
    return PrunePlan(tuple(found), _leftovers(vault), tuple(problems), vault, control, limits)


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
        () if now.standing.replica else _indexes_to_merge(vault, now),  # the source does, and would bring them back
        sum(u.row.size for u in uses.values()),
        sum(u.unused for u in uses.values()),
        sum(u.unused for u in (*dead, *mixed)),
        sum(u.row.size for u in mixed),
        sum(u.unused for u in gone.values()) - sum(u.unused for u in uses.values()),
    )


def _owned(now: Survey, uses: Sequence[Use]) -> list[Use]:
    """Those that are whose they are said to be."""
    owned = ahead(now.is_own, [use.row for use in uses], FETCHERS)
    return [use for use, own in zip(uses, owned, strict=True) if own]


def choose(uses: Sequence[Use], filled: Collection[SessionId], limits: PruneLimits) -> tuple[list[Use], list[Use]]:
    """Packs that nobody needs, and those of which so much is unused that what is needed is to be copied.

    Never one of a session that is still open.  The emptiest first, until no more than the limit is unused.
    """
    ended = [u for u in uses if u.row.sid in filled]
    dead = [u for u in ended if not u.live]
    total = sum(u.row.size for u in uses) - sum(u.row.size for u in dead)
    unused = sum(u.unused for u in uses) - sum(u.unused for u in dead)
    mixed, rewritten = [], 0
    for use in sorted((u for u in ended if u.live and u.unused), key=lambda u: (-u.unused / u.row.size, u.row.id)):
        full = limits.rewrite is not None and rewritten + use.row.size > limits.rewrite
        if full or unused <= limits.unused * total:
            break
        mixed.append(use)
        rewritten += use.row.size
        unused -= use.unused
        total -= use.unused
    return dead, mixed


def _indexes_to_merge(vault: Vault, now: Survey) -> tuple[str, ...]:
    """Small ones, if they are many, and those in which a writer that had been revoked named what a prune removed."""
    small, stale = [], []
    outdated = any(row.id in now.going for row in now.index.packs())
    for info in list(vault.backend.list(names.INDEX)):
        if outdated or info.size < SMALL_INDEX:
            with suppress(Damaged, NotFound):
                data = fetch(vault.backend, info.name, info.size)
                if is_replaceable(vault, now.domain, data):
                    if info.size < SMALL_INDEX:
                        small.append(info.name)
                    if outdated and any(row.id in now.going for row, _ in vault.loader.open(info.name, data)):
                        stale.append(info.name)
    return tuple(sorted({*stale, *(small if len(small) >= MERGED_FROM else ())}))


def _leftovers(vault: Vault) -> tuple[str, ...]:
    """What is still there of what slots with "GC done" name."""
    slots = vault.history.all_slots()
    removed = {name for s in going_by(vault, slots) for name in s.record.removed}
    removed |= {names.GC + s.record.sid for s in slots}  # records of GCs that have ended
    there = [o.name for prefix in (names.INDEX, names.PACKS, names.GC) for o in vault.backend.list(prefix)]
    left = [name for name in there if name in removed]
    # Where paths are lost, somebody may have brought a pack back that a repair removed: the next repair looks into it.
    if any(n.startswith(names.PACKS) for n in left) and any(snapshot.lost for snapshot in list_snapshots(vault)):
        left = [name for name in left if not name.startswith(names.PACKS)]
    return tuple(left)


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
    found = []
    for info in list(vault.backend.list(names.CAPABILITIES)):
        try:
            found.append(decode_capabilities(fetch(vault.backend, info.name, info.size)))
        except (Damaged, NotFound):
            return False
    return bool(found) and all(c.put_if_absent and c.list_after_put for c in found)
