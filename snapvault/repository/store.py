"""The backend together with the local cache of its immutable objects."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from blake3 import blake3

from snapvault.backend.protocol import Backend, NotFound, ObjectInfo
from snapvault.backend.wrapper import address
from snapvault.format import names
from snapvault.format.pack import MAX_PACK
from snapvault.format.wire import MAX_RECORD, FormatError, check_frame
from snapvault.foundation.ahead import ahead
from snapvault.foundation.errors import Damaged, FormatTooNew
from snapvault.repository.cache import Cache

T = TypeVar("T")

TRIES = 3  # reads of an object that comes damaged
FETCHERS = 8  # requests at once for small objects

# Bytes of the largest object of each kind that anybody honest writes: the store may offer a terabyte instead.
_SMALL = 64 << 10
_LIMITS = (
    (names.CONFIG, _SMALL),
    (names.SLOTS, _SMALL),
    (names.SESSIONS, _SMALL),
    (names.CAPABILITIES, _SMALL),
    (names.HEARTBEATS, _SMALL),
    (names.TOMBSTONES, _SMALL),
    (names.ATTESTATIONS, 4 << 20),
    (names.REGISTER, 16 << 20),
    (names.EVIDENCE, 16 << 20),
    (names.PACKS, MAX_PACK),
)


def limit_of(name: str) -> int:
    """The most bytes that an object of this name may have."""
    return next((limit for prefix, limit in _LIMITS if name.startswith(prefix)), MAX_RECORD)


def is_possible(info: ObjectInfo) -> bool:
    """Whether an object of this name may have this size: the store may say anything."""
    return 0 <= info.size <= limit_of(info.name)


def fetch_once(backend: Backend, name: str, size: int | None = None) -> bytes:
    """A whole object as it comes, but no more of it than its kind may have; FormatError, NotFound.

    ``size``: what a listing said of it, which saves a request.  For whoever verifies it in a ``reread``.
    """
    if size is None:
        size = backend.head(name).size
    if not is_possible(ObjectInfo(name, size)):
        raise FormatError(f"{name} has {size} bytes, which the format does not allow", affected=[name])
    return backend.get(name, 0, size)


def fetch(backend: Backend, name: str, size: int | None = None) -> bytes:
    """The same; what comes damaged is asked for again, since one bad reply must not stick, and what still is comes as
    it is.  Packs and rescue files have no frame that tells.
    """
    size = backend.head(name).size if size is None else size
    for _ in range(0 if name.startswith((names.PACKS, *names.RESCUE)) else TRIES - 1):
        with contextlib.suppress(Damaged):
            data = fetch_once(backend, name, size)
            if _is_whole(data):
                return data
    return fetch_once(backend, name, size)


def check_whole(name: str, data: bytes) -> None:
    """FormatError unless these bytes end in their own digest, and are those that the name states if it states any."""
    check_frame(data)
    if names.content_digest(name) not in (None, blake3(data).digest()):
        raise FormatError("its bytes are not those that its name states")


def _is_whole(data: bytes) -> bool:
    with contextlib.suppress(FormatTooNew):
        try:
            check_frame(data)
        except Damaged:
            return False
    return True


def reread(read: Callable[[], T], tries: int = TRIES) -> T:
    """The result of ``read``, which verifies what comes; asked again if that is damaged: a bad reply must not stick."""
    for _ in range(tries - 1):
        with contextlib.suppress(Damaged):
            return read()
    return read()


def fetch_rescue(backend: Backend, name: str, size: int, digest: bytes) -> bytes:
    """A rescue file, of which the keyset states the SHA-256; FormatError, NotFound."""

    def read() -> bytes:
        data = fetch_once(backend, name, size)
        if hashlib.sha256(data).digest() != digest:
            raise FormatError("it is not the file that the owner signed: do not run it", affected=[name])
        return data

    return reread(read)


class Gone(Damaged):
    """An object that was listed, and is not there."""


class Store:
    """Reads of small immutable objects go through the cache; everything else goes to the backend."""

    def __init__(self, backend: Backend, cache: Cache) -> None:
        self.backend, self.cache = backend, cache
        # The URL for messages may tell more: of the endpoint, too.
        self._place = blake3(f"{address(backend)} {backend.url}".encode()).hexdigest()[:16]

    def _kept(self, name: str) -> str:
        """What the cache calls it: only what is named by its content is the same at every place of a repository."""
        return f"objects/{name}" if names.content_digest(name) else f"objects/{self._place}/{name}"

    def immutable(self, name: str, size: int | None = None, *, keep: bool = True) -> bytes:
        """A framed object that never changes under its name; from the cache if it verifies there.

        ``keep``: put it there otherwise.
        """
        kept = self.cache.get(self._kept(name))
        if kept is not None:
            try:
                check_whole(name, kept)
                return kept
            except Damaged:
                self.cache.remove(self._kept(name))
        return self.fresh(name, size, keep=keep)

    def fresh(self, name: str, size: int | None = None, *, keep: bool = True) -> bytes:
        """The same, as the store has it now."""
        try:
            data = fetch(self.backend, name, size)
            check_frame(data)
        except Damaged as e:
            raise type(e)(f"{name}: {e.message}", affected=[name]) from e
        if keep:
            self.cache.put(self._kept(name), data)
        return data

    def immutables(self, wanted: Sequence[str], sizes: Mapping[str, int] | None = None) -> list[bytes | Damaged]:
        """Several of them at once; what is damaged or missing stands in its place as the error."""
        return list(self.each(wanted, sizes))

    def each(
        self, wanted: Sequence[str], sizes: Mapping[str, int] | None = None, *, keep: bool = True
    ) -> Iterator[bytes | Damaged]:
        """The same one by one, and fetched only a few ahead of who takes them."""
        known = sizes or {}

        def one(name: str) -> bytes | Damaged:
            try:
                return self.immutable(name, known.get(name), keep=keep)
            except Damaged as e:
                return e
            except NotFound:
                return Gone(f"{name} is gone", affected=[name])

        return ahead(one, wanted, FETCHERS)
