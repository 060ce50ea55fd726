"""Folders: what the conformance suite cannot ask of every store."""

import errno
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from snapvault.backend.local import LocalBackend
from snapvault.backend.protocol import Exists, NotFound, ObjectInfo
from snapvault.foundation.errors import Damaged, InvalidInput, RepositoryNotFound, StoreDenied, StoreUnavailable
from snapvault.platform import durable
from snapvault.platform.memory import page_aligned


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "repo", create=True)


def test_modes_are_private(backend: LocalBackend) -> None:
    previous = os.umask(0)
    try:
        backend.put("packs/ab/one", [b"x"])
        LocalBackend(Path(backend.url) / "deep" / "er", create=True)
    finally:
        os.umask(previous)
    root = Path(backend.url)
    assert stat.S_IMODE((root / "packs/ab/one").stat().st_mode) == 0o600
    for folder in (root, root / "packs", root / "packs/ab", root / "deep", root / "deep/er"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_missing_root_is_no_empty_store(tmp_path: Path) -> None:
    """A disk that is not mounted must neither look like a store without snapshots nor be written to."""
    backend = LocalBackend(tmp_path / "gone")
    for call in (
        lambda: backend.get("a"),
        lambda: backend.head("a"),
        lambda: list(backend.list()),
        lambda: list(backend.list("a/b")),
        lambda: backend.delete("a"),
        lambda: backend.put("a/b", [b"x"]),
        lambda: backend.put_if_absent("a", [b"x"]),
    ):
        with pytest.raises(RepositoryNotFound) as caught:
            call()
        assert str(tmp_path / "gone") in caught.value.message
    assert not (tmp_path / "gone").exists()


def test_root_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    backend = LocalBackend(tmp_path / "file")
    for call in (lambda: backend.get("a"), lambda: list(backend.list()), lambda: backend.put("a", [b"x"])):
        with pytest.raises(RepositoryNotFound):
            call()
    with pytest.raises((RepositoryNotFound, StoreDenied)):
        LocalBackend(tmp_path / "file" / "below", create=True)


def test_relative_path_is_fixed_when_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    backend = LocalBackend("repo", create=True)
    monkeypatch.chdir("/")
    backend.put("a", [b"x"])
    assert (tmp_path / "repo/a").read_bytes() == b"x"


def test_folder_removed_after_it_was_known(backend: LocalBackend) -> None:
    backend.put("a/b/c", [b"x"])
    os.unlink(f"{backend.url}/a/b/c")
    os.removedirs(f"{backend.url}/a/b")
    os.makedirs(backend.url, exist_ok=True)
    backend.put("a/b/c", [b"y"])
    assert backend.get("a/b/c") == b"y"


def test_an_object_where_a_folder_must_be(backend: LocalBackend) -> None:
    backend.put("a", [b"x"])
    with pytest.raises(StoreDenied):
        backend.put("a/b", [b"y"])
    backend.put("f/a", [b"x"])
    with pytest.raises(StoreDenied):
        backend.put("f", [b"y"])
    with pytest.raises(Exists):
        backend.put_if_absent("f", [b"y"])
    assert [info.name for info in backend.list()] == ["a", "f/a"]


def test_what_is_not_ours_is_not_listed(backend: LocalBackend) -> None:
    backend.put("a/one", [b"x"])
    root = Path(backend.url)
    (root / "lost+found").mkdir()
    (root / "lost+found" / "x").touch()
    (root / ".snapshot").mkdir()
    (root / "a" / ".tmp-0123").write_bytes(b"half")
    (root / "a" / "name with space").touch()
    (root / "a" / os.fsdecode(b"\xff")).touch()
    os.symlink("nowhere", root / "a" / "dangling")
    assert list(backend.list()) == [ObjectInfo("a/one", 1)]


def test_linked_folders_are_followed(backend: LocalBackend, tmp_path: Path) -> None:
    (tmp_path / "other disk").mkdir()
    os.symlink(tmp_path / "other disk", Path(backend.url) / "packs")
    backend.put("packs/one", [b"xyz"])
    assert list(backend.list()) == [ObjectInfo("packs/one", 3)]
    assert backend.get("packs/one") == b"xyz"


def test_a_planted_fifo_does_not_hang_the_reader(backend: LocalBackend) -> None:
    os.mkfifo(Path(backend.url) / "a")
    for call in (backend.get, backend.head):
        with pytest.raises(NotFound):
            call("a")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_an_unreadable_sub_folder_is_an_error(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Never a short listing: prune would take what it does not see for garbage (restic#4612)."""
    for name in ("a/one", "b/two", "c/three"):
        backend.put(name, [b"x"])
    real = os.scandir

    def scandir(path: str) -> Any:
        if path.rstrip("/").endswith("/b"):
            raise OSError(code, os.strerror(code), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises((StoreDenied, StoreUnavailable)) as caught:
        list(backend.list())
    assert "b/" in caught.value.affected
    assert [info.name for info in backend.list("a/")] == ["a/one"]  # does not even look there


def test_truncated_while_reading(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    backend.put("a", [bytes(100)])
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: real(fd, min(count, 30), at) if at < 60 else b"")
    assert backend.get("a", 0, 60) == bytes(60)  # short reads are continued
    for length in (100, None):
        with pytest.raises(Damaged):
            backend.get("a", 0, length)


def test_short_writes_are_continued(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [os.urandom(n) for n in (0, 5, 1, 700, 0, 3)] * 700
    real, calls = os.writev, []

    def writev(fd: int, buffers: list[memoryview]) -> int:
        calls.append(len(buffers))
        return real(fd, [b"".join(buffers)[:1009]])

    monkeypatch.setattr(os, "writev", writev)
    backend.put("a", parts)
    assert backend.get("a") == b"".join(parts)
    assert max(calls) == 1024 and len(calls) > 400


def test_stale_temps(backend: LocalBackend) -> None:
    backend.put("packs/ab/one", [b"x"])
    folder = Path(backend.url) / "packs/ab"
    for name, age in (("old", 3 * 86400), ("young", 60)):
        (folder / f".tmp-{name}").touch()
        os.utime(folder / f".tmp-{name}", (time.time() - age,) * 2)
    assert backend.remove_stale_temps() == 1
    assert sorted(os.listdir(folder)) == [".tmp-young", "one"]


def test_racing_puts_in_fresh_folders(backend: LocalBackend) -> None:
    """Every thread finds the folders missing and makes them."""
    start = threading.Barrier(8)

    def work(number: int) -> None:
        mine = LocalBackend(backend.url)
        start.wait()
        for i in range(20):
            mine.put_if_absent(f"deep/{i}/er/{number}", [b"x"])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(backend.list())) == 160


def test_too_long_a_name(backend: LocalBackend) -> None:
    with pytest.raises(InvalidInput):
        backend.put("n" * 300, [b"x"])


def test_write_file_replaces_or_refuses(tmp_path: Path) -> None:
    """The same durable write serves whoever keeps state on this machine."""
    durable.write_file(tmp_path, "state", [b"one"], replace=True)
    with pytest.raises(FileExistsError):
        durable.write_file(tmp_path, "state", [b"two"], replace=False)
    assert (tmp_path / "state").read_bytes() == b"one"
    durable.write_file(tmp_path, "state", [b"three"], replace=True)
    assert (tmp_path / "state").read_bytes() == b"three"
    assert os.listdir(tmp_path) == ["state"]


def test_make_folders(tmp_path: Path) -> None:
    durable.make_folders(tmp_path / "a/b/c")
    durable.make_folders(tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c").is_dir()


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, (1 << 20) + 4096, (1 << 20) - 1, 3_000_000])
@pytest.mark.parametrize("rest", [[], [b"the end"]], ids=["alone", "with more"])
def test_a_buffer_that_goes_past_the_page_cache(backend: LocalBackend, size: int, rest: list[bytes]) -> None:
    memory = page_aligned(4 << 20)
    memory[:size] = os.urandom(size)
    backend.put("packs/ab/one", [memoryview(memory)[:size], *rest])
    assert backend.get("packs/ab/one") == memory[:size] + b"".join(rest)
