"""A declared dataset: what should exist, and what was promised of it (docs/guide/register.md)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
