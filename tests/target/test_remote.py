"""Writing to a URL."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from snapvault.format.tree import Node, NodeKind
from snapvault.foundation.errors import InvalidInput
from snapvault.target.remote import RemoteTarget


@pytest.fixture
def url() -> Iterator[str]:
    name = f"memory://{secrets.token_hex(8)}/restored"
    yield name
    fs, path = fsspec.core.url_to_fs(name)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def _write(target: RemoteTarget, path: bytes, data: bytes) -> None:
    file = target.create(path)
    file.write(data[:3])
    file.write(memoryview(data)[3:])
    file.commit()


def test_files_are_written_listed_and_deleted(url: str) -> None:
    target = RemoteTarget(url)
    assert target.size(b"a") is None
    _write(target, b"a", b"alpha")
    _write(target, "folder/ü".encode(), b"beta!!")
    _write(target, b"a", b"other")
    assert sorted(target.listdir(b"")) == [(b"a", False), (b"folder", True)]
    assert target.listdir(b"folder") == [("ü".encode(), False)]
    assert target.size(b"a") == 5 and target.size(b"folder") is None
    assert fsspec.open(f"{url}/a").open().read() == b"other"
    target.remove(b"a", folder=False)
    target.remove(b"a", folder=False)
    assert target.listdir(b"") == [(b"folder", True)]


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_a_folder_is_removed_and_nothing_else(kind: str, url: str, tmp_path: Path) -> None:
    """A * in its name is no pattern, and a link in it is not followed."""
    place = url if kind == "memory" else f"local://{tmp_path}/place"
    target = RemoteTarget(place)
    for folder in (b"a*", b"ab"):
        target.make_directory(folder)
        target.make_directory(folder + b"/deep")
        _write(target, folder + b"/deep/file", b"data")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    if kind == "local":
        (tmp_path / "place/a*/link").symlink_to(tmp_path / "outside")
    target.remove(b"a*", folder=True)
    assert target.listdir(b"") == [(b"ab", True)]
    assert target.size(b"ab/deep/file") == 4 and (tmp_path / "outside/file").exists()


def test_an_abandoned_file_leaves_nothing(url: str) -> None:
    target = RemoteTarget(url)
    file = target.create(b"a")
    file.write(b"half")
    file.abort()
    assert target.size(b"a") is None


def test_a_store_that_kept_less_is_caught(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    target = RemoteTarget(url)
    file = target.create(b"a")
    file.write(b"12345")
    honest = MemoryFileSystem.info
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *a, **k: {**honest(*a, **k), "size": 4})
    with pytest.raises(OSError, match="4 bytes of 5"):
        file.commit()


@pytest.mark.parametrize("path", [b"../x", b"a/../../x", b"/x", b"", b"a//b", b"."])
def test_impossible_paths_are_refused(path: bytes, url: str) -> None:
    with pytest.raises(InvalidInput):
        RemoteTarget(url).create(path)


def test_a_name_that_is_not_utf8_is_refused(url: str) -> None:
    with pytest.raises(OSError, match="not UTF-8"):
        RemoteTarget(url).create(b"\xff")


def test_what_a_url_cannot_keep_is_counted(url: str) -> None:
    target = RemoteTarget(url)
    target.note(Node(b"f", NodeKind.FILE, 0, 0, 0, 0, link=(1, 2), xattrs={b"user.a": b""}, extents=()))
    target.note(Node(b"l", NodeKind.SYMLINK, 0, 0, 0, 0, target=b"x"))
    target.note(Node(b"p", NodeKind.FIFO, 0, 0, 0, 0))
    assert target.not_kept == {
        "owners, modes and times": 1, "extended attributes": 1, "hardlinks": 1, "holes": 1, "symlinks": 1,
        "special files": 1,
    }  # fmt: skip


def test_a_secret_in_the_url_is_not_shown() -> None:
    with pytest.raises(InvalidInput) as error:
        RemoteTarget("nosuchprotocol://user:hunter2@host/x?signature=s3cr3t")
    assert "hunter2" not in str(error.value) and "s3cr3t" not in str(error.value)


@pytest.mark.server
def test_a_bucket(seaweedfs: "object") -> None:
    place, options = seaweedfs()  # type: ignore[operator]
    target = RemoteTarget(f"{place}/restored", options)
    _write(target, b"d/a", b"alpha")
    _write(target, b"d/e", b"")
    abandoned = target.create(b"d/b")
    abandoned.write(b"half")
    abandoned.abort()
    assert sorted(target.listdir(b"d")) == [(b"a", False), (b"e", False)]
    target.remove(b"d/a", folder=False)
    assert target.listdir(b"d") == [(b"e", False)]
    target.remove(b"d", folder=True)
    assert target.size(b"d/e") is None
