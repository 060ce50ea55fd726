"""A copy of a repository that a web server shows, through the session of fsspec's file system.

Not through its ``ls``, which takes any link of any page for a file, nor its ``info``, which says that nothing is there
when it was refused or the server is down.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import aiohttp
from fsspec.core import url_to_fs

from snapvault.backend.protocol import ObjectInfo
from snapvault.backend.remote_asyn import run
from snapvault.backend.remote_readonly import HEADERS, WHOLE, ReadOnlyDriver, Reply
from snapvault.backend.walk import Entry, walk
from snapvault.backend.web_index import read_index
from snapvault.foundation.errors import InvalidInput, StoreUnavailable
from snapvault.platform.remote import CONNECT_TIMEOUT, READ_TIMEOUT

AT_ONCE = 4  # requests for the sizes of a listing; Python's web server drops the sixth connection that waits


class HttpDriver(ReadOnlyDriver):
    def __init__(self, url: str, options: Mapping[str, Any], *, create: bool) -> None:
        super().__init__(url, create=create)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
        client = {"timeout": timeout, **options.get("client_kwargs", {})}
        merged = {**options, "client_kwargs": client}
        self._fs, self._root = url_to_fs(url, **merged, use_listings_cache=False, skip_instance_cache=True)

    def ask(self, method: str, name: str, headers: Mapping[str, str], *, most: int | None = None) -> Reply:
        try:
            return run(self._fs, self._ask(method, f"{self._root}/{name}", headers, most), self.place)
        except TypeError as err:  # fsspec hands what it does not know to each request
            raise InvalidInput(f"{self.place} with these storage options: {err}", hint="check the options") from err

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], most: int | None) -> Reply:
        session = await self._fs.set_session()
        given = {**self._fs.kwargs, "headers": {**HEADERS, **self._fs.kwargs.get("headers", {}), **headers}}
        async with session.request(method, self._fs.encode_url(url), **given) as reply:
            limit = None if most is None else most if reply.status == 206 else WHOLE
            fits = limit is None or (reply.content_length or 0) <= limit
            return Reply(reply.status, str(reply.url), reply.headers, await reply.read() if fits else None)

    def size(self, name: str) -> int:
        return self._size_in(self.ask("HEAD", name, {}), name)

    def _size_in(self, reply: Reply, name: str) -> int:
        self.require(reply, name, 200)
        length = reply.headers.get("Content-Length", "")
        if not length.isdigit():
            raise StoreUnavailable(f"{self.place} does not tell the size of {name}", affected=[name])
        return int(length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """An index has no sizes that could be relied on: one more request for each object."""
        names = (info.name for info in walk(self.entries, prefix))
        while batch := list(islice(names, AT_ONCE)):
            for name, reply in zip(batch, run(self._fs, self._heads(batch), self.place), strict=True):
                try:
                    yield ObjectInfo(name, self._size_in(reply, name))
                except FileNotFoundError as err:
                    raise StoreUnavailable(f"{name} in {self.place} is listed but not there", affected=[name]) from err

    async def _heads(self, names: Sequence[str]) -> Sequence[Reply]:
        return await asyncio.gather(*(self._ask("HEAD", f"{self._root}/{name}", {}, None) for name in names))

    def entries(self, folder: str) -> Sequence[Entry]:
        reply = self.ask("GET", folder, {})
        try:
            self.require(reply, folder, 200)
        except FileNotFoundError:
            return self.no_folder(folder)
        return read_index(reply.url, reply.body or b"", folder)

    def close(self) -> None:
        session = self._fs._session
        if session is not None:
            self._fs.close_session(self._fs.loop, session)
