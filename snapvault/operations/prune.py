"""Prune: remove what no snapshot needs, beside any number of writers, readers and other prunes."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from snapvault.backend.protocol import NotFound
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import decode_capabilities
from snapvault.foundation.errors import Conflict, Damaged
from snapvault.foundation.events import Control, Limits, Reporter
from snapvault.foundation.ids import DomainId, PackId, SessionId
from snapvault.operations.collect import GarbageCollection
from snapvault.operations.results import OK, PARTIAL, Result
from snapvault.operations.survey import Use, is_trusted_gc, survey
from snapvault.repository.repository import Vault
from snapvault.repository.store import fetch

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
    is needed.  ``rewrite``: bytes of packs that may be rewritten; None: as many as ``unused`` asks for.
    """

    unused: float = 0.05
    rewrite: int | None = None


@dataclass(frozen=True, slots=True)
class DomainPlan:
    """What is to be done in one domain."""

    domain: DomainId
    condemned: tuple[PackId, ...]
    merged: tuple[str, ...]  # small index objects
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
    waits_for: tuple[str, ...]
    bytes_waiting: int

    @property
    def bytes_freed(self) -> int:
        return self.bytes_removed - self.bytes_copied

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "bytes_freed": self.bytes_freed, "status": self.status}

    @property
    def status(self) -> str:
        return PARTIAL if self.waits_for else OK


@dataclass(frozen=True, slots=True)
class PrunePlan(Result):
    """What would be freed and rewritten; ``execute`` does it."""

    domains: tuple[DomainPlan, ...]
    leftovers: tuple[str, ...]  # that an earlier prune removed for ever, and did not get to delete
    _vault: Vault = field(repr=False)
    _control: Control | None = field(repr=False, default=None)

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
            **{name: getattr(self, name) for name in shown},
        }

    def execute(self, *, wait: timedelta = WAIT, lease: timedelta = LEASE) -> PruneResult:
        """Do it: each domain whole or not at all.

        ``wait``: how long to wait for writers that run now.  ``lease``: a writer that gave no sign of life for so long
        cannot commit any more.  Errors of the store, Conflict, Damaged leave everything as it was.
        """
        control = self._control
        reporter = Reporter("prune", control)
        limits = (control.limits if control is not None else None) or Limits()
        for name in self.leftovers:
            self._vault.backend.delete(name)
        found = []
        for plan in self.domains:
            if plan.condemned or plan.merged:
                domain = self._vault.ring.domains[plan.domain]
                gc = GarbageCollection(self._vault, domain, plan.condemned, plan.merged, reporter, limits)
                found.append(gc.run(wait=wait.total_seconds(), lease=lease.total_seconds()))
        return PruneResult(
            sum(c.packs for c in found),
            sum(c.bytes_removed for c in found),
            sum(c.bytes_copied for c in found),
            tuple(dict.fromkeys(sid for c in found for sid in c.waits_for)),
            self.bytes_waiting,
        )


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
    if vault.rollback is not None:
        raise vault.rollback
    if not exclusive and not _puts_if_absent(vault):
        raise Conflict(
            "this store does not refuse to replace what is there, so a prune beside a backup could lose data",
            hint="see to it that nothing else uses the repository, and say --exclusive",
        )
    found = [_plan(vault, domain, limits or PruneLimits()) for domain in sorted(vault.ring.domains)]
    return PrunePlan(tuple(found), _leftovers(vault), vault, control)


def _plan(vault: Vault, domain: DomainId, limits: PruneLimits) -> DomainPlan:
    now = survey(vault, domain)
    uses = now.uses()
    dead, mixed = choose(list(uses.values()), now.filled, limits)
    gone = survey(vault, domain, waiting=False).uses() if now.waiting else uses
    condemned = [use.row.id for use in (*dead, *mixed)]
    return DomainPlan(
        domain,
        tuple(sorted(condemned)),
        _small_indexes(vault, domain),
        sum(u.row.size for u in uses.values()),
        sum(u.unused for u in uses.values()),
        sum(u.unused for u in (*dead, *mixed)),
        sum(u.row.size for u in mixed),
        sum(u.unused for u in gone.values()) - sum(u.unused for u in uses.values()),
    )


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
        if unused <= limits.unused * total or rewritten + use.row.size > (limits.rewrite or 1 << 62):
            break
        mixed.append(use)
        rewritten += use.row.size
        unused -= use.unused
        total -= use.unused
    return dead, mixed


def _small_indexes(vault: Vault, domain: DomainId) -> tuple[str, ...]:
    small = []
    for info in list(vault.backend.list(names.INDEX)):
        if info.size < SMALL_INDEX:
            try:
                if vault.loader.verify(fetch(vault.backend, info.name, info.size))[0].domain == domain:
                    small.append(info.name)
            except (Damaged, NotFound):
                continue
    return tuple(small) if len(small) >= MERGED_FROM else ()


def _leftovers(vault: Vault) -> tuple[str, ...]:
    """What is still there of what slots with "GC done" name."""
    removed = {n for s in vault.history.all_slots() if is_trusted_gc(vault, s) for n in s.record.removed}
    there = [o.name for prefix in (names.INDEX, names.PACKS) for o in vault.backend.list(prefix)]
    return tuple(name for name in there if name in removed)


def _puts_if_absent(vault: Vault) -> bool:
    for info in list(vault.backend.list(names.CAPABILITIES)):
        try:
            if not decode_capabilities(fetch(vault.backend, info.name, info.size)).put_if_absent:
                return False
        except (Damaged, NotFound):
            continue
    return True
