"""A drill that restores nothing: the tree is walked, and every blob that it names lies in a pack that is there."""

from collections.abc import Sequence

from snapvault.access.snapshot import Snapshot
from snapvault.format.tree import BlobType, each_id
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Reporter
from snapvault.foundation.ids import BlobId, PackId
from snapvault.operations.needed import Needed
from snapvault.repository.index import Place
from snapvault.repository.repository import Vault


class Structure(Needed):
    """Walks one snapshot."""

    def __init__(self, vault: Vault, snapshot: Snapshot, present: dict[PackId, int], reporter: Reporter) -> None:
        """``present``: the packs of the store, and their sizes."""
        super().__init__(vault.reader(snapshot.domain))
        self._reporter, self._root, self._present = reporter, snapshot.details.root, present
        self._seen: set[BlobId] = set()  # pieces of folders
        self.blobs = self.missing = 0

    def run(self) -> None:
        """Damaged if a tree cannot be read."""
        self.walk(self._root)

    def visit(self, ids: bytes, kind: int) -> Sequence[bool]:
        """See Needed."""
        self._reporter.tick("walk", self.blobs)
        each = each_id(ids)
        self.blobs += len(each)
        places = self._reader.index.only_places(ids)
        if places is None or not all(map(self._is_there, places)):
            self.missing += sum(not any(map(self._is_there, self._reader.index.places(blob))) for blob in each)
        if kind != BlobType.TREE:
            return ()
        new = [blob not in self._seen for blob in each]
        self._seen.update(each)
        return new

    def _is_there(self, place: Place) -> bool:
        return self._present.get(place.pack.id) == place.pack.size

    def is_lost(self, blob: BlobId) -> bool:
        """See Needed."""
        return False


def reads_tree(vault: Vault, snapshot: Snapshot) -> Damaged | None:
    """What is wrong with the top folder as it is read anew."""
    try:
        for _ in vault.reader(snapshot.domain).trees(snapshot.details.root):
            pass
    except Damaged as e:
        return e
    return None
