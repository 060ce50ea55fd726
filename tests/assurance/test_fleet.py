"""Backing up all that is declared: what fails is told in its place, and only a cancel stops the rest."""

import errno
import threading
from pathlib import Path

import pytest

from snapvault import Cancelled, Control, Repository
from snapvault.assurance import fleet
from snapvault.assurance.dataset import Dataset
from snapvault.assurance.fleet import backup_all
from tests.repos import make


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    (tmp_path / "data").mkdir()
    return make(tmp_path / "repo")


def test_urls_that_need_different_options(repo: Repository, tmp_path: Path) -> None:
    both = Dataset("both", ("memory://a", "memory://b"))
    fine = Dataset("fine", (str(tmp_path / "data"),))
    found = list(backup_all(repo, [both, fine], source_options=lambda url: {"key": url} if "://" in url else None))
    assert found[0].error is not None and "different storage options" in str(found[0].error)
    assert found[1].result is not None and found[1].exit_code == 0


def test_what_the_system_refuses_is_told_too(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/state/pins")

    monkeypatch.setattr(fleet, "backup", full)
    found = list(backup_all(repo, [Dataset(name, (str(tmp_path / "data"),)) for name in "ab"]))
    assert [str(one.error).partition(";")[0] for one in found] == ["/state/pins: No space left on device"] * 2
    assert [one.exit_code for one in found] == [1, 1]


def test_a_cancel_stops_all_of_them(repo: Repository, tmp_path: Path) -> None:
    cancel = threading.Event()
    datasets = [Dataset(name, (str(tmp_path / "data"),)) for name in "abc"]
    running = backup_all(repo, datasets, control=Control(cancel=cancel))
    assert next(running).result is not None
    cancel.set()
    with pytest.raises(Cancelled):
        next(running)
    assert [s.dataset for s in repo.snapshots()] == ["a"]
