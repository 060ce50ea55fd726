"""From a password to a key-encryption key: Argon2id (RFC 9106), its second recommended choice by default."""

import os
import unicodedata
from dataclasses import dataclass

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from snapvault.foundation.errors import Damaged

SALT_SIZE = 16
MAX_MEMORY_KIB, MAX_PASSES, MAX_LANES = 1 << 20, 16, 16  # a slot that asks for more is refused: hostile or absurd
MIN_MEMORY_KIB = 8 << 10


@dataclass(frozen=True, slots=True)
class Argon2Parameters:
    """Memory in KiB, passes and lanes, and the salt."""

    salt: bytes
    memory: int = 64 << 10
    passes: int = 3
    lanes: int = 4

    @classmethod
    def fresh(cls) -> "Argon2Parameters":
        return cls(os.urandom(SALT_SIZE))

    def checked(self) -> "Argon2Parameters":
        """These parameters, or Damaged if they are weaker or costlier than the format allows."""
        good = (
            len(self.salt) == SALT_SIZE
            and MIN_MEMORY_KIB <= self.memory <= MAX_MEMORY_KIB
            and 1 <= self.passes <= MAX_PASSES
            and 1 <= self.lanes <= MAX_LANES
        )
        if not good:
            raise Damaged("a key slot asks for absurd password-hashing parameters")
        return self


def password_key(password: str, parameters: Argon2Parameters) -> bytes:
    """32 bytes.  The password is normalised (NFC), so that it works from any keyboard."""
    p = parameters.checked()
    kdf = Argon2id(salt=p.salt, length=32, iterations=p.passes, lanes=p.lanes, memory_cost=p.memory)
    return kdf.derive(unicodedata.normalize("NFC", password).encode())
