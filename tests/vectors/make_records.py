"""records.json: what a decoder must give for these bytes, and what an encoder must make of it."""

from array import array
from collections.abc import Iterator
from typing import Any

from common import CONFIG_DIGEST, DOMAIN, GC_SID, NS, SID, plain, secret

from snapvault.format import names
from snapvault.format.attestation import HASHED, AttestationRecord
from snapvault.format.chain import ChainRecord
from snapvault.format.config import ConfigRecord
from snapvault.format.evidence import encode_evidence
from snapvault.format.index import IndexRecord, encode_table
from snapvault.format.keyset import CertificateRecord, Domain, Epoch, Holder, KeysetRecord, Revocation, Role
from snapvault.format.local import (
    CapabilitiesRecord,
    GcRecord,
    NoteDetails,
    NoteRecord,
    PromotionRecord,
    ReplicaRecord,
    TombstoneRecord,
    VerifiedRecord,
    encode_heartbeat,
)
from snapvault.format.pack import Segment, encode_directory
from snapvault.format.register import RegisterRecord, RetiredRow
from snapvault.format.session import READ, RECOVERY, SessionHead, SessionRecord, Stanza
from snapvault.format.signed import Signature, Signed, encode_signed
from snapvault.format.slot import PasswordParameters, SlotRecord
from snapvault.format.snapshot import COMMIT, GC_DONE, SnapshotDetails, SnapshotRecord, merkle
from snapvault.format.tree import Content, Node, NodeKind, encode_tree
from snapvault.format.wire import Kind
from snapvault.foundation.ids import HolderId, PackId, SessionId


def records() -> list[dict[str, Any]]:
    """What a decoder must give for these bytes, and what an encoder must make of it."""
    return [{"what": what, "fields": plain(record), "bytes": data.hex()} for what, record, data in _records()]


def _records() -> Iterator[tuple[str, Any, bytes]]:
    for what, record in (
        ("config", ConfigRecord(secret("id"), secret("owner hpke", 1216), secret("owner sign"))),
        ("slot", _slot("argon2id")),
        ("slot", _slot("key-file")),
        ("slot", _slot("recovery")),
        ("keyset", _keyset()),
        ("certificate", _certificate()),
        ("session", _session(SID, "writer")),
        ("session", _session(GC_SID, "gc")),
        ("snapshot", _snapshot(SID, COMMIT)),
        ("snapshot", _snapshot(GC_SID, GC_DONE)),
        ("snapshot details", _details()),
        ("index", _index()),
        ("tombstone", TombstoneRecord(CONFIG_DIGEST, SID, secret("slot"), NS, NS + 86_400 * 10**9)),
        ("gc", GcRecord(CONFIG_DIGEST, GC_SID, (_pack("a"), _pack("b")))),
        ("verified", VerifiedRecord(CONFIG_DIGEST, "data", NS, (_pack("a"),))),
        ("replica", ReplicaRecord(CONFIG_DIGEST, NS, (GC_SID,))),
        ("promotion", PromotionRecord(CONFIG_DIGEST, NS)),
        ("attestation", _attestation()),
        ("chain", _chain()),
        ("register", _register()),
        ("capabilities", CapabilitiesRecord(True, True, False)),
        ("note", NoteRecord(CONFIG_DIGEST, SID, NS, (secret("older note"),), secret("sealed"))),
        ("note details", NoteDetails(("kept", "2026"), True, (b"/srv/lost\xff",))),
        ("note details", NoteDetails()),
        (
            "signed",
            Signed(b"payload", (Signature(HolderId(secret("holder", 16)), "ed25519", secret("sig", 64)),), b"s"),
        ),
    ):
        yield what, record, encode(what, record)
    yield "heartbeat", [SID, 7], encode_heartbeat(SID, 7)
    yield "evidence", drill_results(), encode_evidence(drill_results())
    yield "evidence", [], encode_evidence([])
    yield "directory", _segments(), encode_directory(_segments())
    yield "index table", [_segments(), []], encode_table([_segments(), []])
    users, groups = {0: "root", 1000: "ada"}, {0: "root"}
    yield "tree", {"nodes": _nodes(), "users": users, "groups": groups}, encode_tree(_nodes(), users, groups)
    yield "tree", {"nodes": [], "users": {}, "groups": {}}, encode_tree([], {}, {})


def encode(what: str, record: Any) -> bytes:
    """The bytes of a record: of the whole object where there is nothing to sign, else of the payload."""
    if what == "signed":
        return encode_signed(Kind.NOTE, record)
    return bytes(record.encode())


def _pack(label: str) -> PackId:
    return PackId(secret(f"pack {label}"))


def _slot(wrapping: str) -> SlotRecord:
    parameters = PasswordParameters(secret("salt", 16), 64 << 10, 3, 4) if wrapping == "argon2id" else None
    holder = HolderId(secret("holder", 16))
    return SlotRecord(CONFIG_DIGEST, holder, wrapping, parameters, secret("commitment"), secret("sealed", 124))


def _keyset() -> KeysetRecord:
    owner = HolderId(secret("owner", 16))
    return KeysetRecord(
        CONFIG_DIGEST, 2, secret("keyset 1"), (), (16 << 10, 64 << 10, 256 << 10), 1 << 20, 32 << 20,
        (Holder(owner, Role.OWNER, "owner", secret("oh", 1216), secret("os"), (DOMAIN,), b"certificate"),),
        (Epoch(1, secret("read", 1216), secret("recovery", 1216), ((owner, secret("sealed seed", 1168)),)),),
        (Domain(DOMAIN, "owner", ((owner, secret("sealed domain", 1168)),)),),
        (Revocation(HolderId(secret("gone", 16)), "old laptop", Role.WRITER, secret("gs"), (SID,)),),
        (("RESCUE-1.md", secret("md")), ("rescue-1.py", secret("py"))),
    )  # fmt: skip


def _attestation() -> AttestationRecord:
    objects = merkle([("packs/aa", 3), ("index/bb", 4)])
    return AttestationRecord(CONFIG_DIGEST, "second", HASHED, NS, objects, (SID,), 1, ("packs/cc",), secret("before"))


def _chain() -> ChainRecord:
    prevs = (secret("one end"), secret("other end"))
    return ChainRecord(CONFIG_DIGEST, 1, 3, NS, prevs, secret("commitment"), secret("sealed"))


def _register() -> RegisterRecord:
    orders = {"source": "/srv/orders", "group": "office", "tier": 1, "drill": {"every": "30d"}, "probe": {"kind": "x"}}
    declared = {
        "schema": 1, "defaults": {"rpo": "24h"}, "groups": {"office": {"sites": ["second"]}},
        "datasets": {"orders": orders},
    }  # fmt: skip
    return RegisterRecord(declared, (RetiredRow("old", "moved away", "owner", NS),))


def drill_results() -> list[dict[str, Any]]:
    """Two results, of a drill that found old data and of one that could not be held."""
    passed = {"outcome": "pass", "why": ""}
    old = {"outcome": "fail", "why": "the newest snapshot is 3 days old, and may be 24 h (RPO)"}
    control = {
        **passed, "path": "/srv/\u00fc", "store": [{"object": names.pack(_pack("a")), "offset": 4097}],
        "caught_by": "restore", "disk_offset": 17, "disk_caught_by": "compare",
    }  # fmt: skip
    result = {
        "dataset": "orders", "owner": "Ada", "tier": "1", "site": "second", "place": "s3://bucket/repo", "host": "h",
        "level": "sample", "began": "2026-11-24T10:00:00.000Z", "ended": "2026-11-24T10:00:01.500Z", **old,
        "steps": {"restored": passed, "compared": passed, "control": passed, "freshness": old},
        "snapshot": {"id": SID, "time": "2026-11-21T10:00:00.000Z", "host": "h", "holder": "client", "partial": False},
        "files": 3, "bytes": 12345, "blobs": 0, "lost": 0, "seed": "seed", "sample": {"part": 2, "parts": 10},
        "times": {"open": 20, "restore": 900, "compare": 80, "control": 12, "total": 1500}, "recovery": 920,
        "age": 259200, "rpo": 86400, "rto": None, "control": control, "probe": None, "problems": [],
        "versions": {"snapvault": "0.1", "python": "3.11", "system": "Linux"},
    }  # fmt: skip
    return [result, {**result, "snapshot": None, "site": "", "outcome": "not-run", "control": None, "recovery": None}]


def _certificate() -> CertificateRecord:
    return CertificateRecord(CONFIG_DIGEST, HolderId(secret("holder", 16)), Role.WRITER, secret("sign"), (DOMAIN,))


def _session(sid: SessionId, purpose: str) -> SessionRecord:
    head = SessionHead(CONFIG_DIGEST, 2, DOMAIN, sid, purpose, b"certificate", secret("commitment"))
    stanzas = (Stanza(READ, 1, secret("r", 1200)), Stanza(RECOVERY, 1, secret("v", 1200)))
    return SessionRecord(head, head.encode(), stanzas)


def _snapshot(sid: SessionId, kind: str) -> SnapshotRecord:
    name = names.pack(_pack("a"))
    removed, put = ((name,), (names.index(secret("index")),)) if kind == GC_DONE else ((), ())
    prevs = () if kind == GC_DONE else ((SessionId("0" * 32), secret("previous")),)
    return SnapshotRecord(
        CONFIG_DIGEST, kind, sid, b"certificate", 5, prevs, 2, merkle([(name, 70_000)]), removed, put, secret("sealed"),
        b"" if kind == GC_DONE else b"session header",
    )  # fmt: skip


def _details() -> SnapshotDetails:
    return SnapshotDetails(
        "orders",
        "web-1",
        Content(1, secret("list")),
        (b"/srv/orders", b"/etc/\xff"),
        NS,
        NS + 5 * 10**9,
        ("daily",),
        True,
        "root",
        "snapvault 0.1",
        {"files": 3, "bytes": 70_000},
        "",
    )


def _index() -> IndexRecord:
    packs = ((_pack("a"), 70_000, SID), (_pack("b"), 4096, SessionId("1" * 32)))
    return IndexRecord(CONFIG_DIGEST, SID, DOMAIN, packs, secret("sealed"))


def _segments() -> list[Segment]:
    first = Segment(3200, 900, 30, secret("ids", 64), array("I", (10, 20)), bytes((0, 0)))
    return [first, Segment(4100, 300, 700, secret("tree id"), array("I", (700,)), bytes((1,)))]


def _nodes() -> list[Node]:
    data, extents = secret("chunks", 64), ((0, 4096), (8192, 1))
    acl = {b"system.posix_acl_access": secret("acl", 44), b"user.\xff": b""}
    return [
        Node(b"block", NodeKind.BLOCK, 0o660, 0, 6, 0, 1, 2, device=(259 << 8) | 1),
        Node(b"character", NodeKind.CHARACTER, 0o666, 0, 0, -1, 1, 3, device=(1 << 8) | 3),
        Node(b"empty", NodeKind.FILE, 0o644, 1000, 100, NS, NS, 4),
        Node(b"fifo", NodeKind.FIFO, 0o600, 0, 0, NS, NS, 5),
        Node(
            b"file",
            NodeKind.FILE,
            0o4755,
            1000,
            0,
            NS,
            NS,
            6,
            70_000,
            Content(0, data),
            xattrs=acl,
            racy=True,
            incomplete=True,
        ),
        Node(b"folder", NodeKind.DIRECTORY, 0o1777, 0, 0, NS, NS, 7, content=Content(0, secret("piece"))),
        Node(b"huge", NodeKind.FILE, 0o400, 0, 0, NS, NS, 8, 1 << 40, Content(2, data), changed=True),
        Node(b"linked", NodeKind.FILE, 0o644, 0, 0, NS, NS, 9, 5, Content(0, data[:32]), link=(2049, 9)),
        Node(b"new\nline \xff", NodeKind.SYMLINK, 0o777, 0, 0, NS, NS, 10, target=b"../elsewhere\xff"),
        Node(b"socket", NodeKind.SOCKET, 0o755, 0, 0, NS, NS, 11),
        Node(b"sparse", NodeKind.FILE, 0o644, 0, 0, NS, NS, 12, 1 << 20, Content(0, data), extents=extents),
    ]
