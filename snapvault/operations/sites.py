"""The sites that one client knows of a repository: where they are, and what they owe (docs/replication.md).

A URL is this machine's way to a place, so it stays here, in the state directory; what a site holds is attested in the
repository itself.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snapvault.backend.factory import check_place, open_backend
from snapvault.format.attestation import HASHED
from snapvault.foundation.errors import InvalidInput
from snapvault.operations.attest import Attestation, attestations
from snapvault.repository.keysets import read_config
from snapvault.repository.statefile import StateFile

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository


class Sites:
    """Names and URLs, kept for one repository in one state directory."""

    def __init__(self, state: Path, repository: str, home: str) -> None:
        """``repository``: its id; ``home``: where it is, to be remembered with its sites."""
        self._file = StateFile(state / repository, "sites", repository)
        self._home = home

    @classmethod
    def of_home(cls, state: Path, home: str) -> "Sites | None":
        """The sites of the repository that is at this place, or was: it is not asked.  None: no idea.

        Where another was made in the place of one, those that were written last are meant.
        """
        for folder in sorted(state.glob("*/sites.json"), key=_written, reverse=True):
            sites = cls(folder.parent.parent, folder.parent.name, home)
            if sites._file.read().get("home") == home:
                return sites
        return None

    def all(self) -> dict[str, str]:
        """URLs by name, in the order of the names."""
        known = self._file.read().get("urls")
        return dict(sorted(known.items())) if isinstance(known, dict) else {}

    def url(self, name: str) -> str:
        """InvalidInput for a name that nobody added."""
        known = self.all()
        if name not in known:
            listed = ", ".join(known) or "none"
            raise InvalidInput(f"no site is called {name!r}; known are: {listed}", hint="'snapvault site add NAME URL'")
        return known[name]

    def put(self, name: str, url: str | None) -> None:
        """Remember a site; None: forget it.

        InvalidInput for a URL with credentials, which would be kept here, for a place that has another name, and for
        a name that has another place: what is attested of a site would be said of both.
        """
        known = self.all()
        if url is not None:
            check_place(url)
            _refuse_taken(name, url, {"the repository itself": self._home, **known})
        known.pop(name, None)
        if url is not None:
            known[name] = url
        if not self._write(known, [n for n in self._reached() if n != name]):
            raise InvalidInput("the state directory cannot be written", hint="see --state-dir")

    def is_home(self, name: str) -> bool:
        """Whether this site is the very place: a copy that was promoted, seen from itself, owes itself nothing."""
        return _same(self.url(name), self._home)

    def _reached(self) -> list[str]:
        found = self._file.read().get("reached")
        return found if isinstance(found, list) else []

    def was_reached(self, name: str) -> bool:
        """Whether a copy was made there before, so that an empty place now is a disk that is not mounted."""
        return name in self._reached()

    def reached(self, name: str) -> None:
        """A copy is there."""
        self._write(self.all(), sorted({*self._reached(), name}))

    def _write(self, urls: dict[str, str], reached: list[str]) -> bool:
        return self._file.write({"urls": urls, "reached": reached, "home": self._home})


def _refuse_taken(name: str, url: str, known: Mapping[str, str]) -> None:
    other = next((n for n, place in known.items() if n != name and _same(place, url)), None)
    if other is not None:
        raise InvalidInput(f"{url} is {other}", hint="a second site is at another place, and has one name")
    if name in known and not _same(known[name], url):
        raise InvalidInput(
            f"{name} is {known[name]}",
            hint=f"a new place needs a new name; if the copy was moved, 'snapvault site remove {name}' first",
        )


def _same(place: str, other: str) -> bool:
    return place == other or ("://" not in place + other and os.path.realpath(place) == os.path.realpath(other))


def _written(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def repository_id(url: str, storage_options: Mapping[str, Any] | None = None) -> str:
    """Of the repository at a place; needs no key.  RepositoryNotFound, Damaged, errors of the store."""
    backend = open_backend(url, storage_options)
    try:
        return read_config(backend)[1].hex()
    finally:
        backend.close()


@dataclass(frozen=True, slots=True)
class SiteState:
    """What is known of a site: its newest attestation, and the snapshots that it does not cover."""

    name: str
    newest: Attestation | None
    hashed: Attestation | None  # the newest for which every object was read
    snapshots: int  # of the repository, attested as complete there
    unanswered: int  # the others
    unanswered_since: datetime | None  # the time of the oldest of them

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "site": self.name,
            "newest": self.newest.to_dict() if self.newest else None,
            "hashed": self.hashed.time.isoformat() if self.hashed else None,
            "snapshots": self.snapshots,
            "unanswered": self.unanswered,
            "unanswered_since": self.unanswered_since.isoformat() if self.unanswered_since else None,
        }


def site_states(repo: "Repository", sites: Iterable[str]) -> list[SiteState]:
    """By what was attested; all errors of the store.  RoleRequired for a key that may not list snapshots."""
    every = list(repo.snapshots())
    found = attestations(repo)
    states = []
    for name in sites:
        mine = [a for a in found if a.site == name]
        newest = mine[0] if mine else None
        covered = set(newest.snapshots) if newest else set()
        owed = [s for s in every if s.id not in covered]
        hashed = next((a for a in mine if a.level == HASHED and not a.bad), None)
        since = min((s.time for s in owed), default=None)
        states.append(SiteState(name, newest, hashed, len(every) - len(owed), len(owed), since))
    return states
