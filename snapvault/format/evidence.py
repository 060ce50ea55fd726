"""The body of ``evidence/<digest>``: what drills found, as JSON (docs/format/evidence.md).

One text for one meaning, so that whoever is shown it as JSON can make the signed bytes of it again: keys sorted, no
spaces, ASCII, and no numbers but whole ones.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from snapvault.format.wire import FormatError

SCHEMA = 1
OUTCOMES = ("pass", "fail", "not-run")
MOST = 1 << 53  # what a number may be: any reader of JSON holds it


class Seen(msgspec.Struct, frozen=True):
    """The snapshot that a drill brought back."""

    id: str
    time: datetime
    partial: bool = False


class Step(msgspec.Struct, frozen=True):
    """How one step went."""

    outcome: str
    why: str


class Planted(msgspec.Struct, frozen=True):
    """The damage that a drill did to itself."""

    outcome: str
    caught_by: str


class Headline(msgspec.Struct, frozen=True):
    """What of a result is needed to sort it in, and to show it."""

    dataset: str
    site: str
    level: str
    outcome: str
    why: str
    began: datetime
    snapshot: Seen | None
    seed: str
    steps: dict[str, Step]
    files: int
    bytes: int
    age: int | None  # seconds
    recovery: int | None  # milliseconds
    control: Planted | None

    def __post_init__(self) -> None:
        times = (self.began, self.began if self.snapshot is None else self.snapshot.time)
        numbers = (self.files, self.bytes, abs(self.age or 0), self.recovery or 0)
        # In the first and the last year there are, another zone is already out of range.
        odd = any(t.tzinfo is None or not 1 < t.year < 9999 for t in times)
        if odd or self.outcome not in OUTCOMES or not all(0 <= n <= MOST for n in numbers):
            raise ValueError("a result says what none can say")


class _Body(msgspec.Struct):
    schema: int
    results: list[msgspec.Raw]


_MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_BODY, _HEADLINE = msgspec.json.Decoder(_Body), msgspec.json.Decoder(Headline)


def encode_evidence(results: Sequence[Mapping[str, Any]]) -> bytes:
    """The body.  Of text, whole numbers, true, false, null, lists and maps with text as keys."""
    return json.dumps({"schema": SCHEMA, "results": results}, sort_keys=True, separators=(",", ":")).encode()


def decode_evidence(body: bytes) -> list[tuple[Headline, bytes]]:
    """The results, each with its JSON text; FormatError if malformed."""
    try:
        found = _BODY.decode(body)
        if found.schema != SCHEMA:
            raise FormatError(f"evidence has schema {found.schema}; this snapvault reads {SCHEMA}")
        return [(decode_headline(raw), bytes(raw)) for raw in found.results]
    except _MALFORMED as e:
        raise FormatError(f"evidence is malformed ({e})") from e


def decode_headline(text: bytes | msgspec.Raw) -> Headline:
    """Of one result; FormatError if malformed."""
    try:
        return _HEADLINE.decode(text)
    except _MALFORMED as e:
        raise FormatError(f"a result of a drill is malformed ({e})") from e
