"""The shipped conformance suite on every backend and on real servers."""

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

from snapvault.backend.factory import open_backend
from snapvault.backend.limit import LimitBackend
from snapvault.backend.local import LocalBackend
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.protocol import Backend
from snapvault.backend.remote import FsspecBackend
from snapvault.backend.retry import RetryBackend
from snapvault.backend.trace import TraceBackend
from snapvault.testing.backend import EVERYTHING, BackendSuite, Fill, ReadOnlySuite
from snapvault.testing.faults import FaultyBackend

NO_PROMISE = replace(EVERYTHING, put_if_absent=False)


class TestLocal(BackendSuite):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Backend:
        return LocalBackend(tmp_path / "repo", create=True)


class TestMemory(BackendSuite):
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
    @pytest.fixture
    def backend(self, seaweedfs: Fresh) -> Iterator[Backend]:
        yield from _opened(seaweedfs)


@pytest.mark.server
class TestMoto(BackendSuite):
    @pytest.fixture
    def backend(self, moto_s3: Fresh) -> Iterator[Backend]:
        yield from _opened(moto_s3)


@pytest.mark.server
class TestRcloneS3(BackendSuite):
    """Takes the condition and ignores it; the probe must say so."""

    capabilities = NO_PROMISE

    @pytest.fixture
    def backend(self, rclone_s3: Fresh) -> Iterator[Backend]:
        yield from _opened(rclone_s3)


@pytest.mark.server
class TestRcloneSftp(BackendSuite):
    """Its rename replaces what is there; looking first does not help racing creators."""

    capabilities = NO_PROMISE

    @pytest.fixture
    def backend(self, rclone_sftp: Fresh) -> Iterator[Backend]:
        yield from _opened(rclone_sftp)


@pytest.mark.server
class TestOpenSSH(BackendSuite):
    """Its rename refuses a taken name, whoever else looks."""

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
    @pytest.fixture
    def filled(self, webdav: Shown) -> Iterator[Fill]:
        yield from _shown(webdav)


@pytest.mark.server
class TestRcloneHttp(ReadOnlySuite):
    @pytest.fixture
    def filled(self, rclone_http: Shown) -> Iterator[Fill]:
        yield from _shown(rclone_http)


@pytest.mark.server
class TestPythonHttp(ReadOnlySuite):
    """Without ranges: whole objects come, and the part is cut out here."""

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

    capabilities = NO_PROMISE

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        fsspec.register_implementation("plainmemory", PlainMemory, clobber=True)
        yield FsspecBackend(f"plainmemory://{uuid4().hex}", create=True)
