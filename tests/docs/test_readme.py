"""The README's commands and its example."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import snapvault

ROOT = Path(snapvault.__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_library_example(tmp_path: Path) -> None:
    (code,) = blocks("python")
    statements = [line for line in code.splitlines() if line.strip()]
    assert len(statements) <= 7, "the import, and six lines"
    (tmp_path / "orders").mkdir()
    (tmp_path / "orders/1.txt").write_text("tea")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok ok\n", "")
    assert (tmp_path / f"restored{tmp_path}/orders/1.txt").read_text() == "tea"


def test_ci_runs_the_test_command_and_nothing_else() -> None:
    command = blocks("sh")[1].strip()
    script = (ROOT / ".ci/run").read_text()
    assert [line for line in script.splitlines() if line and line[0] not in "#"] == [
        "set -eu", 'cd "$(dirname "$0")/.."', command,
    ]  # fmt: skip


def test_the_demo_is_what_the_first_command_runs() -> None:
    """Editable: ``python -m`` looks into the working folder first, and the sources there need the compiled module."""
    command = blocks("sh")[0].strip()
    assert "--editable ." in command and command.endswith("&& .venv/bin/python -m snapvault.demo")


def test_the_commands(tmp_path: Path) -> None:
    (tmp_path / "me").mkdir()
    (tmp_path / "me/letter").write_text("Dear Ada")
    places = {"/mnt/disk": "", "/mnt/other-house": "/other-house", "/home/me": "/me"}
    script = blocks("sh")[2]
    for place, folder in places.items():
        script = script.replace(place, f"{tmp_path}{folder}")
    env = {
        "HOME": str(tmp_path), "SNAPVAULT_PASSWORD": "secret",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    script = "set -e\n" + script.replace("/tmp/back", f"{tmp_path}/back")
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "No damage was found." in done.stdout, done
    assert (tmp_path / f"back{tmp_path}/me/letter").read_text() == "Dear Ada"


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / link).exists(), link
