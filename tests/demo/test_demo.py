"""The demo keeps its promises, and fails if one of them is broken."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snapvault.demo import trees

DEMO = [sys.executable, "-m", "snapvault.demo"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small real tree: the packages that every Python has."""
    root = tmp_path / "source"
    for name in ("json", "email", "concurrent"):
        shutil.copytree(trees.default_source() / name, root / name)
    (root / "big").write_bytes(os.urandom(3 << 20))
    return root


def run(*argv: object, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*DEMO, *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", **env},
    )


def test_everything_is_as_promised_and_kept(source: Path, tmp_path: Path) -> None:
    done = run("--source", source, "--keep", tmp_path / "kept")
    assert done.returncode == 0 and done.stderr == "", done
    assert done.stdout.count("\nok  ") == 8 and "FAIL" not in done.stdout and "unmodified and not read" in done.stdout
    assert {"repository", "recovery.key", "restored", "rescued"} <= set(os.listdir(tmp_path / "kept"))
    again = run("--source", source, "--keep", tmp_path / "kept")
    assert again.returncode == 2 and "not empty" in again.stderr


def test_without_rsync_it_compares_by_itself(source: Path, tmp_path: Path) -> None:
    done = run("--source", source, PATH=str(tmp_path))
    assert done.returncode == 0 and "SHA-256" in done.stdout, done


BROKEN = {
    "DIFFERENCES": (
        "def _inside(self, target):\n"
        " place = real(self, target)\n"
        " (place / 'json/__init__.py').write_text('spoilt')\n"
        " return place"
    ),
    "named, 0 by the check": "def _damage(self):\n row = real(self)\n self._lost = set()\n return row",
}


@pytest.mark.parametrize("said", BROKEN)
def test_a_broken_promise_fails(source: Path, said: str) -> None:
    """A restore that loses a byte; a check that does not say what a restore says."""
    name = BROKEN[said].split("(")[0].removeprefix("def ")
    code = (
        "import sys, snapvault.demo.__main__ as main, snapvault.demo.story as story\n"
        f"real = story.Story.{name}\n{BROKEN[said]}\nstory.Story.{name} = {name}\n"
        "sys.exit(main.main())\n"
    )
    argv = [sys.executable, "-c", code, "--source", str(source)]
    env = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 1 and said in done.stdout and "not everything" in done.stderr, done


def test_the_change_is_a_change(source: Path) -> None:
    before = trees.manifest(source)
    trees.change(source)
    different = trees.differences(before, trees.manifest(source))
    assert "new.bin" in different and len(different) > 10
    assert trees.compare(source, source) == []


def test_a_source_that_is_none(tmp_path: Path) -> None:
    done = run("--source", tmp_path / "none")
    assert done.returncode == 2 and "no folder" in done.stderr
