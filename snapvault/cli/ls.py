"""``snapvault ls``"""

import stat
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import click

import snapvault
from snapvault.cli.common import split_reference, stored_path, verb
from snapvault.cli.settings import Settings
from snapvault.cli.text import human_size, local_time, printable
from snapvault.foundation.words import count

GROUPS = {"files": "file", "folders": "folder", "others": "other entry"}


@click.command()
@click.argument("snapshot", metavar="SNAP[:/PATH]")
@click.option("-l", "--long", is_flag=True, help="Mode, owner, size and time too.")
@click.option("-R", "--recursive", is_flag=True, help="All that is below, too.")
@click.option("--find", metavar="PATTERN", help="Only names like PATTERN ('*.sql'), at any depth; with a '/', paths.")
@click.option("--stats", is_flag=True, help="Only how many entries there are, and how big.")
@verb
def ls(settings: Settings, snapshot: str, long: bool, recursive: bool, find: str | None, stats: bool) -> int:
    """List what a snapshot holds.

    SNAP is the beginning of an id (4 digits or more), DATASET@latest, DATASET@TIME, or latest.  Without PATH or -R only
    the top of the snapshot is listed: it holds absolute paths.

    \b
    snapvault ls home@latest:/home/me --long
    snapvault ls 3f2a --find '*.sql'
    """
    name, path = split_reference(snapshot)
    seen: Counter[str] = Counter()
    with settings.open(anywhere=True) as repository:
        found = repository.snapshot(name)
        for entry in _entries(found, stored_path([found], path), recursive or stats, find):
            seen[_group(entry)] += 1
            seen["bytes"] += entry.size if entry.kind == "file" else 0
            if not stats:
                settings.out.item(entry.to_dict(), _long(entry) if long else printable(entry.path))
    summary = {k: seen[k] for k in ("files", "folders", "others", "bytes")}
    words = [count(seen[group], noun) for group, noun in GROUPS.items()]
    shown = [f"{', '.join(words)}, {human_size(seen['bytes'])}"] if stats else []
    settings.out.summary({**summary, "status": "ok"}, shown)
    if seen["folders"] and not (recursive or stats or find) and on_terminal():
        settings.out.note("(-R lists what is in the folders, too)")
    return 0


def on_terminal() -> bool:
    """Whether a person reads the listing."""
    return sys.stdout.isatty()


def _entries(snapshot: snapvault.Snapshot, path: str, recursive: bool, find: str | None) -> Iterator[snapvault.Entry]:
    for entry in snapshot.ls(path, recursive=recursive or find is not None):
        if find is None or fnmatchcase(entry.path if "/" in find else entry.name, find):
            yield entry


def _group(entry: snapvault.Entry) -> str:
    return {"file": "files", "folder": "folders"}.get(entry.kind, "others")


def _long(entry: snapvault.Entry) -> str:
    node = entry.node
    kinds = {"file": stat.S_IFREG, "folder": stat.S_IFDIR, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO}
    kinds |= {"socket": stat.S_IFSOCK, "character device": stat.S_IFCHR, "block device": stat.S_IFBLK}
    mode = stat.filemode(kinds[entry.kind] | stat.S_IMODE(node.mode))
    owner = f"{printable(entry.user or str(node.uid))}:{printable(entry.group or str(node.gid))}"
    arrow = f" -> {printable(entry.to_dict()['target'])}" if entry.kind == "symlink" else ""
    mark = "  (changed while it was read)" if node.changed else ""
    return f"{mode}  {owner:<17}  {entry.size:>12,}  {_time(node.mtime_ns)}  {printable(entry.path)}{arrow}{mark}"


def _time(nanoseconds: int) -> str:
    try:
        return local_time(datetime.fromtimestamp(nanoseconds // 10**9, UTC))
    except (ValueError, OverflowError, OSError):  # a year beyond 9999, which file systems allow
        return f"@{nanoseconds // 10**9}"
