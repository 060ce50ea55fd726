"""Replication: a copy of a repository at another place, made and verified without any key (docs/replication.md).

The same objects under the same names, in the order of a writer, so that the copy can be used at any moment: what a
snapshot needs is there before the snapshot is.  Deletions are never mirrored.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from snapvault.backend.guard import CancelBackend
from snapvault.backend.limit import LimitBackend
from snapvault.backend.probe import probe
from snapvault.backend.protocol import Backend, NotFound, ObjectInfo
from snapvault.format import names
from snapvault.format.config import ConfigRecord
from snapvault.format.index import IndexRecord
from snapvault.format.keyset import KeysetRecord
from snapvault.format.local import CapabilitiesRecord, ReplicaRecord
from snapvault.foundation.ahead import ahead
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Conflict, Damaged, InvalidInput, RepositoryNotFound
from snapvault.foundation.events import Control, Reporter, limits_of
from snapvault.foundation.ids import SessionId
from snapvault.operations.copying import ObjectCopier, Outcome
from snapvault.operations.results import DAMAGED, OK, Finding, Result
from snapvault.repository.cache import Cache
from snapvault.repository.careful import CarefulBackend
from snapvault.repository.create import refuse_foreign
from snapvault.repository.keyring import Keyring
from snapvault.repository.loader import IndexLoader
from snapvault.repository.replica import standing
from snapvault.repository.repository import newest_keyset, read_config
from snapvault.repository.session import open_sessions
from snapvault.repository.sessions import Sessions
from snapvault.repository.site import Site
from snapvault.repository.store import Store, fetch
from snapvault.repository.trust import Untrusted

PACKS_AT_ONCE, SMALL_AT_ONCE, INDEXES_AT_ONCE = 4, 16, 2  # a pack may have tens of MB, an index object 18
ATTEMPTS = 5
PUBLIC_ROLE = "public"  # of whoever has no key
KEPT_AT_BOTH_ENDS = (names.ATTESTATIONS,)


@dataclass(frozen=True, slots=True)
class ReplicaResult(Result):
    """What a replication brought.  All that the source's snapshots need is at the target, unless ``problems`` says."""

    source: str
    target: str
    objects: int  # copied
    packs: int
    bytes: int
    healed: int  # objects at the target that were damaged, and are replaced
    snapshots: int  # that came by this run
    snapshots_total: int  # commit slots at the target
    problems: tuple[Finding, ...]
    seconds: float

    @property
    def status(self) -> str:
        return DAMAGED if any(not p.harmless for p in self.problems) else OK


def replicate(source: Site | str, target: Site | str, *, control: Control | None = None) -> ReplicaResult:
    """Bring what ``target`` lacks of the repository at ``source``; a new target is made.

    It may be run beside everything else, again at any time, and from anywhere that reaches both.  InvalidInput if
    another repository, or something else, is at the target; Conflict if the target is a source of its own, or is used
    as one right now; RepositoryNotFound; all errors of both stores.
    """
    begin, end = _site(source), _site(target)
    if begin.url == end.url:
        raise InvalidInput(f"{begin.url} is to be copied onto itself")
    from_, to = begin.open(), end.open(create=True)
    try:
        return _Replication(_controlled(from_, control, limited=True), _controlled(to, control), control).run()
    finally:
        from_.close()
        to.close()


def _site(place: Site | str) -> Site:
    return place if isinstance(place, Site) else Site(os.fspath(place))


def _controlled(backend: Backend, control: Control | None, *, limited: bool = False) -> Backend:
    rate = limits_of(control).bandwidth
    if limited and rate and control is not None:
        backend = LimitBackend(backend, download=rate, cancel=control.cancel)
    if control is not None and control.cancel is not None:
        backend = CancelBackend(backend, control.cancel)
    return backend


def exchange_attestations(source: Site | str, target: Site | str) -> None:
    """Bring what was attested at either place to the other one; all errors of both stores."""
    from_, to = _site(source).open(), _site(target).open()
    try:
        _Replication(from_, to, None).exchange()
    finally:
        from_.close()
        to.close()


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

    def find(self, message: str, name: str, *, harmless: bool = False) -> None:
        self.problems[message] = Finding(message, (name,), harmless=harmless)


class _Replication:
    def __init__(self, source: Backend, target: Backend, control: Control | None) -> None:
        self._source: Backend = CarefulBackend(source)
        self._target = target
        self._reporter = Reporter("replicate", control)
        self._tally = _Tally()
        self._authors: set[SessionId] = set()  # of index objects
        self._absent: set[str] = set()  # packs that an index names, and an attempt did not find
        self._forwards, self._backwards = ObjectCopier(source, target, {}), ObjectCopier(target, source, {})

    def run(self) -> ReplicaResult:
        began = now_ns()
        self._meet()
        for _ in range(ATTEMPTS):
            try:
                total = self._pull()
                break
            except _Vanished:
                continue
        else:
            raise Conflict("prunes at the source removed what was to be copied, time after time", hint="run it again")
        self.exchange()
        t = self._tally
        return ReplicaResult(
            self._source.url, self._target.url, t.objects, t.packs, t.bytes, t.healed, t.snapshots, total,
            tuple(t.problems.values()), (now_ns() - began) / 1e9,
        )  # fmt: skip

    def exchange(self) -> None:
        """What both places keep of each other."""
        for prefix in KEPT_AT_BOTH_ENDS:
            self._copy_missing(prefix)
            self._copy_missing(prefix, back=True)

    # -- the same repository? --------------------------------------------------------------------------------------

    def _meet(self) -> None:
        """Find out what is at both places, and mark the target as a copy before anything is put there."""
        config, digest = read_config(self._source)
        keyset, keyset_digest, problem = newest_keyset(self._source, config, digest)
        if problem is not None:
            self._tally.find(str(problem), names.KEYSETS)
        ring = Keyring(config, digest, keyset, keyset_digest, PUBLIC_ROLE)
        store = Store(self._source, Cache(None))
        self._loader = IndexLoader(store, ring, Sessions(store, ring))
        known = self._is_known(digest)
        self._mark(config, digest, known=known)
        self._target = CarefulBackend(self._target)  # only now: what the store does was found out
        self._forwards = ObjectCopier(self._source, self._target, dict(keyset.rescue))
        self._backwards = ObjectCopier(self._target, self._source, dict(keyset.rescue))
        self._keys(keyset)

    def _is_known(self, digest: bytes) -> bool:
        """Whether this repository is at the target already; InvalidInput if something else is."""
        try:
            _, other = read_config(self._target)
        except RepositoryNotFound:
            refuse_foreign(self._target)
            return False
        if other != digest:
            raise InvalidInput(
                f"another repository is at {self._target.url}", hint="name an empty place, or a copy of this one"
            )
        return True

    def _mark(self, config: ConfigRecord, digest: bytes, *, known: bool) -> None:
        now = standing(self._target, digest, config.owner_sign)
        if now.promoted:
            raise Conflict(
                f"{self._target.url} was made a source of its own",
                hint="replicate from there instead, or to another place",
            )
        if now.replica:
            return
        if known and standing(self._source, digest, config.owner_sign).replica:
            raise Conflict(
                f"{self._source.url} is a copy, and {self._target.url} is a source",
                hint="if that source is lost for good, 'snapvault site promote' the copy first",
            )
        record = ReplicaRecord(digest, now_ns(), tuple(self._refuse_busy()))
        if not any(True for _ in self._target.list(names.CAPABILITIES)):
            found = probe(self._target)
            capabilities = CapabilitiesRecord(found.put_if_absent, found.range_read, found.list_after_put)
            self._target.put(names.CAPABILITIES + os.urandom(8).hex(), [capabilities.encode()])
        self._target.put(names.REPLICA_MARK, [record.encode()])
        try:
            self._refuse_busy()  # whoever begins now sees the mark
        except Conflict:
            self._target.delete(names.REPLICA_MARK)
            raise

    def _refuse_busy(self) -> list[SessionId]:
        """Conflict if somebody uses the target as a source right now; the GCs that have ended there."""
        busy = sorted(open_sessions(self._target)) + [o.name for o in self._target.list(names.GC)]
        if busy:
            raise Conflict(
                f"backups or prunes at {self._target.url} have not ended: {', '.join(busy[:5])}",
                hint="a place that is to hold a copy is no source; let them end, or run 'snapvault prune' there",
            )
        return [_sid(n) for n in self._there(self._target, names.SNAPSHOTS + names.GC_PREFIX) if _is_slot(n)]

    def _keys(self, keyset: KeysetRecord) -> None:
        """Config, keys and rescue files; what is there of them already must be the same."""
        numbers = [names.keyset_number(n) for n in self._there(self._target, names.KEYSETS)]
        if max(numbers, default=0) > keyset.number:
            raise Conflict(
                f"{self._target.url} has keyset {max(numbers)}, {self._source.url} only {keyset.number}: "
                "the source shows an old state, or is the copy",
                hint="look which of them is the newer one before anything is copied over it",
            )
        self._copy([ObjectInfo(names.CONFIG, self._source.head(names.CONFIG).size)])
        self._copy_missing(names.SLOTS)
        for name, _ in keyset.rescue:
            self._copy(list(self._source.list(name)))
        self._copy_missing(names.KEYSETS)
        if self._tally.problems:
            first = next(iter(self._tally.problems.values()))
            raise Damaged(f"nothing more is copied: {first.message}", affected=first.objects)

    # -- one pass, in the order of a writer ------------------------------------------------------------------------

    def _pull(self) -> int:
        """Bring everything that the slots need which are listed first; how many commit slots there are then."""
        slots = {n: size for n, size in self._there(self._source, names.SNAPSHOTS).items() if _is_slot(n)}
        here = self._there(self._target, names.SNAPSHOTS)
        forgotten = self._forgotten()
        new = {n: size for n, size in slots.items() if here.get(n) != size}
        wanted = [n for n in new if not _is_gc(n) and _sid(n) not in forgotten]
        self._announce(wanted)
        indexes = self._there(self._source, names.INDEX)
        have = self._there(self._target, names.INDEX)
        fresh = {n: size for n, size in indexes.items() if have.get(n) != size}
        self._copy(self._needed(indexes, fresh, slots), PACKS_AT_ONCE, again=True)
        self._announce(filter(_is_gc, map(names.snapshot, self._authors)))  # some have their header nowhere else
        self._copy(_infos(fresh), INDEXES_AT_ONCE, again=True)
        forgotten = self._forgotten()
        never = [n for n in new if not _is_gc(n) and _sid(n) in forgotten]
        self._copy([ObjectInfo(names.tombstone(_sid(n)), forgotten[_sid(n)]) for n in never if n not in here])
        before = self._tally.objects
        self._copy(_infos({n: new[n] for n in wanted if _sid(n) not in forgotten}))
        self._tally.snapshots += self._tally.objects - before
        self._copy(_infos({n: size for n, size in new.items() if _is_gc(n)}))  # last: they let a GC here remove
        self._copy_missing(names.NOTES)
        return sum(not _is_gc(n) for n in self._there(self._target, names.SNAPSHOTS))

    def _forgotten(self) -> dict[SessionId, int]:
        """The sessions that have a tombstone at the source, and its size."""
        return {
            SessionId(n.removeprefix(names.TOMBSTONES)): size
            for n, size in self._there(self._source, names.TOMBSTONES).items()
            if names.is_session_id(n.removeprefix(names.TOMBSTONES))
        }

    def _announce(self, slots: Iterable[str]) -> None:
        """W1: from here on a GC that the target begins once it is promoted waits for these."""
        at_source, here = (self._there(b, names.SESSIONS) for b in (self._source, self._target))
        coming = [names.session(_sid(n)) for n in slots]
        self._copy(_infos({n: at_source[n] for n in coming if n in at_source and n not in here}))

    def _needed(
        self, indexes: Mapping[str, int], fresh: Mapping[str, int], slots: Mapping[str, int]
    ) -> list[ObjectInfo]:
        """The packs that index objects name and that the target lacks; _Vanished if one may just have been removed."""
        named = self._named(fresh)
        # In this order: what is named was put before.
        at_source, here = (self._there(b, names.PACKS) for b in (self._source, self._target))
        if any(here.get(n) != size for n, size in at_source.items() if n not in named):
            # Not indexed yet, or lost here: then an index object that is here already names it.
            named = {**self._named({n: s for n, s in indexes.items() if n not in fresh}), **named}
        lacking = {n: size for n, size in named.items() if here.get(n) != size}
        absent = {n for n in lacking if n not in at_source}
        if absent:
            absent -= self._removed(slots)
            if absent - self._absent:
                self._absent |= absent
                raise _Vanished
            for name in absent:
                self._tally.find(f"{name} is missing at the source: what lies in it is not in the copy", name)
        for name, size in lacking.items():
            if name in at_source and at_source[name] != size:
                text = f"{name} has {at_source[name]} bytes at the source instead of {size}"
                self._tally.find(f"{text}: what lies in it is not in the copy", name)
        return [ObjectInfo(n, size) for n, size in lacking.items() if at_source.get(n) == size]

    def _named(self, indexes: Mapping[str, int]) -> dict[str, int]:
        """Names and sizes of the packs in index objects that count."""

        def read(info: ObjectInfo) -> IndexRecord | Damaged:
            try:
                return self._loader.verify(fetch(self._source, info.name, info.size))[0]
            except NotFound:
                raise _Vanished from None
            except Damaged as e:
                harmless = isinstance(e, Untrusted)
                self._tally.find(f"{info.name} is ignored: {e.message}", info.name, harmless=harmless)
                return e

        found = {}
        for record in ahead(read, _infos(indexes), INDEXES_AT_ONCE):
            self._reporter.check()
            if isinstance(record, IndexRecord):
                self._authors.add(record.sid)
                found.update({names.pack(pack): size for pack, size, _ in record.packs})
        return found

    def _removed(self, slots: Mapping[str, int]) -> set[str]:
        """The packs that GCs of the source removed for ever, by the slots that were listed first."""
        found = set[str]()
        for name in filter(_is_gc, slots):
            try:
                found.update(map(names.pack, self._loader.removed_by(name)))
            except (Damaged, NotFound) as e:
                self._tally.find(f"{name} is ignored: {e.message}", name, harmless=isinstance(e, Untrusted))
        return found

    # -- copying ---------------------------------------------------------------------------------------------------

    def _there(self, backend: Backend, prefix: str) -> dict[str, int]:
        """Names and sizes below a prefix."""
        found = {}
        for info in backend.list(prefix):
            self._reporter.check()
            found[info.name] = info.size
        return found

    def _copy_missing(self, prefix: str, *, back: bool = False) -> None:
        begin, end = (self._target, self._source) if back else (self._source, self._target)
        have = self._there(end, prefix)
        missing = {n: size for n, size in self._there(begin, prefix).items() if have.get(n) != size}
        self._copy(_infos(missing), copier=self._backwards if back else self._forwards)

    def _copy(
        self,
        wanted: list[ObjectInfo],
        at_once: int = SMALL_AT_ONCE,
        *,
        again: bool = False,
        copier: ObjectCopier | None = None,
    ) -> None:
        """Copy objects, several in flight.  ``again``: _Vanished if one has gone; else it is passed over."""
        total, copy = sum(o.size for o in wanted), (copier or self._forwards).copy
        done = 0
        for number, (info, outcome) in enumerate(zip(wanted, ahead(copy, wanted, at_once), strict=True), 1):
            self._reporter.check()
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
            t.find(f"{info.name} is damaged at the source, and is not in the copy", info.name)
        elif outcome is Outcome.CONFLICT:
            t.find(f"{info.name} has other bytes at each place; both are left as they are", info.name)


def _infos(sizes: Mapping[str, int]) -> list[ObjectInfo]:
    return [ObjectInfo(name, size) for name, size in sizes.items()]


def _is_slot(name: str) -> bool:
    return names.is_session_id(name.removeprefix(names.SNAPSHOTS))


def _is_gc(slot: str) -> bool:
    return slot.startswith(names.SNAPSHOTS + names.GC_PREFIX)


def _sid(slot: str) -> SessionId:
    return SessionId(slot.removeprefix(names.SNAPSHOTS))
