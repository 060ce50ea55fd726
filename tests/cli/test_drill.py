"""Drills and evidence on the command line: what a person reads, and what a script goes by."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from machines import PYTHON, Done, Machine

SQLITE = 'probe = {kind = "sqlite", rows = {t = 3}}'


@pytest.fixture
def orders(cli: Machine, repo: Path, tmp_path: Path) -> Path:
    """A dataset that was backed up; drills have a place of their own."""
    root = tmp_path / "orders"
    root.mkdir()
    with closing(sqlite3.connect(root / "a.db")) as db:
        db.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1), (2), (3)")
    (root / "file").write_bytes(os.urandom(5000))
    assert cli("backup", "--dataset", "orders", root).code == 0
    cli.env["SNAPVAULT_SCRATCH_DIR"] = str(tmp_path / "scratch")
    return root


def declare(cli: Machine, **datasets: str) -> None:
    """Register datasets, each with the lines that say what it is."""
    text = "".join(f"[datasets.{name}]\n{lines}\n" for name, lines in datasets.items())
    path = cli.home / "snapvault.toml"
    path.write_text(f"schema = 1\n{text}")
    assert cli("register", "import", path).code == 0


def outcomes(done: Done) -> dict[str, str]:
    return {r["dataset"]: r["outcome"] for r in done.records if r["type"] == "item"}


def test_a_dataset_that_was_never_declared(cli: Machine, orders: Path) -> None:
    done = cli("drill", "orders")
    assert done.code == 0 and done.err == ""
    assert re.fullmatch(r"orders: passed \(full\): 2 files, .* KiB in .* s\n1 drill: 1 passed\n", done.out), done.out
    listed = cli("evidence", "list")
    assert listed.code == 0 and re.search(r"orders +- +full +pass .* owner +1\n1 result\n$", listed.out), listed.out


def test_what_is_declared_says_how_far(cli: Machine, orders: Path) -> None:
    declare(cli, orders=f'rpo = "24h"\nrto = "1h"\ndrill = {{every = "7d", level = "sample"}}\n{SQLITE}')
    done = cli("drill", "orders")
    assert done.code == 0 and "(sample, part " in done.out and "drilled within 70 days" in done.out
    assert "passed (alive)" in cli("drill", "orders", "--level", "alive").out
    assert "passed (structure): " in cli("drill", "orders", "--level", "structure").out


@pytest.mark.parametrize(
    ("lines", "code", "status", "said"),
    [
        ('probe = {kind = "sqlite", rows = {t = 4}}', 22, "failed", "FAILED (alive): .*\n  probe: table t has 3 rows"),
        (f'rto = "60s"\nrpo = "60s"\n{SQLITE}', 21, "breached", "FAILED (alive): .*\n  freshness: .* 2 days old"),
        ('probe = {kind = "command", argv = ["true"]}', 3, "partial", "NOT RUN (alive): .*\n  probe: .* proves noth"),
        ('probe = {kind = "python", entry = "no.such:entry"}', 3, "partial", "NOT RUN (alive): .*\n  probe: .* import"),
    ],
    ids=["failed", "breached", "proves nothing", "no probe"],
)  # fmt: skip
def test_exit_codes(cli: Machine, orders: Path, lines: str, code: int, status: str, said: str) -> None:
    if "rpo" in lines:
        cli("forget", "orders@latest")
        cli("backup", "--dataset", "orders", "--time", "2026-01-01T00:00", orders)
        said = said.replace("2 days", r"\d+ days")
    declare(cli, orders=lines)
    done = cli("drill", "orders")
    assert done.code == code and re.search("orders: " + said.replace("(alive)", r"\(alive\)"), done.out), done
    assert cli("drill", "orders", "--json").summary["status"] == status


def test_damaged_data(cli: Machine, orders: Path, repo: Path) -> None:
    for pack in repo.glob("packs/*/*"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 4 :] = bytes(len(data) - len(data) // 4)
        pack.write_bytes(data)
    done = cli("drill", "orders")
    assert done.code == 20 and "orders: FAILED" in done.out and "lost" in done.out


def test_one_that_fails_stops_no_other(cli: Machine, orders: Path) -> None:
    good = f'drill = {{every = "7d"}}\n{SQLITE}'
    declare(
        cli, never='drill = {every = "7d"}', orders=good, unruled=SQLITE,
        hanging='drill = {every = "7d"}\nprobe = {kind = "command", argv = ["sleep", "1000"], timeout = "1s"}',
    )  # fmt: skip
    cli("backup", "--dataset", "hanging", orders)
    first = cli("drill", "--due", "--json")
    assert first.code == 22 and outcomes(first) == {"never": "fail", "orders": "pass", "hanging": "fail"}
    counts = {k: first.summary[k] for k in ("drills", "passed", "failed", "not_run", "status")}
    assert counts == {"drills": 3, "passed": 1, "failed": 2, "not_run": 0, "status": "failed"}
    again = cli("drill", "--due", "--jobs", 2, "--json")
    assert again.code == 22 and outcomes(again) == {"never": "fail", "hanging": "fail"}, "what passed is not due"
    declare(cli, orders=good, unruled=SQLITE, never="", hanging="")
    done = cli("drill", "--due")
    assert (done.code, done.out) == (0, "no drill is due\n")


def test_at_a_site(cli: Machine, orders: Path, repo: Path, tmp_path: Path) -> None:
    declare(cli, orders=f'sites = ["second"]\ndrill = {{every = "7d"}}\n{SQLITE}')
    cli("site", "add", "second", tmp_path / "copy")
    cli("site", "push", "second")
    assert cli("drill", "--due").code == 0
    shutil.rmtree(repo / "packs")
    done = cli("drill", "--due", "--site", "second")
    assert done.code == 0 and done.out.startswith("orders at second: passed (alive)"), done
    last = cli("evidence", "list", "--last", "--json").records[:-1]
    assert [(r["site"], r["place"]) for r in last] == [("second", str(tmp_path / "copy")), ("", str(repo))]
    assert cli("drill", "orders", "--site", "third").code == 2


def test_a_site_that_is_the_repository_itself(cli: Machine, orders: Path, repo: Path, tmp_path: Path) -> None:
    """Else a drill here would stand as one of a copy that nobody has."""
    link = tmp_path / "link"
    assert cli("site", "add", "second", link).code == 0  # which would refuse it if it were the repository already
    link.symlink_to(repo)
    for place in (repo, link):
        done = cli("-r", place, "drill", "orders", "--site", "second")
        assert done.code == 2 and "is the repository itself" in done.err
    assert cli("evidence", "list").out == "0 results\n"


def test_a_snapshot_that_cannot_be_read_may_have_been_the_newest(cli: Machine, orders: Path, repo: Path) -> None:
    assert cli("backup", "--dataset", "orders", orders).code == 0
    newest = cli("snapshots", "--json").records[-2]["id"]
    path = repo / "snapshots" / newest
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    done = cli("drill", "orders", "--no-cache")
    assert done.code == 20 and newest in done.err and "orders: passed" in done.out


def test_damage_is_drawn_by_the_seed(cli: Machine, orders: Path) -> None:
    drawn = [cli("drill", "orders", "--seed", seed, "--json").records[-2]["control"]["store"] for seed in ("a", "b")]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "name datasets to drill, or give --due"), (("orders", "--due"), "name datasets to drill, or give --due"),
        (("payments",), "neither declared nor was it ever backed up"), (("--due",), "nothing is declared"),
        (("orders", "--quota", "much"), "no size"), (("orders", "--level", "half"), "'half'"),
        (("orders", "--scratch", "/proc/1/root/nowhere/file"), "scratch place"),
    ],
)  # fmt: skip
def test_bad_input(cli: Machine, orders: Path, argv: tuple[str, ...], said: str) -> None:
    if "--scratch" in argv:
        argv = ("orders", "--scratch", str(orders / "file"))
    done = cli("drill", *argv)
    assert done.code == 2 and said in done.err, done
    assert list(cli("evidence", "list", "--json").records[:-1]) == []


def test_a_writer_may_not(cli: Machine, orders: Path, tmp_path: Path) -> None:
    cli("key", "add", "client", "--role", "writer", "--file", tmp_path / "client.key")
    done = cli("drill", "orders", "--key-file", tmp_path / "client.key")
    assert done.code == 13 and "writer" in done.err


def test_evidence_for_others(cli: Machine, orders: Path, repo: Path, tmp_path: Path) -> None:
    for _ in range(3):
        cli("drill", "orders", "--level", "structure")
    done = cli("evidence", "verify")
    assert (done.code, done.out) == (0, "3 records with 3 results: all are signed, and none is missing\n")
    for name in ("a.json", "a.html"):
        done = cli("evidence", "export", tmp_path / name, "--dataset", "orders")
        assert done.code == 0 and done.out == f"{tmp_path / name}: 3 results in 3 records of 3\n"
    assert json.loads((tmp_path / "a.json").read_text())["format"] == "snapvault evidence 1"
    assert cli("evidence", "export", tmp_path / "a.pdf").code == 2
    record = json.loads((tmp_path / "a.json").read_text())["records"][1]["name"]
    (repo / record).unlink()
    for verb in (("verify",), ("list",), ("export", tmp_path / "b.json"), ("export", tmp_path / "b.html")):
        done = cli("evidence", *verb)
        assert done.code == 20 and f"{record} is missing" in done.out + done.err, done
    assert cli("drill", "orders").err.startswith(f"warning: {record} is missing")


def test_a_result_that_was_whole_once_is_not_left_out_unsaid(cli: Machine, orders: Path, repo: Path) -> None:
    """The table in the cache still knows it; its object is gone from there, and damaged in the store."""
    cli("drill", "orders", "--level", "structure")
    (record,) = (repo / "evidence").iterdir()
    record.write_bytes(record.read_bytes()[:-1] + bytes([record.read_bytes()[-1] ^ 1]))
    for kept in [p for p in cli.home.rglob(record.name) if repo not in p.parents]:
        kept.unlink()
    done = cli("evidence", "list")
    assert done.code == 20 and record.name in done.err and done.out == "0 results\n"


def started(cli: Machine, *argv: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*PYTHON, *map(str, argv)], env={**os.environ, **cli.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def waiting(tmp_path: Path) -> tuple[Path, str]:
    """A probe that says when it runs, and goes on for ever."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    return fifo, f'probe = {{kind = "command", argv = ["sh", "-c", "echo here > {fifo}; sleep 1000"]}}'


def test_a_drill_that_is_killed_says_nothing_and_leaves_nothing(cli: Machine, orders: Path, tmp_path: Path) -> None:
    fifo, probe = waiting(tmp_path)
    declare(cli, orders=probe)
    with started(cli, "drill", "orders") as drill:
        assert fifo.read_text() == "here\n"
        drill.kill()
    assert list((tmp_path / "scratch").iterdir()) != []
    assert cli("evidence", "list", "--json").records[:-1] == []
    assert cli("drill", "orders", "--level", "full").code == 0
    assert list((tmp_path / "scratch").iterdir()) == []


def test_an_interrupted_run_signs_what_was_found(cli: Machine, orders: Path, tmp_path: Path) -> None:
    fifo, probe = waiting(tmp_path)
    declare(cli, orders="", slow=probe)
    cli("backup", "--dataset", "slow", orders)
    with started(cli, "drill", "orders", "slow") as drill:
        assert fifo.read_text() == "here\n"
        drill.send_signal(signal.SIGINT)
        out, _ = drill.communicate(timeout=60)
    assert drill.returncode == 130 and out.startswith("orders: passed")
    (one,) = cli("evidence", "list", "--json").records[:-1]
    assert (one["dataset"], one["outcome"]) == ("orders", "pass")
    assert list((tmp_path / "scratch").iterdir()) == []
