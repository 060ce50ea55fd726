"""The view model of the board: everything that is shown, and nothing that is not (docs/board.md)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from snapvault.access.resolve import list_snapshots
from snapvault.access.snapshot import Snapshot
from snapvault.assurance.coverage import DatasetState, Facts
from snapvault.assurance.evidence import standings
from snapvault.assurance.marks import (
    BREACHED,
    FAILED,
    GOOD,
    LADDER,
    TROUBLES,
    UNKNOWN,
    Problem,
    day,
    iso,
)
from snapvault.assurance.register import read_register
from snapvault.assurance.verdicts import Attested
from snapvault.foundation import clock
from snapvault.foundation.errors import InvalidInput
from snapvault.operations.attest import Attestation, attestations
from snapvault.operations.results import DAMAGED, OK, PARTIAL

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

FINE, KEPT_NOT, DOWN, DARK = TONES = ("fine", "breach", "down", "unknown")
_UNTOLD = ("unanswered", "overdue", "untested")  # troubles by which something is not known, and not known to be bad
_STATUSES = (DAMAGED, FAILED, BREACHED, PARTIAL)  # the gravest first
_SAYS = {
    "never-backed-up": "{} never backed up", "lost": "{} partly lost to damage",
    "incomplete": "{} only partly backed up",
    "damaged": "{} not brought back whole when drilled", "dead": "{} not brought back to life when drilled",
    "stale": "{} older than promised", "slow": "{} slower to bring back than promised",
    "overdue": "{} overdue for a drill",
    "untested": "{} not tested that far",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Level:
    """A step of the funnel: how many datasets are good there, and how many of the others are bad or unknown."""

    step: str
    good: int
    bad: int
    unknown: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"step": self.step, "datasets": self.good, "bad": self.bad, "unknown": self.unknown}


@dataclass(frozen=True, slots=True)
class Board:
    """Where all declared datasets stand at one moment."""

    repository: str  # id
    time: datetime
    revision: int  # of the register
    states: tuple[DatasetState, ...]  # the worst first
    faults: tuple[str, ...]  # what is damaged or missing of what this rests on
    conflicts: tuple[str, ...]  # of the register
    undeclared: tuple[str, ...]  # datasets that are backed up, and that nobody declared or retired

    @property
    def recoverable(self) -> int:
        """How many can be brought back within their objectives, by evidence."""
        return sum(s.recoverable for s in self.states)

    @property
    def funnel(self) -> tuple[Level, ...]:
        """Six numbers.  Each but that of REPLICATED counts those that are good there and at all steps before it."""
        return tuple(self._level(step) for step in LADDER)

    def _level(self, step: str) -> Level:
        values = Counter(s.steps[step].value for s in self.states)
        return Level(step, values[GOOD], len(self.states) - values[GOOD] - values[UNKNOWN], values[UNKNOWN])

    @property
    def unanswered_since(self) -> datetime | None:
        """The oldest of all copies that are owed, and that nobody says are there."""
        return min((p.since for s in self.states for p in _unanswered(s) if p.since is not None), default=None)

    @property
    def headline(self) -> str:
        """How many of how many."""
        if not self.states:
            return "Nothing is declared, so nothing is known"
        return f"{self.recoverable:,} of {len(self.states):,} can be brought back within their objectives"

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is the matter with how many of the others, by what is gravest; and the copies that are owed."""
        gravest = Counter(p.kind for s in self.states if not s.recoverable and (p := foremost(s)) is not None)
        parts = [_SAYS[kind].format(f"{gravest[kind]:,}") for kind in _SAYS if gravest[kind]]
        waiting, since = sum(any(_unanswered(s)) for s in self.states), self.unanswered_since
        if since is not None:
            parts.append(f"copies of {waiting:,} unanswered, since {day(since)} at the longest")
        return tuple(parts)

    @property
    def sentence(self) -> str:
        """What there is to know, in one."""
        return f"{self.headline}; {', '.join(self.troubles)}." if self.troubles else f"{self.headline}."

    @property
    def status(self) -> str:
        """``damaged``, ``failed`` (a drill), ``breached`` (an objective), ``partial`` (something unknown), ``ok``."""
        found = {TROUBLES[p.kind] for s in self.states for p in s.problems}
        if self.faults:
            found.add(DAMAGED)
        if self.conflicts or not self.states or self.recoverable < len(self.states):
            found.add(PARTIAL)
        return next((status for status in _STATUSES if status in found), OK)

    def summary(self) -> dict[str, Any]:
        """JSON-ready, without the datasets."""
        return {
            "repository": self.repository, "time": iso(self.time), "revision": self.revision,
            "sentence": self.sentence, "datasets": len(self.states), "recoverable": self.recoverable,
            "funnel": [level.to_dict() for level in self.funnel], "unanswered_since": iso(self.unanswered_since),
            "faults": list(self.faults), "conflicts": list(self.conflicts), "undeclared": list(self.undeclared),
            "status": self.status,
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, all of it."""
        return {**self.summary(), "datasets": [s.to_dict() for s in self.states]}


def status(repo: "Repository", *, time: datetime | None = None) -> Board:
    """What can be brought back, by what was declared, backed up, attested and drilled.

    ``time``: as of which evidence is new enough (default: now).  InvalidInput if nothing is declared; RoleRequired for
    a key that may not read; errors of the store.  What is damaged on the way stands in ``faults``.
    """
    now = time or clock.now()
    if now.tzinfo is None:
        raise InvalidInput("the time has no zone", hint="give one, like datetime.now(UTC)")
    register = read_register(repo)
    if register is None:
        raise InvalidInput("nothing is declared", hint="'snapvault register import snapvault.toml'")
    damage = list(register.damage)
    snapshots = _by_dataset(list_snapshots(repo.vault, on_problem=damage.append))
    proofs = standings(repo)
    facts = Facts(register, snapshots, _by_site(attestations(repo)), proofs, now)
    return board_of(repo.id, facts, [p.message for p in (*damage, *proofs.problems)])


def board_of(repository: str, facts: Facts, faults: Iterable[str] = ()) -> Board:
    """The board that facts come to.  ``repository``: its id."""
    register = facts.register
    undeclared = sorted(facts.snapshots.keys() - register.datasets.keys() - register.retired.keys())
    return Board(
        repository, facts.now, register.revision, tuple(sorted(facts.states(), key=_worst_first)),
        tuple(dict.fromkeys(faults)), register.conflicts, tuple(undeclared),
    )  # fmt: skip


def tone(state: DatasetState) -> str:
    """One of TONES: only what can be brought back may look fine."""
    if state.recoverable:
        return KEPT_NOT if state.problems else FINE
    return DARK if all(p.kind in _UNTOLD for p in state.problems) else DOWN


def foremost(state: DatasetState) -> Problem | None:
    """The problem to begin with: the gravest, and a copy that is owed last, since that is told apart."""
    return min(state.problems, key=lambda p: (p.kind == "unanswered", p.rank), default=None)


def reason(state: DatasetState) -> str:
    """The foremost problem, with its place."""
    first = foremost(state)
    if first is None:
        return ""
    return f"{first.why} (at {first.site})" if first.site and first.site not in first.why else first.why


def unanswered(state: DatasetState) -> list[tuple[str, datetime]]:
    """The sites that owe an answer, and since when."""
    return [(p.site, p.since) for p in _unanswered(state) if p.since is not None]


def _unanswered(state: DatasetState) -> Iterator[Problem]:
    return (p for p in state.problems if p.kind == "unanswered")


def _worst_first(state: DatasetState) -> tuple[Any, ...]:
    first = foremost(state)
    since = first.since.timestamp() if first is not None and first.since is not None else float("inf")
    rank = first.rank if first is not None else len(TROUBLES)
    return state.recoverable, rank, state.dataset.tier, since, state.dataset.name


def _by_dataset(snapshots: list[Snapshot]) -> Mapping[str, list[Snapshot]]:
    found = dict[str, list[Snapshot]]()
    for snapshot in reversed(snapshots):
        found.setdefault(snapshot.dataset, []).append(snapshot)
    return found


def _by_site(every: list[Attestation]) -> dict[str, Attested]:
    found = dict[str, list[Attestation]]()
    for attestation in every:
        found.setdefault(attestation.site, []).append(attestation)
    return {site: Attested.of(mine) for site, mine in found.items()}
