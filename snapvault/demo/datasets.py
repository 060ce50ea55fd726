"""Datasets of real kinds, whole or with something wrong with them, by a seed."""

import hashlib
import io
import json
import sqlite3
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from snapvault.assurance.probes.postgres import DATABASE
from snapvault.demo import tables
from snapvault.demo.damage import encrypt_all
from snapvault.foundation.errors import SourceError

if TYPE_CHECKING:
    from snapvault.assurance.probes.postgres import Cluster

# Why a dataset does not come to life.
CUT, COMPANION, STALE, ENCRYPTED, TARGET = CAUSES = (
    "cut short before it was backed up", "a missing companion file", "stale data",
    "files encrypted before the backup", "a dead probe target",
)  # fmt: skip
ROWS = 200  # at least, in every database
_WORDS = ("river", "bridge", "permit", "parcel", "survey", "harbour", "school", "clinic", "notice", "budget", "forest")

Make = Callable[[Path, Random], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """How datasets of one kind are made, how to tell that one is alive, and what may be wrong with it.

    ``spoil``: by cause, besides those that no kind is safe from.
    """

    name: str  # of the group in the register
    what: str  # for people
    probe: Mapping[str, Any]
    make: Make
    spoil: Mapping[str, Make]

    @property
    def causes(self) -> tuple[str, ...]:
        """What such a dataset may die of."""
        return tuple(cause for cause in CAUSES if cause in self.spoil or cause in (STALE, ENCRYPTED))

    def write(self, folder: Path, seed: str, cause: str = "") -> None:
        """Make one, with what is wrong with it; a stale one is whole, and its newest backup old."""
        chance = Random(seed)
        folder.mkdir(parents=True)
        self.make(folder, chance)
        if cause == ENCRYPTED:
            encrypt_all(folder)
        elif cause in self.spoil:
            self.spoil[cause](folder, chance)


def _text(chance: Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words))


def _cut(folder: Path, chance: Random) -> None:
    """The largest file ends early, as when the disk was full."""
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (p.stat().st_size, p))
    with path.open("r+b") as f:
        f.truncate(int(path.stat().st_size * chance.uniform(0.3, 0.8)))


def _without(pattern: str) -> Make:
    """The first file of that name was never in the backup."""
    return lambda folder, chance: sorted(folder.rglob(pattern))[0].unlink()


# -- databases -----------------------------------------------------------------------------------------------------


def _ledger(folder: Path, chance: Random) -> None:
    """SQLite in the middle of its work: most rows are in the log beside the database, which is a part of it."""
    work = folder / "work.db"
    with closing(sqlite3.connect(work, isolation_level=None)) as db:
        db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0;")
        db.executescript("CREATE TABLE entries (id INTEGER PRIMARY KEY, account TEXT, cents INTEGER);")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = [(_text(chance, 3), chance.randrange(10**6)) for _ in range(ROWS + chance.randrange(600))]
        db.execute("BEGIN")
        db.executemany("INSERT INTO entries (account, cents) VALUES (?, ?)", rows)
        db.execute("COMMIT")
        for end in ("", "-wal"):
            (folder / f"ledger.db{end}").write_bytes(Path(f"{work}{end}").read_bytes())
    for path in folder.glob("work.db*"):
        path.unlink()


def _dump(cluster: "Cluster") -> Make:
    """What pg_dump writes, in one of three formats."""

    def make(folder: Path, chance: Random) -> None:
        rows, seed = ROWS + chance.randrange(2000), chance.random()
        sql = (
            f"DROP TABLE IF EXISTS visits, places; SELECT setseed({seed});"
            "CREATE TABLE places AS SELECT n AS id, md5(random()::text) AS name FROM generate_series(1, 20) n;"
            "CREATE TABLE visits AS SELECT n AS id, random() AS fee, 1 + n % 20 AS place "
            f"FROM generate_series(1, {rows}) n"
        )
        form, name = chance.choice((("plain", "visits.sql"), ("custom", "visits.dump"), ("directory", "visits")))
        argv = [f"--format={form}", f"--file={folder / name}", DATABASE]
        for done in (cluster.client("psql", "-X", "-q", "-d", DATABASE, "-c", sql), cluster.client("pg_dump", *argv)):
            if done.returncode:
                raise SourceError(f"PostgreSQL makes no dump: {done.stderr.strip()[-300:]}")

    return make


# -- files ---------------------------------------------------------------------------------------------------------


def _documents(folder: Path, chance: Random) -> None:
    """A tree of texts, and a list of their checksums."""
    sums = []
    for number in range(chance.randrange(4, 12)):
        path = folder / chance.choice(_WORDS) / f"{chance.choice(_WORDS)}-{number}.txt"
        path.parent.mkdir(exist_ok=True)
        data = _text(chance, chance.randrange(50, 3000)).encode()
        path.write_bytes(data)
        sums.append(f"{hashlib.sha256(data).hexdigest()}  {path.relative_to(folder)}\n")
    (folder / "SHA256SUMS").write_text("".join(sums))


def _columns(folder: Path, chance: Random) -> None:
    """Parquet."""
    import pyarrow
    from pyarrow import parquet

    rows = ROWS + chance.randrange(3000)
    columns = {"id": list(range(rows)), "depth": [chance.gauss(5, 1) for _ in range(rows)]}
    parquet.write_table(pyarrow.table(columns), folder / "soundings.parquet", write_page_checksum=True)


def _members(chance: Random) -> list[tuple[str, bytes]]:
    return [
        (f"{chance.choice(_WORDS)}/{number}.txt", _text(chance, chance.randrange(50, 2000)).encode())
        for number in range(chance.randrange(3, 12))
    ]


def _tarball(folder: Path, chance: Random) -> None:
    with tarfile.open(folder / "letters.tar.gz", "w:gz") as archive:
        for name, data in _members(chance):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _zipped(folder: Path, chance: Random) -> None:
    with zipfile.ZipFile(folder / "forms.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _members(chance):
            archive.writestr(name, data)


# -- a service -----------------------------------------------------------------------------------------------------

_SERVICE = '''\
"""Answers what it finds in the file that its settings name."""

import http.server
import json
import pathlib
import sys

records = json.loads(pathlib.Path(json.loads(pathlib.Path("settings.json").read_text())["records"]).read_text())


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{len(records)} records".encode())


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
'''


def _service(folder: Path, chance: Random) -> None:
    """A program, its settings and its data."""
    (folder / "service.py").write_text(f"# {folder.name}\n{_SERVICE}")
    (folder / "settings.json").write_text(json.dumps({"records": "records.json"}))
    records = [_text(chance, 20) for _ in range(chance.randrange(20, 400))]
    (folder / "records.json").write_text(json.dumps(records))


def _elsewhere(folder: Path, chance: Random) -> None:
    """Its data is on a machine that nobody backed up: it ends as soon as it is started anywhere else."""
    (folder / "settings.json").write_text(json.dumps({"records": f"/net/{folder.name}/records.json"}))
    (folder / "records.json").unlink()


# -- all of them ---------------------------------------------------------------------------------------------------


def kinds(cluster: "Cluster | None", left_out: list[str]) -> list[Kind]:
    """Those that can be made here; of the others ``left_out`` says why.  ``cluster``: PostgreSQL, if it is there."""
    found = [
        Kind("ledgers", "SQLite", {"kind": "sqlite", "rows": {"entries": ROWS}}, _ledger,
             {COMPANION: _without("*-wal")}),
        Kind("documents", "file trees",
             {"kind": "command", "argv": ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]},
             _documents, {COMPANION: _without("*.txt")}),
        Kind("tables", "CSV", {"kind": "python", "entry": f"{tables.__name__}:{tables.read.__name__}"},
             tables.write, {COMPANION: _without(tables.DESCRIPTOR), CUT: _cut}),
        Kind("letters", "tar archives", {"kind": "tar"}, _tarball, {CUT: _cut}),
        Kind("forms", "zip archives", {"kind": "zip"}, _zipped, {CUT: _cut}),
        Kind("services", "services",
             {"kind": "http", "argv": [sys.executable, "-I", "service.py", "{port}"], "contains": "records"},
             _service, {TARGET: _elsewhere, COMPANION: _without("records.json")}),
    ]  # fmt: skip
    if find_spec("pyarrow") is not None:
        found.append(Kind("soundings", "Parquet", {"kind": "parquet", "rows": ROWS}, _columns, {CUT: _cut}))
    else:
        left_out.append("Parquet: pyarrow is not installed")
    if cluster is not None:
        query = f"SELECT count(*) >= {ROWS} FROM visits JOIN places ON places.id = place"
        found.append(Kind("visits", "PostgreSQL dumps", {"kind": "postgres", "query": query}, _dump(cluster),
                          {CUT: _cut}))  # fmt: skip
    return found
