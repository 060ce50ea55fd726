"""Removing packs by a fence instead of a clock: rules G3 to G7 (docs/concurrency.md).

Nothing is deleted before the slot of this session says so for ever; and it says so only after every session that may
rely on what goes has ended, and what snapshots need of it was copied.
"""

import math
import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from snapvault.backend.own import put_own
from snapvault.backend.protocol import NotFound, ObjectInfo
from snapvault.backend.wrapper import discard
from snapvault.format import names
from snapvault.format.local import GcRecord
from snapvault.format.pack import Segment
from snapvault.format.session import GC
from snapvault.format.tree import each_id
from snapvault.format.wire import Kind
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Conflict, Damaged, SnapvaultError
from snapvault.foundation.events import Limits, Reporter
from snapvault.foundation.ids import BlobId, DomainId, PackId, SessionId
from snapvault.operations.claims import table_digest
from snapvault.operations.fence import Fence, Yield
from snapvault.operations.pending import Left, Pending
from snapvault.operations.reclaim import NOTHING, Reclaimed, reclaim
from snapvault.operations.running import Running
from snapvault.operations.survey import ATTEMPTS, Survey, Where, listed, survey
from snapvault.repository.index import BlobIndex, PackRow, Place
from snapvault.repository.keyring import DomainKeys
from snapvault.repository.listing import IndexWriter
from snapvault.repository.loader import Entry
from snapvault.repository.replica import Standing
from snapvault.repository.repository import Vault
from snapvault.repository.session import Session
from snapvault.repository.store import fetch
from snapvault.repository.trust import sign
from snapvault.repository.verdicts import DAMAGED, put_verdicts, read_verdicts
from snapvault.repository.writer import BlobWriter

COPY_MEMORY = 96 << 20  # bytes of data in flight, where the caller sets no limit


@dataclass(frozen=True, slots=True)
class Collected:
    """What one GC did.  ``waits_for``: sessions that have not ended, so that it did nothing."""

    packs: int = 0  # that go for ever, whether the store lets them go now or later
    reclaimed: Reclaimed = NOTHING
    bytes_copied: int = 0
    spared: int = 0  # packs for which there was no time
    listed: int = 0  # packs, by their own directories
    lost: int = 0  # blobs of damaged packs
    indexes: int = 0  # objects in whose place others were put
    waits_for: tuple[SessionId, ...] = ()
    waits_until: float = 0.0  # when the leases of these end, by time.time(); 0: unknown


@dataclass(frozen=True, slots=True)
class Job:
    """What a GC of one domain is to do.

    ``relisted``: packs of which their own directories count, and not what index objects say.  ``salvage``: condemned
    packs are damaged, so that everything in them is kept that can be read, and nothing else can be.
    """

    condemned: frozenset[PackId] = frozenset()
    merged: frozenset[str] = frozenset()  # index objects in whose place another is put
    relisted: frozenset[PackId] = frozenset()
    salvage: bool = False
    settle: bool = False  # also if nothing goes: after it nobody misses what a session wrote and no snapshot needs

    def __bool__(self) -> bool:
        return bool(self.condemned or self.merged or self.relisted or self.settle)


class GarbageCollection:
    """One GC of one domain: condemns packs, and puts others in the place of index objects."""

    def __init__(
        self,
        vault: Vault,
        domain: DomainKeys,
        job: Job,
        reporter: Reporter,
        limits: Limits,
        *,
        left: Left | None = None,
    ) -> None:
        """``left``: the GC that an earlier run left open, with this job."""
        self._vault, self._domain, self._reporter, self._limits = vault, domain, reporter, limits
        self._job, self._left = job, left
        self._mark = left.mark if left else None
        if limits.memory is None:  # nobody waits for what is copied, and the index is in memory, too
            self._limits = replace(limits, memory=COPY_MEMORY)
        self._begun, self._spared = set[PackId](), set[PackId]()
        self._waited_at = Standing()
        self._until, self._listed = math.inf, 0
        self._pending = Pending(vault, domain)
        sid = SessionId(names.GC_PREFIX + secrets.token_hex(16))
        self._session = left.session if left else Session(vault.store, vault.ring, domain, purpose=GC, sid=sid)

    @classmethod
    def resume(cls, vault: Vault, domain: DomainKeys, reporter: Reporter, limits: Limits) -> "GarbageCollection | None":
        """The one that an earlier run of this client left open, waiting for sessions to end."""
        left = Pending(vault, domain).take_up()
        if left is None:
            return None
        return cls(vault, domain, Job(left.condemned, left.merged), reporter, limits, left=left)

    def run(self, *, wait: float, lease: float, until: float = math.inf) -> Collected:
        """All of it, or nothing.

        An error leaves everything as it was.  If a session does not end in time, a prune stays open for the next run.
        ``until``: from this ``time.monotonic`` on no other pack is copied; those that would have to be are given back.
        """
        self._until = until
        try:
            if self._left is None:
                self._mark = Running(self._vault).begin(self._session.sid)
                self._session.announce()
                self._vault.check_holder()
                self._publish()
            else:
                self._vault.check_holder()
            waits_for, waits_until = self._wait(wait, lease)
            if waits_for:
                return Collected(waits_for=waits_for, waits_until=waits_until)
            now, replaced, copier = self._look_and_copy()
            gone = self._job.condemned - self._spared
            self._session.finish_gc([*map(names.pack, sorted(gone)), *replaced])
            self._ended()
        except BaseException as e:
            revoked = isinstance(e, Damaged | NotFound) and self._was_revoked()
            self.give_up()
            if revoked:  # so others need not heed it any more, and what it read may be gone
                raise Conflict("this prune was revoked by another one; nothing was removed by it") from e
            raise
        finally:
            if self._mark is not None:
                self._mark.release()
        doomed = [ObjectInfo(names.pack(pack), now.present.get(pack, 0)) for pack in sorted(gone)]
        done = self._delete([*(ObjectInfo(name, 0) for name in sorted(replaced)), *doomed])
        return Collected(len(gone), done, copier.stored, len(self._spared), self._listed, copier.lost, len(replaced))

    def _publish(self) -> None:
        """G3: nobody who announces itself from now on relies on these packs."""
        keys = self._vault.ring.signing
        record = GcRecord(self._vault.ring.config_digest, self._session.sid, tuple(sorted(self._job.condemned)))
        name = names.GC + self._session.sid
        put_own(self._vault.backend, name, sign(Kind.GC, record.encode(), keys.id, keys.signer))

    def _was_revoked(self) -> bool:
        with suppress(SnapvaultError):
            return self._has_ended()
        return False

    def _has_ended(self) -> bool:
        """Whether the slot is filled, by whom ever."""
        slot = names.snapshot(self._session.sid)
        return any(o.name == slot for o in self._vault.backend.list(slot))

    def _wait(self, wait: float, lease: float) -> tuple[tuple[SessionId, ...], float]:
        """G4 and G5: who has not ended, and until when at most; nobody: the fence holds."""
        began = None if self._left is None else self._left.open
        fence = Fence(self._vault, self._session.sid, lease, began)
        try:
            waits_for = fence.wait(wait, self._reporter)
        except Yield as e:
            self.give_up()
            return (e.other,), fence.until((e.other,))
        self._waited_at = fence.standing
        if waits_for:
            # What a repair condemns holds what others could rely on; so it is not condemned for longer than a run.
            kept = not self._job.salvage
            if kept and self._pending.save(self._session.sid, self._job.merged, waits_for):
                self._session.pause()
                self._ended()
            else:
                self.give_up()
        return waits_for, fence.until(waits_for)

    def _ended(self) -> None:
        """Of this GC nothing needs to be ended by a later run."""
        if self._mark is not None:
            self._mark.drop()

    def give_up(self) -> None:
        """Fill the slot, then take the record away: its packs are given back."""
        try:
            if self._session.abort():
                self._ended()
                self._remove_traces()
            elif self._has_ended():  # by somebody else, who may have put objects in its name
                self._ended()
                discard(self._vault.backend, names.GC + self._session.sid)
        finally:
            if self._mark is not None:
                self._mark.release()

    def _remove_traces(self) -> None:
        """What a GC needs as long as its slot is empty; the header for as long as something of it is in the store."""
        discard(self._vault.backend, names.GC + self._session.sid)
        if not self._session.wrote:
            discard(self._vault.backend, names.session(self._session.sid))

    def _look_and_copy(self) -> tuple[Survey, list[str], "_Copier"]:
        """G6 and the copies of G7; once more if another GC put other index objects in the place of some meanwhile."""
        for _ in range(ATTEMPTS):
            before = listed(self._vault, names.INDEX)
            now = survey(self._vault, self._domain.id, snapshots=not self._job.salvage)
            # Where writers were not waited for, since this seemed to be a copy, nothing goes that they may rely on: a
            # mark is not signed, so whoever may write can put one.
            free = now.free_at(self._waited_at)
            if free is not None and not self._job.condemned <= free:
                raise Conflict("this place became a copy since the prune was planned", hint="run it again")
            try:
                return now, *self._copy(now)
            except Damaged:
                if before <= listed(self._vault, names.INDEX):
                    raise
            finally:
                self._tell(now.rotten)
        raise Conflict("other prunes removed what this one read, time after time", hint="run it again")

    def _tell(self, rotten: Collection[PackId]) -> None:
        """Write down which packs were found damaged, so that nobody relies on them, and the next run neither."""
        backend, ring = self._vault.backend, self._vault.ring
        with suppress(SnapvaultError):  # then the next run finds them, too
            known = read_verdicts(backend, ring, DAMAGED).packs if rotten else {}
            put_verdicts(backend, ring, DAMAGED, {pack: now_ns() for pack in rotten if pack not in known})

    # -- G6 and G7 -----------------------------------------------------------------------------------------------

    def _copy(self, now: Survey) -> tuple[list[str], "_Copier"]:
        """Copy what is needed of condemned packs, and list anew what old index objects say of others.

        The index objects that go, and who copied.
        """
        self._begun, self._spared, self._listed = set(), set(), 0
        job, writer = self._job, BlobWriter(self._session, BlobIndex(), self._domain, limits=self._limits)
        copier = _Copier(now, job, writer)
        anew, said = IndexWriter(self._session), set[tuple[PackRow, bytes]]()
        replaced = []
        try:
            for name, entries in self._index_objects(now):
                old = name in now.replaced  # brought back with packs that it describes
                if name not in job.merged and {e[0].id for e in entries}.isdisjoint(job.condemned | job.relisted):
                    continue
                replaced.append(name)
                for row, segments in entries:
                    self._reporter.check()
                    if row.id in job.condemned and not self._is_late(row.id, segments, copier, now):
                        copier.copy(row, segments)
                    elif old or row.id in now.going or row.id in job.relisted:
                        continue
                    elif (claim := (row, table_digest(segments))) not in said:
                        said.add(claim)  # once is enough
                        anew.add((row, segments))
                del entries  # half a million blobs, before the next
            for row, segments in self._vault.loader.of_removed() if job.salvage else ():
                if row.id in job.condemned and row.domain == self._domain.id:
                    copier.copy(row, segments)
            for pack in sorted((job.condemned & now.present.keys()) - self._spared):
                # What it says of itself, since somebody may have left out some.  If it is gone, another prune removed
                # it, and saw to it that nobody needs it.
                with suppress(NotFound, Damaged):
                    entry = self._vault.loader.read_directory(pack, now.present[pack])
                    if entry[0].domain == self._domain.id:
                        copier.copy(*entry)
                    else:  # nobody could tell before
                        self._spared.add(pack)
            for pack in sorted((job.relisted & now.present.keys()) - now.going):
                with suppress(NotFound):  # another prune removed it
                    entry = self._vault.loader.read_directory(pack, now.present[pack])
                    if entry[0].domain == self._domain.id:  # else somebody listed as its own what is not
                        anew.add(entry)
                        self._listed += 1
            copier.finish(job.condemned - self._spared)
        except BaseException:
            copier.close()
            raise
        anew.flush()
        return replaced, copier

    def _is_late(self, pack: PackId, segments: Sequence[Segment], copier: "_Copier", now: Survey) -> bool:
        """Whether there is no time left for this pack, of which nothing was copied yet and something would have to.

        Never one that another GC's slot names: that goes for ever, whatever this one says.
        """
        if pack in self._begun or pack in now.removed:
            return False
        if pack in self._spared or (time.monotonic() >= self._until and copier.needs(segments)):
            self._spared.add(pack)
            return True
        self._begun.add(pack)
        return False

    def _index_objects(self, now: Survey) -> Iterator[tuple[str, list[Entry]]]:
        for info in list(self._vault.backend.list(names.INDEX)):
            if info.name in now.replaced and not self._job.salvage:  # by another GC, and the store did not let it go
                continue
            try:
                data = fetch(self._vault.backend, info.name, info.size)
                if not is_replaceable(self._vault, self._domain.id, data):
                    continue
                entries = self._vault.loader.open(info.name, data)
                del data
                yield info.name, entries
                del entries
            except (Damaged, NotFound):
                continue  # what it may have said was found in the packs themselves

    def _delete(self, doomed: Sequence[ObjectInfo]) -> Reclaimed:
        """The slot says GC done: from here on any maintainer may finish this.  Index objects before packs."""
        done = reclaim(self._vault.backend, doomed, hide=self._job.salvage)  # damaged packs would be found each time
        if done.complete or not self._waited_at.since:  # at a copy the record says that they may go
            self._remove_traces()
        return done


def is_replaceable(vault: Vault, domain: DomainId, data: bytes) -> bool:
    """Whether a GC of this domain may put another index object in the place of this one; Damaged, NotFound."""
    record, _ = vault.loader.verify(data)
    return record.domain == domain and vault.loader.author(data) not in vault.ring.removed


class _Copier:
    """Copies blobs out of packs that go: those that are needed, or all that can be read."""

    def __init__(self, survey: Survey, job: Job, writer: BlobWriter) -> None:
        self._survey, self._job, self._writer = survey, job, writer
        self._settled: set[BlobId] = set()
        self._lost: dict[BlobId, str] = {}  # by what was said of it; somebody else may say it right
        self._visited: set[Where] = set()
        self.stored = 0  # bytes of packs

    @property
    def lost(self) -> int:
        """How many blobs could not be copied."""
        return len(self._lost.keys() - self._settled)

    def needs(self, segments: Sequence[Segment]) -> bool:
        """Whether something in these is to be copied, or has a copy elsewhere that would have to be looked at."""
        return self._job.salvage or any(self._survey.needed(s.ids) for s in segments)

    def copy(self, row: PackRow, segments: Sequence[Segment]) -> None:
        """Everything that a pack holds, as somebody says, that is needed and has no copy that survives."""
        for segment in segments:
            self._visited.add((row, segment.offset, segment.sealed))
            needed = each_id(segment.ids) if self._job.salvage else self._survey.needed(segment.ids)
            wanted = set(needed) - self._settled
            for b in segment.blobs() if wanted else ():
                if b.id in wanted:
                    place = Place(row, segment.offset, segment.sealed, segment.raw, b.offset, b.length, b.type)
                    try:
                        if not self._survey.survives(b.id, self._job.condemned):
                            self._put(b.id, place)
                        self._settled.add(b.id)
                    except Damaged as e:
                        self._lost[b.id] = e.message

    def _put(self, blob: BlobId, place: Place) -> None:
        """From here, or from any other place; Damaged."""
        message = f"blob {blob.hex()[:16]} is nowhere"
        for other in (place, *self._survey.reader.index.places(blob)):
            try:
                data = self._survey.read(blob, other)
            except (Damaged, NotFound) as e:
                message = e.message
            else:
                if self._writer.put(other.type, data) == blob:
                    return
                message = f"blob {blob.hex()[:16]} is of another domain"
        raise Damaged(message)

    def finish(self, gone: Collection[PackId]) -> None:
        """Everything in these packs is copied and indexed when this returns.

        Damaged if something that is needed is lost; or if the index named something in them that was never looked at,
        because what named it came damaged now.
        """
        lost = self._lost.keys() - self._settled
        if lost and not self._job.salvage:
            raise Damaged(
                f"nothing is removed: {len(lost)} chunks that snapshots need cannot be read: {self._lost[min(lost)]}",
                hint="'snapvault check --repair' saves what can be read, and names the paths that are lost",
            )
        for row in self._survey.unvisited(gone, self._visited, every=self._job.salvage):
            raise Damaged(
                f"nothing is removed: what the index said of pack {row.id.hex()} cannot be read any more",
                hint="run it again; 'snapvault check' names what is damaged",
                affected=[names.pack(row.id)],
            )
        self._writer.flush()
        self.stored = self._writer.written.stored
        self._writer.close()

    def close(self) -> None:
        """Stop; what was put is garbage."""
        self._writer.close()
