"""Reading packs: every byte against the name, every segment opened, every blob's id recomputed."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from snapvault.backend.protocol import NotFound
from snapvault.format import names
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Damaged, SnapvaultError
from snapvault.foundation.events import Reporter
from snapvault.foundation.ids import BlobId, DomainId, PackId
from snapvault.operations.check_objects import ObjectCheck
from snapvault.operations.claims import Claim
from snapvault.operations.results import Finding
from snapvault.repository.index import PackRow, Place, build_table
from snapvault.repository.loader import Entry
from snapvault.repository.packs import check_pack_name, open_directory, open_segment, parse_header
from snapvault.repository.repository import Vault
from snapvault.repository.store import fetch
from snapvault.repository.verdicts import (
    DAMAGED,
    WHOLE,
    Verdicts,
    put_verdicts,
    read_verdicts,
    replace_verdicts,
)

RECORDS_MAX = 16  # records of what was found, at each level; more are merged into one

Where = tuple[PackRow, int, int]  # a segment, as somebody describes it: pack, offset, sealed bytes


@dataclass(slots=True)
class Bad:
    """Places where nothing whole is to be had: segments that do not open, blobs that are not what their id says."""

    segments: set[Where] = field(default_factory=set)
    blobs: set[tuple[Where, int, BlobId]] = field(default_factory=set)  # and the blob's offset in the segment

    def has(self, blob: BlobId, place: Place) -> bool:
        """Whether this place of a blob was found bad."""
        where = place.pack, place.start, place.sealed
        return where in self.segments or (where, place.offset, blob) in self.blobs

    def add(self, other: "Bad") -> None:
        """Take over what another one holds."""
        self.segments |= other.segments
        self.blobs |= other.blobs

    def __bool__(self) -> bool:
        return bool(self.segments or self.blobs)


@dataclass(slots=True)
class _Outcome:
    """What reading one pack showed."""

    pack: PackId
    size: int  # bytes that were read
    problems: list[str] = field(default_factory=list)
    misdescribed: bool = False  # an index of its domain says something else than its directory
    rotten: bool = False  # its own bytes are the problem, not what somebody says of them: nothing may rely on it
    bad: Bad = field(default_factory=Bad)
    domain: DomainId | None = None  # as it says itself, if it can
    opened: set[DomainId] = field(default_factory=set)  # in which a segment opened, and held what its ids say
    locked: bool = False  # the secret of its session is not at hand, so nobody can tell
    false: set[DomainId] = field(default_factory=set)  # domains in which it is listed, and is not of them
    mute: bool = False  # no index names it, and it does not say what is in it: nobody can rely on it
    unnamed: Entry | None = None  # what it says of itself, where no index of its domain names it


class DataCheck:
    """Reads a share of the packs, those first that were verified longest ago."""

    def __init__(self, vault: Vault, objects: ObjectCheck, reporter: Reporter, threads: int | None) -> None:
        self._vault, self._objects, self._reporter = vault, objects, reporter
        self._threads = threads or len(os.sched_getaffinity(0))
        self.findings: list[Finding] = []
        self.bad = Bad()
        self.rotten: dict[PackId, set[DomainId]] = {}  # packs that are damaged, not only locked: whose they may be
        self.misdescribed: dict[PackId, DomainId] = {}  # whole, whatever some index of its domain says
        self.false: dict[PackId, set[DomainId]] = {}  # packs that are listed in domains of which they are not
        self.packs_read = self.bytes_read = self.verified_bytes = 0

    def run(self, share: float) -> None:
        """Read packs until ``share`` of all their bytes was read."""
        backend, ring, present = self._vault.backend, self._vault.ring, self._objects.present
        whole, damaged = read_verdicts(backend, ring, WHOLE), read_verdicts(backend, ring, DAMAGED)
        good: list[PackId] = []
        doubtful: list[PackId] = []  # somebody may say wrong things of them, which is not their fault
        rotten: list[PackId] = []
        unnamed: list[Entry] = []
        for outcome in self._read_all(self._choose(share, whole.packs, damaged.packs)):
            self.packs_read += 1
            self.bytes_read += outcome.size
            self.bad.add(outcome.bad)
            if outcome.unnamed is not None:
                unnamed.append(outcome.unnamed)
            (doubtful if outcome.problems else good).append(outcome.pack)
            if outcome.false:
                self.false[outcome.pack] = outcome.false
            if outcome.rotten:
                rotten.append(outcome.pack)
            if outcome.locked:  # told to writers all the same, but nobody may give it up
                continue
            if outcome.rotten:
                claimed = {claim.row.domain for claim in self._objects.claims.of(outcome.pack)}
                self.rotten[outcome.pack] = {outcome.domain} if outcome.domain else outcome.opened or claimed
            elif outcome.misdescribed and outcome.domain is not None:
                self.misdescribed[outcome.pack] = outcome.domain
            name = names.pack(outcome.pack)
            # Nothing was lost with it, or a snapshot lacks it; those that are forgotten are not looked into.
            mute = outcome.mute and not self._objects.waiting
            self.findings += [Finding(f"{name}: {p}", (name,), harmless=mute) for p in outcome.problems]
        if unnamed:
            self._objects.index.tables.append(build_table((), unnamed))
        self.verified_bytes = sum(present[p] for p in (whole.packs.keys() | good).difference(doubtful) if p in present)
        self._remember(good, doubtful, rotten, whole, damaged)

    def _choose(self, share: float, verified: dict[PackId, int], damaged: dict[PackId, int]) -> list[PackId]:
        """Those that were found damaged before, at every level: what they lost is named each time, until it is mended.

        Then those that were verified longest ago.
        """
        present = self._objects.present
        chosen = sorted(damaged.keys() & present.keys())
        budget = share * sum(present.values()) - sum(present[p] for p in chosen)
        for pack in sorted(present.keys() - damaged.keys(), key=lambda p: (verified.get(p, 0), p)):
            if budget <= 0:
                break
            chosen.append(pack)
            budget -= present[pack]
        return chosen

    def _read_all(self, packs: Iterable[PackId]) -> Iterator[_Outcome]:
        """A few packs at once, so that memory stays bounded."""
        todo, running = iter(packs), set[Future[_Outcome]]()
        total = self._objects.present
        with ThreadPoolExecutor(self._threads, thread_name_prefix="snapvault-check") as pool:
            try:
                while True:
                    while len(running) < self._threads + 1 and (pack := next(todo, None)) is not None:
                        running.add(pool.submit(self._read, pack, total[pack]))
                    if not running:
                        return
                    done, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                    self._reporter.check()
                    for future in done:
                        yield future.result()
                        self._reporter.tick("read", self.packs_read, len(total), bytes_done=self.bytes_read)
            finally:
                for future in running:
                    future.cancel()

    def _read(self, pack: PackId, size: int) -> _Outcome:
        """Once more if something is wrong with it: one reply that came damaged is no damage."""
        outcome = self._look_into(pack, size)
        return self._look_into(pack, size) if outcome.rotten else outcome

    def _look_into(self, pack: PackId, size: int) -> _Outcome:
        outcome = _Outcome(pack, size)
        claims = self._objects.claims.of(pack)
        try:
            data = memoryview(fetch(self._vault.backend, names.pack(pack), size))
        except (NotFound, Damaged) as e:
            outcome.size = 0
            outcome.problems.append(f"cannot be read: {e.message}")
            outcome.rotten = isinstance(e, Damaged)
            for row, segments in self._entries(outcome, claims):
                outcome.bad.segments.update((row, s.offset, s.sealed) for s in segments)
            return outcome
        misnamed = False  # then its header may be that of another pack
        try:
            check_pack_name(pack, data)
        except Damaged as e:
            outcome.problems.append(e.message)
            outcome.rotten = misnamed = True
        own = self._own_directory(outcome, data)
        outcome.mute = own is None and not claims
        if own is not None:
            if all(claim.row.domain != own[0].domain for claim in claims):
                outcome.unnamed = own
            agreeing = [claim for claim in claims if claim.is_that_of(own)]
            if agreeing or outcome.unnamed:  # where it is wrong: its writer sealed other bytes than it meant to
                outcome.rotten |= not self._segments(outcome, data, own)
            claims = [claim for claim in claims if claim not in agreeing]
        for entry in self._entries(outcome, claims):
            self._segments(outcome, data, entry)
            if not misnamed and outcome.domain not in (None, entry[0].domain):
                outcome.false.add(entry[0].domain)
                outcome.problems.append(f"an index of session {entry[0].sid} lists it in a domain of which it is not")
            elif own is not None:
                outcome.misdescribed = True
                outcome.problems.append(f"its directory and an index of session {entry[0].sid} disagree")
        return outcome

    def _entries(self, outcome: _Outcome, claims: Sequence[Claim]) -> Iterator[Entry]:
        """What is said of a pack, in full."""
        for claim in claims:
            try:
                yield self._objects.claims.entry(claim)
            except (NotFound, Damaged) as e:
                outcome.problems.append(f"what {claim.source or 'its directory'} said of it is gone: {e.message}")

    def _own_directory(self, outcome: _Outcome, data: memoryview) -> Entry | None:
        """What a pack says of itself; None if that cannot be read."""
        sessions = self._vault.sessions
        try:
            head = sessions.verify(parse_header(data))[0].head
            sid, outcome.domain = head.sid, head.domain
        except Damaged as e:
            outcome.problems.append(f"its session header: {e.message}")
            claims = self._objects.claims.of(outcome.pack)
            if not claims:
                return None
            sid = claims[0].row.sid
        try:
            secrets = sessions.secrets(sid, outcome.pack)
            row = PackRow(outcome.pack, len(data), sid, secrets.domain)
            return row, open_directory(secrets, data)
        except Damaged as e:
            outcome.problems.append(f"its directory: {e.message}")
            return None

    def _segments(self, outcome: _Outcome, data: memoryview, entry: Entry) -> bool:
        """Open every segment that somebody says is in a pack, and verify every blob: whether all is as they say."""
        row, segments = entry
        before = len(outcome.problems)
        try:
            secrets = self._vault.sessions.secrets(row.sid, row.id)
        except Damaged as e:
            outcome.locked = True
            outcome.problems.append(e.message)
            outcome.bad.segments.update((row, s.offset, s.sealed) for s in segments)
            return False
        for segment in segments:
            self._reporter.check()
            where = row, segment.offset, segment.sealed
            try:
                sealed = data[segment.offset : segment.offset + segment.sealed]
                opened = open_segment(secrets, sealed, in_place=True)
            except Damaged as e:
                outcome.problems.append(f"segment at {segment.offset}: {e.message}")
                outcome.bad.segments.add(where)
                continue
            domain = self._vault.sessions.domain_keys(secrets)
            wrong = [
                b for b in segment.blobs()
                if domain.blob_id(b.type, opened[b.offset : b.offset + b.length]) != b.id
            ]  # fmt: skip
            if len(wrong) < len(segment.lengths):
                outcome.opened.add(row.domain)
            if wrong:
                outcome.problems.append(f"segment at {segment.offset}: {len(wrong)} blobs do not match their ids")
                outcome.bad.blobs.update((where, b.offset, b.id) for b in wrong)
        return len(outcome.problems) == before

    # -- what was found when -------------------------------------------------------------------------------------

    def _remember(
        self, good: list[PackId], doubtful: list[PackId], rotten: list[PackId], whole: Verdicts, damaged: Verdicts
    ) -> None:
        """Write down what was found; old records are merged, so that their number stays small."""
        if self._vault.ring.own is None:
            return
        try:
            self._settle(WHOLE, good, doubtful, whole)
            self._settle(DAMAGED, rotten, good, damaged)
        except SnapvaultError as e:
            self.findings.append(Finding(f"what was found could not be written down: {e.message}", harmless=True))

    def _settle(self, level: str, found: list[PackId], refuted: list[PackId], before: Verdicts) -> None:
        """Records of one level: what is true now is added, what was found otherwise or is gone is taken out."""
        backend, ring, present = self._vault.backend, self._vault.ring, self._objects.present
        fresh = dict.fromkeys(found, now_ns())
        wrong = set(refuted)
        if level == DAMAGED:  # those are few and are told to every writer: each once, and only while they are there
            fresh = {p: when for p, when in fresh.items() if p not in before.packs}
            wrong |= before.packs.keys() - present.keys()
        if not wrong.isdisjoint(before.packs) or len(before.records) + bool(fresh) > RECORDS_MAX:
            kept = {p: when for p, when in (before.packs | fresh).items() if p in present and p not in wrong}
            replace_verdicts(backend, ring, level, kept, before.records)
        elif fresh:
            put_verdicts(backend, ring, level, fresh)
