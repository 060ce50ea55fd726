"""The shipped conformance suite on every backend and on real servers."""

import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from servers import Fresh, Shown

import snapvault
from snapvault.backend.factory import open_backend
from snapvault.backend.limit import LimitBackend
from snapvault.backend.local import LocalBackend
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.protocol import Backend
from snapvault.backend.remote import FsspecBackend
from snapvault.backend.retry import RetryBackend
from snapvault.backend.trace import TraceBackend
from snapvault.testing.backend import EVERYTHING, BackendSuite, Fill, ReadOnlySuite, ReadSuite
from snapvault.testing.faults import FaultyBackend

NO_PROMISE = replace(EVERYTHING, put_if_absent=False)


class TestLocal(BackendSuite):
    place, durable = "folder on a disk", "synced"

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return LocalBackend(tmp_path / "repo", create=True)


class TestTmpfs(BackendSuite):
    """Neither direct writes nor blocks."""

    place, durable = "folder in tmpfs", "no"

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            yield LocalBackend(f"{folder}/repo", create=True)


class TestMemory(BackendSuite):
    place, durable = "`memory://`", "no"

    @pytest.fixture
    def backend(self) -> Backend:
        return MemoryBackend()


class TestWrappers(BackendSuite):
    @pytest.fixture
    def backend(self) -> Backend:
        return RetryBackend(TraceBackend(LimitBackend(FaultyBackend(MemoryBackend())), record=True))


def _opened(fresh: Fresh) -> Iterator[Backend]:
    backend = open_backend(*fresh(), create=True)
    yield backend
    backend.close()


@pytest.mark.server
class TestSeaweedFS(BackendSuite):
    place, durable = "SeaweedFS, S3", "its word"

    @pytest.fixture
    def backend(self, seaweedfs: Fresh) -> Iterator[Backend]:
        yield from _opened(seaweedfs)


@pytest.mark.server
class TestObstore(BackendSuite):
    """The same server through the other driver."""

    place, durable = "SeaweedFS, S3 through obstore", "its word"

    @pytest.fixture
    def backend(self, seaweedfs: Fresh) -> Iterator[Backend]:
        url, options = seaweedfs()
        yield from _opened(lambda: (url, {**options, "driver": "obstore"}))


@pytest.mark.server
class TestMoto(BackendSuite):
    place, durable = "moto, S3", "its word"

    @pytest.fixture
    def backend(self, moto_s3: Fresh) -> Iterator[Backend]:
        yield from _opened(moto_s3)


@pytest.mark.server
class TestRcloneS3(BackendSuite):
    """Takes the condition and ignores it; the probe must say so."""

    place, durable = "rclone, S3", "its word"
    capabilities = NO_PROMISE

    @pytest.fixture
    def backend(self, rclone_s3: Fresh) -> Iterator[Backend]:
        yield from _opened(rclone_s3)


@pytest.mark.server
class TestRcloneSftp(BackendSuite):
    """Its rename replaces what is there; looking first does not help racing creators."""

    place, durable = "rclone, SFTP", "its word"
    capabilities = NO_PROMISE

    @pytest.fixture
    def backend(self, rclone_sftp: Fresh) -> Iterator[Backend]:
        yield from _opened(rclone_sftp)


@pytest.mark.server
class TestOpenSSH(BackendSuite):
    """Its rename refuses a taken name, whoever else looks."""

    place, durable = "OpenSSH, SFTP", "synced"

    @pytest.fixture
    def backend(self, openssh: Fresh) -> Iterator[Backend]:
        yield from _opened(openssh)


def _shown(shown: Shown) -> Iterator[Fill]:
    opened: list[Backend] = []

    def fill(objects: Mapping[str, bytes]) -> Backend:
        folder, place = shown()
        for name, body in objects.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(body)
        opened.append(open_backend(*place))
        return opened[-1]

    yield fill
    for backend in opened:
        backend.close()


@pytest.mark.server
class TestWebdav(ReadOnlySuite):
    place, durable = "rclone, WebDAV", "-"

    @pytest.fixture
    def filled(self, webdav: Shown) -> Iterator[Fill]:
        yield from _shown(webdav)


@pytest.mark.server
class TestRcloneHttp(ReadOnlySuite):
    place, durable = "rclone, HTTP", "-"

    @pytest.fixture
    def filled(self, rclone_http: Shown) -> Iterator[Fill]:
        yield from _shown(rclone_http)


@pytest.mark.server
class TestPythonHttp(ReadOnlySuite):
    """Without ranges: whole objects come, and the part is cut out here."""

    place, durable, ranges = "Python's `http.server`", "-", "cut out here"

    @pytest.fixture
    def filled(self, python_http: Shown) -> Iterator[Fill]:
        yield from _shown(python_http)


class PlainMemory(MemoryFileSystem):  # type: ignore[misc]
    """A file system as many are: no exclusive create, and a moment between looking and writing."""

    protocol = "plainmemory"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("plainmemory://", "memory://", 1)))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if mode == "create":
            raise ValueError("unknown mode")
        time.sleep(0.002)
        super().pipe_file(path, value, **kwargs)


class TestPlainFileSystem(BackendSuite):
    """Any fsspec file system by the calls that all have."""

    place, durable = "fsspec without exclusive create", "its word"
    capabilities = NO_PROMISE

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        fsspec.register_implementation("plainmemory", PlainMemory, clobber=True)
        yield FsspecBackend(f"plainmemory://{uuid4().hex}", create=True)


# What is seen here is what the page says.
FULL, ALONE, READ = "everything", "one user at a time, `prune --exclusive`", "restore, check, copy from there"


def _row(suite: type[ReadSuite]) -> list[str]:
    if issubclass(suite, ReadOnlySuite):
        return ["refused", getattr(suite, "ranges", "yes"), "yes", "refused", suite.durable, READ]
    assert issubclass(suite, BackendSuite)
    can = suite.capabilities
    said = ["yes" if yes else "**no**" for yes in (can.put_if_absent, can.range_read, can.list_after_put)]
    return [*said, "yes", suite.durable, FULL if can == EVERYTHING else ALONE]


def test_the_page_has_what_was_certified() -> None:
    page = (Path(snapvault.__file__).parents[1] / "docs/backends.md").read_text()
    table = re.search(r"## What is certified\n.*?\n\|---.*?\n(.*?)\n\n", page, re.DOTALL)
    assert table is not None
    lines = (line.strip("| ").split(" | ") for line in table[1].splitlines())
    shown = {line[0]: line[1:] for line in lines}
    suites = [c for c in globals().values() if isinstance(c, type) and issubclass(c, ReadSuite) and hasattr(c, "place")]
    assert shown == {suite.place: _row(suite) for suite in suites}
