"""A copy that a web server shows: it opens, restores, checks and replicates from there, and nothing can be written."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import servers

import snapvault
from snapvault.format.keyset import Role
from snapvault.repository.site import Site
from tests.repos import SEED, contents, make, save

SERVERS = ("webdav", "rclone_http", "python_http")


@dataclass
class Copy:
    folder: Path  # as the server has it
    url: str
    options: dict[str, Any]
    source: Path
    snapshots: list[str]

    def open(self, **options: Any) -> snapvault.Repository:
        return snapvault.open(self.url, keys=lambda: SEED, storage_options=self.options, **options)


@pytest.fixture(scope="module", params=SERVERS)
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """Two snapshots, and what a forgotten one has left.  Whatever a test does, the copy stays as it is."""
    home = tmp_path_factory.mktemp(request.param)
    source, repo = home / "source", make(home / "repo")
    for i in range(20):
        (source / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        (source / f"{i % 3}/{i}").write_bytes(bytes([i]) * i * 997)
    (source / "large").write_bytes(bytes(range(256)) * 20_000)
    first = save(repo, source).snapshot
    (source / "gone").write_bytes(b"gone" * 100_000)
    gone = save(repo, source).snapshot
    (source / "gone").unlink()
    second = save(repo, source).snapshot
    snapvault.forget_snapshots(repo, [gone], undelete_window=timedelta(0))
    shown: servers.Shown = request.getfixturevalue(request.param)
    folder, (url, options) = shown()
    shutil.copytree(home / "repo", folder, dirs_exist_ok=True)
    before = contents(folder)
    yield Copy(folder, url, options, source, [first, second])
    assert contents(folder) == before


def test_everything_comes_back(copy: Copy, tmp_path: Path) -> None:
    with copy.open(cache=tmp_path / "cache", state=tmp_path / "state") as repo:
        assert {s.id for s in repo.snapshots()} == set(copy.snapshots)
        for snapshot in copy.snapshots:
            out = tmp_path / snapshot
            assert snapvault.restore(repo, snapshot, out).status == "ok"
            assert contents(Path(f"{out}{copy.source}")) == contents(copy.source)
        found = repo.snapshot(copy.snapshots[0])
        assert {e.name for e in found.ls(str(copy.source))} == {"0", "1", "2", "large"}
        with found.open(f"{copy.source}/large") as file:
            file.seek(1_000_000)
            assert file.read(1000) == (copy.source / "large").read_bytes()[1_000_000:1_001_000]


def test_check_and_scrub(copy: Copy) -> None:
    with copy.open() as repo:
        assert snapvault.check(repo).status == "ok"
        report = snapvault.check(repo, read_data=True)
        assert report.status == "ok" and report.share == 1.0
    assert snapvault.scrub(copy.url, storage_options=copy.options).status == "ok"


def test_it_can_be_copied_on(copy: Copy, tmp_path: Path) -> None:
    result = snapvault.replicate(Site(copy.url, copy.options), str(tmp_path / "back"))
    assert (result.status, result.snapshots) == ("ok", 2)
    with snapvault.open(tmp_path / "back", keys=lambda: SEED) as repo:
        assert snapvault.check(repo, read_data=True).status == "ok"


WRITES: dict[str, Callable[[snapvault.Repository, Copy], object]] = {
    "backup": lambda repo, copy: snapvault.backup(repo, copy.source, dataset="d"),
    "forget": lambda repo, copy: snapvault.forget_snapshots(repo, copy.snapshots[:1]),
    "prune": lambda repo, _: snapvault.plan_prune(repo).execute(wait=timedelta(0)),
    "add_key": lambda repo, copy: snapvault.add_key(repo, Role.READER, "r", file=copy.source.parent / "key"),
    "rotate": lambda repo, _: snapvault.rotate(repo),
    "set_tags": lambda repo, copy: snapvault.set_tags(repo, copy.snapshots[0], add=["x"]),
    "attest": lambda repo, _: snapvault.attest(repo, "there"),
}


@pytest.mark.parametrize("verb", WRITES)
def test_writing_is_refused(copy: Copy, verb: str) -> None:
    with copy.open() as repo, pytest.raises(snapvault.StoreDenied, match="can only be read") as caught:
        WRITES[verb](repo, copy)
    assert copy.url in str(caught.value) and "another kind" in caught.value.hint


def test_it_is_no_place_for_a_new_one(copy: Copy, tmp_path: Path) -> None:
    make(tmp_path / "other").close()
    with pytest.raises(snapvault.StoreDenied, match="can only be read"):
        snapvault.init(f"{copy.url}/new", keys=lambda: SEED, storage_options=copy.options)
    for create in (True, False):
        with pytest.raises((snapvault.StoreDenied, snapvault.RepositoryNotFound)) as caught:
            snapvault.replicate(str(tmp_path / "other"), Site(f"{copy.url}/new", copy.options), create=create)
        assert create == isinstance(caught.value, snapvault.StoreDenied)
    with pytest.raises(snapvault.StoreDenied, match="can only be read"):
        snapvault.replicate(str(copy.source.parent / "repo"), Site(copy.url, copy.options), create=False)


def test_nothing_there_is_no_empty_repository(copy: Copy) -> None:
    with pytest.raises(snapvault.RepositoryNotFound):
        snapvault.open(f"{copy.url}/no", keys=lambda: SEED, storage_options=copy.options)
