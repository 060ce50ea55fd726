"""``snapvault backup``"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, BinaryIO, cast

import click

import snapvault
from snapvault.cli.backup_all import back_up_all
from snapvault.cli.common import given, status_code, verb
from snapvault.cli.progress import long_operation
from snapvault.cli.settings import Settings
from snapvault.cli.stdin import StandardInput
from snapvault.cli.text import human_seconds, human_size, parse_size
from snapvault.cli.transfer import transfer_options
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.words import count
from snapvault.operations.sources import Source
from snapvault.source.selection import read_patterns


@click.command(short_help="Store files, a stream or a command's output as a new snapshot.")
@click.argument("paths", metavar="[PATH|URL]...", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--dataset", "datasets", metavar="NAME", multiple=True,
    help="What this is a backup of; letters, digits and ._-.  With --all: this one alone; may be repeated.",
)  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Back up all datasets of the register that have sources here.")
@click.option("--register", metavar="FILE", help="With --all: go by FILE (TOML or JSON) instead.")
@click.option("--stdin", is_flag=True, help="Store standard input as one file.")
@click.option("--stdin-name", metavar="N", help="The name of that file, or of a command's output.")
@click.option("--from-command", is_flag=True, help="PATHs after -- are a command; store its output (no shell).")
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave out; gitignore's patterns, from each PATH.")
@click.option("--exclude-file", metavar="F", multiple=True, help="Patterns, one a line.")
@click.option("--files-from", metavar="F", multiple=True, help="Paths to store, one a line or NUL-ended.")
@click.option("--one-file-system", is_flag=True, help="Stay on the file system of each PATH.")
@click.option("--exclude-caches", is_flag=True, help="Leave out folders with a CACHEDIR.TAG.")
@click.option("--exclude-larger-than", metavar="SIZE", help="Leave out files above SIZE (10M, 1.5GiB).")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Mark the snapshot.")
@click.option("--time", metavar="TIME", help="Time of the snapshot instead of now (2026-11-24T10:00).")
@click.option("--host", metavar="NAME", help="Instead of this machine's name.")
@click.option("--parent", metavar="SNAP", help="Compare with this snapshot instead of the newest one.")
@click.option("--force-read", is_flag=True, help="Read files that seem unchanged, too.")
@click.option("-n", "--dry-run", is_flag=True, help="Read and count, store nothing.")
@transfer_options
@verb
def backup(
    settings: Settings, /, paths: tuple[str, ...], datasets: tuple[str, ...], everything: bool, register: str | None,
    stdin: bool, stdin_name: str | None, from_command: bool, exclude_larger_than: str | None, time: str | None,
    exclude: tuple[str, ...], exclude_file: tuple[str, ...], **options: Any,
) -> int:  # fmt: skip
    """Store files, folders, fsspec URLs, a stream or a command's output as a new snapshot.

    Exit code 3: saved, but some files could not be read; they are named.  Turn a dump's own compression off:
    snapvault compresses, and finds what two dumps have in common.

    \b
    snapvault backup --dataset home --exclude '*.tmp' /home/me
    snapvault backup --dataset orders --stdin-name orders.dump --from-command -- \\
      pg_dump --format=custom --compress=0 orders
    snapvault backup --all
    """
    if exclude_larger_than is not None:
        options["exclude_larger_than"] = parse_size(exclude_larger_than)
    if time is not None:
        options["time"] = _aware(time)
    options["exclude"] = [*exclude, *read_patterns(exclude_file)]
    if everything:
        if paths or given("stdin", "stdin_name", "from_command", "files_from", "parent"):
            raise InvalidInput("--all takes its sources from the register", hint="leave out paths and the like")
        return back_up_all(settings, datasets, register, **options)
    if len(datasets) != 1 or register is not None:
        raise InvalidInput("a backup needs one --dataset NAME, or --all", hint="name what this is a backup of")
    sources = _sources(paths, stdin, stdin_name, from_command)
    options["source_options"] = _source_options(settings, paths)
    with settings.open("backup") as repository, long_operation(settings.out, limits=settings.limits()) as control:
        result = snapvault.backup(
            repository, *sources, dataset=datasets[0], stream_name=stdin_name or "stdin", control=control, **options
        )
    _show(settings, result)
    return status_code(result.status)


def _sources(paths: Sequence[str], stdin: bool, name: str | None, from_command: bool) -> list[Source]:
    if stdin and (paths or from_command):
        raise InvalidInput("--stdin takes no paths and no command", hint="make two snapshots")
    if name is not None and not (stdin or from_command):
        raise InvalidInput("--stdin-name goes with --stdin or --from-command")
    if stdin:
        return [cast(BinaryIO, StandardInput())]
    if from_command:
        if not paths:
            raise InvalidInput("--from-command needs a command", hint="write it at the end, after --")
        return [snapvault.Command(tuple(paths), name or "")]
    return list(paths)


def _source_options(settings: Settings, paths: Sequence[str]) -> dict[str, Any] | None:
    found = [o for o in (settings.options_for(p) for p in paths if "://" in p) if o is not None]
    if any(o != found[0] for o in found):
        raise InvalidInput("these URLs need different storage options", hint="make one snapshot for each of them")
    return found[0] if found else None


def _aware(text: str) -> datetime:
    """A time without a zone is local."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as e:
        raise InvalidInput(f"{text!r} is not a time", hint="write it like 2026-11-24T10:00 or 2026-11-24T10:00Z") from e


def _show(settings: Settings, r: snapvault.BackupResult) -> None:
    for text in r.warnings:
        settings.out.warning(text)
    settings.out.issues(r.issues, "skipped", f"{count(len(r.issues), 'path')} left out, or changed while read")
    content = {**r.to_dict(), "issues": len(r.issues)}
    made = f"Snapshot {r.snapshot[:8]} of {r.dataset}" if r.snapshot else f"Dry run of {r.dataset}"
    kept = "" if r.snapshot else "would be "
    lines = [
        f"{made}{', partial' if r.issues else ''} ({f'compared with {r.parent[:8]}' if r.parent else 'no parent'})",
        f"files: {r.files_new:,} new, {r.files_changed:,} changed, {r.files_unmodified:,} unmodified; "
        f"{count(r.folders, 'folder')}, {count(r.others, 'other entry')}",
        f"bytes: {human_size(r.bytes_total)} in all, {human_size(r.bytes_read)} read, "
        f"{human_size(r.bytes_new)} {kept}new"
        + (f", {human_size(r.bytes_stored)} stored" if r.snapshot else "")
        + f", in {human_seconds(r.seconds)}",
    ]
    if r.vanished:
        lines.append(f"{count(r.vanished, 'entry')} vanished before being opened")
    settings.out.summary(content, lines)
