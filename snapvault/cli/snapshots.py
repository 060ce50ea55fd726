"""``snapvault snapshots``"""

from collections.abc import Sequence

import click

import snapvault
from snapvault.access.resolve import list_forgotten, list_snapshots
from snapvault.cli.common import status_code, verb
from snapvault.cli.progress import long_operation
from snapvault.cli.settings import Settings
from snapvault.cli.text import human_size, local_time, printable, table
from snapvault.cli.transfer import transfer_options
from snapvault.foundation.clock import time_of
from snapvault.foundation.errors import Damaged
from snapvault.foundation.words import count

HEADER = ("ID", "Time", "Dataset", "Host", "Written by", "Files", "Size", "Tags", "")


@click.group(invoke_without_command=True, short_help="List the snapshots; tag, hold and release them.")
@click.option("--dataset", metavar="NAME", help="Only those of this dataset.")
@click.option("--host", metavar="NAME", help="Only those of this host.")
@click.option("--forgotten", is_flag=True, help="Those that were forgotten and are still there.")
@verb
def snapshots(settings: Settings, dataset: str | None, host: str | None, forgotten: bool) -> int:
    """List the snapshots, oldest first.

    Times are local.  "partial" marks a snapshot that lacks files which could not be read.  Whose key wrote a snapshot
    is shown if it was not the same key for all of them: dataset, host and time are only what that key said.

    \b
    snapvault snapshots --dataset home
    snapvault snapshots hold home@latest
    """
    if click.get_current_context().invoked_subcommand is not None:
        return 0
    if forgotten:
        return _list_forgotten(settings, dataset, host)
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


@snapshots.command("tag")
@click.argument("snapshot", metavar="SNAP")
@click.argument("tags", metavar="TAG...", nargs=-1)
@click.option("--remove", metavar="TAG", multiple=True, help="Take this one away.")
@verb
def tag(settings: Settings, snapshot: str, tags: tuple[str, ...], remove: tuple[str, ...]) -> int:
    """Give a snapshot more tags, or take some away.

    \b
    snapvault snapshots tag home@latest release --remove draft
    """
    with settings.open("set_tags") as repository:
        return _tell(settings, snapvault.set_tags(repository, snapshot, add=tags, remove=remove))


@snapshots.command("hold")
@click.argument("snapshot", metavar="SNAP")
@verb
def hold(settings: Settings, snapshot: str) -> int:
    """Hold a snapshot: 'forget' refuses it until it is released."""
    with settings.open("set_hold") as repository:
        return _tell(settings, snapvault.set_hold(repository, snapshot))


@snapshots.command("release")
@click.argument("snapshot", metavar="SNAP")
@verb
def release(settings: Settings, snapshot: str) -> int:
    """Hold a snapshot no longer."""
    with settings.open("set_hold") as repository:
        return _tell(settings, snapvault.set_hold(repository, snapshot, held=False))


@snapshots.command("undelete")
@click.argument("snapshot", metavar="SNAP")
@transfer_options
@verb
def undelete(settings: Settings, snapshot: str) -> int:
    """Bring a forgotten snapshot back, as a new one with the same content.

    \b
    snapvault snapshots --forgotten
    snapvault snapshots undelete 3f2a91c0
    """
    with settings.open("undelete") as repository, long_operation(settings.out, limits=settings.limits()) as control:
        result = snapvault.undelete(repository, snapshot, control=control)
    text = f"Snapshot {result.snapshot[:8]} brings back {result.original[:8]}"
    lines = [f"{text}; {human_size(result.bytes_stored)} had to be stored again"]
    if result.lost:
        lines.append(
            f"{count(len(result.lost), 'path')} of it stay lost, as a repair noted: 'snapvault check' names them"
        )
    settings.out.summary({**result.to_dict(), "lost": len(result.lost)}, lines)
    return status_code(result.status)


def _list_forgotten(settings: Settings, dataset: str | None, host: str | None) -> int:
    with settings.open() as repository:
        found = [
            (s, time_of(until))
            for s, until in list_forgotten(repository.vault)
            if dataset in (None, s.dataset) and host in (None, s.host)
        ]
    for s, until in found if settings.out.as_json else ():
        settings.out.item({**s.to_dict(), "until": until.isoformat()}, "")
    rows = [(s.id[:8], local_time(s.time), s.dataset, printable(s.host), local_time(until)) for s, until in found]
    lines = table(("ID", "Time", "Dataset", "Host", "Not removed before"), rows) if rows else []
    settings.out.summary({"snapshots": len(found), "status": "ok"}, [*lines, count(len(found), "forgotten snapshot")])
    return 0


def _tell(settings: Settings, result: "snapvault.NoteResult") -> int:
    tags = f", tags: {', '.join(result.tags)}" if result.tags else ""
    text = f"{result.snapshot[:8]} is {'held' if result.held else 'not held'}{tags}"
    settings.out.summary(result.to_dict(), [text])
    return 0


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
        human_size(counts.get("bytes", 0)), printable(",".join(s.tags)), ", ".join(_state(s)),
    )  # fmt: skip


def _state(s: snapvault.Snapshot) -> list[str]:
    marks = (("held", s.held), ("partial", s.partial), ("damaged", bool(s.lost)))
    return [word for word, holds in marks if holds]
