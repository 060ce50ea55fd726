"""``snapvault evidence``"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snapvault.cli.common import common_options, status_code, verb
from snapvault.cli.settings import Settings
from snapvault.cli.text import human_seconds, local_time, printable, table
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.words import count

if TYPE_CHECKING:
    from snapvault.assurance.evidence import Evidence

HEADER = ("Held", "Dataset", "Site", "Level", "Outcome", "Data of", "Back in", "By", "Record")


@click.group(no_args_is_help=True, short_help="What drills found: list, verify, export.")
@common_options
def evidence() -> None:
    """What drills found, as it was signed."""


@evidence.command("list")
@click.argument("dataset", metavar="[DATASET]", required=False)
@click.option("--last", is_flag=True, help="Of each dataset and site the last drill alone.")
@verb
def list_(settings: Settings, dataset: str | None, last: bool) -> int:
    """List what drills found, the newest first.

    \b
    snapvault evidence list orders
    snapvault evidence list --last
    """
    from snapvault.assurance import evidence as module

    with settings.open() as repository:
        standings = module.standings(repository)
        problems = {p.message: p for p in standings.problems}
        known = (s.last for s in standings.of.values() if s.last is not None and dataset in (None, s.dataset))
        every = module.evidence(repository, dataset=dataset, on_problem=lambda p: problems.setdefault(p.message, p))
        found = sorted(known, key=lambda e: e.began, reverse=True) if last else list(every)
    if settings.out.as_json:
        for item in found:
            settings.out.item(item.to_dict(), "")
    for problem in problems.values():
        settings.out.error(problem)
    status = "damaged" if problems else "ok"
    lines = table(HEADER, [_row(e) for e in found], right=(6,)) if found else []
    content = {"results": len(found), "records": standings.records, "problems": len(problems)}
    settings.out.summary({**content, "status": status}, [*lines, count(len(found), "result")])
    return status_code(status)


def _row(e: "Evidence") -> tuple[str, ...]:
    took, data = e.head.recovery, e.head.snapshot
    return (
        local_time(e.began), printable(e.dataset), printable(e.site) or "-", e.level, e.outcome,
        local_time(data.time) if data else "-", "-" if took is None else human_seconds(took / 1000),
        printable(e.by), str(e.number),
    )  # fmt: skip


@evidence.command()
@verb
def verify(settings: Settings) -> int:
    """Read all evidence anew: whether it is signed by somebody who may, and no record was changed or left out.

    Exit code 20: something is wrong, and named.
    """
    from snapvault.assurance.evidence import verify_evidence

    with settings.open() as repository:
        report = verify_evidence(repository)
    for finding in report.findings:
        settings.out.item({"message": finding.message, "objects": finding.objects}, finding.message)
    said = "all are signed, and none is missing" if report.status == "ok" else "see above"
    line = f"{count(report.records, 'record')} with {count(report.results, 'result')}: {said}"
    settings.out.summary({**report.to_dict(), "findings": len(report.findings)}, [line])
    return status_code(report.status)


@evidence.command()
@click.argument("file", metavar="FILE.json|FILE.html")
@click.option("--dataset", metavar="NAME", help="Show only records with a result of this dataset.")
@verb
def export(settings: Settings, file: str, dataset: str | None) -> int:
    """Write the evidence for somebody who has no key.  Exit code 20: some of it is damaged or missing, and not in it.

    JSON: with all that it takes to verify it, by docs/verify_evidence.py and the public keys.  HTML: one page, to be
    read or printed.

    \b
    snapvault evidence export evidence.json
    snapvault evidence export orders.html --dataset orders
    """
    from snapvault.assurance.export import export_evidence
    from snapvault.report.evidence_page import write_page

    writers = {".json": export_evidence, ".html": write_page}
    writer = writers.get(Path(file).suffix)
    if writer is None:
        raise InvalidInput(f"{file!r} ends neither in .json nor in .html")
    part = f"{file}.part"
    with settings.open() as repository:
        with open(part, "w", encoding="utf-8") as f:
            done = writer(repository, f.write, dataset=dataset)
        os.replace(part, file)
    for problem in done.problems:
        settings.out.error(problem)
    status, content = "damaged" if done.problems else "ok", {"file": file, "records": done.records}
    content |= {"disclosed": done.disclosed, "results": done.results, "problems": len(done.problems)}
    line = f"{file}: {count(done.results, 'result')} in {count(done.disclosed, 'record')} of {done.records:,}"
    settings.out.summary({**content, "status": status}, [line])
    return status_code(status)
