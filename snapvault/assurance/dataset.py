"""A declared dataset: what should exist, and what was promised of it (docs/guide/register.md)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from snapvault.operations.retention import Retention

LEVELS = ("structure", "sample", "full", "alive")  # of a drill, each more than the one before it


@dataclass(frozen=True, slots=True)
class Probe:
    """How to tell that what was restored is alive.  ``kind``: a name of ``assurance.probes``; ``options``: its own."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    timeout: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class DrillRule:
    """How often a dataset is brought back to prove it, and how far."""

    every: timedelta
    level: str = "alive"


@dataclass(frozen=True, slots=True)
class Dataset:
    """One row of the register, with what its group and the defaults say.  None: nothing was promised of that."""

    name: str
    sources: tuple[str, ...] = ()  # paths or fsspec URLs; empty: backed up by somebody else, under this name
    owner: str = ""
    tier: str = ""
    group: str = ""
    rpo: timedelta | None = None  # how old the newest snapshot may be
    rto: timedelta | None = None  # how long bringing it back may take
    sites: tuple[str, ...] = ()  # where copies are owed
    retention: Retention | None = None
    drill: DrillRule | None = None
    probe: Probe | None = None
    host: str = ""  # the machine whose paths the sources are; empty: any

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; spans are seconds, what nothing was promised of is null."""
        found = asdict(self)
        if self.retention is not None:
            found["retention"] |= {"within": _seconds(self.retention.within), "zone": str(self.retention.zone or "")}
        if self.drill is not None:
            found["drill"]["every"] = _seconds(self.drill.every)
        if self.probe is not None:
            found["probe"]["timeout"] = _seconds(self.probe.timeout)
        return {**found, "rpo": _seconds(self.rpo), "rto": _seconds(self.rto)}


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else int(span.total_seconds())
