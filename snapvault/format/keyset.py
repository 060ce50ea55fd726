"""``keyset/<n>``: who holds which role, and the secrets sealed to them (docs/format/keyset.md).

The payload is signed by the owner named in the config; each keyset names the digest of its predecessor.
"""

from dataclasses import dataclass
from typing import Any

from snapvault.format.names import checked_session_id
from snapvault.format.pack import MAX_PACK
from snapvault.format.signed import HOLDER_SIZE
from snapvault.format.wire import FormatError, pack, shaped, sized, typed, unpack
from snapvault.foundation.errors import FormatTooNew
from snapvault.foundation.ids import DomainId, HolderId, SessionId

FEATURES: frozenset[str] = frozenset()  # required features that this snapvault knows


class Role:
    """What a holder may do."""

    OWNER = "owner"
    MAINTAINER = "maintainer"
    READER = "reader"
    WRITER = "writer"
    SITE = "site"

    ALL = (OWNER, MAINTAINER, READER, WRITER, SITE)
    READERS = (OWNER, MAINTAINER, READER)  # hold the read secrets
    MAINTAINERS = (OWNER, MAINTAINER)  # forget, prune, repair
    WRITERS = (OWNER, WRITER)  # back up


Sealed = tuple[tuple[HolderId, bytes], ...]  # a secret, sealed to each entitled holder


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody with keys of their own.  ``certificate`` is the owner's statement of this row, carried by sessions."""

    id: HolderId
    role: str
    name: str
    hpke: bytes  # 1216
    sign: bytes  # 32
    domains: tuple[DomainId, ...]  # where this holder may write
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Epoch:
    """One read and one recovery key pair; data of this epoch is sealed to both."""

    number: int
    read: bytes  # public, 1216
    recovery: bytes  # public, 1216
    sealed: Sealed  # the 32-byte seed of the read key


@dataclass(frozen=True, slots=True)
class Domain:
    """Who deduplicates together."""

    id: DomainId
    name: str
    sealed: Sealed  # the 32-byte domain secret


@dataclass(frozen=True, slots=True)
class Revocation:
    """A holder that was removed, and the last heads that are accepted of it; later records of it are ignored."""

    holder: HolderId
    name: str
    role: str
    sign: bytes
    heads: tuple[SessionId, ...]


@dataclass(frozen=True, slots=True)
class KeysetRecord:
    """The whole of one keyset."""

    config: bytes  # digest of the config
    number: int
    previous: bytes  # BLAKE3 of keyset/<number - 1>; zeros for 1
    required: tuple[str, ...]  # features that a reader must know
    chunking: tuple[int, int, int]  # minimum, average, maximum bytes
    segment: int  # plaintext bytes at which a segment is cut
    pack: int  # bytes at which a pack is cut
    holders: tuple[Holder, ...]
    epochs: tuple[Epoch, ...]
    domains: tuple[Domain, ...]
    revocations: tuple[Revocation, ...]
    rescue: tuple[tuple[str, bytes], ...]  # file name, SHA-256

    def encode(self) -> bytes:
        """The payload to sign."""
        return pack(
            {
                "config": self.config,
                "number": self.number,
                "previous": self.previous,
                "required": self.required,
                "chunking": self.chunking,
                "segment": self.segment,
                "pack": self.pack,
                "holders": [[h.id, h.role, h.name, h.hpke, h.sign, h.domains, h.certificate] for h in self.holders],
                "epochs": [[e.number, e.read, e.recovery, e.sealed] for e in self.epochs],
                "domains": [[d.id, d.name, d.sealed] for d in self.domains],
                "revocations": [[r.holder, r.name, r.role, r.sign, r.heads] for r in self.revocations],
                "rescue": self.rescue,
            }
        )


def _pack_size(value: Any) -> int:
    size: int = typed(value, int, "pack")
    if not 0 < size <= MAX_PACK // 2:  # what is in flight when a pack is full still goes into it
        raise FormatError("a keyset has packs cut at an impossible size")
    return size


def decode_keyset(payload: bytes) -> KeysetRecord:
    """FormatError if malformed; FormatTooNew if it requires a feature that this snapvault does not know."""

    def build() -> KeysetRecord:
        m = unpack(payload)
        required = tuple(typed(f, str, "feature") for f in m["required"])
        if unknown := sorted(set(required) - FEATURES):
            raise FormatTooNew(f"the repository uses {', '.join(unknown)}, which this snapvault does not know")
        low, average, high = (typed(n, int, "chunking") for n in m["chunking"])
        return KeysetRecord(
            sized(m["config"], 32, "config"),
            typed(m["number"], int, "number"),
            sized(m["previous"], 32, "previous"),
            required,
            (low, average, high),
            typed(m["segment"], int, "segment"),
            _pack_size(m["pack"]),
            tuple(_holder(*h) for h in m["holders"]),
            tuple(
                Epoch(typed(n, int, "epoch"), sized(r, 1216, "key"), sized(v, 1216, "key"), _sealed(s))
                for n, r, v, s in m["epochs"]
            ),
            tuple(Domain(_domain(i), typed(n, str, "name"), _sealed(s)) for i, n, s in m["domains"]),
            tuple(_revocation(*r) for r in m["revocations"]),
            tuple((typed(n, str, "name"), sized(d, 32, "digest")) for n, d in m["rescue"]),
        )

    return shaped(build, "keyset")


def _holder_id(value: Any) -> HolderId:
    return HolderId(sized(value, HOLDER_SIZE, "holder"))


def _domain(value: Any) -> DomainId:
    return DomainId(sized(value, 16, "domain"))


def _role(value: Any) -> str:
    if value not in Role.ALL:
        raise FormatError("a keyset names an unknown role")
    return str(value)


def _sealed(value: Any) -> Sealed:
    return tuple((_holder_id(h), typed(s, bytes, "sealed secret")) for h, s in value)


def _holder(hid: Any, role: Any, name: Any, hpke: Any, sign: Any, domains: Any, certificate: Any) -> Holder:
    return Holder(
        _holder_id(hid),
        _role(role),
        typed(name, str, "name"),
        sized(hpke, 1216, "key"),
        sized(sign, 32, "key"),
        tuple(_domain(d) for d in domains),
        typed(certificate, bytes, "certificate"),
    )


def _revocation(holder: Any, name: Any, role: Any, sign: Any, heads: Any) -> Revocation:
    return Revocation(
        _holder_id(holder),
        typed(name, str, "name"),
        _role(role),
        sized(sign, 32, "key"),
        tuple(checked_session_id(h) for h in heads),
    )


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """The owner's statement: this holder has this role and may write in these domains."""

    config: bytes
    holder: HolderId
    role: str
    sign: bytes
    domains: tuple[DomainId, ...]

    def encode(self) -> bytes:
        """The payload to sign."""
        return pack([self.config, self.holder, self.role, self.sign, self.domains])


def decode_certificate(payload: bytes) -> CertificateRecord:
    """FormatError if malformed."""

    def build() -> CertificateRecord:
        config, holder, role, sign, domains = unpack(payload)
        return CertificateRecord(
            sized(config, 32, "config"),
            _holder_id(holder),
            _role(role),
            sized(sign, 32, "key"),
            tuple(_domain(d) for d in domains),
        )

    return shaped(build, "certificate")
