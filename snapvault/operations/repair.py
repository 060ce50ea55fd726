"""Repair: everything that can be read is saved, and what is lost is said in a note (docs/guide/repair.md).

Packs that are damaged are copied, blob by blob, and go by the same fence as what nobody needs; index objects come from
the packs themselves; headers of sessions from the commits that carry them.  Killed at any moment, nothing is lost that
could be read before, and the next repair goes on.
"""

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from snapvault.access.resolve import list_forgotten
from snapvault.backend.protocol import Exists, NotFound
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.snapshot import COMMIT
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Control, Reporter, limits_of
from snapvault.foundation.ids import DomainId, PackId, SessionId
from snapvault.operations.check import Check
from snapvault.operations.collect import Collected, GarbageCollection, Job
from snapvault.operations.prune import LEASE, WAIT, end_own_dead, latest, patience_with, require_safe
from snapvault.operations.results import DAMAGED, OK, PARTIAL, CheckReport, Result
from snapvault.operations.running import Found
from snapvault.operations.survey import survey
from snapvault.repository.create import rescue_files
from snapvault.repository.repository import Vault
from snapvault.repository.session import revoke
from snapvault.repository.store import fetch

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

NOTED, NOTED_BYTES = 100_000, 8 << 20  # lost paths that a note names, and their length; of more, their folders
REPLACEABLE = (names.INDEX, names.VERIFIED, names.DAMAGED)  # what is in the packs, too, or is found out anew


@dataclass(frozen=True, slots=True)
class RepairResult(Result):
    """What a repair did, and what a check says after it."""

    packs_salvaged: int
    packs_listed: int  # by their own directories, since no index named them, or named them wrongly
    bytes_copied: int
    blobs_lost: int
    indexes_replaced: int
    objects_restored: int  # headers of sessions, rescue files
    objects_removed: int  # that nobody could read
    snapshots_marked: int  # that lost paths, as their notes say now
    snapshots_healed: int  # that had lost paths, and have them back
    waits_for: tuple[str, ...]  # sessions that have not ended, for the sake of which packs were left
    problems: tuple[str, ...]  # why something was left as it is
    after: CheckReport
    waits_until: datetime | None = None  # as of PruneResult

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        own = {name: getattr(self, name) for name in self.__slots__ if name != "after"}
        own["waits_until"] = self.waits_until.isoformat() if self.waits_until else None
        return {**own, "remaining": [f.message for f in self.after.problems], "status": self.status}

    @property
    def status(self) -> str:
        """``damaged`` if something is, still; ``partial`` if paths are lost, or something had to wait."""
        if self.problems or self.after.status == DAMAGED:
            return DAMAGED
        return PARTIAL if self.waits_for or self.after.lost else OK


@dataclass(frozen=True, slots=True)
class RepairPlan(Result):
    """What a check found, and what would be done about it; ``execute`` does it."""

    report: CheckReport
    jobs: Mapping[DomainId, Job]
    restored: Mapping[str, bytes]  # objects of which a copy is at hand
    removed: tuple[str, ...]  # objects that nobody can read, and nobody misses
    ended: tuple[str, ...]  # records of GCs that cannot be read, so that nobody relies on anything
    packs_listed: int  # to be listed by their own directories
    _vault: Vault = field(repr=False)
    _control: Control | None = field(repr=False, default=None)
    _exclusive: bool = field(repr=False, default=False)

    @property
    def status(self) -> str:
        return self.report.status

    @property
    def packs_salvaged(self) -> int:
        return sum(len(job.condemned) for job in self.jobs.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "packs_salvaged": self.packs_salvaged, "packs_listed": self.packs_listed,
            "objects_restored": sorted(self.restored), "objects_removed": [*self.removed, *self.ended],
            "lost": len(self.report.lost), "snapshots": sorted({p.snapshot for p in self.report.lost}),
            "findings": [f.message for f in self.report.findings], "status": self.status,
        }  # fmt: skip

    def execute(self, *, wait: timedelta = WAIT, lease: timedelta = LEASE) -> RepairResult:
        """Do it.

        ``wait``, ``lease``: as of PrunePlan.execute.  What goes wrong in one domain stops no other, and is among the
        problems.  Errors of the store and Conflict end it; what was done before stays done.
        """
        vault, reporter, plan = self._vault, Reporter("repair", self._control), self
        vault.require_current()
        for name, data in self.restored.items():
            _restore(vault, name, data)
        for name in self.ended:
            _end(vault, name)
        if any(name.startswith(names.SESSIONS) for name in self.restored):  # more can be read now
            plan = _plan(Check(vault, 1.0, reporter, self._control), self._control, exclusive=self._exclusive)
        done, problems = plan._collect(wait, lease, reporter)
        waits_for = tuple(dict.fromkeys(sid for c in done for sid in c.waits_for))
        removed = () if waits_for or problems else plan.removed  # what they say may be the only hint at something
        removed = tuple(name for name in removed if not _is_readable(vault, name))  # a reply may have come damaged
        for name in removed:
            vault.backend.delete(name)
        # What was left is named by who reads it; of what was done, the structure says enough.
        check = Check(vault, 1.0 if waits_for or problems else 0.0, reporter, self._control)
        marked, healed = _note(check)
        after = _as_noted(check.report())
        return RepairResult(
            sum(c.packs for c in done), sum(c.listed for c in done), sum(c.bytes_copied for c in done),
            sum(c.lost for c in done), sum(c.indexes for c in done), len(self.restored),
            len(removed) + len(self.ended), marked, healed, waits_for, tuple(problems), after, latest(done),
        )  # fmt: skip

    def _collect(self, wait: timedelta, lease: timedelta, reporter: Reporter) -> tuple[list[Collected], list[str]]:
        vault, limits = self._vault, limits_of(self._control)
        done, problems = list[Collected](), list[str]()
        end = time.monotonic() + wait.total_seconds()
        own = end_own_dead(vault) if self.jobs else Found()
        patience = patience_with(vault, lease, own, exclusive=self._exclusive)
        for keys in vault.ring.domains.values() if self.jobs else ():  # no prune of ours that waits is waited for
            earlier = GarbageCollection.resume(vault, keys, reporter, limits)
            if earlier is not None:
                earlier.give_up()
        for domain, job in self.jobs.items():
            gc = GarbageCollection(vault, vault.ring.domains[domain], job, reporter, limits)
            try:
                done.append(gc.run(wait=max(0.0, end - time.monotonic()), lease=patience))
            except (Damaged, NotFound) as e:
                problems.append(str(e))
        return done, problems


def plan_repair(repo: "Repository", *, exclusive: bool = False, control: Control | None = None) -> RepairPlan:
    """Check everything, all data too, and find out what can be mended; nothing is changed yet.

    ``exclusive``: as of plan_prune.  RoleRequired unless owner or maintainer; Conflict; all errors of the store.
    """
    vault = repo.vault.limited(control)
    vault.ring.require_role(Role.MAINTAINERS, "repair")
    require_safe(vault, exclusive=exclusive)
    vault.standing().require_source(
        "repair it", hint="if it is whole there, 'snapvault check --repair-from' mends this place from it"
    )
    return _plan(Check(vault, 1.0, Reporter("check", control), control), control, exclusive=exclusive)


def _plan(check: Check, control: Control | None, *, exclusive: bool) -> RepairPlan:
    unreadable = check.objects.unreadable
    return RepairPlan(
        check.report(),
        _jobs(check),
        {**_headers(check), **_rescue(check)},
        tuple(sorted(n for n in unreadable if n.startswith(REPLACEABLE))),
        _unreadable_gcs(check),
        len(check.objects.unlisted - check.data.rotten.keys()),
        check.vault,
        control,
        exclusive,
    )


def _jobs(check: Check) -> dict[DomainId, Job]:
    """What is to be done in each domain: damaged packs, and those that no index describes as they are."""
    objects, data, own = check.objects, check.data, check.vault.ring.domains
    condemned, relisted = defaultdict[DomainId, set[PackId]](set), defaultdict[DomainId, set[PackId]](set)
    for pack, domains in data.rotten.items():
        # By its header; else where something in it could be opened; else nothing is to be had from it anyway.
        for domain in domains or {min(own)}:
            condemned[domain].add(pack)
    for pack in _brought_back(check) - data.rotten.keys():
        for claim in objects.claims.of(pack):
            if claim.row.domain not in data.false.get(pack, ()):
                condemned[claim.row.domain].add(pack)
    for pack in objects.gone | objects.unlisted:
        for claim in objects.claims.of(pack):
            relisted[claim.row.domain].add(pack)
    for pack, domains in data.false.items():  # that these say nothing of it any more
        for domain in domains:
            relisted[domain].add(pack)
    for pack, domain in data.misdescribed.items():  # whoever is right, what can be read is copied
        condemned[domain].add(pack)
    jobs = {
        domain: Job(
            frozenset(condemned[domain]),
            relisted=frozenset(relisted[domain] - condemned[domain]),
            salvage=True,
            settle=objects.incomplete and domain == min(own),
        )
        for domain in sorted(own)
    }
    return {domain: job for domain, job in jobs.items() if job}


def _brought_back(check: Check) -> set[PackId]:
    """Packs that were removed for ever and are there, in which may be what is lost, or is nowhere else."""
    returned, found, data = check.objects.returned, set[PackId](), check.data
    doubted = {*data.rotten, *data.false, *data.misdescribed}
    if check.lost or any(snapshot.lost for snapshot in check.trees.snapshots):
        return returned
    for domain in sorted(check.vault.ring.domains) if returned else ():
        try:
            found |= survey(check.vault, domain).alone(doubted)
        except (Damaged, NotFound):
            return returned
    return found


def _headers(check: Check) -> dict[str, bytes]:
    """Headers of sessions that are lost, by the copies in their commits, which the same holder signed."""
    commits = [s for s in check.objects.slots if s.record.kind == COMMIT]
    wanted = {names.session(s.record.sid): s.record.session for s in commits}
    lost = check.objects.unreadable | (wanted.keys() - check.listing.keys())
    return {name: data for name, data in wanted.items() if name in lost}


def _rescue(check: Check) -> dict[str, bytes]:
    """Rescue files that are lost, where this snapvault's are those that the owner signed."""
    keyset, mine = check.vault.ring.keyset, rescue_files()
    signed = dict(keyset.rescue) if keyset is not None else {}
    wrong = {o for f in check.objects.findings for o in f.objects if o in signed}
    return {n: mine[n] for n in wrong if n in mine and hashlib.sha256(mine[n]).digest() == signed[n]}


def _unreadable_gcs(check: Check) -> tuple[str, ...]:
    """Records of GCs that are damaged, or were not signed by whoever may condemn anything."""
    affected = {o for f in check.objects.findings if not f.harmless for o in f.objects}
    return tuple(sorted(name for name in affected if name.startswith(names.GC)))


def _end(vault: Vault, record: str) -> None:
    """Nobody knows what this GC condemned, so it must not go on.  A record under another name is nobody's."""
    sid = record.removeprefix(names.GC)
    if sid.startswith(names.GC_PREFIX) and names.is_session_id(sid):
        revoke(vault.store, vault.ring, SessionId(sid))
    vault.backend.delete(record)


def _is_readable(vault: Vault, name: str) -> bool:
    """Whether an index object is what it must be, now."""
    if name.startswith(names.INDEX):
        with suppress(Damaged, NotFound):
            vault.loader.open(name, fetch(vault.backend, name))
            return True
    return False


def _restore(vault: Vault, name: str, data: bytes) -> None:
    """What stands there is damaged or gone."""
    try:
        vault.backend.put_if_absent(name, [data])
    except Exists:
        vault.backend.put(name, [data])


def _note(check: Check) -> tuple[int, int]:
    """Say in notes what is lost now: how many snapshots are marked by it, and how many have everything back."""
    lost = defaultdict[str, set[str]](set)
    for path in check.lost:
        lost[path.snapshot].add(path.path)
    began = now_ns()
    waiting = [s for s, until in list_forgotten(check.vault) if until > began]  # a prune asks what these need, too
    for snapshot in waiting:
        lost[snapshot.id] = {path.path for path in check.trees.lost_of(snapshot)}
    marked = healed = 0
    for snapshot in (*check.trees.snapshots, *waiting):
        now = _condensed(lost[snapshot.id])
        if now != set(snapshot.lost):
            paths = (os.fsencode(path.removeprefix("/")) for path in now)
            check.vault.notes.set_lost(snapshot.id, snapshot.slot.holder, paths)
            marked, healed = marked + bool(now), healed + (not now)
    return marked, healed


def _as_noted(report: CheckReport) -> CheckReport:
    """What another check would say now that all that is lost is noted."""
    findings = tuple(replace(f, harmless=True) if f.snapshots else f for f in report.findings)
    return replace(report, findings=findings, lost=tuple(replace(path, noted=True) for path in report.lost))


def _condensed(paths: Iterable[str]) -> set[str]:
    """No more paths than a note holds: instead of too many, the folders that they are in."""
    found = set(paths)
    while len(found) > NOTED or sum(len(path) for path in found) > NOTED_BYTES:
        found = {str(PurePosixPath(path).parent) for path in found}
    return found
