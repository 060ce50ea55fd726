"""Waiting until every session that may rely on what is condemned has ended: rules G4 and G5 (docs/concurrency.md)."""

import time
from collections.abc import Collection
from pathlib import Path

from snapvault.backend.protocol import Backend
from snapvault.backend.wrapper import discard
from snapvault.format import names
from snapvault.format.session import GC
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Reporter
from snapvault.foundation.ids import SessionId
from snapvault.repository.repository import Vault
from snapvault.repository.session import open_sessions, revoke
from snapvault.repository.statefile import StateFile

LOOK, POLL = 2.0, 0.5  # seconds between looks at the store, and between looks at whether to stop


class Yield(Exception):
    """Another GC, whose id is smaller, is alive: this one gives way."""

    def __init__(self, other: SessionId) -> None:
        super().__init__(other)
        self.other = other


class Watch:
    """Since when the heartbeat of each session stands still, by this machine's clock; kept between runs.

    What is lost of it, or a clock that jumps, costs time, or a writer that is revoked and runs again; never data.
    """

    def __init__(self, folder: Path | None, url: str) -> None:
        self._file = StateFile(folder, "watch", url)
        self._seen = self._file.read()  # session -> [heartbeats, since]

    def still_for(self, sid: SessionId, beats: list[str]) -> float:
        """Seconds for which these were the heartbeats of a session, as far as this client knows."""
        now, known = time.time(), self._seen.get(sid)
        if not isinstance(known, list) or len(known) != 2 or known[0] != beats or known[1] > now:
            self._seen[sid] = known = [beats, now]
        return now - float(known[1])

    def until(self, sessions: Collection[SessionId], lease: float) -> float:
        """When the lease of the last of these ends unless it gives a sign of life, by ``time.time``; 0: unknown."""
        if self._file.folder is None:  # the next run begins to count anew
            return 0.0
        return max((float(v[1]) + lease for sid, v in self._seen.items() if sid in sessions), default=0.0)

    def save(self, sessions: set[SessionId]) -> None:
        """Keep what is known of these sessions, and of no other."""
        self._file.write({sid: v for sid, v in self._seen.items() if sid in sessions})


class Fence:
    """The sessions that there are when this is made, but for one's own; or ``open``, those of an earlier look (G4)."""

    def __init__(self, vault: Vault, own: SessionId, lease: float, open: Collection[SessionId] | None = None) -> None:
        self._vault, self._own, self._lease = vault, own, lease
        self._watch = Watch(vault.pins.folder, vault.address)
        self._open = _open_sessions(vault.backend) if open is None else set(open)
        self._open.discard(own)
        self.standing = vault.standing()
        self._drop_foreign()

    def _drop_foreign(self) -> None:
        """At a copy: what others began, they began at the source, and end there.  A GC that runs here has its record.

        One that has not put it yet is no matter: it will look once it has, and then wait for this one.
        """
        if not self.standing.since:
            return
        here = {o.name.removeprefix(names.GC) for o in self._vault.backend.list(names.GC)}
        collecting = {sid for sid in self._open if sid.startswith(names.GC_PREFIX)}
        self._open -= collecting - here
        if self.standing.replica:
            self._open &= collecting

    def until(self, sessions: Collection[SessionId]) -> float:
        """See Watch."""
        return self._watch.until(sessions, self._lease)

    def wait(self, seconds: float, reporter: Reporter) -> tuple[SessionId, ...]:
        """Who has not ended after so many seconds; nobody: the fence holds.

        A session whose heartbeat stood still for the lease is revoked.  Raises Yield, and errors of the store.
        """
        end = time.monotonic() + seconds
        try:
            while True:
                self._look()
                if not self._open or time.monotonic() >= end:
                    return tuple(sorted(self._open))
                reporter.tick("wait", 0, len(self._open), current=min(self._open))
                until = time.monotonic() + LOOK
                while time.monotonic() < min(until, end):
                    reporter.check()
                    time.sleep(POLL)
        finally:
            self._watch.save(self._open)

    def end_dead(self) -> bool:
        """Revoke whose heartbeat stood still for the lease, and wait for nobody; whether there was one."""
        try:
            return self._look()
        finally:
            self._watch.save(self._open)

    def _look(self) -> bool:
        """Whether one was revoked."""
        ended = False
        self._drop_ended()
        for sid in sorted(self._open):
            if not self._is_entitled(sid) or self._stood_still(sid) >= self._lease:
                if revoke(self._vault.store, self._vault.ring, sid):
                    ended = True
                    discard(self._vault.backend, names.GC + sid)  # what it condemned stays
                self._open.discard(sid)  # filled now, by whom ever
            elif sid.startswith(names.GC_PREFIX) and sid < self._own:
                raise Yield(sid)
        return ended

    def _stood_still(self, sid: SessionId) -> float:
        beats = sorted(o.name for o in self._vault.backend.list(names.heartbeat_prefix(sid)))
        return self._watch.still_for(sid, beats)

    def _is_entitled(self, sid: SessionId) -> bool:
        """Whether a session's header says what it must; whoever is revoked for nothing runs again."""
        try:
            header, author = self._vault.sessions.header(sid)
        except Damaged:
            return False
        if author.holder in self._vault.ring.removed:
            return False
        return (header.head.purpose == GC) == sid.startswith(names.GC_PREFIX)

    def _drop_ended(self) -> None:
        if self._open:
            filled = {o.name for o in self._vault.backend.list(names.SNAPSHOTS)}
            self._open = {sid for sid in self._open if names.snapshot(sid) not in filled}


def _open_sessions(backend: Backend) -> set[SessionId]:
    """The sessions that may still rely on what is condemned.

    No store says that a listing is short, and of a session that is not seen nobody would know later.  So it is listed
    twice, and whoever gives a sign of life counts, too.
    """
    found = open_sessions(backend) | open_sessions(backend)
    alive = {o.name.removeprefix(names.HEARTBEATS).partition("/")[0] for o in backend.list(names.HEARTBEATS)}
    alive -= found | {o.name.removeprefix(names.SNAPSHOTS) for o in backend.list(names.SNAPSHOTS)}
    return found | {SessionId(sid) for sid in alive if names.is_session_id(sid)}
