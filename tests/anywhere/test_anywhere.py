"""One suite on every kind of store: what holds on a local disk holds on a server, too."""

import io
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import fsspec
import pytest
import servers
from fsspec.implementations.memory import MemoryFileSystem

import snapvault
from snapvault.backend.protocol import Exists
from snapvault.backend.trace import TraceBackend
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import decode_capabilities
from snapvault.operations import saver
from snapvault.repository.site import Site

SEED = bytes(range(2, 34))
STORES = ("local", "memory", "fsspec", "seaweedfs", "moto_s3", "rclone_s3", "rclone_sftp", "openssh", "obstore")
HONEST = {"seaweedfs", "moto_s3", "openssh", "obstore"}
SERVED = {*HONEST, "rclone_s3", "rclone_sftp"}
LARGE = 3_000_000
Tree = dict[str, bytes]


class AnyMemory(MemoryFileSystem):  # type: ignore[misc]
    """fsspec's own file system in memory, under a name that is not taken by snapvault's."""

    protocol = "anymemory"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("anymemory://", "memory://", 1)))


@dataclass
class Life:
    """A repository somewhere, and what was put into it."""

    url: str
    options: dict[str, Any] | None
    honest: bool | None  # whether put-if-absent is a promise there; None: nobody says
    home: Path
    source: Path
    recovery: str = ""
    trees: dict[str, Tree] = field(default_factory=dict)

    def open(self, keys: bytes = SEED, *, cached: bool = True) -> snapvault.Repository:
        cache = self.home / "cache" if cached else None
        return snapvault.open(self.url, keys=lambda: keys, storage_options=self.options, cache=cache)

    def backup(self, repo: snapvault.Repository, **options: Any) -> snapvault.BackupResult:
        result = snapvault.backup(repo, self.source, **{"dataset": "any", **options})
        assert result.status == "ok", result
        self.trees[result.snapshot] = read(self.source)
        return result

    def restored(self, repo: snapvault.Repository, snapshot: str) -> Tree:
        out = self.home / f"out-{uuid4().hex}"
        result = snapvault.restore(repo, snapshot, out)
        assert result.status == "ok", result
        return read(Path(f"{out}{self.source}"))


def read(root: Path) -> Tree:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def assert_whole(report: snapvault.CheckReport) -> None:
    assert report.status == "ok", (report.problems, report.lost)


def make_source(root: Path) -> None:
    content = random.Random(3)
    for i in range(30):
        place = root / f"folder {i % 4}" / f"file {i}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.randbytes(i * 200) + b"text " * i * 50)
    (root / "large").write_bytes(content.randbytes(LARGE))
    (root / "empty").touch()


@pytest.fixture(scope="module", params=STORES)
def life(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """Made, with two snapshots in it."""
    home = tmp_path_factory.mktemp(request.param)
    url, options, honest = str(home / "repo"), None, True
    if request.param in SERVED:
        fresh: servers.Fresh = request.getfixturevalue("moto_s3" if request.param == "obstore" else request.param)
        (url, options), honest = fresh(), request.param in HONEST
        options |= {"driver": "obstore"} if request.param == "obstore" else {}
    elif request.param == "memory":
        url = f"memory://{uuid4().hex}"
    elif request.param == "fsspec":
        fsspec.register_implementation("anymemory", AnyMemory, clobber=True)
        url = f"anymemory://{uuid4().hex}/repo"
    made = Life(url, options, None if request.param == "fsspec" else honest, home, home / "src")
    make_source(made.source)
    with mock.patch.object(saver, "RACY_NS", -(10**9)):  # the source was made a moment ago
        result = snapvault.init(url, keys=lambda: SEED, storage_options=options, cache=home / "cache")
        made.recovery = result.recovery_key
        with result.repository as repo:
            made.backup(repo)
            with open(made.source / "large", "r+b") as file:
                file.seek(LARGE // 2)
                file.write(b"changed")
            (made.source / "new").write_bytes(b"new")
            made.backup(repo)
        yield made


def test_a_second_init_is_refused(life: Life) -> None:
    with pytest.raises(snapvault.InvalidInput, match="there is a repository"):
        snapvault.init(life.url, keys=lambda: SEED, storage_options=life.options)
    with life.open() as repo:
        assert len(list(repo.snapshots())) >= 2


def test_no_repository_is_not_an_empty_one(life: Life) -> None:
    with pytest.raises(snapvault.RepositoryNotFound):
        snapvault.open(life.url + "-not-there", keys=lambda: SEED, storage_options=life.options)


def test_what_the_store_promises_is_recorded(life: Life) -> None:
    """As it was seen, not as the protocol's name has it: rclone's S3 takes preconditions and ignores them."""
    with life.open() as repo:
        (found,) = list(repo.vault.backend.list(names.CAPABILITIES))
        record = decode_capabilities(repo.vault.backend.get(found.name))
    assert record.range_read and record.list_after_put
    assert life.honest is None or record.put_if_absent == life.honest


def test_a_filled_slot_is_never_replaced(life: Life) -> None:
    """Also where the store itself would: a commit slot that is overwritten is a snapshot lost."""
    with life.open() as repo:
        name = names.snapshot(next(repo.snapshots()).id)
        before = repo.vault.backend.get(name)
        with pytest.raises(Exists):
            repo.vault.backend.put_if_absent(name, [b"another"])
        assert repo.vault.backend.get(name) == before


def test_an_unchanged_source_is_neither_read_nor_stored(life: Life) -> None:
    with life.open() as repo:
        result = life.backup(repo)
    count = len(read(life.source))
    assert (result.files_unmodified, result.files_new, result.files_changed) == (count, 0, 0)
    assert result.bytes_read == 0 and result.bytes_new < 2_000
    assert result.parent in life.trees


def test_everything_comes_back(life: Life) -> None:
    with life.open() as repo:
        for snapshot, tree in list(life.trees.items())[:2]:
            assert life.restored(repo, snapshot) == tree


def test_with_a_cold_cache(life: Life) -> None:
    """A bare machine: nothing but the key.  It restores, and a backup by it stores nothing twice."""
    with life.open(cached=False) as repo:
        snapshot, tree = list(life.trees.items())[1]
        assert life.restored(repo, snapshot) == tree
    with life.open(cached=False) as repo:
        again = life.backup(repo, force_read=True)
    assert again.bytes_read == sum(map(len, read(life.source).values()))
    assert again.bytes_new < 2_000  # the folders above the source, where something else may have changed


def test_with_the_recovery_key(life: Life) -> None:
    with life.open(life.recovery.encode(), cached=False) as repo:
        snapshot, tree = next(iter(life.trees.items()))
        assert life.restored(repo, snapshot) == tree


def test_a_part_of_a_file_costs_a_part(life: Life) -> None:
    with life.open() as repo:
        snapshot = repo.snapshot("any@latest")
        data = (life.source / "large").read_bytes()
        list(snapshot.ls(str(life.source)))  # the folder's own tree is not what is measured
        traced = TraceBackend(repo.vault.store.backend)
        repo.vault.store.backend = traced
        with snapshot.open(f"{life.source}/large") as file:
            assert file.seekable() and file.seek(LARGE // 2) == LARGE // 2
            assert file.raw.read(7) == b"changed"
            # one segment of 1 MiB, what rounding to 64 KiB adds, and the trees on the way
            assert 0 < traced.bytes_received < (1 << 20) * 5 // 4 + (256 << 10) * 4
            assert file.seek(-5, os.SEEK_END) == LARGE - 5 and file.read() == data[-5:]
            assert file.seek(100) == 100 and file.read(1000) == data[100:1100]
            file.seek(0)
            assert file.read() == data


def test_a_stream(life: Life) -> None:
    data = random.Random(8).randbytes(1_200_000)
    with life.open() as repo:
        result = snapvault.backup(repo, io.BytesIO(data), dataset="stream", stream_name="dump.sql")
        out = io.BytesIO()
        assert snapvault.restore(repo, result.snapshot, out, path="/dump.sql").status == "ok"
    assert out.getvalue() == data


def test_check_and_scrub(life: Life) -> None:
    """Whole; then a pack is gone, which both say; then it is back."""
    with life.open() as repo:
        assert_whole(snapvault.check(repo))
        report = snapvault.check(repo, read_data=True)
        assert report.status == "ok" and report.share == 1.0
        assert snapvault.scrub(life.url, storage_options=life.options).status == "ok"
        backend = repo.vault.backend
        name = max(backend.list(names.PACKS), key=lambda o: o.size).name
        data = backend.get(name)
        backend.delete(name)
        try:
            report = snapvault.check(repo)
            assert report.status == "damaged" and {p.path for p in report.lost} >= {f"{life.source}/large"}
            assert snapvault.scrub(life.url, storage_options=life.options).status == "damaged"
        finally:
            backend.put(name, [data])
        assert_whole(snapvault.check(repo))


def test_keys(life: Life) -> None:
    with life.open() as owner:
        snapvault.add_key(owner, Role.READER, "reader", file=life.home / "reader")
        snapvault.add_key(owner, Role.WRITER, "writer", file=life.home / "writer")
        assert {k.role for k in snapvault.list_keys(owner)} == {Role.OWNER, Role.READER, Role.WRITER}
    key = (life.home / "writer").read_bytes()
    with life.open(key, cached=False) as writer:
        first = life.backup(writer, dataset="w")
        second = life.backup(writer, dataset="w")
        assert first.bytes_new > LARGE and second.bytes_new < 2_000
        with pytest.raises(snapvault.RoleRequired):
            writer.snapshot(first.snapshot)
    with life.open((life.home / "reader").read_bytes(), cached=False) as reader:
        assert life.restored(reader, first.snapshot) == life.trees[first.snapshot]
        with pytest.raises(snapvault.RoleRequired):
            life.backup(reader)
    with life.open() as owner:
        snapvault.remove_key(owner, "writer")
        with pytest.raises(snapvault.KeyRejected):
            life.open(key, cached=False)
        snapvault.rotate(owner)
        newest = life.backup(owner)
        assert life.restored(owner, newest.snapshot) == read(life.source)
        assert_whole(snapvault.check(owner))


def test_forget(life: Life) -> None:
    with life.open() as repo:
        result = life.backup(repo)
        assert snapvault.forget_snapshots(repo, [result.snapshot]).forgotten == (result.snapshot,)
        assert result.snapshot not in {s.id for s in repo.snapshots()}
    with life.open(cached=False) as repo:
        assert result.snapshot not in {s.id for s in repo.snapshots()}
        assert_whole(snapvault.check(repo))


def test_two_at_once(life: Life) -> None:
    """Two backups and a restore of one repository at one time, from handles of their own."""
    snapshot, tree = next(iter(life.trees.items()))

    def work(number: int) -> None:
        with life.open(cached=False) as repo:
            if number == 2:
                assert life.restored(repo, snapshot) == tree
                return
            with repo.writer(f"at-once-{number}") as writer, writer.open("/file") as file:
                file.write(bytes([number]) * 300_000)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    with life.open() as repo:
        for number in range(2):
            with repo.snapshot(f"at-once-{number}@latest").open("/file") as file:
                assert file.read() == bytes([number]) * 300_000
        assert_whole(snapvault.check(repo, read_data=True))


def test_forget_and_prune(life: Life) -> None:
    """What was forgotten goes.  A store without the promise must be told first that nobody else is there."""
    (life.source / "passing").write_bytes(random.Random(9).randbytes(500_000))
    with life.open() as repo:
        passing = life.backup(repo).snapshot
        (life.source / "passing").unlink()
        snapvault.forget_snapshots(repo, [passing], undelete_window=timedelta(0))
        before = {o.name: o.size for o in repo.vault.backend.list(names.PACKS)}
    with life.open() as repo:
        if life.honest is False:
            with pytest.raises(snapvault.Conflict, match="--exclusive"):
                snapvault.plan_prune(repo)
        result = snapvault.plan_prune(repo, exclusive=life.honest is not True).execute(wait=timedelta(0))
        assert result.status == "ok", result
        left = {o.name for o in repo.vault.backend.list(names.PACKS)}
        assert sum(size for name, size in before.items() if name not in left) > 500_000
    with life.open(cached=False) as repo:
        assert passing not in {s.id for s in repo.snapshots()}
        snapshot, tree = next(iter(life.trees.items()))
        assert life.restored(repo, snapshot) == tree
        assert_whole(snapvault.check(repo, read_data=True))


def test_a_copy_there_and_back(life: Life) -> None:
    """From a local disk to such a place and on to another disk, with what the place says of itself."""
    first, copy = life.home / "first", Site(f"{life.url}-copy", life.options)
    with snapvault.init(first, keys=lambda: SEED).repository as repo:
        snapshot = life.backup(repo).snapshot
    result = snapvault.replicate(str(first), copy)
    assert (result.status, result.snapshots) == ("ok", 1)
    with snapvault.open(copy.url, keys=lambda: SEED, storage_options=life.options) as there:
        assert life.restored(there, snapshot) == life.trees[snapshot]
        assert snapvault.attest(there, "there", read=True).snapshots == (snapshot,)
    snapvault.exchange_attestations(Site(str(first)), copy)
    with snapvault.open(first, keys=lambda: SEED) as repo:
        assert [a.site for a in snapvault.attestations(repo)] == ["there"]
    assert snapvault.replicate(str(first), copy).objects == 0
    back = snapvault.replicate(copy, str(life.home / "back"))
    assert back.status == "ok" and back.bytes > LARGE
    with snapvault.open(life.home / "back", keys=lambda: SEED) as third:
        assert life.restored(third, snapshot) == life.trees[snapshot]
        assert_whole(snapvault.check(third, read_data=True))


@pytest.mark.parametrize("server", ["rclone_sftp", "openssh"])
def test_sftp_as_a_target_and_a_source(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    make_source(tmp_path / "src")
    url, options = request.getfixturevalue(server)()
    with snapvault.init(tmp_path / "repo", keys=lambda: SEED).repository as repo:
        first = snapvault.backup(repo, tmp_path / "src", dataset="here").snapshot
        assert snapvault.restore(repo, first, url, target_options=options).status == "ok"
        there = snapvault.backup(repo, f"{url}{tmp_path}/src", source_options=options, dataset="there")
        assert there.status == "ok"
        assert snapvault.restore(repo, there.snapshot, tmp_path / "out").status == "ok"
    assert read(tmp_path / "out/src") == read(tmp_path / "src")
