"""Evidence as one page of HTML: for reading and printing, with nothing that it would have to fetch."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from snapvault.assurance.evidence import Evidence, EvidenceReport, newest_first, shown, verify_evidence
from snapvault.assurance.export import Exported
from snapvault.foundation.clock import now
from snapvault.foundation.errors import Damaged
from snapvault.foundation.words import count
from snapvault.report.words import plain

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

_MARKS = {"pass": "✓ pass", "fail": "✗ fail", "not-run": "? not run"}  # never by colour alone
_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem; color: #1a1a1a; background: #fff }
h1 { font-size: 1.5rem; margin: 0 0 .5rem } h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem }
table { border-collapse: collapse; width: 100% } caption { text-align: left; padding: .3rem 0; font-weight: 600 }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #ccc }
td.n { text-align: right; white-space: nowrap } code { font-size: .85em; overflow-wrap: anywhere }
.pass { color: #0a5c2b } .fail { color: #a30f0f; font-weight: 600 } .not-run { color: #6b4a00; font-weight: 600 }
p.why { margin: .15rem 0 0; color: #333 }
@media print { body { margin: 0; font-size: 10px } tr { break-inside: avoid } thead { display: table-header-group } }
"""
_COLUMNS = (
    "Held (UTC)",
    "Dataset",
    "Site",
    "Level",
    "Outcome",
    "Data of",
    "Restored",
    "Back in",
    "Control",
    "Signed by",
)


def write_page(repo: "Repository", write: Callable[[str], object], *, dataset: str | None = None) -> Exported:
    """Write the page, piece by piece; ``dataset``: its results alone.  RoleRequired, errors of the store."""
    vault, problems, results = repo.vault, list[Damaged](), 0
    of = f" of {plain(dataset)}" if dataset is not None else ""
    write(f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Evidence of drills{of}</title>\n')
    write(f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>\n')
    made = _time(now())
    write(f"<h1>Evidence of drills{of}</h1><p>Repository <code>{vault.id}</code>. Written {made} UTC.</p>\n")
    _verification(verify_evidence(repo), write)
    write(f"<table><caption>What drills found, the newest first</caption><thead><tr>{_heads()}</tr></thead><tbody>\n")
    records = disclosed = 0
    for link in newest_first(vault, problems.append):
        rows = [e for e in reversed(shown(vault, link)) if dataset in (None, e.dataset)]
        write("".join(map(_row, rows)))
        records, disclosed, results = records + 1, disclosed + bool(rows), results + len(rows)
    write(f"</tbody></table>\n<h2>Keys</h2><ul>{_items(_keys(repo))}</ul>\n</html>\n")
    return Exported(records, disclosed, results, tuple(problems))


def _verification(report: EvidenceReport, write: Callable[[str], object]) -> None:
    read = f"{count(report.records, 'record')} of the chain read and verified"
    write(f"<p>{read}{'' if report.findings else ': nothing is missing or altered'}.</p>\n")
    if report.findings:
        write(f"<h2>What is wrong with it</h2><ul>{_items(f.message for f in report.findings)}</ul>\n")


def _heads() -> str:
    return "".join(f'<th scope="col">{plain(column)}</th>' for column in _COLUMNS)


def _items(texts: Iterable[str]) -> str:
    return "".join(f"<li>{plain(text)}</li>" for text in texts)


def _keys(repo: "Repository") -> Iterable[str]:
    for holder in repo.vault.ring.current.holders:
        yield f"{holder.name}, {holder.role}, signs with {holder.sign.hex()}"


def _row(e: Evidence) -> str:
    head, data = e.head, e.head.snapshot
    reasons = "".join(f'<p class="why">{plain(s)}: {plain(o.why)}</p>' for s, o in head.steps.items() if o.why)
    cells = (
        _time(head.began), plain(e.dataset), plain(e.site or "the repository itself"), plain(e.level),
        f'<span class="{e.outcome}">{_MARKS[e.outcome]}</span>{reasons}', _time(data.time if data else None),
        f"{count(head.files, 'file')}, {head.bytes:,} bytes" if head.files else "",
        "" if head.recovery is None else f"{head.recovery / 1000:,.1f} s",
        "" if head.control is None else f"{plain(head.control.outcome)}, by {plain(head.control.caught_by)}",
        f"{plain(e.by)}, record {e.number}<br><code>{plain(e.record.rpartition('/')[2][:16])}</code>",
    )  # fmt: skip
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"


def _time(time: datetime | None) -> str:
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
