"""What a new user ran into: said plainly now, and taken as it is meant."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from machines import Machine, tree_of

from snapvault.cli.text import printable, unprintable


def save(machine: Machine, *argv: object, dataset: str = "d") -> str:
    done = machine("backup", "--json", "--dataset", dataset, *argv)
    assert done.code == 0, done
    return str(done.summary["snapshot"])


@pytest.fixture
def laptop(cli: Machine, repo: Path, new_machine: Callable[[str], Machine], tmp_path: Path) -> Machine:
    """A machine with a writer's key."""
    machine = new_machine("laptop")
    assert cli("key", "add", "laptop", "--role", "writer", "--file", machine.home / "client.key").code == 0
    machine.env |= {"SNAPVAULT_REPOSITORY": str(repo), "SNAPVAULT_KEY_FILE": str(machine.home / "client.key")}
    return machine


# ---- whose snapshot is it --------------------------------------------------------------------------------------------


def test_a_dataset_taken_by_another_key_is_seen(cli: Machine, laptop: Machine, source: Path) -> None:
    first = save(cli, source)
    assert "Written by" not in cli("snapshots").out and cli("ls", "d@latest").err == ""
    theirs = [save(laptop, source), save(laptop, source)]  # a second one must not silence the warning
    listed = cli("snapshots").out.splitlines()
    assert listed[0].split()[4:6] == ["Written", "by"]
    assert [(line.split()[0], line.split()[5]) for line in listed[1:4]] == [
        (first[:8], "owner"), *((sid[:8], "laptop") for sid in theirs),
    ]  # fmt: skip
    for ref in ("d@latest", "latest", "d@2100-01-01"):
        done = cli("ls", ref)
        assert done.code == 0 and done.err.startswith("warning: ") and len(done.err.splitlines()) == 1
        assert f"{theirs[-1][:8]}, was written by the key of laptop (" in done.err
        assert f"{first[:8]}, by that of owner (" in done.err and "'snapvault snapshots'" in done.err
    assert cli("ls", first).err == ""
    records = cli("snapshots", "--json").records
    assert [r["holder"] for r in records[:-1]] == ["owner", "laptop", "laptop"]
    assert len({r["holder_id"] for r in records[:-1]}) == 2
    warnings = [r for r in cli("ls", "d@latest", "--json").records if r["type"] == "error"]
    assert [w["code"] for w in warnings] == ["warning"]
    save(cli, source, dataset="own")
    assert cli("ls", "own@latest").err == ""


# ---- the parent ------------------------------------------------------------------------------------------------------


def test_a_parent_that_cannot_be_is_said(cli: Machine, laptop: Machine, source: Path) -> None:
    own, other = save(laptop, source), save(cli, source)
    assert "warning" not in laptop("backup", "--dataset", "d", "--parent", own[:8], source).err
    ignored = laptop("backup", "--dataset", "d", "--parent", other[:8], source)
    assert ignored.code == 0 and f"{other[:8]} is not the parent" in ignored.err
    refused = cli("backup", "--dataset", "d", "--parent", own, source)
    assert refused.code == 2 and "stored by another key" in refused.err


def test_an_ambiguous_parent_is_refused(
    cli: Machine, repo: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = iter(f"abcd{i:028x}" for i in range(100))
    monkeypatch.setattr("snapvault.repository.session.random", SimpleNamespace(token_hex=lambda _: next(ids)))
    a, _ = save(cli, source), save(cli, source)
    refused = cli("backup", "--dataset", "d", "--parent", a[:6], source)
    assert refused.code == 2 and "ambiguous" in refused.err
    assert cli("backup", "--json", "--dataset", "d", "--parent", a, source).summary["parent"] == a


# ---- paths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"we\xff ird\n\\x", b"\x1b[2J", "ü\u202e\t".encode(), b"back\\slash", b"a\\x41"])
def test_a_path_is_taken_as_ls_prints_it(cli: Machine, repo: Path, tmp_path: Path, name: bytes) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    (root / os.fsdecode(name)).write_bytes(name)
    save(cli, root)
    (shown,) = cli("ls", f"d@latest:{root}").out.splitlines()
    assert shown == f"{root}/{printable(os.fsdecode(name))}" and unprintable(shown) == f"{root}/{os.fsdecode(name)}"
    for path in (shown, unprintable(shown)):
        assert cli("restore", f"d@latest:{path}", "--stdout").stdout == name
        assert cli("ls", f"d@latest:{path}").out.splitlines() == [shown]
        assert cli("restore", f"d@latest:{path}", "-t", tmp_path / "out").code == 0
        assert cli("diff", "d@latest", "d@latest", "--path", path).code == 0
    assert tree_of(tmp_path / "out") == {os.fsdecode(name): name}
    missing = cli("ls", "d@latest:/no\\x41ne")
    assert missing.code == 2 and "no\\x41ne" in missing.err


def test_an_include_that_matches_nothing_is_said(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    save(cli, source)
    done = cli("restore", "d@latest", "-t", tmp_path / "out", "--include", "*.nope")
    assert done.code == 3 and "'*.nope'" in done.err and tree_of(tmp_path / "out") == {}
    streamed = cli("restore", f"d@latest:{source}", "--stdout", "--include", "*.nope")
    assert streamed.code == 3 and f"{source}: nothing in it matches" in streamed.err
    told = cli("restore", "d@latest", "-t", tmp_path / "out", "--include", "*.nope", "--json")
    assert told.summary["status"] == "partial" and told.records[0]["code"] == "incomplete"
    assert cli("restore", "d@latest", "-t", tmp_path / "out", "--include", "*.txt").code == 0


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def robbed(cli: Machine, repo: Path, tmp_path: Path) -> Path:
    """A source of which the repository lost the pack with all folders but the uppermost."""
    root = tmp_path / "many"
    for i in range(60):
        (root / f"in/d{i}").mkdir(parents=True)
        (root / f"in/d{i}/f").write_bytes(random.Random(i).randbytes(100))
    save(cli, root)
    first = set((repo / "packs").glob("*/*"))
    for i in range(60):
        (root / f"in/d{i}/g").write_bytes(random.Random(1000 + i).randbytes(100))
    shutil.rmtree(cli.home / ".cache")
    save(cli, root)
    for pack in first:
        pack.unlink()
    return root


def test_a_lost_pack_is_a_line(cli: Machine, robbed: Path, tmp_path: Path) -> None:
    done = cli("restore", "d@latest", "-t", tmp_path / "out")
    lines = done.err.splitlines()
    assert done.code == 20 and lines[0] == "60 paths lost, since stored data is damaged:"
    assert len(lines) == 2 and f"{robbed}/in/d0/f, " in lines[1] and "and 57 more" in lines[1] and "packs/" in lines[1]
    told = cli("restore", "d@latest", "-t", tmp_path / "out", "--json")
    named = {r["path"] for r in told.records if r.get("code") == "lost"}
    checked = {r["path"] for r in cli("check", "--json").records if r.get("kind") == "lost" and r["path"] in named}
    assert named == checked == {f"{robbed}/in/d{i}/f" for i in range(60)}


def test_a_parent_in_a_lost_pack_is_a_warning(cli: Machine, robbed: Path, repo: Path) -> None:
    """Not one for every folder."""
    packs = sorted((repo / "packs").glob("*/*"))
    for pack in packs:  # there, in full size, and rotten
        data = bytearray(pack.read_bytes())
        data[2000 : len(data) - 400] = bytes(len(data) - 2400)
        pack.chmod(0o600)
        pack.write_bytes(data)
    shutil.rmtree(cli.home / ".cache")
    done = cli("backup", "--dataset", "d", robbed)
    assert done.code == 0 and done.err.count("of the parent snapshot cannot be read") == 1, done.err


def test_counts_of_one(cli: Machine, repo: Path, source: Path) -> None:
    save(cli, source / "a.txt")
    for pack in (repo / "packs").glob("*/*"):
        pack.unlink()
    done = cli("--no-cache", "check")
    assert done.code == 20 and "lost entries of 1 folder" in done.out, done
    assert "1 folders" not in done.out + done.err


# ---- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["bare", "lower", "one line", "no first line", "word processor"])
def test_a_recovery_key_as_it_is_typed(cli: Machine, repo: Path, tmp_path: Path, how: str) -> None:
    key = Path(cli.env["SNAPVAULT_KEY_FILE"]).read_text().strip()
    typed = {
        "bare": "".join(c for c in key if c.isalnum()).lower(),
        "lower": key.lower().replace("-", " "),
        "one line": " ".join(key.split()),
        "no first line": "".join(key.split("\n")[1:]).replace("-", ""),
        "word processor": key.replace("-", "\u2013").replace("\n", "\u00a0\r\n\t"),
    }[how]
    (tmp_path / "typed").write_text(typed, encoding="utf-8")
    assert cli("--key-file", tmp_path / "typed", "snapshots").code == 0
    rescued = subprocess.run(
        [sys.executable, repo / "rescue-1.py", repo, "--list", "--key-file", tmp_path / "typed"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert rescued.returncode == 0, rescued.stderr


def test_no_terminal_for_a_new_password(cli: Machine, repo: Path) -> None:
    done = cli("key", "change")
    assert done.code == 2 and done.err.splitlines()[0] == (
        "snapvault: a new password is needed for the key in use, and there is no terminal to ask at"
    )
    assert "key file" not in done.err


def test_init_on_a_full_disk_says_what_to_do_and_no_key_is_lost(cli: Machine, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], check=True)
    try:
        (disk / "junk").write_bytes(bytes(64 << 10))
        full = cli("-r", disk / "repo", "init")
        assert full.code == 1 and "No space left" in full.err and "free space there, or name another place" in full.err
        key = cli("-r", tmp_path / "repo", "init", "--recovery-key-file", disk / "key")
        assert key.code == 2 and "free space there" in key.err
        assert not (tmp_path / "repo").exists() and not (disk / "key").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- help ------------------------------------------------------------------------------------------------------------


def test_the_bare_command_says_how_to_begin(cli: Machine) -> None:
    done = cli()
    assert done.code == 2 and done.out == "" and len(done.err.splitlines()) < 15
    assert all(f"snapvault {v}" in done.err for v in ("init", "backup", "restore", "check")) and "hint:" not in done.err
    group = cli("key")
    assert group.code == 2 and group.err.startswith("Usage: snapvault key")
    assert json.loads(cli("--json").out)["exit_code"] == 2


@pytest.mark.parametrize("argv", [["--help"], ["key", "--help"]])
def test_no_line_of_the_help_is_cut_off(cli: Machine, argv: list[str]) -> None:
    helped = cli(*argv)
    assert helped.code == 0
    assert [line for line in helped.out.splitlines()[1:] if line.endswith("...")] == []


def test_ls_hints_at_what_is_below(cli: Machine, repo: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(cli, source)
    assert cli("ls", "d@latest").err == ""  # a script's output is left alone
    monkeypatch.setattr("snapvault.cli.ls.on_terminal", lambda: True)
    assert "-R" in cli("ls", "d@latest").err
    assert [cli("ls", "d@latest", *more).err for more in (["-R"], ["-q"], ["--json"], ["--stats"])] == [""] * 4
    assert cli("ls", f"d@latest:{source}/a.txt").err == ""
