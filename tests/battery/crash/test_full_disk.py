"""A real file system of a few megabytes that is full (family 4), by the library and by the command."""

import gc
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from battery import model
from battery.oracle import Ledger, remember

import snapvault
from snapvault.backend.local import LocalBackend

MB = 1 << 20


@contextmanager
def disk(at: Path, size: int) -> Iterator[Path]:
    """A tmpfs of this many bytes."""
    at.mkdir()
    _mount(at, f"size={size}")
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def grow(at: Path, size: int) -> None:
    _mount(at, f"remount,size={size}")


def _mount(at: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(at)], check=True)


@pytest.fixture
def source(own_ram: Path) -> Path:
    root = own_ram / "source"
    root.mkdir()
    for i in range(3):
        (root / f"first {i}").write_bytes(random.Random(i).randbytes(500_000))
    return root


def add_much(source: Path) -> None:
    for i in range(8):
        (source / f"more {i}").write_bytes(random.Random(100 + i).randbytes(MB))


def command(*argv: object, place: Path) -> "subprocess.CompletedProcess[str]":
    env = {
        **os.environ, "HOME": str(place), "PYTHONPATH": str(Path(snapvault.__file__).parents[1]),
        "SNAPVAULT_PASSWORD": "pass phrase", "SNAPVAULT_CACHE_DIR": str(place / "cache"),
        "SNAPVAULT_STATE_DIR": str(place / "state"),
    }  # fmt: skip
    argv = (sys.executable, "-m", "snapvault", *argv)
    done = subprocess.run([str(a) for a in argv], env=env, capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_backup_by_the_library(source: Path, own_ram: Path) -> None:
    """What came into the index before the disk was full is not uploaded again when there is room."""
    ledger = Ledger(source)
    with disk(own_ram / "disk", 6 * MB) as small:
        repo = snapvault.init(str(small / "repo"), keys=model.key, chunking=model.CHUNKING).repository
        first = ledger.backup(repo)
        add_much(source)
        with pytest.raises(snapvault.StoreFull) as caught:
            snapvault.backup(repo, source, dataset="model", host="here")
        assert caught.value.exit_code == 1 and str(small) in caught.value.message
        assert [s.id for s in repo.snapshots()] == [first.snapshot]
        grow(small, 30 * MB)
        ledger.verify(repo, own_ram)
        before = model.indexed(LocalBackend(small / "repo"))
        assert sum(model.lengths(repo, before)) > first.bytes_new + MB, "nothing was indexed before the disk was full"
        second = ledger.backup(repo)
        uploaded = model.indexed(LocalBackend(small / "repo")) - before
        assert uploaded and not set(uploaded) & set(before)
        assert second.bytes_new < 8 * MB
        ledger.verify(repo, own_ram)


def test_backup_by_the_command(source: Path, own_ram: Path) -> None:
    """The source lies on the full disk, too, and none of its files is called unreadable."""
    with disk(own_ram / "disk", 6 * MB) as small:
        here = small / "source"
        here.mkdir()
        (here / "file").write_bytes(random.Random(1).randbytes(3 * MB))
        made = command("init", "-r", small / "repo", "--recovery-key-file", own_ram / "recovery", place=own_ram)
        assert made.returncode == 0, made.stderr
        done = command("backup", "-r", small / "repo", "--dataset", "a", source, place=own_ram)
        assert done.returncode == 0, done.stderr
        done = command("backup", "-r", small / "repo", "--dataset", "b", here, place=own_ram)
        assert done.returncode == 1 and "No space left" in done.stderr and "read" not in done.stderr, done.stderr
        assert command("snapshots", "-r", small / "repo", "--json", place=own_ram).stdout.count('"dataset": "b"') == 0
        assert command("check", "-r", small / "repo", place=own_ram).returncode == 0
        grow(small, 16 * MB)
        assert command("backup", "-r", small / "repo", "--dataset", "b", here, place=own_ram).returncode == 0
        target = own_ram / "restored"
        done = command("restore", "-r", small / "repo", f"b@latest:{here}", "--target", target, place=own_ram)
        assert done.returncode == 0 and remember(target) == remember(here)


def test_init(own_ram: Path) -> None:
    with disk(own_ram / "disk", 64 << 10) as small:
        (small / "ballast").write_bytes(bytes(48 << 10))
        with pytest.raises(snapvault.StoreFull):
            snapvault.init(str(small / "repo"), keys=model.key)
        (small / "ballast").unlink()
        grow(small, MB)
        snapvault.init(str(small / "repo"), keys=model.key).repository.close()


def test_cache_and_state(source: Path, own_ram: Path) -> None:
    """They are conveniences: where they cannot be written, the backup is as good."""
    ledger = Ledger(source)
    with disk(own_ram / "disk", 64 << 10) as small:
        (small / "ballast").write_bytes(bytes(64 << 10))
        made = snapvault.init(str(own_ram / "repo"), keys=model.key, cache=small / "cache", state=small / "state")
        with made.repository as repo:
            for _ in range(2):
                ledger.backup(repo)
            ledger.verify(repo, own_ram)


@pytest.mark.parametrize("kind", ["one large file", "small files", "folders"])
def test_restore_into_a_full_target(own_ram: Path, source: Path, kind: str) -> None:
    if kind == "one large file":
        (source / "large").write_bytes(random.Random(5).randbytes(4 * MB))
    elif kind == "small files":
        for i in range(300):
            (source / f"small {i}").write_bytes(bytes([i % 256]) * 9_000)
    else:
        for i in range(2_000):
            (source / f"folder {i}").mkdir()
    ledger = Ledger(source)
    with snapvault.init(str(own_ram / "repo"), keys=model.key).repository as repo:
        ledger.backup(repo)
        options = 3 * MB if kind != "folders" else 2 * MB
        with disk(own_ram / "disk", options) as small:
            if kind == "folders":
                _mount(small, "remount,nr_inodes=500,size=20m")
            with pytest.raises(snapvault.SourceError) as caught:
                snapvault.restore(repo, "model@latest", small / "target", path=str(source))
            assert "No space left" in caught.value.message and caught.value.exit_code == 1
            assert str(small) in str(caught.value) or caught.value.affected, caught.value
            del caught  # its traceback holds folders of the target open
            gc.collect()
            assert not list(small.rglob(".snapvault-*")), "temporary files are left on the full disk"
            _mount(small, "remount,nr_inodes=5000,size=20m")
            assert snapvault.restore(repo, "model@latest", small / "target", path=str(source)).status == "ok"
            assert remember(small / "target") == remember(source)
            ledger.verify(repo, own_ram)
