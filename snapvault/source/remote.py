"""Anything that fsspec reaches as a source: s3://bucket/prefix, sftp://host/folder, https://host/file, memory://x."""

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from snapvault.format.tree import EMPTY, Node, NodeKind
from snapvault.foundation.clock import EPOCH, nanoseconds
from snapvault.foundation.errors import SourceError
from snapvault.platform.remote import as_os_errors, connect, shown_url
from snapvault.source.protocol import NOTHING_KNOWN, FileReader, Known, Listing, Problem

BLOCK = 8 << 20  # bytes asked for at once; a file up to this size is one request
_MODIFIED = ("LastModified", "last_modified", "Last-Modified", "mtime", "modified", "updated", "timeModified")
_VERSION = ("ETag", "etag", "e_tag", "generation", "Content-MD5", "md5Hash", "VersionId", "version_id")
_SETTLED = 3  # seconds after which a time of modification tells a version from the next


class RemoteSource:
    """A folder or file behind an fsspec URL, at the root ``/`` + the last part of the URL.  See SourceTree.

    Such a place has no owners and modes: folders are 0755, files 0644, both root's.  ``ctime_ns`` is no time but a
    63-bit fingerprint of the ETag, the version or (where it is older than a few seconds) the time of modification;
    a file without any has 0 there and in ``inode``, and must never be taken as unchanged.

    Raises InvalidInput for a URL that fsspec does not know, SourceError if there is nothing or no access.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.label = shown_url(url)
        self._fs, self._path = connect(url, storage_options)
        base = self._path.rstrip("/")
        if "://" in base:  # a query is part of an address, but not of a file's name
            base = base.partition("?")[0].rstrip("/")
        else:
            self._path = base
        name = base.rpartition("/")[2]
        self.roots: tuple[bytes, ...] = (b"/" + _encoded(name if name.strip(".") else "root"),)
        self.users: dict[int, str] = {}
        self.groups: dict[int, str] = {}

    def root_node(self, path: bytes) -> Node:
        """See SourceTree."""
        if path == b"/":
            return Node(b"", NodeKind.DIRECTORY, 0o755, 0, 0, 0)
        try:
            with as_os_errors(self.label):
                self._fs.invalidate_cache()
                info = self._fs.info(self._address(path))
        except OSError as e:
            reason = "there is nothing at this address" if isinstance(e, FileNotFoundError) else e.strerror or str(e)
            raise SourceError(f"{self.label!r} cannot be read: {reason}", affected=[self.label]) from e
        return _node(path.rpartition(b"/")[2], info)

    def scan(self, path: bytes, known: Known = NOTHING_KNOWN) -> Listing:
        """See SourceTree.  Never answered from fsspec's own cache, and an error is never an empty folder."""
        address = self._address(path)
        with as_os_errors(address):
            self._fs.invalidate_cache(address)
            found = self._fs.ls(address, detail=True)
        nodes: dict[bytes, Node] = {}
        problems: list[Problem] = []
        for info in found:
            if info["name"].rstrip("/") == address.rstrip("/"):
                # An empty object that stands for the folder itself; or "a//b", a folder without a name.
                if info["size"] or (info["type"] == "directory" and info["name"] != address):
                    problems.append(Problem(path + b"/", "has a name that no file can have", False))
                continue
            name = _encoded(info["name"].rstrip("/").rpartition("/")[2])
            problem = self._take(path + b"/" + name, name, info, nodes)
            if problem:
                problems.append(Problem(path + b"/" + name, problem, False))
        return Listing([nodes[name] for name in sorted(nodes)], problems)

    def _take(self, path: bytes, name: bytes, info: dict[str, Any], nodes: dict[bytes, Node]) -> str:
        """Adds one entry to the nodes, or says why not."""
        if name in (b"", b".", b"..") or b"\0" in name:
            return "has a name that no file can have"
        if info["type"] == "link":
            with as_os_errors(info["name"]):
                try:
                    info = self._fs.info(info["name"])
                except FileNotFoundError:
                    return "is a link that leads nowhere"
            if info["type"] != "file":
                return "is a link to a folder, which is not followed"
        node = _node(name, info)
        before = nodes.get(name)
        if before is None or before.kind == NodeKind.FILE:
            nodes[name] = node
        return "is an object with the name of a folder, and only one of them can be stored" if before else ""

    def open(self, path: bytes, node: Node) -> FileReader:
        """See SourceTree."""
        return RemoteReader(self._fs, self._address(path), node)

    def _address(self, path: bytes) -> str:
        root = self.roots[0]
        if path != root and not path.startswith(root + b"/"):
            raise SourceError(f"there is no {os.fsdecode(path)!r} in {self.label!r}")
        return str(self._path + path[len(root) :].decode("utf-8", "surrogateescape"))


class RemoteReader:
    """Reads one remote file in ranged blocks, and checks that each body is as long as was asked for."""

    __slots__ = ("_address", "_block", "_fs", "_offset", "_same", "_size", "_start", "_whole", "node")

    def __init__(self, fs: Any, address: str, node: Node) -> None:
        self._fs, self._address = fs, address
        self._whole = 0 < node.size <= BLOCK
        if not self._whole:  # several requests: know which version they are of
            with as_os_errors(address):
                fs.invalidate_cache()
                info = fs.info(address)
            node = _node(node.name, info)
            if info.get("size") is None:
                node.size = -1  # until it was read
        self.node, self._size = node, node.size
        self._block = memoryview(b"")
        self._offset = 0  # in the file, behind the block
        self._start = 0  # in the block
        self._same = True

    def read(self, size: int) -> bytes:
        """See FileReader.  OSError: a body that is shorter or longer than what was asked for."""
        if self._start == len(self._block):
            self._fetch()
        data = bytes(self._block[self._start : self._start + size])
        self._start += len(data)
        return data

    def _fetch(self) -> None:
        self._block, self._start = memoryview(b""), 0
        if self._size == self._offset:
            return
        with as_os_errors(self._address):
            if self._whole or self._size < 0:
                body = self._fs.cat_file(self._address)
                wanted = self._size
            else:
                end = min(self._offset + BLOCK, self._size)
                body = self._fs.cat_file(self._address, start=self._offset, end=end)
                wanted = end - self._offset
        if len(body) != wanted and self._size >= 0:
            body = self._other_body(body, wanted)
        self._block = memoryview(body)
        self._offset += len(body)
        if self._size < 0 or not self._same:
            self._size = self._offset

    def _other_body(self, body: bytes, wanted: int) -> bytes:
        """A body of another length than promised: the whole of a changed file, or a transfer that went wrong."""
        if self._offset == 0:
            with as_os_errors(self._address):
                self._fs.invalidate_cache()
                now = self._fs.info(self._address).get("size")
            if now == len(body):  # replaced since it was listed; or a server that has no ranges and sends all
                self._same = now == self._size
                self._size = now
                return body
        raise OSError(5, f"the store sent {len(body)} bytes where {wanted} were asked for", self._address)

    def finish(self) -> bool:
        """See FileReader.  Asks the store again where reading took several requests."""
        complete = self._offset == self._size and self._start == len(self._block)
        delivered = self._offset - len(self._block) + self._start
        before = self.node
        if before.size != delivered:
            self.node = replace(before, size=delivered)
        if not (complete and self._same) or self._whole or before.size <= 0:
            return complete and self._same
        with as_os_errors(self._address):
            self._fs.invalidate_cache()
            now = _node(before.name, self._fs.info(self._address))
        return now.size == before.size and now.ctime_ns == before.ctime_ns and now.mtime_ns == before.mtime_ns


def _node(name: bytes, info: Mapping[str, Any]) -> Node:
    if info["type"] == "directory":
        return Node(name, NodeKind.DIRECTORY, 0o755, 0, 0, _time(info, (*_MODIFIED, "created")))
    mtime = _time(info, (*_MODIFIED, "created"))
    size = int(info.get("size") or 0)
    return Node(name, NodeKind.FILE, 0o644, 0, 0, mtime, _fingerprint(info, size), 0, size, EMPTY)


def _fingerprint(info: Mapping[str, Any], size: int) -> int:
    """A number that changes with the content, 1 to 2^63 - 1; 0: the store tells nothing that would."""
    version = next((f"{key.lower()}={info[key]}" for key in _VERSION if info.get(key)), "")
    if not version:
        mtime = _time(info, _MODIFIED)
        if not mtime or time.time_ns() - mtime < _SETTLED * 10**9:
            return 0
        version = f"mtime={mtime}"
    digest = hashlib.blake2b(f"{size} {version}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 1) or 1


def _time(info: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    """Nanoseconds since the epoch from the first of these keys that holds a time; else 0."""
    for key in keys:
        value = info.get(key)
        if isinstance(value, str):
            value = _parsed(value)
        if isinstance(value, datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            return nanoseconds(aware - EPOCH)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return int(value) * 10**9 if isinstance(value, int) else round(value * 1e6) * 1000
    return 0


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
