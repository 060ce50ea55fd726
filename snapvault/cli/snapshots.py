"""``snapvault snapshots``"""

import click

import snapvault
from snapvault.access.resolve import list_snapshots
from snapvault.cli.common import verb
from snapvault.cli.settings import Settings
from snapvault.cli.text import count, human_size, local_time, printable, table
from snapvault.foundation.errors import Damaged

HEADER = ("ID", "Time", "Dataset", "Host", "Files", "Size", "Tags", "")


@click.command()
@click.option("--dataset", metavar="NAME", help="Only those of this dataset.")
@click.option("--host", metavar="NAME", help="Only those of this host.")
@verb
def snapshots(settings: Settings, dataset: str | None, host: str | None) -> int:
    """List the snapshots, oldest first.

    Times are local.  "partial" marks a snapshot that lacks files which could not be read.

    \b
    snapvault snapshots --dataset home
    """
    problems: list[Damaged] = []
    with settings.open() as repository:
        found = list_snapshots(repository.vault, dataset=dataset, host=host, on_problem=problems.append)
    lines = table(HEADER, [_row(s) for s in found], right=(4, 5)) if found else []
    if settings.out.as_json:
        for snapshot in found:
            settings.out.item(snapshot.to_dict(), "")
    for problem in problems:
        settings.out.error(problem)
    status = "damaged" if problems else "ok"
    summary = {"snapshots": len(found), "damaged": len(problems), "status": status}
    settings.out.summary(summary, [*lines, count(len(found), "snapshot")])
    return 20 if problems else 0


def _row(s: snapvault.Snapshot) -> tuple[str, ...]:
    counts = s.details.counts
    return (
        s.id[:8], local_time(s.time), s.dataset, printable(s.host), f"{counts.get('files', 0):,}",
        human_size(counts.get("bytes", 0)), printable(",".join(s.tags)), "partial" if s.partial else "",
    )  # fmt: skip
