"""A GC that waits for sessions, left open between runs (docs/concurrency.md).

The next run of this client goes on with the sessions that were there when it began: a new fence each time would find
other backups each time, and starve.
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from snapvault.backend.protocol import NotFound
from snapvault.backend.wrapper import discard
from snapvault.format import names
from snapvault.format.session import GC
from snapvault.foundation.errors import Damaged, SnapvaultError
from snapvault.foundation.ids import PackId, SessionId
from snapvault.operations.running import Mark, Running, this_host
from snapvault.repository.keyring import DomainKeys
from snapvault.repository.repository import Vault
from snapvault.repository.session import Session, revoke
from snapvault.repository.statefile import StateFile
from snapvault.repository.store import fetch


@dataclass(frozen=True, slots=True)
class Left:
    """A GC as it was left: its session, what it condemned and merges, and the sessions that it still waits for.

    ``mark``: that it runs now, in this process; None: nothing is remembered.
    """

    session: Session
    condemned: frozenset[PackId]
    merged: frozenset[str]
    open: frozenset[SessionId]
    mark: Mark | None


class Pending:
    """The GC of one client that waits in one domain."""

    def __init__(self, vault: Vault, domain: DomainKeys) -> None:
        self._vault, self._domain = vault, domain
        # A file for each domain, so that taking one leaves the others.
        place = blake3(vault.address.encode() + domain.id).hexdigest()[:16]
        self._file = StateFile(vault.pins.folder, f"gc-{place}", vault.address)

    def save(self, sid: SessionId, merged: Collection[str], open: Collection[SessionId]) -> bool:
        """Whether it is remembered."""
        return self._file.write({"sid": sid, "merged": sorted(merged), "open": sorted(open), "host": this_host()})

    def take_up(self) -> Left | None:
        """The GC that waits; None if there is none, or it was ended by somebody, or is not what it was.

        It is remembered no more, so that no other process takes it up, too.  What cannot be taken up is ended, or
        others would wait for it.  Errors of the store leave it as it was.
        """
        found, mark = Running(self._vault).take(self._file)
        left = None
        try:
            left = self._take_up(found, mark)
        except SnapvaultError:
            self._file.write(found)
            raise
        finally:
            if left is None and mark is not None:
                mark.drop()
        return left

    def _take_up(self, found: dict[str, Any], mark: Mark | None) -> Left | None:
        sid = SessionId(str(found.get("sid", "")))
        if not names.is_session_id(sid) or not sid.startswith(names.GC_PREFIX):
            return None
        if any(True for _ in self._vault.backend.list(names.snapshot(sid))):
            return None
        with suppress(KeyError, TypeError, ValueError, Damaged, NotFound):
            return self._left(sid, found["merged"], found["open"], mark)
        revoke(self._vault.store, self._vault.ring, sid)
        discard(self._vault.backend, names.GC + sid)
        return None

    def _left(self, sid: SessionId, merged: list[str], open: list[str], mark: Mark | None) -> Left:
        vault, domain = self._vault, self._domain
        header = fetch(vault.backend, names.session(sid))
        session, author = vault.sessions.verify(header, sid)
        if (session.head.purpose, session.head.domain, author.holder) != (GC, domain.id, vault.ring.signing.id):
            raise Damaged("it is somebody else's")
        condemned = vault.loader.condemned_by(names.GC + sid)
        resumed = Session.resume(vault.store, vault.ring, domain, vault.sessions.secrets(sid), header)
        return Left(resumed, frozenset(condemned), frozenset(merged), frozenset(map(SessionId, open)), mark)
