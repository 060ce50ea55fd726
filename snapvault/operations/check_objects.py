"""The structure of a repository: every small object, and whether what they name is there."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

from blake3 import blake3

from snapvault.backend.protocol import NotFound, ObjectInfo
from snapvault.format import names
from snapvault.format.local import decode_capabilities
from snapvault.format.slot import decode_slot
from snapvault.format.snapshot import COMMIT, GC_DONE, merkle
from snapvault.format.wire import FormatError, check_frame
from snapvault.foundation.ahead import ahead
from snapvault.foundation.errors import Damaged
from snapvault.foundation.events import Reporter
from snapvault.foundation.ids import PackId, SessionId
from snapvault.operations.claims import Claims
from snapvault.operations.results import Finding
from snapvault.operations.survey import removed_names
from snapvault.operations.unlisted import hidden, predecessors
from snapvault.repository.chain import rolled_back
from snapvault.repository.history import Slot, is_due
from snapvault.repository.index import BlobIndex, TableBuilder, build_table
from snapvault.repository.keysets import verify_keyset
from snapvault.repository.loader import Entry
from snapvault.repository.repository import Vault
from snapvault.repository.store import FETCHERS, fetch, fetch_rescue
from snapvault.repository.trust import Untrusted
from snapvault.repository.verdicts import PREFIXES, trusted_verdict

PASSING = (names.SLOTS, names.LOCAL)  # where objects come and go while others work


class Beginning:
    """What there was when a check began: the commit slots, and the keyset that this client had seen."""

    def __init__(self, vault: Vault) -> None:
        self.keyset = vault.pins.site.keyset
        reading = vault.read_history()
        self.slots, self.problems, self.shown = reading.accepted, reading.problems, reading.shown
        self.given_up = reading.given_up
        self.snapshots = {s.record.sid for s in self.slots}


class ObjectCheck:
    """Reads and verifies all objects but the packs."""

    def __init__(self, vault: Vault, listing: dict[str, ObjectInfo], began: Beginning, reporter: Reporter) -> None:
        self._vault, self._listing, self._reporter = vault, listing, reporter
        self.began = began
        self.findings: list[Finding] = []
        self.slots: list[Slot] = []
        self.present: dict[PackId, int] = {}  # packs in the store
        self.index = BlobIndex()
        self.unreadable: set[str] = set()  # objects that are not what they must be
        self.gone: set[PackId] = set()  # packs that an index names, and no prune removed
        self.returned: set[PackId] = set()  # packs that are there though a prune or a repair removed them
        self.waiting = False  # what was forgotten can still be brought back
        self.unlisted: set[PackId] = set()  # packs of ended sessions that no index names
        self.incomplete = False  # a session wrote what the store does not show
        self.misfits = False  # packs are missing, or of another size than the index states
        self.claims = Claims(vault)
        self._written: dict[SessionId, set[tuple[str, int]]] = defaultdict(set)
        self._removed: set[str] = set()  # what prunes removed for ever
        self._suspicious = False  # the index is not whole, so what it says of packs may be somebody's invention
        self._hidden: set[SessionId] = set()  # snapshots that are there, and in no listing
        self._done = 0

    def find(self, message: str, *objects: str, snapshots: tuple[str, ...] = (), harmless: bool = False) -> None:
        """Note a finding."""
        self.findings.append(Finding(message, objects, snapshots, harmless=harmless))

    def run(self) -> None:
        """Everything, in the order of who depends on whom."""
        if self._vault.rollback is not None:
            self.find(self._vault.rollback.message, *self._vault.rollback.affected)
        self._config()
        self._keysets()
        self._each(names.SLOTS, self._slot)
        if not self._names(names.SLOTS):
            self.find("there is no key slot: only the recovery key opens this repository", names.SLOTS)
        self._each(names.SESSIONS, self._session)
        self._snapshots()
        self._packs()
        self._indexes()
        self._sessions_complete()
        self._scan_unindexed()
        self._notes()
        self._chains()
        self._local()
        self._rescue()
        self._unknown()

    def _names(self, prefix: str) -> list[str]:
        return [n for n in self._listing if n.startswith(prefix)]

    def _each(self, prefix: str, verify: Callable[[str, bytes], object]) -> None:
        """Fetch every object below a prefix and verify it."""
        wanted = self._names(prefix)
        for name, data in zip(wanted, ahead(self._fetch, wanted, FETCHERS), strict=True):
            self._one(name, data, verify)

    def _fetch(self, name: str) -> bytes | Damaged | NotFound:
        listed = self._listing.get(name)
        try:
            return fetch(self._vault.backend, name, None if listed is None else listed.size)
        except (Damaged, NotFound) as e:
            return e

    def _one(self, name: str, data: bytes | Damaged | NotFound, verify: Callable[[str, bytes], object]) -> None:
        self._done += 1
        self._reporter.tick("objects", self._done, len(self._listing), current=name)
        self._reporter.check()
        try:
            if not isinstance(data, bytes):
                raise data
            wanted = names.content_digest(name)
            if wanted is not None and blake3(data).digest() != wanted:
                raise FormatError("its bytes are not those that its name states")
            check_frame(data)
            verify(name, data)
        except NotFound:
            if not name.startswith(PASSING):
                self.find(f"{name} was listed but is gone", name)
        except Damaged as e:
            self.unreadable.add(name)
            self.find(f"{name}: {e.message}", name)

    # -- the trust anchors --------------------------------------------------------------------------------------

    def _config(self) -> None:
        def verify(_: str, data: bytes) -> None:
            if blake3(data).digest() != self._vault.ring.config_digest:
                raise Untrusted("it was replaced since the repository was opened")

        self._one(names.CONFIG, self._fetch(names.CONFIG), verify)

    def _keysets(self) -> None:
        """The chain from the first to the newest: none missing, each naming the digest of the one before."""
        digests: dict[int, bytes] = {}
        previous: dict[int, bytes] = {}
        ring = self._vault.ring

        def verify(name: str, data: bytes) -> None:
            number = names.keyset_number(name)
            record = verify_keyset(data, number, ring.config, ring.config_digest)
            digests[number], previous[number] = blake3(data).digest(), record.previous

        self._each(names.KEYSETS, verify)
        if not self._names(names.KEYSETS):
            self.find("there is no keyset: only the recovery key opens this repository", names.keyset(1))
        for number in range(1, max(digests, default=0) + 1):
            name = names.keyset(number)
            if name not in self._listing:
                self.find(f"{name} is missing, though a later keyset is there", name)
            elif (
                number in previous and previous[number] != digests.get(number - 1, bytes(32)) and number - 1 in digests
            ):
                self.find(f"{name} does not follow the keyset before it", name)
        seen = self.began.keyset
        if seen and seen not in digests and names.keyset(seen) not in self._listing:
            self.find(f"keyset {seen}, which this client saw here before, is gone", names.keyset(seen))

    def _slot(self, name: str, data: bytes) -> None:
        record = decode_slot(data)
        if not name.startswith(names.slot(record.holder, b"")):
            raise Untrusted("it does not belong here")
        if record.config != self._vault.ring.config_digest:
            self.find(f"{name} is of another repository, or was left by an init that was killed", name, harmless=True)

    def _session(self, name: str, data: bytes) -> None:
        self._vault.sessions.verify(data, names.session_id(name, names.SESSIONS))

    # -- snapshots ----------------------------------------------------------------------------------------------

    def _snapshots(self) -> None:
        self.slots = self.began.slots
        for problem in self.began.problems:
            self.find(problem.message, *problem.affected)
        for sid in sorted(self.began.given_up):
            text = f"the record of snapshot {sid}, which was forgotten for good, is damaged or gone"
            self.find(text, names.snapshot(sid), harmless=True)
        forgotten, problems = self._vault.history.tombstones()
        self.waiting = any(not is_due(t) for t in forgotten.values())
        for problem in problems:
            self.find(problem.message, *problem.affected)
        self._removed = removed_names(self._vault.ring, self.slots)
        self._hidden_snapshots()
        there = {s.record.sid: s.digest for s in self.slots}
        for slot in self.slots:
            for sid, digest in slot.record.prevs:
                if there.get(sid) != digest and sid in forgotten and forgotten[sid].record == digest:
                    continue  # at a copy, to which it had not come by then
                if sid in self._hidden:
                    continue
                if sid not in there and names.snapshot(sid) not in self._listing:
                    named = f"{slot.record.sid} names it as its predecessor"
                    self.find(
                        f"snapshot {sid} is not at this copy, and {named}; if a replication was cut off, the next one "
                        "brings it"
                        if self._at_copy()
                        else f"snapshot {sid} is gone: {named}",
                        names.snapshot(sid),
                    )
                elif sid in there and there[sid] != digest:
                    self.find(f"snapshot {sid} was replaced since {slot.record.sid} saw it", names.snapshot(sid))
            if slot.record.kind == COMMIT and names.session(slot.record.sid) not in self._listing:
                self.find(
                    f"the session header of snapshot {slot.record.sid} is missing", names.session(slot.record.sid)
                )

    def _at_copy(self) -> bool:
        """Whether this place is a copy now: commit slots come to it in any order."""
        with suppress(Damaged):
            return self._vault.standing().replica
        return False

    def _hidden_snapshots(self) -> None:
        """Those that are there by their name, but in no listing: then much else may be missing that is not."""
        known = {names.session_id(n, names.SESSIONS) for n in self._names(names.SESSIONS) if n not in self.unreadable}
        known.update(sid for sid, _, _ in predecessors(self.slots))
        known = {sid for sid in known - self.began.shown if names.snapshot(sid) not in self._listing}
        self._hidden = set(hidden(self._vault.backend, known))
        if self._hidden:  # or filled since everything was listed
            shown = {o.name for o in self._vault.backend.list(names.SNAPSHOTS)}
            self._hidden = {sid for sid in self._hidden if names.snapshot(sid) not in shown}
        for sid in sorted(self._hidden):
            self.find(
                f"{names.snapshot(sid)} is there, but the store leaves it out of its listings",
                names.snapshot(sid),
                snapshots=(sid,),
            )

    # -- packs and indexes --------------------------------------------------------------------------------------

    def _packs(self) -> None:
        for name in self._names(names.PACKS):
            digest = names.content_digest(name)
            if digest is None:
                self.find(f"{name} is no name of a pack", name, harmless=True)
            else:
                self.present[PackId(digest)] = self._listing[name].size
                if name in self._removed:
                    self.returned.add(PackId(digest))

    def _indexes(self) -> None:
        table, owned = TableBuilder(), set[PackId]()  # which packs somebody lists whose key was not removed

        def verify(name: str, data: bytes) -> None:
            entries = self._vault.loader.open(name, data)
            record, _ = self._vault.loader.verify(data)
            self._written[record.sid].add((name, len(data)))
            disowned = self._vault.loader.author(data) in self._vault.ring.removed
            for entry in entries:
                table.add(*entry)
                self.claims.add(entry, name)
                if not disowned:
                    owned.add(entry[0].id)

        before = len(self.findings)
        self._each(names.INDEX, verify)
        self._suspicious = len(self.findings) > before
        for row in table.packs:
            name = names.pack(row.id)
            size = self.present.get(row.id)
            if size is None and (size := self._hidden_pack(name)) is not None:
                self.present[row.id] = size
                self.find(f"{name} is there, but the store leaves it out of its listings", name)
            if size is None and name in self._removed:
                text = f"{name} was removed by a prune; the next prune takes it out of the index, which names it again"
                self.find(text, name, harmless=True)
            elif size is None and row.id not in owned:
                self.find(f"{name} is missing; only an index of a removed key names it", name, harmless=True)
            elif size is None:
                self.gone.add(row.id)
                self.find(f"{name} is missing: the index names it", name)
            elif size != row.size:
                self.find(f"{name} has {size} bytes instead of {row.size}", name)
            self._written[row.sid].add((name, row.size))
        self.index = BlobIndex([table.built(())])
        self.misfits = bool(self.index.restrict(self.present, ()))

    def _hidden_pack(self, name: str) -> int | None:
        """The size of a pack that was not listed and is there all the same."""
        try:
            return self._vault.backend.head(name).size
        except NotFound:
            return None

    def _scan_unindexed(self) -> None:
        """Packs that no index of their session names: it has not finished, or the index object is lost."""
        ended = {s.record.sid: s.record.kind for s in self.slots}
        found = []
        wanted = [pack for pack in self.present if self._suspicious or not self.claims.of(pack)]
        for number, (pack, entry) in enumerate(zip(wanted, ahead(self._directory, wanted, FETCHERS), strict=True)):
            self._reporter.tick("directories", number, len(wanted))
            name = names.pack(pack)
            indexed = {claim.row.domain for claim in self.claims.of(pack)}
            if not isinstance(entry, tuple):
                if not indexed:
                    self.find(f"{name} is in no index and cannot be opened: {entry.message}", name, harmless=True)
                continue
            if entry[0].domain in indexed:
                continue
            # What was removed, and is there still, the next prune deletes.
            if entry[0].sid in ended and name not in self._removed:
                self.unlisted.add(pack)  # of a run that was killed, too: others may rely on it
                if ended[entry[0].sid] in (COMMIT, GC_DONE):
                    self.find(f"{name} belongs to session {entry[0].sid}, but no index names it", name)
            self.claims.add(entry, "")
            found.append(entry)
        if found:
            self.index.tables.append(build_table((), found))

    def _directory(self, pack: PackId) -> Entry | Damaged | NotFound:
        """What a pack says of itself."""
        try:
            return self._vault.loader.read_directory(pack, self.present[pack])
        except (Damaged, NotFound) as e:
            return e

    def _sessions_complete(self) -> None:
        """What a committed session wrote is summed up in its record: an object that was dropped shows."""
        if any(s.record.kind == GC_DONE for s in self.slots):
            return  # a prune may have removed some of them
        for slot in self.slots:
            record = slot.record
            if record.kind == COMMIT and merkle(sorted(self._written[record.sid])) != record.objects:
                self._suspicious = self.incomplete = True
                self.find(
                    f"session {record.sid} wrote {record.objects.count} objects, of which the store shows "
                    f"{len(self._written[record.sid])}, or others",
                    snapshots=(record.sid,),
                )

    # -- the rest -----------------------------------------------------------------------------------------------

    def _notes(self) -> None:
        writers = {s.record.sid: s.holder for s in self.slots if s.record.kind == COMMIT}
        for problem in self._vault.notes.read(writers)[1]:
            self.find(problem.message, *problem.affected)

    def _chains(self) -> None:
        if self._vault.ring.keyset is None:
            return  # nobody can tell who signed
        pins, problems = self._vault.pins.site, list[Damaged]()
        for chain, pinned in ((self._vault.register, dict(pins.register)), (self._vault.evidence, dict(pins.evidence))):
            links, wrong = chain.read(bodies=False)
            problems += rolled_back(pinned, links, chain.series) + wrong
        for problem in problems:
            self.find(problem.message, *problem.affected)

    def _local(self) -> None:
        self._each(names.CAPABILITIES, lambda _, data: decode_capabilities(data))
        self._each(names.HEARTBEATS, lambda _, data: check_frame(data))
        for prefix in PREFIXES.values():
            self._each(prefix, self._verdict)
        for problem in self._vault.loader.gc_problems():
            self.find(problem.message, *problem.affected)

    def _verdict(self, name: str, data: bytes) -> None:
        try:
            trusted_verdict(self._vault.ring, data)
        except Untrusted as e:
            self.find(f"{name} is ignored: {e.message}", name, harmless=True)

    def _rescue(self) -> None:
        keyset = self._vault.ring.keyset
        for name, digest in () if keyset is None else keyset.rescue:
            if name not in self._listing:
                self.find(f"{name} is missing", name)
                continue
            try:
                fetch_rescue(self._vault.backend, name, self._listing[name].size, digest)
            except (Damaged, NotFound) as e:
                self.find(f"{name}: {e.message}", name)

    def _unknown(self) -> None:
        known = (
            names.CONFIG, names.KEYSETS, names.SLOTS, names.SESSIONS, names.PACKS, names.INDEX, names.SNAPSHOTS,
            names.NOTES, names.LOCAL, names.ATTESTATIONS, names.EVIDENCE, names.REGISTER, *names.RESCUE,
        )  # fmt: skip
        for name in self._listing:
            if not name.startswith(known):
                self.find(f"{name} is no object of a repository", name, harmless=True)
