"""The incident, and how it could have ended: what a board says of hundreds of datasets, three times."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import time_machine
import tomli_w

import snapvault
from snapvault.assurance.marks import LADDER
from snapvault.assurance.probes import NotRun
from snapvault.assurance.probes.postgres import throw_away
from snapvault.cli.drill import SCRATCH
from snapvault.demo import damage, trees
from snapvault.demo.cast import Numbers, Part, cast
from snapvault.demo.datasets import kinds
from snapvault.demo.display import Display
from snapvault.foundation.ahead import ahead
from snapvault.foundation.errors import SnapvaultError, SourceError
from snapvault.foundation.words import count

if TYPE_CHECKING:
    from snapvault.assurance.probes.postgres import Cluster

SECOND = "second"  # what the other site is called
LETTER = (4, 12)  # month and day on which copies were asked for in writing
LONG_AGO = timedelta(days=60)  # at least, at the time of the incident
PROMISED = {"rpo": "7d", "rto": "4h", "sites": [SECOND], "drill": {"every": "30d", "level": "alive"}}


@dataclass(frozen=True, slots=True)
class Act:
    """An act, and what the board says at its end."""

    title: str
    told: tuple[str, ...]  # what was done
    board: dict[str, Any]
    promised: dict[str, int]  # what is to come out, by step

    @property
    def funnel(self) -> dict[str, int]:
        """How many datasets are good at each step, by the board."""
        return {level["step"]: level["datasets"] for level in self.board["funnel"]}

    def alive_at(self, site: str) -> int:
        """How many were brought to life from this site, by the board."""
        places = (p for d in self.board["datasets"] for p in d["places"] if p["site"] == site)
        return sum(place["steps"]["alive"]["value"] == "good" for place in places)

    @property
    def good(self) -> bool:
        """Whether all came out as promised."""
        return all(self.funnel[step] == number for step, number in self.promised.items())


@dataclass(slots=True)
class Figures:
    """What bringing everything back took."""

    seconds: float = 0.0  # from opening the second site until the last file was there
    restores: dict[str, float] = field(default_factory=dict)  # seconds, by dataset
    files: int = 0
    bytes: int = 0
    different: list[str] = field(default_factory=list)  # datasets that are not what they were

    @property
    def slowest(self) -> str:
        """The dataset that took longest."""
        return max(self.restores, key=self.restores.__getitem__)


class Incident:
    """The three acts."""

    def __init__(self, place: Path, numbers: Numbers, seed: str, display: Display) -> None:
        """``place``: a folder that is new or empty.  InvalidInput for numbers that contradict one another."""
        numbers.check()
        self._place, self._numbers, self._seed, self._display = place, numbers, seed, display
        self._first, self._second, self._sources = place / "first", place / SECOND, place / "sources"
        self._key_file, self._password = place / "recovery.key", secrets.token_urlsafe()
        self.parts: list[Part] = []
        self.left_out: list[str] = []  # kinds that cannot be made here, and why
        self.figures = Figures()
        self.repository: snapvault.Repository  # whose board was shown last

    def acts(self) -> Iterator[Act]:
        """Play them one by one.  SnapvaultError or OSError if something stops that."""
        with self._server() as cluster:
            self._make(cluster)
            with self._init() as self.repository:
                yield self._incident(self.repository)
                yield self._in_order(self.repository)
        manifests = self._manifests()
        told = self._encrypt()
        began, key = time.monotonic(), snapvault.KeyFile(self._key_file)
        with snapvault.open(self._second, keys=key, cache=self._place / "new-cache") as self.repository:
            self._bring_back(self.repository, began)
            self._compare(manifests)
            yield self._return(self.repository, told)

    # -- before --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _server(self) -> "Iterator[Cluster | None]":
        """PostgreSQL's server, to make dumps with; None if it is not installed."""
        with ExitStack() as stack:
            cluster = None
            try:
                cluster = stack.enter_context(throw_away())
            except NotRun as e:
                self.left_out.append(f"PostgreSQL dumps: {e}")
            yield cluster

    def _make(self, cluster: "Cluster | None") -> None:
        """All datasets, as they were when the backups were made."""
        known = kinds(cluster, self.left_out)
        self.parts = cast(self._numbers, known, self._seed)
        for part in self._each("make datasets", self.parts):
            self._write(part, part.cause)

    def _write(self, part: Part, cause: str = "") -> None:
        part.kind.write(self._source(part), f"{self._seed}/{part.name}", cause)

    def _source(self, part: Part) -> Path:
        return self._sources / part.name

    def _each(self, what: str, parts: Sequence[Part]) -> Iterator[Part]:
        """Show how far it is."""
        with self._display.step(what, len(parts)) as advance:
            for part in parts:
                yield part
                advance()

    def _init(self) -> snapvault.Repository:
        """In April, everything was declared, and copies at the second site were asked for."""
        with time_machine.travel(letter(datetime.now(UTC))):
            made = snapvault.init(
                self._first, password=self._password, cache=self._place / "cache", state=self._place / "state"
            )
            self._key_file.touch(mode=0o600)
            self._key_file.write_text(made.recovery_key + "\n")
            snapvault.import_register(made.repository, self._declaration())
        return made.repository

    def _declaration(self) -> snapvault.Declaration:
        """What snapvault.toml says: a group for each kind, with its probe."""
        path = self._place / "snapvault.toml"
        content = {
            "schema": 1, "defaults": PROMISED,
            "groups": {part.kind.name: {"probe": part.kind.probe} for part in self.parts},
            "datasets": {
                part.name: {"source": str(self._source(part)), "group": part.kind.name} for part in self.parts
            },
        }  # fmt: skip
        path.write_text(tomli_w.dumps(content))
        return snapvault.read_declaration(path)

    # -- act one -------------------------------------------------------------------------------------------------------

    def _incident(self, repo: snapvault.Repository) -> Act:
        """Some were backed up, damage comes, and nobody had tried to bring anything back."""
        kept = [part for part in self.parts if part.backed_up]
        asked = letter(datetime.now(UTC))
        whole, others = ([p for p in kept if p.readable == readable] for readable in (True, False))
        self._backup(repo, f"back up on {asked:%d %B}", whole, asked)
        before = set(self._packs())
        self._backup(repo, "and those that will be hit", others, asked)
        hit = sorted(set(self._packs()) - before)
        self._backup(repo, "back up again today", [part for part in kept if not part.stale])
        for pack in hit:
            damage.encrypt_in_place(pack)
        self._drill(repo, "", kept)
        n = self._numbers
        promised = dict(zip(LADDER, (n.declared, n.backed_up, 0, n.readable, n.readable, n.alive), strict=True))
        told = (
            f"declared, and copies asked for, on {asked:%d %B %Y}",
            f"{count(len(hit), 'object')} of the store damaged",
        )
        return Act("Act one: the incident", told, self._board(repo), promised)

    def _backup(self, repo: snapvault.Repository, what: str, parts: Sequence[Part], at: datetime | None = None) -> None:
        for part in self._each(what, parts):
            snapvault.backup(repo, self._source(part), dataset=part.name, time=at)

    def _packs(self) -> Iterable[Path]:
        return damage.files(self._first / "packs")

    # -- act two -------------------------------------------------------------------------------------------------------

    def _in_order(self, repo: snapvault.Repository) -> Act:
        """Whoever owns the data mends it; then everything is done that was declared."""
        for part in self._each("mend what was wrong", [part for part in self.parts if part.cause]):
            shutil.rmtree(self._source(part))
            self._write(part)
        repaired = snapvault.plan_repair(repo).execute()
        self._backup_all(repo)
        for _ in self._each("copy to the second site, and attest", self.parts[:1]):
            copied = snapvault.replicate(os.fspath(self._first), os.fspath(self._second))
            self._attest()
        self._drill(repo, "", self.parts)
        snapvault.replicate(os.fspath(self._first), os.fspath(self._second))  # the evidence, too
        told = (
            f"{count(repaired.packs_salvaged, 'pack')} repaired, {copied.objects:,} objects copied to the second site",
        )
        return Act("Act two: everything in order", told, self._board(repo), self._all())

    def _backup_all(self, repo: snapvault.Repository) -> None:
        datasets = list(self._declared(repo).values())
        with self._display.step("back up all", len(datasets)) as advance:
            for done in snapvault.backup_all(repo, datasets):
                if done.error is not None:
                    raise done.error
                advance()

    def _attest(self) -> None:
        """What the second site holds, every object read; known at both sites."""
        with snapvault.open(self._second, password=self._password) as there:
            snapvault.attest(there, SECOND, read=True)
        snapvault.exchange_attestations(snapvault.Site(str(self._first)), snapvault.Site(str(self._second)))

    # -- act three -----------------------------------------------------------------------------------------------------

    def _manifests(self) -> dict[str, trees.Manifest]:
        """Mode, time and SHA-256 of every file, before anything happens to them."""
        return {
            part.name: trees.manifest(self._source(part)) for part in self._each("write down what is there", self.parts)
        }

    def _encrypt(self) -> tuple[str, ...]:
        """The whole first site: the store, and the data that it was made of."""
        program: list[str | Path] = [sys.executable, "-m", damage.__name__, self._first, self._sources]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SourceError(f"the script that encrypts in place failed: {done.stderr.strip()[-300:]}")
        found = json.loads(done.stdout)
        try:
            snapvault.open(self._first, password=self._password).close()
        except SnapvaultError as e:
            told = f"the first site encrypted in place: {found['files']:,} files, {found['bytes']:,} bytes"
            return told, f"it says now: {e.message}"
        raise SourceError(f"{self._first} can be opened, though all of it was overwritten")

    def _bring_back(self, repo: snapvault.Repository, began: float) -> None:
        """Everything, with the recovery key alone, on a machine that has nothing."""
        for part in self._each("bring back with the recovery key", self.parts):
            at = time.monotonic()
            done = snapvault.restore(repo, f"{part.name}@latest", self._place / "restored")
            self.figures.restores[part.name] = time.monotonic() - at
            self.figures.files += done.files_written
            self.figures.bytes += done.bytes_written
        self.figures.seconds = time.monotonic() - began

    def _compare(self, manifests: dict[str, trees.Manifest]) -> None:
        for part in self._each("compare bit for bit", self.parts):
            back = self._place / "restored" / self._source(part).relative_to("/")
            if trees.manifest(back) != manifests[part.name]:
                self.figures.different.append(part.name)

    def _return(self, repo: snapvault.Repository, told: tuple[str, ...]) -> Act:
        """The second site carries on alone."""
        snapvault.promote(repo)
        self._drill(repo, SECOND, self.parts)
        snapvault.attest(repo, SECOND, read=True)
        return Act("Act three: the first site is lost", told, self._board(repo), self._all())

    # -- in several acts -----------------------------------------------------------------------------------------------

    def _declared(self, repo: snapvault.Repository) -> dict[str, snapvault.Dataset]:
        register = snapvault.read_register(repo)
        assert register is not None
        return dict(register.datasets)

    def _drill(self, repo: snapvault.Repository, site: str, parts: Sequence[Part]) -> None:
        """Bring them back at a scratch place, and ask whether they are alive; sign what was found."""
        declared, where = self._declared(repo), f" from the {site} site" if site else ""
        with (
            self._display.step(f"drill{where}", len(parts)) as advance,
            snapvault.DrillGround(repo, site=site, scratch=Path(SCRATCH)) as ground,
            snapvault.EvidenceWriter(repo) as evidence,
        ):
            datasets = [declared[part.name] for part in parts]
            for result in ahead(lambda d: ground.drill(d, "alive"), datasets, len(os.sched_getaffinity(0))):
                evidence.add(result)
                advance()

    def _board(self, repo: snapvault.Repository) -> dict[str, Any]:
        return snapvault.status(repo).to_dict()

    def _all(self) -> dict[str, int]:
        return dict.fromkeys(LADDER, self._numbers.declared)


def letter(now: datetime) -> datetime:
    """When copies were asked for: in the last April that is long ago."""
    found = now.replace(month=LETTER[0], day=LETTER[1], hour=9, minute=0, second=0, microsecond=0)
    return found if now - found >= LONG_AGO else found.replace(year=found.year - 1)
