"""The traps of fsspec that any file system may have."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from snapvault.backend.protocol import Exists, NotFound
from snapvault.backend.remote import FsspecBackend
from snapvault.foundation.errors import (
    Damaged,
    InvalidInput,
    RepositoryNotFound,
    SnapvaultError,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
)


class Bad(Exception):
    """A driver's own kind of error."""


class BrokenFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """fsspec's memory file system, with errors where a test wants them."""

    protocol = "broken"
    failing: dict[str, BaseException]  # by "method path-end"
    short = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.failing = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("broken://", "memory://", 1)))

    def _fail(self, method: str, path: str) -> None:
        for key, error in self.failing.items():
            wanted, end = key.split()
            if wanted == method and path.rstrip("/").endswith(end):
                raise error

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        self._fail("ls", path)
        return super().ls(path, detail=detail, **kwargs)

    def find(self, path: str, **kwargs: Any) -> Any:
        return fsspec.AbstractFileSystem.find(self, path, **kwargs)

    def info(self, path: str, **kwargs: Any) -> Any:
        self._fail("info", path)
        return super().info(path, **kwargs)

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        self._fail("cat", path)
        body: bytes = super().cat_file(path, start=start, end=end, **kwargs)
        return body[: len(body) - self.short]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self._fail("pipe", path)
        super().pipe_file(path, value[: len(value) - self.short], mode=mode, **kwargs)


@pytest.fixture
def backend() -> Iterator[FsspecBackend]:
    fsspec.register_implementation("broken", BrokenFileSystem, clobber=True)
    made = FsspecBackend(f"broken://{uuid4().hex}/repo", create=True)
    for name in ("a/one", "b/two", "c/d/three"):
        made.put(name, [b"body"])
    yield made


def file_system(backend: FsspecBackend) -> BrokenFileSystem:
    driver: Any = backend._driver
    assert isinstance(driver._fs, BrokenFileSystem)
    return driver._fs


@pytest.mark.parametrize(
    ("error", "kind"), [(PermissionError("no"), StoreDenied), (OSError(5, "EIO"), StoreUnavailable)]
)
@pytest.mark.parametrize("folder", ["repo/b", "repo/c/d"])
def test_a_broken_listing_is_not_short(
    backend: FsspecBackend, error: OSError, kind: type[SnapvaultError], folder: str
) -> None:
    fs = file_system(backend)
    fs.failing = {f"ls {folder}": error}
    with pytest.raises(kind):
        list(backend.list())
    assert [info.name for info in backend.list("a/")] == ["a/one"]


@pytest.mark.parametrize("on_error", ["raise", "omit"])
def test_why_find_is_not_used(backend: FsspecBackend, on_error: str) -> None:
    """fsspec loses the error of a sub-folder whatever one asks for.  If this fails, fsspec was mended."""
    fs = file_system(backend)
    root = backend.url.removeprefix("broken:/")
    assert len(fs.find(root)) == 3
    fs.failing = {"ls repo/c/d": PermissionError("no")}
    try:
        found = fs.find(root, on_error=on_error)
    except PermissionError:
        pytest.fail("fsspec raises now")
    assert len(found) == 2


def test_nothing_is_shared_with_strangers(backend: FsspecBackend) -> None:
    other = FsspecBackend(backend.url)
    assert file_system(backend) is not file_system(other)
    assert not file_system(backend).dircache.use_listings_cache


def test_a_folder_that_cannot_be_found_again(backend: FsspecBackend) -> None:
    """Its parent still shows it, so this is a broken store and not an empty folder."""
    file_system(backend).failing = {"ls repo/c/d": FileNotFoundError("gone?")}
    with pytest.raises(StoreUnavailable):
        list(backend.list())


def test_a_folder_that_went_away_meanwhile(backend: FsspecBackend) -> None:
    fs = file_system(backend)
    real, first = fs.ls, [True]

    def ls(path: str, detail: bool = True, **kwargs: Any) -> Any:
        found = real(path, detail=detail, **kwargs)
        if path.endswith("/repo") and first.pop():
            first.append(False)
            backend.delete("b/two")
            fs.rmdir(f"{path}/b")
        return found

    fs.ls = ls  # type: ignore[method-assign]
    assert [info.name for info in backend.list()] == ["a/one", "c/d/three"]


def test_the_whole_place_is_missing() -> None:
    fsspec.register_implementation("broken", BrokenFileSystem, clobber=True)
    backend = FsspecBackend(f"broken://{uuid4().hex}/repo")
    for prefix in ("", "a/", "a/b/c"):
        with pytest.raises(RepositoryNotFound):
            list(backend.list(prefix))


def test_no_permission_is_not_absence(backend: FsspecBackend) -> None:
    """``exists()`` says False then, and put-if-absent would go ahead."""
    fs = file_system(backend)
    fs.failing = {"info repo/a/one": PermissionError("no")}
    for call in (
        lambda: backend.head("a/one"),
        lambda: backend.get("a/one"),
        lambda: backend.put_if_absent("a/one", [b"new"]),
    ):
        with pytest.raises(StoreDenied):
            call()
    fs.failing = {}
    assert backend.get("a/one") == b"body"


def test_lengths_are_checked(backend: FsspecBackend) -> None:
    file_system(backend).short = 1
    for call in (
        lambda: backend.get("a/one"),
        lambda: backend.get("a/one", 1, 2),
        lambda: backend.put("a/new", [b"12345"]),
        lambda: backend.put_if_absent("a/newer", [b"12345"]),
    ):
        with pytest.raises(Damaged):
            call()


ERRORS: list[tuple[Exception, type[SnapvaultError]]] = [
    (OSError(28, "full"), StoreFull),
    (OSError(122, "quota"), StoreFull),
    (OSError(30, "read-only"), StoreDenied),
    (OSError(95, "not supported"), StoreDenied),
    (OSError("no errno"), StoreUnavailable),
    (TimeoutError("slow"), StoreUnavailable),
    (ConnectionResetError(104, "reset"), StoreUnavailable),
    (FileNotFoundError("bare"), NotFound),
    (PermissionError("bare"), StoreDenied),
    (EOFError(), StoreUnavailable),
    (Bad("own class"), StoreUnavailable),
    (ValueError("odd"), InvalidInput),
    (NotImplementedError("cannot"), StoreDenied),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS, ids=[repr(error) for error, _ in ERRORS])
def test_errors_are_typed(backend: FsspecBackend, error: Exception, kind: type[SnapvaultError]) -> None:
    file_system(backend).failing = {"cat a/one": error}
    with pytest.raises(kind) as caught:
        backend.get("a/one")
    assert caught.value.affected == ("a/one",) and backend.url in str(caught.value)


@pytest.mark.parametrize("bug", [TypeError("bug"), AttributeError("bug"), AssertionError("bug")])
def test_bugs_are_not_dressed_up(backend: FsspecBackend, bug: Exception) -> None:
    file_system(backend).failing = {"cat a/one": bug}
    with pytest.raises(type(bug)):
        backend.get("a/one")


@pytest.mark.parametrize("error", [NotImplementedError("create"), ValueError("mode")])
def test_file_systems_without_exclusive_create(backend: FsspecBackend, error: Exception) -> None:
    fs = file_system(backend)
    real = fs.pipe_file

    def pipe_file(path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if mode == "create":
            raise error
        real(path, value, **kwargs)

    fs.pipe_file = pipe_file  # type: ignore[method-assign]
    backend.put_if_absent("n/1", [b"1"])
    with pytest.raises(Exists):
        backend.put_if_absent("n/1", [b"2"])
    assert backend.get("n/1") == b"1"
