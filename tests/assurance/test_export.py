"""Evidence for strangers: what docs/verify_evidence.py takes, and every way to cheat that it must name."""

import base64
import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

import snapvault
from snapvault import Repository
from snapvault.format.evidence import encode_evidence
from snapvault.report.evidence_page import write_page
from snapvault.repository.keyring import HolderKeys
from tests.assurance.results import held
from tests.assurance.test_evidence import forged
from tests.repos import again, make

ROOT = Path(snapvault.__file__).parents[1]
Export = dict[str, Any]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """With four records: of the owner, of a reader, and one of two datasets."""
    place = tmp_path_factory.mktemp("export")
    found = make(place / "repo")
    snapvault.add_key(again(found), "reader", "ada", file=place / "ada")
    snapvault.add_key(again(found), "writer", "client", file=place / "client")
    reader = snapvault.open(found.url, keys=snapvault.KeyFile(place / "ada"))
    snapvault.record_evidence(again(found), [held(days_ago=4)])
    snapvault.record_evidence(reader, [held("payments", days_ago=3, value="fail")])
    snapvault.record_evidence(again(found), [held(days_ago=2), held("payments", days_ago=2)])
    snapvault.record_evidence(again(found), [held("ünïcode", days_ago=1)])
    return found


@pytest.fixture(scope="module")
def written(repo: Repository) -> Export:
    return export(repo)


def export(repo: Repository, **options: Any) -> Export:
    parts: list[str] = []
    snapvault.export_evidence(again(repo), parts.append, **options)
    return dict(json.loads("".join(parts)))


def verify(given: Export | str, place: Path, *argv: str) -> tuple[int, str]:
    """As a stranger does it, without anything of snapvault."""
    (place / "evidence.json").write_text(given if isinstance(given, str) else json.dumps(given))
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-X", "importtime", ROOT / "docs/verify_evidence.py", place / "evidence.json", *argv],
        capture_output=True, text=True, check=False, env=env, cwd=place,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "blake3" in imported and not imported & {"snapvault", "msgpack"}
    return done.returncode, done.stdout


def key_of(given: Export, name: str) -> str:
    return next(str(k["public"]) for k in given["keys"] if k["name"] == name)


def test_an_export_is_verified(written: Export, tmp_path: Path) -> None:
    code, said = verify(written, tmp_path)
    assert code == 0 and "4 records, the content of 4 shown: all verified" in said
    assert key_of(written, "owner") in said and "compare them" in said
    results = [r["dataset"] for record in written["records"] for r in record["content"]["results"]]
    assert sorted(results) == ["orders", "orders", "payments", "payments", "ünïcode"]


def test_with_the_keys_that_one_trusts(written: Export, tmp_path: Path) -> None:
    owner, ada = key_of(written, "owner"), key_of(written, "ada")
    code, said = verify(written, tmp_path, "--key", owner, "--key", ada)
    assert code == 0 and "compare them" not in said
    code, said = verify(written, tmp_path, "--key", owner)
    assert code == 1 and said.count("not signed with a key that is trusted") == 1


def test_of_one_dataset(repo: Repository, tmp_path: Path) -> None:
    """The chain can be followed, and what says nothing of the dataset stays sealed."""
    given = export(repo, dataset="ünïcode")
    assert [("content" in r) for r in given["records"]] == [True, False, False, False]
    code, said = verify(given, tmp_path)
    assert code == 0 and "4 records, the content of 1 shown: all verified" in said
    assert "payments" not in json.dumps(given)


def edit_a_result(given: Export) -> None:
    given["records"][2]["content"]["results"][0]["outcome"] = "pass"


def drop_a_record(given: Export) -> None:
    del given["records"][1]


def swap_two_contents(given: Export) -> None:
    one, two = given["records"][0], given["records"][3]
    one["content"], two["content"] = two["content"], one["content"]


def change_the_object(given: Export) -> None:
    data = bytearray(base64.b64decode(given["records"][1]["object"]))
    data[len(data) // 2] ^= 1
    given["records"][1]["object"] = base64.b64encode(data).decode()


def say_another_number(given: Export) -> None:
    given["records"][0]["number"] = 9


def claim_another_repository(given: Export) -> None:
    given["repository"] = "0" * 64


def let_a_writer_sign(given: Export) -> None:
    """The file's own list must not make a signer of whoever may only write."""
    given["keys"] = [{**k, "role": "writer"} for k in given["keys"]]


def say_that_another_signed(given: Export) -> None:
    given["records"][2]["by"] = "owner"


def show_it_twice(given: Export) -> None:
    given["records"].append(given["records"][1])


def leave_the_salt_out(given: Export) -> None:
    del given["records"][0]["salt"]


@pytest.mark.parametrize(
    ("cheat", "named"),
    [
        (edit_a_result, "2: the content shown is not what was signed"), (drop_a_record, "is missing or wrong"),
        (swap_two_contents, "the content shown is not what was signed"),
        (change_the_object, "1: its bytes are not those that its name states"),
        (say_another_number, "0: it does not belong here"), (claim_another_repository, "it does not belong here"),
        (let_a_writer_sign, "not signed with a key that is trusted"), (leave_the_salt_out, "0: 'salt'"),
        (say_that_another_signed, "2: it is not by owner"), (show_it_twice, "1: it stands in the file twice"),
    ],
    ids=lambda c: getattr(c, "__name__", ""),
)  # fmt: skip
def test_a_cheat_is_named(written: Export, tmp_path: Path, cheat: Callable[[Export], None], named: str) -> None:
    given = copy.deepcopy(written)
    cheat(given)
    code, said = verify(given, tmp_path)
    at, _, sentence = named.rpartition(": ")
    where = f"{written['records'][int(at)]['name']}: " if at else ""
    assert code == 1 and f"{where}{sentence}" in said and "FAULTS" in said, said


def test_the_newest_record_is_told_since_nobody_misses_it(written: Export, tmp_path: Path) -> None:
    given = {**written, "records": written["records"][1:]}
    code, said = verify(given, tmp_path)
    assert code == 0 and "the newest record is number 3, signed 20" in said
    assert "the newest record is number 4, signed 20" in verify(written, tmp_path)[1]


def test_a_text_that_says_two_things(written: Export, tmp_path: Path) -> None:
    """A reader shows the one, and what is verified is the other."""
    text = json.dumps(written).replace('"outcome": "fail"', '"outcome": "pass", "outcome": "fail"')
    assert text != json.dumps(written)
    code, said = verify(text, tmp_path)
    assert code == 1 and "a key stands in it twice" in said


def test_a_record_that_is_no_record(written: Export, tmp_path: Path) -> None:
    deep = b"SNPV" + bytes((18, 1, 0, 0)) + b"\x91" * 100_000
    deep += blake3(deep).digest()
    name = f"evidence/{blake3(deep).hexdigest()}"
    record = {"name": name, "number": 5, "by": "owner", "object": base64.b64encode(deep).decode()}
    code, said = verify({**written, "records": [record, *written["records"]]}, tmp_path)
    assert code == 1 and f"{name}: " in said


def test_a_removed_key_signs_no_more(tmp_path: Path) -> None:
    """What it signed before is followed by others; what it makes up now is not."""
    repo = make(tmp_path / "repo")
    snapvault.add_key(again(repo), "reader", "ada", file=tmp_path / "ada")
    reader = snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / "ada"))
    snapvault.record_evidence(reader, [held()])
    snapvault.remove_key(again(repo), "ada")
    given = export(repo)
    assert verify(given, tmp_path)[0] == 0
    name = forged(again(repo), reader.vault.ring.signing, reader.vault.ring.seeds[1])
    assert export(repo)["records"] == given["records"]
    data = Path(repo.url, name).read_bytes()
    added = {"name": name, "by": "ada", "number": 1, "object": base64.b64encode(data).decode()}
    code, said = verify({**given, "records": [added, *given["records"]]}, tmp_path)
    assert code == 1 and f"{name} does not count" in said


@pytest.mark.parametrize("form", ["json", "html"])
def test_an_export_tells_what_is_not_in_it(tmp_path: Path, form: str) -> None:
    """The newest above all, which nothing follows by which a stranger could miss it."""
    repo = make(tmp_path / "repo", state=tmp_path / "state")
    snapvault.record_evidence(repo, [held(days_ago=2)])
    (last,) = snapvault.record_evidence(repo, [held(days_ago=1, value="fail")])
    Path(repo.url, last.record).unlink()
    write = {"json": snapvault.export_evidence, "html": write_page}[form]
    done = write(again(repo, state=tmp_path / "state"), lambda text: None)
    assert (done.records, [p.affected for p in done.problems]) == (1, [(last.record,)])


def test_an_export_tells_of_a_record_that_was_whole_once(tmp_path: Path) -> None:
    """The table of this machine still knows it, and the store has it no more."""
    repo = make(tmp_path / "repo", cache=tmp_path / "cache")
    (one,) = snapvault.record_evidence(repo, [held()])
    path = Path(repo.url, one.record)
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    for kept in [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and len(p.name) == 64]:
        kept.unlink()
    done = snapvault.export_evidence(again(repo, cache=tmp_path / "cache"), lambda text: None)
    assert (done.records, [p.affected for p in done.problems]) == (0, [(one.record,)])


def test_a_record_that_a_stranger_signed(repo: Repository, written: Export, tmp_path: Path) -> None:
    """It is in no export, and in one that somebody made it is found."""
    stranger = HolderKeys(os.urandom(32), os.urandom(32))
    opened = again(repo)
    body = encode_evidence([held("forged").to_dict()])
    name = forged(opened, stranger, opened.vault.ring.seeds[1], body=body)
    try:
        assert name not in {r["name"] for r in export(repo)["records"]}
        data = Path(repo.url, name).read_bytes()
        added = {"name": name, "by": "owner", "number": 1, "object": base64.b64encode(data).decode()}
        code, said = verify({**written, "records": [*written["records"], added]}, tmp_path)
        assert code == 1 and f"{name}: it is not signed with a key that is trusted" in said
    finally:
        Path(repo.url, name).unlink()


def test_what_is_no_export(tmp_path: Path) -> None:
    for given in ({"format": "something else"}, {"format": "snapvault evidence 1"}, {}):
        code, said = verify(given, tmp_path)
        assert code == 1 and "no export" in said
    assert verify("[]", tmp_path) == (1, "this is no export: it is no table\n")


def test_an_export_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "evidence.json").mkdir()
    program = [sys.executable, ROOT / "docs/verify_evidence.py"]
    for name in ("evidence.json", "nothing.json"):
        done = subprocess.run([*program, name], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (1, "") and name in done.stdout
    done = subprocess.run([*program, "nothing.json", "--key", "xyz"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "argument --key" in done.stderr and "Traceback" not in done.stderr


class Page(HTMLParser):
    """Tags that are open, everything that would be fetched, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.fetched += [f"{tag} {k}={v}" for k, v in attrs if k in ("src", "href", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(repo: Repository, **options: Any) -> tuple[Page, str]:
    parts: list[str] = []
    write_page(again(repo), parts.append, **options)
    found, text = Page(), "".join(parts)
    found.feed(text)
    assert found.open == [] and found.fetched == [] and "@import" not in text and "url(" not in text
    return found, text


def test_the_page(repo: Repository) -> None:
    found, text = page(repo)
    assert text.count("<tr>") == 6 and found.text.count("✓ pass") == 4 and found.text.count("✗ fail") == 1
    for word in (
        "ünïcode",
        "since the test says so",
        "ada, record 2",
        "nothing is missing or altered",
        "1.2 s",
        "pass, by restore",
    ):
        assert word in found.text, word
    one, _ = page(repo, dataset="payments")
    assert "payments" in one.text and "ünïcode" not in one.text


def test_a_page_that_tells_of_damage_and_runs_nothing(tmp_path: Path) -> None:
    repo = make(tmp_path / "repo")
    snapvault.add_key(again(repo), "reader", "<b>ada", file=tmp_path / "ada")
    (first,) = snapvault.record_evidence(again(repo), [held("<script>alert(1)</script>\u202e", value="not-run")])
    snapvault.record_evidence(again(repo), [held("b&b")])
    found, text = page(repo)
    assert "<script>" not in text and "<b>" not in text and "b&b" in found.text and "<b>ada, reader" in found.text
    assert "? not run" in found.text and "\u202e" not in text
    Path(repo.url, first.record).unlink()
    found, _ = page(repo)
    assert f"{first.record} is missing" in found.text and "nothing is missing" not in found.text
