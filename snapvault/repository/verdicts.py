"""What checks found out about packs, written down for the checks and the writers after them (docs/format/local.md)."""

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from snapvault.backend.own import put_own
from snapvault.backend.protocol import Backend, NotFound
from snapvault.backend.wrapper import discard
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import VerifiedRecord, decode_verified
from snapvault.format.signed import decode_signed
from snapvault.format.wire import Kind
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import PackId
from snapvault.repository.keyring import Keyring
from snapvault.repository.store import fetch
from snapvault.repository.trust import Untrusted, sign, signed_by

WHOLE, DAMAGED = "data", "damaged"  # levels of records
PREFIXES = {WHOLE: names.VERIFIED, DAMAGED: names.DAMAGED}


class Verdicts(NamedTuple):
    """The packs of which records of one level speak, each with the newest time, and the names of these records."""

    packs: dict[PackId, int]  # nanoseconds, UTC
    records: list[str]


def trusted_verdict(ring: Keyring, data: bytes) -> VerifiedRecord:
    """A record of what was found, by a holder who could read it; Untrusted, FormatError.

    A write-only client could otherwise have rot trusted, or have everybody store everything again.
    """
    signed = decode_signed(Kind.VERIFIED, data)
    record = decode_verified(signed.payload)
    by_reader = any(signed_by(Kind.VERIFIED, signed, public) for public in ring.signers(Role.READERS))
    if record.config != ring.config_digest or not by_reader:
        raise Untrusted("it is not signed by a holder who may read")
    return record


def read_verdicts(backend: Backend, ring: Keyring, level: str) -> Verdicts:
    """What trusted records of a level say; one that is damaged or not trusted counts for nothing (check names it)."""
    found = Verdicts({}, [])
    for info in list(backend.list(PREFIXES[level])):
        try:
            record = trusted_verdict(ring, fetch(backend, info.name, info.size))
        except (Damaged, NotFound):
            continue
        found.records.append(info.name)
        if record.level == level:
            found.packs.update({p: max(record.time, found.packs.get(p, 0)) for p in record.packs})
    return found


def put_verdicts(backend: Backend, ring: Keyring, level: str, packs: Mapping[PackId, int]) -> None:
    """Write down what was found when: a record for each time."""
    by_time: dict[int, list[PackId]] = {}
    for pack, when in packs.items():
        by_time.setdefault(when, []).append(pack)
    for when, found in by_time.items():
        _put(backend, ring, VerifiedRecord(ring.config_digest, level, when, tuple(found)))


def replace_verdicts(
    backend: Backend, ring: Keyring, level: str, packs: Mapping[PackId, int], old: Iterable[str]
) -> None:
    """The same in place of older records, which go once the new ones are there."""
    put_verdicts(backend, ring, level, packs)
    for name in old:
        discard(backend, name)


def _put(backend: Backend, ring: Keyring, record: VerifiedRecord) -> None:
    keys = ring.signing
    data = sign(Kind.VERIFIED, record.encode(), keys.id, keys.signer)
    put_own(backend, PREFIXES[record.level] + os.urandom(16).hex(), data)
