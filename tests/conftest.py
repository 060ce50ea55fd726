"""Fixtures for all tests: real servers, each started once a session and only if a test asks for it."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves the helper modules beside this file out

import servers

# A shell that starts this in the background lets it ignore Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Fresh]:
    """Call it: URL and storage options of a place in a fresh bucket of a real S3 server."""
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def moto_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Fresh]:
    """The same in moto."""
    with servers.moto_s3(tmp_path_factory.mktemp("moto")) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Fresh]:
    """The same in rclone, which ignores preconditions."""
    with servers.rclone_s3(tmp_path_factory.mktemp("rclone-s3")) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def rclone_sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Fresh]:
    """URL and storage options of a folder that is not there yet on an SFTP server."""
    with servers.rclone_sftp(tmp_path_factory.mktemp("rclone-sftp")) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def openssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Fresh]:
    """The same on OpenSSH."""
    with servers.openssh(tmp_path_factory.mktemp("openssh")) as fresh:
        yield fresh


@pytest.fixture(scope="session")
def webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Shown]:
    """Call it: a new folder, and where it can be read behind WebDAV."""
    with servers.webdav(tmp_path_factory.mktemp("webdav")) as shown:
        yield shown


@pytest.fixture(scope="session")
def rclone_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Shown]:
    """The same on rclone's web server."""
    with servers.rclone_http(tmp_path_factory.mktemp("rclone-http")) as shown:
        yield shown


@pytest.fixture(scope="session")
def python_http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Shown]:
    """The same on Python's."""
    with servers.python_http(tmp_path_factory.mktemp("python-http")) as shown:
        yield shown
