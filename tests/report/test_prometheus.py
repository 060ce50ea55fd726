"""The text file, read by Prometheus' own parser."""

from boards import NOW, Fleet, incident
from prometheus_client.parser import text_string_to_metric_families

from snapvault.report.board import Board
from snapvault.report.prometheus import draw


def samples(board: Board) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by name and by labels but the repository."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families("".join(draw(board))):
        assert family.type == "gauge"
        assert family.documentation
        for s in family.samples:
            labels = tuple(value for label, value in s.labels.items() if label != "repository")
            found.setdefault(s.name.removeprefix("snapvault_"), {})[labels] = s.value
    return found


def test_the_incident() -> None:
    found = samples(incident(60, 20, 17, 3).board())
    assert found["datasets"] == {
        ("declared",): 60, ("backed-up",): 20, ("replicated",): 0, ("intact",): 17, ("restored",): 17, ("alive",): 3,
    }  # fmt: skip
    assert found["datasets_recoverable"] == {(): 3}
    assert found["board_time_seconds"] == {(): NOW.timestamp()}
    assert sum(found["dataset_recoverable"].values()) == 3
    assert len(found["dataset_unanswered_since_seconds"]) == 60
    assert found["dataset_step"]["orders-001", "alive"] == 1
    assert found["dataset_step"]["archive-012", "alive"] == -1
    assert found["dataset_step"]["archive-057", "alive"] == 0  # never tested: unknown, and not good


def test_labels_that_would_break_out() -> None:
    fleet, owner = Fleet(), 'Ada"} 1\nsnapvault_datasets_recoverable 800 # \\'
    fleet.declare("orders", owner=owner, tier="1")
    found = samples(fleet.board())
    assert found["dataset_info"] == {("orders", owner, "1"): 1}
    assert found["datasets_recoverable"] == {(): 0}
