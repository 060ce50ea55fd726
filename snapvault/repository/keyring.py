"""The keys in use: a holder's own, and what the keyset seals to it (docs/format/keyset.md)."""

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from blake3 import blake3

from snapvault.chunking import Chunker, Chunking
from snapvault.crypto.hpke import HpkePrivateKey, hpke_seal
from snapvault.crypto.kdf import SECRET_SIZE, context_digest, derive
from snapvault.crypto.signing import SigningKey
from snapvault.format.config import ConfigRecord
from snapvault.format.keyset import CertificateRecord, Domain, Epoch, Holder, KeysetRecord, Role, Sealed
from snapvault.format.tree import BlobType
from snapvault.foundation.errors import KeyRejected, RoleRequired
from snapvault.foundation.ids import BlobId, DomainId, HolderId
from snapvault.repository.trust import certify

RECOVERY_ROLE, PUBLIC_ROLE = "recovery", "public"


class HolderKeys:
    """One holder's own two key pairs, from their seeds."""

    def __init__(self, hpke_seed: bytes, sign_seed: bytes) -> None:
        self.seeds = hpke_seed + sign_seed
        self.hpke = HpkePrivateKey(hpke_seed)
        self.signer = SigningKey(sign_seed)

    @classmethod
    def generate(cls) -> Self:
        return cls(os.urandom(SECRET_SIZE), os.urandom(SECRET_SIZE))

    @cached_property
    def id(self) -> HolderId:
        return holder_id(self.hpke.public, self.signer.public)


def holder_id(hpke: bytes, sign: bytes) -> HolderId:
    """A holder is named by its public keys."""
    return HolderId(blake3(hpke + sign).digest(length=16))


class DomainKeys:
    """What HKDF derives from a domain's secret."""

    def __init__(self, domain: DomainId, secret: bytes, config_digest: bytes) -> None:
        self.id = domain
        self.secret = secret
        context = context_digest(config_digest, domain)
        self.id_keys = tuple(derive(secret, f"blob id {t}", context) for t in BlobType.ALL)
        self.chunk_key = derive(secret, "chunker", context)
        self.index_key = derive(secret, "index", context)

    def blob_id(self, blob_type: int, data: bytes | memoryview) -> BlobId:
        """Keyed BLAKE3 of the plaintext, under the key of its type."""
        return BlobId(blake3(data, key=self.id_keys[blob_type]).digest())

    def chunker(self, sizes: Chunking) -> Chunker:
        return Chunker(sizes, self.chunk_key)


def epoch_info(config_digest: bytes, number: int, read: bytes) -> bytes:
    """HPKE info under which an epoch's secret is sealed to a holder."""
    return b"snapvault/1 epoch" + context_digest(config_digest, number.to_bytes(8, "little"), read)


def domain_info(config_digest: bytes, domain: DomainId) -> bytes:
    """HPKE info under which a domain's secret is sealed to a holder."""
    return b"snapvault/1 domain" + context_digest(config_digest, domain)


def recovery_key_pair(seed: bytes, config_digest: bytes) -> HpkePrivateKey:
    """The key pair to which every session is sealed for the holder of the recovery seed."""
    return HpkePrivateKey(derive(seed, "recovery", config_digest))


@dataclass(frozen=True)
class Keyring:
    """Config, keyset, and whatever secrets of it this holder has.

    Opened by the recovery key alone there may be no keyset; then sessions open by ``recovery`` and domains are learnt
    from them.
    """

    config: ConfigRecord
    config_digest: bytes
    keyset: KeysetRecord | None
    keyset_digest: bytes
    role: str
    holder: Holder | None = None
    own: HolderKeys | None = field(default=None, repr=False)
    recovery: HpkePrivateKey | None = field(default=None, repr=False)
    read_keys: dict[int, HpkePrivateKey] = field(default_factory=dict, repr=False)
    seeds: dict[int, bytes] = field(default_factory=dict, repr=False)  # of the read keys: what chains are sealed by
    domains: dict[DomainId, DomainKeys] = field(default_factory=dict, repr=False)

    @property
    def can_read(self) -> bool:
        return self.role in Role.READERS or self.role == RECOVERY_ROLE

    def require_role(self, roles: tuple[str, ...], what: str) -> None:
        """RoleRequired unless this holder has one of ``roles``."""
        if self.role not in roles:
            raise RoleRequired(
                f"a key of the role {self.role} may not {what}", hint=f"use a key of the role {' or '.join(roles)}"
            )

    def require_read(self, what: str) -> None:
        """RoleRequired unless this holder may open data."""
        if not self.can_read:
            self.require_role(Role.READERS, what)

    def signers(self, roles: tuple[str, ...]) -> list[bytes]:
        """The signing keys of the owner and of the holders of these roles."""
        holders = () if self.keyset is None else self.keyset.holders
        return [self.config.owner_sign, *(h.sign for h in holders if h.role in roles)]

    def name_of(self, holder: HolderId) -> str:
        """The name of a holder, also of a removed one; its id in hexadecimal if no keyset can be read."""
        known = () if self.keyset is None else self.keyset.holders
        gone = () if self.keyset is None else self.keyset.revocations
        named = {**{r.holder: r.name for r in gone}, **{h.id: h.name for h in known}}
        return named.get(holder, holder.hex())

    @property
    def removed(self) -> frozenset[HolderId]:
        """The holders that the keyset calls removed."""
        return frozenset() if self.keyset is None else frozenset(r.holder for r in self.keyset.revocations)

    @property
    def current(self) -> KeysetRecord:
        if self.keyset is None:
            raise KeyRejected("the repository has no readable keyset; only reading is possible")
        return self.keyset

    @property
    def signing(self) -> HolderKeys:
        if self.own is None:
            raise RoleRequired("the recovery key alone cannot sign; only reading is possible")
        return self.own

    @property
    def write_domain(self) -> DomainKeys:
        """The domain that this holder backs up into."""
        if self.holder is None or not self.holder.domains:
            raise RoleRequired(f"a {self.role} key has no domain to back up into")
        return self.domains[self.holder.domains[0]]

    @property
    def chunking(self) -> Chunking:
        return Chunking(*self.current.chunking)


def open_keyring(
    config: ConfigRecord, config_digest: bytes, keyset: KeysetRecord, digest: bytes, own: HolderKeys
) -> Keyring:
    """What this holder may use.  KeyRejected if the keyset does not name it."""
    holder = next((h for h in keyset.holders if h.id == own.id), None)
    if holder is None:
        raise KeyRejected(
            "this key was removed from the repository, or the store shows an old state",
            hint="ask the owner for a new key",
        )
    ring = Keyring(config, config_digest, keyset, digest, holder.role, holder, own)
    for epoch in keyset.epochs:
        for to, sealed in epoch.sealed:
            if to == own.id:
                seed = own.hpke.open(sealed, epoch_info(config_digest, epoch.number, epoch.read))
                ring.read_keys[epoch.number], ring.seeds[epoch.number] = HpkePrivateKey(seed), seed
    for domain in keyset.domains:
        for to, sealed in domain.sealed:
            if to == own.id:
                secret = own.hpke.open(sealed, domain_info(config_digest, domain.id))
                ring.domains[domain.id] = DomainKeys(domain.id, secret, config_digest)
    return ring


def public_ring(config: ConfigRecord, config_digest: bytes, keyset: KeysetRecord) -> Keyring:
    """For whoever has no key: what is signed can be verified, and nothing opened."""
    return Keyring(config, config_digest, keyset, b"", PUBLIC_ROLE)


class KeysetEditor:
    """Builds the next keyset.  Needs the owner's keys; secrets of epochs and domains come from the owner's ring."""

    def __init__(self, record: KeysetRecord, config_digest: bytes, owner: HolderKeys) -> None:
        self.record = record
        self._config = config_digest
        self._owner = owner

    def add_holder(
        self, keys_id: HolderId, role: str, name: str, hpke: bytes, sign: bytes, domains: tuple[DomainId, ...]
    ) -> None:
        certificate = certify(
            CertificateRecord(self._config, keys_id, role, sign, domains), self._owner.id, self._owner.signer
        )
        holder = Holder(keys_id, role, name, hpke, sign, domains, certificate)
        self.record = replace(self.record, holders=(*self.record.holders, holder))

    def remove_holder(self, holder: HolderId) -> None:
        self.record = replace(self.record, holders=tuple(h for h in self.record.holders if h.id != holder))

    def _seal(self, secret: bytes, info: bytes, recipients: list[Holder]) -> Sealed:
        return tuple((h.id, hpke_seal(h.hpke, secret, info)) for h in recipients)

    def _readers(self) -> list[Holder]:
        return [h for h in self.record.holders if h.role in Role.READERS]

    def add_epoch(self, recovery_public: bytes) -> None:
        """A new epoch for new data, sealed to all who may read now."""
        number = 1 + max((e.number for e in self.record.epochs), default=0)
        seed = os.urandom(SECRET_SIZE)
        read = HpkePrivateKey(seed).public
        sealed = self._seal(seed, epoch_info(self._config, number, read), self._readers())
        self.record = replace(self.record, epochs=(*self.record.epochs, Epoch(number, read, recovery_public, sealed)))

    def add_domain(self, domain: DomainId, name: str) -> None:
        """A new domain, sealed to all readers and to the holders that write in it."""
        to = [h for h in self.record.holders if h.role in Role.READERS or domain in h.domains]
        sealed = self._seal(os.urandom(SECRET_SIZE), domain_info(self._config, domain), to)
        self.record = replace(self.record, domains=(*self.record.domains, Domain(domain, name, sealed)))

    def share_with(self, holder: HolderId, ring: Keyring) -> None:
        """Seal every epoch's and domain's secret to a new reader, from the owner's own copies."""
        row = next(h for h in self.record.holders if h.id == holder)
        own = ring.signing
        epochs, domains = [], []
        for e in self.record.epochs:
            info = epoch_info(self._config, e.number, e.read)
            mine = next((s for h, s in e.sealed if h == own.id), None)
            more = () if mine is None else self._seal(own.hpke.open(mine, info), info, [row])
            epochs.append(replace(e, sealed=e.sealed + more))
        for d in self.record.domains:
            more = self._seal(ring.domains[d.id].secret, domain_info(self._config, d.id), [row])
            domains.append(replace(d, sealed=d.sealed + more))
        self.record = replace(self.record, epochs=tuple(epochs), domains=tuple(domains))

    def unshare(self, holder: HolderId) -> None:
        """Drop what is sealed to a holder (what it has seen, it may have kept)."""
        self.record = replace(
            self.record,
            epochs=tuple(replace(e, sealed=tuple(s for s in e.sealed if s[0] != holder)) for e in self.record.epochs),
            domains=tuple(replace(d, sealed=tuple(s for s in d.sealed if s[0] != holder)) for d in self.record.domains),
        )
