"""The view model: the sentence, the funnel, the order, the gate."""

import pytest
from boards import DAY, NOW, Fleet, incident, usual

from snapvault.report.board import reason, tone


def numbers(fleet: Fleet) -> list[int]:
    return [level.good for level in fleet.board().funnel]


def test_the_incident_number_by_number() -> None:
    board = incident().board()
    assert [level.good for level in board.funnel] == [800, 200, 0, 190, 190, 7]
    assert board.sentence == (
        "7 of 800 can be brought back within their objectives; 600 never backed up, 10 not brought back whole when "
        "drilled, 183 not brought back to life when drilled, copies of 800 unanswered, since 2026-04-02 at the longest."
    )
    assert board.status == "failed"


def test_steps_count_those_that_took_the_ones_before() -> None:
    declared, backed_up, _, intact, restored, alive = numbers(usual(300))
    assert declared >= backed_up >= intact >= restored >= alive > 0


def test_what_is_not_good_is_bad_or_unknown_and_all_are_counted() -> None:
    for level in usual(200).board().funnel:
        assert level.good + level.bad + level.unknown == 200


@pytest.mark.parametrize(
    ("outcome", "status"), [("pass", "ok"), ("fail", "failed"), ("freshness", "breached"), ("never", "breached")]
)
def test_the_gate(outcome: str, status: str) -> None:
    fleet = Fleet()
    fleet.attest("second", [fleet.thrive("orders")])
    if outcome == "never":
        fleet.declare("more")
    elif outcome != "pass":
        fleet.drill("orders", age=0.5, **{"probe" if outcome == "fail" else outcome: "fail"})
    assert fleet.board().status == status


def test_the_gate_takes_the_gravest() -> None:
    fleet = Fleet()
    fleet.declare("dead")
    fleet.back_up("dead")
    fleet.drill("dead", probe="fail")
    assert fleet.board().status == "failed"
    assert fleet.board("a record is missing").status == "damaged"


def test_a_register_that_contradicts_itself_is_not_all_well() -> None:
    fleet = Fleet()
    fleet.attest("second", [fleet.thrive("orders")])
    assert fleet.board(conflicts=("revisions 6 and 7 differ",)).status == "partial"


def test_nothing_declared_is_not_all_well() -> None:
    """Once everything was retired, say."""
    board = Fleet().board()
    assert (board.status, board.sentence) == ("partial", "Nothing is declared, so nothing is known.")


def test_what_is_merely_unknown_is_not_good_and_no_breach() -> None:
    fleet = Fleet()
    fleet.declare("orders", sites=(), drill=None)
    fleet.back_up("orders")
    board = fleet.board()
    assert (board.status, board.recoverable) == ("partial", 0)
    assert tone(board.states[0]) == "unknown"


def test_the_worst_comes_first() -> None:
    fleet = Fleet()
    fleet.attest("second", [fleet.thrive("well"), fleet.thrive("dead"), fleet.thrive("stale")])
    fleet.drill("dead", age=0.5, probe="fail")
    fleet.drill("stale", age=0.5, freshness="fail")
    fleet.thrive("owed")
    for name, age in (("b-tier-2", 300), ("tier-1", 10), ("a-tier-2", 10), ("old-tier-2", 400)):
        fleet.declare(name, age, tier=name[-1])
    order = [s.dataset.name for s in fleet.board().states]
    assert order == ["tier-1", "old-tier-2", "b-tier-2", "a-tier-2", "dead", "stale", "owed", "well"]
    assert [tone(s) for s in fleet.board().states][-4:] == ["down", "down", "breach", "fine"]


def test_an_owed_copy_is_not_the_reason_where_there_is_another() -> None:
    fleet = Fleet()
    fleet.declare("orders", drill=None)
    fleet.back_up("orders")
    state = fleet.board().states[0]
    assert [p.kind for p in state.problems] == ["unanswered", "untested"]
    assert reason(state) == "nobody has read all of it"


def test_no_tone_is_fine_but_that_of_what_can_be_brought_back() -> None:
    for fleet in (incident(80, 20, 19, 3), usual(300)):
        for state in fleet.board().states:
            if tone(state) == "fine":
                assert state.recoverable
                assert not state.problems


def test_datasets_that_nobody_declared_are_named() -> None:
    fleet = Fleet()
    fleet.declare("orders")
    fleet.back_up("strays")
    assert fleet.board().undeclared == ("strays",)


def test_the_age_of_an_owed_copy_is_that_of_the_oldest() -> None:
    fleet = Fleet()
    fleet.declare("orders", 10)
    fleet.declare("mail", 90)
    assert fleet.board().unanswered_since == NOW - 90 * DAY


def test_as_json_it_is_whole() -> None:
    found = incident(8, 4, 3, 1).board().to_dict()
    assert [level["datasets"] for level in found["funnel"]] == [8, 4, 0, 3, 3, 1]
    worst = found["datasets"][0]
    assert worst["steps"]["backed-up"]["value"] == "bad"
    assert worst["problems"][0] | {"since": None} == {
        "kind": "never-backed-up", "why": "never backed up", "site": "", "since": None,
        "command": f"snapvault backup --all --dataset {worst['dataset']}",
    }  # fmt: skip
