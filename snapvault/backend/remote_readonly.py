"""Places that a web server shows: a copy of a repository there can be opened, checked and restored from, not written.

HTTP has no put-if-absent that servers keep: rclone's WebDAV takes ``If-None-Match: *`` and ignores it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from snapvault.backend.names import check_content_range, end_of
from snapvault.backend.protocol import Buffer, ObjectInfo
from snapvault.backend.remote_errors import kind_of_status
from snapvault.backend.walk import Entry
from snapvault.foundation.errors import Damaged, RepositoryNotFound, StoreDenied

WHOLE = 1 << 30  # bytes of an object that is taken whole from a server without ranges
# What came compressed has another length than what was asked for; what a cache on the way keeps may be old.
HEADERS = {"Accept-Encoding": "identity", "Cache-Control": "no-cache"}


@dataclass(frozen=True, slots=True)
class Reply:
    """``url``: where redirections led.  ``body`` is None where it is longer than it may be."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes | None


class ReadOnlyDriver(ABC):
    """What HTTP and WebDAV have in common: ranges, statuses, and the refusal to write."""

    place: str

    def __init__(self, place: str, *, create: bool) -> None:
        self.place = place
        if create:
            self._refuse()

    @abstractmethod
    def ask(self, method: str, name: str, headers: Mapping[str, str], *, most: int | None = None) -> Reply:
        """One request; ``most``: bytes of a body with the status 206."""

    @abstractmethod
    def size(self, name: str) -> int: ...

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]: ...

    @abstractmethod
    def entries(self, folder: str) -> Sequence[Entry]:
        """One level; whatever cannot be understood is an error."""

    @abstractmethod
    def close(self) -> None: ...

    def read(self, name: str, start: int, length: int | None) -> bytes:
        if length == 0:
            end_of(name, self.size(name), start, length)
            return b""
        last = "" if length is None else str(start + length - 1)
        ranged = bool(start) or length is not None
        reply = self.ask("GET", name, {"Range": f"bytes={start}-{last}"} if ranged else {}, most=length)
        if ranged and reply.status == 416:
            end_of(name, self.size(name), start, length)  # says Damaged, unless it was the empty rest
            return b""
        if reply.status in (403, 405):
            self.size(name)  # some refuse folders so, and then this says that there is no object
        self.require(reply, name, 200, 206)
        if reply.body is None:
            raise Damaged(f"{name}: the store ignored the range that was asked for", affected=[name])
        if reply.status == 206:
            check_content_range(name, reply.headers.get("Content-Range"), len(reply.body), start, length)
            return reply.body
        return reply.body[start : end_of(name, len(reply.body), start, length)]  # a server without ranges sends all

    def write(self, name: str, data: Sequence[Buffer], *, create: bool) -> None:
        self._refuse(name)

    def remove(self, name: str) -> None:
        self._refuse(name)

    def remove_stale_temps(self, older_than: float) -> int:
        """Whoever writes there removes them."""
        return 0

    def require(self, reply: Reply, name: str, *statuses: int) -> None:
        """FileNotFoundError, or the error that a status stands for, unless it is one of these."""
        led_to_folder = not name.endswith("/") and urlsplit(reply.url).path.endswith("/")
        if reply.status in (404, 410) or (name and led_to_folder):
            raise FileNotFoundError(name)
        if reply.status not in statuses:
            text = f"{self.place} answered {reply.status} where {name or 'a listing'} was asked for"
            raise kind_of_status(reply.status)(text, affected=[name] if name else [])

    def no_folder(self, folder: str) -> Sequence[Entry]:
        """For a folder that could not be listed: nothing, unless its parent still shows it."""
        if not folder:
            raise RepositoryNotFound(
                f"there is no listing at {self.place}",
                hint="check the URL; the server must show indexes",
            )
        above = folder[:-1].rpartition("/")[0]
        if any(name == folder for name, _ in self.entries(above + "/" if above else "")):
            raise OSError(f"{folder} is shown in the folder above it, but cannot be listed")
        return []

    def _refuse(self, name: str = "") -> NoReturn:
        raise StoreDenied(
            f"{self.place} can only be read",
            hint="HTTP and WebDAV only serve copies: write to a place of another kind",
            affected=[name] if name else [],
        )
