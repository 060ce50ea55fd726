"""rejected.json: bytes that a decoder must refuse; each names the error that it must meet, and why."""

import json
from collections.abc import Iterator
from typing import Any

from blake3 import blake3
from common import CONFIG_DIGEST, DOMAIN, GC_SID, SID, secret
from make_records import drill_results

from snapvault.format.local import (
    CapabilitiesRecord,
)
from snapvault.format.wire import Kind, frame, pack


def rejected() -> list[dict[str, str]]:
    rows = [(what, error, why, data) for what, error, why, data in (*_bad_frames(), *_bad_trees(), *_bad_records())]
    return [{"what": w, "error": e, "why": why, "bytes": d.hex()} for w, e, why, d in rows]


def _reframe(data: bytes) -> bytes:
    return data + blake3(data).digest()


def _bad_frames() -> Iterator[tuple[str, str, str, bytes]]:
    good = CapabilitiesRecord(True, True, True).encode()
    body = good[:-32]
    yield "capabilities", "FormatError", "empty", b""
    yield "capabilities", "FormatError", "cut short", good[:-1]
    yield "capabilities", "FormatError", "a byte appended", good + b"\0"
    yield "capabilities", "FormatError", "a bit flipped in the body", good[:9] + bytes((good[9] ^ 1,)) + good[10:]
    yield "capabilities", "FormatError", "another magic", _reframe(b"SNPW" + body[4:])
    yield "capabilities", "FormatError", "version 2", _reframe(body[:5] + b"\2" + body[6:])
    yield "capabilities", "FormatError", "a reserved byte is not zero", _reframe(body[:6] + b"\1" + body[7:])
    yield "capabilities", "FormatError", "another kind", frame(Kind.HEARTBEAT, [True, True, True])
    yield "capabilities", "FormatError", "an integer for a boolean", frame(Kind.CAPABILITIES, [1, 1, 1])
    yield "capabilities", "FormatError", "two values", _reframe(body + b"\xc0")
    yield "capabilities", "FormatError", "an extension type", _reframe(body[:8] + b"\xc7\0\5")


def _bad_trees() -> Iterator[tuple[str, str, str, bytes]]:
    def row(**changes: Any) -> list[Any]:
        fields: dict[str, Any] = {
            "name": b"a", "kind": 0, "mode": 0o644, "uid": 0, "gid": 0, "mtime": 0, "ctime": 0, "inode": 0, "size": 0,
            "content": b"",
        }  # fmt: skip
        return list({**fields, **changes}.values())

    for name in (b"", b".", b"..", b"a/b", b"/etc", b"nul\0", "text", 1):
        yield "tree", "FormatError", f"the name {name!r}", pack([1, {}, {}, [row(name=name)]])
    for why, changes in (
        ("kind 7", {"kind": 7}),
        ("mode with file type", {"mode": 0o100644}),
        ("a negative owner", {"uid": -1}),
        ("a negative size", {"size": -1}),
        ("a float for a time", {"mtime": 1.5}),
        ("true for a number", {"inode": True}),
        ("half an id", {"content": b"half"}),
        ("depth 9", {"content": [9, bytes(32)]}),
        ("content in a symlink", {"kind": 2, "content": bytes(32)}),
        ("a target with NUL", {"kind": 2, "extra": {1: b"a\0b"}}),
        ("a negative device", {"kind": 3, "extra": {2: -1}}),
        ("an empty attribute name", {"extra": {4: {b"": b""}}}),
        ("overlapping extents", {"size": 9, "extra": {5: _map(0, 5, 4, 2)}}),
        ("an extent past the end", {"size": 9, "extra": {5: _map(8, 2)}}),
        ("an empty extent", {"size": 9, "extra": {5: _map(8, 0)}}),
        ("half an extent", {"size": 9, "extra": {5: bytes(8)}}),
        ("a link of one number", {"extra": {3: [1]}}),
        ("a field too many", {"extra": {}, "more": 1}),
    ):
        yield "tree", "FormatError", why, pack([1, {}, {}, [row(**changes)]])
    yield "tree", "FormatError", "out of order", pack([1, {}, {}, [row(name=b"b"), row(name=b"a")]])
    yield "tree", "FormatError", "a name twice", pack([1, {}, {}, [row(), row()]])
    yield "tree", "FormatError", "version 2", pack([2, {}, {}, []])
    yield "tree", "FormatError", "owners by text", pack([1, {"0": "root"}, {}, []])


def _map(*numbers: int) -> bytes:
    return b"".join(n.to_bytes(8, "little") for n in numbers)


def _bad_records() -> Iterator[tuple[str, str, str, bytes]]:
    c = CONFIG_DIGEST
    yield "config", "FormatTooNew", "format 2", frame(1, {"name": "snapvault", "format": 2})
    yield "config", "FormatError", "another program's", frame(1, {"name": "other", "format": 1})
    yield "config", "FormatError", "without keys", frame(1, {"name": "snapvault", "format": 1})
    yield "keyset", "FormatTooNew", "an unknown feature", pack({"required": ["later"]})
    yield "keyset", "FormatError", "a list", pack([])
    for sid in ("../../file", "", "g" * 32, SID.upper(), SID + "0", "gc" + SID[2:]):
        yield "tombstone", "FormatError", f"the session id {sid!r}", pack([c, sid, bytes(32), 0, 0])
    yield "index", "FormatError", "a session id that leads elsewhere", pack([c, "../x", DOMAIN, [], bytes(32)])
    yield "gc", "FormatError", "half a pack id", pack([c, GC_SID, bytes(40)])
    head = [1, c, 1, DOMAIN, SID, "writer", b"", bytes(32)]
    for why, at, value in (
        ("suite 2", 0, 2),
        ("a short domain", 3, b"short"),
        ("a GC without its prefix", 5, "gc"),
        ("another purpose", 5, "x"),
        ("a GC's id for a writer", 4, GC_SID),
    ):
        yield "session", "FormatError", why, pack([pack([*head[:at], value, *head[at + 1 :]]), []])
    slot = [c, "commit", SID, b"", 1, [], 1, [0, 0, bytes(32)], [], [], bytes(32), b""]
    for why, at, value in (
        ("another kind", 1, "maybe"), ("a removed name that leads elsewhere", 8, ["packs/../config"]),
        ("the config as removed", 8, ["config"]), ("prevs without digests", 5, [SID]),
    ):  # fmt: skip
        yield "snapshot", "FormatError", why, pack([*slot[:at], value, *slot[at + 1 :]])
    rows = (
        (100).to_bytes(4, "little") + (50).to_bytes(4, "little") + (7).to_bytes(4, "little") + (1).to_bytes(4, "little")
    )
    columns = [rows, bytes(32), (7).to_bytes(4, "little"), b"\0"]
    for why, at, value in (
        ("a segment past the end", 0, b"\xff" * 4 + rows[4:]),
        ("a plaintext of another length", 2, bytes(4)),
        ("an unknown type", 3, b"\3"),
        ("half an id", 1, bytes(31)),
        ("no blob for a row", 3, b""),
        ("half a row", 0, rows[:9]),
        ("too large a plaintext", 2, b"\xff" * 4),
    ):
        yield "directory", "FormatError", why, pack([*columns[:at], value, *columns[at + 1 :]])
    chain = [c, 1, 1, 0, [], bytes(32), bytes(32)]
    for why, at, value in (("number 0", 2, 0), ("a short predecessor", 4, [bytes(31)]), ("no commitment", 5, None)):
        yield "chain", "FormatError", why, pack([*chain[:at], value, *chain[at + 1 :]])
    for why, schema, changes in (
        ("another schema", 2, {}), ("an outcome that there is not", 1, {"outcome": "maybe"}),
        ("a time without a zone", 1, {"began": "2026-11-24T10:00:00.000"}), ("no dataset", 1, {"dataset": None}),
        ("a snapshot without a time", 1, {"snapshot": {"id": SID}}), ("steps as a list", 1, {"steps": ["restored"]}),
    ):  # fmt: skip
        body = {"schema": schema, "results": [{**drill_results()[0], **changes}]}
        yield "evidence", "FormatError", why, json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    parameters = [secret("s", 16), 65536, 3, 4]
    yield "slot", "FormatError", "an unknown wrapping", frame(3, [c, bytes(16), "rot13", None, bytes(32), b""])
    yield (
        "slot",
        "FormatError",
        "parameters of no use",
        frame(3, [c, bytes(16), "key-file", parameters, bytes(32), b""]),
    )
    yield "slot", "FormatError", "no parameters", frame(3, [c, bytes(16), "argon2id", None, bytes(32), b""])
    yield (
        "signed",
        "FormatError",
        "nine signatures",
        frame(Kind.NOTE, [b"", [[bytes(16), "ed25519", bytes(64)]] * 9, b""]),
    )
