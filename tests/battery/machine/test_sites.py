"""A repository and its copy against a dict of trees (family 7): what a push brought is there, whatever is done next.

Backups, pushes, forgetting with and without a time to bring it back, prunes at both ends, runs that are killed at any
call.  What was damaged at one end is read from the other meanwhile, and mended from it.  At last the copy is promoted,
and carries on.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from battery import lab
from battery.interleave.story import contents
from battery.lab import Lab, Objects, Tree
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

import snapvault
from snapvault.access.resolve import list_forgotten
from snapvault.backend.memory import MemoryBackend
from snapvault.format import names
from snapvault.format.signed import decode_signed
from snapvault.format.snapshot import REVOKED, decode_snapshot
from snapvault.format.wire import Kind as Framed
from snapvault.foundation import clock
from snapvault.foundation.clock import nanoseconds, now_ns
from snapvault.foundation.errors import Damaged
from snapvault.operations.genuine import SIGNED
from snapvault.operations.unlisted import NotHere
from snapvault.repository import site
from snapvault.testing.faults import Fault, FaultyBackend, Killed, Kind

CONTENTS = [random.Random(n).randbytes(600 + 700 * n) for n in range(5)]  # few, so that much of it was stored before
NOW, BEGIN = timedelta(0), 1_700_000_000 * 10**9
GCS = names.SNAPSHOTS + names.GC_PREFIX
NOT_MENDED = (names.LOCAL, names.NOTES, names.SLOTS)  # by a heal (docs/replication.md)
files = st.tuples(*[st.integers(0, len(CONTENTS) - 1)] * 3)
windows = st.sampled_from([NOW, timedelta(hours=5), timedelta(days=3)])
deaths = st.one_of(st.none(), st.tuples(st.integers(1, 80), st.booleans()))  # at which call, and whether after it
numbers = st.integers(min_value=0, max_value=1 << 16)
harms = st.tuples(st.sampled_from(["gone", "cut", "flipped"]), numbers)  # and at which byte

done: Counter[str] = Counter()  # what the machines did, so that a run that tried nothing fails


@dataclass
class Place:
    """One end, and what it owes."""

    lab: Lab
    owed: set[str] = field(default_factory=set)  # snapshots that are to be there
    until: dict[str, int] = field(default_factory=dict)  # forgotten: until when each comes back (ns)
    damage: Objects = field(default_factory=dict)  # what was changed or taken away, as it was

    def returnable(self) -> set[str]:
        """What was forgotten, and can be brought back."""
        return {sid for sid, until in self.until.items() if until > now_ns()}

    @property
    def site(self) -> snapvault.Site:
        return snapvault.Site(self.lab.url)


@contextmanager
def dying(place: Place, death: tuple[int, bool] | None) -> Iterator[None]:
    """Whoever works at this place meanwhile dies so."""
    if death is None:
        yield
        return
    inner = MemoryBackend(place.lab.url.removeprefix("memory://"))
    faulty = FaultyBackend(inner, [Fault(at=death[0], kind=Kind.KILL, after=death[1])])

    def opened(url: str, *args: object, **options: object) -> FaultyBackend | MemoryBackend:
        return faulty if url == place.lab.url else MemoryBackend(url.removeprefix("memory://"))

    with mock.patch.object(site, "open_backend", opened):
        yield


class Sites(RuleBasedStateMachine):
    """``here`` is the source, ``there`` the copy."""

    def __init__(self) -> None:
        super().__init__()
        self.small = lab.small_parts()
        self.small.__enter__()
        self.now = BEGIN
        self.clock = mock.patch.object(clock, "time", SimpleNamespace(time_ns=self._tick))
        self.clock.start()
        self.here, self.there = (Place(Lab(lab.memory(), Path("/nowhere"))) for _ in range(2))
        snapvault.init(self.here.lab.url, keys=lambda: lab.SEED, chunking=lab.CHUNKING).repository.close()
        self.trees: dict[str, Tree] = {}
        self.torn = False  # the last push was killed, perhaps between two commit slots
        self.ended: set[str] = set()  # snapshots that the source lost, before a prune there ended their sessions
        for number in range(3):
            self.back_up((number, 1, 2), None)
        self.push(None)

    def teardown(self) -> None:
        try:
            if not self.here.damage and not self.there.damage:  # else an error is on its way
                self.push(None)
                for which in range(2):
                    self.verify(which)
                self._carry_on()
        finally:
            self.clock.stop()
            self.small.__exit__(None, None, None)
            for place in (self.here, self.there):
                place.lab.store.objects.clear()

    def _tick(self) -> int:
        self.now += 10**6
        return self.now

    def _place(self, which: int) -> Place:
        return (self.here, self.there)[which % 2]

    # -- what people do --------------------------------------------------------------------------------------------

    @rule(hours=st.integers(1, 60))
    def time_passes(self, hours: int) -> None:
        self.now += hours * 3600 * 10**9

    @rule(files=files, death=deaths)
    def back_up(self, files: tuple[int, ...], death: tuple[int, bool] | None) -> None:
        tree: Tree = {name: CONTENTS[n] for name, n in zip(("a", "b", "c/d"), files, strict=True)}
        self._back_up(self.here, tree, death)

    def _back_up(self, place: Place, tree: Tree, death: tuple[int, bool] | None) -> None:
        before = self._commits(place)
        with dying(place, death):
            try:
                with place.lab.open() as repo:
                    place.lab.backup(repo, tree)
            except Killed:
                done["backups killed"] += 1
        new = {sid for sid in self._commits(place) - before if not sid.startswith(names.GC_PREFIX)}
        self.trees |= dict.fromkeys(new, tree)
        place.owed |= new
        done["backups"] += death is None

    def _commits(self, place: Place) -> set[str]:
        objects = place.lab.store.objects
        return {n.removeprefix(names.SNAPSHOTS) for n in objects if n.startswith(names.SNAPSHOTS)}

    @rule(death=deaths)
    def push(self, death: tuple[int, bool] | None) -> None:
        with dying(self.there, death):
            try:
                result = snapvault.replicate(self.here.lab.url, self.there.lab.url)
            except Killed:
                done["pushes killed"] += 1
                self.torn = True
                return
        self.torn = False
        assert all(p.harmless or self._is_ended(p.objects) for p in result.problems), result.problems
        came = self.here.owed - self.there.until.keys()
        done["came"] += len(came - self.there.owed)
        self.there.owed |= came

    @rule(which=numbers, number=numbers, window=windows)
    def forget(self, which: int, number: int, window: timedelta) -> None:
        place = self._place(which)
        found = sorted(place.owed)
        if len(found) < 2:
            return
        sid = found[number % len(found)]
        with place.lab.open() as repo:
            snapvault.forget_snapshots(repo, [sid], undelete_window=window)
        place.owed.discard(sid)
        place.until[sid] = now_ns() + nanoseconds(window) - 10**9  # a little less than what was said
        done["forgotten"] += 1

    @rule(number=numbers)
    def undelete(self, number: int) -> None:
        """At a copy nobody does."""
        found = sorted(self.here.returnable())
        if found:
            self._undelete(self.here, found[number % len(found)])

    def _undelete(self, place: Place, sid: str) -> None:
        with place.lab.open() as repo:
            try:
                result = snapvault.undelete(repo, sid)
            except snapvault.InvalidInput as e:
                assert "is back already" in e.message, e
                return
        self.trees[result.snapshot] = self.trees[sid]
        place.owed.add(result.snapshot)
        done["brought back"] += 1

    @rule(which=numbers, unused=st.sampled_from([0.0, 0.3]), death=deaths)
    def prune(self, which: int, unused: float, death: tuple[int, bool] | None) -> None:
        """Whoever was killed before is revoked at once."""
        place = self._place(which)
        with dying(place, death):
            try:
                result = self._prune(place, unused)
            except Killed:
                done["prunes killed"] += 1
                return
            except NotHere:
                assert place is self.there and self.torn
                return
        assert result.status == "ok", result
        done[f"removed {'there' if place is self.there else 'here'}"] += result.packs_removed
        done["copied"] += bool(result.bytes_copied)

    def _prune(self, place: Place, unused: float) -> snapvault.PruneResult:
        with place.lab.open() as repo:
            plan = snapvault.plan_prune(repo, limits=snapvault.PruneLimits(unused=unused))
            return plan.execute(wait=NOW, lease=NOW)

    @rule()
    def rotate(self) -> None:
        with self.here.lab.open() as repo:
            snapvault.rotate(repo)

    # -- damage ----------------------------------------------------------------------------------------------------

    @rule(
        which=numbers,
        harms=st.lists(st.tuples(numbers, harms), min_size=1),
        then=st.sampled_from(["push", "prune", "back up", "forget", "heal"]),
    )
    def disaster(self, which: int, harms: list[tuple[int, tuple[str, int]]], then: str) -> None:
        """Objects that are at both ends are taken away or changed at one; it is read nevertheless, then mended.

        Or somebody who has not seen it goes on working there.
        """
        place, other = self._place(which), self._place(which + 1)
        for number, harm in harms:
            self._harm(place, other, number, *harm)
        self._read_from_both(place, other)
        with suppress(Damaged, snapvault.RepositoryNotFound, snapvault.Conflict, snapvault.InvalidInput):
            if then == "push":
                snapvault.replicate(self.here.lab.url, self.there.lab.url)
            elif then == "prune":
                self._prune(place, 0.0)
            elif then == "back up" and place is self.here:
                self._back_up(place, {"a": CONTENTS[0], "b": CONTENTS[4]}, None)
            elif then == "forget":
                self.forget(which, harms[0][0], NOW)
            done[f"damaged: {then}"] += 1
        if not self.there.damage:
            self.verify(1)
        if place is self.here and then == "prune":
            self._note_ended()
        self._mend(place, as_it_was=then in ("heal", "push"))
        self.verify(which)

    def _harm(self, place: Place, other: Place, number: int, how: str, at: int) -> None:
        mine, others = place.lab.store.objects, other.lab.store.objects
        found = sorted(n for n in mine.keys() & others.keys() if mine[n] == others[n] and not n.startswith(NOT_MENDED))
        if not found:
            return
        name = found[number % len(found)]
        if name.removeprefix(names.SNAPSHOTS) in self.here.until and how == "gone":
            return  # what the source has forgotten it does not bring again
        data = place.damage[name] = mine.pop(name)
        bit, at = 1 << at % 8, at % len(data)
        if how != "gone":
            mine[name] = data[:at] + (bytes([data[at] ^ bit]) + data[at + 1 :] if how == "flipped" else b"")
        done[f"harmed {name.split('/')[0]}"] += 1

    def _mend(self, place: Place, *, as_it_was: bool) -> None:
        """All is as it was; what a heal cannot know to be missing at a copy comes by the next push."""
        objects = place.lab.store.objects
        signed = [n for n in objects if n.startswith(SIGNED) and n not in place.damage]
        try:
            result = snapvault.heal(self.here.site, self.there.site)
        except (Damaged, snapvault.RepositoryNotFound):  # nothing there says whose it is
            assert names.CONFIG in place.damage and not signed
            objects[names.CONFIG] = place.damage[names.CONFIG]
            result = snapvault.heal(self.here.site, self.there.site)
        told = {name for p in result.remaining_here for name in p.objects}
        assert self._is_ended(told) and not result.remaining_there, (result.remaining_here, result.remaining_there)
        assert told >= {names.SNAPSHOTS + sid for sid in self.ended - self.here.until.keys()}
        if place is self.there:
            self.push(None)
        for name, data in place.damage.items() if as_it_was else ():
            told = name.startswith(GCS) and name not in objects  # others say the same
            assert told or objects.get(name) == data, f"{name} is {'another' if name in objects else 'gone'}"
        done["mended"] += len(place.damage)
        place.damage.clear()

    def _note_ended(self) -> None:
        """Whose slot was lost looked as if it had died: only the copy has it now, which has to be told."""
        objects = self.here.lab.store.objects
        slots = [n for n in self.here.damage if n.startswith(names.SNAPSHOTS) and not n.startswith(GCS)]
        lost = [n for n in slots if not _is_revoked(self.here.damage[n])]
        ended = {n.removeprefix(names.SNAPSHOTS) for n in lost if _is_revoked(objects.get(n, b""))}
        self.ended |= ended
        self.here.owed -= ended
        for sid in ended:
            self.here.until.pop(sid, None)
        done["ended though lost"] += len(ended)

    def _is_ended(self, objects: Iterable[str]) -> bool:
        return {name.removeprefix(names.SNAPSHOTS) for name in objects} <= self.ended

    # -- the oracle ------------------------------------------------------------------------------------------------

    @rule(which=numbers)
    def verify(self, which: int) -> None:
        """Everything that a place owes is there."""
        place = self._place(which)
        with place.lab.open() as repo:
            listed = {s.id: s for s in repo.snapshots()}
            back = {s.id: s for s, _ in list_forgotten(repo.vault)}
            assert place.owed <= listed.keys(), f"gone: {place.owed - listed.keys()}"
            assert place.returnable() <= back.keys(), f"gone before its time: {place.returnable() - back.keys()}"
            for sid in place.owed | place.returnable():
                assert contents({**listed, **back}[sid]) == self.trees[sid], sid
            report = snapvault.check(repo, read_data=True)
            late = [p for p in report.problems if self.torn and place is self.there and "not at this copy" in p.message]
            late += [p for p in report.problems if self.ended and place is self.here and self._is_ended(p.objects)]
            assert report.status == "ok" or len(late) == len(report.problems), report.findings
        done["verified"] += 1

    def _read_from_both(self, place: Place, other: Place) -> None:
        """What both owe, by what is whole at either."""
        with snapvault.open(place.lab.url, keys=lambda: lab.SEED, sites=[other.site]) as repo:
            listed = {s.id: s for s in repo.snapshots()}
            wanted = place.owed & other.owed | self.ended & self.there.owed
            assert wanted <= listed.keys(), f"not listed: {wanted - listed.keys()}"
            for sid in wanted:
                assert contents(listed[sid]) == self.trees[sid], sid
        done["read from both"] += 1

    def _carry_on(self) -> None:
        """The copy is promoted: what can be brought back is, and nothing is lost by what is done then."""
        with self.there.lab.open() as repo:
            snapvault.promote(repo)
        for sid in sorted(self.there.returnable()):
            self._undelete(self.there, sid)
        self._back_up(self.there, {"a": CONTENTS[0], "b": CONTENTS[3]}, None)
        self.prune(1, 0.0, None)
        self.verify(1)
        self._take_back()

    def _take_back(self) -> None:
        """The old source becomes a copy of the new one: what this owes is there, but for what was forgotten there."""
        with self.here.lab.open() as repo:  # whoever died there
            assert snapvault.plan_prune(repo, exclusive=True).execute(wait=NOW).status == "ok"
        result = snapvault.replicate(self.there.lab.url, self.here.lab.url)
        assert all(p.harmless or self._is_ended(p.objects) for p in result.problems), result.problems
        self.here.owed = self.there.owed - self.here.until.keys() - self.ended
        self.verify(0)
        self.prune(0, 0.0, None)
        self.verify(0)


def _is_revoked(slot: bytes) -> bool:
    with suppress(Damaged):
        return decode_snapshot(decode_signed(Framed.SNAPSHOT, slot).payload).kind == REVOKED
    return False


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Sites,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None, print_blob=True,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        ),
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_two_sites() -> None:
    done.clear()
    for _ in range(6):  # what is rare may not come up often enough
        run(40, 30)
        if _everything_happened():
            break
    print(done)
    assert _everything_happened(), done


def _everything_happened() -> bool:
    often = ["backups killed", "pushes killed", "prunes killed", "came", "verified", "forgotten", "brought back"]
    often += ["copied", "removed here", "removed there", "read from both", "damaged: push", "mended"]
    prefixes = (names.CONFIG, names.KEYSETS, names.SESSIONS, names.PACKS, names.INDEX, names.SNAPSHOTS)
    harmed = [f"harmed {p.rstrip('/')}" for p in prefixes]
    return all(done[what] for what in (*often, *harmed))


@pytest.mark.long
@pytest.mark.timeout(0)
def test_two_sites_for_long() -> None:
    run(1_500, 60)
