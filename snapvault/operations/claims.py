"""What indexes say of packs, in few bytes for each: its tables of blobs are read again where they are needed."""

import threading
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from blake3 import blake3

from snapvault.format.pack import Segment, encode_directory
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import PackId
from snapvault.repository.index import PackRow
from snapvault.repository.loader import Entry
from snapvault.repository.repository import Vault
from snapvault.repository.store import fetch


class Claim(NamedTuple):
    """That a pack holds these blobs; ``source``: the index object that says so, "" for the pack itself."""

    row: PackRow
    digest: bytes
    source: str

    def is_that_of(self, entry: Entry) -> bool:
        """Whether two descriptions of a pack agree."""
        return self.row == entry[0] and self.digest == table_digest(entry[1])


def table_digest(segments: Sequence[Segment]) -> bytes:
    """Of all that is said of a pack's segments."""
    return blake3(encode_directory(segments)).digest()


class Claims:
    """The claims of all packs."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._by_pack: dict[PackId, list[Claim]] = defaultdict(list)
        self._lock = threading.Lock()
        self._read: tuple[str, dict[PackId, Entry]] = "", {}  # the index object that was read last

    def add(self, entry: Entry, source: str) -> None:
        """What an index object, or a pack itself, says."""
        row, segments = entry
        self._by_pack[row.id].append(Claim(row, table_digest(segments), source))

    def of(self, pack: PackId) -> list[Claim]:
        """All that is said of a pack."""
        return self._by_pack.get(pack, [])

    def entry(self, claim: Claim) -> Entry:
        """The claim in full; Damaged, NotFound."""
        if not claim.source:
            entry = self._vault.loader.read_directory(claim.row.id, claim.row.size)
        else:
            with self._lock:  # several packs of one index object follow one another
                if self._read[0] != claim.source:
                    data = fetch(self._vault.backend, claim.source)
                    self._read = claim.source, {e[0].id: e for e in self._vault.loader.open(claim.source, data)}
                entry = self._read[1][claim.row.id]
        if not claim.is_that_of(entry):
            raise Damaged(f"what is said of pack {claim.row.id.hex()} changed", affected=[claim.source])
        return entry
