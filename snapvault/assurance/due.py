"""Which datasets are to be drilled now: those whose last good drill is older than their rule says, or is missing."""

from collections.abc import Iterable
from datetime import datetime

from snapvault.assurance.dataset import LEVELS, Dataset
from snapvault.assurance.evidence import Standing, Standings
from snapvault.assurance.outcome import FAIL, PASS


def due(datasets: Iterable[Dataset], standings: Standings, site: str, now: datetime) -> list[Dataset]:
    """Of those with a rule, at one site ("": the repository itself); those that were never drilled first.

    A drill that failed, or could not be run, does not put off the next one.
    """
    waiting = []
    for dataset in datasets:
        if dataset.drill is None:
            continue
        last = last_good(standings.of.get((dataset.name, site)), dataset.drill.level)
        if last is None or now - last >= dataset.drill.every:
            waiting.append((last is not None, last, dataset))
    return [dataset for _, _, dataset in sorted(waiting, key=lambda w: (w[0], w[1] or now, w[2].name))]


def last_good(standing: Standing | None, level: str) -> datetime | None:
    """When a drill of this level, or of one that is more, passed the last time, if none failed after it."""
    if standing is None:
        return None
    enough = LEVELS[LEVELS.index(level) :]
    told = (e for e in standing.told if e.outcome == FAIL or (e.outcome == PASS and e.level in enough and e.of_whole))
    newest = next(told, None)
    return None if newest is None or newest.outcome == FAIL else newest.began
