"""One SVG of all medians: a row for each corpus, a column for each step, a bar for each tool."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from peerbench.report import Summary

# Colours that stand out from white and from near-black alike, also for those who see no red and green.
_COLOURS = {"snapvault": "#d9480f", "restic": "#2f81c7", "borg": "#2b9a78", "replicat": "#9b6bd6", "pipe": "#8a8f98"}
_BAR, _GAP, _CELL, _LEFT, _TOP = 15, 3, 176, 96, 74
_LONGEST = 96  # pixels of the longest bar in a cell; the rest is for its figure

# The card brings its own background, so that it can be read wherever it is shown.
_STYLE = """
text { font: 11px system-ui, sans-serif; fill: #1f2328 }
.bold { font-weight: 600 } .title { font-size: 15px; font-weight: 600 } .faint { fill: #59636e }
.card { fill: #ffffff; stroke: #d1d9e0 } .rule { stroke: #d1d9e0 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .faint { fill: #9198a1 } .card { fill: #0d1117; stroke: #3d444d } .rule { stroke: #3d444d }
}
"""


class Column(NamedTuple):
    title: str
    step: str
    figure: str
    unit: str


COLUMNS = (
    Column("first backup, s", "first", "wall", "s"),
    Column("unchanged, s", "unchanged", "wall", "s"),
    Column("changed, s", "changed", "wall", "s"),
    Column("restore, s", "restore", "wall", "s"),
    Column("check all data, s", "check", "wall", "s"),
    Column("repository, MB", "first", "repository", "MB"),
    Column("changed: added, MB", "changed", "added", "MB"),
)


def chart(told: Summary, tools: Sequence[str], corpora: Mapping[str, str], foot: str) -> str:
    """The SVG.  ``corpora``: a line about each one; ``foot``: about the machine and the versions."""
    row = 34 + len(tools) * (_BAR + _GAP)
    width, height = _LEFT + len(COLUMNS) * _CELL + 8, _TOP + row * len(told) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'role="img" aria-label="Wall time and repository size of backup tools, shorter is better">',
        f"<style>{_STYLE}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="6"/>',
        _text(14, 26, "Shorter is better", "title"),
    ]
    for number, tool in enumerate(tools):
        parts.append(f'<rect x="{170 + number * 100}" y="16" width="11" height="11" rx="2" fill="{_COLOURS[tool]}"/>')
        parts.append(_text(186 + number * 100, 26, tool))
    parts += [_text(_LEFT + i * _CELL, _TOP - 14, column.title, "bold") for i, column in enumerate(COLUMNS)]
    for number, corpus in enumerate(told):
        y = _TOP + number * row
        parts.append(f'<line class="rule" x1="14" x2="{width - 14}" y1="{y - 4}" y2="{y - 4}"/>')
        parts += [_text(14, y + 13, corpus, "bold"), _text(_LEFT, y + 13, corpora[corpus], "faint")]
        for place, column in enumerate(COLUMNS):
            parts += _cell(told[corpus], tools, column, _LEFT + place * _CELL, y + 20)
    parts += [_text(14, height - 12, foot, "faint"), "</svg>"]
    return "\n".join(parts) + "\n"


def _cell(of_corpus: Mapping[str, Any], tools: Sequence[str], column: Column, x: int, y: int) -> list[str]:
    scale = 1e6 if column.unit == "MB" else 1
    values = {}
    for tool in tools:
        figures = of_corpus.get(tool, {}).get(column.step)
        if figures is not None:
            values[tool] = figures[column.figure]["median"] / scale
    longest = max(values.values(), default=0) or 1
    parts = []
    for number, tool in enumerate(tools):
        top = y + number * (_BAR + _GAP)
        if tool not in values:
            parts.append(_text(x, top + 12, "\N{EN DASH}", "faint"))
            continue
        length = max(1.0, values[tool] / longest * _LONGEST)
        parts.append(f'<rect x="{x}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{_COLOURS[tool]}"/>')
        places = 0 if values[tool] >= 100 else 1 if values[tool] >= 10 else 2
        label = f"{values[tool]:.{places}f}"
        parts.append(_text(x + length + 5, top + 12, label, "bold" if tool == tools[0] else ""))
    return parts


def _text(x: float, y: float, text: str, style: str = "") -> str:
    wanted = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y}"{wanted}>{escape(text)}</text>'
