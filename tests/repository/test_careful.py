"""Who looks before something is put."""

import pytest

from snapvault.backend.memory import MemoryBackend
from snapvault.backend.trace import TraceBackend
from snapvault.format import names
from snapvault.format.local import CapabilitiesRecord
from snapvault.foundation.ids import PackId, SessionId
from snapvault.repository.careful import CarefulBackend

PACK, SLOT = names.pack(PackId(bytes(32))), names.snapshot(SessionId("0" * 32))


@pytest.mark.parametrize(
    ("records", "name", "looks"),
    [
        ((), SLOT, True), ((), PACK, False), ((True,), SLOT, False), ((False,), SLOT, True),
        ((True, False), SLOT, True), ((False,), PACK, False),
    ],
)  # fmt: skip
def test_who_looks_first(records: tuple[bool, ...], name: str, looks: bool) -> None:
    """Where a store may replace what is there, but for what has its content as its name."""
    trace = TraceBackend(MemoryBackend("careful"), record=True)
    for number, kept in enumerate(records):
        trace.put(f"{names.CAPABILITIES}{number:016x}", [CapabilitiesRecord(kept, True, True).encode()])
    CarefulBackend(trace).put_if_absent(name, [b"x"])
    assert any(call.method == "head" and call.name == name for call in trace.log) == looks
    assert trace.get(name) == b"x"
    trace.delete(name)
    for number in range(len(records)):
        trace.delete(f"{names.CAPABILITIES}{number:016x}")
