"""Draws the pictures in the docs anew: `python tests/report/pictures.py` in a checkout, then look at them."""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from boards import usual  # noqa: E402
from browser import browser  # noqa: E402

from snapvault.report.html import draw  # noqa: E402

with tempfile.TemporaryDirectory() as folder, browser(Path(folder, "profile")) as chromium:
    page = Path(folder, "board.html")
    page.write_text("".join(draw(usual().board())))
    chromium.open(page, 1280, 1160)
    chromium.screenshot(ROOT / "docs/board-wide.png")
    chromium.open(page, 390, 844)
    chromium.run("document.querySelectorAll('tbody tr')[5].querySelector('summary').click()")
    chromium.run("document.querySelectorAll('tbody tr')[5].scrollIntoView()")
    chromium.screenshot(ROOT / "docs/board-narrow.png")
