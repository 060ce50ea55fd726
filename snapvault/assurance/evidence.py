"""Evidence: what drills found, signed and chained, for those who may read (docs/format/evidence.md)."""

import json
import logging
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

from snapvault.assurance.drill import Before
from snapvault.assurance.ledger import Fold, Ledger, Row, rows_of
from snapvault.assurance.outcome import FAIL
from snapvault.assurance.results import DrillResult, harmless
from snapvault.format import names
from snapvault.format.evidence import Headline, encode_evidence
from snapvault.foundation.clock import time_of
from snapvault.foundation.errors import Damaged
from snapvault.operations.results import DAMAGED, OK, Finding, Result
from snapvault.repository.cache import Cache
from snapvault.repository.chain import Link
from snapvault.repository.repository import Vault

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

log = logging.getLogger("snapvault")

AT_ONCE = 500  # results in a record: far below what an object may have
WAIT = 300.0  # seconds that a result may wait for others


@dataclass(frozen=True, slots=True)
class Evidence:
    """One result of a drill, and who signed it when."""

    head: Headline
    by: str  # the name of the key
    signed: datetime
    record: str  # the object that it stands in
    number: int  # the place of that in the chain
    text: bytes = field(repr=False)

    @property
    def dataset(self) -> str:
        """Which dataset was drilled."""
        return self.head.dataset

    @property
    def site(self) -> str:
        """Where; "": in the repository itself."""
        return self.head.site

    @property
    def level(self) -> str:
        """How far: structure, sample, full, alive."""
        return self.head.level

    @property
    def outcome(self) -> str:
        """``pass``, ``fail`` or ``not-run``."""
        return self.head.outcome

    @property
    def of_whole(self) -> bool:
        """Whether the snapshot held all of the dataset: what could not be read was not brought back, either."""
        return self.head.snapshot is None or not self.head.snapshot.partial

    @property
    def began(self) -> datetime:
        """When the drill began."""
        return self.head.began

    @property
    def result(self) -> dict[str, Any]:
        """All that was found (docs/format/evidence.md)."""
        return dict(json.loads(self.text))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        signed = {"by": self.by, "signed": self.signed.isoformat(), "record": self.record, "number": self.number}
        return {**self.result, **signed}


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a dataset stands at one site, by the newest evidence of each kind."""

    dataset: str
    site: str
    last: Evidence | None
    failed: Evidence | None
    passed: Mapping[str, Evidence]  # by level
    drills: int  # that passed or failed
    samples: Mapping[str, int]  # of these, of the level sample, by seed
    newest: datetime | None  # the time of the newest snapshot that a drill has seen here

    @property
    def told(self) -> list[Evidence]:
        """What is kept, the newest word first; a failure is newer than a pass that stood in the chain before it.

        Else a clock that was set back would let a dataset stand that does not come back any more.
        """
        passed, others = list(self.passed.values()), (self.failed, self.last)

        def time(e: Evidence) -> tuple[datetime, bool]:
            before = [p.began for p in passed if e.outcome == FAIL and p.number < e.number]
            return max([e.began, *before]), e.outcome == FAIL

        return sorted([*passed, *(e for e in others if e is not None)], key=time, reverse=True)

    def before(self, seed: str) -> Before:
        """What the next drill has to know."""
        return Before(self.drills, self.samples.get(seed, 0), self.newest)


@dataclass(frozen=True, slots=True)
class Standings:
    """Of all datasets that were drilled."""

    of: Mapping[tuple[str, str], Standing]  # dataset and site
    records: int
    results: int
    problems: tuple[Damaged, ...]  # records that are damaged, missing, or by somebody who may not


@dataclass(frozen=True, slots=True)
class EvidenceReport(Result):
    """What a verification read."""

    records: int
    results: int
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def status(self) -> str:
        """``ok`` or ``damaged``."""
        return DAMAGED if self.findings else OK


def standings(repo: "Repository") -> Standings:
    """Where every dataset stands; reads only what came since the last time.  RoleRequired, errors of the store."""
    ledger = Ledger(repo.vault)
    ledger.update()
    ledger.pin()
    return _standings(repo.vault, ledger)


def record_evidence(repo: "Repository", results: Sequence[DrillResult]) -> list[Evidence]:
    """Sign what drills found, and keep it in this repository; durable when this returns.

    ``repo``: where evidence is kept, which need not be the place that was drilled.  RoleRequired for those who may
    not read, and for the recovery key alone, which cannot sign; errors of the store.
    """
    vault = repo.vault
    vault.require_current()
    ledger, found = Ledger(vault), list[Evidence]()
    ledger.update()
    for at in range(0, len(results), AT_ONCE):
        body = encode_evidence([harmless(r.to_dict()) for r in results[at : at + AT_ONCE]])
        link = vault.evidence.append(body, ledger.ends())
        ledger.add(link)
        found += shown(vault, link)
    return found


class EvidenceWriter:
    """Signs results as they come, several in a record, and what is left when the block ends, however it ends."""

    def __init__(self, repo: "Repository") -> None:
        self._repo, self._waiting, self._since = repo, list[DrillResult](), 0.0

    def add(self, result: DrillResult) -> None:
        """Take one; errors as of ``record_evidence``."""
        self._since = self._since if self._waiting else clock.monotonic()
        self._waiting.append(result)
        if len(self._waiting) >= AT_ONCE or clock.monotonic() - self._since >= WAIT:
            self._sign()

    def _sign(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            record_evidence(self._repo, waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sign()


def evidence(
    repo: "Repository", *, dataset: str | None = None, on_problem: Callable[[Damaged], object] | None = None
) -> Iterator[Evidence]:
    """All results that count, newest record first.  RoleRequired, errors of the store.

    ``on_problem`` is told what is damaged or missing; without it, a warning is logged.
    """
    vault = repo.vault
    for link in newest_first(vault, on_problem or (lambda problem: log.warning("%s", problem))):
        yield from (e for e in reversed(shown(vault, link)) if dataset in (None, e.dataset))


def newest_first(vault: Vault, on_problem: Callable[[Damaged], object]) -> Iterator[Link]:
    """The records that count and say something, one by one."""
    ledger = Ledger(vault)
    ledger.update()
    for problem in ledger.problems:
        on_problem(problem)
    wanted = ledger.table.known.keys() - ledger.table.mute.keys()
    sizes = {n: s for n, s in vault.evidence.listed().items() if names.content_digest(n) in wanted}
    # Opened twice, from the cache mostly: all of them at once may be more than memory should hold.
    order = list[tuple[int, int, str]]()
    for known in vault.evidence.each(sizes):
        if isinstance(known, Link):
            order.append((known.record.time, known.number, known.name))
        else:
            on_problem(known)
    newest = {name: sizes[name] for _, _, name in sorted(order, reverse=True)}
    yield from (link for link in vault.evidence.each(newest) if isinstance(link, Link))


def verify_evidence(repo: "Repository") -> EvidenceReport:
    """Read every record anew, past all caches: signatures, links, contents.  RoleRequired, errors of the store."""
    began = clock.monotonic()
    ledger = Ledger(repo.vault.cold(Cache(None)))
    ledger.update()
    findings = tuple(Finding(problem.message, problem.affected) for problem in ledger.problems)
    return EvidenceReport(len(ledger.table.known), ledger.table.results, findings, clock.monotonic() - began)


def _standings(vault: Vault, ledger: Ledger) -> Standings:
    found = {key: _standing(vault, key, fold) for key, fold in ledger.table.folds.items()}
    return Standings(found, len(ledger.table.known), ledger.table.results, tuple(ledger.problems))


def _standing(vault: Vault, key: tuple[str, str], fold: Fold) -> Standing:
    last, failed = (None if row is None else _of(vault, row) for row in (fold.last, fold.failed))
    passed = {level: _of(vault, row) for level, row in fold.passed.items()}
    return Standing(*key, last, failed, passed, fold.drills, dict(fold.samples), fold.newest)


def shown(vault: Vault, link: Link) -> list[Evidence]:
    """The results in a record; FormatError."""
    return [_of(vault, row) for row in rows_of(link)]


def _of(vault: Vault, row: Row) -> Evidence:
    return Evidence(
        row.headline, vault.ring.name_of(row.holder), time_of(row.time),
        names.EVIDENCE + row.record.hex(), row.number, row.text,
    )  # fmt: skip
