"""``snapvault forget``"""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

import snapvault
from snapvault.cli.common import given, status_code, verb
from snapvault.cli.declared import declared
from snapvault.cli.fence import fence_options, give_way, to_duration
from snapvault.cli.progress import long_operation
from snapvault.cli.prune import result_lines
from snapvault.cli.settings import Settings
from snapvault.cli.text import KEEPING, LONG, local_time, printable, table
from snapvault.cli.transfer import TRANSFER, transfer_options
from snapvault.foundation.errors import Conflict, InvalidInput
from snapvault.foundation.ids import SnapshotId
from snapvault.foundation.words import count
from snapvault.operations.prune import require_safe
from snapvault.operations.results import DAMAGED, OK

if TYPE_CHECKING:
    from snapvault.operations.forget import ForgetPlan, ForgetResult

F = TypeVar("F", bound=Callable[..., Any])


def _keep(name: str, unit: str) -> Callable[[F], F]:
    what = f"The newest of each of the last N {unit} that have one." if unit else "The newest N."
    return click.option(f"--keep-{name}", name, metavar="N", type=click.IntRange(min=0), default=0, help=what)


@click.command()
@click.argument("snapshots", metavar="[SNAP]...", nargs=-1)
@click.option("--dataset", metavar="NAME", help="Apply the rules to this dataset only.")
@click.option("--all", "everything", is_flag=True, help="Apply to each dataset what the register says of it.")
@_keep("last", "")
@_keep("hourly", "hours")
@_keep("daily", "days")
@_keep("weekly", "weeks")
@_keep("monthly", "months")
@_keep("yearly", "years")
@click.option(
    "--keep-within", metavar="DURATION", callback=to_duration(KEEPING), default="0d",
    help="All that are no more than this (36h, 30d, 1y6mo; 3m is months) older than the newest.",
)  # fmt: skip
@click.option("--keep-tag", "tags", metavar="TAG", multiple=True, help="All with this tag.")
@click.option(
    "--keep-minimum", metavar="N", type=click.IntRange(min=0), default=1, show_default=True,
    help="Never fewer than N of each dataset, host and key.",
)  # fmt: skip
@click.option(
    "--undelete-window", metavar="DURATION", callback=to_duration(LONG), default="24h", show_default=True,
    help="What is forgotten now is not removed before (30min, 36h, 7d, 2mo).",
)  # fmt: skip
@click.option("--prune", "then_prune", is_flag=True, help="Then remove what no snapshot needs ('prune' with defaults).")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be forgotten.")
@fence_options
@transfer_options
@verb
def forget(
    settings: Settings, snapshots: tuple[str, ...], dataset: str | None, everything: bool, dry_run: bool,
    undelete_window: timedelta, keep_within: timedelta, tags: tuple[str, ...], keep_minimum: int, then_prune: bool,
    last: int, hourly: int, daily: int, weekly: int, monthly: int, yearly: int,
    wait: timedelta, lease: timedelta, exclusive: bool,
) -> int:  # fmt: skip
    """Forget snapshots, by name or by rules.

    They are no longer listed; no space is freed by that.  Rules count separately for each dataset, host and key.  What
    no rule keeps is forgotten; what is held never is, not even by name.

    \b
    snapvault forget 3f2a91c0 home@2026-10-01
    snapvault forget --dataset home --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --prune
    snapvault forget --all
    """
    ruled = any((last, hourly, daily, weekly, monthly, yearly, keep_within, tags))
    _refuse_contradictions(snapshots, dataset, ruled=ruled, everything=everything, prune=then_prune, dry_run=dry_run)
    problems, lines = 0, list[str]()
    with settings.open("plan_forget", "plan_prune") as repository:
        if then_prune:
            require_safe(repository.vault, exclusive=exclusive)  # before anything is forgotten
        if ruled or everything:
            counts = (last, hourly, daily, weekly, monthly, yearly)
            policy = snapvault.Retention(*counts, keep_within, tags, minimum=keep_minimum) if ruled else None
            plan = snapvault.plan_forget(
                repository, policy or _declared_policies(settings, repository), dataset=dataset
            )
            lines, problems = _show(settings, plan), len(plan.problems)
            forgotten: tuple[str, ...] = tuple(s.id for s in plan.forget)
            if not dry_run:
                plan.execute(undelete_window=undelete_window)
        else:
            result = snapvault.forget_snapshots(repository, snapshots, dry_run=dry_run, undelete_window=undelete_window)
            forgotten, lines = result.forgotten, _show_named(settings, result)
        end = "would be forgotten; no space is freed by that" if dry_run else "forgotten; no space was freed"
        lines.append(f"{count(len(forgotten), 'snapshot')} {end.partition(';')[0] if then_prune else end}")
        pruned = _prune(settings, repository, wait, lease, exclusive) if then_prune else None
    status = DAMAGED if problems else pruned.status if pruned else OK
    content = {"forgotten": len(forgotten), "dry_run": dry_run, "damaged": problems, "status": status}
    if pruned is not None:
        content["pruned"] = pruned.to_dict()
        lines += result_lines(pruned)
    settings.out.summary(content, lines)
    return status_code(status)


def _refuse_contradictions(
    snapshots: tuple[str, ...], dataset: str | None, *, ruled: bool, everything: bool, prune: bool, dry_run: bool
) -> None:
    if everything and (ruled or snapshots or dataset is not None):
        raise InvalidInput("--all takes its rules from the register", hint="leave out other rules and names")
    if ruled and snapshots:
        raise InvalidInput("rules and names of snapshots do not go together", hint="do one after the other")
    if not ruled and dataset is not None:
        raise InvalidInput("--dataset needs a rule", hint="such as --keep-daily 7; or name the snapshots")
    if not ruled and given("keep_minimum"):
        raise InvalidInput("--keep-minimum belongs to rules", hint="what is named is forgotten")
    if prune and dry_run:
        raise InvalidInput("what a prune would free is known only once this is forgotten", hint="leave --prune out")
    if not prune and given("wait", "lease", "exclusive", *TRANSFER):
        raise InvalidInput(
            "nothing is removed by this", hint="--wait, --lease, --exclusive and limits belong to --prune"
        )


def _declared_policies(settings: Settings, repository: "snapvault.Repository") -> dict[str, "snapvault.Retention"]:
    """Of the datasets that have one; nothing is forgotten by a register that may not be what somebody wanted."""
    register = declared(settings, repository)
    if register.status != OK:
        raise Conflict("nothing is forgotten by a register with which something is wrong", hint="see 'register check'")
    return {d.name: d.retention for d in register.datasets.values() if d.retention is not None}


def _prune(
    settings: Settings, repository: "snapvault.Repository", wait: timedelta, lease: timedelta, exclusive: bool
) -> "snapvault.PruneResult":
    give_way()
    with long_operation(settings.out, limits=settings.limits()) as control:
        plan = snapvault.plan_prune(repository, exclusive=exclusive, control=control)
        return plan.execute(wait=wait, lease=lease)


def _show_named(settings: Settings, result: "ForgetResult") -> list[str]:
    """What was named, in the order of the names: lines for people."""
    known, rows = {s.id: s for s in result.snapshots}, []
    for sid in result.forgotten:
        s = known.get(SnapshotId(sid))
        row = (local_time(s.time), s.dataset, printable(s.host)) if s else ("", "", "its record cannot be opened")
        rows.append((sid[:8], *row))
        if settings.out.as_json:
            said = {"dataset": s.dataset, "host": s.host, "time": s.time.isoformat()} if s else {}
            settings.out.item({"snapshot": sid, **said}, "")
    return table(("ID", "Time", "Dataset", "Host"), rows) if rows else []


def _show(settings: Settings, plan: "ForgetPlan") -> list[str]:
    """Every snapshot, oldest first, with what keeps it: lines for people."""
    rows = []
    for s in sorted((*plan.keep, *plan.forget), key=lambda s: (s.dataset, s.time_ns)):
        reasons = plan.reasons.get(s.id, ())
        what = "keep" if reasons else "forget"
        rows.append((what, s.id[:8], local_time(s.time), s.dataset, printable(s.host), ", ".join(reasons)))
        if settings.out.as_json:
            settings.out.item({"snapshot": s.id, "action": what, "reasons": list(reasons)}, "")
    for problem in plan.problems:
        settings.out.error(problem)
    return table(("", "ID", "Time", "Dataset", "Host", "Kept by"), rows) if rows else []
