"""Pins: what this client saw of a repository, so that a store that plays back an old state is caught.

Kept in the state directory, apart from the disposable cache; losing them loses only this protection.
"""

import contextlib
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snapvault.foundation.ids import SessionId


@dataclass(slots=True)
class SitePins:
    """The highest keyset and the commit slots that were seen at one URL."""

    keyset: int = 0
    keyset_digest: str = ""
    records: dict[SessionId, str] = field(default_factory=dict)  # snapshot -> BLAKE3 of its slot, hex


class Pins:
    """The pins of one repository; ``folder`` None: nothing is remembered."""

    def __init__(self, folder: Path | None, url: str) -> None:
        self._path = None if folder is None else folder / "pins.json"
        self._url = url
        self.site = self._site(self._read())

    @property
    def folder(self) -> Path | None:
        """Where other things may be remembered that only this client saw."""
        return None if self._path is None else self._path.parent

    def _read(self) -> dict[str, Any]:
        if self._path is not None:
            with contextlib.suppress(OSError, ValueError, TypeError):
                return dict(json.loads(self._path.read_text()))
        return {}

    def _site(self, everything: dict[str, Any]) -> SitePins:
        mine = everything.get(self._url, {})
        return SitePins(int(mine.get("keyset", 0)), str(mine.get("keyset_digest", "")), dict(mine.get("records", {})))

    def save(self) -> None:
        """Write atomically and durably.  A state directory that cannot be written costs only this protection.

        What others pinned since this was read stays: a higher keyset, and more records.
        """
        if self._path is None:
            return
        everything = self._read()
        there = self._site(everything)
        newest = there if there.keyset > self.site.keyset else self.site
        records = {**there.records, **self.site.records}
        site = {"keyset": newest.keyset, "keyset_digest": newest.keyset_digest, "records": records}
        if everything.get(self._url) == site:
            return
        everything[self._url] = site
        temporary = self._path.with_name(f".pins-{secrets.token_hex(8)}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with temporary.open("x") as f:
                json.dump(everything, f)
                f.flush()
                os.fsync(f.fileno())
            temporary.replace(self._path)
