"""``snapvault diff``"""

from collections import Counter

import click

import snapvault
from snapvault.cli.common import stored_path, verb
from snapvault.cli.settings import Settings
from snapvault.cli.text import human_size, printable
from snapvault.foundation.words import count

SIGNS = {"added": "+", "removed": "-", "modified": "M", "metadata": "m", "type": "T"}


def change_line(change: snapvault.Change) -> str:
    """One change as text."""
    details = f"  ({', '.join(change.details)})" if change.details and change.kind == "metadata" else ""
    return f"{SIGNS[change.kind]}  {printable(change.path)}{details}"


@click.command()
@click.argument("before", metavar="SNAP")
@click.argument("after", metavar="SNAP")
@click.option("--path", metavar="PATH", default="/", help="Only what is at or below this path.")
@verb
def diff(settings: Settings, before: str, after: str, path: str) -> int:
    """Show what changed from one snapshot to another.

    \b
    +  added        -  removed       M  other content
    m  other metadata (named)        T  another kind of entry

    \b
    snapvault diff home@2026-11-01 home@latest
    """
    seen: Counter[str] = Counter()
    grown = 0
    with settings.open() as repository:
        a, b = repository.snapshot(before), repository.snapshot(after)
        for change in snapvault.diff(repository, a, b, path=stored_path([b, a], path)):
            seen[change.kind] += 1
            grown += change.size_after - change.size_before
            settings.out.item(change.to_dict(), change_line(change))
    words = ", ".join(f"{seen[kind]:,} {kind}" for kind in SIGNS if seen[kind]) or "no change"
    sign = "-" if grown < 0 else "+"
    settings.out.summary(
        # "type" is the type of the line.
        {**{k if k != "type" else "type_changed": seen[k] for k in SIGNS}, "bytes": grown, "status": "ok"},
        [f"{count(sum(seen.values()), 'change')}: {words}; {sign}{human_size(abs(grown))}" if seen else words],
    )
    return 0
