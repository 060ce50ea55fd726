"""Where each kind of object lies in a repository (docs/format/layout.md)."""

import re

from snapvault.format.wire import FormatError
from snapvault.foundation.ids import DomainId, HolderId, PackId, SessionId

CONFIG = "config"
KEYSETS, SLOTS, SESSIONS, PACKS, INDEX, SNAPSHOTS, NOTES = (
    "keyset/", "slots/", "sessions/", "packs/", "index/", "snapshots/", "notes/",
)  # fmt: skip
LOCAL = "local/"
CAPABILITIES, HEARTBEATS, GC, TOMBSTONES, VERIFIED = (
    LOCAL + "capabilities/", LOCAL + "heartbeats/", LOCAL + "gc/", LOCAL + "tombstones/", LOCAL + "verified/",
)  # fmt: skip
GC_PREFIX = "gc"  # of a GC's session id: the slots of GCs list alone

_SESSION = re.compile(r"(gc)?[0-9a-f]{32}")
_HEX64 = re.compile(r"[0-9a-f]{64}")


def keyset(number: int) -> str:
    return f"{KEYSETS}{number}"


def keyset_number(name: str) -> int:
    """The n of ``keyset/<n>``; FormatError."""
    text = name.removeprefix(KEYSETS)
    if not text.isascii() or not text.isdigit() or text != str(int(text)) or text == "0":
        raise FormatError(f"{name} is not the name of a keyset", affected=[name])
    return int(text)


def slot(holder: HolderId, random: bytes) -> str:
    return f"{SLOTS}{holder.hex()}/{random.hex()}"


def session(sid: SessionId) -> str:
    return SESSIONS + sid


def snapshot(sid: SessionId) -> str:
    return SNAPSHOTS + sid


def pack(digest: PackId) -> str:
    h = digest.hex()
    return f"{PACKS}{h[:2]}/{h}"


def index(digest: bytes) -> str:
    return INDEX + digest.hex()


def tombstone(sid: SessionId) -> str:
    return TOMBSTONES + sid


def heartbeat(sid: SessionId, number: int) -> str:
    return f"{HEARTBEATS}{sid}/{number}"


def session_id(name: str, prefix: str) -> SessionId:
    """The session id in a name such as ``snapshots/<sid>``; FormatError."""
    sid = name.removeprefix(prefix)
    if not _SESSION.fullmatch(sid):
        raise FormatError(f"{name} is not the name of a session's object", affected=[name])
    return SessionId(sid)


def is_session_id(text: str) -> bool:
    return _SESSION.fullmatch(text) is not None


def content_digest(name: str) -> bytes | None:
    """The BLAKE3 digest that a content-named object must have, or None for objects that end in their own digest."""
    last = name.rsplit("/", 1)[-1]
    if not _HEX64.fullmatch(last):
        return None
    if name == index(bytes.fromhex(last)) or name == pack(PackId(bytes.fromhex(last))) or name.startswith(NOTES):
        return bytes.fromhex(last)
    return None


def domain_text(domain: DomainId) -> str:
    """How messages name a domain."""
    return domain.hex()[:8]
