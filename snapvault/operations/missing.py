"""What a place must have had, since another one has it and nobody removed it.  Told without a key.

A commit slot is put last: where it is, the objects of its session were.  At a source, whatever its copy has came from
there.  Names that a "GC done" slot of either place says are removed are missed by nobody; and where both cannot tell
(notes, key slots, what is not replicated yet) nothing is said to be missing.
"""

from collections.abc import Iterator

from snapvault.backend.protocol import Backend, NotFound
from snapvault.format import names
from snapvault.format.snapshot import ABORT, COMMIT, GC_DONE
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Reporter
from snapvault.foundation.ids import PackId, SessionId, SnapshotId
from snapvault.operations.results import Finding
from snapvault.operations.scrub import keyset_number
from snapvault.operations.survey import removed_names
from snapvault.repository.cache import Cache
from snapvault.repository.history import History, Reading, Slot
from snapvault.repository.keyring import Keyring
from snapvault.repository.loader import IndexLoader
from snapvault.repository.replica import standing
from snapvault.repository.sessions import Sessions
from snapvault.repository.store import Store, fetch

ENDED = "was lost at the source, and a prune there ended its backup as one that had died"


class Missing:
    """What ``begin`` has, and ``end`` lacks; ``ring``: public keys suffice.  Errors of both stores."""

    def __init__(self, ring: Keyring, begin: Backend, end: Backend, reporter: Reporter) -> None:
        self._ring, self._begin, self._end, self._reporter = ring, begin, end, reporter
        # Listed before the slots are read: what is removed meanwhile is told by a slot.
        self._there = {o.name for o in end.list()}
        self._sizes = {o.name: o.size for o in begin.list()}
        store = Store(begin, Cache(None))
        self._sessions, self._sessions_there = Sessions(store, ring), Sessions(Store(end, Cache(None)), ring)
        self._loader = IndexLoader(store, ring, self._sessions)
        here, there = self._slots(begin), self._slots(end)
        self._removed_there = removed_names(ring, there.accepted)
        self._removed = self._removed_there | removed_names(ring, here.accepted)
        # Where it cannot be told what is a copy of what, only the first rule holds.
        self._copied = self._copies(end, begin)
        self._lost = {s.record.sid for s in here.accepted if self._is_missed(s)} - there.shown
        self._ended = {s.record.sid for s in there.accepted if not s.record.is_empty}
        self._shown = there.shown
        self._taken = set[SessionId]()  # snapshots that the copy has, and whose sessions were ended here after all
        if self._copied:
            self._ended |= self._lost
            commits = {s.record.sid for s in here.accepted if s.record.kind == COMMIT}
            self._taken = commits & (there.shown - self._ended)

    def find(self) -> Iterator[Finding]:
        """One for each object."""
        for sid in sorted(self._taken):
            if names.tombstone(SnapshotId(sid)) not in self._there:
                slot = names.snapshot(sid)
                yield Finding(f"{slot} {ENDED}: restore the snapshot from {self._begin.url}", (slot,))
        slots = any(name.startswith(names.SLOTS) for name in self._there)
        keysets = max((keyset_number(name) for name in self._there), default=0)
        for name in sorted(self._sizes.keys() - self._there - self._removed):
            self._reporter.check()
            lost = name.startswith(names.SLOTS) and not slots
            lost |= keyset_number(name) > 0 and (self._copied or not keysets or keyset_number(name) < keysets)
            if lost or self._is_lost(name):
                yield Finding(f"{name} is missing, and {self._begin.url} has it", (name,))

    def _is_lost(self, name: str) -> bool:
        try:
            if name.startswith(names.SNAPSHOTS):
                return self._copied and names.session_id(name, names.SNAPSHOTS) in self._lost
            if name.startswith(names.SESSIONS):
                sid = names.session_id(name, names.SESSIONS)  # what a run that was ended put may be in use
                return sid in self._ended or (self._copied and sid in self._shown)
            if name.startswith(names.PACKS):
                pack = PackId(names.content_digest(name) or b"")
                return self._was_there(self._sessions.in_pack(pack, self._sizes[name])[0].head.sid)
            if name.startswith(names.INDEX):
                record, _ = self._loader.verify(fetch(self._begin, name, self._sizes[name]))
                gone = self._removed.intersection(names.pack(PackId(pack)) for pack, _, _ in record.packs)
                return not gone and self._was_there(record.sid)
        except (Damaged, NotFound):  # it could not come from there
            pass
        return False

    def _is_missed(self, slot: Slot) -> bool:
        """Whether a source that lacks this slot of its copy has lost it.

        What a writer's session came to, or a GC that ran at the source; one of the copy's is announced there alone.

        A session that was ended must not go on.  Of a GC whatever is there was never removed, or is needed since:
        nobody may be told that it goes.
        """
        if slot.record.kind != GC_DONE:
            sid = slot.record.sid
            # Any writer may sign an "abort", and at a copy somebody may have put its own header under this id.
            forged = slot.record.kind == ABORT and self._sessions_there.opened_by(sid) != slot.holder
            return not forged and not sid.startswith(names.GC_PREFIX)
        header, packs = names.session(slot.record.sid), set(map(names.pack, slot.record.removed_packs()))
        if not self._there.isdisjoint(packs):
            return False
        return header in self._there or (header not in self._sizes and not self._removed_there.issuperset(packs))

    def _was_there(self, sid: SessionId) -> bool:
        """Whether all that this session put was at ``end``.

        Of a GC only a source knows whose slot is there, whatever it says: a writer may need what one copied that died.
        """
        return sid in self._ended or (self._copied and (sid in self._shown or not sid.startswith(names.GC_PREFIX)))

    def _slots(self, place: Backend) -> Reading:
        store = Store(place, Cache(None))
        return History(store, self._ring, Sessions(store, self._ring)).read()

    def _copies(self, source: Backend, copy: Backend) -> bool:
        """Whether one of them was never a copy, and the other one is its copy to this day."""
        ring = self._ring
        try:
            one, other = (standing(b, ring.config_digest, ring.config.owner_sign) for b in (source, copy))
        except Damaged:
            return False
        return not one.since and other.replica
