"""Facts for boards, without a repository: what was declared, backed up, attested and drilled, told in a few words."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from snapvault.assurance.coverage import DatasetState, Facts
from snapvault.assurance.dataset import Dataset, DrillRule, Probe
from snapvault.assurance.declaration import Declaration
from snapvault.assurance.evidence import Evidence, Standing, Standings
from snapvault.assurance.ledger import Fold, Row
from snapvault.assurance.register import Register
from snapvault.assurance.results import STEPS
from snapvault.assurance.verdicts import Attested
from snapvault.format.attestation import HASHED, PRESENT
from snapvault.format.evidence import Headline, Planted, Seen, Step
from snapvault.operations.attest import Attestation
from snapvault.report.board import Board, board_of

NOW = datetime(2026, 11, 27, 9, 30, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@dataclass
class Fleet:
    """Everything that a board is made of.  Ages are days before NOW."""

    datasets: dict[str, Dataset] = field(default_factory=dict)
    declared: dict[tuple[str, str], datetime] = field(default_factory=dict)
    snapshots: dict[str, list[Any]] = field(default_factory=dict)
    attestations: list[Attestation] = field(default_factory=list)
    folds: dict[tuple[str, str], Fold] = field(default_factory=dict)

    def declare(self, name: str, age: float = 200, **options: Any) -> None:
        """With all objectives and one site, unless told otherwise."""
        usual = {
            "sources": (f"/srv/{name}",), "rpo": DAY, "rto": 4 * HOUR, "sites": ("second",),
            "drill": DrillRule(30 * DAY), "probe": Probe("sqlite"),
        }  # fmt: skip
        self.datasets[name] = Dataset(name, **{**usual, **options})
        for site in ("", *self.datasets[name].sites):
            self.declared[name, site] = NOW - age * DAY

    def back_up(self, name: str, age: float = 0.2, *, holder: str = "owner", **options: Any) -> str:
        """The id of a snapshot."""
        sid = f"{len(self.snapshots):04x}{name}{age}"
        snapshot = SimpleNamespace(
            id=sid, dataset=name, time=NOW - age * DAY, holder=holder, slot=SimpleNamespace(holder=holder.encode()),
            **{"partial": False, "lost": (), **options},
        )  # fmt: skip
        self.snapshots.setdefault(name, []).append(snapshot)
        self.snapshots[name].sort(key=lambda s: s.time, reverse=True)
        return sid

    def attest(self, site: str, snapshots: list[str], age: float = 0.1, *, read: bool = False, bad: int = 0) -> None:
        """What the site says that it has."""
        level = HASHED if read else PRESENT
        said = Attestation(site, site, level, NOW - age * DAY, tuple(snapshots), 10, 1000, bad, ())
        self.attestations.append(said)

    def drill(
        self, name: str, site: str = "", age: float = 1, *, level: str = "alive", why: str = "it did not",
        seconds: float = 60, snapshot: str = "0" * 32, partial: bool = False, **steps: str,
    ) -> None:  # fmt: skip
        """Steps that are not named pass; one that fails, or was not run, gives ``why``."""
        outcomes = {**dict.fromkeys((*STEPS[level], "freshness", "recovery"), "pass"), **steps}
        wrong = next((o for o in ("fail", "not-run") if o in outcomes.values()), "pass")
        head = Headline(
            name, site, level, wrong, "" if wrong == "pass" else why, NOW - age * DAY,
            Seen(snapshot, NOW - age * DAY, partial), "seed",
            {step: Step(o, "" if o == "pass" else why) for step, o in outcomes.items()}, 3, 3000, 3600,
            round(seconds * 1000), Planted("pass", "the tag"),
        )  # fmt: skip
        row = Row(bytes(32), 1, 0, None, head, b"{}")  # type: ignore[arg-type]
        self.folds.setdefault((name, site), Fold()).add(row)

    def thrive(self, name: str, **options: Any) -> str:
        """Nothing is wrong with it, once ``attest`` speaks of the snapshot, too."""
        self.declare(name, **options)
        self.drill(name)
        return self.back_up(name)

    def facts(self, **register: Any) -> Facts:
        """As ``status`` gathers them."""
        declaration = Declaration({}, self.datasets)
        declared = Register(
            self.datasets, **{"retired": {}, "revision": 7, "time": NOW - 200 * DAY, "by": "owner",
                              "declaration": declaration, "since": self.declared, **register},
        )  # fmt: skip
        newest = sorted(self.attestations, key=lambda a: a.time, reverse=True)
        sites = {site: Attested.of([a for a in newest if a.site == site]) for site in {a.site for a in newest}}
        found = {key: _standing(key, fold) for key, fold in self.folds.items()}
        return Facts(declared, self.snapshots, sites, Standings(found, 1, 1, ()), NOW)

    def board(self, *faults: str, **register: Any) -> Board:
        """What is shown of it."""
        return board_of("ab" * 16, self.facts(**register), faults)

    def state(self, name: str) -> DatasetState:
        """Of one dataset."""
        return next(s for s in self.facts().states() if s.dataset.name == name)


def _standing(key: tuple[str, str], fold: Fold) -> Standing:
    def shown(row: Row | None) -> Evidence | None:
        return None if row is None else Evidence(row.headline, "driller", row.headline.began, "evidence/00", 1, b"{}")

    passed = {level: e for level, row in fold.passed.items() if (e := shown(row)) is not None}
    return Standing(*key, shown(fold.last), shown(fold.failed), passed, fold.drills, {}, None)


def incident(declared: int = 800, backed_up: int = 200, readable: int = 190, alive: int = 7) -> Fleet:
    """All asked for replicas in April; few were backed up, fewer can be read, next to none lives."""
    fleet, owners = Fleet(), ("Interior", "Health", "Transport", "Justice", "Land registry")
    asked = (NOW - datetime(2026, 4, 2, tzinfo=UTC)) / DAY
    for i in range(declared):
        name = f"{('register', 'orders', 'archive', 'maps', 'payroll')[i % 5]}-{i:03}"
        fleet.declare(name, asked, owner=owners[i % 5], tier=str(1 + i % 3))
        if i >= backed_up:
            continue
        fleet.back_up(name, 0.1 + 0.8 * i / backed_up)
        if i >= readable:
            fleet.drill(name, age=2, restored="fail", why=f"2 paths lost, since stored data is damaged: /srv/{name}/a")
        elif i >= alive:
            causes = ("the dump ends in the middle of a statement", "the file index.db that it names is missing",
                      "what was restored is encrypted", "nobody answers at the address it asks for")  # fmt: skip
            fleet.drill(name, age=3, probe="fail", why=f"the probe said no: {causes[i % 4]}")
        else:
            fleet.drill(name, age=3)
    return fleet


def usual(datasets: int = 800) -> Fleet:
    """Nearly all is well, and a few things are wrong, each in its way."""
    fleet, owners = Fleet(), ("Ada Lovelace", "Grace Hopper", "Radia Perlman", "Barbara Liskov")
    there, kinds = list[str](), ("orders", "ledger", "photos", "wiki", "mail")
    for i in range(datasets):
        name = f"{kinds[i % 5]}-{i:03}"
        options: dict[str, Any] = {"owner": owners[i % 4], "tier": str(1 + i % 3)}
        if i % 160 == 7:
            fleet.declare(name, **options)
            continue
        fleet.declare(name, **options | ({"probe": None} if i % 100 == 31 else {}))
        sid = fleet.back_up(name, 1.5 if i % 130 == 9 else 0.2)
        if i % 90 != 11:
            there.append(sid)
        if i % 100 == 31:
            fleet.drill(name, "second", 4, level="full")
        elif i % 120 == 17:
            fleet.drill(name, age=1, probe="fail", why="the probe said no: row count of orders is 0, was 81,204")
        elif i % 140 != 23:
            fleet.drill(name, "second" if i % 2 and sid in there else "", age=1 + i % 29)
    fleet.attest("second", there, read=True)
    return fleet
