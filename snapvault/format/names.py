"""Where each kind of object lies in a repository (docs/format/README.md)."""

import re

from snapvault.format.wire import FormatError, typed
from snapvault.foundation.ids import HolderId, PackId, SessionId

CONFIG = "config"
KEYSETS, SLOTS, SESSIONS, PACKS, INDEX, SNAPSHOTS, NOTES = (
    "keyset/", "slots/", "sessions/", "packs/", "index/", "snapshots/", "notes/",
)  # fmt: skip
LOCAL = "local/"
CAPABILITIES, HEARTBEATS, GC, TOMBSTONES, VERIFIED, DAMAGED, REPLICA = (
    LOCAL + "capabilities/", LOCAL + "heartbeats/", LOCAL + "gc/", LOCAL + "tombstones/", LOCAL + "verified/",
    LOCAL + "damaged/", LOCAL + "replica/",
)  # fmt: skip
REPLICA_MARK, PROMOTED_MARK = REPLICA + "mark", REPLICA + "promoted"
ATTESTATIONS, EVIDENCE, REGISTER = "attestations/", "evidence/", "register/"
RESCUE = ("RESCUE-", "rescue-")  # the files without a frame begin so
GC_PREFIX = "gc"  # of a GC's session id: the slots of GCs list alone

_SESSION = re.compile(r"(gc)?[0-9a-f]{32}")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def keyset(number: int) -> str:
    return f"{KEYSETS}{number}"


def keyset_number(name: str) -> int:
    """The n of ``keyset/<n>``; FormatError."""
    text = name.removeprefix(KEYSETS)
    if not _NUMBER.fullmatch(text):
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


def note_prefix(sid: SessionId) -> str:
    return f"{NOTES}{sid}/"


def note(sid: SessionId, digest: bytes) -> str:
    return note_prefix(sid) + digest.hex()


def tombstone(sid: SessionId) -> str:
    return TOMBSTONES + sid


def attestations_of(holder: HolderId) -> str:
    return f"{ATTESTATIONS}{holder.hex()}/"


def attestation(holder: HolderId, time: int, random: bytes) -> str:
    """``time``: nanoseconds, UTC; the names of one holder are in the order of their times."""
    return f"{attestations_of(holder)}{time:020d}-{random.hex()}"


def heartbeat_prefix(sid: SessionId) -> str:
    return f"{HEARTBEATS}{sid}/"


def heartbeat(sid: SessionId, number: int) -> str:
    return f"{heartbeat_prefix(sid)}{number}"


def session_id(name: str, prefix: str) -> SessionId:
    """The session id in a name such as ``snapshots/<sid>``; FormatError."""
    sid = name.removeprefix(prefix)
    if not _SESSION.fullmatch(sid):
        raise FormatError(f"{name} is not the name of a session's object", affected=[name])
    return SessionId(sid)


def is_session_id(text: str) -> bool:
    return _SESSION.fullmatch(text) is not None


def checked_session_id(value: object) -> SessionId:
    """A session id as a record states it; FormatError.

    Records are parsed before it is known who signed them, and these ids become names of objects and of files in the
    cache: anything else than hex digits could lead out of both.
    """
    text = typed(value, str, "session")
    if not is_session_id(text):
        raise FormatError("a record names a session by an id that none can have")
    return SessionId(text)


def checked_content_name(value: object) -> str:
    """The name of a content-named object as a record states it; FormatError."""
    name = typed(value, str, "name")
    if content_digest(name) is None:
        raise FormatError("a record names an object that is not named by its content")
    return name


def content_digest(name: str) -> bytes | None:
    """The BLAKE3 digest that a content-named object must have, or None for objects that end in their own digest."""
    last = name.rsplit("/", 1)[-1]
    if not _HEX64.fullmatch(last):
        return None
    digest = bytes.fromhex(last)
    if name in (index(digest), pack(PackId(digest))) or name.startswith((NOTES, EVIDENCE, REGISTER)):
        return digest
    return None
