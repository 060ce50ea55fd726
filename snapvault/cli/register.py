"""``snapvault register``"""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

import snapvault
from snapvault.cli.common import common_options, gravest, status_code, status_of, verb
from snapvault.cli.declared import declared, declared_if_any
from snapvault.cli.settings import Settings
from snapvault.cli.text import examples, local_time, printable, table
from snapvault.foundation.errors import Conflict, InvalidInput
from snapvault.foundation.words import count

if TYPE_CHECKING:
    from snapvault.assurance.declaration import Declaration
    from snapvault.assurance.register import Register, RegisterResult

SPANS = ("rpo", "rto")
HEADER = ("Dataset", "Group", "Owner", "Tier", "RPO", "RTO", "Sites", "Drill", "Sources")


@click.group(no_args_is_help=True, short_help="Declare what should exist: import, list, check, retire.")
@common_options
def register() -> None:
    """The datasets that should exist, and what was promised of them."""


@register.command("import")
@click.argument("file", metavar="FILE")
@click.option("--map", "columns", metavar="COLUMN=FIELD", multiple=True, help="CSV: which field a column is.")
@click.option("--encoding", metavar="NAME", help="CSV: instead of UTF-8.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would change.")
@verb
def import_(settings: Settings, file: str, columns: tuple[str, ...], encoding: str | None, dry_run: bool) -> int:
    """Declare what FILE says, from now on: TOML, JSON or CSV, by the end of its name.

    It stands in place of what was declared before.  A dataset that is no longer in it is refused until it was retired
    with a reason.  If anything in FILE cannot be read, all faults are named and nothing is imported.  A small FILE, of
    which only the first line has to be there:

    \b
    schema = 1
    [datasets.orders]
    source = "/srv/orders"
    rpo = "24h"
    sites = ["second"]
    probe = {kind = "sqlite"}

    \b
    snapvault register import snapvault.toml
    snapvault register import inventory.csv --map 'System name=name' --encoding cp1252
    """
    from snapvault.assurance.register import import_register

    with settings.open() as repository:
        declaration = _read(settings, file, repository, columns, encoding)
        return _tell(settings, import_register(repository, declaration, dry_run=dry_run))


@register.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--reason", metavar="TEXT", required=True, help="Why, for whoever looks for it later.")
@verb
def retire(settings: Settings, names: tuple[str, ...], reason: str) -> int:
    """Say that a dataset is owed no more, and why.  Its snapshots stay.

    \b
    snapvault register retire orders-2019 --reason 'moved to the archive, ticket 4711'
    """
    from snapvault.assurance.register import retire

    with settings.open() as repository:
        return _tell(settings, retire(repository, names, reason))


@register.command("list")
@click.option("--retired", is_flag=True, help="Those that are owed no more, and why.")
@click.option("--export", type=click.Choice(("toml", "json")), help="Write it all, to edit and import again.")
@verb
def list_(settings: Settings, retired: bool, export: str | None) -> int:
    """List what is declared."""
    with settings.open() as repository:
        found = declared(settings, repository)
    if export:
        return _export(found, export)
    rows = _retired_rows(settings, found) if retired else _rows(settings, found)
    what = "retired" if retired else "declared"
    header = ("Dataset", "Retired", "By", "Reason") if retired else HEADER
    summary = {
        "revision": found.revision, "time": found.time.isoformat(), "by": found.by, "datasets": len(found.datasets),
        "retired": len(found.retired), "status": found.status,
    }  # fmt: skip
    end = f"{count(len(rows), 'dataset')} {what}; revision {found.revision} of {local_time(found.time)} by {found.by}"
    settings.out.summary(summary, [*(table(header, rows) if rows else ()), end])
    return status_code(found.status)


@register.command()
@click.argument("file", metavar="[FILE]", required=False)
@click.option("--map", "columns", metavar="COLUMN=FIELD", multiple=True, help="CSV: which field a column is.")
@click.option("--encoding", metavar="NAME", help="CSV: instead of UTF-8.")
@verb
def check(settings: Settings, file: str | None, columns: tuple[str, ...], encoding: str | None) -> int:
    """Compare what is declared, by the repository or by FILE, with the snapshots, and with this machine.

    Exit code 3: something is declared and was never backed up, or the other way round; a source does not exist here; or
    FILE lacks what is declared now.

    \b
    snapvault register check
    snapvault register check snapvault.toml
    """
    from snapvault.assurance.comparison import KINDS, compare
    from snapvault.operations.run import host_name
    from snapvault.operations.sources import is_url

    with settings.open() as repository:
        stored = declared(settings, repository) if file is None else declared_if_any(settings, repository)
        before, retired = (stored.datasets, stored.retired) if stored is not None else ({}, {})
        datasets = before if file is None else _read(settings, file, repository, columns, encoding).datasets
        snapshots = {s.dataset for s in repository.snapshots()}
    found = list(compare(datasets, before, retired, snapshots, host_name()))
    for mismatch in found:
        settings.out.item(mismatch.to_dict(), f"{mismatch.dataset}: {mismatch.message}")
    code = gravest((status_code(stored.status) if stored is not None else 0, 3 if found else 0))
    kinds, urls = Counter(m.kind for m in found), sum(is_url(s) for d in datasets.values() for s in d.sources)
    content = {kind.replace("-", "_"): kinds[kind] for kind in KINDS}
    lines = [f"{count(len(datasets), 'dataset')} declared, {count(len(found), 'difference')}"]
    lines += [f"{count(urls, 'source')} at URLs were not looked at"] if urls else []
    status = status_of(code)
    settings.out.summary({"datasets": len(datasets), **content, "urls": urls, "status": status}, lines)
    return code


def _read(
    settings: Settings, file: str, repository: "snapvault.Repository", columns: tuple[str, ...], encoding: str | None
) -> "Declaration":
    """What FILE declares; faults are told one by one before the error is raised."""
    from snapvault.assurance.declaration import Refused, read_declaration
    from snapvault.assurance.inventory import read_inventory
    from snapvault.assurance.register import read_register

    try:
        if not file.lower().endswith(".csv"):
            if columns or encoding:
                raise InvalidInput("--map and --encoding belong to a FILE in CSV", hint="let its name end in .csv")
            return read_declaration(file)
        stored, mapped = read_register(repository), dict(map(_column, columns))
        before = stored.declaration if stored is not None else None
        found = read_inventory(file, before, columns=mapped, encoding=encoding or "utf-8")
    except Refused as e:
        settings.out.issues(e.faults, "refused", f"{count(len(e.faults), 'fault')} in {file}", each=True)
        message = f"{file} is refused as a whole: {count(len(e.faults), 'fault')}"
        raise InvalidInput(message, hint="mend them and run this again", affected=e.affected) from e
    if found.unused:
        settings.out.note(f"columns that are no field: {', '.join(map(printable, found.unused))}")
    return found.declaration


def _column(text: str) -> tuple[str, str]:
    column, equals, field = text.rpartition("=")
    if not equals:
        raise InvalidInput(f"{text!r} maps no column to a field", hint="write --map 'System name=name'")
    return column, field


def _tell(settings: Settings, result: "RegisterResult") -> int:
    """What a change came to."""
    from snapvault.assurance.revisions import some

    changes = {
        "added": result.added, "retired": result.retired, "declared again, though once retired": result.revived,
        "changed": result.changed,
    }  # fmt: skip
    would = "would be " if result.dry_run else ""
    lines = [f"{would}{what}: {some(names)}" for what, names in changes.items() if names]
    lines += examples([_change(name, fields) for name, fields in result.changes.items()], "datasets")
    end = f"revision {result.revision}" if result.written else "nothing was written" if result.dry_run else "no change"
    for conflict in result.conflicts:
        settings.out.warning(f"{conflict}; import again what is to count")
    summary = {**result.to_dict(), "conflicts": len(result.conflicts)}
    settings.out.summary(summary, [*lines, f"{count(result.datasets, 'dataset')} declared; {end}"])
    return status_code(result.status)


def _change(name: str, fields: Mapping[str, tuple[Any, Any]]) -> str:
    """``orders: rpo 24h -> 12h``"""
    said = (f"{field} {_value(field, before)} -> {_value(field, after)}" for field, (before, after) in fields.items())
    return printable(f"  {name}: {'; '.join(said)}")


def _value(field: str, value: Any) -> str:
    from snapvault.assurance.spans import format_span

    if field in SPANS and value is not None:
        return format_span(timedelta(seconds=value))
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value) if value else "none"


def _export(found: "Register", form: str) -> int:
    if found.conflicts:
        raise Conflict("; ".join(found.conflicts), hint="import the one that is to count")
    content: dict[str, Any] = {"schema": 1, **found.declaration.content}
    if form == "json":
        click.echo(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        import tomli_w

        click.echo(tomli_w.dumps(content), nl=False)
    return status_code(found.status)


def _rows(settings: Settings, found: "Register") -> list[tuple[str, ...]]:
    from snapvault.assurance.spans import format_span

    rows = list[tuple[str, ...]]()
    for d in found.datasets.values():
        if settings.out.as_json:
            settings.out.item(d.to_dict(), "")
        spans = (format_span(span) if span else "" for span in (d.rpo, d.rto))
        drill = f"{d.drill.level} every {format_span(d.drill.every)}" if d.drill else ""
        rows.append(
            (d.name, *map(printable, (d.group, d.owner, d.tier)), *spans, " ".join(d.sites), drill,
             printable(" ".join(d.sources)))
        )  # fmt: skip
    return rows


def _retired_rows(settings: Settings, found: "Register") -> list[tuple[str, ...]]:
    rows = list[tuple[str, ...]]()
    for name, r in found.retired.items():
        if settings.out.as_json:
            settings.out.item({"dataset": name, "reason": r.reason, "by": r.by, "time": r.time.isoformat()}, "")
        rows.append((printable(name), local_time(r.time), printable(r.by), printable(r.reason)))
    return rows
