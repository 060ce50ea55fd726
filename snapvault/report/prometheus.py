"""The board as a Prometheus text file, for the textfile collector of the node exporter (docs/guide/board.md)."""

from collections.abc import Iterable, Iterator

from snapvault.assurance.marks import BAD, GOOD, LADDER, UNKNOWN
from snapvault.report.board import Board, unanswered

_VALUES = {GOOD: 1, UNKNOWN: 0, BAD: -1}
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
Sample = tuple[dict[str, str], float]


def draw(board: Board) -> Iterator[str]:
    """Lines, each with its end."""
    for name, help_, samples in _metrics(board):
        yield f"# HELP snapvault_{name} {help_}\n# TYPE snapvault_{name} gauge\n"
        for labels, value in samples:
            said = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in labels.items())
            yield f"snapvault_{name}{{{said}}} {value!r}\n" if said else f"snapvault_{name} {value!r}\n"


def _metrics(board: Board) -> Iterator[tuple[str, str, Iterable[Sample]]]:
    of = {"repository": board.repository}
    yield "board_time_seconds", "When the board was made.", [(of, board.time.timestamp())]
    yield "board_faults", "Damaged or missing records that the board should rest on.", [(of, len(board.faults))]
    levels = [({**of, "step": level.step}, level.good) for level in board.funnel]
    yield "datasets", "Declared datasets that are good at a step, and at those before it.", levels
    yield (
        "datasets_recoverable",
        "Declared datasets that can be brought back within their objectives.",
        [(of, board.recoverable)],
    )
    yield from _each(board)


def _each(board: Board) -> Iterator[tuple[str, str, Iterable[Sample]]]:
    of = [({"repository": board.repository, "dataset": s.dataset.name}, s) for s in board.states]
    yield (
        "dataset_info",
        "A declared dataset.",
        [({**labels, "owner": s.dataset.owner, "tier": s.dataset.tier}, 1) for labels, s in of],
    )
    yield (
        "dataset_recoverable",
        "1: it can be brought back within its objectives, by evidence.",
        [(labels, int(s.recoverable)) for labels, s in of],
    )
    yield (
        "dataset_step",
        "1: good, 0: unknown, -1: bad.",
        [({**labels, "step": step}, _VALUES[s.steps[step].value]) for labels, s in of for step in LADDER],
    )
    yield (
        "dataset_snapshot_time_seconds",
        "When the newest whole snapshot was made.",
        [(labels, s.data_of.timestamp()) for labels, s in of if s.data_of is not None],
    )
    yield (
        "dataset_evidence_time_seconds",
        "When the evidence was made by which a step is good.",
        [
            ({**labels, "step": step}, mark.at.timestamp())
            for labels, s in of
            for step, mark in s.steps.items()
            if mark.good and mark.at is not None
        ],
    )
    yield (
        "dataset_unanswered_since_seconds",
        "Since when a site owes an answer about a copy.",
        [({**labels, "site": site}, since.timestamp()) for labels, s in of for site, since in unanswered(s)],
    )
