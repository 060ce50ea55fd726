"""Results of drills that nobody held, for tests of what is signed."""

from datetime import UTC, datetime, timedelta
from typing import Any

from snapvault import Dataset, DrillResult
from snapvault.assurance.outcome import FAIL, NOT_RUN, PASSED, Outcome
from snapvault.assurance.planted import ControlResult, Damage
from snapvault.assurance.results import STEPS

NOW = datetime.now(UTC).replace(microsecond=0)


def held(
    dataset: str = "orders",
    *,
    days_ago: float = 0,
    level: str = "full",
    value: str = "pass",
    site: str = "",
    **more: Any,
) -> DrillResult:
    """A drill that passed, failed or was not run."""
    began = NOW - timedelta(days=days_ago)
    steps = dict.fromkeys(STEPS[level], PASSED)
    if value in (FAIL, NOT_RUN):
        steps[STEPS[level][0]] = Outcome(value, "since the test says so")
    fields: dict[str, Any] = {
        "files": 3, "bytes": 4000, "times": {"open": 5, "restore": 1200, "total": 1300},
        "control": ControlResult(PASSED, "/srv/a", (Damage("packs/aa/bb", 17),), "restore", 3, "compare"),
    }  # fmt: skip
    return DrillResult(
        Dataset(dataset), site, "/srv/repo", level, began, began + timedelta(seconds=2), "here", steps, "seed",
        **{**fields, **more},
    )  # fmt: skip
