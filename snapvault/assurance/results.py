"""What a drill found: frozen, with ``status`` and ``to_dict()``, which is what becomes evidence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from snapvault.access.snapshot import Snapshot
from snapvault.assurance.dataset import Dataset
from snapvault.assurance.marks import BREACHED, FAILED, FRESHNESS, RECOVERY
from snapvault.assurance.outcome import FAIL, NOT_RUN, PASSED, Outcome
from snapvault.assurance.planted import ControlResult
from snapvault.assurance.probing import ProbeResult
from snapvault.operations.results import DAMAGED, OK, PARTIAL, Result

# What a level takes to pass; what was promised of age and time comes to that.
STEPS = {
    "structure": ("structure", "control"),
    "sample": ("restored", "compared", "control"),
    "full": ("restored", "compared", "control"),
    "alive": ("restored", "compared", "probe", "control"),
}
OBJECTIVES = (FRESHNESS, RECOVERY)
PROBLEMS_MAX = 20  # sentences that are kept


@dataclass(frozen=True, slots=True)
class DrillResult(Result):
    """One drill of one dataset at one place.  Times are milliseconds, unless they are datetimes."""

    dataset: Dataset
    site: str  # "": the repository itself
    place: str  # its address, without credentials
    level: str
    began: datetime
    ended: datetime
    host: str  # where it ran
    steps: Mapping[str, Outcome]
    seed: str
    snapshot: Snapshot | None = None
    files: int = 0  # restored
    bytes: int = 0
    blobs: int = 0  # of the level structure: that were looked up
    part: int | None = None  # of the level sample
    parts: int | None = None
    lost: int = 0  # paths whose stored data is damaged
    times: Mapping[str, int] = field(default_factory=dict)
    control: ControlResult | None = None
    probe: ProbeResult | None = None
    problems: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    exit_code: int = 0  # of the error that ended it, if one did

    @property
    def needed(self) -> tuple[str, ...]:
        """The steps that the level takes."""
        return STEPS[self.level]

    @property
    def outcome(self) -> Outcome:
        """The worst of all steps that the level takes; an objective counts only if it is breached."""
        needed = [self.steps.get(s, Outcome(NOT_RUN, f"the step '{s}' was not reached")) for s in self.needed]
        every = [*needed, *(self.steps[s] for s in OBJECTIVES if s in self.steps and self.steps[s].value == FAIL)]
        for value in (FAIL, NOT_RUN):
            for outcome in every:
                if outcome.value == value:
                    return outcome
        return PASSED

    @property
    def breached(self) -> tuple[str, ...]:
        """The objectives that were not met."""
        return tuple(s for s in OBJECTIVES if s in self.steps and self.steps[s].value == FAIL)

    @property
    def status(self) -> str:
        """``ok``, ``partial`` (something was not run), ``breached`` (an objective), ``failed``, ``damaged`` (both)."""
        failed = any(self.steps[s].value == FAIL for s in self.needed if s in self.steps)
        if failed:
            return DAMAGED if self.lost else FAILED
        if self.breached:
            return BREACHED
        return OK if self.outcome.value == PASSED.value else PARTIAL

    @property
    def age(self) -> int | None:
        """Seconds that the snapshot was old when the drill began."""
        return None if self.snapshot is None else round((self.began - self.snapshot.time).total_seconds())

    @property
    def recovery(self) -> int | None:
        """How long it took to bring it back: opening, restoring, and until the probe had its answer."""
        return recovery_of(self.times)

    def to_dict(self) -> dict[str, Any]:
        """As docs/format/evidence.md has it: text, whole numbers, true, false and null alone."""
        d = self.dataset
        return {
            "dataset": d.name, "owner": d.owner, "tier": d.tier, "site": self.site, "place": self.place,
            "level": self.level, "began": stamp(self.began), "ended": stamp(self.ended), "host": self.host,
            **self.outcome.to_dict(), "steps": {name: o.to_dict() for name, o in self.steps.items()},
            "snapshot": None if self.snapshot is None else _snapshot(self.snapshot),
            "files": self.files, "bytes": self.bytes, "blobs": self.blobs, "lost": self.lost,
            "sample": None if self.part is None else {"part": self.part, "parts": self.parts}, "seed": self.seed,
            "times": dict(self.times), "recovery": self.recovery, "age": self.age,
            "rpo": None if d.rpo is None else round(d.rpo.total_seconds()),
            "rto": None if d.rto is None else round(d.rto.total_seconds()),
            "control": None if self.control is None else self.control.to_dict(), "probe": self._probe(),
            "problems": list(self.problems), "versions": dict(self.versions),
        }  # fmt: skip

    def _probe(self) -> dict[str, Any] | None:
        declared = self.dataset.probe
        if declared is None or self.probe is None:
            return None
        return {"kind": declared.kind, "options": dict(declared.options), **self.probe.to_dict()}


def recovery_of(times: Mapping[str, int]) -> int | None:
    """Of the milliseconds that steps took, those until a dataset was of use again; None if it was not restored."""
    return times["open"] + times["restore"] + times.get("probe", 0) if "restore" in times else None


def _snapshot(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "id": snapshot.id, "time": stamp(snapshot.time), "host": snapshot.host, "holder": snapshot.holder,
        "partial": snapshot.partial,
    }  # fmt: skip


def stamp(time: datetime) -> str:
    """A time as the evidence has it: UTC, to the millisecond."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def harmless(value: Any) -> Any:
    """The same as any JSON reader takes it: bytes that are no UTF-8 are escaped, and there are no fractions."""
    if isinstance(value, Mapping):
        return {harmless(str(k)): harmless(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [harmless(v) for v in value]
    if value is None or isinstance(value, bool | int):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()
