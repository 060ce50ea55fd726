"""``snapvault drill``"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import snapvault
from snapvault.cli.common import gravest, status_code, status_of, verb
from snapvault.cli.declared import declared, declared_if_any
from snapvault.cli.progress import long_operation
from snapvault.cli.settings import Settings
from snapvault.cli.site import place_of
from snapvault.cli.text import human_seconds, human_size, parse_size, printable
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.words import count

if TYPE_CHECKING:
    from snapvault.assurance.dataset import Dataset
    from snapvault.assurance.drill import DrillGround
    from snapvault.assurance.evidence import Standings
    from snapvault.assurance.results import DrillResult
    from snapvault.foundation.events import Control

SCRATCH = "/var/tmp"  # survives no longer than it has to, and is on a disk
LEVELS = click.Choice(("structure", "sample", "full", "alive"))


@click.command(short_help="Bring datasets back, and see if they are alive.")
@click.argument("names", metavar="[DATASET...]", nargs=-1)
@click.option("--due", is_flag=True, help="All declared datasets whose last good drill is older than their rule says.")
@click.option("--site", metavar="NAME", default="", help="Bring them back from this site.")
@click.option("--level", type=LEVELS, help="How far; else what is declared, or full.")
@click.option("--seed", metavar="TEXT", help="Draw samples and damage by this.")
@click.option("--scratch", metavar="DIR", help=f"Where to restore to, for a while.  [SNAPVAULT_SCRATCH_DIR, {SCRATCH}]")
@click.option("--quota", metavar="SIZE", help="Use no more of that disk; else nine tenths of what is free.")
@click.option("--jobs", type=click.IntRange(1), default=1, metavar="N", help="So many drills at once.")
@verb
def drill(
    settings: Settings, /, names: tuple[str, ...], due: bool, site: str, level: str | None, seed: str | None,
    scratch: str | None, quota: str | None, jobs: int,
) -> int:  # fmt: skip
    """Bring datasets back at a scratch place, see whether they are alive, and sign what was found.

    structure: everything that is needed is there; sample: a tenth of the files, another one each time; full: all of it,
    compared with the record; alive: the declared probe, too.  Each drill damages something of its own on the way, and
    fails if that is not noticed.

    Exit code 21: too old, or it took too long; 22: it did not come back to life; 20: stored data is damaged; 3:
    something that should tell was not run; 1: it could not be held, as where the disk or --quota does not suffice.

    \b
    snapvault drill orders
    snapvault drill --due --site second
    """
    if due == bool(names):
        raise InvalidInput("name datasets to drill, or give --due", hint="'snapvault drill --help' shows both")
    most = None if quota is None else parse_size(quota)
    place = Path(scratch or os.environ.get("SNAPVAULT_SCRATCH_DIR") or SCRATCH)
    access = settings.access()
    with (
        settings.open_with(access) as home,
        long_operation(settings.out, limits=settings.limits()) as control,
    ):
        home.require_signing()
        known, register = _declared(settings, home, needed=due)
        with _opened(settings, home, site, access) as there, _ground(there, site, place, most, control) as ground:
            standings = _standings(settings, home)
            wanted = _due(known, standings, site) if due else [_named(known, name, ground) for name in names]
            found = list(_hold(settings, home, ground, standings, wanted, level, seed, jobs))
            for problem in ground.problems:
                settings.out.error(problem)
            if ground.problems:  # one of them may have been the newest of what was drilled
                register = "damaged"
    return _sum_up(settings, found, register)


def _declared(settings: Settings, home: "snapvault.Repository", *, needed: bool) -> tuple[Mapping[str, "Dataset"], str]:
    """What is declared, and the status of the register."""
    register = declared(settings, home) if needed else declared_if_any(settings, home)
    return ({}, "ok") if register is None else (register.datasets, register.status)


@contextmanager
def _opened(
    settings: Settings, home: "snapvault.Repository", site: str, access: Mapping[str, Any]
) -> Iterator["snapvault.Repository"]:
    """The repository as it is at a site; ``home`` without one."""
    if not site:
        yield home
        return
    url = place_of(settings, site)
    with snapvault.open(url, **{**access, "storage_options": settings.options_for(url)}) as there:
        if there.id != home.id:
            raise InvalidInput(f"{url} holds another repository than {home.url}")
        if _is_same(url, settings.url()):
            raise InvalidInput(f"the site {site} is the repository itself: {url}", hint="'snapvault site list'")
        yield there


def _is_same(place: str, other: str) -> bool:
    """Whether a drill at the one would say nothing of another place."""
    with suppress(OSError):
        return os.path.samefile(place, other)
    return place == other


def _ground(
    there: "snapvault.Repository", site: str, scratch: Path, quota: int | None, control: "Control"
) -> "DrillGround":
    from snapvault.assurance.drill import DrillGround

    return DrillGround(there, site=site, scratch=scratch, quota=quota, control=control)


def _standings(settings: Settings, home: "snapvault.Repository") -> "Standings":
    from snapvault.assurance.evidence import standings

    found = standings(home)
    for problem in found.problems:
        settings.out.warning(problem.message)
    return found


def _named(known: Mapping[str, "Dataset"], name: str, ground: "DrillGround") -> "Dataset":
    """A dataset as it is declared; one that is not, but was backed up, can be drilled as well."""
    from snapvault.assurance.dataset import Dataset

    if name not in known and not ground.snapshots(name)[0]:
        raise InvalidInput(f"the dataset {name!r} is neither declared nor was it ever backed up")
    return known.get(name) or Dataset(name)


def _due(known: Mapping[str, "Dataset"], standings: "Standings", site: str) -> list["Dataset"]:
    from snapvault.assurance.due import due

    return due(known.values(), standings, site, datetime.now(UTC))


def _hold(
    settings: Settings, home: "snapvault.Repository", ground: "DrillGround", standings: "Standings",
    wanted: Sequence["Dataset"], level: str | None, seed: str | None, jobs: int,
) -> Iterator["DrillResult"]:  # fmt: skip
    """Drill one after the other, or several at once; each is told when it is done, and signed with others."""
    from snapvault.assurance.drill import level_of
    from snapvault.assurance.evidence import EvidenceWriter
    from snapvault.foundation.ahead import ahead

    def one(dataset: "Dataset") -> "DrillResult":
        standing = standings.of.get((dataset.name, ground.site))
        chosen = seed or ground.seed_of(dataset)
        before = None if standing is None else standing.before(chosen)
        return ground.drill(dataset, level or level_of(dataset), seed=chosen, before=before)

    with EvidenceWriter(home) as evidence:
        for result in map(one, wanted) if jobs == 1 else ahead(one, wanted, jobs):
            evidence.add(result)
            settings.out.item({**result.to_dict(), "status": result.status}, "\n".join(_lines(result)))
            yield result


def _lines(r: "DrillResult") -> list[str]:
    """One drill, for people."""
    words = {"pass": "passed", "fail": "FAILED", "not-run": "NOT RUN"}
    at, part = f" at {r.site}" if r.site else "", f", part {r.part} of {r.parts}" if r.part is not None else ""
    what = f"{r.blobs:,} blobs" if r.level == "structure" else f"{count(r.files, 'file')}, {human_size(r.bytes)}"
    took = f" in {human_seconds(r.recovery / 1000)}" if r.recovery is not None else ""
    lines = [f"{printable(r.dataset.name)}{at}: {words[r.outcome.value]} ({r.level}{part}): {what}{took}"]
    lines += [f"  {step}: {o.why}" for step, o in r.steps.items() if o.why and (o.value == "fail" or step in r.needed)]
    if r.part is not None and r.dataset.drill is not None and r.parts is not None:
        lines.append(f"  every file is drilled within {(r.dataset.drill.every * r.parts).days} days")
    if r.snapshot is not None and r.snapshot.partial:
        lines.append(f"  the snapshot {r.snapshot.id[:8]} is partial: some files could not be read when it was made")
    return lines


def _sum_up(settings: Settings, found: Sequence["DrillResult"], register: str) -> int:
    outcomes = Counter(r.outcome.value for r in found)
    code = gravest((status_code(register), *(r.exit_code or status_code(r.status) for r in found)))
    parts = {"passed": outcomes["pass"], "failed": outcomes["fail"], "not_run": outcomes["not-run"]}
    words = ", ".join(f"{n:,} {word.replace('_', ' ')}" for word, n in parts.items() if n)
    line = f"{count(len(found), 'drill')}: {words}" if found else "no drill is due"
    breached = sum(bool(r.breached) for r in found)
    settings.out.summary({"drills": len(found), **parts, "breached": breached, "status": status_of(code)}, [line])
    return code
