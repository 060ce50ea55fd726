"""Attestations, kept at both ends: what a site says of itself is known where the source is, and the other way round."""

from collections import defaultdict
from contextlib import suppress

from snapvault.backend.protocol import Backend, NotFound, ObjectInfo
from snapvault.format import names
from snapvault.foundation.ahead import ahead
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.operations.attest import KEPT, read_attestation
from snapvault.operations.copying import ObjectCopier
from snapvault.repository.keyring import Keyring, public_ring
from snapvault.repository.keysets import newest_keyset, read_config
from snapvault.repository.site import Site
from snapvault.repository.store import FETCHERS


def exchange_attestations(source: Site, target: Site) -> None:
    """Bring what was attested at either place to the other one: of each signer the newest that verify.

    InvalidInput if they are not the same repository; all errors of both stores.
    """
    from_, to = source.open(), target.open()
    try:
        config, digest = read_config(from_)
        if read_config(to)[1] != digest:
            raise InvalidInput(f"{to.url} holds another repository than {from_.url}")
        ring = public_ring(config, digest, newest_keyset(from_, config, digest)[0])
        for begin, end in ((to, from_), (from_, to)):
            bring_attestations(begin, end, ring)
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
