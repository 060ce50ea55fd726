"""``snapvault prune``"""

from datetime import datetime, timedelta

import click

import snapvault
from snapvault.cli.common import status_code, verb
from snapvault.cli.fence import fence_options, give_way, to_duration, waits_lines
from snapvault.cli.locks import lock_lines
from snapvault.cli.progress import long_operation
from snapvault.cli.settings import Settings
from snapvault.cli.text import SHORT, harmless, human_size, local_time, parse_size
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
    metavar="DURATION",
    callback=to_duration(SHORT, plain="min"),
    help="Rewrite nothing more after this (90s, 2h; 30 is minutes), with what it waits.",
)
@fence_options
@transfer_options
@verb
def prune(
    settings: Settings, dry_run: bool, max_unused: str, max_rewrite: str | None, max_time: timedelta | None,
    wait: timedelta, lease: timedelta, exclusive: bool,
) -> int:  # fmt: skip
    """Remove what no snapshot needs any more.

    It works beside backups, restores and other prunes.  What only forgotten snapshots need is removed once they cannot
    be brought back any more (see 'forget').  Exit code 3: backups that run now, or were killed a short while ago, were
    waited for in vain, so run it again later; or these credentials may not delete something; or something that is to be
    locked in the store is not.

    \b
    snapvault prune
    """
    rewrite = None if max_rewrite is None else parse_size(max_rewrite)
    limits = snapvault.PruneLimits(_share(max_unused), rewrite, max_time)
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
        f"would free {human_size(plan.bytes_freed)}, rewriting packs of {human_size(plan.bytes_rewritten)}",
        *_locked(plan.bytes_locked, plan.locked_until),
        *_waiting(plan.bytes_waiting),
    ]


def result_lines(result: "snapvault.PruneResult") -> list[str]:
    """What a prune did, for people."""
    lines = [f"not everywhere: {problem}" for problem in result.problems]
    lines += waits_lines(result.waits_for, result.waits_until)
    if result.packs_spared:
        lines.append(f"there was no time to rewrite {count(result.packs_spared, 'pack')}; the next run goes on")
    lines += lock_lines(result.lock)
    size, copied = human_size(max(0, result.bytes_freed)), human_size(result.bytes_copied)
    what = "them" if result.bytes_freed >= 0 else "others, which cannot go yet"
    lines.append(f"{size} freed: {count(result.packs_removed, 'pack')} removed, {copied} copied out of {what}")
    lines += [*_kept(result), *_waiting(result.bytes_waiting)]
    if result.packs_damaged:
        found = count(result.packs_damaged, "pack")
        lines.append(f"{found} known to be damaged: 'snapvault check' says what that touches")
    return lines


def _kept(result: "snapvault.PruneResult") -> list[str]:
    """What may go, and is still there."""
    lines = _locked(result.bytes_locked, result.locked_until)
    if result.refused:
        lines.append(
            f"{count(result.refused, 'object')}, {human_size(result.bytes_refused)}, could not be deleted: "
            f"{harmless(result.refusal)}; a prune with credentials that may delete goes on"
        )
    if result.hidden:
        lines.append("the bucket keeps what was removed as older versions; its own lifecycle rules free them")
    return lines


def _locked(size: int, until: datetime | None) -> list[str]:
    if until is None:
        return []
    return [f"{human_size(size)} of what may go is locked until {local_time(until)}; a later prune goes on"]


def _waiting(size: int) -> list[str]:
    return [f"{human_size(size)} more once forgotten snapshots cannot be brought back any more"] if size else []
