"""``snapvault check``"""

import click

import snapvault
from snapvault.cli.common import status_code, verb
from snapvault.cli.progress import long_operation
from snapvault.cli.settings import Settings
from snapvault.cli.text import examples, harmless, human_seconds, human_size, printable
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.words import count

ALL = "all"


@click.command(short_help="See whether everything is there and whole.")
@click.option(
    "--read-data", metavar="SHARE", is_flag=False, flag_value=ALL, default=None,
    help="Read and verify all stored data, or a share of it (5%), taking turns from run to run.",
)  # fmt: skip
@click.option("--no-key", is_flag=True, help="Verify every object by its name or digest; needs no password.")
@verb
def check(settings: Settings, read_data: str | None, no_key: bool) -> int:
    """See whether everything is there and whole, and which paths a damage touches.

    Without options: all records, all trees, and that the data they name is there in its full size.
    Exit code 20: something is damaged.

    \b
    snapvault check
    snapvault check --read-data=5%
    """
    if no_key and read_data is not None:
        raise InvalidInput("--no-key reads everything anyway", hint="leave --read-data out")
    share = 0.0 if read_data is None else _share(read_data)
    if no_key:
        with long_operation(settings.out) as control:
            url = settings.url()
            report = snapvault.scrub(url, storage_options=settings.options_for(url), control=control)
    else:
        with settings.open("check") as repository, long_operation(settings.out) as control:
            report = snapvault.check(repository, read_data=share, control=control)
    _show(settings, report)
    return status_code(report.status)


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


def _show(settings: Settings, r: snapvault.CheckReport) -> None:
    out = settings.out
    if out.as_json:
        for f in r.findings:
            out.line("item", {"kind": "finding", "message": f.message, "objects": f.objects, "snapshots": f.snapshots,
                              "harmless": f.harmless})  # fmt: skip
        for lost in r.lost:
            out.line("item", {"kind": "lost", "snapshot": lost.snapshot, "path": lost.path, "message": lost.message})
    content = {**r.to_dict(), "findings": len(r.findings), "problems": len(r.problems), "lost": len(r.lost)}
    out.summary(content, [*_findings(r), *_totals(r)])


def _findings(r: snapvault.CheckReport) -> list[str]:
    lines = []
    to_know = tuple(f for f in r.findings if f.harmless)
    for title, found in (("Damaged", r.problems), ("To know", to_know)):
        if found:
            lines.append(f"{title}:")
            lines += examples([f"  {_finding(f)}" for f in found], "findings")
    if r.lost:
        lines.append("Paths that are lost:")
        lines += examples([f"  {p.snapshot[:8]}:{printable(p.path)}: {harmless(p.message)}" for p in r.lost], "paths")
    return lines


def _finding(f: snapvault.Finding) -> str:
    touched = ", ".join(s[:8] for s in f.snapshots[:5]) + (", ..." if len(f.snapshots) > 5 else "")
    return harmless(f.message) + (f" (snapshots {touched})" if touched else "")


def _totals(r: snapvault.CheckReport) -> list[str]:
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
        spared = r.level != "scrub" and not r.lost
        return [*lines, "The repository is DAMAGED" + (", but no path of a snapshot is lost by it." if spared else ".")]
    return [*lines, "No damage was found."]
