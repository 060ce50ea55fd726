"""Attestations and evidence, kept at both ends: what a site says of itself, and what was drilled there, is known where
the source is, too.
"""

from collections import defaultdict
from contextlib import suppress

from snapvault.backend.protocol import Backend, NotFound, ObjectInfo
from snapvault.format import names
from snapvault.format.signed import decode_signed
from snapvault.foundation.ahead import ahead
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.operations.attest import KEPT, read_attestation
from snapvault.operations.copying import ObjectCopier
from snapvault.repository.chain import EVIDENCE
from snapvault.repository.keyring import Keyring, public_ring
from snapvault.repository.repository import newest_keyset, read_config
from snapvault.repository.site import Site
from snapvault.repository.store import FETCHERS, fetch
from snapvault.repository.trust import signed_by


def exchange_attestations(source: Site, target: Site) -> None:
    """Bring what was attested at either place to the other one: of each signer the newest that verify.

    And the evidence of drills at the target to the source; a replication brings it the other way.  InvalidInput if
    they are not the same repository; all errors of both stores.
    """
    from_, to = source.open(), target.open()
    try:
        config, digest = read_config(from_)
        if read_config(to)[1] != digest:
            raise InvalidInput(f"{to.url} holds another repository than {from_.url}")
        ring = public_ring(config, digest, newest_keyset(from_, config, digest)[0])
        for begin, end in ((to, from_), (from_, to)):
            bring_attestations(begin, end, ring)
        _bring_evidence(to, from_, ring)
    finally:
        from_.close()
        to.close()


def bring_attestations(begin: Backend, end: Backend, ring: Keyring) -> None:
    """One way.  Older ones stay where they are: their signer may have deleted them at the other end."""
    by_signer: dict[str, list[ObjectInfo]] = defaultdict(list)
    for info in begin.list(names.ATTESTATIONS):
        with suppress(Damaged, NotFound):
            read_attestation(begin, ring, info)
            by_signer[info.name.rpartition("/")[0]].append(info)
    newest = [info for infos in by_signer.values() for info in sorted(infos, key=lambda o: o.name)[-KEPT:]]
    there = {o.name for o in end.list(names.ATTESTATIONS)}
    copier = ObjectCopier(begin, end, {})
    for _ in ahead(copier.copy, [info for info in newest if info.name not in there], FETCHERS):
        pass


def _bring_evidence(begin: Backend, end: Backend, ring: Keyring) -> None:
    """What somebody signed who may; where it belongs in the chain is seen by whoever can open it."""
    keys = [h.sign for h in ring.current.holders if h.role in EVIDENCE.roles]
    there, copier = {o.name for o in end.list(names.EVIDENCE)}, ObjectCopier(begin, end, {})
    for info in [o for o in begin.list(names.EVIDENCE) if o.name not in there]:
        with suppress(Damaged, NotFound):
            signed = decode_signed(EVIDENCE.kind, fetch(begin, info.name, info.size))
            if any(signed_by(EVIDENCE.kind, signed, key) for key in keys):
                copier.copy(info)
