"""The body of ``register/<digest>``: what is declared, and what was retired (docs/format/register.md)."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from snapvault.format.wire import pack, shaped, typed, unpack


class RetiredRow(NamedTuple):
    """A dataset that is owed no more."""

    name: str
    reason: str
    by: str  # the name of the key that retired it
    time: int  # nanoseconds, UTC


@dataclass(frozen=True, slots=True)
class RegisterRecord:
    """One revision, whole."""

    declared: dict[str, Any]  # as ``snapvault.toml`` says it: schema, defaults, groups, datasets
    retired: tuple[RetiredRow, ...]

    def encode(self) -> bytes:
        """The body of a chain's record."""
        return pack([self.declared, self.retired])


def decode_register(body: bytes) -> RegisterRecord:
    """FormatError if malformed; what is declared has yet to be read."""

    def build() -> RegisterRecord:
        declared, retired = unpack(body)
        return RegisterRecord(
            typed(declared, dict, "declaration"),
            tuple(
                RetiredRow(typed(n, str, "name"), typed(r, str, "reason"), typed(b, str, "key"), typed(t, int, "time"))
                for n, r, b, t in retired
            ),
        )

    return shaped(build, "register")
