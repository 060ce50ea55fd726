"""What the owner lists anew of a holder that it removes (docs/format/index.md)."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from snapvault.format import names
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import DomainId, HolderId
from snapvault.repository.keyring import Keyring
from snapvault.repository.listing import IndexWriter
from snapvault.repository.loader import Entry, IndexLoader
from snapvault.repository.session import Session
from snapvault.repository.store import Store


def take_over_indexes(store: Store, ring: Keyring, loader: IndexLoader, holder: HolderId, done: set[str]) -> None:
    """List in index objects of the owner what a holder's list; ``done``: names that were looked at, which is added to.

    An object that is damaged is passed over: readers find what it listed by the packs' own directories.
    """
    listed = {o.name: o.size for o in list(store.backend.list(names.INDEX)) if o.name not in done}
    wanted = sorted(listed)
    with ExitStack() as stack:
        lists: dict[DomainId, IndexWriter] = {}
        for name, data in zip(wanted, store.each(wanted, listed), strict=True):
            for entry in _listed(loader, name, data, holder):
                domain = entry[0].domain
                if domain not in lists:
                    lists[domain] = IndexWriter(stack.enter_context(_session(store, ring, domain)))
                lists[domain].add(entry)
        for anew in lists.values():
            anew.flush()
    done.update(wanted)


def _listed(loader: IndexLoader, name: str, data: bytes | Damaged, holder: HolderId) -> list[Entry]:
    try:
        return loader.open(name, data) if isinstance(data, bytes) and loader.author(data) == holder else []
    except Damaged:
        return []


@contextmanager
def _session(store: Store, ring: Keyring, domain: DomainId) -> Iterator[Session]:
    """One of the owner's, which commits nothing."""
    session = Session(store, ring, ring.domains[domain])
    session.announce()
    try:
        yield session
    finally:
        session.abort()
