"""The wrappers that a caller's Control asks for, in the order in which they belong."""

from snapvault.backend.concurrency import ConcurrencyBackend
from snapvault.backend.guard import CancelBackend
from snapvault.backend.limit import LimitBackend
from snapvault.backend.protocol import Backend
from snapvault.foundation.events import Control, limits_of


def controlled(backend: Backend, control: Control | None) -> Backend:
    """A view of a store that keeps to the limits of ``control``, and stops reading when it is cancelled.

    Whoever waits for bandwidth holds no connection, and whoever waited for either looks once more whether to go on.
    """
    limits, cancel = limits_of(control), control.cancel if control is not None else None
    if cancel is not None:
        backend = CancelBackend(backend, cancel)
    if limits.connections is not None:
        backend = ConcurrencyBackend(backend, limits.connections)
    if limits.upload or limits.download:
        backend = LimitBackend(backend, upload=limits.upload, download=limits.download, cancel=cancel)
    return backend
