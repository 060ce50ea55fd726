"""``register/<digest>``, ``evidence/<digest>``: records that name those before them (docs/format/chain.md).

A signed part in clear, and a sealed part that only holders of a read key open.
"""

import os
from dataclasses import dataclass

from blake3 import blake3

from snapvault.format.wire import FormatError, pack, shaped, sized, typed, unpack

SALT_SIZE = 32


@dataclass(frozen=True, slots=True)
class ChainRecord:
    """The signed part: who came before, and a commitment to the content, so that an export can be verified."""

    config: bytes
    epoch: int  # whose read key opens the sealed part
    number: int  # 1 + the highest number among prevs
    time: int  # nanoseconds, UTC
    prevs: tuple[bytes, ...]  # BLAKE3 of the objects that its author saw at the end of the chain
    commitment: bytes  # BLAKE3 of salt and body
    sealed_digest: bytes

    def encode(self) -> bytes:
        """The payload to sign."""
        return pack([self.config, self.epoch, self.number, self.time, self.prevs, self.commitment, self.sealed_digest])


def decode_chain(payload: bytes) -> ChainRecord:
    """FormatError if malformed."""

    def build() -> ChainRecord:
        config, epoch, number, time, prevs, commitment, digest = unpack(payload)
        if typed(number, int, "number") < 1:
            raise FormatError("a record of a chain has an impossible number")
        return ChainRecord(
            sized(config, 32, "config"),
            typed(epoch, int, "epoch"),
            number,
            typed(time, int, "time"),
            tuple(sized(p, 32, "digest") for p in prevs),
            sized(commitment, 32, "commitment"),
            sized(digest, 32, "digest"),
        )

    return shaped(build, "chain")


def salted(body: bytes) -> tuple[bytes, bytes]:
    """What is sealed, and the commitment to it: without the salt a commitment would let a body be guessed."""
    content = os.urandom(SALT_SIZE) + body
    return content, blake3(content).digest()


def unsalted(content: bytes, commitment: bytes) -> bytes:
    """The body; FormatError unless this is what the record commits to."""
    if len(content) < SALT_SIZE or blake3(content).digest() != commitment:
        raise FormatError("the sealed part is not what the record commits to")
    return content[SALT_SIZE:]
