"""An open repository: what every operation works on."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from snapvault.backend.control import controlled
from snapvault.backend.guard import OneProcess
from snapvault.backend.metrics import Metrics, metrics
from snapvault.backend.protocol import Backend
from snapvault.backend.wrapper import address, innermost, rewrapped
from snapvault.crypto.recovery import RecoveryKey
from snapvault.format import names
from snapvault.format.config import ConfigRecord
from snapvault.format.keyset import KeysetRecord
from snapvault.foundation.errors import Conflict, Damaged, InvalidInput, KeyRejected, RepositoryNotFound, SnapvaultError
from snapvault.foundation.events import Control
from snapvault.foundation.ids import DomainId, RepositoryId, SessionId
from snapvault.foundation.words import count
from snapvault.repository.cache import Cache
from snapvault.repository.careful import CarefulBackend
from snapvault.repository.chain import EVIDENCE, REGISTER, Chain
from snapvault.repository.credentials import ClientKey, Credential
from snapvault.repository.failover import SILENT, FailoverBackend, ReadFrom
from snapvault.repository.history import History, Reading, Slot
from snapvault.repository.index import BlobIndex, build_table
from snapvault.repository.keyring import RECOVERY_ROLE, Keyring, open_keyring, recovery_key_pair
from snapvault.repository.keysets import keyset_numbers, newest_keyset, read_config, read_keyset
from snapvault.repository.loader import IndexLoader
from snapvault.repository.notes import Notes
from snapvault.repository.pins import Pins
from snapvault.repository.places import Places, Unreachable, other_repository
from snapvault.repository.reader import BlobReader
from snapvault.repository.replica import Standing, standing
from snapvault.repository.segments import segment_cache
from snapvault.repository.sessions import Sessions
from snapvault.repository.site import Site
from snapvault.repository.slots import open_slot
from snapvault.repository.store import Store
from snapvault.repository.trust import Untrusted

log = logging.getLogger("snapvault")

MEASURES_KEPT = 1 << 16  # lengths of lists that a shared reader may remember


class Vault:
    """The opened innards of a repository; the public ``Repository`` is built on it.

    Thread-safe for reading.  A process that forked after open refuses to go on: threads and connections did not
    survive the fork, and a child must not act in its parent's name.
    """

    def __init__(
        self,
        backend: Backend,
        ring: Keyring,
        cache: Cache,
        pins: Pins,
        rollback: Damaged | None = None,
        places: Places | None = None,
    ) -> None:
        self.cache, self.pins = cache, pins
        self.rollback = rollback  # the store shows an older keyset than this client saw
        self._places = places  # where a reader may look, too
        self._reading: Vault | None = None
        self._process = OneProcess(backend)
        self._store = Store(self._process, cache)
        self._attach(ring)
        self._lock = threading.RLock()
        self._origin: Vault | None = None  # of a view
        self.closed = False

    @property
    def id(self) -> RepositoryId:
        return RepositoryId(self.ring.config_digest.hex())

    @property
    def store(self) -> Store:
        self.check_usable()
        return self._store

    @property
    def backend(self) -> Backend:
        return self.store.backend

    @property
    def address(self) -> str:
        """The URL or path that opens this repository again; ``backend.url`` is for messages."""
        return address(self.backend)

    def limited(self, control: Control | None) -> "Vault":
        """A view of this repository that keeps to the limits of ``control`` and stops reading when it is cancelled.

        It shares everything else, what was read of index and history included.
        """
        backend = controlled(self.backend, control)
        return self if backend is self.backend else self.through(backend)

    def reading(self) -> "Vault":
        """A view that reads from all places that this was opened with (docs/replication.md); itself if it is one.

        What it sees is compared with what is pinned of the first place, and is pinned nowhere.
        """
        if self._places is None:
            return self
        with self._lock:
            if self._reading is None:
                # Shares nothing with this: what one place lacks, another may have.
                failover = self._places.failover(self.ring.config_digest)
                self._reading = Vault(failover, self.ring, self.cache, self.pins.copy(), self.rollback)
            return self._reading

    def counting(self) -> "Vault":
        """A view that counts anew what comes from where; itself if there is one place only."""
        failover = innermost(self.backend)
        if not isinstance(failover, FailoverBackend):
            return self
        return self.through(rewrapped(self.backend, failover.fresh()))

    def came_from(self) -> tuple[ReadFrom, ...]:
        """What was read at which place; empty if there is one place only."""
        failover = innermost(self.backend)
        return failover.used() if isinstance(failover, FailoverBackend) else ()

    def through(self, backend: Backend) -> "Vault":
        """A view of this repository through another backend, which shares all that was read of index and history."""
        view = Vault(backend, self.ring, self.cache, self.pins, self.rollback)
        view.sessions = self.sessions.through(view._store)
        view.history = self.history.through(view._store, view.sessions)
        view.notes = Notes(view._store, self.ring, view.sessions)
        view.loader = IndexLoader(view._store, self.ring, view.sessions)
        view._index, view._origin = self._index, self
        return view

    def cold(self, cache: Cache) -> "Vault":
        """The same repository as a client sees it that has read nothing of it yet, with another cache."""
        return Vault(self.backend, self.ring, cache, self.pins, self.rollback)

    def standing(self) -> Standing:
        """Whether this place is a source or a copy, as its marks say now; Untrusted, FormatError."""
        return standing(self.backend, self.ring.config_digest, self.ring.config.owner_sign)

    def check_usable(self) -> None:
        """InvalidInput after a fork or after close."""
        if self.closed:
            raise InvalidInput("the repository was closed; open it again")
        self._process.check()

    def metrics(self) -> Metrics:
        """What was asked of the store so far, by whoever works on this repository or on a view of it."""
        return metrics(self._process)

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that opened the repository."""
        return self._process.foreign

    def adopt(self, keyset: KeysetRecord, digest: bytes) -> None:
        """Go on with a newer keyset that this holder just wrote."""
        ring = open_keyring(self.ring.config, self.ring.config_digest, keyset, digest, self.ring.signing)
        self._attach(replace(ring, recovery=self.ring.recovery))
        self.pins.site.keyset, self.pins.site.keyset_digest = keyset.number, digest.hex()
        self.pins.save()

    def check_holder(self) -> None:
        """KeyRejected if the keyset that is newest now does not name this holder any more."""
        if self._newest_keyset() == self.ring.current.number:
            return
        keyset, _ = read_keyset(self.backend, self.ring.config, self.ring.config_digest)
        if all(h.id != self.ring.signing.id for h in keyset.holders):
            raise KeyRejected("this key was removed from the repository", hint="ask the owner for a new key")

    def require_current(self) -> None:
        """Conflict if there are keys that were not there when this was opened: what is sealed to them looks damaged."""
        if self._newest_keyset() != self.ring.current.number:
            raise Conflict("keys were changed since the repository was opened", hint="open it again")

    def _newest_keyset(self) -> int:
        return max(keyset_numbers(self.backend), default=0)

    def _attach(self, ring: Keyring) -> None:
        self.ring = ring
        self.sessions = Sessions(self._store, ring)
        self.history = History(self._store, ring, self.sessions)
        self.notes = Notes(self._store, ring, self.sessions)
        self.register, self.evidence = Chain(self._store, ring, REGISTER), Chain(self._store, ring, EVIDENCE)
        self.loader = IndexLoader(self._store, ring, self.sessions)
        self._index: BlobIndex | None = None
        self._readers: dict[DomainId, tuple[tuple[BlobIndex, Backend], BlobReader]] = {}

    def index(self) -> BlobIndex:
        """The blob index for reading, loaded once."""
        with self._lock:
            self.check_usable()
            if self._index is None:
                self._index = self.loader.load()
            if self._origin is not None and self._origin._index is None:
                self._origin._index = self._index
            return self._index

    def _reload_index(self, *, distrust: DomainId | None) -> BlobIndex:
        """The index as the store has it now, with the directories of packs that it does not name."""
        with self._lock:
            self._index = self.loader.load(scan=True, distrust=distrust)
            if self.loader.unnamed:
                log.warning("%d packs that no index names were found by their own directories", self.loader.unnamed)
            return self._index

    def reader(self, domain: DomainId | None = None, *, cached: bool = False) -> BlobReader:
        """Reads blobs, of one domain if it is given; RoleRequired.

        ``cached``: folders that were read before may come from the local cache; else the store itself is seen.
        """
        self.ring.require_read("open stored data")

        def view(index: BlobIndex) -> BlobIndex:
            return index if domain is None else index.of(domain)

        def reload(distrust: DomainId | None) -> BlobIndex:
            return view(self._reload_index(distrust=distrust))

        def last_resort() -> BlobIndex:
            extra = build_table((), self.loader.of_removed())
            return view(BlobIndex([*self._reload_index(distrust=domain).tables, extra]))

        reloads: list[Callable[[], BlobIndex]] = [partial(reload, None)]
        reloads += [partial(reload, domain)] if domain is not None else []
        reloads += [last_resort] if self.ring.removed else []
        kept = segment_cache(self.cache, self.ring, self.backend) if cached else None
        return BlobReader(self.backend, self.ring, self.sessions, view(self.index()), reloads, cache=kept)

    def shared_reader(self, domain: DomainId) -> BlobReader:
        """One reader for all that read here and there, so that none opens again what another just opened.

        A new one where the index was loaded anew, or where the old one remembers much.
        """
        with self._lock:
            stand, known = (self.index(), self.backend), self._readers.get(domain)
            if known is None or known[0] != stand or known[1].remembers > MEASURES_KEPT:
                known = self._readers[domain] = stand, self.reader(domain, cached=True)
            return known[1]

    def commit_slots(self) -> tuple[list[Slot], list[Damaged]]:
        """All commit slots that count, and what is wrong: with others, and with what this client saw here before."""
        reading = self.read_history()
        return reading.accepted, reading.problems

    def read_history(self) -> Reading:
        """The same, with what does not count.

        Compared is what was pinned before the listing began, since another thread may commit meanwhile.  What is seen
        is pinned, and kept when the repository is closed.  Nobody misses what was forgotten for good: that its record
        is damaged or gone is no problem.
        """
        pinned = dict(self.pins.site.records)
        reading = self.history.read()
        self.see(reading.accepted)
        missing = _missing(pinned, reading.accepted)
        problems = reading.problems + self.sessions.problems
        given_up = self.history.given_up(reading, pinned) if problems or missing else frozenset()
        unmissed = {names.snapshot(sid) for sid in given_up}
        problems = [p for p in problems if not p.affected or not unmissed.issuperset(p.affected)]
        gone = _rolled_back([sid for sid in missing if sid not in given_up])
        return replace(reading, problems=problems + gone, given_up=given_up)

    def see(self, slots: list[Slot]) -> None:
        """Pin commit slots; kept when the repository is closed."""
        pinned = self.pins.site.records
        pinned.update({s.record.sid: s.digest.hex() for s in slots if s.record.sid not in pinned})

    def remember(self, sid: SessionId, record: bytes, slots: list[Slot]) -> None:
        """Pin what was seen, and the snapshot that was just committed."""
        self.see(slots)
        self.pins.site.records[sid] = blake3(record).hexdigest()
        self.pins.save()
        self.cache.trim()

    def close(self) -> None:
        """Write the pins, let go of connections.  Idempotent."""
        if not self.closed:
            if not self.forked:
                log.debug("%s was asked: %s", self._process.url, self.metrics())
                self.pins.save()
                self._store.backend.close()
                if self._places is not None:
                    self._places.close()
            self.closed = True
            self._readers.clear()


def _missing(pinned: Mapping[SessionId, str], slots: list[Slot]) -> list[SessionId]:
    """Snapshots that this client saw at this store, and that are gone or replaced."""
    there = {s.record.sid: s.digest.hex() for s in slots}
    return sorted(sid for sid, digest in pinned.items() if there.get(sid) != digest)


def _rolled_back(gone: list[SessionId]) -> list[Damaged]:
    """An old state played back."""
    if not gone:
        return []
    return [
        Untrusted(
            f"{count(len(gone), 'snapshot')} that this client saw here {'is' if len(gone) == 1 else 'are'} gone or "
            f"replaced: {', '.join(gone[:10])}; "
            "the store plays back an old state, or somebody deleted or damaged commit slots",
            affected=[names.snapshot(sid) for sid in gone],
        )
    ]


def open_vault(
    url: str,
    make_credential: Callable[[], Credential],
    *,
    storage_options: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    state: Path | None = None,
    sites: Sequence[Site] = (),
) -> Vault:
    """Open a repository; RepositoryNotFound, KeyRejected, FormatTooNew, Damaged, StoreUnavailable.

    ``sites``: where readers look, too; with them, a first place that cannot be opened is no error.
    """
    places = Places([Site(url, storage_options), *sites]) if sites else None
    backend = _first_place(Site(url, storage_options), needed=places is None)
    try:
        ring, problem, credential = _open_keys(backend, places, make_credential)
        if places is not None:
            backend = _or_unreachable(backend, ring.config_digest)
        folder = ring.config_digest.hex()
        pins = Pins(None if state is None else state / folder, backend.url)
        rollback = problem or _compare_pins(pins, ring, credential)
        return Vault(backend, ring, Cache(None if cache is None else cache / folder), pins, rollback, places)
    except BaseException:
        backend.close()
        if places is not None:
            places.close()
        raise


def _first_place(site: Site, *, needed: bool) -> Backend:
    try:
        return CarefulBackend(site.open())
    except SILENT as e:
        if needed:
            raise
        return Unreachable(site.url, e)


def _or_unreachable(backend: Backend, digest: bytes) -> Backend:
    """The first place; if it shows another repository than the one that was opened elsewhere, none that is used."""
    try:
        if read_config(backend)[1] == digest:
            return backend
    except (Damaged, *SILENT):
        return backend
    backend.close()
    return Unreachable(backend.url, other_repository(backend.url))


def _open_keys(
    backend: Backend, places: Places | None, make_credential: Callable[[], Credential]
) -> tuple[Keyring, Damaged | None, Credential]:
    """The keys, what is wrong with the newest keyset, and what opened them."""
    credential: Credential | None = None
    opened = list[tuple[Keyring, Damaged | None]]()
    failed = list[SnapvaultError]()
    for shown in _where_keys_are(backend, places):
        try:
            config, digest = read_config(shown)
            credential = credential or make_credential()
            opened.append(_open_ring(shown, config, digest, credential))
            whole = any(problem is None for _, problem in opened)
            # What is listed as newer still, once all places were asked as one, is nobody's who may say so.
            if places is None or (whole and (len(opened) > 1 or _is_newest(opened[0][0], places))):
                break
        except (KeyRejected, Damaged, *SILENT) as e:
            failed.append(e)
    if opened and credential is not None:
        newest = max((ring for ring, _ in opened), key=_number)
        first, problem = opened[0]  # a problem here keeps writers out, whatever others show
        if problem is None and _number(newest) > _number(first):
            problem = _keyset_missing(backend, _number(newest))
        return newest, problem, credential
    # Of the first two: this place, and all places as one.
    raise next((e for e in failed if isinstance(e, KeyRejected)), failed[:2][-1])


def _number(ring: Keyring) -> int:
    return ring.keyset.number if ring.keyset else 0


def _keyset_missing(backend: Backend, number: int) -> Damaged:
    """Writers refuse: what they sealed by it nobody could open at this place alone."""
    problem = Damaged(
        f"{backend.url} lacks keyset {number}, which another place shows: nothing is written here",
        hint="'snapvault check --repair-from SITE' brings what was lost; a copy that was promoted is the source now",
        affected=[names.keyset(number)],
    )
    log.warning("%s", problem)
    return problem


def _is_newest(ring: Keyring, places: Places) -> bool:
    """Whether no place lists a newer keyset, without which what was written since does not open."""
    if ring.keyset is None:
        return True
    try:
        return ring.keyset.number >= max(keyset_numbers(places.failover(ring.config_digest)), default=0)
    except SILENT:
        return True


def _where_keys_are(backend: Backend, places: Places | None) -> Iterator[Backend]:
    """Here; else all places as one, since each may have lost another part; else one where nobody forged them."""
    yield backend
    if places is not None:
        yield from map(places.failover, places.configs() or [b""])
        yield from places.each()


def _open_ring(
    backend: Backend, config: ConfigRecord, digest: bytes, credential: Credential
) -> tuple[Keyring, Damaged | None]:
    """The keys, and what is wrong with the newest keyset."""
    try:
        keyset, keyset_digest, problem = newest_keyset(backend, config, digest)
        _, own = open_slot(backend, credential, digest, {h.id for h in keyset.holders})
        ring = open_keyring(config, digest, keyset, keyset_digest, own)
    except (KeyRejected, Damaged, RepositoryNotFound):
        # The recovery key needs neither slot nor keyset: every session is sealed to it.
        if not isinstance(credential, RecoveryKey) or credential.config_digest != digest:
            raise
        recovery = recovery_key_pair(credential.seed, digest)
        return Keyring(config, digest, None, b"", RECOVERY_ROLE, recovery=recovery), None
    if problem is not None:
        log.warning("%s", problem)
    if isinstance(credential, RecoveryKey):
        ring = replace(ring, recovery=recovery_key_pair(credential.seed, digest))
    return ring, problem


def _compare_pins(pins: Pins, ring: Keyring, credential: Credential) -> Damaged | None:
    """An older keyset than was seen before: writers refuse it (it could revive a removed key), readers warn."""
    if ring.keyset is None:
        return None
    seen = max(pins.site.keyset, credential.keyset if isinstance(credential, ClientKey) else 0)
    number, digest = ring.keyset.number, ring.keyset_digest.hex()
    if number < seen or (number == pins.site.keyset and pins.site.keyset_digest not in ("", digest)):
        problem = Untrusted(
            f"the store shows keyset {number}, but this client saw {seen} or another {number}: an old state is shown",
            hint="use another copy of the repository; if it is old on purpose, open it with an empty state directory",
            affected=[names.keyset(number)],
        )
        log.warning("%s", problem)
        return problem
    pins.site.keyset, pins.site.keyset_digest = number, digest
    return None
