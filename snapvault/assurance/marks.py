"""What is said of one step of a dataset's ladder: good, bad or unknown, by which evidence, and what is the trouble."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from snapvault.operations.results import DAMAGED, PARTIAL

GOOD, BAD, UNKNOWN = "good", "bad", "unknown"
DECLARED, BACKED_UP, REPLICATED, INTACT, RESTORED, ALIVE = LADDER = (
    "declared", "backed-up", "replicated", "intact", "restored", "alive",
)  # fmt: skip
FRESHNESS, RECOVERY = "freshness", "recovery"  # objectives: RPO, RTO
BREACHED, FAILED = "breached", "failed"  # further statuses
# Kinds of trouble, the gravest first, and the status that each comes to.
TROUBLES: Mapping[str, str] = {
    "never-backed-up": BREACHED,
    "lost": DAMAGED,  # a repair found that parts of every snapshot are lost
    "incomplete": BREACHED,  # not all of it could be read, whenever it was backed up
    "damaged": FAILED,  # a drill did not get it back whole
    "dead": FAILED,  # it did, and the probe said no; or the drill could not have failed
    "stale": BREACHED,
    "slow": BREACHED,
    "unanswered": BREACHED,  # a copy is owed, and nobody says that it is there
    "overdue": BREACHED,
    "untested": PARTIAL,
}


@dataclass(frozen=True, slots=True)
class Mark:
    """One value, and what it rests on."""

    value: str  # GOOD, BAD, UNKNOWN
    why: str = ""  # unless it is GOOD
    at: datetime | None = None  # of the evidence
    by: str = ""  # the key that signed it
    trouble: str = ""  # one of TROUBLES, if it is one
    since: datetime | None = None  # that there is this trouble

    @property
    def good(self) -> bool:
        """Nothing else is."""
        return self.value == GOOD

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"value": self.value, "why": self.why, "at": iso(self.at), "by": self.by}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to be done about a dataset."""

    kind: str  # one of TROUBLES
    why: str
    site: str  # "": the repository itself
    since: datetime | None
    command: str  # to run next

    @property
    def rank(self) -> int:
        """0: the gravest."""
        return list(TROUBLES).index(self.kind)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "kind": self.kind, "why": self.why, "site": self.site, "since": iso(self.since), "command": self.command,
        }  # fmt: skip


def iso(time: datetime | None) -> str | None:
    """As JSON has it."""
    return None if time is None else time.isoformat()


def day(time: datetime) -> str:
    """As a sentence has it."""
    return time.strftime("%Y-%m-%d")
