"""Three values: what was not tested is neither good nor bad."""

from dataclasses import dataclass

PASS, FAIL, NOT_RUN = "pass", "fail", "not-run"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one step of a drill went, and why, unless it passed."""

    value: str
    why: str = ""

    def to_dict(self) -> dict[str, str]:
        """JSON-ready."""
        return {"outcome": self.value, "why": self.why}


PASSED = Outcome(PASS)
