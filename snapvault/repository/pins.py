"""Pins: what this client saw of a repository, so that a store that plays back an old state is caught.

Losing them loses only this protection.
"""

from dataclasses import dataclass, field
from pathlib import Path

from snapvault.foundation.ids import SessionId
from snapvault.repository.statefile import StateFile


@dataclass(slots=True)
class SitePins:
    """The highest keyset and the commit slots that were seen at one URL."""

    keyset: int = 0
    keyset_digest: str = ""
    records: dict[SessionId, str] = field(default_factory=dict)  # snapshot -> BLAKE3 of its slot, hex
    register: dict[str, int] = field(default_factory=dict)  # BLAKE3 of its newest revisions, hex -> their numbers
    evidence: dict[str, int] = field(default_factory=dict)  # the same of the records of evidence


class Pins:
    """The pins of one repository; ``folder`` None: nothing is remembered."""

    def __init__(self, folder: Path | None, url: str) -> None:
        self._file = StateFile(folder, "pins", url)
        self.site = self._seen()

    @property
    def folder(self) -> Path | None:
        """Where other things may be remembered that only this client saw."""
        return self._file.folder

    def _seen(self) -> SitePins:
        mine = self._file.read()
        return SitePins(
            int(mine.get("keyset", 0)), str(mine.get("keyset_digest", "")), dict(mine.get("records", {})),
            dict(mine.get("register", {})), dict(mine.get("evidence", {})),
        )  # fmt: skip

    def save(self) -> None:
        """Write them down.  A state directory that cannot be written costs only this protection.

        What others pinned since this was read stays: a higher keyset, more records, and later ends of the chains.
        """
        there = self._seen()
        newest = there if there.keyset > self.site.keyset else self.site
        records = {**there.records, **self.site.records}
        register = max(there.register, self.site.register, key=_highest)
        evidence = max(there.evidence, self.site.evidence, key=_highest)
        self._file.write(
            {
                "keyset": newest.keyset, "keyset_digest": newest.keyset_digest, "records": records,
                "register": register, "evidence": evidence,
            }
        )  # fmt: skip


def _highest(ends: dict[str, int]) -> int:
    return max(ends.values(), default=0)
