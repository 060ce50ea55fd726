"""What is declared against what is there: the first two steps of the ladder, and where they part."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from snapvault.assurance.dataset import Dataset
from snapvault.assurance.fleet import elsewhere, missing_sources

NEVER_BACKED_UP, UNDECLARED, NO_SOURCE, DROPPED = KINDS = "never-backed-up", "undeclared", "no-source", "dropped"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Something in which the register and the world differ."""

    kind: str  # one of KINDS
    dataset: str
    message: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def compare(
    declared: Mapping[str, Dataset], before: Iterable[str], retired: Iterable[str], backed_up: Iterable[str], host: str
) -> Iterator[Mismatch]:
    """``before``: what is declared until ``declared`` is imported.  ``backed_up``: the datasets of all snapshots.

    ``host``: this machine, on which sources are looked for.
    """
    there, dropped = set(backed_up), set(before) - declared.keys()
    for name, dataset in declared.items():
        if name not in there:
            yield Mismatch(NEVER_BACKED_UP, name, "declared, and never backed up")
        for source in () if elsewhere(dataset, host) else missing_sources(dataset):
            yield Mismatch(NO_SOURCE, name, f"its source {source} does not exist on this machine")
    for name in sorted(dropped):
        yield Mismatch(DROPPED, name, "declared until now; it has to be retired before this can be imported")
    for name in sorted(there - declared.keys() - dropped - set(retired)):
        yield Mismatch(UNDECLARED, name, "backed up, and never declared")
