"""A framed object that carries signatures, and perhaps a sealed part (docs/format/frame.md).

The payload is kept as the exact bytes that were signed, so nothing depends on a canonical encoding.  Signatures stand
in a list: a second scheme can be added beside the first.
"""

from typing import NamedTuple

from snapvault.format.wire import FormatError, frame, shaped, sized, typed, unframe
from snapvault.foundation.ids import HolderId

HOLDER_SIZE, SIGNATURE_SIZE = 16, 64
MAX_SIGNATURES = 8


class Signature(NamedTuple):
    """Who signed, with which scheme ("ed25519"), and the signature."""

    holder: HolderId
    scheme: str
    value: bytes


class Signed(NamedTuple):
    """The payload of an object, who signed it, and its sealed part ("" if it has none)."""

    payload: bytes
    signatures: tuple[Signature, ...]
    sealed: bytes = b""


def encode_signed(kind: int, signed: Signed) -> bytes:
    """The framed object."""
    return frame(kind, [signed.payload, [list(s) for s in signed.signatures], signed.sealed])


def decode_signed(kind: int, data: bytes | memoryview) -> Signed:
    """The parts of a framed object; nothing is verified yet but its digest."""

    def build() -> Signed:
        payload, signatures, sealed = unframe(kind, data)
        if len(signatures) > MAX_SIGNATURES:
            raise FormatError("an object carries too many signatures")
        return Signed(
            typed(payload, bytes, "payload"),
            tuple(
                Signature(
                    HolderId(sized(h, HOLDER_SIZE, "signer")), typed(s, str, "scheme"), typed(v, bytes, "signature")
                )
                for h, s, v in signatures
            ),
            typed(sealed, bytes, "sealed part"),
        )

    return shaped(build, "signed")
