"""Index objects that list anew what others say of packs (docs/format/index.md)."""

from snapvault.repository.loader import Entry
from snapvault.repository.session import Session

MAX_BLOBS = 1 << 18  # in one index object, which takes 150 bytes for each while it is read


class IndexWriter:
    """Collects entries, and puts an index object whenever there are enough of them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._batch: list[Entry] = []
        self._blobs = 0

    def add(self, entry: Entry) -> None:
        """What is to be said of a pack."""
        self._batch.append(entry)
        self._blobs += sum(len(s.lengths) for s in entry[1])
        if self._blobs >= MAX_BLOBS:
            self.flush()

    def flush(self) -> None:
        """Put what is left."""
        if self._batch:
            self._session.put_index(self._batch)
        self._batch, self._blobs = [], 0
