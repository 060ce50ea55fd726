"""``slots/<holder>/<random>``: one holder's keys, wrapped by a password or a key (docs/format/slot.md).

Not signed: it proves itself, since the keys inside must be a holder's in the keyset.
"""

from typing import NamedTuple

from snapvault.format.signed import HOLDER_SIZE
from snapvault.format.wire import FormatError, Kind, frame, shaped, sized, typed, unframe
from snapvault.foundation.ids import HolderId

ARGON2ID, KEY_FILE, RECOVERY = "argon2id", "key-file", "recovery"


class PasswordParameters(NamedTuple):
    """Argon2id: salt (16 bytes), memory in KiB, passes, lanes."""

    salt: bytes
    memory: int
    passes: int
    lanes: int


class SlotRecord(NamedTuple):
    """How the wrapping key is found, a commitment to it, and the wrapped keys."""

    config: bytes
    holder: HolderId
    wrapping: str  # ARGON2ID, KEY_FILE or RECOVERY
    parameters: PasswordParameters | None  # of ARGON2ID
    commitment: bytes
    sealed: bytes

    def encode(self) -> bytes:
        return frame(
            Kind.SLOT, [self.config, self.holder, self.wrapping, self.parameters, self.commitment, self.sealed]
        )


def decode_slot(data: bytes) -> SlotRecord:
    """FormatError if malformed."""

    def build() -> SlotRecord:
        config, holder, wrapping, parameters, commitment, sealed = unframe(Kind.SLOT, data)
        if wrapping not in (ARGON2ID, KEY_FILE, RECOVERY) or (wrapping == ARGON2ID) != (parameters is not None):
            raise FormatError("a key slot is wrapped in an unknown way")
        if parameters is not None:
            salt, memory, passes, lanes = parameters
            parameters = PasswordParameters(
                typed(salt, bytes, "salt"), typed(memory, int, "memory"), typed(passes, int, "passes"),
                typed(lanes, int, "lanes"),
            )  # fmt: skip
        return SlotRecord(
            sized(config, 32, "config"),
            HolderId(sized(holder, HOLDER_SIZE, "holder")),
            wrapping,
            parameters,
            sized(commitment, 32, "commitment"),
            typed(sealed, bytes, "sealed keys"),
        )

    return shaped(build, "slot")
