"""``snapvault check``"""

from collections import defaultdict
from contextlib import suppress
from datetime import timedelta

import click

import snapvault
from snapvault.cli.common import given, status_code, verb
from snapvault.cli.fence import fence_options, waits_lines
from snapvault.cli.locks import lock_lines
from snapvault.cli.progress import long_operation
from snapvault.cli.replication import attested_lines
from snapvault.cli.settings import Settings
from snapvault.cli.site import known_sites, known_url, place_of
from snapvault.cli.text import EXAMPLES, examples, harmless, human_seconds, human_size, printable
from snapvault.cli.transfer import transfer_options
from snapvault.format import names
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.words import count

ALL = "all"


@click.command(short_help="See whether everything is there and whole.")
@click.option(
    "--read-data", metavar="SHARE", is_flag=False, flag_value=ALL, default=None,
    help="Read and verify all stored data, or a share of it (5%), taking turns from run to run.",
)  # fmt: skip
@click.option("--no-key", is_flag=True, help="Verify every object by its name or digest; needs no password.")
@click.option("--attest", "site", metavar="NAME", help="With --no-key: sign what was found, as the site NAME.")
@click.option(
    "--repair-from", "other", metavar="SITE", help="Read all of this place and a site; mend each from the other."
)
@click.option("--repair", "mend", is_flag=True, help="Read all data, save what can be read, note what is lost.")
@click.option("-n", "--dry-run", is_flag=True, help="With --repair: only say what would be done.")
@click.option("--extend-locks", is_flag=True, help="Lock for longer what is locked in the store, if that ends soon.")
@fence_options
@transfer_options
@verb
def check(
    settings: Settings, read_data: str | None, no_key: bool, site: str | None, other: str | None,
    mend: bool, dry_run: bool, extend_locks: bool, wait: timedelta, lease: timedelta, exclusive: bool,
) -> int:  # fmt: skip
    """See whether everything is there and whole, and which paths a damage touches.

    Without options: all records, all trees, and that the data they name is there in its full size.
    Exit code 20: something is damaged.  3: paths are lost, as a repair has noted, or something is not locked in the
    store although it is to be, and nothing else.

    With --repair indexes are rebuilt from the packs, what can be read of damaged packs is copied, and snapshots that
    lost paths are kept, with a note.  The next backup stores again what the source still has.  The exit code is what a
    check says after it.

    \b
    snapvault check
    snapvault check --read-data=5%
    snapvault check --repair --dry-run
    snapvault check --repair-from second
    """
    if other is not None:
        if given("read_data", "no_key", "site", "mend", "dry_run", "extend_locks", "wait", "lease", "exclusive"):
            raise InvalidInput("--repair-from stands alone", hint="it reads everything, and needs no key")
        return _heal(settings, other)
    if extend_locks and (no_key or mend):
        raise InvalidInput("--extend-locks belongs to a check with a key that repairs nothing")
    if mend:
        if no_key:
            raise InvalidInput("a repair needs a key", hint="that of the owner or a maintainer")
        if read_data is not None:
            raise InvalidInput("--repair reads all data anyway", hint="leave --read-data out")
        return _repair(settings, dry_run, wait, lease, exclusive)
    if dry_run or given("wait", "lease", "exclusive"):
        raise InvalidInput(
            "a check changes nothing", hint="--dry-run, --wait, --lease and --exclusive belong to --repair"
        )
    if no_key and read_data is not None:
        raise InvalidInput("--no-key reads everything anyway", hint="leave --read-data out")
    if site is not None and not no_key:
        raise InvalidInput("only what is read without opening it is attested", hint="--attest belongs to --no-key")
    share = 0.0 if read_data is None else _share(read_data)
    if no_key:
        with long_operation(settings.out, limits=settings.limits()) as control:
            attestation = None if site is None else _attest(settings, site, control)
            read = attestation.report if attestation is not None else None
            report = read or _scrub(settings, control)
        _show(settings, report, attestation)
    else:
        with settings.open("check") as repository, long_operation(settings.out, limits=settings.limits()) as control:
            report = snapvault.check(repository, read_data=share, extend_locks=extend_locks, control=control)
        _show(settings, report)
    return status_code(report.status)


def _scrub(settings: Settings, control: snapvault.Control) -> snapvault.CheckReport:
    url = settings.url()
    with settings.naming_copies():
        return snapvault.scrub(url, storage_options=settings.options_for(url), control=control)


def _attest(settings: Settings, name: str, control: snapvault.Control) -> snapvault.Attestation:
    with settings.open("attest") as repository:
        known = known_url(settings, name)
        if repository.role != "site" and known != repository.url:  # or a slip of the finger covers another site
            raise InvalidInput(
                f"{name} is not known to be here" + (f", but at {known}" if known else ""),
                hint="name the site with -r, by the URL that 'site add' got; or use its own key",
            )
        return snapvault.attest(repository, name, read=True, control=control)


def _heal(settings: Settings, other: str) -> int:
    url = settings.url()
    there = place_of(settings, other)
    with settings.naming_copies(), long_operation(settings.out, limits=settings.limits()) as control:
        here = snapvault.Site(url, settings.options_for(url))
        result = snapvault.heal(here, snapvault.Site(there, settings.options_for(there)), control=control)
    lines = []
    for place, mended, remaining in (
        (result.here, result.mended_here, result.remaining_here),
        (result.there, result.mended_there, result.remaining_there),
    ):
        said = [f"mended {', '.join(mended[:5])}{', ...' if len(mended) > 5 else ''}"] if mended else []
        end = "nothing else" if mended else "nothing"
        said += [_finding(f) for f in remaining] or [
            f"{end} is damaged, or missing as far as it can be told without a key"
        ]
        lines += [f"{place}:", *examples([f"  {line}" for line in said], "lines")]
    left = {"remaining_here": len(result.remaining_here), "remaining_there": len(result.remaining_there)}
    settings.out.summary({**result.to_dict(), **left}, lines)
    return status_code(result.status)


def _repair(settings: Settings, dry_run: bool, wait: timedelta, lease: timedelta, exclusive: bool) -> int:
    with settings.open("plan_repair") as repository, long_operation(settings.out, limits=settings.limits()) as control:
        plan = snapvault.plan_repair(repository, exclusive=exclusive, control=control)
        if dry_run:
            _items(settings, plan.report)
            settings.out.summary({**plan.to_dict(), "dry_run": True}, [*_findings(plan.report), *_planned(plan)])
            return status_code(plan.status)
        result = plan.execute(wait=wait, lease=lease)
    _items(settings, result.after)
    settings.out.summary({**result.to_dict(), "dry_run": False}, _repaired(settings, plan, result))
    return status_code(result.status)


def _planned(plan: snapvault.RepairPlan) -> list[str]:
    steps = (
        (
            plan.packs_salvaged,
            "pack",
            "damaged, brought back, or not as described: what can be read would be copied",
        ),
        (plan.packs_listed, "pack", "to be listed in the index from their own directories"),
        (len(plan.restored), "object", "to be put back from a copy"),
        (len(plan.removed) + len(plan.ended), "object", "that nobody can read, to be removed"),
        (len({p.snapshot for p in plan.report.lost}), "snapshot", "lost paths, to be kept with a note"),
    )
    lines = [f"{count(number, what)} {text}" for number, what, text in steps if number]
    return lines or ["There is nothing to repair."]


def _repaired(settings: Settings, plan: snapvault.RepairPlan, r: snapvault.RepairResult) -> list[str]:
    steps = (
        (r.packs_salvaged, "pack", f"given up, after {human_size(r.bytes_copied)} were copied out of them"),
        (r.blobs_lost, "chunk", "could not be read any more"),
        (r.packs_listed, "pack", "listed in the index from their own directories"),
        (r.objects_restored, "object", "put back from a copy"),
        (r.objects_removed, "object", "removed that nobody could read"),
        (r.snapshots_marked, "snapshot", "(forgotten ones, too) marked with the paths that they lost"),
        (r.snapshots_healed, "snapshot", "whole again, its note says so"),
    )
    lines = [f"{count(number, what)} {text}" for number, what, text in steps if number]
    lines = [*_findings(plan.report), *lines] if lines else ["There was nothing to repair."]
    lines += [f"left as it is: {problem}" for problem in r.problems]
    return [
        *lines,
        *waits_lines(r.waits_for, r.waits_until),
        "",
        "After it:",
        *_findings(r.after),
        *_totals(settings, r.after, repaired=True),
    ]


def _share(text: str) -> float:
    if text == ALL:
        return 1.0
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1
    if not 0 < share <= 1:
        raise InvalidInput(f"{text!r} is no share of the data", hint="write it like 5% or 0.05")
    return share


def _items(settings: Settings, r: snapvault.CheckReport) -> None:
    """Every finding and every lost path, for programs."""
    out = settings.out
    if out.as_json:
        for f in r.findings:
            out.line("item", {"kind": "finding", "message": f.message, "objects": f.objects, "snapshots": f.snapshots,
                              "harmless": f.harmless})  # fmt: skip
        for lost in r.lost:
            out.line("item", {"kind": "lost", "snapshot": lost.snapshot, "path": lost.path, "message": lost.message,
                              "noted": lost.noted, "folder": lost.folder})  # fmt: skip


def _show(settings: Settings, r: snapvault.CheckReport, attestation: snapvault.Attestation | None = None) -> None:
    _items(settings, r)
    content = {**r.to_dict(), "findings": len(r.findings), "problems": len(r.problems), "lost": len(r.lost)}
    signed: list[str] = []
    if attestation is not None:
        content["attestation"] = attestation.to_dict()
        signed = attested_lines(attestation)
    settings.out.summary(content, [*_findings(r), *lock_lines(r.lock), *_totals(settings, r), *signed])


def _lost_records(r: snapvault.CheckReport) -> list[str]:
    """Snapshots whose own record cannot be had; a finding that names the snapshot, too, knows better."""
    found = (name.removeprefix(names.SNAPSHOTS) for f in r.problems if not f.snapshots for name in f.objects)
    return [sid for sid in found if names.is_session_id(sid) and not sid.startswith(names.GC_PREFIX)]


def _extent(r: snapvault.CheckReport) -> str:
    """What the damage comes to, where that is known."""
    if _lost_records(r):
        return ": what a snapshot's record held that cannot be read is lost with it"
    if r.level == "scrub" or r.lost:
        return ""
    return ", but no path of a snapshot is lost by it" if r.snapshots else ""


def _findings(r: snapvault.CheckReport) -> list[str]:
    lines = []
    to_know = tuple(f for f in r.findings if f.harmless)
    for title, found in (("Damaged", r.problems), ("To know", to_know)):
        if found:
            lines.append(f"{title}:")
            lines += examples([f"  {_finding(f)}" for f in found], "findings")
    for title, noted in (("Paths that are lost", False), ("Paths that were lost before, as noted", True)):
        lost = [p for p in r.lost if p.noted == noted]
        if lost:
            lines.append(f"{title}:")
            lines += _lost_lines(lost)
    return lines


def _lost_lines(lost: list[snapvault.LostPath]) -> list[str]:
    """The newest snapshots that lost something, each with its first paths, so that none hides another."""
    by_snapshot = defaultdict[str, list[snapvault.LostPath]](list)
    for p in lost:
        by_snapshot[p.snapshot].append(p)
    newest, lines = [*reversed(by_snapshot.items())], []
    each = max(2, EXAMPLES // len(newest))
    for sid, paths in newest[:EXAMPLES]:
        lines += [f"  {sid[:8]}:{printable(p.path)}: {harmless(p.message)}" for p in paths[:each]]
        if len(paths) > each:
            lines.append(f"  {sid[:8]}: ... and {count(len(paths) - each, 'more path')} (--json lists them all)")
    if len(newest) > EXAMPLES:
        lines.append(f"  ... and paths of {count(len(newest) - EXAMPLES, 'other snapshot')} (--json lists them all)")
    return lines


def _finding(f: snapvault.Finding) -> str:
    touched = ", ".join(s[:8] for s in f.snapshots[:5]) + (", ..." if len(f.snapshots) > 5 else "")
    return harmless(f.message) + (f" (snapshots {touched})" if touched else "")


def _other_site(settings: Settings) -> str:
    """A site that this machine knows, or the word for one."""
    with suppress(snapvault.SnapvaultError):
        known = known_sites(settings)
        return next((name for name in known.all() if not known.is_home(name)), "SITE")
    return "SITE"


def _next_steps(settings: Settings, r: snapvault.CheckReport, *, repaired: bool) -> list[str]:
    """What can be done about damage, the best first."""
    steps = [f"'snapvault check --repair-from {_other_site(settings)}' mends it from a second site"]
    if not repaired:
        dry = "" if r.level == "scrub" else " --dry-run"
        text = "shows what could be saved here" if dry else "saves, with a key, what can be read"
        steps.append(f"'snapvault check --repair{dry}' {text}")
    if lost := _lost_records(r):
        steps.append(f"'snapvault forget {lost[0]} --undelete-window 0h' gives up a snapshot whose record is lost")
    return [f"What to do: {steps[0]}", *(f"        or: {step}" for step in steps[1:])]


def _totals(settings: Settings, r: snapvault.CheckReport, *, repaired: bool = False) -> list[str]:
    words = [count(r.objects, "object"), count(r.snapshots, "snapshot")]
    if r.level != "scrub":
        words += [count(r.blobs, "blob"), count(r.packs, "pack")]
    lines = [f"{r.level}: {', '.join(words)} in {human_seconds(r.seconds)}"]
    if r.level == "data":
        lines.append(
            f"read {count(r.packs_read, 'pack')}, {human_size(r.bytes_read)}: {r.share:.1%} of the data; "
            f"{r.verified_share:.1%} found whole by this run or an earlier one"
        )
    if r.status == "damaged":
        return [*lines, f"The repository is DAMAGED{_extent(r)}.", *_next_steps(settings, r, repaired=repaired)]
    if r.lost:
        return [
            *lines,
            "No new damage; a backup stores again what the source still has of what is lost.",
        ]
    if r.level == "scrub":
        return [*lines, "No damage was found in what is there; what is missing only a check with a key knows."]
    return [*lines, "No damage was found."]
