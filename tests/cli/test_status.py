"""``snapvault status``: what it prints and writes, and the gate that its exit code is."""

from pathlib import Path

import pytest
from machines import Machine

FILE = """
schema = 1
[datasets.orders]
source = "{source}"
rpo = "{rpo}"
"""


@pytest.fixture
def declared(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> Path:
    """A file that declares one dataset, and is imported."""
    file = tmp_path / "snapvault.toml"
    file.write_text(FILE.format(source=source, rpo="24h"))
    assert cli("register", "import", file).code == 0
    return file


def test_nothing_is_declared(cli: Machine, repo: Path) -> None:
    done = cli("status")
    assert done.code == 2
    assert "nothing is declared" in done.err
    assert "register import" in done.err


def test_a_gate(cli: Machine, declared: Path, source: Path) -> None:
    done = cli("status")
    assert done.code == 21  # never backed up
    assert done.out.startswith("0 of 1 can be brought back within their objectives; 1 never backed up.\n")
    assert "next: snapvault backup --all --dataset orders" in done.out
    assert cli("backup", "--all").code == 0
    assert cli("status").code == 3  # nobody knows more
    assert cli("backup", "--dataset", "orders", "--time", "2020-01-01", source).code == 0
    assert cli("status").code == 3  # the newest counts


def test_a_drill_that_failed(cli: Machine, declared: Path, tmp_path: Path) -> None:
    """The key of the fixture cannot sign; a password can."""
    cli.env = {k: v for k, v in cli.env.items() if k != "SNAPVAULT_KEY_FILE"}
    declared.write_text(declared.read_text() + 'probe = {kind = "sqlite"}\n')
    assert cli("register", "import", declared).code == 0
    assert cli("backup", "--all").code == 0
    assert cli("drill", "orders", "--scratch", tmp_path).code == 22
    done = cli("status")
    assert done.code == 22
    assert "there is no SQLite database" in done.out
    assert "next: snapvault evidence list orders" in done.out


def test_damage_of_the_register(cli: Machine, declared: Path, repo: Path) -> None:
    declared.write_text(declared.read_text() + 'owner = "Ada"\n')
    assert cli("register", "import", declared).code == 0
    path = next((repo / "register").iterdir())
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    done = cli("status", "--no-cache")
    assert done.code == 20
    assert "damaged: register/" in done.out.replace("\n", " ")


def test_json_has_what_the_page_has(cli: Machine, declared: Path) -> None:
    done = cli("status", "--json")
    assert (done.code, done.err) == (21, "")
    (item, summary) = done.records
    assert (item["dataset"], item["reached"], item["recoverable"]) == ("orders", "declared", False)
    assert item["problems"][0]["kind"] == "never-backed-up"
    assert (summary["status"], summary["datasets"], summary["recoverable"]) == ("breached", 1, 0)
    assert [level["datasets"] for level in summary["funnel"]] == [1, 0, 0, 0, 0, 0]


def test_files_are_whole_and_readable_for_others(cli: Machine, declared: Path, tmp_path: Path) -> None:
    page, metrics = tmp_path / "board.html", tmp_path / "snapvault.prom"
    page.write_text("old")
    done = cli("status", "--html", page, "--prometheus", metrics)
    assert done.code == 21
    assert page.read_text().startswith("<!doctype html>")
    assert page.read_text().endswith("</html>\n")
    assert "snapvault_datasets_recoverable" in metrics.read_text()
    assert (page.stat().st_mode & 0o777, metrics.stat().st_mode & 0o777) == (0o644, 0o644)
    assert sorted(p.name for p in tmp_path.iterdir() if "board" in p.name or "prom" in p.name) == [
        "board.html", "snapvault.prom",
    ]  # fmt: skip


def test_a_file_that_cannot_be_written(cli: Machine, declared: Path, tmp_path: Path) -> None:
    done = cli("status", "--html", tmp_path)
    assert done.code == 2
    assert "no name of a file" in done.err
    done = cli("status", "--prometheus", tmp_path / "nowhere/board.prom")
    assert done.code == 1
    assert "No such file or directory" in done.err
