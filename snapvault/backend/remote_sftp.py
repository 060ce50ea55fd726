"""SFTP, through the connection of fsspec's file system and channels of our own.

An SFTP channel of paramiko drops the replies of other threads, so each call takes one for itself, and waits where as
many are in use as a server allows.  An object is written under a temporary name and renamed: plain rename refuses a
taken name on OpenSSH, but not everywhere.
"""

import contextlib
import secrets
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import paramiko
from paramiko.sftp import CMD_EXTENDED

from snapvault.backend.names import end_of, total
from snapvault.backend.protocol import Buffer, Exists, ObjectInfo
from snapvault.backend.walk import Entry, walk
from snapvault.foundation.errors import Damaged, InvalidInput, RepositoryNotFound, StoreUnavailable
from snapvault.platform.ssh import KnownHosts

TEMP_PREFIX = ".tmp-"
CHANNELS = 8  # OpenSSH refuses the eleventh of a connection unless it is set up otherwise
_TIMEOUTS = {"timeout": 10.0, "banner_timeout": 15.0, "auth_timeout": 15.0}  # seconds, to connect
_REPLY_TIMEOUT = 60.0  # seconds without a reply
_ANSWERS = (FileNotFoundError, PermissionError, Exists)  # the channel is still good after these


class SftpDriver:
    def __init__(self, url: str, options: Mapping[str, Any], *, create: bool) -> None:
        parts = urlsplit(url)
        if not parts.hostname:
            raise InvalidInput("an SFTP URL names a host", hint="sftp://user@host/path")
        self._root = parts.path.rstrip("/")
        self.place = parts.geturl().rstrip("/")
        named = {"port": parts.port, "username": parts.username}
        self._options = {**_TIMEOUTS, **options, **{k: v for k, v in named.items() if v}}
        self._host = parts.hostname
        self._lock, self._free = threading.Lock(), threading.BoundedSemaphore(CHANNELS)
        self._fs: KnownHosts | None = None
        self._idle: list[paramiko.SFTPClient] = []
        self._made: set[str] = set()
        self._syncs = True
        if create:
            self._make_folders(self._root)
        else:
            with self._client():  # a wrong address or password shows at once
                pass

    def write(self, name: str, data: Sequence[Buffer], *, create: bool) -> None:
        folder = self._path(name).rpartition("/")[0]
        if folder not in self._made:
            self._require_root()
            self._make_folders(folder)
        try:
            self._write(folder, name, data, create=create)
        except FileNotFoundError:
            self._made.clear()  # somebody removed the folder; whoever tries again makes it again
            raise

    def _write(self, folder: str, name: str, data: Sequence[Buffer], *, create: bool) -> None:
        path = self._path(name)
        with self._client() as ftp:
            if create:
                _refuse_if_there(ftp, name, path, self.place)
            temp = f"{folder}/{TEMP_PREFIX}{secrets.token_hex(12)}"
            try:
                self._upload(ftp, temp, data)
                self._publish(ftp, temp, name, create=create)
            except BaseException:
                with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                    ftp.remove(temp)
                raise

    def read(self, name: str, start: int, length: int | None) -> bytes:
        with self._client() as ftp, ftp.open(self._path(name), "rb") as file:
            end = end_of(name, _regular(file.stat(), name), start, length)
            body = b"".join(file.readv([(start, end - start)])) if end > start else b""
        if len(body) != end - start:
            raise Damaged(f"{name}: {len(body)} bytes came instead of {end - start}", affected=[name])
        return body

    def size(self, name: str) -> int:
        with self._client() as ftp:
            return _regular(ftp.stat(self._path(name)), name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return walk(self._entries, prefix)

    def remove(self, name: str) -> None:
        with self._client() as ftp:
            ftp.remove(self._path(name))

    def remove_stale_temps(self, older_than: float) -> int:
        return self._sweep(self._root, time.time() - older_than)

    def close(self) -> None:
        with self._lock:
            self._idle.clear()
            if self._fs is not None:
                self._fs.client.close()
                self._fs = None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _upload(self, ftp: paramiko.SFTPClient, temp: str, data: Sequence[Buffer]) -> None:
        with ftp.open(temp, "wxb") as file:
            file.set_pipelined(True)
            for part in data:
                file.write(part)
            file.flush()
            if self._syncs:
                self._sync(ftp, file)
        stored = ftp.stat(temp).st_size  # after closing: only then have all writes been answered
        if stored != total(data):
            raise StoreUnavailable(f"{stored} of {total(data)} bytes were stored in {self.place}")

    def _sync(self, ftp: paramiko.SFTPClient, file: paramiko.SFTPFile) -> None:
        """OpenSSH's extension; a server without it keeps what it says it keeps."""
        try:
            ftp._request(CMD_EXTENDED, "fsync@openssh.com", file.handle)
        except OSError as err:
            if "support" not in str(err).lower():
                raise
            self._syncs = False

    def _publish(self, ftp: paramiko.SFTPClient, temp: str, name: str, *, create: bool) -> None:
        path = self._path(name)
        if not create:
            ftp.posix_rename(temp, path)
            return
        try:
            ftp.rename(temp, path)
        except OSError:  # the protocol has no word for "exists"
            _refuse_if_there(ftp, name, path, self.place)
            raise

    def _entries(self, folder: str) -> Sequence[Entry]:
        path = f"{self._root}/{folder}".rstrip("/")
        try:
            with self._client() as ftp:
                found = ftp.listdir_attr(path)
                return [_entry(ftp, path, folder, attributes) for attributes in found]
        except FileNotFoundError:
            self._require_root()
            return []  # no folder, no objects

    def _require_root(self) -> None:
        with self._client() as ftp:
            try:
                ftp.stat(self._root or "/")
            except FileNotFoundError as err:
                raise RepositoryNotFound(f"there is no folder at {self.place}") from err

    def _make_folders(self, path: str) -> None:
        missing: list[str] = []
        above = path
        with self._client() as ftp:
            while above and not _is_there(ftp, above):
                missing.append(above)
                above = above.rpartition("/")[0]
            for folder in reversed(missing):
                try:
                    ftp.mkdir(folder, 0o700)
                except OSError:
                    if not _is_there(ftp, folder):  # else another one was faster
                        raise
        self._made.add(path)

    def _sweep(self, folder: str, limit: float) -> int:
        count = 0
        with self._client() as ftp:
            found = ftp.listdir_attr(folder or "/")
            for item in found:
                path = f"{folder}/{item.filename}"
                if item.filename.startswith(TEMP_PREFIX) and (item.st_mtime or 0) <= limit:
                    with contextlib.suppress(FileNotFoundError):
                        ftp.remove(path)
                        count += 1
        folders = [item.filename for item in found if stat.S_ISDIR(item.st_mode or 0)]
        return count + sum(self._sweep(f"{folder}/{name}", limit) for name in folders)

    @contextlib.contextmanager
    def _client(self) -> Iterator[paramiko.SFTPClient]:
        """A channel for one call, which takes no second one meanwhile."""
        with self._free:
            client = self._channel()
            try:
                yield client
            except _ANSWERS:
                self._give_back(client)
                raise
            except BaseException:
                client.close()
                raise
            self._give_back(client)

    def _give_back(self, client: paramiko.SFTPClient) -> None:
        with self._lock:
            self._idle.append(client)

    def _channel(self) -> paramiko.SFTPClient:
        with self._lock:
            fs = self._fs
            transport = fs.client.get_transport() if fs is not None else None
            if fs is None or transport is None or not transport.is_active():
                self._idle.clear()
                fs = self._fs = KnownHosts(self._host, **self._options)
                client = fs.ftp
            elif self._idle:
                return self._idle.pop()
            else:
                client = fs.client.open_sftp()
        client.get_channel().settimeout(_REPLY_TIMEOUT)
        return client


def _refuse_if_there(ftp: paramiko.SFTPClient, name: str, path: str, place: str) -> None:
    if _is_there(ftp, path):
        raise Exists(f"{name} is already in {place}", affected=[name])


def _is_there(ftp: paramiko.SFTPClient, path: str) -> bool:
    try:
        ftp.stat(path)
    except FileNotFoundError:
        return False
    return True


def _regular(found: paramiko.SFTPAttributes, name: str) -> int:
    if found.st_size is None or stat.S_ISDIR(found.st_mode or 0):
        raise FileNotFoundError(name)
    return int(found.st_size)


def _entry(ftp: paramiko.SFTPClient, path: str, folder: str, item: paramiko.SFTPAttributes) -> Entry:
    mode, size = item.st_mode or 0, item.st_size
    if stat.S_ISLNK(mode):
        target = ftp.stat(f"{path}/{item.filename}")
        mode, size = target.st_mode or 0, target.st_size
    return (f"{folder}{item.filename}/", 0) if stat.S_ISDIR(mode) else (folder + item.filename, int(size or 0))
