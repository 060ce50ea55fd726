"""The ladder: what evidence puts a dataset on which step, and what takes it down again."""

from dataclasses import replace
from datetime import timedelta

import pytest
from boards import DAY, HOUR, NOW, Fleet

from snapvault.assurance.coverage import DatasetState
from snapvault.assurance.dataset import DrillRule
from snapvault.assurance.marks import LADDER


@pytest.fixture
def fleet() -> Fleet:
    """One dataset with which nothing is wrong."""
    fleet = Fleet()
    fleet.attest("second", [fleet.thrive("orders")])
    return fleet


def values(state: DatasetState) -> str:
    """A letter a step: g, b or u."""
    return "".join(state.steps[step].value[0] for step in LADDER)


def kinds(state: DatasetState) -> list[str]:
    return [p.kind for p in state.problems]


def test_nothing_is_wrong(fleet: Fleet) -> None:
    state = fleet.state("orders")
    assert (values(state), state.recoverable, kinds(state)) == ("gggggg", True, [])


def test_what_was_never_backed_up_is_known_to_be_bad_and_the_rest_unknown() -> None:
    fleet = Fleet()
    fleet.declare("orders")
    state = fleet.state("orders")
    assert (values(state), state.reached, state.recoverable) == ("gbuuuu", "declared", False)
    assert kinds(state) == ["never-backed-up", "unanswered"]
    assert [p.command for p in state.problems] == ["snapvault backup --all --dataset orders"] * 2


def test_a_backup_alone_shows_nothing_more(fleet: Fleet) -> None:
    fleet.folds.clear()
    fleet.attestations.clear()
    state = fleet.state("orders")
    assert (values(state), state.reached) == ("gguuuu", "backed-up")
    assert kinds(state) == ["unanswered", "overdue"]  # a drill is owed every 30 days, and 200 have passed


def test_a_drill_is_not_owed_before_its_time(fleet: Fleet) -> None:
    fleet.folds.clear()
    fleet.declared["orders", ""] = NOW - 3 * DAY
    assert kinds(fleet.state("orders")) == ["untested"]


@pytest.mark.parametrize("options", [{"partial": True}, {"lost": ("/srv/orders/a",)}])
def test_only_what_is_whole_counts_as_backed_up(options: dict[str, object]) -> None:
    fleet = Fleet()
    fleet.declare("orders", sites=())
    fleet.back_up("orders", 0.1, **options)
    fleet.drill("orders")
    state = fleet.state("orders")
    assert (values(state), kinds(state)) == ("gbuuuu", ["lost" if "lost" in options else "incomplete"])
    fleet.back_up("orders", 0.3)
    assert fleet.state("orders").recoverable


def test_freshness_is_by_the_newest_whole_snapshot(fleet: Fleet) -> None:
    fleet.snapshots.clear()
    fleet.back_up("orders", 0.1, partial=True)
    fleet.attest("second", [fleet.back_up("orders", 1.5)], age=0.05)
    state = fleet.state("orders")
    assert (values(state), state.recoverable, kinds(state)) == ("gggggg", False, ["stale"])
    assert state.problems[0].since == NOW - 0.5 * DAY
    assert any("partial" in note for note in state.notes)


@pytest.mark.parametrize(("over", "good"), [(0, True), (1, False)], ids=["at the limit", "just over"])
def test_an_objective_is_met_at_its_limit(fleet: Fleet, over: int, good: bool) -> None:
    """Age and time at the very limit are as promised; a step further they are not."""
    fleet.snapshots.clear()
    fleet.folds.clear()
    fleet.attestations.clear()
    fleet.back_up("orders", (DAY + timedelta(microseconds=over)) / DAY)
    fleet.drill("orders", seconds=4 * 3600 + over / 1000)
    marks = fleet.state("orders").objectives
    assert [mark.good for mark in marks.values()] == [good, good] and len(marks) == 2


def test_a_snapshot_of_the_future_makes_nothing_fresh(fleet: Fleet) -> None:
    fleet.snapshots.clear()
    fleet.back_up("orders", -30)
    state = fleet.state("orders")
    assert kinds(state)[0] == "never-backed-up"
    assert "still to come" in state.notes[0]


def test_another_writer_is_told_about(fleet: Fleet) -> None:
    fleet.back_up("orders", 0.1, holder="intruder")
    assert fleet.state("orders").notes == ("the newest snapshot was written by the key of intruder, others were not",)


# -- replicated ----------------------------------------------------------------------------------------------------


def test_a_copy_that_nobody_attested_is_unanswered_since_it_was_asked_for(fleet: Fleet) -> None:
    fleet.attestations.clear()
    state = fleet.state("orders")
    assert state.steps["replicated"].value == "unknown"
    assert [(p.kind, p.site, p.since) for p in state.problems] == [("unanswered", "second", NOW - 200 * DAY)]
    assert state.recoverable  # from here, though it is not where it should be as well


def test_a_copy_that_stays_behind_is_unanswered_since_the_snapshot_after_it(fleet: Fleet) -> None:
    fleet.snapshots.clear()
    fleet.attestations.clear()
    fleet.attest("second", [fleet.back_up("orders", 5)], age=4)
    fleet.back_up("orders", 3)
    fleet.back_up("orders", 0.1)
    assert [(p.kind, p.since) for p in fleet.state("orders").problems] == [("unanswered", NOW - 3 * DAY)]


def test_a_copy_may_be_behind_as_much_as_was_promised(fleet: Fleet) -> None:
    fleet.back_up("orders", 0.1)  # the one before, 0.2 days old, is there, and a day may be lost
    assert fleet.state("orders").steps["replicated"].good
    fleet.datasets["orders"] = replace(fleet.datasets["orders"], rpo=None)
    assert not fleet.state("orders").steps["replicated"].good


def test_the_newest_attestation_counts_not_the_best(fleet: Fleet) -> None:
    fleet.attest("second", [], age=0.01)
    assert fleet.state("orders").steps["replicated"].value == "unknown"


def test_every_site_that_is_owed_a_copy_has_to_have_it(fleet: Fleet) -> None:
    fleet.datasets["orders"] = replace(fleet.datasets["orders"], sites=("second", "third"))
    state = fleet.state("orders")
    assert (state.steps["replicated"].value, [p.site for p in state.problems]) == ("unknown", ["third"])


def test_no_copy_owed_is_not_a_copy(fleet: Fleet) -> None:
    fleet.datasets["orders"] = replace(fleet.datasets["orders"], sites=())
    state = fleet.state("orders")
    assert (state.steps["replicated"].value, state.recoverable, kinds(state)) == ("unknown", True, [])


# -- intact --------------------------------------------------------------------------------------------------------


def test_a_site_that_read_everything_makes_it_intact_and_no_more(fleet: Fleet) -> None:
    fleet.folds.clear()
    fleet.attest("second", [s.id for s in fleet.snapshots["orders"]], age=0.05, read=True)
    state = fleet.state("orders")
    assert (values(state), state.places[0].site) == ("gggguu", "second")


def test_listing_is_not_reading(fleet: Fleet) -> None:
    fleet.folds.clear()
    assert values(fleet.state("orders")) == "ggguuu"


def test_what_was_read_before_it_came_was_not_read(fleet: Fleet) -> None:
    fleet.folds.clear()
    fleet.attest("second", [], age=0.15, read=True)
    assert values(fleet.state("orders")) == "ggguuu"  # it was listed since, and that is not reading


def test_damage_of_which_a_site_cannot_tell_whose_it_is_leaves_it_unknown(fleet: Fleet) -> None:
    fleet.folds.clear()
    fleet.drill("orders", "second", age=2)
    fleet.attest("second", [], age=0.05, read=True, bad=1)
    assert values(fleet.state("orders")) == "gguuuu"
    fleet.drill("orders", "second", age=0.01)  # a drill can tell
    assert values(fleet.state("orders")) == "gguggg"


def test_nothing_there_is_no_damage(fleet: Fleet) -> None:
    fleet.folds.clear()
    fleet.drill("orders", "second", age=2)
    fleet.attest("second", [], age=0.05, read=True)
    assert fleet.state("orders").steps["intact"].good


# -- restored and alive --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "step", "expected", "kind"),
    [
        ("structure", "structure", "gggbbb", "damaged"),
        ("sample", "restored", "gggbbb", "damaged"),
        ("full", "compared", "gggbbb", "damaged"),
        ("alive", "probe", "gggggb", "dead"),
        ("alive", "freshness", "gggggb", "stale"),
        ("alive", "recovery", "gggggb", "slow"),
        ("full", "control", "ggggbb", "dead"),  # a drill that cannot fail shows nothing; the drill before did
    ],
)
def test_a_later_failure_takes_a_dataset_down(fleet: Fleet, level: str, step: str, expected: str, kind: str) -> None:
    fleet.drill("orders", age=0.5, level=level, **{step: "fail"})
    state = fleet.state("orders")
    assert (values(state), kinds(state), state.recoverable) == (expected, [kind], False)
    fleet.drill("orders", age=0.4)
    assert fleet.state("orders").recoverable


@pytest.mark.parametrize("step", ["restored", "compared", "control"])
def test_what_came_back_since_it_failed(fleet: Fleet, step: str) -> None:
    """No probe has looked at it since: so it is not alive, and not dead either."""
    fleet.drill("orders", age=0.5, level="full", **{step: "fail"})
    fleet.drill("orders", age=0.4, level="full")
    state = fleet.state("orders")
    assert (values(state), state.recoverable) == ("gggggu", False)
    fleet.folds.clear()
    fleet.drill("orders", age=0.5, probe="fail")
    fleet.drill("orders", age=0.4, level="full")
    assert values(fleet.state("orders")) == "gggggb"  # a drill without a probe does not make up for one


def test_what_never_came_back_until_now(fleet: Fleet) -> None:
    """As where the first drill was before the first backup, of a dataset that has no probe."""
    rule = DrillRule(30 * DAY, "full")
    fleet.datasets["orders"] = replace(fleet.datasets["orders"], probe=None, drill=rule)
    fleet.folds.clear()
    fleet.drill("orders", age=0.5, level="full", restored="fail")
    fleet.drill("orders", age=0.4, level="full")
    state = fleet.state("orders")
    assert (values(state), kinds(state)) == ("gggggu", ["untested"])


@pytest.mark.parametrize(
    ("level", "expected"), [("structure", "ggguuu"), ("sample", "ggguuu"), ("full", "gggggu"), ("alive", "gggggg")]
)
def test_how_far_each_level_brings_it(fleet: Fleet, level: str, expected: str) -> None:
    fleet.folds.clear()
    fleet.drill("orders", level=level)
    assert values(fleet.state("orders")) == expected


def test_a_drill_that_could_not_tell_proves_nothing_and_disproves_nothing(fleet: Fleet) -> None:
    fleet.drill("orders", age=0.5, probe="not-run", why="there is no such command")
    assert fleet.state("orders").recoverable  # by the drill before
    fleet.folds.clear()
    fleet.drill("orders", age=0.5, probe="not-run", why="there is no such command")
    state = fleet.state("orders")
    assert values(state) == "gggggu"
    assert "there is no such command" in state.steps["alive"].why


def test_evidence_gets_too_old(fleet: Fleet) -> None:
    rule = DrillRule(timedelta(days=30))
    fleet.datasets["orders"] = replace(fleet.datasets["orders"], drill=rule)
    fleet.folds.clear()
    fleet.drill("orders", age=37)  # a quarter over: whoever drills once a day what is due is in time
    assert fleet.state("orders").recoverable
    fleet.folds.clear()
    fleet.drill("orders", age=38)
    state = fleet.state("orders")
    assert (values(state), kinds(state)) == ("ggguuu", ["overdue"])
    fleet.datasets["orders"] = replace(fleet.datasets["orders"], drill=None)  # then nobody said how often
    assert fleet.state("orders").recoverable


def test_the_highest_place_counts_and_what_is_wrong_at_another_is_told(fleet: Fleet) -> None:
    fleet.drill("orders", "second", age=0.4)
    fleet.drill("orders", age=0.5, restored="fail")
    state = fleet.state("orders")
    assert (state.recoverable, state.places[0].site, kinds(state)) == (True, "second", ["damaged"])
    assert state.problems[0].command == "snapvault check --repair-from second"


def test_new_here_and_alive_there_is_not_both(fleet: Fleet) -> None:
    """What comes back to life at a place has to be new there."""
    fleet.datasets["orders"] = replace(fleet.datasets["orders"], sites=())
    fleet.folds.clear()
    fleet.attestations.clear()
    fleet.drill("orders", "gone", age=20)
    state = fleet.state("orders")
    assert (values(state), state.places[0].site, state.recoverable) == ("gguggg", "gone", False)
    assert (kinds(state), state.problems[0].command) == (["untested"], "snapvault drill orders --site gone")
    assert fleet.board().status == "partial"
    fleet.attest("gone", [fleet.back_up("orders", 0.9)])
    assert fleet.state("orders").recoverable
    fleet.drill("orders", age=0.5)  # here, too
    fleet.attestations.clear()
    assert fleet.state("orders").recoverable


def test_what_a_drill_has_seen_at_a_place_is_there(fleet: Fleet) -> None:
    fleet.folds.clear()
    fleet.attestations.clear()
    fleet.drill("orders", "second", age=0.1, snapshot=fleet.snapshots["orders"][0].id)
    state = fleet.state("orders")
    assert (state.recoverable, kinds(state)) == (True, ["unanswered"])


def test_a_drill_of_a_partial_snapshot_lifts_nothing(fleet: Fleet) -> None:
    fleet.folds.clear()
    fleet.drill("orders", partial=True)
    assert values(fleet.state("orders")) == "ggguuu"
    fleet.drill("orders", age=0.5, partial=True, restored="fail")
    assert values(fleet.state("orders")) == "gggbbb"


def test_steps_at_two_places_do_not_add_up(fleet: Fleet) -> None:
    """Intact at one and restored at another is no dataset that was restored from where it is intact."""
    fleet.folds.clear()
    fleet.attest("second", [s.id for s in fleet.snapshots["orders"]], age=0.05, read=True)
    fleet.drill("orders", age=60, level="alive")  # at the repository, and too old
    assert values(fleet.state("orders")) == "gggguu"


def test_without_a_probe_nothing_is_alive(fleet: Fleet) -> None:
    rule = DrillRule(30 * DAY, "full")
    fleet.datasets["orders"] = replace(fleet.datasets["orders"], probe=None, drill=rule)
    fleet.folds.clear()
    fleet.drill("orders", level="full")
    state = fleet.state("orders")
    assert (values(state), kinds(state)) == ("gggggu", ["untested"])
    assert state.problems[0].command == "snapvault register list --export toml"


def test_an_objective_that_was_tightened_since_the_drill_counts(fleet: Fleet) -> None:
    fleet.folds.clear()
    fleet.drill("orders", seconds=2 * 3600)
    assert fleet.state("orders").recoverable
    fleet.datasets["orders"] = replace(fleet.datasets["orders"], rto=HOUR)
    state = fleet.state("orders")
    assert (state.recoverable, kinds(state)) == (False, ["slow"])
