"""What a prune sees of one domain at one moment: snapshots, packs, how much of each is needed (rules G2 and G6)."""

import struct
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from snapvault.backend.protocol import NotFound
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import TombstoneRecord
from snapvault.format.snapshot import COMMIT, GC_DONE
from snapvault.format.tree import each_id
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import BlobId, DomainId, PackId, SessionId, SnapshotId
from snapvault.foundation.table import find_records
from snapvault.operations.liveness import Liveness
from snapvault.operations.unlisted import Incomplete, announced, predecessors, require_predecessors, require_shown
from snapvault.repository.history import Reading, Slot, is_due
from snapvault.repository.index import PackRow, Place
from snapvault.repository.keyring import Keyring
from snapvault.repository.loader import IndexLoader
from snapvault.repository.notes import NOTHING
from snapvault.repository.reader import BlobReader
from snapvault.repository.records import WIDTH
from snapvault.repository.replica import Standing
from snapvault.repository.repository import Vault
from snapvault.repository.verdicts import DAMAGED, read_verdicts

ATTEMPTS = 10
SEGMENTS_KEPT = 3  # opened; what is walked and copied comes in the order in which it lies
WHERE = (names.INDEX, names.PACKS)  # what another prune changes when it removes packs
Where = tuple[PackRow, int, int]  # a segment, as somebody describes it: pack, offset, sealed bytes


@dataclass(slots=True)
class Use:
    """A pack that is there, and the plaintext in it: all, needed, and needed but in another pack, too."""

    row: PackRow
    raw: int = 0
    live: int = 0
    spare: int = 0
    damaged: bool = False  # as a check or a prune found
    superseded: bool = False  # damaged, or removed before; and all that is needed of it is elsewhere

    @property
    def unused(self) -> int:
        """Bytes of the pack that nobody needs in it, about."""
        return self.row.size - (self.row.size * (self.live - self.spare) // self.raw if self.raw else 0)


def survey(vault: Vault, domain: DomainId, *, waiting: bool = True, snapshots: bool = True) -> "Survey":
    """A look that nobody spoilt by removing, meanwhile, what this one wanted to read, or by committing.

    Errors as of Survey.
    """
    missed: tuple[str, ...] = ()
    for _ in range(ATTEMPTS):
        before = listed(vault, *WHERE)
        try:
            return Survey(vault, domain, waiting=waiting, snapshots=snapshots)
        except Incomplete as e:
            if missed == (missed := e.affected):
                raise
        except (Damaged, NotFound):
            if listed(vault, *WHERE) == before:
                raise
    return Survey(vault, domain, waiting=waiting, snapshots=snapshots)


def listed(vault: Vault, *prefixes: str) -> frozenset[str]:
    """The names that there are below some prefixes."""
    return frozenset(o.name for prefix in prefixes for o in vault.backend.list(prefix))


class Survey:
    """Everything is read when this is made; any error of the store is raised.

    ``waiting``: with what is forgotten, and can still be brought back.  ``snapshots``: else nothing is looked at that
    they need.  Damaged if one cannot be read, is gone though a later one names it, or names what is in no index: nobody
    can tell then what it needs.  What a repair found to be lost, and said so in a note, is no such thing.  Incomplete
    if a commit slot is there that the listing did not show.
    """

    def __init__(self, vault: Vault, domain: DomainId, *, waiting: bool = True, snapshots: bool = True) -> None:
        self.vault, self.domain = vault, domain
        known = announced(vault.backend)
        tombstones, _ = vault.history.tombstones(fresh=True)
        reading = vault.read_history()
        every = reading.every
        # Of these some are forgotten.
        slots, self.waiting = _roots(reading, tombstones) if snapshots else ([], set())
        if not waiting:
            slots = [s for s in slots if s.record.sid not in self.waiting]
        readable = {s.record.sid for s in every}
        self.filled = readable | (reading.given_up & reading.shown)  # nobody can commit there any more
        # A slot with "GC done" that cannot be read may name any pack: then no copy is known to survive.
        self._blind = any(sid.startswith(names.GC_PREFIX) for sid in reading.shown - readable)
        self._failed: set[tuple[PackId, int, int]] = set()  # segments that could not be opened
        self.rotten: set[PackId] = set()  # packs in which one of these is, as somebody says who is to be trusted
        self.removed = {pack for s in every for pack in s.record.removed_packs()}
        # They go without a new fence; what a removed maintainer named does not.
        goners = going_by(vault, every)
        self.going = {pack for s in goners for pack in s.record.removed_packs()}
        self.replaced = {name for s in goners for name in s.record.removed if name.startswith(names.INDEX)}
        self._trusted: dict[SessionId, bool] = {}
        self.standing = vault.standing()
        self._done = [s.record for s in every if s.record.kind == GC_DONE]
        self._let_go = self.free_at(self.standing)
        loader = IndexLoader(vault.store, vault.ring, vault.sessions)
        # In this order: a pack that is indexed when the index is read is there when packs are listed.
        self.index = loader.load(scan=True)
        self.present = loader.packs_present()
        # Another pack may be what a killed run left: to find it, each reader has to look into all such packs.
        self._indexed = {row for table in self.index.tables if table.names for row in table.packs}
        self._require_all(reading, known, tombstones if snapshots else None)
        self.reader = BlobReader(vault.backend, vault.ring, vault.sessions, self.index.of(domain), keep=SEGMENTS_KEPT)
        self._live = Liveness(self.index.tables, self.reader)
        notes, _ = vault.notes.read({s.record.sid: s.holder for s in slots})
        for slot in slots:
            # Whatever could not be read may be what is missing; then nothing is taken as lost.
            self._add(slot, bool(notes.get(slot.record.sid, NOTHING).lost), next(iter(loader.problems), None))

    def _require_all(
        self, reading: Reading, known: set[SessionId], tombstones: Mapping[SnapshotId, TombstoneRecord] | None
    ) -> None:
        """That no snapshot was left out which something else names: header, index, a later snapshot of this domain.

        What writers of other domains name is no reason to stop.  ``tombstones``: and none is gone without one.
        """
        mine = [s for s in reading.accepted if s.record.kind == COMMIT and self._may_be_here(s)]
        known = known.union((row.sid for row in self.index.packs()), (sid for sid, _, _ in predecessors(mine)))
        require_shown(self.vault.backend, reading.shown, known)
        if tombstones is not None:
            # What never came to a copy nobody can bring back there, however long it could be at the source.
            anyhow = bool(self.standing.since)
            forgotten = {(SessionId(sid), t.record) for sid, t in tombstones.items() if anyhow or is_due(t)}
            require_predecessors(mine, reading.shown, forgotten, copy=self.standing.replica)

    def _may_be_here(self, slot: Slot) -> bool:
        try:
            return self.vault.sessions.header(slot.record.sid, holder=slot.holder)[0].head.domain == self.domain
        except Damaged:
            return True

    def _add(self, slot: Slot, noted: bool, doubt: Damaged | None) -> None:
        """``noted``: some of it is lost, as a note says; ``doubt``: why it may be there nevertheless."""
        sid, lost = slot.record.sid, noted and doubt is None
        try:
            if self.vault.sessions.header(sid, holder=slot.holder)[0].head.domain == self.domain:
                self._live.add(self.vault.history.details(slot).root, lost=lost)
        except Damaged as e:
            raise Damaged(
                f"nothing is removed: what snapshot {sid} needs cannot be told: {e.message}",
                hint=f"its note says that it is lost, but {doubt.message}: bring back what is missing from a copy, or "
                f"give the snapshot up by 'snapvault forget --undelete-window 0h {sid}'"
                if noted and doubt is not None
                else "'snapvault check --repair' saves what can be read, and notes what is lost",
                affected=[names.snapshot(sid), *e.affected],
            ) from e

    def may_go(self, pack: PackId) -> bool:
        """Whether a GC may condemn this pack."""
        return self._let_go is None or pack in self._let_go

    def free_at(self, standing: Standing) -> set[PackId] | None:
        """The packs that may be condemned: at a copy only what the source removed; None: all."""
        if not standing.replica:
            return None
        earlier = standing.collected
        return {pack for record in self._done if record.sid not in earlier for pack in record.removed_packs()}

    def uses(self) -> dict[PackId, Use]:
        """Packs of this domain that are there, but for those that a prune already removes."""
        nothing = [bytes(len(table.segments) // 4) for table in self.index.tables]
        damaged = read_verdicts(self.vault.backend, self.vault.ring, DAMAGED).packs
        doubtful = self.removed | damaged.keys()
        found = self._uses(self._live.spare_bytes(self._ranks(self._uses(nothing).values(), doubtful)))
        for use in found.values():
            if use.row.id in doubtful and use.live:  # as a whole, or not: of what it alone holds something may be lost
                use.damaged = use.row.id in damaged
                use.superseded = use.spare == use.live and self.is_own(use.row)
                use.spare = use.live if use.superseded else 0
        return found

    def _ranks(self, uses: Iterable[Use], doubtful: Collection[PackId]) -> dict[PackRow, int]:
        """Of several copies of a blob the one in the pack of the highest rank is to stay.

        One that cannot go now, else one of the session from which most is needed: so what is superfluous lies together,
        in packs that can be removed, and is not strewn over all.  None where no copy is known to survive.
        """
        sound = [] if self._blind else [u for u in uses if u.row in self._indexed and u.row.id not in doubtful]
        kept = [u for u in sound if self._is_trusted(u.row.sid)]
        needed = defaultdict[SessionId, int](int)
        for use in kept:
            needed[use.row.sid] += use.live

        def order(use: Use) -> tuple[bool, int, SessionId, PackId]:
            row = use.row
            return row.sid not in self.filled or not self.may_go(row.id), needed[row.sid], row.sid, row.id

        return {use.row: rank for rank, use in enumerate(sorted(kept, key=order), 1)}

    def _is_trusted(self, sid: SessionId) -> bool:
        """Whether a session is the owner's or a maintainer's.

        What a writer sealed may open for whoever looks, and not for the recovery key; nobody could tell.  So it is
        never the copy for the sake of which another one goes.
        """
        if sid not in self._trusted:
            self._trusted[sid] = False
            with suppress(Damaged):
                author = self.vault.sessions.header(sid)[1]
                self._trusted[sid] = author.role in Role.MAINTAINERS and author.holder not in self.vault.ring.removed
        return self._trusted[sid]

    def _uses(self, spare: Sequence[Sequence[int]]) -> dict[PackId, Use]:
        """``spare``: by table and segment."""
        found: dict[PackId, Use] = {}
        for table, live, more in zip(self.index.tables, self._live.live_bytes(), spare, strict=True):
            mine: dict[int, Use] = {}
            for number, row in enumerate(table.packs):
                if row.domain == self.domain and row.id not in self.going and self.present.get(row.id) == row.size:
                    mine[number] = Use(row)
            rows = table.segments
            for segment in range(len(live)):
                use = mine.get(rows[4 * segment])
                if use is not None:
                    use.raw += rows[4 * segment + 3]
                    use.live += live[segment]
                    use.spare += more[segment]
            for use in mine.values():  # of a pack that several describe, what needs most of it
                other = found.setdefault(use.row.id, use)
                if (use.live - use.spare, use.live) > (other.live - other.spare, other.live):
                    found[use.row.id] = use
        return found

    def alone(self, rotten: Collection[PackId] = ()) -> frozenset[PackId]:
        """Packs that were removed for ever, and are there, and hold what is needed and in no other whole pack.

        Somebody brought them back from a copy.  ``rotten``: what is not whole, beside the packs of which it is known.
        """
        back = self.going & self.present.keys()
        if not back:
            return frozenset()
        doubtful = self.going | read_verdicts(self.vault.backend, self.vault.ring, DAMAGED).packs.keys() | {*rotten}
        mine = {row for t in self.index.tables for row in t.packs if row.domain == self.domain}
        there = {row for row in mine if self.present.get(row.id) == row.size}
        spare = self._live.spare_bytes({row: 1 if self._blind or row.id in doubtful else 2 for row in there})
        return frozenset(
            row.id
            for table, live, more in zip(self.index.tables, self._live.live_bytes(), spare, strict=True)
            for segment, pack in enumerate(table.segments[::4])
            if (row := table.packs[pack]).id in back and row.domain == self.domain and live[segment] > more[segment]
        )

    def needed(self, ids: bytes) -> list[BlobId]:
        """Those of some concatenated ids that a snapshot needs."""
        blobs = each_id(ids)
        live = [False] * len(blobs)
        for table, marks in zip(self.index.tables, self._live.marks, strict=True):
            found = struct.unpack(f"<{len(blobs)}q", find_records(table.records, WIDTH, ids))
            live = [known or (at >= 0 and marks[at] != 0) for known, at in zip(live, found, strict=True)]
        return [blob for blob, needed in zip(blobs, live, strict=True) if needed]

    def survives(self, blob: BlobId, condemned: Collection[PackId]) -> bool:
        """Whether a trusted, indexed copy outside these packs and what was removed is there, and is as its id says."""
        for place in self.reader.index.places(blob) if not self._blind else ():
            pack = place.pack
            if pack.id in condemned or pack.id in self.removed or self.present.get(pack.id) != pack.size:
                continue
            if pack not in self._indexed or not self._is_trusted(pack.sid):
                continue
            with suppress(Damaged, NotFound):
                self.read(blob, place)
                return True
        return False

    def read(self, blob: BlobId, place: Place) -> memoryview:
        """A blob at a place, verified (the type that was said, too); Damaged, NotFound."""
        where = place.pack.id, place.start, place.sealed
        if where in self._failed:  # for each blob in it the same
            raise Damaged(f"{names.pack(place.pack.id)}, segment at {place.start}: it could not be opened before")
        try:
            segment = self.reader.segment(place)
        except (Damaged, NotFound) as e:
            self._failed.add(where)
            if isinstance(e, Damaged) and self._is_trusted(place.pack.sid):
                self.rotten.add(place.pack.id)
            raise
        return self.reader.verified(blob, place.type, place, segment)

    def unvisited(self, gone: Collection[PackId], visited: Collection[Where], *, every: bool) -> Iterator[PackRow]:
        """Packs among ``gone`` in which the index has a segment that was not looked into.

        Only segments of which something is needed count, and no pack that another GC removes, which saw to it that
        nobody needs it; for a repair (``every``) all of them, since some may have been brought back.
        """
        gone = {pack for pack in gone if pack in self.present and (every or pack not in self.going)}
        for table, live in zip(self.index.tables, self._live.live_bytes(), strict=True):
            rows = table.segments
            for segment in range(len(live)):
                row = table.packs[rows[4 * segment]]
                counts = row.id in gone and row.domain == self.domain and (every or live[segment])
                if counts and (row, rows[4 * segment + 1], rows[4 * segment + 2]) not in visited:
                    yield row

    def is_own(self, row: PackRow) -> bool:
        """Whether a pack is of the session and the domain that somebody says, by the header in the pack itself.

        Else a writer could have packs removed by listing them as its own.
        """
        try:
            head = self.vault.sessions.in_pack(row.id, row.size)[0].head
        except (Damaged, NotFound):
            return False
        return (head.sid, head.domain) == (row.sid, row.domain) and head.domain == self.domain


def _is_slot(name: str) -> bool:
    return name.startswith(names.SNAPSHOTS) and names.is_session_id(name.removeprefix(names.SNAPSHOTS))


def _is_trusted_gc(ring: Keyring, slot: Slot) -> bool:
    return slot.record.kind == GC_DONE and slot.holder not in ring.removed


def removed_names(ring: Keyring, slots: Iterable[Slot]) -> set[str]:
    """What slots name as removed for ever, packs and index objects."""
    return {name for s in slots if _is_trusted_gc(ring, s) for name in s.record.removed}


def going_by(vault: Vault, slots: Iterable[Slot]) -> list[Slot]:
    """The slots of GCs whose deletions anybody may finish: at a place that is or was a copy, only those that ran here.

    Of these the record is there until all is deleted; what the source removed may be needed here.
    """
    trusted = [s for s in slots if _is_trusted_gc(vault.ring, s)]
    if trusted and vault.standing().since:
        records = listed(vault, names.GC)
        return [s for s in trusted if names.GC + s.record.sid in records]
    return trusted


def _roots(reading: Reading, tombstones: Mapping[SnapshotId, TombstoneRecord]) -> tuple[list[Slot], set[SessionId]]:
    """Snapshots that need their data, and those of them that are forgotten."""
    roots, waiting = list[Slot](), set[SessionId]()
    # A problem with a slot that verifies is that nobody accepts it.
    settled = {names.snapshot(s.record.sid) for s in reading.every}
    settled |= {names.snapshot(sid) for sid, t in tombstones.items() if is_due(t)}
    for problem in reading.problems:
        if any(_is_slot(n) and n not in settled for n in problem.affected):
            raise Damaged(
                f"nothing is removed: {problem.message}",
                hint="mend it from a copy of the repository, or forget it by its id, with --undelete-window 0h",
                affected=problem.affected,
            )
    for slot in reading.accepted:
        tombstone = tombstones.get(slot.record.sid)
        if slot.record.kind != COMMIT:
            continue
        if tombstone is not None and tombstone.record == slot.digest:
            if is_due(tombstone):
                continue
            waiting.add(slot.record.sid)
        roots.append(slot)
    return roots, waiting
