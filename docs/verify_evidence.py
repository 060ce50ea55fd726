"""Verify an export of evidence without snapvault and without a key of the repository.

    pip install cryptography blake3
    python3 verify_evidence.py evidence.json --key 6f1c...  [--key ...]

It checks, for every record in the file: that its bytes are those that its name states; that one of the keys signed it;
that what is shown as its content is what was signed; and that every record that it follows is in the file, too.  Which
keys are to be trusted is for you to know: ask whoever you trust for them, and compare.  Without --key it takes those
that the file names, and prints them: then it proves only that the file fits together.

It cannot know of records newer than the newest one in the file, and tells which that is, so that you can ask.  Nor can
it know what is in records whose content is not shown.

Exit code 0: all of this holds.  1: it does not, and each fault is named.  docs/format/evidence.md and chain.md say what
the bytes mean.
"""

import argparse
import base64
import json
import sys
from datetime import UTC, datetime

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "snapvault evidence 1"
KIND = 18  # of the frame around an object
LABEL = b"snapvault/1 signed evidence\0"
SIGNERS = ("owner", "maintainer", "reader")


class Fault(Exception):
    """What is wrong with a record."""


def main() -> int:
    """Verify, and tell."""
    parser = argparse.ArgumentParser(description="Verify an export of evidence.")
    parser.add_argument("file", help="what 'snapvault evidence export FILE.json' wrote")
    parser.add_argument(
        "--key", action="append", type=public_key, default=[], metavar="HEX", help="a public key that you trust"
    )
    options = parser.parse_args()
    try:
        with open(options.file, encoding="utf-8") as f:
            export = json.load(f, object_pairs_hook=unique)
    except (Fault, OSError, ValueError, RecursionError) as e:
        print(f"this cannot be read: {e}")
        return 1
    if not isinstance(export, dict):
        print("this is no export: it is no table")
        return 1
    if export.get("format") != FORMAT or not {"repository", "keys", "records"} <= export.keys():
        print(f"this is no export that this program knows: {export.get('format')!r}")
        return 1
    named = {k["public"]: k for k in export["keys"] if k["role"] in SIGNERS}
    trusted = options.key or list(named)
    faults, shown, newest = verify(export, [bytes.fromhex(key) for key in trusted])
    for fault in faults:
        print(f"FAULT: {fault}")
    for key in trusted:
        print(f"signed with: {key} ({named.get(key, {}).get('name', 'not named in the file')})")
    if not options.key:
        print("these keys stand in the file itself: compare them with what you were given by somebody you trust")
    if newest is not None:
        when = datetime.fromtimestamp(newest[3] // 10**9, UTC)
        print(f"the newest record is number {newest[2]}, signed {when}")
    print(
        f"{len(export['records'])} records, the content of {shown} shown: " + ("FAULTS" if faults else "all verified")
    )
    return 1 if faults else 0


def public_key(text: str) -> str:
    """As the file writes it; ValueError."""
    return bytes.fromhex(text).hex()


def verify(export: dict, keys: list) -> tuple:
    """All faults, how many records show their content, and the signed fields of the newest one."""
    faults, found, removed, shown = [], {}, set(), 0
    gone = {k["public"] for k in export["keys"] if k.get("removed")}
    for record in export["records"]:
        name = record.get("name", "a record without a name")
        try:
            digest, payload, key = check_record(record, export["repository"], keys)
            if digest in found:
                raise Fault("it stands in the file twice")
            if record["by"] not in [k["name"] for k in export["keys"] if k["public"] == key.hex()]:
                raise Fault(f"it is not by {record['by']}")
            found[digest] = payload
            removed |= {digest} if key.hex() in gone else set()
            shown += "content" in record
        except (Fault, KeyError, IndexError, TypeError, ValueError, RecursionError) as e:
            faults.append(f"{name}: {e or type(e).__name__}")
    faults += broken_links(found)
    for digest in sorted(removed - followed(found, found.keys() - removed)):
        faults.append(f"evidence/{digest.hex()} does not count: its key was removed, and nothing follows it")
    return faults, shown, max(found.values(), key=lambda payload: payload[2:4], default=None)


def broken_links(found: dict) -> list:
    """Faults of the chain, by the signed fields of its records."""
    faults = []
    for digest, payload in found.items():
        for prev in payload[4]:
            if prev not in found:
                faults.append(f"evidence/{prev.hex()} is missing or wrong: evidence/{digest.hex()} follows it")
        known = [found[prev][2] for prev in payload[4] if prev in found]
        if len(known) == len(payload[4]) and payload[2] != 1 + max(known, default=0):
            faults.append(f"evidence/{digest.hex()} has another number than its place in the chain")
    return faults


def followed(found: dict, trusted: set) -> set:
    """The records that these follow, directly or not."""
    known, todo = set(), list(trusted)
    while todo:
        new = {prev for prev in found[todo.pop()][4] if prev in found} - known
        known |= new
        todo += new
    return known


def unique(pairs: list) -> dict:
    """A map in which no key stands twice: what is read must be what a person sees."""
    if len(dict(pairs)) < len(pairs):
        raise Fault("a key stands in it twice")
    return dict(pairs)


def check_record(record: dict, repository: str, keys: list) -> tuple:
    """The digest of a record, its signed fields and the key that signed it; Fault."""
    data = base64.b64decode(record["object"], validate=True)
    digest = blake3(data).digest()
    if record["name"] != f"evidence/{digest.hex()}":
        raise Fault("its bytes are not those that its name states")
    if data[:8] != b"SNPV" + bytes((KIND, 1, 0, 0)) or blake3(data[:-32]).digest() != data[-32:]:
        raise Fault("it is no record of evidence")
    signed, signatures, sealed = unpack(data[8:-32])
    values = [value for _, scheme, value in signatures if scheme == "ed25519"]
    by = [key for value in values for key in signers(signed, value, keys)]
    if not by:
        raise Fault("it is not signed with a key that is trusted")
    payload = unpack(signed)
    if payload[0].hex() != repository or payload[6] != blake3(sealed).digest() or payload[2] != record["number"]:
        raise Fault("it does not belong here")
    if "content" in record:
        # The one way to write it: keys sorted, no spaces, ASCII.
        text = json.dumps(record["content"], sort_keys=True, separators=(",", ":"))
        if blake3(bytes.fromhex(record["salt"]) + text.encode()).digest() != payload[5]:
            raise Fault("the content shown is not what was signed")
    return digest, payload, by[0]


def signers(signed: bytes, value: bytes, keys: list) -> list:
    """Those of the keys whose signature this is."""
    found = []
    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(value, LABEL + signed)
            found.append(key)
        except InvalidSignature:
            continue
    return found


def unpack(data: bytes) -> object:
    """The MessagePack value that all of ``data`` is: of lists, byte strings, texts and numbers."""
    value, end = _value(data, 0)
    if end != len(data):
        raise Fault("it is malformed")
    return value


def _value(data: bytes, at: int) -> tuple:
    """The value that begins at this byte, and where it ends."""
    first, at = data[at], at + 1
    if first < 0x80:
        return first, at
    if 0x90 <= first <= 0x9F:
        return _list(data, at, first & 15)
    if 0xA0 <= first <= 0xBF:
        return data[at : at + (first & 31)].decode(), at + (first & 31)
    width = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD9: 1, 0xDC: 2}.get(first)
    if width is None:
        raise Fault("it is malformed")
    number, at = int.from_bytes(data[at : at + width], "big"), at + width
    if 0xCC <= first <= 0xCF:
        return number, at
    if first == 0xDC:
        return _list(data, at, number)
    part = data[at : at + number]
    if len(part) != number:
        raise Fault("it is malformed")
    return (part.decode() if first == 0xD9 else part), at + number


def _list(data: bytes, at: int, count: int) -> tuple:
    values = []
    for _ in range(count):
        value, at = _value(data, at)
        values.append(value)
    return values, at


if __name__ == "__main__":
    sys.exit(main())
