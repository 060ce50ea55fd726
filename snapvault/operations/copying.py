"""Objects copied verbatim from one store to another, each verified on its way."""

import enum
import hashlib
from collections.abc import Mapping

from blake3 import blake3

from snapvault.backend.protocol import Backend, Exists, NotFound, ObjectInfo
from snapvault.format import names
from snapvault.format.local import decode_tombstone
from snapvault.format.signed import decode_signed
from snapvault.format.snapshot import decode_snapshot
from snapvault.format.wire import FormatError, Kind, check_frame
from snapvault.foundation.errors import Damaged, StoreDenied, StoreUnavailable
from snapvault.operations.genuine import Genuine
from snapvault.repository.store import fetch_once, reread


class Outcome(enum.Enum):
    """What came of copying an object."""

    COPIED = enum.auto()
    HEALED = enum.auto()  # what was there under its name was damaged, and is replaced
    SAME = enum.auto()
    GONE = enum.auto()  # at the source
    DAMAGED = enum.auto()  # at the source
    CONFLICT = enum.auto()  # another whole object has its name
    MORE = enum.auto()  # the target has a commit, or "GC done", where the source says that the session was ended
    REFUSED = enum.auto()  # what was there under its name is damaged, and may not be replaced


def verify(name: str, data: bytes, rescue: Mapping[str, bytes]) -> None:
    """FormatError unless these bytes may have this name; ``rescue``: SHA-256 of the files that have no frame."""
    wanted = names.content_digest(name)
    if name.startswith(names.RESCUE):
        if hashlib.sha256(data).digest() != rescue.get(name):
            raise FormatError("it is not the file that the owner signed")
    elif wanted is None:
        check_frame(data)
    elif blake3(data).digest() != wanted:
        raise FormatError("its bytes are not those that its name states")


class ObjectCopier:
    """Copies from ``source`` to ``target``; nothing that is whole there is replaced but tombstones.  Thread-safe.

    ``genuine``: says what is invented, which then counts as damaged: once it had a name, the true one could not come.
    """

    def __init__(
        self, source: Backend, target: Backend, rescue: Mapping[str, bytes], genuine: Genuine | None = None
    ) -> None:
        self._source, self._target, self._rescue, self._genuine = source, target, rescue, genuine

    def copy(self, info: ObjectInfo) -> Outcome:
        """Copy one object, as a listing of the source showed it; errors of both stores but those of Outcome."""
        try:
            data = self._read(self._source, info.name, info.size)
        except NotFound:
            return Outcome.GONE
        except Damaged:
            return Outcome.DAMAGED
        try:
            self._target.put_if_absent(info.name, [data])
            return Outcome.COPIED
        except Exists:
            return self._compare(info.name, data)

    def _read(self, backend: Backend, name: str, size: int | None = None) -> bytes:
        """The bytes, verified."""

        def read() -> bytes:
            data = fetch_once(backend, name, size)
            verify(name, data, self._rescue)
            if self._genuine is not None:
                self._genuine.check(name, data)
            return data

        return reread(read)

    def _heal(self, name: str, data: bytes) -> Outcome:
        try:
            self._target.put(name, [data])
        except StoreDenied:  # a store that lets nobody overwrite; the rest can still be copied
            return Outcome.REFUSED
        return Outcome.HEALED

    def _compare(self, name: str, data: bytes) -> Outcome:
        """What is there under its name; StoreUnavailable if nothing is."""
        try:
            there = self._read(self._target, name)
        except NotFound:
            raise StoreUnavailable(f"{self._target.url} refused {name}, as if it were there, and it is not") from None
        except Damaged:
            return self._heal(name, data)
        if there == data:
            return Outcome.SAME
        if name.startswith(names.SNAPSHOTS) and _is_empty(data):
            return Outcome.SAME if _is_empty(there) else Outcome.MORE
        if not name.startswith(names.TOMBSTONES):
            return Outcome.CONFLICT
        if not _supersedes(data, there):
            return Outcome.SAME
        try:
            self._target.put(name, [data])
        except StoreDenied:
            return Outcome.CONFLICT
        return Outcome.COPIED


def _is_empty(slot: bytes) -> bool:
    """As two places may have said each for itself."""
    return decode_snapshot(decode_signed(Kind.SNAPSHOT, slot).payload).is_empty


def _supersedes(data: bytes, there: bytes) -> bool:
    """Whether this tombstone means another record, or is due earlier (docs/adr/0013)."""
    new, old = (decode_tombstone(decode_signed(Kind.TOMBSTONE, t).payload) for t in (data, there))
    return new.record != old.record or new.not_before < old.not_before
