"""Where every dataset stands by the evidence, without reading all of it each time.

A year of drills of hundreds of datasets is hundreds of thousands of results.  What each record adds is folded into a
small table, in any order; the table is kept in the cache, and only records that are not in it are read.  Were all of
them lost, it would be made again.
"""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from snapvault.assurance.outcome import FAIL, NOT_RUN, PASS
from snapvault.crypto.kdf import context_digest, derive
from snapvault.format import names
from snapvault.format.evidence import Headline, decode_evidence, decode_headline
from snapvault.format.wire import FormatError, pack, unpack
from snapvault.foundation.clock import SKEW, now
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import HolderId
from snapvault.repository.chain import EVIDENCE, End, Link, rolled_back
from snapvault.repository.repository import Vault
from snapvault.repository.trust import Untrusted

VERSION = 2  # of the cached table
Key = tuple[str, str]  # dataset and site


@dataclass(frozen=True, slots=True)
class Row:
    """One result, and the record that it stands in."""

    record: bytes  # its digest
    number: int  # its place in the chain
    time: int  # when it was signed, nanoseconds
    holder: HolderId  # who signed
    headline: Headline
    text: bytes  # all of the result, as JSON


@dataclass(slots=True)
class Fold:
    """What is kept of one dataset at one site."""

    last: Row | None = None
    failed: Row | None = None
    passed: dict[str, Row] = field(default_factory=dict)  # by level
    drills: int = 0
    samples: dict[str, int] = field(default_factory=dict)  # how many, by seed
    newest: datetime | None = None  # time of the newest snapshot that a drill has seen

    def add(self, row: Row) -> None:
        """In any order."""
        head = row.headline
        self.last = _later(self.last, row)
        if head.outcome == FAIL:
            # By its place in the chain: a clock that was set back must not let an older failure hide it.
            self.failed = max(self.failed or row, row, key=lambda r: (r.number, *_age(r)))
        elif head.outcome == PASS:
            self.passed[head.level] = _later(self.passed.get(head.level), row)
        if head.outcome != NOT_RUN:
            self.drills += 1
            if head.level == "sample":
                self.samples[head.seed] = self.samples.get(head.seed, 0) + 1
        if head.snapshot is not None and head.snapshot.time <= head.began + SKEW:
            self.newest = max(self.newest or head.snapshot.time, head.snapshot.time)

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Those that are kept, and what for."""
        for what, row in (("last", self.last), ("failed", self.failed)):
            if row is not None:
                yield what, row
        yield from self.passed.items()


def _later(a: Row | None, b: Row) -> Row:
    return b if a is None or _age(a) < _age(b) else a


def _age(row: Row) -> tuple[datetime, bytes]:
    return row.headline.began, row.record


@dataclass(slots=True)
class _Table:
    """What is known of all records that were read."""

    known: dict[bytes, int] = field(default_factory=dict)  # digests of those that count, and their numbers
    missing: set[bytes] = field(default_factory=set)  # that they follow, and that are not there
    ends: dict[bytes, int] = field(default_factory=dict)  # that nothing follows, and their numbers
    results: int = 0
    folds: dict[Key, Fold] = field(default_factory=dict)
    # Of those that count: what says nothing, or something odd.  Never kept, since a clock that is wrong today is right
    # tomorrow.
    mute: dict[bytes, str] = field(default_factory=dict)


class Ledger:
    """Reads the evidence of one repository."""

    def __init__(self, vault: Vault) -> None:
        vault.ring.require_read("open the evidence")
        self._vault, self._chain = vault, vault.evidence
        self._seen = {bytes.fromhex(digest): number for digest, number in vault.pins.site.evidence.items()}
        self.problems: list[Damaged] = []
        self.table = _Table()
        self._prevs: dict[bytes, tuple[bytes, ...]] = {}  # of the records that were read now

    def update(self) -> None:
        """Read what is new.  What is wrong stands in ``problems``; errors of the store."""
        sizes = self._chain.listed()
        self.problems, self.table = [], self._kept()
        there = {bytes.fromhex(name.removeprefix(names.EVIDENCE)) for name in sizes if names.content_digest(name)}
        new = {name: size for name, size in sizes.items() if not _is_in(name, self.table.known)}
        if not self.table.known.keys() <= there:
            self.table, new = _Table(), sizes
        before = len(self.table.known)
        self._read(new)
        if len(self.table.known) != before:
            self._keep()
        self._tell(there)
        self._tell_numbers()

    def pin(self) -> None:
        """Remember the ends: whoever drops the newest records from the store is found out."""
        self._vault.pins.site.evidence = {end.digest.hex(): end.number for end in self.ends()}
        self._vault.pins.save()

    def ends(self) -> list[End]:
        """What the next record follows: also what this client saw here, and is gone, so that everybody learns of it."""
        return [End(d, n) for d, n in sorted({**self._lost(), **self.table.ends}.items())]

    def add(self, link: Link) -> None:
        """A record that was just put."""
        self._count(link)
        self._keep()
        self.pin()

    # -- reading -------------------------------------------------------------------------------------------------

    def _read(self, sizes: dict[str, int]) -> None:
        removed, waiting = self._vault.ring.removed, dict[bytes, Link]()
        vouched = list(self.table.missing)
        for link in self._chain.each(sizes):
            if not isinstance(link, Link):
                self.problems.append(link)
            elif link.holder in removed:
                waiting[link.digest] = link
            else:
                vouched += link.record.prevs
                self._count(link)
        # A removed holder may make up records now, but none that one who is still trusted has followed.
        while vouched:
            followed = waiting.pop(vouched.pop(), None)
            if followed is not None:
                vouched += followed.record.prevs
                self._count(followed)
        for ignored in waiting.values():
            who = self._vault.ring.name_of(ignored.holder)
            why = f"{ignored.name} is ignored: the key of {who}, who signed it, was removed"
            self.problems.append(Untrusted(why, affected=[ignored.name]))

    def _count(self, link: Link) -> None:
        """Take a record that counts."""
        table, prevs = self.table, set(link.record.prevs)
        if link.digest not in table.missing:
            table.ends[link.digest] = link.number
        table.missing.discard(link.digest)
        table.known[link.digest], self._prevs[link.digest] = link.number, link.record.prevs
        for prev in prevs:
            table.ends.pop(prev, None)
        table.missing |= prevs - table.known.keys()
        try:
            self._fold(link)
        except FormatError as e:
            table.mute[link.digest] = e.message

    def _fold(self, link: Link) -> None:
        rows, limit = list(rows_of(link)), _latest()
        if late := [row.headline.began for row in rows if row.headline.began > limit]:
            raise FormatError(f"a drill of {late[0].isoformat()} is still to come")
        for row in rows:
            head = row.headline
            self.table.folds.setdefault((head.dataset, head.site), Fold()).add(row)
            self.table.results += 1

    def _lost(self) -> dict[bytes, int]:
        """Ends that this client saw here, and that are neither there nor followed by anything that is."""
        return {d: n for d, n in self._seen.items() if d not in self.table.known and d not in self.table.missing}

    def _tell(self, there: set[bytes]) -> None:
        if self._vault.rollback is not None:  # by an old keyset, records of removed holders would count
            self.problems.append(self._vault.rollback)
        for digest, why in sorted(self.table.mute.items()):
            name = names.EVIDENCE + digest.hex()
            self.problems.append(FormatError(f"{name} says nothing: {why}", affected=[name]))
        for digest in sorted(self.table.missing - there):
            name = names.EVIDENCE + digest.hex()
            self.problems.append(Damaged(f"{name} is missing: another record follows it", affected=[name]))
        for digest, number in sorted(self._lost().items()):
            if digest not in there:
                self.problems += rolled_back({digest.hex(): number}, (), EVIDENCE)

    def _tell_numbers(self) -> None:
        known = self.table.known
        for digest, prevs in sorted(self._prevs.items()):
            if known.keys() >= set(prevs) and known[digest] != 1 + max((known[p] for p in prevs), default=0):
                name = names.EVIDENCE + digest.hex()
                why = f"{name} has another number than its place in the chain"
                self.problems.append(FormatError(why, affected=[name]))

    # -- the cached table ----------------------------------------------------------------------------------------

    def _place(self) -> tuple[str, bytes] | None:
        """Name and key of the table; of another keyset, other records count."""
        ring = self._vault.ring
        if ring.own is None:
            return None
        label = context_digest(ring.config_digest, ring.keyset_digest, bytes([VERSION]))
        return f"evidence/{label.hex()[:32]}", derive(ring.own.seeds, "cache", label)

    def _kept(self) -> _Table:
        place = self._place()
        data = None if place is None else self._vault.cache.get_sealed(*place)
        try:
            table = _Table() if data is None else _load(data)
        except FormatError:  # larger than what can be read again
            return _Table()
        limit = _latest()
        # One of a clock that was ahead took for a fact what is still to come.
        known = (row for fold in table.folds.values() for _, row in fold.rows())
        return _Table() if any(row.headline.began > limit for row in known) else table

    def _keep(self) -> None:
        place = self._place()
        if place is not None and not self.table.mute:
            self._vault.cache.put_sealed(*place, [_dump(self.table)])


def _latest() -> datetime:
    """What is dated later is still to come."""
    return now() + SKEW


def rows_of(link: Link) -> Iterable[Row]:
    """The results in a record; FormatError."""
    for headline, text in decode_evidence(link.body):
        yield Row(link.digest, link.number, link.record.time, link.holder, headline, text)


def _is_in(name: str, known: Container[bytes | None]) -> bool:
    return names.content_digest(name) in known


def _dump(table: _Table) -> bytes:
    known = b"".join(digest + number.to_bytes(8, "big") for digest, number in sorted(table.known.items()))
    return pack(
        [
            known, b"".join(sorted(table.missing)), sorted(table.ends.items()), table.results,
            [[*key, _dump_fold(fold)] for key, fold in table.folds.items()],
        ]
    )  # fmt: skip


def _dump_fold(fold: Fold) -> list[Any]:
    rows = [[what, r.record, r.number, r.time, r.holder, r.text] for what, r in fold.rows()]
    return [rows, fold.drills, fold.samples, None if fold.newest is None else fold.newest.isoformat()]


def _load(data: memoryview) -> _Table:
    known, missing, ends, results, folds = unpack(data)
    numbers = {part[:32]: int.from_bytes(part[32:], "big") for part in _each(known, 40)}
    table = _Table(numbers, set(_each(missing, 32)), dict(ends), results)
    for dataset, site, (rows, drills, samples, newest) in folds:
        fold = Fold(drills=drills, samples=samples, newest=newest and datetime.fromisoformat(newest))
        for what, record, number, time, holder, text in rows:
            row = Row(record, number, time, HolderId(holder), decode_headline(text), text)
            if what in ("last", "failed"):
                setattr(fold, what, row)
            else:
                fold.passed[what] = row
        table.folds[dataset, site] = fold
    return table


def _each(parts: bytes, size: int) -> Iterator[bytes]:
    return (parts[i : i + size] for i in range(0, len(parts), size))
