"""``snapvault restore``"""

import sys
from typing import Any

import click

import snapvault
from snapvault.cli.common import split_reference, status_code, stored_path, verb
from snapvault.cli.diff import change_line
from snapvault.cli.progress import long_operation
from snapvault.cli.settings import Settings
from snapvault.cli.text import human_seconds, human_size
from snapvault.cli.transfer import transfer_options
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.words import count


@click.command()
@click.argument("snapshot", metavar="SNAP[:/PATH]")
@click.option("-t", "--target", metavar="DIR|URL", help="Where to; what is there and the same is not written again.")
@click.option("--stdout", is_flag=True, help="Write the one file, or a tar of the folder, to standard output.")
@click.option("--include", metavar="PATTERN", multiple=True, help="Only what matches (gitignore's patterns).")
@click.option("--exclude", metavar="PATTERN", multiple=True, help="Leave out what matches.")
@click.option("--delete", is_flag=True, help="Remove from the target what is not in the snapshot.")
@click.option("--verify", is_flag=True, help="Read everything back and compare.")
@click.option("--numeric-owner", is_flag=True, help="Owners by number, whatever the names are here.")
@click.option("--no-sites", is_flag=True, help="Read at the repository alone, and at no other site that is known.")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would change, write nothing.")
@transfer_options
@verb
def restore(
    settings: Settings, /, snapshot: str, target: str | None, stdout: bool, no_sites: bool, **options: Any
) -> int:
    """Bring a snapshot, or a part of it, back.

    Absolute paths are recreated under the target; SNAP:/srv/orders puts what is inside that folder there.
    What is damaged or missing at the repository, or all if it does not answer, comes from the sites that are known
    ('snapvault site list').
    Exit code 3: restored, but not in everything (named); 20: stored data was damaged, lost paths are named.

    \b
    snapvault restore home@latest --target /tmp/back
    snapvault restore home@latest:/home/me/letter.odt --stdout > letter.odt
    """
    name, path = split_reference(snapshot)
    if stdout:
        return _to_stdout(settings, name, path, target, not no_sites, options)
    if target is None:
        raise InvalidInput("restore needs a place to write to", hint="give --target DIR, or --stdout")
    if target == "-":  # elsewhere that is standard output; nobody means a folder of that name
        raise InvalidInput("'-' is no target", hint="give --stdout, or --target ./- for a folder of that name")
    opened = settings.open("restore", anywhere=not no_sites)
    with opened as repository, long_operation(settings.out, limits=settings.limits()) as control:
        found = repository.snapshot(name)
        result = snapvault.restore(
            repository, found, target, path=stored_path([found], path), control=control,
            target_options=settings.options_for(target), **options,
        )  # fmt: skip
    if result.dry_run:
        for change in result.changes:
            settings.out.item(change.to_dict(), change_line(change))
    _show(settings, result)
    return status_code(result.status)


def _to_stdout(
    settings: Settings, name: str, path: str, target: str | None, anywhere: bool, options: dict[str, Any]
) -> int:
    for option in ("delete", "verify", "dry_run", "numeric_owner"):
        if options.pop(option):
            raise InvalidInput(f"--{option.replace('_', '-')} does not go with --stdout")
    if target is not None:
        raise InvalidInput("--target and --stdout do not go together", hint="give one of them")
    settings.out.data_on_stdout = True
    opened = settings.open("restore", anywhere=anywhere)
    with opened as repository, long_operation(settings.out, limits=settings.limits()) as control:
        found = repository.snapshot(name)
        path = stored_path([found], path)
        result = snapvault.restore(repository, found, sys.stdout.buffer, path=path, control=control, **options)
        sys.stdout.buffer.flush()
    _report(settings, result)
    if settings.out.as_json:
        settings.out.summary(_content(result))
    return status_code(result.status)


def _report(settings: Settings, r: snapvault.RestoreResult) -> None:
    settings.out.issues(r.lost, "lost", f"{count(len(r.lost), 'path')} lost, since stored data is damaged")
    settings.out.issues(r.issues, "incomplete", f"{count(len(r.issues), 'path')} not restored in everything")
    if any(place.lacking or place.silent for place in r.came_from):
        settings.out.note("\n".join(map(_place_line, r.came_from)))
    if r.unprivileged:
        settings.out.warning(f"root is needed for owner, device or attributes of {count(r.unprivileged, 'entry')}")


def _place_line(place: snapvault.ReadFrom) -> str:
    lacking = f"; {count(len(place.lacking), 'object')} missing or damaged there" if place.lacking else ""
    silent = f"; it did not answer: {place.silent}" if place.silent else ""
    return f"{human_size(place.bytes)} read at {place.place}{lacking}{silent}"


def _content(r: snapvault.RestoreResult) -> dict[str, Any]:
    return {**r.to_dict(), "issues": len(r.issues), "lost": len(r.lost), "changes": len(r.changes)}


def _show(settings: Settings, r: snapvault.RestoreResult) -> None:
    _report(settings, r)
    if r.dry_run:
        settings.out.summary(_content(r), [f"{count(len(r.changes), 'change')} would be made in {r.target}"])
        return
    lines = [
        f"Restored {r.snapshot[:8]}{', without what is lost,' if r.lost else ''} to {r.target} "
        f"in {human_seconds(r.seconds)}",
        f"files: {r.files_written:,} written ({human_size(r.bytes_written)}), "
        f"{r.files_same:,} were there ({human_size(r.bytes_same)}); "
        f"{count(r.folders, 'folder')}, {count(r.others, 'other entry')}",
    ]
    if r.removed:
        lines.append(f"{count(r.removed, 'entry')} removed")
    if r.verified:
        lines.append("everything was read back and is the same" if r.status == "ok" else "read back; see above")
    settings.out.summary(_content(r), lines)
