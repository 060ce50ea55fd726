"""The board as lines of text."""

import textwrap
from collections import Counter
from collections.abc import Iterator

from snapvault.assurance.coverage import DatasetState
from snapvault.assurance.marks import REPLICATED, day
from snapvault.foundation.words import count
from snapvault.report.board import Board, foremost, reason, tone, unanswered
from snapvault.report.words import STEPS, TONES, age

WORST = 10  # datasets that are told about
_FULL = "█"
_EIGHTHS = " ▏▎▍▌▋▊▉"


def draw(board: Board, width: int) -> list[str]:
    """The sentence, the funnel, a sign for each dataset, and the worst of them."""
    return [
        *textwrap.wrap(board.sentence, width), "", *_funnel(board, width), "", *_mosaic(board, width),
        *_worst(board, width), *_remarks(board, width),
    ]  # fmt: skip


def _funnel(board: Board, width: int) -> Iterator[str]:
    digits = len(f"{len(board.states):,}")
    for level in board.funnel:
        share = level.good / len(board.states) if board.states else 0
        bar = _bar(share, width - digits - 36)
        beside = "  of the copies owed" if level.step == REPLICATED else ""
        unknown = f"  {level.unknown:,} unknown" if level.unknown else ""
        yield f"{STEPS[level.step]:10} {level.good:>{digits},} {bar}{beside or unknown}".rstrip()


def _bar(share: float, width: int) -> str:
    eighths = max(round(share * width * 8), 1 if share else 0)
    return (_FULL * (eighths // 8) + _EIGHTHS[eighths % 8]).strip()


def _mosaic(board: Board, width: int) -> Iterator[str]:
    tones = [tone(state) for state in board.states]
    signs, numbers = "".join(TONES[t][0] for t in tones), Counter(tones)
    yield from (signs[at : at + width] for at in range(0, len(signs), width))
    yield ""
    yield from (f"{sign} {numbers[t]:,} {what}" for t, (sign, what) in TONES.items() if numbers[t])


def _worst(board: Board, width: int) -> Iterator[str]:
    worst = [s for s in board.states if s.problems or not s.recoverable]
    for state in worst[:WORST]:
        yield ""
        yield from _told(board, state, width)
    if len(worst) > WORST:
        yield ""
        yield f"... and {len(worst) - WORST:,} more (--json and --html list them all)"


def _told(board: Board, state: DatasetState, width: int) -> Iterator[str]:
    d, sign = state.dataset, TONES[tone(state)][0]
    about = ", ".join(text for text in (d.owner, d.tier and f"tier {d.tier}") if text)
    said = [f"{sign} {d.name}{f' ({about})' if about else ''}, {STEPS[state.reached]}: {reason(state)}"]
    said += [f"data {age(board.time - state.data_of)} old"] if state.data_of is not None else []
    said += [f"copy at {s} unanswered since {day(since)}, {age(board.time - since)}" for s, since in unanswered(state)]
    yield from textwrap.wrap("; ".join((*said, *state.notes)), width, subsequent_indent="  ")
    first = foremost(state)
    if first is not None:
        yield f"  next: {first.command}"


def _remarks(board: Board, width: int) -> Iterator[str]:
    said = []
    if board.undeclared:
        said.append(
            f"{count(len(board.undeclared), 'dataset')} backed up, and declared nowhere: 'snapvault register check'"
        )
    said += [f"the register is ambiguous: {conflict}" for conflict in board.conflicts]
    said += [f"damaged: {fault}" for fault in board.faults]
    for text in said:
        yield ""
        yield from textwrap.wrap(text, width)
