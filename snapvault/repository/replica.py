"""Whether this place is a source, or a copy of one that goes on elsewhere (docs/replication.md)."""

from dataclasses import dataclass

from snapvault.backend.protocol import Backend, NotFound
from snapvault.format import names
from snapvault.format.local import decode_promotion, decode_replica
from snapvault.format.signed import decode_signed
from snapvault.format.wire import FormatError, Kind
from snapvault.foundation.errors import Conflict
from snapvault.foundation.ids import SessionId
from snapvault.repository.store import fetch
from snapvault.repository.trust import Untrusted, signed_by

PROMOTE = "if the source is lost, 'snapvault site promote' makes this place the source"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a place is.  ``since``: nanoseconds, UTC; 0 if it never was a copy."""

    since: int = 0
    promoted: int = 0  # since when it is a source of its own, though it was a copy
    collected: frozenset[SessionId] = frozenset()  # GCs that had ended here before it became a copy

    @property
    def replica(self) -> bool:
        """It is a copy, whose source goes on elsewhere."""
        return bool(self.since and not self.promoted)

    def require_source(self, what: str, *, hint: str = PROMOTE) -> None:
        """Conflict if this is a copy; ``what`` is to be done at the source."""
        if self.replica:
            raise Conflict(f"this is a copy of a repository whose source goes on elsewhere: {what} there", hint=hint)


def standing(backend: Backend, config_digest: bytes, owner_sign: bytes) -> Standing:
    """What the marks at this place say; Untrusted, FormatError, errors of the store.

    They are asked for by name: where a listing leaves one out, a copy would look like a source.
    """
    try:
        size = backend.head(names.REPLICA_MARK).size
    except NotFound:
        return Standing()
    try:
        promoted = _promoted(backend, config_digest, owner_sign)
        if promoted:
            return Standing(1, promoted)
        mark = decode_replica(fetch(backend, names.REPLICA_MARK, size))
    except NotFound:
        raise Conflict(f"what {backend.url} is, changed while it was read") from None
    except FormatError as e:
        raise type(e)(
            f"{names.REPLICA_MARK} is damaged: {e.message}",
            hint="the owner's 'snapvault site promote' makes this place a source; delete the object if it is one",
            affected=[names.REPLICA_MARK],
        ) from e
    if mark.config != config_digest:
        raise Untrusted(f"{names.REPLICA_MARK} is of another repository", affected=[names.REPLICA_MARK])
    return Standing(mark.since, 0, frozenset(mark.collected))


def _promoted(backend: Backend, config_digest: bytes, owner_sign: bytes) -> int:
    """When; 0: never.  Untrusted."""
    try:
        data = fetch(backend, names.PROMOTED_MARK)
    except NotFound:
        return 0
    signed = decode_signed(Kind.PROMOTION, data)
    record = decode_promotion(signed.payload)
    if record.config != config_digest or not signed_by(Kind.PROMOTION, signed, owner_sign):
        raise Untrusted(f"{names.PROMOTED_MARK} is not signed by the owner", affected=[names.PROMOTED_MARK])
    return record.time
