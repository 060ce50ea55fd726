"""``config``: the genesis of a repository.  Immutable; its BLAKE3 goes into every context (docs/format/config.md)."""

from typing import NamedTuple

from snapvault.format.wire import FormatError, Kind, frame, shaped, sized, typed, unframe
from snapvault.foundation.errors import FormatTooNew

NAME = "snapvault"
FORMAT = 1


class ConfigRecord(NamedTuple):
    """What never changes: a random id, and the public keys of the owner."""

    random: bytes  # 32
    owner_hpke: bytes  # 1216
    owner_sign: bytes  # 32

    def encode(self) -> bytes:
        return frame(
            Kind.CONFIG,
            {
                "name": NAME,
                "format": FORMAT,
                "id": self.random,
                "owner_hpke": self.owner_hpke,
                "owner_sign": self.owner_sign,
            },
        )


def decode_config(data: bytes) -> ConfigRecord:
    """FormatError if this is no config; FormatTooNew if it is a newer one."""

    def build() -> ConfigRecord:
        m = unframe(Kind.CONFIG, data)
        if m["name"] != NAME:
            raise FormatError("this is not the config of a snapvault repository")
        if typed(m["format"], int, "format") != FORMAT:
            raise FormatTooNew(f"the repository has format {m['format']}; this snapvault reads format {FORMAT}")
        return ConfigRecord(
            sized(m["id"], 32, "id"),
            sized(m["owner_hpke"], 1216, "owner_hpke"),
            sized(m["owner_sign"], 32, "owner_sign"),
        )

    return shaped(build, "config")
