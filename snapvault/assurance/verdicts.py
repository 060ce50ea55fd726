"""What a drill, or an attestation, says of the steps of a dataset at one place (docs/board.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from snapvault.access.snapshot import Snapshot
from snapvault.assurance.evidence import Evidence, Standing
from snapvault.assurance.marks import ALIVE, BAD, GOOD, INTACT, UNKNOWN, Mark, day
from snapvault.assurance.outcome import FAIL, NOT_RUN, PASS
from snapvault.format.attestation import HASHED
from snapvault.operations.attest import Attestation

BACK = ("structure", "restored", "compared")  # steps of a drill that tell whether the data came back
_WHOLE = ("full", "alive")  # levels that bring all of it back


def drilled(standing: Standing | None, step: str) -> Mark | None:
    """What the newest drill says that says anything of this step.  A drill that could not be run says nothing."""
    told = standing.told if standing is not None else ()
    if step == ALIVE:
        return _alive(told)
    says = _intact if step == INTACT else _restored
    return next((mark for mark in map(says, told) if mark is not None), None)


def _intact(e: Evidence) -> Mark | None:
    return _failed(e, BACK) or _whole(e)


def _restored(e: Evidence) -> Mark | None:
    # Where a planted damage was not noticed, a real one may not have been.
    return _failed(e, (*BACK, "control")) or _whole(e)


def _alive(told: Sequence[Evidence]) -> Mark | None:
    """``told``: newest first.  Where all of it came back since, a failure to come back leaves no more than a doubt."""
    came_back = False
    for e in told:
        if e.outcome == PASS:
            if e.level == "alive" and e.of_whole:
                return Mark(GOOD, at=e.began, by=e.by)
            came_back = came_back or _whole(e) is not None
            continue
        objectives = ("freshness", "recovery") if e.level == "alive" else ()
        dead, gone = _failed(e, ("probe", *objectives)), _failed(e, (*BACK, "control"))
        if dead is not None or gone is not None:
            return dead if came_back else gone or dead
    return None


def _failed(e: Evidence, steps: Sequence[str]) -> Mark | None:
    for name in steps:
        step = e.head.steps.get(name)
        if step is not None and step.outcome == FAIL:
            return Mark(BAD, step.why, e.began, e.by, _TROUBLE.get(name, "damaged"), e.began)
    return None


def _whole(e: Evidence) -> Mark | None:
    """A part of it, or its structure alone, is not all of it."""
    steps = e.head.steps
    passed = all(s in steps and steps[s].outcome == PASS for s in ("restored", "compared", "control"))
    return Mark(GOOD, at=e.began, by=e.by) if passed and e.level in _WHOLE and e.of_whole else None


_TROUBLE = {"control": "dead", "probe": "dead", "freshness": "stale", "recovery": "slow"}


def not_run(standing: Standing | None) -> str:
    """Why the last drill could not tell; "" if it could."""
    last = None if standing is None else standing.last
    return f"the last drill could not tell: {last.head.why}" if last is not None and last.outcome == NOT_RUN else ""


@dataclass(frozen=True, slots=True)
class Attested:
    """What was signed about one site."""

    newest: Attestation
    hashed: Attestation | None  # the newest for which every object was read
    there: frozenset[str]  # snapshots that the newest one covers
    read: frozenset[str]  # and those that the one that was read does

    @classmethod
    def of(cls, found: Sequence[Attestation]) -> "Attested":
        """``found``: all of one site, newest first."""
        hashed = next((a for a in found if a.level == HASHED), None)
        return cls(found[0], hashed, frozenset(found[0].snapshots), frozenset(hashed.snapshots if hashed else ()))


class Wanted(NamedTuple):
    """What a place has to have of a dataset."""

    snapshots: Sequence[Snapshot]  # that are whole, newest first
    rpo: timedelta | None
    now: datetime

    def enough(self, ids: frozenset[str]) -> bool:
        """Whether these hold the newest snapshot, or one that is as new as was promised."""
        for at, snapshot in enumerate(self.snapshots):
            if snapshot.id in ids:
                return at == 0 or (self.rpo is not None and self.now - snapshot.time <= self.rpo)
        return False

    def waits_since(self, ids: frozenset[str], owed: datetime) -> datetime:
        """Since when an answer is owed: by the oldest snapshot after what is there; before any, since it was asked."""
        newer = list[Snapshot]()
        for snapshot in self.snapshots:
            if snapshot.id in ids:
                return newer[-1].time if newer else owed
            newer.append(snapshot)
        return owed


def replicated(attested: Attested | None, wanted: Wanted, site: str, owed: datetime) -> Mark:
    """Whether a site says that it has a copy that is new enough."""
    if attested is not None and wanted.enough(attested.there):
        return Mark(GOOD, at=attested.newest.time, by=attested.newest.by)
    since = wanted.waits_since(attested.there if attested is not None else frozenset(), owed)
    why = f"unanswered since {day(since)}: "
    if not wanted.snapshots:
        why += f"{site} is owed a copy, and there is nothing to bring"
    elif attested is None:
        why += f"nothing was ever attested of {site}"
    else:
        why += f"what was attested of {site} on {day(attested.newest.time)} does not cover it"
    at, by = (attested.newest.time, attested.newest.by) if attested is not None else (None, "")
    return Mark(UNKNOWN, why, at, by, "unanswered", since)


def read_through(attested: Attested | None, wanted: Wanted) -> Mark | None:
    """Whether a site's objects were read, and this dataset's found whole."""
    if attested is None or attested.hashed is None or not wanted.snapshots:
        return None
    read = attested.hashed
    if wanted.enough(attested.read) and wanted.enough(attested.there):
        return Mark(GOOD, at=read.time, by=read.by)
    if not read.bad:
        return None
    # A site has no key: it cannot tell whose the damaged objects are.
    why = f"damage was found there on {day(read.time)}, and whose it is was not told"
    return Mark(UNKNOWN, why, read.time, read.by, "untested")
