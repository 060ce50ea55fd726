"""A copy of a repository behind WebDAV, through the HTTP client of webdav4's file system.

Listings are read here: webdav4 takes one that the server broke off, or an entry that it could not tell, for good.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from xml.etree import ElementTree

import httpx
from fsspec.core import url_to_fs

from snapvault.backend.protocol import ObjectInfo
from snapvault.backend.remote_readonly import HEADERS, WHOLE, ReadOnlyDriver, Reply
from snapvault.backend.walk import Entry, walk
from snapvault.foundation.errors import InvalidInput, StoreUnavailable
from snapvault.platform.remote import CONNECT_TIMEOUT, READ_TIMEOUT

_WANTED = b'<propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/></prop></propfind>'
_DAV = "{DAV:}"


class WebdavDriver(ReadOnlyDriver):
    def __init__(self, url: str, options: Mapping[str, Any], *, create: bool) -> None:
        base = str(options.get("base_url", ""))
        if not base:
            raise InvalidInput(
                "a WebDAV URL does not say where its server is", hint="storage option base_url = 'https://host/dav'"
            )
        if urlsplit(base).username is not None:
            raise InvalidInput("the base_url contains credentials", hint="pass them as auth = ['user', 'password']")
        super().__init__(f"{url} at {base}", create=create)
        merged = {"timeout": httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT), **options}
        if isinstance(merged.get("auth"), list):  # as TOML and JSON have it
            merged["auth"] = tuple(merged["auth"])
        fs, path = url_to_fs(url, **merged, skip_instance_cache=True)  # it keeps no listings
        self._http, self._root = fs.client.http, fs.client.join_url(path)

    def ask(self, method: str, name: str, headers: Mapping[str, str], *, most: int | None = None) -> Reply:
        url = self._root.copy_with(path=f"{self._root.path.rstrip('/')}/{name}")
        body = _WANTED if method == "PROPFIND" else None
        given = {**HEADERS, **headers}
        with self._http.stream(method, url, headers=given, content=body, follow_redirects=True) as reply:
            limit = None if most is None else most if reply.status_code == 206 else WHOLE
            fits = limit is None or int(reply.headers.get("Content-Length", 0)) <= limit
            return Reply(reply.status_code, str(reply.url), reply.headers, reply.read() if fits else None)

    def size(self, name: str) -> int:
        size = self._properties(name, "0").get("")
        if size is None:
            raise FileNotFoundError(name)  # it is a folder
        return size

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return walk(self.entries, prefix)

    def entries(self, folder: str) -> Sequence[Entry]:
        try:
            found = self._properties(folder, "1")
        except FileNotFoundError:
            return self.no_folder(folder)
        if found.pop("") is not None:
            return []  # a file has the name of this folder
        return [(f"{folder}{name}/", 0) if size is None else (folder + name, size) for name, size in found.items()]

    def _properties(self, name: str, depth: str) -> dict[str, int | None]:
        """Sizes, None for folders, of what was asked for ("") and, with depth 1, of what is directly in it."""
        reply = self.ask("PROPFIND", name, {"Depth": depth, "Content-Type": "application/xml"})
        self.require(reply, name, 207)
        base = _path(reply.url, "")
        found: dict[str, int | None] = {}
        for response in ElementTree.fromstring(reply.body or b"").findall(_DAV + "response"):
            href = response.findtext(_DAV + "href", "")
            path = _path(reply.url, href)
            below = path.removeprefix(base).removeprefix("/")
            if not href or not f"{path}/".startswith(f"{base}/") or "/" in below:
                raise StoreUnavailable(f"{self.place} lists {path}, which is not in {base}")
            found[below] = self._size_in(response, path)
        if "" not in found:
            raise StoreUnavailable(f"{self.place} says nothing of {base} itself")
        return found

    def _size_in(self, response: ElementTree.Element, path: str) -> int | None:
        """A status for the folder itself says that the listing was cut short; an entry may have one of its own."""
        known = (p for p in response.findall(_DAV + "propstat") if " 200 " in p.findtext(_DAV + "status", "") + " ")
        for properties in known:
            kind = properties.find(f"{_DAV}prop/{_DAV}resourcetype")
            if kind is not None and kind.find(_DAV + "collection") is not None:
                return None
            length = properties.findtext(f"{_DAV}prop/{_DAV}getcontentlength", "")
            if kind is not None and length.isdigit():
                return int(length)
        status = response.findtext(_DAV + "status", "incomplete")
        raise StoreUnavailable(f"{self.place} gives no full answer about {path}: {status}")

    def close(self) -> None:
        self._http.close()


def _path(url: str, reference: str) -> str:
    return unquote(urlsplit(urljoin(url, reference)).path).rstrip("/")
