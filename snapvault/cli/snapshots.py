"""``snapvault snapshots``"""

from collections.abc import Sequence

import click

import snapvault
from snapvault.access.resolve import list_snapshots
from snapvault.cli.common import verb
from snapvault.cli.settings import Settings
from snapvault.cli.text import human_size, local_time, printable, table
from snapvault.foundation.errors import Damaged
from snapvault.foundation.words import count

HEADER = ("ID", "Time", "Dataset", "Host", "Written by", "Files", "Size", "Tags", "")


@click.command()
@click.option("--dataset", metavar="NAME", help="Only those of this dataset.")
@click.option("--host", metavar="NAME", help="Only those of this host.")
@verb
def snapshots(settings: Settings, dataset: str | None, host: str | None) -> int:
    """List the snapshots, oldest first.

    Times are local.  "partial" marks a snapshot that lacks files which could not be read.  Whose key wrote a snapshot
    is shown if it was not the same key for all of them: dataset, host and time are only what that key said.

    \b
    snapvault snapshots --dataset home
    """
    problems: list[Damaged] = []
    with settings.open() as repository:
        found = list_snapshots(repository.vault, dataset=dataset, host=host, on_problem=problems.append)
    lines = _table(found) if found else []
    if settings.out.as_json:
        for snapshot in found:
            settings.out.item(snapshot.to_dict(), "")
    for problem in problems:
        settings.out.error(problem)
    status = "damaged" if problems else "ok"
    summary = {"snapshots": len(found), "damaged": len(problems), "status": status}
    settings.out.summary(summary, [*lines, count(len(found), "snapshot")])
    return 20 if problems else 0


def _table(found: list[snapvault.Snapshot]) -> list[str]:
    rows: list[Sequence[str]] = [HEADER, *(_row(s) for s in found)]
    right = (5, 6)
    if len({s.slot.holder for s in found}) == 1:
        rows = [(*row[:4], *row[5:]) for row in rows]
        right = (4, 5)
    return table(rows[0], rows[1:], right=right)


def _row(s: snapvault.Snapshot) -> tuple[str, ...]:
    counts = s.details.counts
    return (
        s.id[:8], local_time(s.time), s.dataset, printable(s.host), printable(s.holder), f"{counts.get('files', 0):,}",
        human_size(counts.get("bytes", 0)), printable(",".join(s.tags)), "partial" if s.partial else "",
    )  # fmt: skip
