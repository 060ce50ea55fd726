"""The rules of the house, each held by its tool: layers, lint, format, types."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_clean(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def test_imports_only_go_down() -> None:
    # The tool has no `python -m` form, and its script need not be on the path.
    run_clean(sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache")


def test_lint() -> None:
    run_clean(sys.executable, "-m", "ruff", "check", ".")


def test_format() -> None:
    run_clean(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_types() -> None:
    run_clean(sys.executable, "-m", "mypy", "--strict", "-p", "snapvault")
