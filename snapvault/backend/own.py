"""Names that are taken: whether by this very put, whose reply was lost or which was delivered twice."""

from collections.abc import Sequence

from snapvault.backend.names import total
from snapvault.backend.protocol import Backend, Buffer, Exists, NotFound
from snapvault.foundation.errors import Conflict, StoreUnavailable


def holds(backend: Backend, name: str, parts: Sequence[Buffer]) -> bool:
    """Whether exactly these bytes are stored under a name that is taken; StoreUnavailable if nothing is."""
    size = total(parts)
    try:
        return backend.head(name).size == size and backend.get(name, 0, size) == b"".join(parts)
    except NotFound:
        raise StoreUnavailable(
            f"{backend.url} refused to create {name}, as if it were there, and it is not", affected=[name]
        ) from None


def put_own(backend: Backend, name: str, data: Buffer) -> None:
    """Put an object under a name that nobody else would choose.

    If it is taken, then by this very put, delivered twice; else Conflict.
    """
    try:
        backend.put_if_absent(name, [data])
    except Exists:
        if not holds(backend, name, [data]):
            raise Conflict(f"{name} was just made up, and holds something else", affected=[name]) from None
