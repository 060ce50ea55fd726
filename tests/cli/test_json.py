"""The JSON lines are what docs/json.md says, field by field."""

import base64
import json
import os
import re
from pathlib import Path

import pytest
from machines import Machine

import snapvault
from snapvault.cli.main import VERBS

PAGE = Path(snapvault.__file__).parents[1] / "docs/json.md"
ROW = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
OPTIONAL = {"recovery_key", "recovery_key_file", "file", "pruned", "attestation"}


def documented() -> dict[tuple[str, str], set[str]]:
    """Fields by command and type; what stands in parentheses is a remark."""
    found = {}
    for commands, kind, fields in ROW.findall(PAGE.read_text().partition("## Fields")[2]):
        names = set(re.findall(r"`(\w+)`", re.sub(r"\((?!or `)[^)]*\)", "", fields)))
        for command in commands.replace("`", "").split(", "):
            found[command, kind.replace("`", "")] = names
    return found


def check(records: list[dict[str, object]], command: str, kinds: dict[str, str]) -> None:
    """Every record has the documented fields of its kind, and the last one is the summary."""
    page = documented()
    assert records[-1]["type"] == "summary" and [r["type"] for r in records].count("summary") == 1
    for record in records:
        assert record["schema"] == 1
        kind = kinds.get(str(record["type"]), str(record["type"]))
        fields = page.get((command, kind)) or page["all", kind]
        given = set(record) - {"type", "schema", "path_base64"}
        assert given - OPTIONAL == fields - OPTIONAL and given <= fields, (command, kind)


def test_every_code_of_an_error_is_on_the_page() -> None:
    package = Path(snapvault.__file__).parent
    sources = (p.read_text() for p in package.rglob("*.py"))
    codes = {code for text in sources for code in re.findall(r'^    code\b[^=\n]*= "([a-z-]+)"', text, re.MULTILINE)}
    assert {"error", "damaged", "cancelled"} <= codes  # else this would look at nothing
    listed = PAGE.read_text().partition("`code` of the error that ends a command")[2].partition("\n\n")[0]
    assert codes == set(re.findall(r"`([a-z-]+)`", listed))


def test_every_verb(cli: Machine, repo: Path, source: Path, tmp_path: Path) -> None:
    def run(verb: str, *argv: object, code: int = 0, **kinds: str) -> list[dict[str, object]]:
        done = cli(*verb.split(), "--json", *argv)
        assert done.code == code and done.err == "", done
        check(done.records, verb, kinds)
        return done.records

    del cli.env["SNAPVAULT_KEY_FILE"]
    run("init", "-r", tmp_path / "one")
    run("init", "-r", tmp_path / "two", "--recovery-key-file", tmp_path / "two.key")
    cli.env["SNAPVAULT_KEY_FILE"] = str(tmp_path / "store/recovery.key")
    (first, *_, last) = run("backup", "--dataset", "d", source, tmp_path / "vanished", code=3, error="error of a path")
    assert {first["type"], last["status"], last["issues"]} == {"progress", "partial", 1}
    (source / "a.txt").unlink()
    (source / "a.txt").mkdir()
    run("backup", "--dataset", "d", source)
    snapshots = run("snapshots")
    run("ls", "d@latest", "-R")
    *_, total = run("diff", snapshots[0]["id"], snapshots[1]["id"])
    assert total["type_changed"] == 1 and total["type"] == "summary"
    run("restore", "d@latest", "-t", tmp_path / "out", "--dry-run", item="item (of a dry run)")
    run("restore", "d@latest", "-t", tmp_path / "out")
    run("check", "--read-data")
    run("check", "--no-key")
    run("snapshots tag", "d@latest", "good")
    run("snapshots hold", "d@latest")
    run("snapshots release", "d@latest")
    run("forget", snapshots[0]["id"])
    run("forget", "--keep-last", 1, item="item (of rules)")
    gone = run("snapshots", "--forgotten", item="item (--forgotten)", summary="summary (--forgotten)")
    run("snapshots undelete", gone[0]["id"])
    (tmp_path / "snapvault.toml").write_text(
        f'schema = 1\n[datasets.d]\nsource = "{tmp_path}/source"\nsites = ["second"]\n[datasets.e]\n'
        '[datasets.f]\nsites = ["third"]\n'
    )
    run("register import", tmp_path / "snapvault.toml")
    run("register retire", "e", "--reason", "gone")
    run("register list")
    run("register list", "--retired", item="item (--retired)")
    run("register check", code=3)
    run("status", code=21)
    run("backup", "--all", item="item (--all)", summary="summary (--all)")
    run("drill", "d", "--scratch", tmp_path / "scratch")
    run("evidence list", "d")
    run("evidence verify")
    run("evidence export", tmp_path / "evidence.json")
    run("site push", "--all", code=1, item="item (--all)", summary="summary (--all)")
    run("forget", "--all", "--dry-run", item="item (of rules)")
    run("forget", "--prune")
    run("prune", "--dry-run", summary="summary (of a dry run)")
    run("prune")
    run("key add", "reader", "--role", "reader", "--file", tmp_path / "reader.key")
    cli.env["SNAPVAULT_NEW_PASSWORD"] = "other"
    run("key add", "other", "--role", "site")
    cli.env["SNAPVAULT_NEW_PASSWORD"] = "new"
    run("key change")
    run("key list")
    run("key remove", "reader")
    run("key rotate")
    run("key rotate", "--new-recovery-key")
    del cli.env["SNAPVAULT_KEY_FILE"]  # it was replaced
    cli.env["SNAPVAULT_PASSWORD"] = "new"
    run("site add", "second", tmp_path / "copy")
    run("site push", "second")
    run("site list")
    run("check", "--no-key", "--attest", "second", "-r", tmp_path / "copy")
    run("check", "--repair-from", "second", summary="summary (--repair-from)")
    cli.env["SNAPVAULT_REPOSITORY"], here = str(tmp_path / "copy"), cli.env["SNAPVAULT_REPOSITORY"]
    run("site pull", here, "--as", "second")
    run("site promote")
    cli.env["SNAPVAULT_REPOSITORY"] = here
    run("site remove", "second")
    verbs = {*VERBS, *(f"key {v}" for v in ("list", "add", "remove", "change", "rotate"))} - {"key"}
    verbs |= {f"snapshots {v}" for v in ("tag", "hold", "release", "undelete")}
    verbs = {*verbs, *(f"site {v}" for v in ("add", "list", "remove", "push", "pull", "promote"))} - {"site"}
    verbs = {*verbs, *(f"register {v}" for v in ("import", "list", "check", "retire"))} - {"register"}
    verbs = {*verbs, *(f"evidence {v}" for v in ("list", "verify", "export"))} - {"evidence"}
    assert {v for v, _ in documented()} == verbs | {"all", "command"}  # "command" heads the table


def test_damage(cli: Machine, repo: Path, source: Path) -> None:
    cli("backup", "--dataset", "d", source)
    for pack in repo.glob("packs/*/*"):
        pack.unlink()
    done = cli("check", "--json")
    page = documented()
    items = [r for r in done.records if r["type"] == "item"]
    assert done.code == 20 and done.summary["status"] == "damaged" and {i["kind"] for i in items} == {"finding", "lost"}
    for item in items:
        kind = "item, a finding" if item["kind"] == "finding" else "item, a lost path"
        assert set(item) - {"type", "schema"} == page["check", kind]
    for options, code, kind in (
        (("--dry-run",), 20, "summary (of a repair's dry run)"),
        ((), 3, "summary (of a repair)"),
    ):
        done = cli("check", "--repair", *options, "--json")
        assert done.code == code and set(done.summary) - {"type", "schema", "verb"} == page["check", kind]
        assert [r for r in done.records if r.get("kind") == "lost"]


def test_an_error_that_ends_a_command(cli: Machine, repo: Path, tmp_path: Path) -> None:
    for argv, code, exit_code in (
        (["snapshots", "-r", tmp_path / "none"], "repository-not-found", 10),
        (["ls", "no@latest"], "invalid-input", 2),
        (["ls", "--no-such-option"], "invalid-input", 2),
    ):
        done = cli("--json", *argv)
        assert done.code == exit_code and done.err == "" and len(done.records) == 1
        assert set(done.records[0]) - {"type", "schema"} == documented()["all", "error that ends it"]
        assert (done.records[0]["code"], done.records[0]["exit_code"]) == (code, exit_code)
        assert f"`{code}`" in PAGE.read_text()


def test_every_code_is_documented() -> None:
    codes = {v.code for n in snapvault.__all__ if isinstance(v := getattr(snapvault, n), type) and hasattr(v, "code")}
    assert codes and all(f"`{code}`" in PAGE.read_text() for code in codes)


def test_a_warning(cli: Machine, repo: Path, source: Path) -> None:
    cli.env["SNAPVAULT_REPOSITORY"] = str(repo.rename(source / "repo"))
    done = cli("backup", "--json", "--dataset", "d", source)
    assert done.code == 0
    (warning,) = [r for r in done.records if r["type"] == "error"]
    assert set(warning) == {"type", "schema", "code", "message"} and warning["code"] == "warning"


def test_names_of_any_bytes_come_back(cli: Machine, repo: Path, source: Path) -> None:
    names = [b"\xff", b"a\nb", b"\xc3\xa9", b"\x1b[2J", b"\\udcff", b"plain"]
    for name in names:
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).touch()
    cli("backup", "--dataset", "d", source)
    records = cli("ls", "--json", f"d@latest:{source}").records[:-1]
    paths = {os.fsencode(r["path"]) for r in records}
    assert {os.fsencode(source) + b"/" + n for n in names} <= paths
    assert [base64.b64decode(r["path_base64"]) for r in records if "path_base64" in r] == [
        os.fsencode(source) + b"/\xff"
    ]
    text = cli("ls", f"d@latest:{source}")
    assert b"\x1b" not in text.stdout and f"{source}/\\xff" in text.out and f"{source}/a\\nb" in text.out


def test_data_on_standard_output_leaves_no_room_for_lines(cli: Machine, repo: Path, source: Path) -> None:
    cli("backup", "--dataset", "d", source)
    done = cli("restore", "--json", f"d@latest:{source}/a.txt", "--stdout")
    assert done.stdout == b"alpha\n"
    assert json.loads(done.err.splitlines()[-1])["type"] == "summary"


@pytest.mark.parametrize("where", [["--json", "snapshots"], ["snapshots", "--json"]])
def test_the_option_stands_anywhere(cli: Machine, repo: Path, where: list[str]) -> None:
    assert cli(*where).summary["snapshots"] == 0
