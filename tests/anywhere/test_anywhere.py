"""The same main job on every kind of store: what works on a local disk works on S3 and SFTP."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from trees import referee

import snapvault
from snapvault.format import names
from snapvault.format.local import decode_capabilities

SEED = bytes(range(32))


@dataclass
class Store:
    """A place for one repository."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)
    put_if_absent: bool = True  # whether racing creators can be told apart there

    def init(self, **more: Any) -> snapvault.InitResult:
        return snapvault.init(self.url, keys=lambda: SEED, storage_options=self.options or None, **more)

    def open(self, keys: Callable[[], bytes] = lambda: SEED, **more: Any) -> snapvault.Repository:
        return snapvault.open(self.url, keys=keys, storage_options=self.options or None, **more)


@pytest.fixture(params=["local", "memory", "seaweedfs", "moto_s3", "rclone_s3", "rclone_sftp"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    name = request.param
    if name == "local":
        return Store(str(tmp_path / "repo"))
    if name == "memory":
        return Store(f"memory://anywhere-{secrets.token_hex(4)}")
    url, options = request.getfixturevalue(name)()
    return Store(url, options, put_if_absent=not name.startswith("rclone"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "sub" / "deeper").mkdir(parents=True)
    (root / "sub" / "big").write_bytes(os.urandom(3 << 20))
    (root / "sub" / os.fsdecode(b"na\xefve")).write_text("text\n" * 1000)
    for n in range(100):
        (root / "sub" / "deeper" / f"{n}").write_bytes(os.urandom(n))
    os.symlink("big", root / "sub" / "link")
    os.link(root / "sub" / "big", root / "hard")
    os.setxattr(root / "sub", "user.note", b"kept")
    return root


def test_the_main_job(store: Store, source: Path, tmp_path: Path) -> None:
    with store.init(cache=tmp_path / "cache").repository as repo:
        first = snapvault.backup(repo, source, dataset="d")
        assert (first.status, first.files_new) == ("ok", 103)
        (source / "new").write_text("new")
        second = snapvault.backup(repo, source, dataset="d")
        assert second.parent == first.snapshot
        assert second.bytes_new < 100_000
    with store.open() as repo:  # another machine: no cache
        assert [s.id for s in repo.snapshots(dataset="d")] == [first.snapshot, second.snapshot]
        result = snapvault.restore(repo, "d@latest", tmp_path / "out", verify=True)
        assert result.status == "ok"
        assert referee(source, tmp_path / f"out{source}") == []
        changed = {c.path: c.kind for c in snapvault.diff(repo, first.snapshot, second.snapshot)}
        assert changed[f"{source}/new"] == "added"
        with repo.snapshot(second.snapshot).open(f"{source}/sub/big") as stored:
            stored.seek(2_000_000)
            assert stored.read(1000) == (source / "sub" / "big").read_bytes()[2_000_000:2_001_000]
        report = snapvault.check(repo, read_data=True)
        assert (report.status, report.findings) == ("ok", ())
    assert snapvault.scrub(store.url, storage_options=store.options or None).status == "ok"


def test_damage_is_named(store: Store, source: Path, tmp_path: Path) -> None:
    with store.init().repository as repo:
        done = snapvault.backup(repo, source, dataset="d")
        packs = sorted(repo.vault.backend.list(names.PACKS), key=lambda o: o.size)
        data = bytearray(repo.vault.backend.get(packs[-1].name))
        data[len(data) // 2] ^= 1
        repo.vault.backend.put(packs[-1].name, [data])
        report = snapvault.check(repo, read_data=True)
        assert report.status == "damaged"
        assert any(packs[-1].name in f.objects for f in report.findings)
        result = snapvault.restore(repo, done.snapshot, tmp_path / "out")
        assert {"/" + i.path.lstrip("/") for i in result.lost} == {p.path for p in report.lost}
        assert result.files_written


def test_keys_and_forgetting(store: Store, source: Path, tmp_path: Path) -> None:
    made = store.init()
    with made.repository as repo:
        snapvault.add_key(repo, "writer", "client", file=tmp_path / "client.key")
        mine = snapvault.backup(repo, source, dataset="mine")
        with store.open(snapvault.KeyFile(tmp_path / "client.key")) as client:
            theirs = snapvault.backup(client, source, dataset="theirs")
            assert snapvault.backup(client, source, dataset="theirs").bytes_new < 10_000
            with pytest.raises(snapvault.RoleRequired):
                client.snapshot("theirs@latest")
        snapvault.forget_snapshots(repo, [mine.snapshot])
        assert theirs.snapshot in {s.id for s in repo.snapshots()}
        assert mine.snapshot not in {s.id for s in repo.snapshots()}
    (tmp_path / "recovery").write_text(made.recovery_key)
    with store.open(snapvault.KeyFile(tmp_path / "recovery")) as repo:
        assert snapvault.restore(repo, "theirs@latest", tmp_path / "out").status == "ok"
    assert referee(source, tmp_path / f"out{source}") == []


def test_what_the_store_can_do_is_probed_and_written_down(store: Store) -> None:
    with store.init().repository as repo:
        (info,) = repo.vault.backend.list(names.CAPABILITIES)
        found = decode_capabilities(repo.vault.backend.get(info.name))
    if store.put_if_absent:
        assert (found.put_if_absent, found.list_after_put, found.range_read) == (True, True, True)
    else:
        assert not found.put_if_absent  # it answers yes to several creators


def test_a_second_init_is_refused(store: Store) -> None:
    store.init().repository.close()
    with pytest.raises(snapvault.InvalidInput, match="already"):
        store.init()
