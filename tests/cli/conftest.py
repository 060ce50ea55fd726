"""Fixtures: machines, a small tree, a repository."""

import logging
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machines import PASSWORD, Machine

import snapvault


@pytest.fixture
def new_machine(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Machine]]:
    """Machines by name, and nothing of the command left in this process afterwards."""
    logger = logging.getLogger("snapvault")
    before = (sys.excepthook, signal.getsignal(signal.SIGTERM), logger.handlers[:], logger.level, logger.propagate)
    yield lambda name: Machine(tmp_path / name, capfdbinary, monkeypatch)
    sys.excepthook = before[0]
    signal.signal(signal.SIGTERM, before[1])
    logger.handlers[:], logger.level, logger.propagate = before[2:]


@pytest.fixture
def cli(new_machine: Callable[[str], Machine]) -> Machine:
    """A machine."""
    return new_machine("home")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree to back up."""
    root = tmp_path / "source"
    (root / "folder").mkdir(parents=True)
    (root / "a.txt").write_text("alpha\n")
    (root / "folder/b.txt").write_text("beta\n" * 1000)
    (root / "folder/link").symlink_to("b.txt")
    return root


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty repository beside its recovery key, to be copied: making one costs a password hash."""
    place = tmp_path_factory.mktemp("template")
    result = snapvault.init(str(place / "repo"), password=PASSWORD)
    result.repository.close()
    (place / "recovery.key").write_text(result.recovery_key)
    return place


@pytest.fixture
def repo(tmp_path: Path, template: Path, cli: Machine) -> Path:
    """A repository that ``cli`` opens unless told otherwise, by its recovery key, since a password takes 0.2 s."""
    shutil.copytree(template, tmp_path / "store")
    cli.env |= {
        "SNAPVAULT_REPOSITORY": str(tmp_path / "store/repo"),
        "SNAPVAULT_KEY_FILE": str(tmp_path / "store/recovery.key"),
    }
    return tmp_path / "store/repo"
