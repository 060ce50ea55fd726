"""What the owner lists anew of a holder that it removes (docs/format/index.md)."""

from contextlib import ExitStack
from typing import Self

from snapvault.format import names
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import DomainId, HolderId
from snapvault.repository.keyring import Keyring
from snapvault.repository.loader import Entry, IndexLoader
from snapvault.repository.session import Session
from snapvault.repository.store import Store

BATCH = 64  # index objects that are fetched at once
MAX_BLOBS = 1 << 19  # in one index object


def take_over_indexes(store: Store, ring: Keyring, loader: IndexLoader, holder: HolderId, done: set[str]) -> None:
    """List in index objects of the owner what a holder's list; ``done``: names that were looked at, which is added to.

    An object that is damaged is passed over: readers find what it listed by the packs' own directories.
    """
    listed = {o.name: o.size for o in list(store.backend.list(names.INDEX)) if o.name not in done}
    wanted = sorted(listed)
    with ExitStack() as stack:
        lists: dict[DomainId, _Anew] = {}
        for at in range(0, len(wanted), BATCH):
            batch = wanted[at : at + BATCH]
            for name, data in zip(batch, store.immutables(batch, listed), strict=True):
                for entry in _listed(loader, name, data, holder):
                    domain = entry[0].domain
                    if domain not in lists:
                        lists[domain] = stack.enter_context(_Anew(store, ring, domain))
                    lists[domain].add(entry)
        for anew in lists.values():
            anew.flush()
    done.update(wanted)


def _listed(loader: IndexLoader, name: str, data: bytes | Damaged, holder: HolderId) -> list[Entry]:
    try:
        return loader.open(name, data) if isinstance(data, bytes) and loader.author(data) == holder else []
    except Damaged:
        return []


class _Anew:
    """Index objects of one domain in a session of the owner's, which commits nothing."""

    def __init__(self, store: Store, ring: Keyring, domain: DomainId) -> None:
        self._session = Session(store, ring, ring.domains[domain])
        self._batch: list[Entry] = []
        self._blobs = 0

    def __enter__(self) -> Self:
        self._session.announce()
        return self

    def __exit__(self, *exc: object) -> None:
        self._session.abort()

    def add(self, entry: Entry) -> None:
        self._batch.append(entry)
        self._blobs += sum(len(s.lengths) for s in entry[1])
        if self._blobs >= MAX_BLOBS:
            self.flush()

    def flush(self) -> None:
        if self._batch:
            self._session.put_index(self._batch)
        self._batch, self._blobs = [], 0
