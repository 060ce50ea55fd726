"""Loading the blob index: cached tables, and the index objects that they do not cover yet."""

import contextlib
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from blake3 import blake3

from snapvault.backend.protocol import Backend, NotFound, ObjectInfo
from snapvault.crypto.kdf import context_digest, derive
from snapvault.format import names
from snapvault.format.index import IndexRecord, decode_index, decode_table
from snapvault.format.keyset import Role
from snapvault.format.local import decode_gc
from snapvault.format.pack import Segment
from snapvault.format.session import GC
from snapvault.format.signed import decode_signed
from snapvault.format.snapshot import decode_snapshot
from snapvault.format.wire import FormatError, Kind
from snapvault.foundation.ahead import ahead
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import DomainId, HolderId, PackId, SessionId
from snapvault.repository.cache import TABLES
from snapvault.repository.failover import first_whole
from snapvault.repository.index import BlobIndex, IndexTable, PackRow, TableBuilder, build_table, merge_tables
from snapvault.repository.keyring import DomainKeys, Keyring
from snapvault.repository.packs import fetch_directory
from snapvault.repository.sealing import open_part
from snapvault.repository.session import index_context
from snapvault.repository.sessions import Sessions
from snapvault.repository.store import FETCHERS, Gone, Store, fetch, reread
from snapvault.repository.trust import Untrusted, signed_by, trusted_certificate

log = logging.getLogger("snapvault")

ATTEMPTS = 4
MAX_TABLES = 6  # cached tables before they are merged into one
Entry = tuple[PackRow, list[Segment]]
_GC_SESSIONS, _GC_SLOTS = names.SESSIONS + names.GC_PREFIX, names.SNAPSHOTS + names.GC_PREFIX


class IndexLoader:
    """Reads and verifies index objects."""

    def __init__(self, store: Store, ring: Keyring, sessions: Sessions) -> None:
        self._store, self._ring, self._sessions = store, ring, sessions
        self.problems: list[Damaged] = []
        self.unnamed = 0  # packs that the last scan found by their own directories
        self._by_session: dict[SessionId, list[PackId]] | None = None
        sessions.locate = self.packs_of

    def packs_of(self, sid: SessionId) -> list[PackId]:
        """Packs that may be of a session whose own object is lost: by what is in clear in indexes and packs."""
        if self._by_session is None:
            found: dict[SessionId, list[PackId]] = defaultdict(list)
            known = set()
            for data in self._store.immutables(*self._listed()):
                with contextlib.suppress(Damaged):
                    if isinstance(data, bytes):
                        for pack, _, of in decode_index(decode_signed(Kind.INDEX, data).payload).packs:
                            found[of].append(pack)
                            known.add(pack)
            for pack in self.packs_present().keys() - known:
                with contextlib.suppress(Damaged, NotFound):
                    session, _ = self._sessions.in_pack(pack)
                    found[session.head.sid].append(pack)
            self._by_session = found  # only once it is whole: a listing that fails raises, and is done again
        return self._by_session.get(sid, [])

    def load(self, *, scan: bool = False, distrust: DomainId | None = None) -> BlobIndex:
        """The blobs of every domain that this holder knows.

        ``scan``: also those of packs that no index object names, by the packs' own directories.  ``distrust``: nor one
        of this domain, so that nobody hides its packs by naming them in another; that costs a request a pack.

        A listing that fails raises.  A single index object that is damaged is a problem, not the end: its blobs count
        as unknown, so a backup stores them again and a reader looks elsewhere.
        """
        self.unnamed = 0
        for _ in range(ATTEMPTS):
            self.problems = []
            index = BlobIndex(self._tables())
            if not any(isinstance(p, Gone) for p in self.problems):
                break  # else a prune put others in the place of some, between the listing and the reading
        for problem in self.problems:
            log.warning("%s", problem.message)
        if scan and self._ring.can_read:
            self._scan(index, distrust=distrust)
        return index

    def news(
        self, known: Collection[str], own: SessionId, domain: DomainId, unwanted: Collection[PackId]
    ) -> IndexTable:
        """Packs of a domain that may be relied upon, as index objects beside the known ones list them: W2 once more.

        ``own``: the session that asks, whose packs are no news.  ``unwanted``: packs that are known, or not to be
        relied upon though they are there.  What cannot be read is not known, no more than that.
        """
        self.problems = []
        condemned = self.condemned()
        listed, sizes = self._listed()
        present = self.packs_present()  # after the index: what that names is there by now
        wanted, builder = [name for name in listed if name not in known], TableBuilder()
        for name, data in zip(wanted, self._store.each(wanted, sizes, keep=False), strict=True):
            with contextlib.suppress(Damaged):
                if isinstance(data, bytes) and self.author(data) not in self._ring.removed:
                    for row, segments in self.open(name, data):
                        ours = row.domain == domain and row.sid != own and row.id not in unwanted
                        if ours and present.get(row.id) == row.size and row.id not in condemned:
                            builder.add(row, segments)
        return builder.built(wanted)

    def _tables(self) -> list[IndexTable]:
        listed, sizes = self._listed()
        tables = self._cached(frozenset(listed))
        missing = sorted(frozenset(listed).difference(*(t.names for t in tables)))
        if missing:
            table = self._read(missing, sizes, {row.id for t in tables for row in t.packs})
            tables.append(table)
            self._keep(tables, table)
        return tables

    def _listed(self) -> tuple[list[str], dict[str, int]]:
        """Index objects, and their sizes."""
        sizes = {o.name: o.size for o in self._store.backend.list(names.INDEX)}
        return list(sizes), sizes

    def _scan(self, index: BlobIndex, *, distrust: DomainId | None) -> None:
        known = {(row.id, row.sid) for row in index.packs()}
        ids = frozenset(row.id for row in index.packs())
        settled = frozenset(row.id for row in index.packs() if distrust in (None, row.domain))

        def look(pack: tuple[PackId, int]) -> Entry | Damaged | None:
            digest, size = pack
            try:
                if digest in ids:
                    session, _ = self._sessions.in_pack(digest)
                    if (digest, session.head.sid) in known:
                        return None
                return self.read_directory(digest, size)
            except (Damaged, NotFound) as e:
                return Damaged(f"{names.pack(digest)}: {e.message}", affected=[names.pack(digest)])

        wanted = [p for p in self.packs_present().items() if p[0] not in settled]
        looked = list(ahead(look, wanted, FETCHERS))
        self.problems += [e for e in looked if isinstance(e, Damaged)]
        found = [e for e in looked if isinstance(e, tuple)]
        if found:
            self.unnamed = len(found)
            index.tables.append(build_table((), found))

    def read_directory(self, digest: PackId, size: int) -> Entry:
        """What a pack says of itself; Damaged, NotFound."""
        session, _ = self._sessions.in_pack(digest)
        secrets = self._sessions.secrets(session.head.sid, digest)
        name = names.pack(digest)

        def look(place: Backend, size: int) -> Entry:
            row = PackRow(digest, size, session.head.sid, secrets.domain)
            return row, fetch_directory(place, secrets, digest, size)

        def read(place: Backend) -> Entry:
            try:
                return look(place, size)
            except Damaged:
                other = place.head(name).size  # the listing may have it as another place does
                if other == size:
                    raise
                return look(place, other)

        return reread(lambda: first_whole(self._store.backend, name, read))

    def _read(self, wanted: Sequence[str], sizes: Mapping[str, int], taken: set[PackId]) -> IndexTable:
        """The packs that index objects list, and the names of those that count; ``taken`` are known already."""
        builder = TableBuilder()
        good = []
        removed: dict[str, set[PackId]] = {}  # packs in what holders wrote that were removed since
        keep = self._place() is None  # what the cached tables hold need not be kept twice
        for name, data in zip(wanted, self._store.each(wanted, sizes, keep=keep), strict=True):
            try:
                if isinstance(data, Damaged):
                    raise data
                found = self.open(name, data)
                if self._ring.removed and self.author(data) in self._ring.removed:
                    removed[name] = {row.id for row, _ in found}
                    continue
            except Damaged as e:
                reason = e.message.removeprefix(f"{name}: ")
                self.problems.append(type(e)(f"{name} is ignored: {reason}", affected=[name]))
                continue
            good.append(name)
            for entry in found:
                builder.add(*entry)
        settled = self._settled(removed, taken.union(row.id for row in builder.packs))
        return builder.built(good + settled)

    def _settled(self, removed: dict[str, set[PackId]], taken: set[PackId]) -> list[str]:
        """The index objects of removed holders that are replaced by the owner's; none of them counts.

        Nobody can tell from such an object whether it was written before the removal, so the owner lists in its own
        what they list then.  One that lists other packs came after.
        """
        settled = [name for name, packs in removed.items() if packs <= taken]
        for name in removed.keys() - set(settled):
            self.problems.append(Untrusted(f"{name} is ignored: its writer's key was removed before", affected=[name]))
        return settled

    def of_removed(self) -> list[Entry]:
        """What index objects of removed holders say.

        Nothing relies on it; but whoever verifies each blob by its id may look there when it is nowhere else.
        """
        found: list[Entry] = []
        listed, sizes = self._listed() if self._ring.removed else ([], {})
        for name, data in zip(listed, self._store.immutables(listed, sizes), strict=True):
            with contextlib.suppress(Damaged):
                if isinstance(data, bytes) and self.author(data) in self._ring.removed:
                    found += self.open(name, data)
        return found

    def open(self, name: str, data: bytes) -> list[Entry]:
        """The packs and segments that an index object lists; empty for a domain that this holder does not know."""
        if names.content_digest(name) != blake3(data).digest():
            raise FormatError("the bytes are not those that the name states")
        record, sealed = self.verify(data)
        domain = self._domain(record)
        if domain is None:
            return []
        context = index_context(self._ring.config_digest, domain.id)
        table = decode_table(open_part(domain.index_key, "index", context, sealed), record)
        return [(PackRow(*row, domain.id), segments) for row, segments in zip(record.packs, table, strict=True)]

    def _domain(self, record: IndexRecord) -> DomainKeys | None:
        known = self._ring.domains.get(record.domain)
        if not self._ring.can_read or (known is not None and self._ring.keyset is not None):
            return known
        own = next((PackId(p) for p, _, sid in record.packs if sid == record.sid), None)
        return self._sessions.domain_keys(self._sessions.secrets(record.sid, own))  # by the recovery key alone

    def fresh(self, info: ObjectInfo) -> bytes:
        """An index object as the store has it now; asked for again if it comes damaged.  Damaged, NotFound."""
        return self._store.fresh(info.name, info.size, keep=False)

    def author(self, data: bytes) -> HolderId:
        """Who signed an index object that ``verify`` accepts."""
        record = decode_index(decode_signed(Kind.INDEX, data).payload)
        packs = [PackId(p) for p, _, sid in record.packs if sid == record.sid]
        return self._sessions.header(record.sid, packs)[1].holder

    def verify(self, data: bytes) -> tuple[IndexRecord, bytes]:
        """The signed part of an index object whose author may say what it says, and the sealed part."""
        signed = decode_signed(Kind.INDEX, data)
        record = decode_index(signed.payload)
        if record.config != self._ring.config_digest or record.sealed_digest != blake3(signed.sealed).digest():
            raise Untrusted("it does not belong to this repository, or its sealed part was replaced")
        packs = [PackId(p) for p, _, sid in record.packs if sid == record.sid]
        session, author = self._sessions.header(record.sid, packs)
        if session.head.domain != record.domain or not signed_by(Kind.INDEX, signed, author.sign):
            raise Untrusted("it is not signed by the session that it names")
        if author.role not in Role.MAINTAINERS and len(packs) != len(record.packs):
            raise Untrusted("a writer lists packs of another session")
        return record, signed.sealed

    # -- what is condemned: rule W2 ------------------------------------------------------------------------------

    def gc_problems(self) -> list[Damaged]:
        """What is wrong with the records of GCs."""
        self.problems = []
        self.condemned()
        return self.problems

    def condemned(self) -> set[PackId]:
        """Packs that a running or a finished GC names; in this order, before packs and indexes are listed.

        A record that is damaged, or cannot be read now, may name any pack, so then none may be relied upon.
        """
        backend, found, doubt = self._store.backend, set[PackId](), False
        # Each GC that runs has a session, too: no store says that a listing of records is short.
        running = {names.GC + o.name.removeprefix(names.SESSIONS) for o in backend.list(_GC_SESSIONS)}
        listed = {o.name for o in backend.list(names.GC)}
        for name in sorted(listed):
            doubt |= not self._add_condemned(name, found)
        done = [o.name for o in backend.list(_GC_SLOTS)]
        for name in done:
            try:
                found.update(self.removed_by(name)[0])
            except Untrusted as e:
                self.problems.append(Untrusted(f"{name} is ignored: {e.message}", affected=[name]))
            except (Damaged, NotFound) as e:
                doubt = True
                self.problems.append(self._doubtful(name, e))
        for name in sorted(running - listed - {names.GC + n.removeprefix(names.SNAPSHOTS) for n in done}):
            doubt |= not self._add_condemned(name, found)
        return found | self.packs_present().keys() if doubt else found

    def _add_condemned(self, name: str, found: set[PackId]) -> bool:
        """Add what a record of a GC names; False if it is there and cannot be read."""
        try:
            found.update(self.condemned_by(name))
        except NotFound:
            pass  # its GC has ended since the listing, and says in its slot what is gone; or did not put it yet
        except Untrusted as e:
            self.problems.append(Untrusted(f"{name} is ignored: {e.message}", affected=[name]))
        except Damaged as e:
            if any(o.name == name for o in self._store.backend.list(name)):
                self.problems.append(self._doubtful(name, e))
                return False
        return True

    @staticmethod
    def _doubtful(name: str, error: Damaged | NotFound) -> Damaged:
        text = f"{name} cannot be read, so nothing that is stored is relied upon: {error.message}"
        return Damaged(text, affected=[name])

    def condemned_by(self, name: str) -> tuple[PackId, ...]:
        """The packs that a record of a GC names; Damaged, NotFound."""
        signed = decode_signed(Kind.GC, fetch(self._store.backend, name))
        gc = decode_gc(signed.payload)
        if gc.config != self._ring.config_digest or names.GC + gc.sid != name:
            raise Untrusted("it does not belong here")
        session, author = self._sessions.header(gc.sid)
        if session.head.purpose != GC or not signed_by(Kind.GC, signed, author.sign):
            raise Untrusted("it is not signed by a maintainer's session")
        return gc.condemned

    def removed_by(self, name: str) -> tuple[list[PackId], HolderId]:
        """The packs that a "GC done" slot names for ever, and who signed it; Damaged, NotFound."""
        signed = decode_signed(Kind.SNAPSHOT, self._store.immutable(name))
        record = decode_snapshot(signed.payload)
        author = trusted_certificate(record.certificate, self._ring.config_digest, self._ring.config.owner_sign)
        if author.role not in Role.MAINTAINERS or not signed_by(Kind.SNAPSHOT, signed, author.sign):
            raise Untrusted("it is not signed by a maintainer")
        return record.removed_packs(), author.holder

    def packs_present(self) -> dict[PackId, int]:
        """Packs in the store and their sizes; names that are none are left to check."""
        present = {}
        for info in self._store.backend.list(names.PACKS):
            digest = names.content_digest(info.name)
            if digest is not None:
                present[PackId(digest)] = info.size
        return present

    # -- the cached tables ---------------------------------------------------------------------------------------

    def _place(self) -> tuple[str, bytes] | None:
        """The folder of this holder's tables, and the key that they are sealed with; None: nothing is cached."""
        own = self._ring.own
        if own is None or self._store.cache.folder is None:
            return None
        # Another set of domains, and of those whose index objects count, sees other tables.
        known = b"".join([*sorted(self._ring.domains), b"/", *sorted(self._ring.removed)])
        key = derive(own.seeds, "cache", context_digest(self._ring.config_digest, known))
        return f"{TABLES}{own.id.hex()[:16]}/", key

    def _cached(self, listed: frozenset[str]) -> list[IndexTable]:
        tables: list[IndexTable] = []
        place = self._place()
        if place is None:
            return tables
        folder, key = place
        for name in self._store.cache.names(folder):
            data = self._store.cache.get_sealed(name, key)
            table = None if data is None else IndexTable.load(data)
            if table is not None and table.names <= listed and not any(table.names & t.names for t in tables):
                tables.append(table)
            else:
                self._store.cache.remove(name)  # it lists what is gone, is of another key, or was altered
        return tables

    def _keep(self, tables: list[IndexTable], fresh: IndexTable) -> None:
        place = self._place()
        if place is None or not fresh.names:
            return
        folder, key = place
        new = [fresh]
        if len(tables) > MAX_TABLES:
            tables.sort(key=len)
            # The largest alone is often most of the index: it is written again only once the rest is as large.
            few = len(tables) if len(tables[-1]) < sum(map(len, tables[:-1])) else len(tables) - 1
            for table in tables[:few]:
                self._store.cache.remove(folder + _label(table))
            merged = merge_tables(tables[:few])
            new = [merged] if fresh in tables[:few] else [fresh, merged]
            tables[:few] = [merged]
        for table in new:
            self._store.cache.put_sealed(folder + _label(table), key, table.dump())


def _label(table: IndexTable) -> str:
    return blake3("\n".join(sorted(table.names)).encode()).hexdigest()[:32]
