"""The board as one page of HTML: whole in itself, without a script, for a screen, paper and a screen reader.

Nothing may be fetched and nothing may run: the page's own policy says so to the browser, and every text is escaped.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from importlib import resources

from snapvault.assurance.coverage import DatasetState, PlaceState
from snapvault.assurance.marks import BACKED_UP, LADDER, REPLICATED, Mark, day
from snapvault.report.board import Board, Level, foremost, reason, tone, unanswered
from snapvault.report.signs import ladder_name, symbols, tile
from snapvault.report.words import SIGNS, STEPS, TONES, age, minute, plain

STYLE = resources.files("snapvault.report").joinpath("board.css").read_text()
TEXT_MAX = 240  # characters of a reason that are shown; all of it is in the JSON
FAULTS_MAX = 20  # that are shown
_COLUMNS = ("Dataset", "Steps", "Why, and the evidence", "Data", "Unanswered copies", "Run next")


def draw(board: Board) -> Iterator[str]:
    """The page, piece by piece."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="referrer" content="no-referrer">'
    yield f"<title>{board.recoverable:,} of {len(board.states):,}: recoverability board</title>"
    yield f"<style>{STYLE}</style></head>\n<body>{symbols(board)}"
    yield '<a class="skip" href="#datasets">Skip to the datasets</a>\n<main>'
    yield from _head(board)
    yield from _funnel(board)
    yield from _mosaic(board)
    yield from _table(board)
    yield "</main></body></html>\n"


def _head(board: Board) -> Iterator[str]:
    yield f'<header><p class="eyebrow">Recoverability board</p><h1>{plain(board.headline)}</h1>'
    if board.troubles:
        yield f'<p class="lead">{plain("; ".join(board.troubles))}.</p>'
    made = f"{minute(board.time)} UTC"
    yield f'<p class="made">As of <time datetime="{board.time.isoformat()}">{made}</time>, '
    yield f"repository <code>{board.repository[:16]}</code>, register revision {board.revision}.</p></header>\n"
    remarks = [f"Damaged: {fault}" for fault in board.faults[:FAULTS_MAX]]
    if len(board.faults) > FAULTS_MAX:
        remarks.append(f"Damaged: {len(board.faults) - FAULTS_MAX:,} more (--json lists them all)")
    remarks += [f"The register is ambiguous: {conflict}" for conflict in board.conflicts]
    if board.undeclared:
        remarks.append(f"Backed up, and declared nowhere: {', '.join(board.undeclared)}")
    if remarks:
        items = "".join(f"<li>{_text(r)}</li>" for r in remarks)
        yield f'<section aria-label="Remarks" class="remarks"><ul>{items}</ul></section>\n'


# -- the funnel ----------------------------------------------------------------------------------------------------


def _funnel(board: Board) -> Iterator[str]:
    yield '<section aria-labelledby="how-far"><h2 id="how-far">How far up the ladder</h2><ol class="funnel">'
    total = len(board.states)
    for level in board.funnel:
        aside = ' class="aside"' if level.step == REPLICATED else ""
        yield f"<li{aside}><span>{STEPS[level.step]}</span> <b>{level.good:,}</b> {_bar(level, total)}</li>"
    yield (
        '</ol><p class="key">Solid: good there, and at all steps before. Striped: bad. Dotted: unknown. '
        "Replicated stands beside the others: every copy that is owed is known to be there.</p></section>\n"
    )


def _bar(level: Level, total: int) -> str:
    said = f"{level.good:,} good, {level.bad:,} bad, {level.unknown:,} unknown"
    parts, at = [], 0.0
    for kind, number in (("good", level.good), ("bad", level.bad), ("unknown", level.unknown)):
        width = 100 * number / total if total else 0
        if number:
            parts.append(f'<rect class="{kind}" x="{at:.2f}%" width="{width:.2f}%" height="100%"/>')
        at += width
    return f'<svg role="img" aria-label="{said}" class="bar"><title>{said}</title>{"".join(parts)}</svg>'


# -- the mosaic ----------------------------------------------------------------------------------------------------


def _mosaic(board: Board) -> Iterator[str]:
    """For the eye alone: its key, which is text, and the table say the same to everybody."""
    numbers = Counter(map(tone, board.states))
    yield '<section aria-labelledby="all"><h2 id="all">Every dataset</h2><ul class="legend">'
    for name, (_, what) in TONES.items():
        if numbers[name]:
            yield f"<li>{tile(name, 6)} <b>{numbers[name]:,}</b> {what}</li>"
    yield '</ul><p class="key">The line at the foot of a tile is as long as it is far up the ladder.</p>'
    yield '<div class="mosaic" aria-hidden="true">'
    for number, state in enumerate(board.states):
        said = plain(": ".join(t for t in (state.dataset.name, _clip(reason(state), 80) or STEPS[state.reached]) if t))
        yield f'<a href="#d{number}" tabindex="-1">{tile(tone(state), 1 + LADDER.index(state.reached), said)}</a>'
    yield "</div></section>\n"


# -- the table -----------------------------------------------------------------------------------------------------


def _table(board: Board) -> Iterator[str]:
    yield '<section aria-labelledby="datasets"><h2 id="datasets" tabindex="-1">Worst first</h2><table>'
    yield '<caption>All declared datasets, the worst first; "Why" opens to show the evidence.</caption><thead><tr>'
    yield "".join(f'<th scope="col">{column}</th>' for column in _COLUMNS) + "</tr></thead><tbody>\n"
    for number, state in enumerate(board.states):
        yield _row(board, state, number)
    yield "</tbody></table></section>\n"


def _row(board: Board, state: DatasetState, number: int) -> str:
    d = state.dataset
    about = ", ".join(text for text in (d.owner, d.tier and f"tier {d.tier}") if text)
    data = "none" if state.data_of is None else age(board.time - state.data_of)
    waiting = "".join(f"{_text(site)}<small>{_since(board, since)}</small>" for site, since in unanswered(state))
    first = foremost(state)
    command = "" if first is None else f"<code>{plain(first.command)}</code>"
    said = ", ".join(f"{STEPS[s]} {state.steps[s].value}" for s in LADDER)
    why = _text(reason(state)) or f"alive on {_day(state.steps['alive'].at)}"
    cells = (
        f'<td><svg class="l" role="img" aria-label="{said}"><use href="#{ladder_name(state)}"/></svg></td>',
        f"<td><details><summary>{why}</summary>{_evidence(state, number)}</details></td>",
        f'<td class="d">{data}</td>', f'<td class="u">{waiting}</td>', f'<td class="n">{command}</td>',
    )  # fmt: skip
    small = f"<small>{_text(about)}</small>" if about else ""
    return f'<tr class="{tone(state)}"><th scope="row">{plain(d.name)}{small}</th>{"".join(cells)}</tr>\n'


def _since(board: Board, since: datetime) -> str:
    return f"since {day(since)}, {age(board.time - since)}"


def _evidence(state: DatasetState, number: int) -> str:
    """What opens: each place with its steps, what was promised, and all further trouble."""
    items = [_mark(STEPS[BACKED_UP], state.steps[BACKED_UP])]
    items += [_mark({"freshness": "fresh", "recovery": "quick"}[name], m) for name, m in state.objectives.items()]
    known = [p for p in state.places if any(m.at is not None for m in p.steps.values())]
    known = known if state.steps[BACKED_UP].good else []
    lines = [f"<li>{'; '.join(items)}</li>", *map(_place, known)]
    lines += [f"<li>{_text(note)}</li>" for note in state.notes]
    first = foremost(state)
    others = (p for p in state.problems if first is not None and (p.kind, p.command) != (first.kind, first.command))
    lines += [f"<li>{_text(p.why)}: <code>{plain(p.command)}</code></li>" for p in others]
    return f'<ul id="d{number}">{"".join(lines)}</ul>'


def _place(place: PlaceState) -> str:
    where = plain(place.site) if place.site else "the repository itself"
    return f"<li><b>{where}</b>: {'; '.join(_mark(STEPS[s], m) for s, m in place.steps.items())}</li>"


def _mark(what: str, mark: Mark) -> str:
    when = f" {_day(mark.at)}{f' by {_text(mark.by)}' if mark.by else ''}" if mark.good and mark.at else ""
    why = "" if mark.good else f": {_text(mark.why)}"
    return f"{SIGNS[mark.value]}&nbsp;{what}{when}{why}"


def _day(time: datetime | None) -> str:
    return "" if time is None else day(time)


def _text(text: str) -> str:
    """Escaped, and not longer than a cell bears."""
    return plain(_clip(text, TEXT_MAX))


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
