"""SFTP on a real server: temporary files, host keys, lost connections."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import servers
from servers import Fresh

from snapvault.backend.factory import open_backend
from snapvault.backend.protocol import Exists, NotFound, ObjectInfo
from snapvault.backend.remote import FsspecBackend
from snapvault.backend.retry import RetryBackend, RetryPolicy
from snapvault.backend.wrapper import remove_stale_temps
from snapvault.foundation.errors import InvalidInput, RepositoryNotFound, StoreDenied, StoreUnavailable

pytestmark = pytest.mark.server
QUICK = RetryPolicy(total=20.0, until_first_success=20.0, first_wait=0.01, longest_wait=0.1)


class Daemon:
    """One rclone over a folder that the test sees, too; can be stopped and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        self._folder = folder
        self.port = servers.free_port()
        self.start()

    def start(self) -> None:
        argv = [servers.tool("rclone"), "serve", "sftp", "--config", "/dev/null", "--addr", f"127.0.0.1:{self.port}"]
        argv += ["--user", "u", "--pass", servers.SECRET, "--cache-dir", str(self._folder / "cache")]
        argv += ["--dir-cache-time", "0s", str(self.data)]
        self.server = servers.Server(argv, self.port, self._folder / "rclone.log")
        self.server.wait_for(self.server.listens)

    def place(self, **options: Any) -> servers.Place:
        given = {"username": "u", "password": servers.SECRET, "host_key_policy": "auto_add", **options}
        return f"sftp://127.0.0.1:{self.port}/repo", given


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    yield made
    made.server.kill()


def test_nothing_half_written_is_shown(daemon: Daemon) -> None:
    backend = open_backend(*daemon.place(), create=True)
    backend.put("packs/ab/one", [b"body"])
    backend.put_if_absent("packs/ab/two", [b"body"])
    folder = daemon.data / "repo/packs/ab"
    assert sorted(os.listdir(folder)) == ["one", "two"]
    (folder / ".tmp-old").write_bytes(b"half")
    os.utime(folder / ".tmp-old", (1e9, 1e9))
    (folder / ".tmp-young").write_bytes(b"half")
    assert [info.name for info in backend.list()] == ["packs/ab/one", "packs/ab/two"]
    assert remove_stale_temps(backend) == 1
    assert sorted(os.listdir(folder)) == [".tmp-young", "one", "two"]


def test_a_failed_upload_leaves_nothing(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FsspecBackend(*daemon.place(), create=True)
    driver: Any = backend._driver

    def broken(*args: Any, **kwargs: Any) -> None:
        raise OSError("Failure")

    with monkeypatch.context() as patch:
        patch.setattr(driver, "_publish", broken)
        with pytest.raises(StoreUnavailable):
            backend.put("packs/one", [b"body"])
    assert list((daemon.data / "repo/packs").iterdir()) == []
    backend.put("packs/one", [b"body"])
    assert backend.get("packs/one") == b"body"


def test_rename_refused_because_taken(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH answers a plain rename onto a taken name with a bare "Failure"."""
    import paramiko

    backend = FsspecBackend(*daemon.place(), create=True)

    def rename(self: paramiko.SFTPClient, old: str, new: str) -> None:
        with self.open(new, "wb") as file:
            file.write(b"of another")
        raise OSError("Failure")

    monkeypatch.setattr(paramiko.SFTPClient, "rename", rename)
    with pytest.raises(Exists):
        backend.put_if_absent("a", [b"mine"])
    assert backend.get("a") == b"of another"
    assert os.listdir(daemon.data / "repo") == ["a"]


@pytest.mark.parametrize(("said", "fails"), [("Operation Unsupported", False), ("Failure", True)])
def test_fsync_on_the_server(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, said: str, fails: bool) -> None:
    import paramiko

    asked = []
    real = paramiko.SFTPClient._request

    def request(self: paramiko.SFTPClient, kind: int, *args: Any) -> Any:
        if args and args[0] == "fsync@openssh.com":
            asked.append(args)
            raise OSError(said)
        return real(self, kind, *args)

    monkeypatch.setattr(paramiko.SFTPClient, "_request", request)
    backend = FsspecBackend(*daemon.place(), create=True)
    for name in ("a", "b"):
        if fails:
            with pytest.raises(StoreUnavailable):
                backend.put(name, [b"x"])
        else:
            backend.put(name, [b"x"])
    assert len(asked) == (2 if fails else 1)  # a server that cannot is asked once
    assert sorted(os.listdir(daemon.data / "repo")) == ([] if fails else ["a", "b"])


@pytest.mark.parametrize(("server", "syncs"), [("openssh", True), ("rclone_sftp", False)])
def test_which_server_syncs(request: pytest.FixtureRequest, server: str, syncs: bool) -> None:
    """As the page has it: OpenSSH knows the extension, rclone does not."""
    backend = FsspecBackend(*request.getfixturevalue(server)(), create=True)
    backend.put("a", [b"x"])
    driver: Any = backend._driver
    assert driver._syncs == syncs
    backend.close()


def test_channels_are_used_again(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    import paramiko

    opened = []
    real = paramiko.SSHClient.open_sftp

    def open_sftp(self: paramiko.SSHClient) -> paramiko.SFTPClient:
        opened.append(1)
        return real(self)

    monkeypatch.setattr(paramiko.SSHClient, "open_sftp", open_sftp)
    backend = FsspecBackend(*daemon.place(), create=True)
    for i in range(10):
        backend.put(f"a/{i}", [b"x"])
        with pytest.raises(NotFound):
            backend.get("none")
    assert len(opened) == 1


def test_no_more_channels_than_a_server_allows(openssh: Fresh) -> None:
    """OpenSSH refuses the eleventh of a connection; that is no fault for somebody to retry."""
    backend = FsspecBackend(*openssh(), create=True)
    with ThreadPoolExecutor(30) as pool:
        for _ in pool.map(lambda i: backend.put(f"a/{i}", [bytes(10_000)]), range(60)):
            pass
    assert len(list(backend.list())) == 60
    backend.close()


def test_what_paramiko_logs_is_not_printed() -> None:
    """Where nobody set up logging, Python prints it, and paramiko logs the traceback of whatever is no SSH server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"sftp://127.0.0.1:{server.getsockname()[1]}/repo"
        code = f"""
from snapvault.backend.factory import open_backend
from snapvault.foundation.errors import StoreUnavailable
try:
    open_backend({url!r}, {{"banner_timeout": 0.1}})
except StoreUnavailable as err:
    print(err)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert url in done.stdout and done.stderr == ""


def test_a_lost_connection_is_made_again(daemon: Daemon) -> None:
    plain = FsspecBackend(*daemon.place(), create=True)
    plain.put("a", [b"body"])
    backend = RetryBackend(plain, QUICK)
    daemon.server.kill()
    with pytest.raises(StoreUnavailable) as caught:
        RetryBackend(plain, RetryPolicy(total=0.2, until_first_success=0.2)).get("a")
    assert plain.url in str(caught.value)
    daemon.start()
    assert backend.get("a") == b"body"
    assert list(backend.list()) == [ObjectInfo("a", 4)]


def test_a_folder_that_was_removed_is_made_again(daemon: Daemon) -> None:
    backend = RetryBackend(FsspecBackend(*daemon.place(), create=True), QUICK)
    backend.put("packs/ab/one", [b"x"])
    shutil.rmtree(daemon.data / "repo/packs")
    backend.put("packs/ab/two", [b"y"])
    assert [info.name for info in backend.list()] == ["packs/ab/two"]


def test_the_folder_is_missing(daemon: Daemon) -> None:
    backend = open_backend(*daemon.place())
    for prefix in ("", "a/", "a/b"):
        with pytest.raises(RepositoryNotFound):
            list(backend.list(prefix))
    with pytest.raises(RepositoryNotFound):
        backend.put("a/b", [b"x"])
    with pytest.raises(NotFound):
        backend.get("a")
    assert list(daemon.data.iterdir()) == []


def test_an_unreadable_folder_is_an_error(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    import paramiko

    backend = open_backend(*daemon.place(), create=True)
    for name in ("a/one", "b/two"):
        backend.put(name, [b"x"])
    real = paramiko.SFTPClient.listdir_attr

    def listdir_attr(self: paramiko.SFTPClient, path: str) -> Any:
        if path.endswith("/b"):
            raise PermissionError(13, "denied")
        return real(self, path)

    monkeypatch.setattr(paramiko.SFTPClient, "listdir_attr", listdir_attr)
    with pytest.raises(StoreDenied):
        list(backend.list())


def test_a_name_shown_twice_is_listed_once(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """As rclone does after a race for it."""
    import paramiko

    backend = open_backend(*daemon.place(), create=True)
    backend.put("packs/one", [b"xyz"])
    real = paramiko.SFTPClient.listdir_attr
    monkeypatch.setattr(paramiko.SFTPClient, "listdir_attr", lambda self, path: real(self, path) * 2)
    assert list(backend.list()) == [ObjectInfo("packs/one", 3)]


def test_links_on_the_server_are_followed(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through attributes as OpenSSH gives them: rclone follows links itself."""
    import paramiko

    backend = open_backend(*daemon.place(), create=True)
    backend.put("packs/one", [b"xyz"])
    real = paramiko.SFTPClient.listdir_attr

    def listdir_attr(self: paramiko.SFTPClient, path: str) -> Any:
        found = real(self, path)
        for item in found:
            item.st_mode, item.st_size = stat.S_IFLNK | 0o777, 11
        return found

    monkeypatch.setattr(paramiko.SFTPClient, "listdir_attr", listdir_attr)
    assert list(backend.list()) == [ObjectInfo("packs/one", 3)]


def test_wrong_password(rclone_sftp: Fresh) -> None:
    url, options = rclone_sftp()
    with pytest.raises(StoreDenied) as caught:
        open_backend(url, {**options, "password": "not-the-password"})
    assert "not-the-password" not in str(caught.value) and url in str(caught.value)


def test_unknown_host_key(rclone_sftp: Fresh) -> None:
    """A password must not go to whoever answers."""
    url, options = rclone_sftp()
    del options["host_key_policy"]
    with pytest.raises(InvalidInput) as caught:
        open_backend(url, options)
    assert "host key" in str(caught.value) and "host_key_policy" in caught.value.hint


def test_bad_options(rclone_sftp: Fresh) -> None:
    url, options = rclone_sftp()
    for extra in ({"host_key_policy": "whatever"}, {"no_such_option": 1}):
        with pytest.raises(InvalidInput):
            open_backend(url, {**options, **extra})


def test_passwords_in_the_url_are_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        open_backend("sftp://user:sec-ret@127.0.0.1/repo")
    assert "sec-ret" not in str(caught.value)


def test_user_name_in_the_url(rclone_sftp: Fresh) -> None:
    url, options = rclone_sftp()
    del options["username"]
    backend = open_backend(url.replace("sftp://", "sftp://u@"), options, create=True)
    backend.put("a", [b"x"])
    assert backend.get("a") == b"x"
    backend.close()


def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"sftp://127.0.0.1:{held.getsockname()[1]}/repo"
        with pytest.raises(StoreUnavailable) as caught:
            open_backend(url, {"username": "u", "password": "pppppp"})
    assert url in str(caught.value)


def test_use_after_close_connects_again(daemon: Daemon) -> None:
    backend = FsspecBackend(*daemon.place(), create=True)
    backend.put("a", [b"x"])
    backend.close()
    assert backend.get("a") == b"x"
    shutil.rmtree(daemon.data / "repo")
    with pytest.raises(RepositoryNotFound):
        list(backend.list())
