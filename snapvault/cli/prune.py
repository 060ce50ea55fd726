"""``snapvault prune``"""

from datetime import timedelta

import click

import snapvault
from snapvault.cli.common import status_code, verb
from snapvault.cli.fence import fence_options, give_way, waits_lines
from snapvault.cli.progress import long_operation
from snapvault.cli.settings import Settings
from snapvault.cli.text import human_size, parse_size
from snapvault.cli.transfer import transfer_options
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.words import count


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option(
    "--max-unused", metavar="PERCENT", default="5%", show_default=True,
    help="So much may stay that is unused, where it lies beside what is needed.",
)  # fmt: skip
@click.option("--max-rewrite", metavar="SIZE", help="Rewrite no more than this.")
@click.option(
    "--max-time",
    metavar="MINUTES",
    type=click.IntRange(min=0),
    help="Rewrite nothing more after this, with what it waits.",
)
@fence_options
@transfer_options
@verb
def prune(
    settings: Settings, dry_run: bool, max_unused: str, max_rewrite: str | None, max_time: int | None,
    wait: timedelta, lease: timedelta, exclusive: bool,
) -> int:  # fmt: skip
    """Remove what no snapshot needs any more.

    It works beside backups, restores and other prunes.  What only forgotten snapshots need is removed once they cannot
    be brought back any more (see 'forget').  Exit code 3: backups that run now, or were killed a short while ago, were
    waited for in vain; run it again later.

    \b
    snapvault prune
    """
    rewrite = None if max_rewrite is None else parse_size(max_rewrite)
    minutes = None if max_time is None else timedelta(minutes=max_time)
    limits = snapvault.PruneLimits(_share(max_unused), rewrite, minutes)
    give_way()
    with settings.open("plan_prune") as repository, long_operation(settings.out, limits=settings.limits()) as control:
        plan = snapvault.plan_prune(repository, limits=limits, exclusive=exclusive, control=control)
        if dry_run:
            settings.out.summary({**plan.to_dict(), "dry_run": True}, _planned(plan))
            return status_code(plan.status)
        result = plan.execute(wait=wait, lease=lease)
    settings.out.summary({**result.to_dict(), "dry_run": False}, result_lines(result))
    return status_code(result.status)


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InvalidInput(f"{text!r} is no share", hint="write it like 5%")
    return share


def _planned(plan: "snapvault.PrunePlan") -> list[str]:
    return [
        f"stored: {human_size(plan.bytes_total)}, of which {human_size(plan.bytes_unused)} are unused",
        *(f"not everywhere: {problem}" for problem in plan.problems),
        f"would free {human_size(plan.bytes_freed)}, rewriting {human_size(plan.bytes_rewritten)}",
        *_waiting(plan.bytes_waiting),
    ]


def result_lines(result: "snapvault.PruneResult") -> list[str]:
    """What a prune did, for people."""
    lines = [f"not everywhere: {problem}" for problem in result.problems]
    lines += waits_lines(result.waits_for)
    if result.packs_spared:
        lines.append(f"there was no time to rewrite {count(result.packs_spared, 'pack')}; the next run goes on")
    freed = f"{count(result.packs_removed, 'pack')} removed, {human_size(result.bytes_copied)} copied out of them"
    return [*lines, f"{human_size(result.bytes_freed)} freed: {freed}", *_waiting(result.bytes_waiting)]


def _waiting(size: int) -> list[str]:
    return [f"{human_size(size)} more once forgotten snapshots cannot be brought back any more"] if size else []
