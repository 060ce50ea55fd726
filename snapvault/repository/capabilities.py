"""What a store does: found out by a probe, and written down beside the objects (docs/format/local.md)."""

import os

from snapvault.backend.own import put_own
from snapvault.backend.probe import probe
from snapvault.backend.protocol import Backend, NotFound
from snapvault.format import names
from snapvault.format.local import CapabilitiesRecord, decode_capabilities
from snapvault.foundation.errors import Damaged
from snapvault.repository.store import fetch

_NONE = CapabilitiesRecord(False, False, False)


def record_capabilities(backend: Backend) -> None:
    """Probe the store, and write down what was seen; what ``probe`` raises."""
    found = probe(backend)
    record = CapabilitiesRecord(found.put_if_absent, found.range_read, found.list_after_put)
    put_own(backend, names.CAPABILITIES + os.urandom(8).hex(), record.encode())


def recorded_capabilities(backend: Backend) -> list[CapabilitiesRecord]:
    """All that was written down; a record that cannot be read promises nothing."""
    return [_read(backend, info.name, info.size) for info in list(backend.list(names.CAPABILITIES))]


def _read(backend: Backend, name: str, size: int) -> CapabilitiesRecord:
    try:
        return decode_capabilities(fetch(backend, name, size))
    except (Damaged, NotFound):
        return _NONE
