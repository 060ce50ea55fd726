"""Reading blobs: index -> place -> segment -> verified plaintext."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from snapvault.backend.protocol import Backend, NotFound
from snapvault.format import names
from snapvault.format.tree import ID_SIZE, BlobType, Content, Tree, decode_tree
from snapvault.format.wire import FormatError
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import BlobId
from snapvault.repository.failover import first_whole
from snapvault.repository.index import BlobIndex, PackRow, Place
from snapvault.repository.keyring import DomainKeys, Keyring
from snapvault.repository.packs import open_segment
from snapvault.repository.segments import SegmentCache
from snapvault.repository.sessions import Sessions
from snapvault.repository.store import reread

ALIGNMENT = 64 << 10
SEGMENTS_KEPT = 8  # opened segments that a reader keeps


class BlobReader:
    """Opens blobs, each verified by its id before anything looks into it.  Thread-safe."""

    def __init__(
        self,
        backend: Backend,
        ring: Keyring,
        sessions: Sessions,
        index: BlobIndex,
        reloads: Sequence[Callable[[], BlobIndex]] = (),
        *,
        keep: int = SEGMENTS_KEPT,
        cache: SegmentCache | None = None,
    ) -> None:
        """``cache``: where segments of folders are kept from run to run; None: the store itself is seen."""
        self._backend, self._ring, self._sessions, self.index = backend, ring, sessions, index
        self._reloads = reloads  # asked one after another, each once, while a blob cannot be had by the index
        self._measured: dict[tuple[int, bytes], int] = {}  # bytes below a list, by depth and id
        self._reloading = threading.Lock()
        self._reloaded = 0
        self._keep, self._cache = keep, cache
        self._kept: OrderedDict[tuple[bytes, int], memoryview] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def remembers(self) -> int:
        """How many lists it measured and remembers: the only thing in a reader that grows."""
        return len(self._measured)

    def segment(self, place: Place) -> memoryview:
        """The plaintext of the segment that holds this place; not yet verified.  Damaged, NotFound."""
        key = place.pack.id, place.start
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        opened = self._open(place)
        with self._lock:
            self._kept[key] = opened
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        return opened

    def _open(self, place: Place) -> memoryview:
        cache = None if place.type == BlobType.DATA else self._cache
        cached = None if cache is None else cache.get(place.pack.id, place.start, place.sealed)
        if cached is not None:
            return self.open_segment(place, cached)
        sealed, opened = reread(lambda: self._fetch_segment(place), tries=2)
        if cache is not None:
            cache.put(place.pack.id, place.start, sealed)
        return opened

    def _fetch_segment(self, place: Place) -> tuple[memoryview, memoryview]:
        """A segment as it is stored, and opened, from wherever it is whole."""

        def read(backend: Backend) -> tuple[memoryview, memoryview]:
            sealed = self._fetch(backend, place.pack, place.start, place.sealed)
            return sealed, self.open_segment(place, sealed)

        return first_whole(self._backend, names.pack(place.pack.id), read)

    def _forget(self, place: Place) -> None:
        """One reply that came wrong must not stick: the next look reads the store."""
        with self._lock:
            self._kept.pop((place.pack.id, place.start), None)
        if self._cache is not None:
            self._cache.remove(place.pack.id, place.start, place.sealed)

    def fetch(self, pack: PackRow, start: int, length: int) -> memoryview:
        """Bytes of a pack, not yet verified."""
        return self._fetch(self._backend, pack, start, length)

    @staticmethod
    def _fetch(backend: Backend, pack: PackRow, start: int, length: int) -> memoryview:
        """What the store sees is aligned to 64 KiB, so that it learns little of segments' ends."""
        first = start // ALIGNMENT * ALIGNMENT
        end = min(-(-(start + length) // ALIGNMENT) * ALIGNMENT, pack.size)
        name = names.pack(pack.id)
        try:
            data = backend.get(name, first, end - first)
        except Damaged:  # the pack is cut short, perhaps behind what is wanted
            return memoryview(backend.get(name, start, length))
        return memoryview(data)[start - first : start - first + length]

    def open_segment(self, place: Place, sealed: memoryview, *, in_place: bool = False) -> memoryview:
        """The plaintext of a segment whose bytes were fetched; Damaged.  ``in_place``: as of packs.open_segment."""
        name = names.pack(place.pack.id)
        secrets = self._sessions.secrets(place.pack.sid, place.pack.id)
        try:
            return open_segment(secrets, sealed, in_place=in_place)
        except Damaged as e:
            raise type(e)(f"{name}, segment at {place.start}: {e.message}", affected=[name]) from e

    def blob(self, blob: BlobId, blob_type: int) -> memoryview:
        """The plaintext of a blob from any place that has it whole; Damaged if none has.

        A prune may have moved it since the index was loaded, or the index may have lost it: then the index is
        loaded once more, together with the directories of packs that it does not name.
        """
        while True:
            seen = self._reloaded
            try:
                return self._blob(blob, blob_type)
            except Damaged:
                if not self._reload(seen):
                    raise

    def _reload(self, seen: int) -> bool:
        """Whether there is a newer index than the one after ``seen`` reloads."""
        with self._reloading:
            if self._reloaded == seen:
                if seen == len(self._reloads):
                    return False
                self.index = self._reloads[seen]()
                self._reloaded += 1
            return True

    def _blob(self, blob: BlobId, blob_type: int) -> memoryview:
        last: Damaged | NotFound | None = None
        for place in self.index.places(blob):
            try:
                return self.verified(blob, blob_type, place, self.segment(place))
            except (Damaged, NotFound) as e:
                self._forget(place)
                last = e
        if last is None:
            raise Damaged(f"blob {blob.hex()[:16]} is in no index")
        raise Damaged(f"blob {blob.hex()[:16]} cannot be read: {last.message}", affected=last.affected)

    def verified(self, blob: BlobId, blob_type: int, place: Place, segment: memoryview) -> memoryview:
        """A blob's part of an opened segment, after its id was recomputed; Damaged."""
        data = part(self.keys(place), blob, blob_type, place, segment)
        if data is None:
            raise self.mismatch(place)
        return data

    def keys(self, place: Place) -> DomainKeys:
        """What the ids of blobs at this place are made with; Damaged."""
        return self._sessions.domain_keys(self._sessions.secrets(place.pack.sid, place.pack.id))

    def mismatch(self, place: Place) -> Damaged:
        """What there is to say of a blob whose bytes are not those of its id."""
        name = names.pack(place.pack.id)
        return Damaged(f"{name}: a blob does not match its id", affected=[name])

    def locate(self, ids: bytes) -> list[Place]:
        """A place of each of these data blobs; Damaged if one of them is in no index, also after a reload."""
        found = self.index.only_places(ids)
        if found is not None:
            return found
        return [self._locate(BlobId(ids[i : i + ID_SIZE])) for i in range(0, len(ids), ID_SIZE)]

    def locate_many(self, contents: Sequence[bytes]) -> dict[bytes, list[Place]]:
        """``locate`` for several contents, by their ids; none where a look at the index leaves questions."""
        found = self.index.only_places(b"".join(contents))
        if found is None:
            return {}
        places = iter(found)
        return {ids: list(islice(places, len(ids) // ID_SIZE)) for ids in contents}

    def _locate(self, blob: BlobId) -> Place:
        seen = self._reloaded
        while not (places := self.index.places(blob)):
            if not self._reload(seen):
                raise Damaged(f"blob {blob.hex()[:16]} is in no index")
            seen = self._reloaded
        if len(places) == 1:
            return places[0]
        if len({p.length for p in places}) > 1:  # somebody lies about it
            true = len(self.blob(blob, BlobType.DATA))
            places.sort(key=lambda p: p.length != true)
        return places[0]

    def lengths(self, ids: bytes) -> list[int]:
        """Bytes of each of these blobs; Damaged as ``locate``."""
        return [place.length for place in self.locate(ids)]

    def length(self, blob: BlobId) -> int | None:
        """Bytes of a data blob, or None if it is in no index."""
        return self._locate(blob).length if self.index.places(blob) else None

    def measure(self, content: Content) -> int:
        """Bytes of a file's content by what the index says, each list read once; Damaged.

        Before a content is expanded: a few lists that name one another can stand for more ids than memory holds.
        """
        if not content.depth:
            return sum(self.lengths(content.ids))
        total = 0
        for i in range(0, len(content.ids), ID_SIZE):
            key = content.depth, content.ids[i : i + ID_SIZE]
            known = self._measured.get(key)
            if known is None:
                known = self.measure(Content(content.depth - 1, self.id_list(BlobId(key[1]))))
                self._measured[key] = known
            total += known
        return total

    def expand(self, content: Content) -> bytes:
        """The ids at depth 0 of a content: its LIST blobs are read and joined."""
        return content.ids if not content.depth else b"".join(self.leaves(content))

    def pieces(
        self, content: Content, stored: int, beside: Mapping[bytes, list[Place]] | None = None
    ) -> tuple[bytes, list[Place]]:
        """The ids of a file's pieces, joined, and where each lies; Damaged unless they are ``stored`` bytes together.

        To be called before anything is read or written: the position of a piece is a sum of lengths.  ``beside``:
        places by ids that were looked up for many files at once.
        """
        if content.depth and self.measure(content) != stored:
            raise Damaged("its parts do not add up to its size")
        ids = self.expand(content)
        places = (beside.get(ids) if beside else None) or self.locate(ids)
        if sum(p.length for p in places) != stored:
            raise Damaged("its parts do not add up to its size")
        return ids, places

    def leaves(self, content: Content) -> Iterator[bytes]:
        """The same in parts, so that not all of them are held at once."""
        if not content.depth:
            yield content.ids
            return
        for i in range(0, len(content.ids), ID_SIZE):
            below = self.id_list(BlobId(content.ids[i : i + ID_SIZE]))
            yield from self.leaves(Content(content.depth - 1, below))

    def id_list(self, blob: BlobId) -> bytes:
        """The ids in a LIST blob."""
        ids = self.blob(blob, BlobType.LIST)
        if len(ids) % ID_SIZE or not ids:
            raise FormatError("a list of blob ids is malformed")
        return bytes(ids)

    def tree(self, blob: BlobId) -> Tree:
        """A piece of a folder."""
        return decode_tree(self.blob(blob, BlobType.TREE))

    def trees(self, content: Content) -> Iterator[Tree]:
        """The pieces of a folder; FormatError if they are not in order."""
        before = b""
        for ids in self.leaves(content):
            for i in range(0, len(ids), ID_SIZE):
                tree = self.tree(BlobId(ids[i : i + ID_SIZE]))
                if not tree.nodes:
                    raise FormatError("a folder has an empty piece")
                if tree.nodes[0].name <= before:
                    raise FormatError("a folder's pieces are not in order")
                before = tree.nodes[-1].name
                yield tree


def part(keys: DomainKeys, blob: BlobId, blob_type: int, place: Place, segment: memoryview) -> memoryview | None:
    """A blob's part of an opened segment; None if it is cut short or not what the id says."""
    data = segment[place.offset : place.offset + place.length]
    return data if len(data) == place.length and keys.blob_id(blob_type, data) == blob else None
