"""The signs of the page, drawn once and used everywhere: a shape and a pattern each, so that none needs its colour."""

from snapvault.assurance.marks import BAD, GOOD, UNKNOWN
from snapvault.report.board import DARK, DOWN, FINE, KEPT_NOT

SIZE = 18  # of a tile
_TICK = '<path d="M4.8 9.2 8 12.2 13.4 5.6"/>'
_CROSS = '<path d="M5.4 5.4 12.6 12.6M12.6 5.4 5.4 12.6"/>'
_QUERY = '<path d="M6.4 6.8a2.6 2.6 0 1 1 3.7 2.4Q9 9.8 9 10.8M9 13.2v.2"/>'
_CALL = '<path d="M9 4.2v6M9 13v.2"/>'
_SHAPES = {FINE: _TICK, KEPT_NOT: _CALL, DOWN: _CROSS, DARK: _QUERY}
_SMALL = {GOOD: _TICK, BAD: _CROSS, UNKNOWN: _QUERY}


def _symbols() -> str:
    stripes = (
        '<pattern id="stripes" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="bad" width="6" height="6"/><rect class="gap" width="2" height="6"/></pattern>'
        '<pattern id="dots" width="6" height="6" patternUnits="userSpaceOnUse">'
        '<circle class="dot" cx="3" cy="3" r="1.1"/></pattern>'
    )
    tiles = "".join(
        f'<symbol id="t-{tone}"><rect class="{tone}" x=".5" y=".5" width="17" height="17" rx="4"/>'
        f'<g class="stroke {tone}">{shape}</g></symbol>'
        for tone, shape in _SHAPES.items()
    )
    steps = "".join(
        f'<symbol id="s-{value}" viewBox="0 0 18 18"><circle class="{value}" cx="9" cy="9" r="8"/>'
        f'<g class="stroke {value}">{shape}</g></symbol>'
        for value, shape in _SMALL.items()
    )
    return f'<svg width="0" height="0" aria-hidden="true" class="defs"><defs>{stripes}{tiles}{steps}</defs></svg>\n'


SYMBOLS = _symbols()


def tile(tone: str, height: int, title: str = "") -> str:
    """A dataset; ``height``: steps of six that it reached; ``title``: escaped."""
    named = f"<title>{title}</title>" if title else ""
    line = f'<path class="{tone}" d="M3 16h{2 * height}"/>'
    return f'<svg class="t">{named}<use href="#t-{tone}"/>{line}</svg>'


def sign(value: str, at: int) -> str:
    """A step of the ladder, the ``at``-th."""
    return f'<use href="#s-{value}" x="{at * 19}" width="16" height="16"/>'
