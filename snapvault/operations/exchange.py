"""Attestations and evidence, kept at both ends: what a site says of itself, and what was drilled there, is known where
the source is, too.
"""

from collections import defaultdict
from contextlib import suppress

from snapvault.backend.protocol import Backend, NotFound
from snapvault.backend.wrapper import discard
from snapvault.format import names
from snapvault.format.attestation import AttestationRecord
from snapvault.format.signed import decode_signed
from snapvault.foundation.ahead import ahead
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.operations.attest import read_attestation, worth_keeping
from snapvault.operations.copying import ObjectCopier
from snapvault.repository.chain import EVIDENCE
from snapvault.repository.keyring import Keyring, public_ring
from snapvault.repository.keysets import newest_keyset, read_config
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
        bring_attestations(to, from_, ring)
        for old in bring_attestations(from_, to, ring):  # their signers thin out what is at the site
            discard(from_, old)
        _bring_evidence(to, from_, ring)
    finally:
        from_.close()
        to.close()


def bring_attestations(begin: Backend, end: Backend, ring: Keyring) -> list[str]:
    """One way.  Names of those at ``begin`` that are too old to be brought: their signer may have deleted them."""
    by_signer: dict[str, dict[str, AttestationRecord]] = defaultdict(dict)
    infos = {o.name: o for o in begin.list(names.ATTESTATIONS)}
    for name, info in infos.items():
        with suppress(Damaged, NotFound):
            by_signer[name.rpartition("/")[0]][name] = read_attestation(begin, ring, info)[1]
    kept = {name for found in by_signer.values() for name in worth_keeping(found)}
    there = {o.name for o in end.list(names.ATTESTATIONS)}
    copier = ObjectCopier(begin, end, {})
    for _ in ahead(copier.copy, [infos[name] for name in kept - there], FETCHERS):
        pass
    return [name for found in by_signer.values() for name in found if name not in kept]


def _bring_evidence(begin: Backend, end: Backend, ring: Keyring) -> None:
    """What somebody signed who may; where it belongs in the chain is seen by whoever can open it."""
    keys = [h.sign for h in ring.current.holders if h.role in EVIDENCE.roles]
    there, copier = {o.name for o in end.list(names.EVIDENCE)}, ObjectCopier(begin, end, {})
    for info in [o for o in begin.list(names.EVIDENCE) if o.name not in there]:
        with suppress(Damaged, NotFound):
            signed = decode_signed(EVIDENCE.kind, fetch(begin, info.name, info.size))
            if any(signed_by(EVIDENCE.kind, signed, key) for key in keys):
                copier.copy(info)
