"""The format pages name what the code does: what no page knows cannot be read by a stranger."""

import ast
from collections.abc import Iterator
from pathlib import Path

from snapvault.format import names
from snapvault.format.wire import Kind
from snapvault.repository.trust import LABELS

ROOT = Path(__file__).parents[2]
PAGES = {p.name: p.read_text() for p in (ROOT / "docs" / "format").glob("*.md")}
CALLS = {"derive": 1, "seal": 1, "unseal": 1}  # function, and which argument is the purpose


def purposes() -> Iterator[str]:
    """Every literal purpose of a derivation or an envelope in the package."""
    for path in (ROOT / "snapvault").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
                at = CALLS[node.func.id]
                if len(node.args) > at and isinstance(argument := node.args[at], ast.Constant):
                    yield str(argument.value)


def test_every_purpose_is_on_the_page() -> None:
    found = set(purposes())
    assert {"segment", "trailer", "slot commitment", "hpke x25519"} <= found  # else this would look at nothing
    assert [p for p in sorted(found) if f"`{p}`" not in PAGES["crypto.md"]] == []


def test_every_kind_and_label_is_on_the_page() -> None:
    for name, kind in vars(Kind).items():
        if not name.startswith("_"):
            assert f"| {kind} |" in PAGES["frame.md"], name
    for label in LABELS.values():
        assert f"`{label}`" in PAGES["frame.md"]


def test_every_place_of_objects_is_on_the_page() -> None:
    places = [v for k, v in vars(names).items() if k.isupper() and isinstance(v, str) and v.endswith("/")]
    assert len(places) > 9
    for place in places:
        assert f"`{place}" in PAGES["README.md"] or place == names.LOCAL


def test_pages_that_the_code_and_other_pages_name_exist() -> None:
    for path in (ROOT / "snapvault").rglob("*.py"):
        for word in path.read_text().replace(")", " ").replace(",", " ").replace("`", " ").split():
            if word.startswith("docs/") and word.rstrip(".;:").endswith(".md"):
                assert (ROOT / word.rstrip(".;:")).exists(), f"{path}: {word}"
    for page, text in PAGES.items():
        for link in text.split("](")[1:]:
            assert (ROOT / "docs" / "format" / link.split(")")[0]).exists(), f"{page}: {link.split(')')[0]}"
