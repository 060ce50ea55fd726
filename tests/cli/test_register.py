"""``snapvault register``, and what goes by it: backup, push and forget with --all."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
from machines import Machine, tree_of

FILE = """
schema = 1
[defaults]
rpo = "24h"
sites = ["second"]
retention = {{last = 1}}
[datasets.docs]
source = "{root}/docs"
owner = "Ada"
[datasets.pics]
source = ["{root}/pics"]
drill = {{every = "30d"}}
[datasets.dump]
[datasets.web]
source = "/srv/web"
host = "elsewhere"
"""


@pytest.fixture
def file(cli: Machine, repo: Path, tmp_path: Path) -> Path:
    """A declaration of four datasets, two of which have their sources here."""
    for name in ("docs", "pics"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "snapvault.toml").write_text(FILE.format(root=tmp_path))
    return tmp_path / "snapvault.toml"


@pytest.fixture
def imported(cli: Machine, file: Path) -> Path:
    done = cli("register", "import", file)
    assert done.code == 0 and "added: docs, pics, dump, web" in done.out and "revision 1" in done.out, done
    return file


def add(file: Path, text: str) -> None:
    file.write_text(file.read_text() + text)


def test_import_list_and_retire(cli: Machine, imported: Path) -> None:
    assert "no change" in cli("register", "import", imported).out
    listed = cli("register", "list").out.splitlines()
    assert listed[1].split() == ["docs", "Ada", "1d", "second", str(imported.parent / "docs")]
    assert "full every 30d" in listed[2] and listed[-1].startswith("4 datasets declared; revision 1 of ")
    done = cli("register", "retire", "web", "--reason", "switched off")
    assert done.code == 0 and "retired: web" in done.out and "revision 2" in done.out
    assert "switched off" in cli("register", "list", "--retired").out
    assert "web" not in cli("register", "list").out
    done = cli("register", "import", imported, "--dry-run")
    assert "would be declared again, though once retired: web" in done.out and "nothing was written" in done.out
    assert cli("register", "list", "--json").summary["revision"] == 2
    text = imported.read_text()
    assert 'owner = "Ada"' in text
    imported.write_text(text.replace('owner = "Ada"', 'owner = "Bob"\nrpo = "36h"\nsites = []', 1))
    done = cli("register", "import", imported, "--dry-run")
    changed = "would be changed: docs\n  docs: owner Ada -> Bob; rpo 1d -> 36h; sites second -> none\n"
    assert changed in done.out, done


def test_a_row_that_disappears(cli: Machine, imported: Path) -> None:
    imported.write_text(imported.read_text().replace("[datasets.dump]\n", ""))
    done = cli("register", "import", imported)
    assert done.code == 2 and "dump" in done.err and "register retire dump --reason TEXT" in done.err


@pytest.mark.parametrize("form", ["toml", "json"])
def test_what_is_exported_can_be_imported(cli: Machine, imported: Path, tmp_path: Path, form: str) -> None:
    exported = tmp_path / f"exported.{form}"
    exported.write_bytes(cli("register", "list", "--export", form).stdout)
    assert "no change" in cli("register", "import", exported).out


def test_faults_are_all_listed_and_nothing_is_imported(cli: Machine, imported: Path, tmp_path: Path) -> None:
    before = tree_of(tmp_path / "store")
    rows = "".join(f"d{n},soon\n" for n in range(15))
    (tmp_path / "inventory.csv").write_text(f"name,rpo\nfine,24h\n{rows}")
    done = cli("register", "import", tmp_path / "inventory.csv")
    assert done.code == 2 and "15 faults in" in done.err and "refused as a whole" in done.err
    assert all(f"row {n + 3}, d{n}.rpo: 'soon' is no span of time" in done.err for n in range(15))
    told = cli("register", "import", tmp_path / "inventory.csv", "--json")
    assert [r["code"] for r in told.records] == ["refused"] * 15 + ["invalid-input"]
    assert told.records[0]["path"] == "row 3, d0.rpo" and told.records[-1]["exit_code"] == 2
    add(imported, "[datasets.DOCS]\n")
    assert "only its case tells it from docs" in cli("register", "import", imported).err
    assert tree_of(tmp_path / "store") == before


def test_an_inventory_in_another_encoding_and_with_other_columns(cli: Machine, repo: Path, tmp_path: Path) -> None:
    data = "System;Wer;Ort\norders;J\u00fcrgen;Keller\n".encode("cp1252")
    (tmp_path / "i.csv").write_bytes(data)
    done = cli("register", "import", tmp_path / "i.csv")
    assert done.code == 2 and "is not in utf-8 (line 2)" in done.err and "--encoding" in done.err
    done = cli("register", "import", tmp_path / "i.csv", "--encoding", "cp1252")
    assert done.code == 2 and "there are: System, Wer, Ort" in done.err and "--map COLUMN=name" in done.err
    done = cli(
        "register", "import", tmp_path / "i.csv", "--encoding", "cp1252", "--map", "System=name", "--map", "Wer=owner"
    )  # fmt: skip
    assert done.code == 0 and "added: orders" in done.out and "columns that are no field: Ort" in done.err
    assert cli("register", "list", "--json").records[0]["owner"] == "J\u00fcrgen"
    assert cli("register", "import", tmp_path / "i.csv", "--map", "System").code == 2
    (tmp_path / "x.toml").write_text("schema = 1")
    assert cli("register", "import", tmp_path / "x.toml", "--encoding", "utf-8").code == 2


def test_check_compares_with_snapshots_and_with_this_machine(cli: Machine, imported: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    cli("backup", "--dataset", "docs", tmp_path / "docs")
    cli("backup", "--dataset", "stray", tmp_path / "more")
    shutil.rmtree(tmp_path / "pics")
    done = cli("register", "check")
    assert done.code == 3 and done.out.splitlines() == [
        "pics: declared, and never backed up",
        f"pics: its source {tmp_path}/pics does not exist on this machine",
        "dump: declared, and never backed up",
        "web: declared, and never backed up",
        "stray: backed up, and never declared",
        "4 datasets declared, 5 differences",
    ]
    found = cli("register", "check", "--json").summary
    assert (found["never_backed_up"], found["no_source"], found["undeclared"]) == (3, 1, 1)
    # A file says what it would be.
    rows = f'docs = {{source = "{tmp_path}/docs"}}\nstray = {{}}\n'
    (tmp_path / "other.toml").write_text(f"schema = 1\n[datasets]\n{rows}")
    done = cli("register", "check", tmp_path / "other.toml")
    assert done.code == 3 and done.out.splitlines() == [
        *(f"{name}: declared until now; it has to be retired before this can be imported"
          for name in ("dump", "pics", "web")),
        "2 datasets declared, 3 differences",
    ]  # fmt: skip
    cli("register", "retire", "dump", "pics", "web", "--reason", "gone")
    done = cli("register", "check", tmp_path / "other.toml")
    assert done.code == 0 and done.out == "2 datasets declared, 0 differences\n"
    assert cli("register", "check", tmp_path / "none.toml").code == 2


def test_what_was_retired_is_not_called_undeclared(cli: Machine, imported: Path, tmp_path: Path) -> None:
    cli("backup", "--dataset", "docs", tmp_path / "docs")
    cli("register", "retire", "docs", "--reason", "archived")
    assert "docs" not in cli("register", "check").out


def test_nothing_is_declared(cli: Machine, repo: Path) -> None:
    for verb in ("register list", "register check", "backup --all", "site push --all", "forget --all"):
        done = cli(*verb.split())
        assert done.code == 2 and "nothing is declared" in done.err and "register import" in done.err, done


# -- backup --all -----------------------------------------------------------------------------------------------------


def test_all_that_has_sources_here_is_backed_up(cli: Machine, imported: Path) -> None:
    done = cli("backup", "--all", "--tag", "nightly")
    assert done.code == 0, done
    said = done.out.splitlines()
    assert said[0].startswith("docs: snapshot ") and said[1].startswith("pics: snapshot ")
    assert said[2:] == [
        "dump: not backed up here: no source is declared",
        "web: not backed up here: on elsewhere",
        "4 datasets: 2 backed up, 2 not backed up here",
    ]
    snapshots = cli("snapshots", "--json").records[:-1]
    assert [(s["dataset"], s["tags"]) for s in snapshots] == [("docs", ["nightly"]), ("pics", ["nightly"])]


def test_one_that_fails_stops_no_other(cli: Machine, imported: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "docs")
    done = cli("backup", "--all")
    assert done.code == 1 and f"docs: FAILED: '{tmp_path}/docs' cannot be read" in done.out, done
    assert "pics: snapshot " in done.out and "1 backed up, 1 failed, 2 not backed up here" in done.out
    items = cli("backup", "--all", "--json").records
    by_name = {r["dataset"]: r for r in items if r["type"] == "item"}
    assert by_name["docs"]["result"] is None and by_name["docs"]["error"]["code"] == "source-error"
    assert by_name["pics"]["error"] is None and by_name["pics"]["result"]["files_new"] == 0
    assert items[-1]["status"] == "failed" and (items[-1]["failed"], items[-1]["whole"]) == (1, 1)


def test_one_in_part_is_no_failure_and_the_gravest_code_counts(cli: Machine, file: Path, tmp_path: Path) -> None:
    add(file, f'[datasets.more]\nsource = ["{tmp_path}/docs", "{tmp_path}/none"]\n')
    cli("register", "import", file)
    done = cli("backup", "--all")
    assert done.code == 3 and "more: snapshot " in done.out and "(partial)" in done.out and "more: 1 path" in done.err
    assert cli("backup", "--all", "--json").summary["status"] == "partial"
    shutil.rmtree(tmp_path / "pics")
    assert cli("backup", "--all").code == 1


def test_only_some_of_them(cli: Machine, imported: Path) -> None:
    done = cli("backup", "--all", "--dataset", "pics", "--dataset", "dump", "--dry-run")
    assert done.code == 0 and "pics: dry run" in done.out and "docs" not in done.out and "2 datasets" in done.out
    done = cli("backup", "--all", "--dataset", "nothing")
    assert done.code == 2 and "'nothing' is not declared" in done.err
    assert cli("snapshots", "--json").summary["snapshots"] == 0


def test_the_machine_whose_paths_they_are(cli: Machine, file: Path, tmp_path: Path) -> None:
    add(file, f'[datasets.mine]\nsource = "{tmp_path}/docs"\nhost = "{socket.gethostname()}"\n')
    cli("register", "import", file)
    assert "mine: snapshot" in cli("backup", "--all").out
    done = cli("backup", "--all", "--host", "elsewhere")
    assert f"mine: not backed up here: on {socket.gethostname()}" in done.out and "web: FAILED" in done.out


def test_a_client_that_can_only_write_goes_by_a_file(cli: Machine, imported: Path, tmp_path: Path) -> None:
    cli("key", "add", "laptop", "--role", "writer", "--file", tmp_path / "laptop.key")
    done = cli("backup", "--all", "--key-file", tmp_path / "laptop.key")
    assert done.code == 13 and "--register snapvault.toml" in done.err
    done = cli("backup", "--all", "--register", imported, "--key-file", tmp_path / "laptop.key")
    assert done.code == 0 and "2 backed up" in done.out, done
    assert cli("backup", "--all", "--register", tmp_path / "none").code == 2


@pytest.mark.parametrize(
    "argv", [["x"], ["--stdin"], ["--from-command"], ["--files-from", "x"], ["--parent", "x"], ["--stdin-name", "x"]]
)
def test_what_does_not_go_with_all(cli: Machine, imported: Path, argv: list[str]) -> None:
    done = cli("backup", "--all", *argv)
    assert done.code == 2 and "--all takes its sources from the register" in done.err


def test_a_plain_backup_still_needs_its_name(cli: Machine, repo: Path, source: Path) -> None:
    for argv in ([source], ["--dataset", "a", "--dataset", "b", source], ["--dataset", "a", "--register", "x", source]):
        done = cli("backup", *argv)
        assert done.code == 2 and "one --dataset NAME, or --all" in done.err


def test_a_register_that_is_not_whole_is_told_and_the_rest_goes_on(
    cli: Machine, imported: Path, tmp_path: Path
) -> None:
    (first,) = (tmp_path / "store/repo/register").iterdir()
    add(imported, "[datasets.late]\n")
    cli("register", "import", imported)
    (last,) = set((tmp_path / "store/repo/register").iterdir()) - {first}
    shutil.rmtree(cli.home / ".cache")
    last.unlink()
    done = cli("backup", "--all")
    assert done.code == 20 and "revision 2 of the register" in done.err and "2 backed up" in done.out, done
    done = cli("forget", "--all")
    assert done.code == 1 and "nothing is forgotten by a register" in done.err
    assert cli("register", "list").code == cli("register", "check").code == 20


# -- site push --all, forget --all ------------------------------------------------------------------------------------


def test_all_sites_that_are_owed_something(cli: Machine, file: Path, tmp_path: Path) -> None:
    add(file, '[datasets.late]\nsites = ["second", "third"]\n')
    cli("register", "import", file)
    cli("backup", "--all")
    cli("site", "add", "second", tmp_path / "copy")
    cli("site", "add", "idle", tmp_path / "idle")
    done = cli("site", "push", "--all")
    assert done.code == 1 and "second: second attested by owner: 2 snapshots complete" in done.out, done
    assert "third: FAILED: 1 dataset owed there, but this machine does not know where third is" in done.out
    assert "site add third URL" in done.out and "no dataset is owed at idle" in done.err
    assert "2 sites owed a copy, 1 failed" in done.out and not (tmp_path / "idle").exists()
    cli("site", "add", "third", tmp_path / "third")
    done = cli("site", "push", "--all", "--no-attest", "--json")
    assert done.code == 0 and done.summary["status"] == "ok" and (tmp_path / "third/register").exists()
    assert [r["result"]["attestation"] for r in done.records if r["type"] == "item"] == [None, None]


def test_a_site_that_fails_stops_no_other(cli: Machine, file: Path, tmp_path: Path) -> None:
    add(file, '[datasets.late]\nsites = ["third"]\n')
    cli("register", "import", file)
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied/file").touch()
    cli("site", "add", "second", tmp_path / "occupied")
    cli("site", "add", "third", tmp_path / "third")
    done = cli("site", "push", "--all")
    assert done.code == 1 and "second: FAILED: " in done.out and "third: third attested by" in done.out, done


def test_damage_at_the_source_is_the_code_of_a_push_to_all(cli: Machine, imported: Path, tmp_path: Path) -> None:
    cli("backup", "--all")
    cli("site", "add", "second", tmp_path / "copy")
    next((tmp_path / "store/repo/packs").glob("*/*")).write_bytes(b"rotten")
    done = cli("site", "push", "--all")
    assert done.code == 20 and "damaged at the source" in done.err, done


def test_one_site_or_all(cli: Machine, imported: Path) -> None:
    assert cli("site", "push").code == cli("site", "push", "second", "--all").code == 2


def test_each_dataset_is_forgotten_by_its_own_rules(cli: Machine, file: Path, tmp_path: Path) -> None:
    add(file, f'[datasets.kept]\nsource = "{tmp_path}/docs"\nretention = {{last = 2}}\n')
    cli("register", "import", file)
    for _ in range(3):
        cli("backup", "--all")
        cli("backup", "--dataset", "stray", tmp_path / "docs")
    done = cli("forget", "--all", "--dry-run")
    assert done.code == 0 and "5 snapshots would be forgotten" in done.out, done
    assert done.out.count("no policy") == 3
    cli("forget", "--all")
    left = [s["dataset"] for s in cli("snapshots", "--json").records[:-1]]
    assert sorted(left) == ["docs", "kept", "kept", "pics", "stray", "stray", "stray"]
    for argv in (["--keep-last", "1"], ["--dataset", "docs"], ["docs@latest"], ["--keep-minimum", "2"]):
        assert cli("forget", "--all", *argv).code == 2


def test_many_datasets(cli: Machine, repo: Path, tmp_path: Path) -> None:
    rows = "".join(f"system-{n},Department {n % 17},/srv/{n},24h,second,30d\n" for n in range(3000))
    (tmp_path / "i.csv").write_text("name,owner,source,rpo,sites,drill\n" + rows)
    done = cli("register", "import", tmp_path / "i.csv")
    assert done.code == 0 and "and 2,990 more" in done.out and "3,000 datasets declared" in done.out
    assert cli("register", "check", "--json").summary["never_backed_up"] == 3000
    assert os.path.getsize(next((tmp_path / "store/repo/register").iterdir())) < 200_000
    assert len(json.loads(cli("register", "list", "--export", "json").out)["datasets"]) == 3000
