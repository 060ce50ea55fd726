"""Whatever bytes a store gives: a decoder gives a record or raises a typed error, in bounded memory (battery 11).

A failure names the seed; ``SEED=n pytest tests/format/test_hostile.py`` repeats it.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from blake3 import blake3

from snapvault.assurance.declaration import declare
from snapvault.compression import decompress
from snapvault.crypto.envelope import seal, unseal
from snapvault.crypto.hpke import HpkePrivateKey
from snapvault.crypto.kdf import context_digest
from snapvault.crypto.recovery import decode_recovery_key
from snapvault.format import names
from snapvault.format.chain import decode_chain
from snapvault.format.config import decode_config
from snapvault.format.evidence import decode_evidence
from snapvault.format.index import IndexRecord, decode_index, decode_table
from snapvault.format.keyset import decode_certificate, decode_keyset
from snapvault.format.local import (
    decode_capabilities,
    decode_gc,
    decode_note,
    decode_note_details,
    decode_tombstone,
    decode_verified,
)
from snapvault.format.pack import decode_directory
from snapvault.format.register import decode_register
from snapvault.format.session import decode_session
from snapvault.format.signed import decode_signed
from snapvault.format.slot import decode_slot
from snapvault.format.snapshot import decode_details, decode_snapshot
from snapvault.format.tree import decode_tree
from snapvault.format.wire import FormatError, Kind, check_frame, pack, unframe
from snapvault.foundation.errors import SnapvaultError
from snapvault.foundation.ids import DomainId, HolderId, PackId, SessionId
from snapvault.repository.credentials import ClientKey, parse_key
from snapvault.repository.packs import SessionSecrets, open_directory, parse_header

ROUNDS, LONG_ROUNDS = 2500, 1_000_000  # a decoder
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(1 << 32)))
VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "records.json").read_text())

SECRETS = SessionSecrets(SessionId("0" * 32), DomainId(bytes(16)), bytes(32), context_digest(b"context"))
PACKS = ((PackId(bytes(32)), 70_000, SessionId("0" * 32)), (PackId(b"\1" * 32), 70_000, SessionId("0" * 32)))
TABLE_OF = IndexRecord(bytes(32), SessionId("0" * 32), DomainId(bytes(16)), PACKS, bytes(32))
HPKE = HpkePrivateKey(bytes(32))


def envelope(data: bytes, codec: int = 1, raw_length: int | None = None) -> bytes:
    """Sealed by a hostile writer, who has a good key."""
    length = len(data) if raw_length is None else raw_length
    return bytes(seal(SECRETS.secret, "segment", SECRETS.context, codec, length, data))


def open_envelope(data: bytes) -> object:
    opened = unseal(SECRETS.secret, "segment", SECRETS.context, data)
    return decompress(opened.codec, opened.data, opened.raw_length)


def pack_of(directory: bytes, start: int, length: int) -> bytes:
    place = start.to_bytes(8, "little") + length.to_bytes(4, "little") + bytes(4)
    sealed = bytes(seal(SECRETS.secret, "directory", SECRETS.context, 0, len(directory), directory))
    return sealed + bytes(seal(SECRETS.secret, "trailer", SECRETS.context, 0, len(place), place))


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "config": decode_config,
    "slot": decode_slot,
    "keyset": decode_keyset,
    "certificate": decode_certificate,
    "session": decode_session,
    "snapshot": decode_snapshot,
    "snapshot details": decode_details,
    "index": decode_index,
    "index table": lambda data: decode_table(data, TABLE_OF),
    "directory": lambda data: decode_directory(data, 70_000),
    "tree": decode_tree,
    "tombstone": decode_tombstone,
    "gc": decode_gc,
    "verified": decode_verified,
    "capabilities": decode_capabilities,
    "heartbeat": lambda data: unframe(Kind.HEARTBEAT, data),
    "note": decode_note,
    "note details": decode_note_details,
    "chain": decode_chain,
    "register": lambda data: declare(decode_register(data).declared, "register"),
    "evidence": decode_evidence,
    "signed": lambda data: decode_signed(Kind.NOTE, data),
    "frame": check_frame,
    "pack header": parse_header,
    "pack": lambda data: open_directory(SECRETS, data),
    "directory of a hostile writer": lambda data: open_directory(SECRETS, pack_of(data, 0, len(data) + 60)),
    "envelope": open_envelope,
    "zstd of a hostile writer": lambda data: open_envelope(envelope(data, raw_length=len(data) * 3)),
    "hpke": lambda data: HPKE.open(data, b""),
    "key file": parse_key,
    "recovery key": lambda data: decode_recovery_key(data.decode("latin-1")),
    "keyset name": lambda data: names.keyset_number("keyset/" + data.decode("latin-1")),
    "session name": lambda data: names.session_id("sessions/" + data.decode("latin-1"), "sessions/"),
    "content name": lambda data: names.checked_content_name(data.decode("latin-1")),
}


def seeds(what: str) -> list[bytes]:
    """Valid bytes to begin with."""
    found = [bytes.fromhex(v["bytes"]) for v in VECTORS if v["what"] == what]
    directory = next(bytes.fromhex(v["bytes"]) for v in VECTORS if v["what"] == "directory")
    others = {
        "frame": [bytes.fromhex(v["bytes"]) for v in VECTORS if v["what"] in ("config", "heartbeat")],
        "pack": [pack_of(directory, 0, len(directory) + 60)],
        "pack header": [b"SVPK\x01\0\0\0" + (90).to_bytes(4, "little") + bytes(100)],
        "directory of a hostile writer": [directory],
        "envelope": [envelope(b"")],
        "key file": [ClientKey(bytes(32), bytes(32), HolderId(bytes(16)), "n", 1).encode()],
        "keyset name": [b"17"],
        "session name": [b"0" * 32, b"gc" + b"0" * 32],
        "content name": [b"packs/00/" + b"0" * 64, b"index/" + b"a" * 64],
        "recovery key": [b"0" * 109],
    }  # fmt: skip
    return found or others.get(what, [b""])


# ---- mutation --------------------------------------------------------------------------------------------------------

INTERESTING: list[Any] = [
    None, True, False, 0, 1, -1, 255, 256, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), 1.5,
    float("nan"), "", "x", "a\0b", "../../x", "packs/../x",
    "\ud83d\ude00", b"", b"\0", b"..", b"/", bytes(15), bytes(16),
    bytes(31), bytes(32), bytes(33), b"\xff" * 32, bytes(64), bytes(1216), [], {}, [[]], [None] * 20,
    {1: 2}, {"a": []}, [b""], {b"": b""},
    msgpack.ExtType(5, b"x"), msgpack.Timestamp(1),
]  # fmt: skip


def mutated_value(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """The same with one part replaced, left out, doubled or swapped."""
    if isinstance(value, list | dict) and value and rng.random() < 0.9:
        if isinstance(value, dict):
            key = rng.choice(list(value))
            changed = dict(value)
            if rng.random() < 0.2:
                changed.pop(key)
            elif rng.random() < 0.2:
                changed[rng.choice([0, 1, "x", b"", 1 << 40, None])] = changed.pop(key)
            else:
                changed[key] = mutated_value(value[key], rng, depth + 1)
            return changed
        at = rng.randrange(len(value))
        how = rng.random()
        if how < 0.1:
            return value[:at] + value[at + 1 :]
        if how < 0.2:
            return [*value[: at + 1], *value[at:]]
        return [*value[:at], mutated_value(value[at], rng, depth + 1), *value[at + 1 :]]
    if isinstance(value, bytes) and value and rng.random() < 0.5:
        return mutated_bytes(value, rng)
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice([1, -1, 1 << 20, -(1 << 20)])
    return rng.choice(INTERESTING)


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        how, at = rng.randrange(6), rng.randrange(len(changed) + 1)
        if how == 0 and changed:
            changed[at % len(changed)] ^= 1 << rng.randrange(8)
        elif how == 1 and changed:
            changed[at % len(changed)] = rng.choice((0, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC7, 0xDC, 0xDD, 0xDF, 0xFF))
        elif how == 2:
            del changed[at : at + rng.randrange(1, 9)]
        elif how == 3:
            changed[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif how == 4:
            del changed[at:]
        else:
            changed[at:at] = changed[rng.randrange(len(changed) + 1) :][:40]
    return bytes(changed)


def mutants(what: str, rng: random.Random) -> Iterator[bytes]:
    """Random bytes, damaged valid ones, and valid MessagePack of a wrong shape; frames get a digest that fits."""
    valid = seeds(what)
    while True:
        data = rng.choice(valid)
        framed = data[:4] == b"SNPV"
        how = rng.random()
        if how < 0.1:
            yield rng.randbytes(rng.choice((0, 1, 40, 41, 80, 300)))
        elif how < 0.4:
            yield mutated_bytes(data, rng)
        elif framed:
            yield reframed(data, rng)
        else:
            yield repacked(data, rng)


def reframed(data: bytes, rng: random.Random) -> bytes:
    body = data[:8] + (repacked(data[8:-32], rng) if rng.random() < 0.7 else mutated_bytes(data[8:-32], rng))
    if rng.random() < 0.05:
        body = mutated_bytes(body[:8], rng)[:8] + body[8:]
    return body + blake3(body).digest()


def repacked(data: bytes, rng: random.Random) -> bytes:
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException):  # TypeError: a map by maps
        return mutated_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutated_value(value, rng)
    try:
        return bytes(msgpack.packb(value))
    except (ValueError, OverflowError, UnicodeEncodeError):
        return mutated_bytes(data, rng)


def fuzz(what: str, rounds: int) -> None:
    decode, rng = DECODERS[what], random.Random(f"{SEED} {what}")
    generator = mutants(what, rng)
    refused = 0
    for round_number in range(rounds):
        data = next(generator)
        try:
            decode(data)
        except SnapvaultError:
            refused += 1
        except Exception as e:
            raise AssertionError(f"SEED={SEED}, {what}, round {round_number}: {data.hex()}") from e
    assert refused > rounds // 10, "hardly anything was wrong with these bytes: this fuzzer tests nothing"


@pytest.mark.parametrize("what", DECODERS)
def test_decoders_raise_typed_errors_only(what: str) -> None:
    fuzz(what, ROUNDS)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", DECODERS)
def test_decoders_raise_typed_errors_only_at_length(what: str) -> None:
    fuzz(what, LONG_ROUNDS)


@pytest.mark.parametrize("what", [w for w in DECODERS if any(v["what"] == w for v in VECTORS)])
def test_every_truncation_is_refused(what: str) -> None:
    for data in seeds(what):
        for end in range(0, len(data), 1 if len(data) < 600 else 7):
            with pytest.raises(SnapvaultError):
                DECODERS[what](data[:end])


# ---- bombs -----------------------------------------------------------------------------------------------------------

BOMBS: dict[str, Callable[[int], bytes]] = {
    "one array that claims all": lambda n: b"\xdd" + n.to_bytes(4, "big") + bytes(n - 5),
    "arrays in arrays that claim all": lambda n: (b"\xdd" + n.to_bytes(4, "big")) * 900 + bytes(n - 4500),
    "maps in maps that claim all": lambda n: (b"\xdf" + n.to_bytes(4, "big")) * 900 + bytes(n - 4500),
    "empty arrays": lambda n: b"\xdd" + (n - 5).to_bytes(4, "big") + b"\x90" * (n - 5),
    "empty maps": lambda n: b"\xdd" + (n - 5).to_bytes(4, "big") + b"\x80" * (n - 5),
    "short texts": lambda n: b"\xdd" + (n // 3 - 3).to_bytes(4, "big") + b"\xa2ab" * (n // 3 - 3),
    "deep nesting": lambda n: b"\x91" * (n - 1) + b"\xc0",
    "a text that claims four gigabytes": lambda n: b"\xdb\xff\xff\xff\xff" + bytes(n - 5),
    "bytes that claim four gigabytes": lambda n: b"\xc6\xff\xff\xff\xff" + bytes(n - 5),
    "an array that claims four billion": lambda n: b"\xdd\xff\xff\xff\xff" + bytes(n - 5),
    "an extension that claims four gigabytes": lambda n: b"\xc9\xff\xff\xff\xff\5" + bytes(n - 6),
    "more bytes than a record may have": lambda n: bytes(80 << 20),
}

MEASURE = """
import resource, sys
import test_hostile as t
bomb = t.BOMBS[sys.argv[1]](int(sys.argv[2]))
body = b"SNPV" + bytes((t.Kind.NOTE, 1, 0, 0)) + bomb
framed = body + t.blake3(body).digest()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for what in ("tree", "signed"):
    for data in (bomb, framed):
        try:
            t.DECODERS[what](data)
        except t.SnapvaultError:
            continue
        raise SystemExit(f"{what} took it")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize("size", [1 << 20, 16 << 20])
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_take_no_memory(bomb: str, size: int) -> None:
    """In a process of its own, since the peak of a process never falls.  An honest record of 2^20 values takes most."""
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, bomb, str(size)], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": folder},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) < 100, f"{done.stdout} MiB"


def test_a_long_name_or_number_is_no_burden() -> None:
    for text in ("9" * 100_000, "keyset/" + "9" * 5000):
        with pytest.raises(SnapvaultError):
            names.keyset_number("keyset/" + text)


@pytest.mark.parametrize("rows", [0, "", b"", {}, None, False])
def test_entries_that_are_no_list(rows: object) -> None:
    """Also those that are as good as none: a folder without entries has an empty list."""
    with pytest.raises(FormatError):
        decode_tree(pack([1, {}, {}, rows]))
    assert decode_tree(pack([1, {}, {}, []])).nodes == []
