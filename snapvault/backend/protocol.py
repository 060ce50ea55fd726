"""What snapvault asks of a place that keeps objects.

Names are ``/``-separated ASCII paths.  Objects are small to medium (a pack is tens of MB) and written whole.
Every method may be called from several threads at once.

Errors, and nothing else (anything a store says is mapped to one of them):

=================  ===================================================================
NotFound           the object is not there
Exists             put_if_absent: the name is taken
StoreDenied        credentials or permissions
StoreFull          ENOSPC, EDQUOT, quota
StoreUnavailable   a passing fault: time-out, reset, 5xx, EIO; worth a retry
Damaged            the store answered with other bytes than it promised (object shorter than asked, wrong range)
RepositoryNotFound the place itself (root folder, bucket) is missing, so that this is never taken for an empty store
InvalidInput       a name or range outside the rules below, or use after a fork
=================  ===================================================================

Names: components of ``A-Z a-z 0-9 . _ -``, none of which begins with a dot (``snapvault.backend.names`` checks
them).  Ranges: ``start == size`` with ``length=None`` gives ``b""``; anything beyond the end is Damaged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from snapvault.foundation.errors import SnapvaultError

Buffer = bytes | bytearray | memoryview


class NotFound(SnapvaultError):
    """No object of this name.  Callers turn it into what it means to them."""

    code, exit_code = "object-not-found", 20


class Exists(SnapvaultError):
    """The name is taken."""

    code = "object-exists"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    name: str
    size: int


class Backend(Protocol):
    """A flat store of write-once objects."""

    @property
    def url(self) -> str:
        """Where this is, without credentials; for messages."""
        ...

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        """Store the concatenation of ``data`` durably under ``name``, replacing what is there."""
        ...

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        """Store durably, or raise Exists and change nothing; of racing callers exactly one wins.

        A caller whose earlier attempt took effect but whose reply was lost also gets Exists; whoever retries reads
        back and compares.  Also, after any other error the name may be taken: by the whole object, never by a part.
        """
        ...

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """``length`` bytes from ``start`` (``None``: to the end).  Fewer are there: Damaged."""
        ...

    def head(self, name: str) -> ObjectInfo:
        """Size of one object; NotFound."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose name begins with ``prefix`` (a plain string prefix), in name order.

        Complete or an error, never silently short.  What was put before the call began is in it.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove the object; it is no error if it is not there."""
        ...

    def close(self) -> None:
        """Release connections.  Idempotent."""
        ...
