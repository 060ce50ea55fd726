"""SQLite: integrity, foreign keys, and how many rows there are."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec

from snapvault.assurance.probes import Common, Facts, Patterns, ProbeFailed
from snapvault.assurance.probes.files import chosen

MAGIC = b"SQLite format 3\0"
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"


class Options(Common):
    """``path``: glob patterns, else every SQLite database; ``rows``: the least that a table must have."""

    path: Patterns = msgspec.field(default_factory=list)
    rows: dict[str, int] = msgspec.field(default_factory=dict)


def run(root: Path, options: Options) -> Facts:
    """All databases are whole, and together hold what was asked for."""
    files = chosen(root, options.path) if options.path else [p for p in chosen(root, ["**/*"]) if _is_database(p)]
    if not files:
        raise ProbeFailed("there is no SQLite database")
    counts: dict[str, int] = {}
    for path in files:
        try:
            _count(path, counts)
        except sqlite3.Error as e:
            raise ProbeFailed(f"{path.relative_to(root)}: {e}") from e
    if not counts:
        raise ProbeFailed("there is no table")
    for table, least in options.rows.items():
        if counts.get(table, -1) < least:
            raise ProbeFailed(f"table {table} has {counts.get(table, 'no')} rows, and should have {least} or more")
    return {"databases": len(files), "tables": len(counts), "rows": sum(counts.values())}


def _is_database(path: Path) -> bool:
    with path.open("rb") as f:
        return f.read(len(MAGIC)) == MAGIC


def _count(path: Path, counts: dict[str, int]) -> None:
    """Read all of a database; a log that was not yet merged into it is, as after a crash."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as db:
        ((found,),) = db.execute("PRAGMA integrity_check(1)").fetchall()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        if (broken := db.execute("PRAGMA foreign_key_check").fetchone()) is not None:
            raise sqlite3.DatabaseError(f"a row of table {broken[0]} names one of {broken[2]} that is not there")
        for (table,) in db.execute(_TABLES).fetchall():
            quoted = table.replace('"', '""')
            ((rows,),) = db.execute(f'SELECT count(*) FROM "{quoted}"').fetchall()
            counts[table] = counts.get(table, 0) + rows
