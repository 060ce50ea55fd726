"""The incident is told in full with other numbers, and nothing that it says comes from anywhere but the board."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import snapvault
from snapvault.assurance.marks import LADDER
from snapvault.assurance.probes import postgres
from snapvault.demo import damage, incident_command
from snapvault.demo.cast import Numbers, Part, cast
from snapvault.demo.datasets import CAUSES, kinds
from snapvault.demo.display import Display
from snapvault.demo.incident import SECOND, Act, Incident, letter
from snapvault.foundation.errors import InvalidInput

NUMBERS, SEED = Numbers(60, 20, 17, 3), "june"
pytestmark = pytest.mark.timeout(900)  # some hundred probes, each in a process of its own, and databases
FIRST_SITE = ("first", "sources")
SAID = {  # of a dataset that died of it, by the board
    CAUSES[0]: r"cut short|ended before|not a zip|footer|cannot be loaded|is not what|end of file",
    CAUSES[1]: r"0 rows|could not be read|No such file",
    CAUSES[2]: r"\(RPO\)",
    CAUSES[3]: r"[Nn]ot a|no SQLite|cannot be loaded|checksum lines|decode|footer|Non-UTF-8|does not",
    CAUSES[4]: r"the service ended.*/net/",
}


class Played(NamedTuple):
    """A story, and what the board said after each act to whoever asked it."""

    incident: Incident
    place: Path
    acts: list[Act]
    boards: list[dict[str, Any]]
    before: dict[str, str]  # digests of the first site's files, before act three
    printed: list[str]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    place = tmp_path_factory.mktemp("incident")
    incident = Incident(place, NUMBERS, SEED, Display())
    acts, boards, before = list[Act](), list[dict[str, Any]](), dict[str, str]()
    for act in incident.acts():
        acts.append(act)
        boards.append(snapvault.status(incident.repository).to_dict())
        before = before if len(acts) > 2 else digests(place)
    told = [line for act in acts for line in incident_command.told(act, incident.parts)]
    return Played(incident, place, acts, boards, before, [*told, *incident_command.figures(incident, acts)])


def digests(place: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for top in FIRST_SITE for p in damage.files(place / top)}


def good(board: dict[str, Any]) -> dict[str, int]:
    """By step, counted from the datasets themselves; those that are good there, and at all steps before."""
    found = dict.fromkeys(LADDER, 0)
    for state in board["datasets"]:
        values = {step: mark["value"] == "good" for step, mark in state["steps"].items()}
        found["replicated"] += values.pop("replicated")
        for step in (s for s in LADDER if s in values):
            if not values[step]:
                break
            found[step] += 1
    return found


def test_the_incident(played: Played) -> None:
    assert good(played.boards[0]) == dict(zip(LADDER, (60, 20, 0, 17, 17, 3), strict=True))
    assert played.boards[0]["recoverable"] == 3 and played.acts[0].board["sentence"].startswith("3 of 60 can be")
    assert played.boards[0]["unanswered_since"][:10] == str(letter(datetime.now(UTC)).date())
    waiting = [s for s in played.boards[0]["datasets"] if s["steps"]["replicated"]["value"] == "unknown"]
    assert len(waiting) == 60


def test_every_dead_dataset_has_a_cause_and_the_board_says_it(played: Played) -> None:
    parts = {part.name: part for part in played.incident.parts}
    states = incident_command.dead(played.boards[0], list(parts.values()))
    for state in states:
        assert re.search(SAID[parts[state["dataset"]].cause], state["problems"][0]["why"]), state
    causes = Counter(parts[state["dataset"]].cause for state in states)
    assert causes.total() == 14 and set(causes) == set(CAUSES)
    for cause, number in causes.items():
        assert any(line.split()[:1] == [str(number)] and f" {cause}, as " in line for line in played.printed)


@pytest.mark.parametrize("act", [1, 2])
def test_afterwards_all_is_well(played: Played, act: int) -> None:
    assert good(played.boards[act]) == dict.fromkeys(LADDER, 60) and played.boards[act]["recoverable"] == 60
    assert played.boards[act]["status"] == "ok" and played.boards[act]["faults"] == []


def test_all_of_the_first_site_was_overwritten_and_nothing_else_done_to_it(played: Played) -> None:
    after = digests(played.place)
    assert after.keys() == played.before.keys()
    assert not [name for name, digest in after.items() if digest == played.before[name]]
    with pytest.raises(snapvault.SnapvaultError):
        snapvault.open(played.place / "first", keys=snapvault.KeyFile(played.place / "recovery.key"))


def test_it_comes_back_bit_for_bit_and_to_life_from_the_second_site(played: Played) -> None:
    figures = played.incident.figures
    assert figures.different == [] and len(figures.restores) == 60
    back = [p for p in (played.place / "restored").rglob("*") if p.is_file()]
    assert (figures.files, figures.bytes) == (len(back), sum(p.stat().st_size for p in back))
    assert {str(played.place / p.relative_to(played.place / f"restored{played.place}")) for p in back} == {
        name for name in played.before if name.startswith(str(played.place / "sources"))
    }
    for path in back:
        assert (
            hashlib.sha256(path.read_bytes()).hexdigest()
            == played.before[f"/{path.relative_to(played.place / 'restored')}"]
        )
    places = [p for state in played.boards[2]["datasets"] for p in state["places"] if p["site"] == SECOND]
    assert sum(all(mark["value"] == "good" for mark in p["steps"].values()) for p in places) == 60


def test_what_is_printed_is_what_the_boards_say(played: Played) -> None:
    rows = {line[:14].strip(): line[14:].split() for line in played.printed if line[:14].strip() in LADDER}
    assert rows == {step: [str(good(board)[step]) for board in played.boards] for step in LADDER}
    for act, board in zip(played.acts, played.boards, strict=True):
        assert f"  board: {board['sentence']}" in played.printed and act.good
    assert f"  bytes: {played.incident.figures.bytes:,} " in "\n".join(played.printed)
    assert "  probe passed, by the board: 60" in played.printed
    assert "  the same bit for bit: 60 of 60" in played.printed


def test_a_seed_is_a_story(tmp_path: Path) -> None:
    """The same parts and the same data for the same seed, others for another one."""
    known = kinds(None, [])

    def drawn(seed: str) -> list[tuple[str, bool, bool, str]]:
        return [(p.name, p.backed_up, p.readable, p.cause) for p in cast(NUMBERS, known, seed)]

    assert drawn("a") == drawn("a") != drawn("b")
    documents = next(kind for kind in known if kind.name == "documents")
    for name, seed in (("one", "a"), ("two", "a"), ("three", "b")):
        documents.write(tmp_path / name, seed)
    sums = [(tmp_path / name / "SHA256SUMS").read_text() for name in ("one", "two", "three")]
    assert sums[0] == sums[1] != sums[2]


def test_numbers_that_contradict_one_another() -> None:
    for numbers in ((5, 6, 1, 1), (5, 4, 5, 1), (5, 4, 3, 4), (0, 0, 0, 0), (5, 4, 3, -1)):
        with pytest.raises(InvalidInput, match="more than"):
            Numbers(*numbers).check()
    done = subprocess.run(
        [sys.executable, "-m", "snapvault.demo", "incident", "--alive", "191"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "190 readable and 191 alive" in done.stderr and done.stdout == ""


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['time_machine'] = None; sys.argv = ['demo', 'incident']\n"
        "from snapvault.demo.__main__ import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "pip install 'snapvault[demo]'" in done.stderr, done


def test_what_cannot_be_had_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(postgres, "_WHERE", str(tmp_path))
    monkeypatch.setenv("PATH", "/bin")
    small = ["--declared", "2", "--backed-up", "1", "--readable", "1", "--alive", "1", "--keep", str(tmp_path / "kept")]
    assert incident_command.main(small) == 0
    said = capsys.readouterr()
    assert "left out: PostgreSQL dumps: PostgreSQL's server is not installed" in said.out
    assert "1 of 2 can be brought back" in said.out and "make datasets: 2 of 2" in said.err
    with pytest.raises(SystemExit) as refused:
        incident_command.main(small)
    assert refused.value.code == 2 and "not empty" in capsys.readouterr().err


def test_a_number_that_does_not_come_out(played: Played) -> None:
    act = played.acts[0]
    wrong = Act(act.title, act.told, act.board, {**act.promised, "alive": 4})
    assert act.good and not wrong.good


def test_the_letter_is_of_an_april_that_is_long_ago() -> None:
    for now, year in ((datetime(2026, 11, 27, tzinfo=UTC), 2026), (datetime(2026, 5, 2, tzinfo=UTC), 2025)):
        assert (letter(now).year, letter(now).month) == (year, 4)


def test_parts_are_as_many_as_the_numbers_say() -> None:
    parts: list[Part] = cast(NUMBERS, kinds(None, []), SEED)
    assert [len(parts), sum(p.backed_up for p in parts), sum(p.readable for p in parts)] == [60, 20, 17]
    assert sum(p.readable and not p.cause for p in parts) == 3
    assert all(p.backed_up for p in parts if p.readable) and all(p.cause in p.kind.causes for p in parts if p.cause)
