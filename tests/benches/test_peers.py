"""The bench of whole commands still runs: tiny corpora, no network, and no look at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from peerbench import corpora
from peerbench.contest import difference

PEERS = Path(__file__).parents[2] / "benches/peers.py"
SCALE = 0.0005


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder in which all corpora are made."""
    place = tmp_path_factory.mktemp("work")
    corpora.load(corpora.NAMES, place, SCALE)
    return place


def contest(work: Path, out: Path, snapvault: str) -> tuple[int, str]:
    """Exit code and output of a contest with the bare pipe."""
    tools = ["--tools", "snapvault,pipe", "--snapvault", snapvault]
    options = ["--corpora", "small", "--scale", str(SCALE), "--rounds", "1", "--work", str(work), "--out", str(out)]
    done = subprocess.run([sys.executable, str(PEERS), *tools, *options], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_contest_gives_figures_and_a_chart(work: Path, tmp_path: Path) -> None:
    code, told = contest(work, tmp_path, f"{sys.executable} -m snapvault")
    assert code == 0, told
    results = json.loads((tmp_path / "results.json").read_text())
    steps = results["summary"]["small"]
    assert {tool: list(steps[tool]) for tool in steps} == {
        "snapvault": ["init", "first", "list", "unchanged", "changed", "restore", "check"],
        "pipe": ["init", "first", "changed", "restore", "check"],
    }
    first = steps["snapvault"]["first"]
    assert all(first[figure]["median"] > 0 for figure in ("wall", "cpu", "peak", "repository", "added"))
    assert steps["snapvault"]["changed"]["added"]["median"] < steps["pipe"]["changed"]["added"]["median"]
    assert results["ratios"]["small"]["pipe"]["first"]["repository"] > 0
    drawn = ElementTree.fromstring((tmp_path / "results.svg").read_text())
    assert sum(bar.get("class") is None for bar in drawn.iter("{http://www.w3.org/2000/svg}rect")) > 10
    assert os.listdir(work) == ["corpora"], "what a run made is removed"


def test_a_tool_that_fails_gives_no_figure(work: Path, tmp_path: Path) -> None:
    fake = tmp_path / "fake"
    fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo fake || { echo broken; exit 7; }\n')
    fake.chmod(0o755)
    code, told = contest(work, tmp_path, str(fake))
    assert code == 1 and "exit 7" in told and "broken" in told
    assert list(json.loads((tmp_path / "results.json").read_text())["summary"]["small"]) == ["pipe"]


@pytest.mark.parametrize("damage", ["same size and time", "missing", "one more", "mode"])
def test_what_differs_is_seen(tmp_path: Path, damage: str) -> None:
    source, restored = tmp_path / "source", tmp_path / "restored"
    for root in (source, restored):
        (root / "folder").mkdir(parents=True)
        (root / "folder/file").write_text("tea")
        os.utime(root / "folder/file", (1, 1))
    file = restored / "folder/file"

    def even() -> None:
        for path in ("folder/file", "folder", "."):
            os.utime(source / path, (1, 1))
            if (restored / path).exists():
                os.utime(restored / path, (1, 1))

    even()
    assert difference(source, restored, exact=True) == difference(source, restored, exact=False) == ""
    if damage == "same size and time":
        file.write_text("pea")
    elif damage == "missing":
        file.unlink()
    elif damage == "one more":
        (restored / "more").write_text("")
    else:
        file.chmod(0o600)
    even()
    assert difference(source, restored, exact=True)
    assert bool(difference(source, restored, exact=False)) == (damage != "mode")


def test_recipes_give_the_same_bytes(work: Path, tmp_path: Path) -> None:
    one, two = (corpora.load(corpora.NAMES, place, SCALE) for place in (work, tmp_path))
    for a, b in zip(one, two, strict=True):
        assert (a.files, a.bytes, a.changes) == (b.files, b.bytes, b.name != "media")
        assert a.digest == b.digest or a.name == "image"  # mkfs writes the inode times of this moment
        assert a.files and corpora.own(Path(b.home) / "first").digest == b.digest


def test_versions_are_put_back_after_a_run_that_was_killed(work: Path) -> None:
    (corpus,) = corpora.load(["small"], work, SCALE)
    home, live = Path(corpus.home), Path(corpus.live)
    os.rename(home / "second", live)  # killed here
    with corpus.shown() as change:
        assert corpora.own(live).digest == corpus.digest
        change()
        assert corpora.own(live).digest != corpus.digest
    assert sorted(os.listdir(home)) == ["corpus.json", "first", "second"]
