"""What other sessions store meanwhile, for one that runs beside them: rule W2, once more (docs/concurrency.md)."""

from collections.abc import Callable

from snapvault.format import names
from snapvault.foundation.ids import DomainId, SessionId
from snapvault.repository.index import BlobIndex, IndexTable
from snapvault.repository.loader import IndexLoader
from snapvault.repository.repository import Vault
from snapvault.repository.session import open_sessions
from snapvault.repository.verdicts import DAMAGED, read_verdicts


class News:
    """Asked by the threads that upload, one at a time."""

    def __init__(
        self, vault: Vault, domain: DomainId, own: SessionId, index: BlobIndex, warn: Callable[[str], None]
    ) -> None:
        """``index``: what the session knows already; ``warn``: gets what is wrong with records of GCs."""
        self._vault, self._domain, self._own, self._warn = vault, domain, own, warn
        self._loader = IndexLoader(vault.store, vault.ring, vault.sessions)
        self._objects: set[str] = set().union(*(table.names for table in index.tables))
        self._packs = {row.id for row in index.packs()}
        self.shared = False  # sessions of writers are open beside this one, or were killed and nobody ended them yet

    def look(self) -> bool:
        """Whether there is anybody to ask; errors of the store."""
        others = open_sessions(self._vault.backend) - {self._own}
        self.shared = any(not sid.startswith(names.GC_PREFIX) for sid in others)
        return self.shared

    def learn(self) -> IndexTable:
        """What others stored since this was last asked, of what may be relied upon; errors of the store."""
        unwanted = self._packs | read_verdicts(self._vault.backend, self._vault.ring, DAMAGED).packs.keys()
        table = self._loader.news(self._objects, self._own, self._domain, unwanted)
        self._objects.update(table.names)
        self._packs.update(row.id for row in table.packs)
        for problem in self._loader.problems:
            self._warn(str(problem))
        return table
