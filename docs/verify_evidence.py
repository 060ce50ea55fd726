"""Verify an export of evidence without snapvault and without a key of the repository.

    pip install cryptography blake3
    python3 verify_evidence.py evidence.json --key 6f1c...  [--key ...]

It checks, for every record in the file: that its bytes are those that its name states; that one of the keys signed it;
that what is shown as its content is what was signed; and that every record that it follows is in the file, too.  Which
keys are to be trusted is for you to know: ask whoever you trust for them, and compare.  Without --key it takes those
that the file names, and prints them: then it proves only that the file fits together.

Exit code 0: all of this holds.  1: it does not, and each fault is named.  docs/format/evidence.md and chain.md say what
the bytes mean.
"""

import argparse
import base64
import json
import sys

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
    parser.add_argument("file")
    parser.add_argument("--key", action="append", default=[], metavar="HEX", help="a public key that you trust")
    options = parser.parse_args()
    with open(options.file, encoding="utf-8") as f:
        export = json.load(f)
    if export.get("format") != FORMAT or not {"repository", "keys", "records"} <= export.keys():
        print(f"this is no export that this program knows: {export.get('format')!r}")
        return 1
    named = {k["public"]: k for k in export["keys"] if k["role"] in SIGNERS}
    trusted = options.key or list(named)
    faults, shown = verify(export, [bytes.fromhex(key) for key in trusted])
    for fault in faults:
        print(f"FAULT: {fault}")
    for key in trusted:
        print(f"signed with: {key} ({named.get(key, {}).get('name', 'not named in the file')})")
    if not options.key:
        print("these keys stand in the file itself: compare them with what you were given by somebody you trust")
    print(
        f"{len(export['records'])} records, the content of {shown} shown: " + ("FAULTS" if faults else "all verified")
    )
    return 1 if faults else 0


def verify(export: dict, keys: list) -> tuple:
    """All faults, and how many records show their content."""
    faults, numbers, prevs, shown = [], {}, {}, 0
    for record in export["records"]:
        name = record.get("name", "a record without a name")
        try:
            digest, payload = check_record(record, export["repository"], keys)
            numbers[digest], prevs[digest] = payload[2], payload[4]
            shown += "content" in record
        except (Fault, KeyError, IndexError, TypeError, ValueError) as e:
            faults.append(f"{name}: {e or type(e).__name__}")
    for digest, before in prevs.items():
        for prev in before:
            if prev not in numbers:
                faults.append(f"evidence/{prev.hex()} is missing or wrong: evidence/{digest.hex()} follows it")
        known = [numbers[prev] for prev in before if prev in numbers]
        if len(known) == len(before) and numbers[digest] != 1 + max(known, default=0):
            faults.append(f"evidence/{digest.hex()} has another number than its place in the chain")
    return faults, shown


def check_record(record: dict, repository: str, keys: list) -> tuple:
    """The digest of a record and its signed fields; Fault."""
    data = base64.b64decode(record["object"], validate=True)
    digest = blake3(data).digest()
    if record["name"] != f"evidence/{digest.hex()}":
        raise Fault("its bytes are not those that its name states")
    if data[:8] != b"SNPV" + bytes((KIND, 1, 0, 0)) or blake3(data[:-32]).digest() != data[-32:]:
        raise Fault("it is no record of evidence")
    signed, signatures, sealed = unpack(data[8:-32])
    if not any(is_signed(signed, value, keys) for _, scheme, value in signatures if scheme == "ed25519"):
        raise Fault("it is not signed with a key that is trusted")
    payload = unpack(signed)
    if payload[0].hex() != repository or payload[6] != blake3(sealed).digest() or payload[2] != record["number"]:
        raise Fault("it does not belong here")
    if "content" in record:
        # The one way to write it: keys sorted, no spaces, ASCII.
        text = json.dumps(record["content"], sort_keys=True, separators=(",", ":"))
        if blake3(bytes.fromhex(record["salt"]) + text.encode()).digest() != payload[5]:
            raise Fault("the content shown is not what was signed")
    return digest, payload


def is_signed(signed: bytes, value: bytes, keys: list) -> bool:
    """Whether this is the signature of one of the keys."""
    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(value, LABEL + signed)
            return True
        except InvalidSignature:
            continue
    return False


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
