"""What the makers of vectors share."""

from array import array
from dataclasses import is_dataclass
from typing import Any

from blake3 import blake3

from snapvault.foundation.ids import DomainId, SessionId

NS = 1_790_000_000_123_456_789  # a time in nanoseconds


def secret(label: str, size: int = 32) -> bytes:
    """Fixed bytes that look random."""
    return blake3(label.encode()).digest(length=size)


CONFIG_DIGEST = secret("config digest")
DOMAIN, SID, GC_SID = DomainId(secret("domain", 16)), SessionId(secret("sid", 16).hex()), SessionId("gc" + "7" * 32)


def plain(value: Any) -> Any:
    """A record as JSON: bytes in hex, records as objects by their field names."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if is_dataclass(value) and not isinstance(value, type):
        return {k: plain(getattr(value, k)) for k in value.__dataclass_fields__}
    if hasattr(value, "_asdict"):
        return {k: plain(v) for k, v in value._asdict().items()}
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list | array):
        return [plain(v) for v in value]
    return value
