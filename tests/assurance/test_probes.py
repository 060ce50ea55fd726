"""Each built-in probe: what it passes, and the damage that it must see."""

import gzip
import io
import os
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import postgres
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from snapvault.assurance.dataset import Probe
from snapvault.assurance.probes import KINDS, NotRun, ProbeFailed, check_probe, prepared
from snapvault.assurance.probing import mutate
from snapvault.foundation.errors import InvalidInput

SERVICE = """
import http.server, pathlib, sys
data = pathlib.Path("data.txt").read_text()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
        self.wfile.write(data.encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
SERVED = {"argv": [sys.executable, "service.py", "{port}"], "path": "/health", "contains": "alive"}


def make_sqlite(root: Path) -> None:
    with closing(sqlite3.connect(root / "orders.db")) as db:
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, text)")
        db.executemany("INSERT INTO orders (text) VALUES (?)", [(f"order {i}",) for i in range(500)])
        db.commit()


def make_tar(root: Path, name: str = "a.tar", compress: Callable[[bytes], bytes] = bytes) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for i in range(3):
            info = tarfile.TarInfo(f"member {i}")
            info.size = 2000
            archive.addfile(info, io.BytesIO(os.urandom(2000)))
    (root / name).write_bytes(compress(plain.getvalue()))


def make_zip(root: Path) -> None:
    with zipfile.ZipFile(root / "a.zip", "w") as archive:
        archive.writestr("one", os.urandom(3000))
        archive.writestr("two", b"2" * 3000)


def make_parquet(root: Path) -> None:
    table = pyarrow.table({"id": list(range(1000)), "name": [f"name {i}" for i in range(1000)]})
    pyarrow.parquet.write_table(table, root / "a.parquet", write_page_checksum=True)


def make_service(root: Path) -> None:
    (root / "service.py").write_text(SERVICE)
    (root / "data.txt").write_text("it is alive")


def make_files(root: Path) -> None:
    (root / "check.sh").write_text("grep -q complete list.txt\n")
    (root / "list.txt").write_text("one\ntwo\ncomplete\n")


Kind = tuple[str, dict[str, Any], Callable[[Path], None], dict[str, int | str]]
GOOD: list[Kind] = [
    ("sqlite", {"rows": {"orders": 500}}, make_sqlite, {"databases": 1, "tables": 1, "rows": 500}),
    ("tar", {}, make_tar, {"archives": 1, "members": 3, "bytes": 6000}),
    ("zip", {"members": 2}, make_zip, {"archives": 1, "members": 2, "bytes": 6000}),
    ("parquet", {"rows": 1000}, make_parquet, {"files": 1, "rows": 1000}),
    ("http", SERVED, make_service, {"status": 200, "bytes": 11}),
    ("command", {"argv": ["grep", "-q", "complete", "{root}/list.txt"]}, make_files, {}),
    ("python", {"entry": "tests.assurance.test_probes:count_lines"}, make_files, {"lines": 3, "first": "one"}),
]
EVERY = pytest.mark.parametrize(("kind", "options", "make", "facts"), GOOD, ids=[g[0] for g in GOOD])


def count_lines(root: Path) -> dict[str, Any]:
    """A probe of somebody's own."""
    lines = (root / "list.txt").read_text().splitlines()
    if "complete" not in lines:
        raise ValueError("the list is not complete")
    return {"lines": len(lines), "first": lines[0]}


@EVERY
def test_a_good_one_passes(tmp_path: Path, kind: str, options: Any, make: Any, facts: Any) -> None:
    make(tmp_path)
    assert prepared(kind, options)(tmp_path) == facts


@EVERY
def test_an_empty_folder_does_not(tmp_path: Path, kind: str, options: Any, make: Any, facts: Any) -> None:
    with pytest.raises((ProbeFailed, NotRun, FileNotFoundError)):
        prepared(kind, options)(tmp_path)


@EVERY
def test_a_mutated_copy_does_not(tmp_path: Path, kind: str, options: Any, make: Any, facts: Any) -> None:
    make(tmp_path)
    sizes = {p: p.stat().st_size for p in tmp_path.iterdir()}
    mutate(tmp_path, "seed")
    assert {p: p.stat().st_size for p in tmp_path.iterdir()} == sizes
    with pytest.raises((ProbeFailed, NotRun, ValueError)):
        prepared(kind, options)(tmp_path)


@pytest.mark.parametrize(
    ("kind", "make"),
    [("sqlite", make_sqlite), ("tar", make_tar), ("zip", make_zip), ("parquet", make_parquet)],
    ids=["sqlite", "tar", "zip", "parquet"],
)
def test_one_that_is_cut_short_does_not(tmp_path: Path, kind: str, make: Any) -> None:
    make(tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for size in (len(whole) // 2, 3):
        path.write_bytes(whole[:size])
        with pytest.raises(ProbeFailed):
            prepared(kind, {})(tmp_path)


@pytest.mark.parametrize(
    ("name", "compress"), [("a.tar.gz", gzip.compress), ("a.tar.zst", zstandard.compress), ("a.tgz", gzip.compress)]
)
def test_compressed_archives(tmp_path: Path, name: str, compress: Any) -> None:
    make_tar(tmp_path, name, compress)
    assert prepared("tar", {})(tmp_path)["members"] == 3
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-6])
    with pytest.raises(ProbeFailed):
        prepared("tar", {})(tmp_path)


def test_a_tar_that_ends_between_two_members(tmp_path: Path) -> None:
    """tarfile takes that for the end."""
    make_tar(tmp_path)
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[: 2 * (512 + 2048)])
    with pytest.raises(ProbeFailed, match="ends early"):
        prepared("tar", {})(tmp_path)


@pytest.mark.parametrize(
    ("kind", "options", "make"),
    [
        ("sqlite", {"rows": {"orders": 501}}, make_sqlite),
        ("sqlite", {"rows": {"customers": 0}}, make_sqlite),
        ("tar", {"members": "4"}, make_tar),  # from a table of texts
        ("zip", {"members": 3}, make_zip),
        ("parquet", {"rows": 1001}, make_parquet),
        ("http", {**SERVED, "contains": "dead"}, make_service),
        ("http", {**SERVED, "path": "/"}, make_service),
        ("command", {"argv": ["false"]}, make_files),
        ("python", {"entry": "tests.assurance.test_probes:say_no"}, make_files),
    ],
)
def test_less_than_was_asked_for(tmp_path: Path, kind: str, options: Any, make: Any) -> None:
    make(tmp_path)
    with pytest.raises(ProbeFailed):
        prepared(kind, options)(tmp_path)


def say_no(root: Path) -> bool:
    return False


def test_a_database_that_breaks_its_own_rules(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        db.executescript("CREATE TABLE a (x); INSERT INTO a VALUES (NULL); PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE a (x NOT NULL)'")
        db.commit()
    with pytest.raises(ProbeFailed, match=r"NULL value in a\.x"):
        prepared("sqlite", {})(tmp_path)


def test_a_database_with_a_broken_reference(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        db.execute("CREATE TABLE a (id INTEGER PRIMARY KEY)")
        db.execute("CREATE TABLE b (a REFERENCES a)")
        db.execute("INSERT INTO b VALUES (7)")
        db.commit()
    with pytest.raises(ProbeFailed, match="table b"):
        prepared("sqlite", {})(tmp_path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("command", {"argv": ["no-such-program"]}),
        ("command", {"argv": ["sh", "-c", "exit 77"]}),
        ("http", {"argv": ["no-such-program"]}),
        ("python", {"entry": "no_such_module:probe"}),
        ("python", {"entry": "json:no_such_function"}),
        ("tar", {"path": "/etc/*"}),
    ],
)
def test_what_cannot_tell_is_not_run(tmp_path: Path, kind: str, options: Any) -> None:
    with pytest.raises(NotRun):
        prepared(kind, options)(tmp_path)


def test_a_missing_package_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_parquet(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(NotRun, match=r"snapvault\[probes\]"):
        prepared("parquet", {})(tmp_path)


@pytest.mark.parametrize(
    "probe",
    [
        Probe("sql"), Probe("tar", {"members": "many"}), Probe("tar", {"path": 3}), Probe("command", {}),
        Probe("command", {"argv": "rm -rf /"}), Probe("sqlite", {"rows": ["a"]}), Probe("zip", {"pth": "a"}),
    ],
    ids=str,
)  # fmt: skip
def test_options_that_are_wrong(probe: Probe) -> None:
    with pytest.raises(InvalidInput, match=probe.kind):
        check_probe(probe)


def test_every_kind_is_known() -> None:
    assert set(KINDS) == {g[0] for g in GOOD} | {"postgres"}


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dump of a real database, plain and in pg_dump's own format."""
    folder = tmp_path_factory.mktemp("dump")
    sql = (
        "CREATE ROLE clerk; CREATE TABLE orders (id int PRIMARY KEY, text text); ALTER TABLE orders OWNER TO clerk; "
        "INSERT INTO orders SELECT n, 'order ' || n FROM generate_series(1, 400) n"
    )
    with postgres.server(tmp_path_factory.mktemp("postgres") / "server") as env:
        env = {**os.environ, **env}
        subprocess.run(["psql", "-q", "-d", "postgres", "-c", sql], check=True, env=env)
        for name, form in (("plain.sql", "plain"), ("own.dump", "custom")):
            subprocess.run(["pg_dump", f"--format={form}", "-f", folder / name, "postgres"], check=True, env=env)
    return folder


COUNTED = {"query": "SELECT count(*) FROM orders", "expect": "400"}


@pytest.mark.parametrize(
    ("name", "options"),
    [("plain.sql.gz", {"roles": ["clerk"], **COUNTED}), ("own.dump", COUNTED)],
    ids=["plain, compressed", "custom"],
)
def test_a_dump_is_loaded_and_asked(dump: Path, tmp_path: Path, name: str, options: Any) -> None:
    data = (dump / name.removesuffix(".gz")).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    facts = prepared("postgres", options)(tmp_path)
    assert facts["answer"] == "400" and "PostgreSQL" in str(facts["version"])


def test_a_dump_that_lacks_something(dump: Path, tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text((dump / "plain.sql").read_text().replace("7\torder 7\n", ""))
    with pytest.raises(ProbeFailed, match=r"answered '399'.*'400'"):
        prepared("postgres", {"roles": ["clerk"], **COUNTED})(tmp_path)


def test_a_dump_that_was_cut_short(dump: Path, tmp_path: Path) -> None:
    """psql would load a plain one without a word."""
    for name, original, reason in (("a.sql", "plain.sql", "cut short"), ("a.dump", "own.dump", "cannot be loaded")):
        data = (dump / original).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(ProbeFailed, match=reason):
            prepared("postgres", {"path": name})(tmp_path)


def test_a_dump_that_is_no_text_any_more(tmp_path: Path) -> None:
    """psql quotes what it cannot make sense of."""
    (tmp_path / "a.sql").write_bytes(b"\\\xd0\xff\xfe\n")
    with pytest.raises(ProbeFailed, match="cannot be loaded"):
        prepared("postgres", {})(tmp_path)


def test_two_dumps_need_a_name(dump: Path) -> None:
    with pytest.raises(NotRun, match="path"):
        prepared("postgres", {})(dump)
