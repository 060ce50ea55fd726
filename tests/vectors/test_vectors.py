"""The vectors of the format, in both directions: what is stored today must be readable for ever."""

import json
import os
import shutil
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import snapvault
from snapvault import KeyFile
from snapvault.compression import decompress
from snapvault.crypto.envelope import padme, seal, unseal
from snapvault.crypto.hpke import HpkePrivateKey
from snapvault.crypto.kdf import context_digest, derive
from snapvault.crypto.password import Argon2Parameters, password_key
from snapvault.crypto.recovery import RecoveryKey, decode_recovery_key
from snapvault.crypto.signing import SigningKey, verify
from snapvault.format.attestation import decode_attestation
from snapvault.format.chain import decode_chain
from snapvault.format.config import decode_config
from snapvault.format.evidence import decode_evidence, encode_evidence
from snapvault.format.index import decode_index, decode_table, encode_table
from snapvault.format.keyset import decode_certificate, decode_keyset
from snapvault.format.local import (
    decode_capabilities,
    decode_gc,
    decode_note,
    decode_note_details,
    decode_promotion,
    decode_replica,
    decode_tombstone,
    decode_verified,
    encode_heartbeat,
)
from snapvault.format.pack import decode_directory, encode_directory
from snapvault.format.register import decode_register
from snapvault.format.session import decode_session
from snapvault.format.signed import decode_signed, encode_signed
from snapvault.format.slot import decode_slot
from snapvault.format.snapshot import decode_details, decode_snapshot, merkle
from snapvault.format.tree import decode_tree, encode_tree
from snapvault.format.wire import FormatError, Kind, unframe
from snapvault.foundation.errors import FormatTooNew
from snapvault.foundation.ids import DomainId
from snapvault.repository.credentials import ClientKey, parse_key
from snapvault.repository.keyring import DomainKeys, HolderKeys, recovery_key_pair
from snapvault.repository.packs import session_context
from snapvault.repository.sessions import secret_commitment

HERE = Path(__file__).parent
CRYPTO = json.loads((HERE / "crypto.json").read_text())
RECORDS = json.loads((HERE / "records.json").read_text())
REJECTED = json.loads((HERE / "rejected.json").read_text())
PACK_SIZE = 70_000  # of the pack that the directories and tables describe

unhex = bytes.fromhex


def plain(value: Any) -> Any:
    """A record as the vectors write it."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if hasattr(value, "__dataclass_fields__"):
        return {k: plain(getattr(value, k)) for k in value.__dataclass_fields__}
    if hasattr(value, "_asdict"):
        return {k: plain(v) for k, v in value._asdict().items()}
    if isinstance(value, dict):
        return {str(plain(k)): plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list | array):
        return [plain(v) for v in value]
    return value


def _decode_index_table(data: bytes) -> Any:
    """The vector describes the two packs of the index record that stands before it."""
    record = decode_index(unhex(next(r["bytes"] for r in RECORDS if r["what"] == "index")))
    return decode_table(data, record)


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "config": decode_config, "slot": decode_slot, "keyset": decode_keyset, "certificate": decode_certificate,
    "session": decode_session, "snapshot": decode_snapshot, "snapshot details": decode_details, "index": decode_index,
    "tombstone": decode_tombstone, "gc": decode_gc, "verified": decode_verified, "capabilities": decode_capabilities,
    "replica": decode_replica, "promotion": decode_promotion, "attestation": decode_attestation, "chain": decode_chain,
    "register": decode_register, "evidence": lambda d: [json.loads(text) for _, text in decode_evidence(d)],
    "note": decode_note, "note details": decode_note_details, "signed": lambda d: decode_signed(Kind.NOTE, d),
    "heartbeat": lambda d: unframe(Kind.HEARTBEAT, d), "directory": lambda d: decode_directory(d, PACK_SIZE),
    "index table": _decode_index_table, "tree": decode_tree,
}  # fmt: skip

ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "signed": lambda r: encode_signed(Kind.NOTE, r),
    "heartbeat": lambda r: encode_heartbeat(*r),
    "evidence": encode_evidence,
    "directory": encode_directory,
    "index table": encode_table,
    "tree": lambda r: encode_tree(r.nodes, r.users, r.groups),
}


@pytest.mark.parametrize("vector", RECORDS, ids=lambda v: v["what"])
def test_records_in_both_directions(vector: dict[str, Any]) -> None:
    what, data = vector["what"], unhex(vector["bytes"])
    record = DECODERS[what](data)
    assert plain(record) == vector["fields"]
    assert ENCODERS.get(what, lambda r: r.encode())(record) == data


def test_every_kind_has_a_vector() -> None:
    assert {v["what"] for v in RECORDS} == set(DECODERS)


@pytest.mark.parametrize("vector", REJECTED, ids=lambda v: f"{v['what']}: {v['why']}")
def test_what_must_be_refused(vector: dict[str, str]) -> None:
    error = {"FormatError": FormatError, "FormatTooNew": FormatTooNew}[vector["error"]]
    with pytest.raises(error) as caught:
        DECODERS[vector["what"]](unhex(vector["bytes"]))
    assert caught.type is error


@pytest.mark.parametrize("v", CRYPTO["derive"], ids=lambda v: v["purpose"])
def test_derivations(v: dict[str, Any]) -> None:
    found = derive(unhex(v["secret"]), v["purpose"], unhex(v["context"]), salt=unhex(v["salt"]), length=v["length"])
    assert found.hex() == v["derived"]


@pytest.mark.parametrize("v", CRYPTO["context digest"], ids=lambda v: v["digest"][:8])
def test_context_digests(v: dict[str, Any]) -> None:
    assert context_digest(*map(unhex, v["parts"])).hex() == v["digest"]


@pytest.mark.parametrize("v", CRYPTO["envelope"], ids=lambda v: v["sealed"][-8:])
def test_envelopes(v: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    secret, context, raw = unhex(v["secret"]), unhex(v["context"]), unhex(v["raw"])
    opened = unseal(secret, v["purpose"], context, unhex(v["sealed"]))
    assert (opened.codec, opened.raw_length, opened.data.hex()) == (v["codec"], len(raw), v["data"])
    assert decompress(opened.codec, opened.data, opened.raw_length) == raw
    monkeypatch.setattr(os, "urandom", lambda n: unhex(v["salt"])[:n])
    sealed = seal(secret, v["purpose"], context, v["codec"], len(raw), unhex(v["data"]), v["padding"])
    assert bytes(sealed).hex() == v["sealed"]


@pytest.mark.parametrize(("length", "floor", "padded"), CRYPTO["padme"])
def test_padded_lengths(length: int, floor: int, padded: int) -> None:
    assert padme(length, floor) == padded


@pytest.mark.parametrize("v", CRYPTO["hpke"], ids=lambda v: v["what"])
def test_hpke(v: dict[str, str]) -> None:
    key = HpkePrivateKey(unhex(v["seed"]))
    assert key.public.hex() == v["public"]
    assert derive(unhex(v["seed"]), "hpke ml-kem-768", length=64).hex() == v["ml-kem seed"]
    assert derive(unhex(v["seed"]), "hpke x25519").hex() == v["x25519 private"]
    assert key.open(unhex(v["sealed"]), unhex(v["info"])).hex() == v["plaintext"]


@pytest.mark.parametrize("v", CRYPTO["signature"], ids=lambda v: v["label"])
def test_signatures(v: dict[str, str]) -> None:
    key = SigningKey(unhex(v["seed"]))
    assert key.public.hex() == v["public"]
    assert key.sign(v["label"], unhex(v["payload"])).hex() == v["signature"]
    assert verify(key.public, v["label"], unhex(v["payload"]), unhex(v["signature"]))


@pytest.mark.parametrize("v", CRYPTO["password"], ids=lambda v: v["utf-8 as typed"])
def test_passwords(v: dict[str, Any]) -> None:
    password = unhex(v["utf-8 as typed"]).decode()
    key = password_key(password, Argon2Parameters(unhex(v["salt"]), v["memory"], v["passes"], v["lanes"]))
    assert key.hex() == v["key"]


def test_one_password_typed_in_two_ways_is_one_key() -> None:
    composed, decomposed = CRYPTO["password"][2:]
    assert composed["utf-8 as typed"] != decomposed["utf-8 as typed"] and composed["key"] == decomposed["key"]


@pytest.mark.parametrize("v", CRYPTO["recovery"], ids=lambda v: v["seed"][:8])
def test_recovery_keys(v: dict[str, str]) -> None:
    key = RecoveryKey(unhex(v["seed"]), unhex(v["config digest"]))
    assert key.encode() == v["text"] and decode_recovery_key(v["text"]) == key
    assert recovery_key_pair(key.seed, key.config_digest).public.hex() == v["hpke public"]


def test_client_key_file() -> None:
    v = CRYPTO["client key"]
    key = parse_key(v["text"].encode())
    assert isinstance(key, ClientKey)
    assert plain(key) == {k: v[k] for k in plain(key)} and key.encode().decode() == v["text"]


def test_secrets_of_sessions_domains_and_holders() -> None:
    v = CRYPTO["session"]
    context = session_context(unhex(v["config digest"]), v["sid"])
    assert context.hex() == v["context"] and secret_commitment(unhex(v["secret"]), context).hex() == v["commitment"]
    v = CRYPTO["domain"]
    keys = DomainKeys(DomainId(unhex(v["domain"])), unhex(v["secret"]), unhex(v["config digest"]))
    assert [keys.blob_id(t, unhex(v["data"])).hex() for t in (0, 1, 2)] == v["ids"]
    assert (keys.chunk_key.hex(), keys.index_key.hex()) == (v["chunk key"], v["index key"])
    v = CRYPTO["holder"]
    holder = HolderKeys(unhex(v["hpke seed"]), unhex(v["sign seed"]))
    found = holder.id.hex(), holder.hpke.public.hex(), holder.signer.public.hex()
    assert found == (v["id"], v["hpke public"], v["sign public"])


@pytest.mark.parametrize("v", CRYPTO["merkle"], ids=lambda v: str(v["count"]))
def test_merkle_roots(v: dict[str, Any]) -> None:
    objects = merkle([(name, size) for name, size in reversed(v["objects"])])  # the order does not matter
    assert (objects.count, objects.size, objects.root.hex()) == (v["count"], v["size"], v["root"])


# ---- a whole repository ----------------------------------------------------------------------------------------------

REPOSITORY = json.loads((HERE / "repository.json").read_text())


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    for name, data in REPOSITORY["objects"].items():
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(unhex(data))
    (tmp_path / "recovery").write_text(REPOSITORY["recovery key"])
    (tmp_path / "reader.json").write_text(REPOSITORY["reader"])
    return tmp_path


@pytest.mark.parametrize("how", ["password", "recovery", "reader.json", "bare"])
def test_a_repository_of_this_format_is_read(stored: Path, how: str) -> None:
    keys = {} if how == "password" else {"keys": KeyFile(stored / ("recovery" if how == "bare" else how))}
    if how == "bare":
        for folder in ("keyset", "slots", "index", "local"):
            shutil.rmtree(stored / "repo" / folder)
    with snapvault.open(str(stored / "repo"), password=REPOSITORY["password"], **keys) as repo:
        datasets = ["first", "second", "third"] if how == "bare" else ["first", "second"]  # the tombstone is local
        assert [s.dataset for s in repo.snapshots()] == datasets
        assert len(list(repo.snapshot("first@latest").ls("/", recursive=True))) == len(REPOSITORY["second"]) - 1
        snapshot = repo.snapshot("second@latest")
        assert snapshot.tags == ("kept",) and snapshot.host == "web-1"
        found = list(snapshot.ls("/", recursive=True))
        for entry, expected in zip(found, REPOSITORY["second"], strict=True):
            node = entry.node
            assert os.fsencode(entry.path).hex() == expected["path"]
            assert (node.kind, node.mode, node.size) == (expected["kind"], expected["mode"], expected["size"])
            assert node.mtime_ns == expected["mtime"] or expected["mtime"] is None
            assert node.target.hex() == expected["target"] and plain(node.xattrs or {}) == expected["xattrs"]
            if expected.get("content"):
                with snapshot.open(entry.path) as f:
                    assert f.read().hex() == expected["content"]


def test_the_rescue_program_reads_it_too(stored: Path) -> None:
    script = Path(snapvault.__file__).parent / "rescue" / "rescue-1.py"
    argv = [sys.executable, "-I", str(script), str(stored / "repo"), "second@latest", str(stored / "out"), "--key-file"]
    done = subprocess.run([*argv, str(stored / "recovery")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for expected in REPOSITORY["second"]:
        path = os.fsencode(stored / "out") + unhex(expected["path"])
        st = os.lstat(path)
        assert expected["kind"] == 1 or st.st_mtime_ns == expected["mtime"]
        assert expected["kind"] == 2 or st.st_mode & 0o7777 == expected["mode"]
        if expected.get("content"):
            assert Path(os.fsdecode(path)).read_bytes().hex() == expected["content"]
