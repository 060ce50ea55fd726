"""Who plays which part: the kind of every dataset, and what becomes of it, drawn by a seed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from snapvault.demo.datasets import STALE, Kind
from snapvault.foundation.errors import InvalidInput

# How many of a kind there are for each of the others; whatever is not listed: EACH.
EACH, RARE = 5, {"visits": 1, "services": 1}


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of the incident, each a part of the one before it."""

    declared: int
    backed_up: int
    readable: int
    alive: int

    def check(self) -> None:
        """InvalidInput unless they can be told."""
        if not self.declared >= self.backed_up >= self.readable >= self.alive >= 0 or not self.declared:
            raise InvalidInput(
                f"of {self.declared} declared, {self.backed_up} backed up, {self.readable} readable and {self.alive} "
                "alive, one is more than the one before it, or there is nothing to tell of"
            )


@dataclass(frozen=True, slots=True)
class Part:
    """One dataset, and what becomes of it in the incident."""

    name: str
    kind: Kind
    backed_up: bool = False
    readable: bool = False
    cause: str = ""  # why it does not come to life, if it can be read

    @property
    def stale(self) -> bool:
        """Nothing is wrong with it but its age."""
        return self.cause == STALE


def cast(numbers: Numbers, kinds: Sequence[Kind], seed: str) -> list[Part]:
    """All datasets; the same seed gives the same ones.  InvalidInput for numbers that contradict one another."""
    numbers.check()
    chance = Random(seed)
    dealt = list(islice(_dealt(kinds, chance), numbers.declared))
    names = _names(dealt)
    readable = set(chance.sample(range(numbers.backed_up), numbers.readable))
    alive = set(chance.sample(sorted(readable), numbers.alive))
    causes, parts = Counter[str](), list[Part]()
    for at, (name, kind) in enumerate(zip(names, dealt, strict=True)):
        cause = _cause(kind, causes, chance) if at in readable - alive else ""
        parts.append(Part(name, kind, at < numbers.backed_up, at in readable, cause))
    chance.shuffle(parts)
    return parts


def _dealt(kinds: Sequence[Kind], chance: Random) -> Iterator[Kind]:
    """Like a pack of cards that is shuffled each time it is used up: few datasets are of many kinds, too."""
    pack = [kind for kind in kinds for _ in range(RARE.get(kind.name, EACH))]
    while True:
        yield from chance.sample(pack, len(pack))


def _names(dealt: Sequence[Kind]) -> list[str]:
    numbers, found = Counter[str](), list[str]()
    for kind in dealt:
        numbers[kind.name] += 1
        found.append(f"{kind.name}-{numbers[kind.name]:03}")
    return found


def _cause(kind: Kind, causes: Counter[str], chance: Random) -> str:
    """One that was rare until now, of those that such a dataset can die of."""
    least = min(causes[cause] for cause in kind.causes)
    cause = chance.choice([cause for cause in kind.causes if causes[cause] == least])
    causes[cause] += 1
    return cause


def of_kinds(parts: Sequence[Part]) -> Mapping[str, int]:
    """How many there are of each kind."""
    return Counter(part.kind.what for part in parts)
