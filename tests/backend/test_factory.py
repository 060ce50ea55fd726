"""What users write, and what they get."""

import subprocess
import sys
from pathlib import Path

import pytest

from snapvault.backend.factory import open_backend
from snapvault.backend.local import LocalBackend
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.remote import FsspecBackend
from snapvault.backend.retry import RetryBackend
from snapvault.backend.wrapper import innermost
from snapvault.foundation.errors import InvalidInput


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "a b#c?d"
    for url in (str(place), place, f"file://{tmp_path}/a%20b%23c%3Fd", f"file://localhost{tmp_path}/a%20b%23c%3Fd"):
        backend = open_backend(url, create=True)
        assert isinstance(innermost(backend), LocalBackend) and backend.url == str(place)
    for text in ("relative", "odd:name", "x/y://z", "://"):
        backend = open_backend(text)
        assert isinstance(innermost(backend), LocalBackend) and backend.url.startswith(str(tmp_path))
    path = Path("s3://bucket")
    assert isinstance(innermost(open_backend(path)), LocalBackend)  # a Path is always a path


def test_create_is_asked_for(tmp_path: Path) -> None:
    open_backend(tmp_path / "no")
    assert not (tmp_path / "no").exists()
    open_backend(tmp_path / "yes/deep", create=True)
    assert (tmp_path / "yes/deep").is_dir()


def test_memory_is_shared_by_name() -> None:
    one, two, other = open_backend("memory://shared"), open_backend("memory://shared/"), open_backend("memory://other")
    assert isinstance(innermost(one), MemoryBackend)
    one.put("a", [b"x"])
    assert two.get("a") == b"x"
    assert list(other.list()) == []
    one.close()
    assert open_backend("memory://shared").get("a") == b"x"
    assert list(MemoryBackend().list()) == []


def test_remote_ones_are_retried() -> None:
    options = {"key": "k", "secret": "s"}
    backend = open_backend("s3://bucket/x", options)
    assert isinstance(backend, RetryBackend) and isinstance(innermost(backend), FsspecBackend)
    assert not isinstance(open_backend("s3://bucket/x", options, retry=False), RetryBackend)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "empty"),
        ("nosuch://x/y", "nosuch"),
        ("sshfs://host/x", "sftp://"),
        ("simplecache::s3://bucket/x", "chained"),
        ("simplecache://x", "cache"),
        ("local:///tmp/x", "plain path"),
        ("file://otherhost/tmp/x", "absolute path"),
        ("file://", "absolute path"),
        ("gcs://bucket/x", "gcsfs"),
        ("https://user:pass-word@host/x", "credentials"),
        ("sftp:///path", "host"),
    ],
)
def test_what_cannot_be_a_store(url: str, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_backend(url)
    assert says in str(caught.value) and "pass-word" not in str(caught.value)


@pytest.mark.parametrize(("url", "package", "extra"), [("s3://b/x", "s3fs", "s3"), ("sftp://h/x", "paramiko", "sftp")])
def test_a_missing_driver_names_the_extra(url: str, package: str, extra: str) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
from snapvault.backend.factory import open_backend
from snapvault.foundation.errors import InvalidInput
try:
    open_backend({url!r})
except InvalidInput as err:
    print(err.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"pip install 'snapvault[{extra}]'\n"


def test_local_takes_no_options(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        open_backend(tmp_path, {"key": "x"})


def test_bad_options_are_the_callers_fault() -> None:
    for options in ({"no_such_option": 1}, {"max_concurrency": 0}, {"key": "a", "username": "b"}):
        with pytest.raises(InvalidInput):
            open_backend("s3://bucket/x", options)


def test_importing_is_cheap() -> None:
    """Drivers, asyncio and tenacity load when a remote store is opened, or a fault happens."""
    code = """
import sys
before = set(sys.modules)
import snapvault.backend.factory, snapvault.backend.retry, snapvault.backend.remote, tempfile
snapvault.backend.factory.open_backend(tempfile.gettempdir())
snapvault.backend.factory.open_backend("memory://x")
heavy = {"fsspec", "s3fs", "paramiko", "tenacity", "asyncio", "aiohttp", "botocore"}
print(sorted(heavy & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
