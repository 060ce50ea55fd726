"""The recovery key as people copy it: Crockford base 32 with the config digest and a checksum inside.

68 bytes: seed (32), config digest (32), the first 4 bytes of BLAKE3 over both; as groups of five characters.
"""

import unicodedata
from typing import NamedTuple

from blake3 import blake3

from snapvault.foundation.errors import KeyRejected

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {c: i for i, c in enumerate(_ALPHABET)} | {"O": 0, "I": 1, "L": 1}
_SIZE, _GROUP = 68, 5
_CHARACTERS = -(-_SIZE * 8 // 5)
PREFIX = "SNAPVAULT-RECOVERY-1"


class RecoveryKey(NamedTuple):
    """The seed that opens everything, and the repository that it belongs to."""

    seed: bytes
    config_digest: bytes

    def __repr__(self) -> str:
        return f"<RecoveryKey of {self.config_digest.hex()[:8]}>"  # never the seed

    def encode(self) -> str:
        """Printable form; upper case, groups of five, lines of eight groups."""
        payload = self.seed + self.config_digest
        payload += blake3(payload).digest()[:4]
        bits = int.from_bytes(payload, "big") << (_CHARACTERS * 5 - _SIZE * 8)
        text = "".join(_ALPHABET[bits >> (5 * i) & 31] for i in range(_CHARACTERS - 1, -1, -1))
        groups = [text[i : i + _GROUP] for i in range(0, len(text), _GROUP)]
        lines = ["-".join(groups[i : i + 8]) for i in range(0, len(groups), 8)]
        return "\n".join([PREFIX, *lines])


def decode_recovery_key(text: str) -> RecoveryKey:
    """The key from its printed form; KeyRejected.

    Spaces, dashes, case and the letters O, I, L are forgiven, and the first line may be missing.
    """
    body = "".join(c for c in text.upper() if not c.isspace() and unicodedata.category(c) != "Pd")  # Pd: all dashes
    body = body.removeprefix(PREFIX.replace("-", ""))
    hint = "compare it with the printed sheet, letter by letter"
    if len(body) != _CHARACTERS:
        raise KeyRejected(f"the recovery key has {len(body)} characters instead of {_CHARACTERS}", hint=hint)
    bits = 0
    for c in body:
        if c not in _VALUES:
            raise KeyRejected(f"the recovery key holds {c!r}, which no recovery key does", hint=hint)
        bits = bits << 5 | _VALUES[c]
    spare = _CHARACTERS * 5 - _SIZE * 8
    if bits & ((1 << spare) - 1):
        raise KeyRejected("the last character of the recovery key is wrong", hint=hint)
    payload = (bits >> spare).to_bytes(_SIZE, "big")
    if blake3(payload[:64]).digest()[:4] != payload[64:]:
        raise KeyRejected("the checksum of the recovery key does not match: it was copied with a mistake", hint=hint)
    return RecoveryKey(payload[:32], payload[32:64])
