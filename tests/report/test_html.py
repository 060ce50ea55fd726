"""The page, in a real Chromium: it fetches nothing, runs nothing, fits, and says the same to every reader."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from boards import Fleet, incident, usual
from browser import Browser, browser

from snapvault.report.board import Board
from snapvault.report.html import draw

EVIL = "\"><script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)>'&\u202e{{7*7}}"
# Of text against what is behind it, by WCAG: every element that holds text, up to the first background that is opaque.
CONTRAST = """(() => {
  const rgb = c => c.match(/[\\d.]+/g).map(Number);
  const line = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = rgb(c).map(line);
    return .2126 * r + .7152 * g + .0722 * b };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (rgb(c).length < 4 || rgb(c)[3] == 1) return c } return 'rgb(255, 255, 255)' };
  let worst = 99;
  for (const e of document.querySelectorAll('main *')) {
    if (e.closest('svg') || ![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    worst = Math.min(worst, (a + .05) / (b + .05)) }
  return worst })()"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Every kind of trouble, on a page that is drawn in a moment."""
    fleet = usual(200)
    fleet.back_up("strays")
    return write(tmp_path, fleet.board("a record of the evidence is missing", conflicts=("revisions 6 and 7 differ",)))


def write(folder: Path, board: Board) -> Path:
    path = folder / "board.html"
    path.write_text("".join(draw(board)))
    return path


def test_eight_hundred_datasets_are_under_a_megabyte(tmp_path: Path, chromium: Browser) -> None:
    sizes = [write(tmp_path, board).stat().st_size for board in (usual().board(), incident().board())]
    assert max(sizes) < 1_000_000, sizes
    chromium.open(tmp_path / "board.html", 390, 844)
    assert chromium.run("document.documentElement.scrollWidth") == 390
    assert chromium.run("document.querySelectorAll('.mosaic title').length") == 800


@pytest.mark.parametrize("width", [1280, 390])
def test_it_asks_for_nothing_and_complains_of_nothing(page: Path, chromium: Browser, width: int) -> None:
    chromium.requests.clear()
    chromium.open(page, width)
    assert chromium.requests == [page.as_uri()]
    assert chromium.console == []
    assert chromium.run("document.documentElement.scrollWidth") == width


def test_its_own_policy_forbids_what_it_does_not_need(page: Path, chromium: Browser) -> None:
    chromium.open(page)
    chromium.run(
        "new Promise(done => { const i = new Image(); i.onerror = done; i.src = 'http://127.0.0.1:9/x';"
        "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s, i) })"
    )
    assert chromium.run("window.ran") is None
    assert chromium.blocked == ["http://127.0.0.1:9/x"]
    chromium.console.clear()


def test_hostile_words_are_words(tmp_path: Path, chromium: Browser) -> None:
    fleet = Fleet()
    fleet.declare("orders", owner=EVIL, tier=EVIL, sites=(EVIL,), sources=(EVIL,))
    fleet.back_up("orders", 3, holder=EVIL)
    fleet.drill("orders", EVIL, probe="fail", why=EVIL)
    fleet.back_up(EVIL)
    page = write(tmp_path, fleet.board(EVIL, conflicts=(EVIL,)))
    chromium.requests.clear()
    chromium.open(page)
    assert chromium.run("document.querySelectorAll('script, img, [onerror]').length") == 0
    assert chromium.requests == [page.as_uri()]
    assert chromium.console == []
    assert "{{7*7}}" in chromium.run("document.querySelector('tbody small').textContent")
    assert "\u202e" not in page.read_text()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_screen_reader_gets_a_table_with_headers_and_headings_in_order(
    page: Path, chromium: Browser, width: int
) -> None:
    chromium.open(page, width)
    nodes = chromium.tree()
    headings = [(n["level"], n["name"]) for n in nodes if n["role"] == "heading"]
    assert headings == [
        (1, "190 of 200 can be brought back within their objectives"), (2, "How far up the ladder"),
        (2, "Every dataset"), (2, "Worst first"),
    ]  # fmt: skip
    roles = [n["role"] for n in nodes]
    assert roles.count("table") == 1
    assert roles.count("rowheader") == 200
    assert roles.count("row") == 201
    assert [n["name"] for n in nodes if n["role"] == "columnheader"] == [
        "Dataset", "Steps", "Why, and the evidence", "Data", "Unanswered copies", "Run next",
    ]  # fmt: skip
    pictures = [n["name"] for n in nodes if n["role"] in ("image", "img")]
    assert all(pictures)
    assert (
        "declared good, backed-up bad, replicated unknown, intact unknown, restored unknown, alive unknown".replace(
            "backed-up", "backed up"
        )
        in pictures
    )
    assert "200 good, 0 bad, 0 unknown" in pictures
    assert roles.count("link") == 1  # the tiles are for the eye and the mouse


def test_the_keyboard_reaches_what_opens(page: Path, chromium: Browser) -> None:
    chromium.open(page)
    focused = "document.activeElement.tagName + ' ' + document.activeElement.textContent"
    chromium.press("Tab", 9)
    assert chromium.run(focused) == "A Skip to the datasets"
    chromium.press("Tab", 9)
    assert chromium.run(focused) == "SUMMARY never backed up"  # no tile stands between
    chromium.open(page)
    chromium.press("Tab", 9)
    chromium.press("Enter", 13, "\r")
    chromium.press("Tab", 9)
    assert chromium.run(focused) == "SUMMARY never backed up"
    first = "document.querySelector('details ul')"
    assert not chromium.run(f"{first}.checkVisibility()")
    chromium.press("Enter", 13, "\r")
    assert chromium.run(f"{first}.checkVisibility()")
    assert "✗\u00a0backed up: never backed up" in chromium.run(f"{first}.textContent")
    assert chromium.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    chromium.press("Tab", 9)
    assert chromium.run("document.activeElement === document.querySelectorAll('summary')[1]")


def test_a_tile_leads_to_its_dataset_and_opens_it(page: Path, chromium: Browser) -> None:
    chromium.open(page)
    chromium.run("document.querySelectorAll('.mosaic a')[3].click()")
    assert chromium.run("document.querySelectorAll('tbody tr')[3].querySelector('details ul').checkVisibility()")


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read(page: Path, chromium: Browser, dark: bool) -> None:
    chromium.open(page, dark=dark)
    assert chromium.run(CONTRAST) >= 4.5
    background = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 24, 31)" if dark else "rgb(251, 250, 247)")


def test_no_sign_is_by_its_colour_alone(page: Path) -> None:
    text = page.read_text()
    shapes = dict(re.findall(r'<symbol id="(fine|breach|down|unknown)6">.*?(<path.*?/>)', text))
    assert len(set(shapes.values())) == 4
    steps = dict(re.findall(r'<symbol id="(good|bad|unknown)" .*?(<path.*?/>)', text))
    assert len(set(steps.values())) == 3


def test_it_prints_in_the_light_and_as_a_table(page: Path, chromium: Browser) -> None:
    chromium.open(page, dark=True)
    assert len(re.findall(rb"/Type\s*/Page\b", chromium.pdf())) < 25
    chromium.call("Emulation.setEmulatedMedia", media="print")
    assert chromium.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.run("getComputedStyle(document.querySelector('thead')).display") == "table-header-group"


def test_it_says_what_the_board_says(page: Path) -> None:
    text = unescape(re.sub(r"<[^>]+>", " ", page.read_text()))
    assert "190 of 200 can be brought back within their objectives" in text
    assert "Damaged: a record of the evidence is missing" in text
    assert "revisions 6 and 7 differ" in text
    assert "declared nowhere: strays" in text
    assert "snapvault backup --all --dataset photos-007" in text
