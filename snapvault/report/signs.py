"""The signs of the page, drawn once and used everywhere: a shape and a pattern each, so that none needs its colour."""

from collections.abc import Iterator

from snapvault.assurance.coverage import DatasetState
from snapvault.assurance.marks import BAD, GOOD, LADDER, UNKNOWN
from snapvault.report.board import DARK, DOWN, FINE, KEPT_NOT, Board

_TICK = '<path d="M4.8 9.2 8 12.2 13.4 5.6"/>'
_CROSS = '<path d="M5.4 5.4 12.6 12.6M12.6 5.4 5.4 12.6"/>'
_QUERY = '<path d="M6.4 6.8a2.6 2.6 0 1 1 3.7 2.4Q9 9.8 9 10.8M9 13.2v.2"/>'
_CALL = '<path d="M9 4.2v6M9 13v.2"/>'
_TILES = {FINE: _TICK, KEPT_NOT: _CALL, DOWN: _CROSS, DARK: _QUERY}
_STEPS = {GOOD: _TICK, BAD: _CROSS, UNKNOWN: _QUERY}
_PATTERNS = (
    '<pattern id="stripes" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="bad" width="6" height="6"/><rect class="gap" width="2" height="6"/></pattern>'
    '<pattern id="dots" width="6" height="6" patternUnits="userSpaceOnUse">'
    '<circle class="dot" cx="3" cy="3" r="1.1"/></pattern>'
)


def symbols(board: Board) -> str:
    """All that the page uses: what is drawn hundreds of times is a word there."""
    ladders = "".join(_ladder(name) for name in sorted(set(map(ladder_name, board.states))))
    found = f"{_PATTERNS}{''.join(_tiles())}{''.join(_steps())}{ladders}"
    return f'<svg width="0" height="0" aria-hidden="true" class="defs"><defs>{found}</defs></svg>\n'


def tile(tone: str, height: int, title: str = "") -> str:
    """A dataset; ``height``: steps of six that it reached; ``title``: escaped; none for one in a text."""
    hidden, named = ("", f"<title>{title}</title>") if title else (' aria-hidden="true"', "")
    return f'<svg class="t"{hidden}>{named}<use href="#{tone}{height}"/></svg>'


def ladder_name(state: DatasetState) -> str:
    """The symbol of the six steps of a dataset."""
    return "".join(state.steps[step].value[0] for step in LADDER)


def _ladder(name: str) -> str:
    values = {value[0]: value for value in _STEPS}
    signs = (f'<use href="#{values[c]}" x="{at * 19}" width="16" height="16"/>' for at, c in enumerate(name))
    return f'<symbol id="{name}">{"".join(signs)}</symbol>'


def _tiles() -> Iterator[str]:
    for tone, shape in _TILES.items():
        for height in range(1, len(LADDER) + 1):
            yield (
                f'<symbol id="{tone}{height}"><rect class="{tone}" x=".5" y=".5" width="17" height="17" rx="4"/>'
                f'<g class="stroke {tone}"><g transform="translate(1.8 0) scale(.8)">{shape}</g>'
                f'<path class="foot" d="M3 14.8h{2 * height}"/></g></symbol>'
            )


def _steps() -> Iterator[str]:
    for value, shape in _STEPS.items():
        yield (
            f'<symbol id="{value}" viewBox="0 0 18 18"><circle class="{value}" cx="9" cy="9" r="8"/>'
            f'<g class="stroke {value}">{shape}</g></symbol>'
        )
