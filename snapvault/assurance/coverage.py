"""How far up the ladder each declared dataset is, at which place, by what was signed of it (docs/board.md).

declared, backed up, replicated, intact, restored, alive.  What nobody has tested is unknown, and unknown is never good.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from snapvault.access.snapshot import Snapshot
from snapvault.assurance.advice import command_for
from snapvault.assurance.dataset import Dataset, DrillRule
from snapvault.assurance.evidence import Standing, Standings
from snapvault.assurance.marks import (
    ALIVE,
    BACKED_UP,
    BAD,
    DECLARED,
    FRESHNESS,
    GOOD,
    INTACT,
    LADDER,
    RECOVERY,
    REPLICATED,
    RESTORED,
    UNKNOWN,
    Mark,
    Problem,
    day,
    iso,
)
from snapvault.assurance.register import Register
from snapvault.assurance.spans import format_span
from snapvault.assurance.verdicts import Attested, Wanted, drilled, not_run, read_through, replicated
from snapvault.foundation.clock import SKEW

PROOFS = (INTACT, RESTORED, ALIVE)  # steps that are taken at one place
OWED = {"structure": (), "sample": (), "full": (INTACT, RESTORED), "alive": PROOFS}  # that drills of a level show
GRACE, GRACE_MIN = 4, timedelta(days=1)  # a proof counts for a quarter longer than a drill is owed, and a day at least


@dataclass(frozen=True, slots=True)
class PlaceState:
    """A dataset at one place."""

    site: str  # "": the repository itself
    owed: bool  # it is declared that a copy is owed there
    steps: Mapping[str, Mark]  # of PROOFS, and REPLICATED at a site

    @property
    def height(self) -> int:
        """How many of PROOFS were reached, each with those before it."""
        return next((at for at, step in enumerate(PROOFS) if not self.steps[step].good), len(PROOFS))

    @property
    def good(self) -> int:
        """How many of PROOFS are good, whatever is below them."""
        return sum(self.steps[step].good for step in PROOFS)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"site": self.site, "owed": self.owed, "steps": {s: m.to_dict() for s, m in self.steps.items()}}


@dataclass(frozen=True, slots=True)
class DatasetState:
    """Where a dataset stands."""

    dataset: Dataset
    since: datetime  # that it is declared
    snapshot: str  # id of the newest one that is whole; "" if there is none
    data_of: datetime | None  # its time
    steps: Mapping[str, Mark]  # of LADDER; of PROOFS those of the place that is highest
    objectives: Mapping[str, Mark]  # FRESHNESS and RECOVERY, if promised
    places: tuple[PlaceState, ...]  # the highest first
    problems: tuple[Problem, ...]  # the gravest first
    notes: tuple[str, ...] = ()

    @property
    def reached(self) -> str:
        """The last step that it reached with those before it; REPLICATED is beside the others."""
        reached = DECLARED
        for step in LADDER:
            if self.steps[step].good:
                reached = step if step != REPLICATED else reached
            elif step != REPLICATED:
                break
        return reached

    @property
    def recoverable(self) -> bool:
        """It can be brought back within its objectives, as far as anything was promised."""
        return self.reached == ALIVE and all(mark.good for mark in self.objectives.values())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        d = self.dataset
        return {
            "dataset": d.name, "owner": d.owner, "tier": d.tier, "group": d.group, "since": iso(self.since),
            "recoverable": self.recoverable, "reached": self.reached, "snapshot": self.snapshot or None,
            "data_of": iso(self.data_of), "steps": {s: m.to_dict() for s, m in self.steps.items()},
            "objectives": {s: m.to_dict() for s, m in self.objectives.items()},
            "places": [p.to_dict() for p in self.places], "problems": [p.to_dict() for p in self.problems],
            "notes": list(self.notes),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of a repository."""

    register: Register
    snapshots: Mapping[str, Sequence[Snapshot]]  # by dataset, newest first
    attested: Mapping[str, Attested]  # by site
    standings: Standings
    now: datetime

    def states(self) -> Iterator[DatasetState]:
        """Of every declared dataset, in the order of the register."""
        drilled_at = dict[str, list[str]]()
        for name, site in self.standings.of:
            drilled_at.setdefault(name, []).append(site)
        for name, dataset in self.register.datasets.items():
            yield _Judge(self, dataset, drilled_at.get(name, [])).state()


class _Judge:
    """Looks at one dataset."""

    def __init__(self, facts: Facts, dataset: Dataset, drilled_at: Sequence[str]) -> None:
        self._facts, self._dataset, self._now = facts, dataset, facts.now
        known = facts.snapshots.get(dataset.name, ())
        self._known = [s for s in known if s.time <= facts.now + SKEW]
        self._early = len(known) - len(self._known)
        self._wanted = Wanted([s for s in self._known if not (s.partial or s.lost)], dataset.rpo, facts.now)
        self._since = facts.register.since.get((dataset.name, ""), facts.register.time)
        self._sites = tuple(dict.fromkeys(("", *dataset.sites, *drilled_at, *self._covering())))

    def state(self) -> DatasetState:
        """All of it."""
        places = sorted(map(self._place, self._sites), key=lambda p: (-p.height, -p.good))
        steps = {DECLARED: Mark(GOOD, at=self._since), BACKED_UP: self._backed_up(), **self._copies(places)}
        steps |= _highest(steps[BACKED_UP], places)
        objectives = {FRESHNESS: self._freshness(places[0].site), RECOVERY: self._recovery(places[0].site)}
        promised = {name: mark for name, mark in objectives.items() if mark is not None}
        newest = self._wanted.snapshots[0] if self._wanted.snapshots else None
        problems = sorted(self._problems(steps, promised, places), key=lambda p: p.rank)
        return DatasetState(
            self._dataset, self._since, newest.id if newest else "", newest.time if newest else None,
            steps, promised, tuple(places), tuple(problems), tuple(self._notes()),
        )  # fmt: skip

    def _covering(self) -> Iterator[str]:
        """Sites of which something was signed about this dataset, owed or not."""
        for site, attested in self._facts.attested.items():
            if any(s.id in attested.there for s in self._wanted.snapshots):
                yield site

    # -- what is there ---------------------------------------------------------------------------------------------

    def _backed_up(self) -> Mark:
        if self._wanted.snapshots:
            return Mark(GOOD, at=self._wanted.snapshots[0].time, by=self._wanted.snapshots[0].holder)
        if not self._known:
            return Mark(BAD, "never backed up", trouble="never-backed-up", since=self._since)
        newest, oldest = self._known[0], self._known[-1]
        if newest.lost:
            return Mark(BAD, "parts of it are lost to damage", newest.time, newest.holder, "lost", newest.time)
        why = "some of it could not be read, whenever it was backed up"
        return Mark(BAD, why, newest.time, newest.holder, "incomplete", oldest.time)

    def _copies(self, places: Sequence[PlaceState]) -> dict[str, Mark]:
        """REPLICATED as a whole: as good as the worst of the sites that are owed a copy."""
        owed = [p.steps[REPLICATED] for p in places if p.owed]
        if not owed:
            return {REPLICATED: Mark(UNKNOWN, "no copy is owed anywhere")}
        return {REPLICATED: min(owed, key=lambda m: (m.good, m.since or m.at or self._now))}

    def _place(self, site: str) -> PlaceState:
        standing = self._facts.standings.of.get((self._dataset.name, site))
        attested = self._facts.attested.get(site) if site else None
        steps = {step: self._proof(standing, attested, step) for step in PROOFS}
        if site:
            owed = self._facts.register.since.get((self._dataset.name, site), self._since)
            steps = {REPLICATED: replicated(attested, self._wanted, site, owed), **steps}
        return PlaceState(site, site in self._dataset.sites, steps)

    def _proof(self, standing: Standing | None, attested: Attested | None, step: str) -> Mark:
        """The newest that was said of a step, if it still counts."""
        said = [drilled(standing, step), read_through(attested, self._wanted) if step == INTACT else None]
        newest = max((m for m in said if m is not None), key=lambda m: m.at or self._now, default=None)
        rule = self._dataset.drill
        if newest is None:
            late = rule is not None and step in OWED[rule.level] and self._now - self._since > _counts_for(rule)
            why = not_run(standing) or self._untested(step)
            return Mark(UNKNOWN, why, trouble="overdue" if late else "untested", since=self._since if late else None)
        if newest.good and rule is not None and newest.at is not None and self._now - newest.at > _counts_for(rule):
            why = f"last shown on {day(newest.at)}, and owed every {format_span(rule.every)}"
            return Mark(UNKNOWN, why, newest.at, newest.by, "overdue", newest.at + rule.every)
        return newest

    def _untested(self, step: str) -> str:
        if step == ALIVE and self._dataset.probe is None:
            return "no probe is declared that could tell"
        return {INTACT: "nobody has read all of it", RESTORED: "never restored in full"}.get(step, "no drill was held")

    # -- what was promised -----------------------------------------------------------------------------------------

    def _freshness(self, site: str) -> Mark | None:
        """At its highest place: what is new here and alive there is not both."""
        rpo, newest = self._dataset.rpo, next(iter(self._wanted.snapshots), None)
        if rpo is None:
            return None
        if newest is None:
            return Mark(UNKNOWN, "there is no whole snapshot")
        there = next(iter(self._known_at(site)), None)
        if there is not None and self._now - there.time <= rpo:
            return Mark(GOOD, at=there.time, by=there.holder)
        if self._now - newest.time <= rpo:
            why = f"nothing that is as new as {format_span(rpo)} (RPO) is known to be there"
            return Mark(UNKNOWN, why, trouble="untested")
        why = f"the newest whole snapshot is of {day(newest.time)}, and may be {format_span(rpo)} old (RPO)"
        return Mark(BAD, why, newest.time, newest.holder, "stale", newest.time + rpo)

    def _known_at(self, site: str) -> list[Snapshot]:
        """The whole snapshots that somebody signed to be at a place, newest first."""
        if not site:
            return list(self._wanted.snapshots)
        attested, standing = self._facts.attested.get(site), self._facts.standings.of.get((self._dataset.name, site))
        drills = standing.told if standing is not None else ()
        there = {e.head.snapshot.id for e in drills if e.head.snapshot is not None}
        there |= attested.there if attested is not None else set()
        return [s for s in self._wanted.snapshots if s.id in there]

    def _recovery(self, site: str) -> Mark | None:
        """As the last drill that brought it to life at its highest place measured it."""
        rto, standing = self._dataset.rto, self._facts.standings.of.get((self._dataset.name, site))
        if rto is None:
            return None
        alive = standing.passed.get("alive") if standing is not None else None
        if alive is None or alive.head.recovery is None:
            return Mark(UNKNOWN, "no drill has measured how long it takes")
        if timedelta(milliseconds=alive.head.recovery) <= rto:
            return Mark(GOOD, at=alive.began, by=alive.by)
        why = f"bringing it back took {alive.head.recovery / 1000:,.1f} s, and may take {format_span(rto)} (RTO)"
        return Mark(BAD, why, alive.began, alive.by, "slow", alive.began)

    # -- what is to be done ----------------------------------------------------------------------------------------

    def _problems(
        self, steps: Mapping[str, Mark], objectives: Mapping[str, Mark], places: Sequence[PlaceState]
    ) -> Iterator[Problem]:
        best_at = places[0].site
        found = [("", steps[BACKED_UP])]
        found += [(best_at if mark.value == UNKNOWN else "", mark) for mark in objectives.values()]
        found += [(p.site, p.steps[REPLICATED]) for p in places if p.owed]
        failed = [(p.site, next((p.steps[s] for s in PROOFS if p.steps[s].value == BAD), None)) for p in places]
        found += [(site, mark) for site, mark in failed if mark is not None]
        best = next((steps[s] for s in PROOFS if not steps[s].good), None)
        if best is not None and best.value == UNKNOWN and steps[BACKED_UP].good:
            found.append((best_at, best))
        whole = [p.site for p in places if p.steps[INTACT].good]
        for site, mark in dict.fromkeys(found):
            if mark.trouble and not mark.good:
                command = command_for(self._dataset, mark, site, whole, backed_up=steps[BACKED_UP].good)
                yield Problem(mark.trouble, mark.why, site, mark.since, command)

    def _notes(self) -> Iterator[str]:
        if self._early:
            yield f"{self._early} of its snapshots are of a time that is still to come, and do not count"
        if self._known and self._known[0].partial and self._wanted.snapshots:
            yield "the newest snapshot is partial, so an older one counts"
        signers = dict.fromkeys(s.slot.holder for s in self._known)
        if len(signers) > 1 and self._known[0].slot.holder != self._known[-1].slot.holder:
            yield f"the newest snapshot was written by the key of {self._known[0].holder}, others were not"


def _highest(backed_up: Mark, places: Sequence[PlaceState]) -> dict[str, Mark]:
    """PROOFS as a whole: those of the place that is highest; none without a snapshot that is whole."""
    if not backed_up.good:
        return dict.fromkeys(PROOFS, Mark(UNKNOWN, "there is no whole snapshot"))
    best, found = places[0], dict[str, Mark]()
    for at, step in enumerate(PROOFS):
        mark = best.steps[step]
        if mark.good and at > best.height:
            below = best.steps[PROOFS[best.height]]
            mark = Mark(UNKNOWN, f"not {PROOFS[best.height]}: {below.why}", mark.at, mark.by)
        found[step] = mark
    return found


def _counts_for(rule: DrillRule) -> timedelta:
    """So that who drills once a day what is due is not late each time."""
    return rule.every + max(rule.every / GRACE, GRACE_MIN)
