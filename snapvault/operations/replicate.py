"""Replication: a copy of a repository at another place, made and verified without any key (docs/replication.md).

The same objects under the same names, in the order of a writer, so that the copy can be used at any moment: what a
snapshot needs is there before the snapshot is.  Deletions are never mirrored.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from blake3 import blake3

from snapvault.backend.control import controlled
from snapvault.backend.protocol import Backend, NotFound, ObjectInfo
from snapvault.backend.wrapper import settle
from snapvault.format import names
from snapvault.format.index import IndexRecord
from snapvault.format.signed import decode_signed
from snapvault.format.snapshot import COMMIT, decode_snapshot
from snapvault.format.wire import Kind
from snapvault.foundation.ahead import ahead, beside, both
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Conflict, Damaged, RepositoryNotFound
from snapvault.foundation.events import Control, Reporter
from snapvault.foundation.ids import PackId, SessionId
from snapvault.foundation.words import count
from snapvault.operations.copying import ObjectCopier, Outcome
from snapvault.operations.exchange import bring_attestations
from snapvault.operations.genuine import Genuine
from snapvault.operations.joining import bring_keys, join
from snapvault.operations.missing import ENDED
from snapvault.operations.results import DAMAGED, OK, Finding, Result
from snapvault.repository.cache import Cache
from snapvault.repository.capabilities import record_capabilities
from snapvault.repository.careful import CarefulBackend
from snapvault.repository.history import History
from snapvault.repository.keyring import public_ring
from snapvault.repository.keysets import newest_keyset, read_config
from snapvault.repository.loader import IndexLoader
from snapvault.repository.replica import standing
from snapvault.repository.sessions import Sessions
from snapvault.repository.site import Site
from snapvault.repository.store import Store
from snapvault.repository.trust import Untrusted

PACKS_AT_ONCE, SMALL_AT_ONCE, INDEXES_AT_ONCE = 3, 16, 2
LARGE_PACK = 64 << 20  # bytes; one that is larger is copied alone, since all of it is in memory
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class ReplicaResult(Result):
    """What a replication brought.  All that the source's snapshots need is at the target, unless ``problems`` says."""

    source: str
    target: str
    objects: int  # copied
    packs: int
    bytes: int
    healed: int  # objects at the target that were cut short, or damaged, and are replaced
    snapshots: int  # that came by this run
    problems: tuple[Finding, ...]
    seconds: float

    @property
    def status(self) -> str:
        return DAMAGED if any(not p.harmless for p in self.problems) else OK


def replicate(
    source: Site | str, target: Site | str, *, create: bool = True, control: Control | None = None
) -> ReplicaResult:
    """Bring what ``target`` lacks of the repository at ``source``; a new target is made, if ``create`` allows it.

    It may be run beside everything else, again at any time, and from anywhere that reaches both.  InvalidInput if
    another repository, or something else, is at the target; Conflict if the target is a source of its own, or is used
    as one right now; Damaged if config or keysets cannot be copied; RepositoryNotFound; all errors of both stores.
    """
    begin, end = _site(source), _site(target)
    from_ = begin.open()
    try:
        read_config(from_)  # before anything is made at the target
        to = end.open(create=create)
        try:
            if not create:
                _require(to)
            return _Replication(controlled(from_, control), controlled(to, control), control, to).run()
        finally:
            to.close()
    finally:
        from_.close()


def _site(place: Site | str) -> Site:
    return place if isinstance(place, Site) else Site(os.fspath(place))


def _require(target: Backend) -> None:
    try:
        read_config(target)
    except RepositoryNotFound as e:
        raise RepositoryNotFound(
            f"the copy that was at {target.url} is gone: {e.message}", hint="is the disk mounted, the address right?"
        ) from e


class _Vanished(Exception):
    """A prune at the source removed what was to be copied: begin again."""


@dataclass(slots=True)
class _Tally:
    """What this run did."""

    objects: int = 0
    packs: int = 0
    bytes: int = 0
    healed: int = 0
    snapshots: int = 0
    problems: dict[str, Finding] = field(default_factory=dict)  # by what they say

    def find(self, message: str, *objects: str, harmless: bool = False) -> None:
        self.problems[message] = Finding(message, objects, harmless=harmless)


@dataclass(slots=True)
class _Indexes:
    """What index objects of the source say."""

    packs: dict[str, set[str]] = field(default_factory=dict)  # by index object: the packs that it names
    unreadable: list[str] = field(default_factory=list)  # damaged, or nobody's who may put them


class _Replication:
    def __init__(self, source: Backend, target: Backend, control: Control | None, bare: Backend | None = None) -> None:
        """``bare``: the target without limits, behind which those who race to create an object would queue."""
        self._source, self._target, self._bare = source, target, bare or target
        self._failed_beside: Callable[[], None] = lambda: None
        self._reporter = Reporter("replicate", control)
        self._tally = _Tally()
        self._absent: set[str] = set()  # packs that an index names, and an attempt did not find
        self._authors: dict[str, SessionId] = {}  # of index objects

    def run(self) -> ReplicaResult:
        began = now_ns()
        config, digest = read_config(self._source)
        newest_keyset(self._source, config, digest)  # or a config that is forged would be all that the target is told
        join(self._source, self._target, config, digest)
        settle(self._target, [names.KEYSETS, names.SESSIONS, names.INDEX, names.SNAPSHOTS, *_PACK_FOLDERS])
        self._target = careful = CarefulBackend(self._target)
        with beside(lambda: _find_out(careful, self._bare)) as self._failed_beside:  # it takes seconds
            self._pull_again()
        bring_attestations(self._source, self._target, self._ring)  # the other way only who may write there
        t = self._tally
        return ReplicaResult(
            self._source.url, self._target.url, t.objects, t.packs, t.bytes, t.healed, t.snapshots,
            tuple(t.problems.values()), (now_ns() - began) / 1e9,
        )  # fmt: skip

    # -- one pass, in the order of a writer ------------------------------------------------------------------------

    def _pull_again(self) -> None:
        """Until no prune at the source comes between."""
        for attempt in range(ATTEMPTS):
            try:
                return self._pull(last=attempt + 1 == ATTEMPTS)
            except _Vanished:
                continue
        raise Conflict("prunes at the source removed what was to be copied, time after time", hint="run it again")

    def _pull(self, *, last: bool) -> None:
        """Bring everything that the slots need which are listed first."""
        slots = {n: size for n, size in self._there(self._source, names.SNAPSHOTS).items() if _is_slot(n)}
        # The keys after the slots: what these were sealed to is in keysets that are there by now.
        _, here = both(self._open_source, lambda: self._there(self._target, names.SNAPSHOTS))
        new = {n: size for n, size in slots.items() if here.get(n) != size}
        forgotten = self._forgotten(new)
        wanted = [n for n in new if not _is_gc(n) and _sid(n) not in forgotten]
        # Also of slots that are here: a header that could not be read when they came is asked for again.
        self._announce([*wanted, *(n for n in slots if n not in new and not _is_gc(n))])
        self._bring_data(slots, last=last)
        forgotten = self._forgotten(new)
        never = [n for n in new if not _is_gc(n) and _sid(n) in forgotten]
        self._copy([ObjectInfo(names.tombstone(_sid(n)), forgotten[_sid(n)]) for n in never if n not in here])
        coming = {n: new[n] for n in wanted if _sid(n) not in forgotten}
        self._copy(_infos(coming))
        self._tally.snapshots += sum(ahead(self._is_commit, coming, SMALL_AT_ONCE))
        self._copy(_infos({n: size for n, size in new.items() if _is_gc(n)}))  # last: they let a GC here remove
        for missing in list(ahead(self._missing, (names.NOTES, names.REGISTER, names.EVIDENCE), SMALL_AT_ONCE)):
            self._copy(missing)

    def _open_source(self) -> None:
        """The keys, and what verifies with them."""
        config, digest = read_config(self._source)
        keyset = bring_keys(self._source, self._target, config, digest, self._tally.find)
        self._ring, store = public_ring(config, digest, keyset), Store(self._source, Cache(None))
        genuine = Genuine(self._ring, self._source)
        self._copier = ObjectCopier(self._source, self._target, dict(keyset.rescue), genuine)
        self._sessions = sessions = Sessions(store, self._ring)
        self._loader, self._history = IndexLoader(store, self._ring, sessions), History(store, self._ring, sessions)

    def _announce(self, slots: Iterable[str]) -> None:
        """W1: from here on a GC that the target begins once it is promoted waits for these."""
        coming = [names.session(_sid(n)) for n in slots]
        if not coming:
            return
        at_source, here = self._at_both(names.SESSIONS)
        self._copy(_infos({n: at_source[n] for n in coming if n in at_source and n not in here}))

    def _bring_data(self, slots: Mapping[str, int], *, last: bool) -> None:
        """W2 to W4: the packs that index objects name and the target lacks; then those index objects that are whole."""
        (indexes, have), here = both(lambda: self._at_both(names.INDEX), lambda: self._there(self._target, names.PACKS))
        fresh = {n: size for n, size in indexes.items() if have.get(n) != size}
        found = self._read(fresh)
        at_source = self._there(self._source, names.PACKS)  # after the indexes: what is named was put before
        lacking = {n: size for n, size in at_source.items() if here.get(n) != size}
        named = set[str]().union(*found.packs.values())
        unnamed = lacking.keys() - named
        if unnamed and not found.unreadable:
            unnamed = unnamed - self._removed(slots)
        if unnamed and not found.unreadable:
            # Not indexed yet; or lost here, and an index object that is here already names it.
            older = self._read({n: size for n, size in indexes.items() if n not in fresh})
            named = named.union(*older.packs.values())
            found.unreadable += older.unreadable
        # Where an index object cannot be read, whatever it may have named comes: packs describe themselves.
        orphans = set() if found.unreadable else self._orphans({n: lacking[n] for n in unnamed - named}, slots)
        wanted = {n: size for n, size in lacking.items() if n in named or n in orphans or found.unreadable}
        without = self._without(found.packs, named - at_source.keys() - here.keys(), slots, last=last)
        small = {n: size for n, size in wanted.items() if size <= LARGE_PACK}
        self._copy(_infos(small), PACKS_AT_ONCE, again=True)
        self._copy(_infos({n: size for n, size in wanted.items() if n not in small}), 1, again=True)
        if orphans:
            what = f"{count(len(orphans), 'pack')} came that no index object of the source names"
            self._tally.find(what, *sorted(orphans), harmless=True)
        bring = [n for n in found.packs if n not in without]
        # Some of GCs have their header nowhere else.
        self._announce(filter(_is_gc, (names.snapshot(self._authors[n]) for n in bring)))
        self._copy(_infos({n: fresh[n] for n in bring if n in fresh}), INDEXES_AT_ONCE, again=True)

    def _orphans(self, packs: Mapping[str, int], before: Mapping[str, int]) -> set[str]:
        """Those of some packs that no index object names, though their session ended; readers find them, too.

        But not those that a prune removes just now, which put its slot before it took their index objects away.
        ``before``: the slots of which that was asked already.
        """
        slots = self._there(self._source, names.SNAPSHOTS) if packs else {}
        late = {n: size for n, size in slots.items() if n not in before}
        packs = {n: packs[n] for n in sorted(packs.keys() - self._removed(late))}

        def is_orphan(name: str) -> bool:
            digest = names.content_digest(name)
            with suppress(Damaged, NotFound):
                if digest is not None:
                    header, _ = self._sessions.in_pack(PackId(digest), packs[name])
                    return names.snapshot(header.head.sid) in slots
            return False

        return {n for n, orphan in zip(packs, ahead(is_orphan, packs, SMALL_AT_ONCE), strict=True) if orphan}

    def _without(
        self, packs: Mapping[str, set[str]], absent: set[str], slots: Mapping[str, int], *, last: bool
    ) -> set[str]:
        """Index objects that do not come, since they name packs that are nowhere: the next run looks again.

        _Vanished if one may just have been removed.
        """
        if not absent:
            return set()
        lost = absent - self._removed(slots)
        if lost - self._absent and not last:
            self._absent |= lost
            raise _Vanished
        for name in lost:
            self._tally.find(f"{name} is missing at the source: what lies in it is not in the copy", name)
        return {index for index, named in packs.items() if named & absent}

    def _read(self, indexes: Mapping[str, int]) -> _Indexes:
        """What these index objects name; _Vanished if one has gone."""

        def read(info: ObjectInfo) -> IndexRecord | Damaged:
            try:
                return self._loader.verify(self._loader.fresh(info))[0]
            except NotFound:
                raise _Vanished from None
            except Damaged as e:
                return e

        found, infos = _Indexes(), _infos(indexes)
        for info, record in zip(infos, ahead(read, infos, INDEXES_AT_ONCE), strict=True):
            self._reporter.check()
            if isinstance(record, Damaged):
                found.unreadable.append(info.name)
                self._tally.find(
                    f"{info.name} does not come: {record.message}", info.name, harmless=isinstance(record, Untrusted)
                )
            else:
                self._authors[info.name] = record.sid
                found.packs[info.name] = {names.pack(pack) for pack, _, _ in record.packs}
        return found

    def _removed(self, slots: Mapping[str, int]) -> set[str]:
        """The packs that GCs of the source removed for ever, by the slots that were listed."""
        found = set[str]()
        for name in filter(_is_gc, slots):
            try:
                packs, holder = self._loader.removed_by(name)
            except (Damaged, NotFound) as e:
                self._tally.find(f"{name} is ignored: {e.message}", name, harmless=isinstance(e, Untrusted))
                continue
            if holder not in self._ring.removed:
                found.update(map(names.pack, packs))
        return found

    def _forgotten(self, slots: Iterable[str]) -> dict[SessionId, int]:
        """Those of some slots that a maintainer has forgotten at the source, and the sizes of their tombstones.

        Whoever may merely write there must not keep a snapshot from coming.
        """
        wanted, found = set(map(_sid, slots)), dict[SessionId, int]()
        for name, size in self._there(self._source, names.TOMBSTONES).items():
            sid = SessionId(name.removeprefix(names.TOMBSTONES))
            if sid in wanted:
                try:
                    record = self._history.tombstone(ObjectInfo(name, size))
                    if record.record != blake3(self._source.get(names.snapshot(sid))).digest():
                        raise Untrusted("it means another record than the one that is there")
                    found[sid] = size
                except NotFound:
                    continue  # taken back
                except Damaged as e:
                    self._tally.find(f"{name} is ignored: {e.message}", name, harmless=True)
        return found

    def _is_commit(self, slot: str) -> bool:
        try:
            return decode_snapshot(decode_signed(Kind.SNAPSHOT, self._target.get(slot)).payload).kind == COMMIT
        except (Damaged, NotFound):
            return False

    # -- copying ---------------------------------------------------------------------------------------------------

    def _there(self, backend: Backend, prefix: str) -> dict[str, int]:
        """Names and sizes below a prefix."""
        found = {}
        for info in backend.list(prefix):
            self._reporter.check()
            found[info.name] = info.size
        return found

    def _at_both(self, prefix: str) -> tuple[dict[str, int], dict[str, int]]:
        """Of the source, and of the target."""
        return both(lambda: self._there(self._source, prefix), lambda: self._there(self._target, prefix))

    def _missing(self, prefix: str) -> list[ObjectInfo]:
        there, have = self._at_both(prefix)
        return _infos({n: size for n, size in there.items() if have.get(n) != size})

    def _copy(self, wanted: list[ObjectInfo], at_once: int = SMALL_AT_ONCE, *, again: bool = False) -> None:
        """Copy objects, several in flight.  ``again``: _Vanished if one has gone; else it is passed over."""
        total, done = sum(o.size for o in wanted), 0
        for number, (info, outcome) in enumerate(
            zip(wanted, ahead(self._copier.copy, wanted, at_once), strict=True), 1
        ):
            self._reporter.check()
            self._failed_beside()
            done += info.size
            self._reporter.tick("copy", number, len(wanted), done, total, info.name)
            if outcome is Outcome.GONE and again:
                raise _Vanished
            self._count(info, outcome)

    def _count(self, info: ObjectInfo, outcome: Outcome) -> None:
        t = self._tally
        if outcome in (Outcome.COPIED, Outcome.HEALED):
            t.objects += 1
            t.bytes += info.size
            t.packs += info.name.startswith(names.PACKS)
            t.healed += outcome is Outcome.HEALED
        elif outcome is Outcome.DAMAGED:
            t.find(f"{info.name} is damaged at the source, or forged, and is not in the copy", info.name)
        elif outcome is Outcome.REFUSED:
            t.find(f"{info.name} is damaged at the target, which lets nobody replace it", info.name)
        elif outcome is Outcome.MORE and (_is_gc(info.name) or self._was_a_copy()):
            t.find(f"{info.name} says more at the target than at the source; it stays", info.name, harmless=True)
        elif outcome is Outcome.MORE:  # all that a copy has came from there
            t.find(f"{info.name} {ENDED}: only the copy has the snapshot", info.name)
        elif outcome is Outcome.CONFLICT:
            # The target keeps something longer than it has to, no more.
            late = info.name.startswith(names.TOMBSTONES) or _is_gc(info.name)
            t.find(f"{info.name} has other bytes at each place; both are left as they are", info.name, harmless=late)

    def _was_a_copy(self) -> bool:
        """Whether the source was promoted; then each place may have had backups that the other one took for dead."""
        with suppress(Damaged):
            return bool(standing(self._source, self._ring.config_digest, self._ring.config.owner_sign).promoted)
        return False


def _find_out(target: CarefulBackend, bare: Backend) -> None:
    """What the store does, if nobody knows: until that is written down, no name is relied upon to be free."""
    if not target.recorded():
        record_capabilities(bare)


_PACK_FOLDERS = [f"{names.PACKS}{number:02x}/" for number in range(256)]


def _infos(sizes: Mapping[str, int]) -> list[ObjectInfo]:
    return [ObjectInfo(name, size) for name, size in sizes.items()]


def _is_slot(name: str) -> bool:
    return names.is_session_id(name.removeprefix(names.SNAPSHOTS))


def _is_gc(slot: str) -> bool:
    return slot.startswith(names.SNAPSHOTS + names.GC_PREFIX)


def _sid(slot: str) -> SessionId:
    return SessionId(slot.removeprefix(names.SNAPSHOTS))
