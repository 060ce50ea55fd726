"""A source, a copy of it, and all who work at both: writers, prunes, pulls, a reader at the copy, and promotion."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest import mock

from battery import lab
from battery.interleave import story
from battery.interleave.schedule import Actor, Scheduler, scheduled, seeded
from battery.interleave.story import ALL, AT_ONCE, CONTENTS, NEVER, Story, contents, still_back
from battery.lab import Lab, Objects

import snapvault
from snapvault.access.resolve import list_forgotten
from snapvault.format import names
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Conflict, Damaged, SnapvaultError
from snapvault.operations import reclaim, survey
from snapvault.operations.prune import plan_prune
from snapvault.operations.replicate import _Replication
from snapvault.operations.unlisted import NotHere


@dataclass
class Base:
    """A source with three snapshots and a copy of it, made once."""

    source: story.Base
    copy: Objects

    @property
    def begun(self) -> Objects:
        """The copy as the first pull left it that was cut off soon."""
        brought = (names.PACKS, names.INDEX, names.SESSIONS, names.SNAPSHOTS)
        return {name: data for name, data in self.copy.items() if not name.startswith(brought)}


def base() -> Base:
    source, store, copy = story.base(), lab.memory(), lab.memory()
    store.objects.update(source.objects)
    with seeded(0, 0), scheduled(Scheduler(0, mishaps=0)):
        assert snapvault.replicate(store.url, copy.url).status == "ok"
    return Base(source, dict(copy.objects))


@dataclass
class Pair(Story):
    """One run."""

    copy: Lab = field(kw_only=True)
    promised_there: dict[str, int] = field(default_factory=dict)  # what was forgotten at the copy

    def play(self) -> None:
        draw = self.scheduler.random
        cast = [("writer", self.write)] * draw.choice((1, 2)) + [("prune", self.prune)] * draw.choice((1, 2))
        cast += [("forgets", self.forget)] * draw.choice((0, 1))
        cast += [("pull", self.pull)] * draw.choice((1, 1, 2))
        cast += [("lets go", self.forget_there)] * draw.choice((0, 1))
        cast += [("prune there", self.prune_there)] * draw.choice((0, 1, 2))
        cast += [("reader there", self.read_there)] * draw.choice((0, 1))
        actors = [Actor(f"{role} {n}", work, self.scheduler) for n, (role, work) in enumerate(cast)]
        with seeded(self.seed, 1, self.scheduler), scheduled(self.scheduler), lab.small_parts():
            first = draw.sample(sorted(self.lab.trees), 1)
            with self.lab.open() as repo:
                snapvault.forget_snapshots(repo, first, undelete_window=self._forgets(first))
            with self.copy.open() as repo:
                if draw.choice((True, False)) and {s.id for s in repo.snapshots()} >= set(first):
                    snapvault.forget_snapshots(repo, first, undelete_window=self._forgets_there(first))
            self.scheduler.run(actors)
        for actor in actors:
            if actor.error is not None:
                raise AssertionError(f"{actor.name}: {actor.error!r}") from actor.error

    def pull(self) -> None:
        for _ in range(self.scheduler.random.choice((1, 2))):
            try:
                result = snapvault.replicate(self.lab.url, self.copy.url)
            except Conflict:
                self.happened.add("pull in vain")
                continue
            assert result.status == "ok", result.problems
            self.happened.add("pull" if result.objects else "nothing to pull")

    def forget_there(self) -> None:
        with self.copy.open() as repo:
            found = sorted(s.id for s in repo.snapshots())
            chosen = self.scheduler.random.sample(found, min(len(found), 1))
            snapvault.forget_snapshots(repo, chosen, undelete_window=self._forgets_there(chosen))

    def _forgets_there(self, sids: list[str]) -> timedelta:
        self.copy.forgotten.update(sids)
        return self._promises(self.promised_there, sids)

    def prune_there(self) -> None:
        wait = timedelta(seconds=self.scheduler.random.choice((0, 20, 300)))
        lease = self.scheduler.random.choice((NEVER, AT_ONCE))
        with self.copy.open() as repo:
            try:
                result = plan_prune(repo, limits=ALL).execute(wait=wait, lease=lease)
            except Conflict:
                self.happened.add("prune there revoked")
                return
            except NotHere:  # between two commit slots that come
                self.happened.add("prune there too early")
                return
        self.happened.add("removed there" if result.packs_removed else "prune there")

    def read_there(self) -> None:
        with self.copy.open() as repo:
            for snapshot in repo.snapshots():
                try:
                    found = contents(snapshot)
                except Damaged:
                    if snapshot.id not in self.copy.forgotten - still_back(self.promised_there):
                        raise
                else:
                    assert found == self.lab.trees.get(snapshot.id, found)

    # -- the end ---------------------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Nothing is lost at the copy, whatever is done next: pulled, pruned, promoted and written to."""
        with seeded(self.seed, 2):
            self._whole_there(all_of_it=False)
        with seeded(self.seed, 3), lab.small_parts():
            result = snapvault.replicate(self.lab.url, self.copy.url)
            assert result.status == "ok", result.problems
            with self.copy.open() as repo:
                if plan_prune(repo, limits=ALL).execute(wait=AT_ONCE, lease=AT_ONCE).packs_removed:
                    self.happened.add("removed there")
            self._whole_there()
            with self.copy.open() as repo:
                snapvault.promote(repo)
                self.copy.backup(repo, {"a": CONTENTS[0], "b": CONTENTS[5]})
            with self.copy.open() as repo:
                plan_prune(repo, limits=ALL).execute(wait=AT_ONCE, lease=AT_ONCE)
            self._whole_there(checked=True)

    def _whole_there(self, *, all_of_it: bool = True, checked: bool = False) -> None:
        with self.copy.open() as repo:
            listed = {s.id: s for s in repo.snapshots()}
            missing = set(self.lab.trees) - self.lab.forgotten - self.copy.forgotten - set(listed)
            assert not (all_of_it and missing), f"acknowledged, and not at the copy: {missing}"
            back = {s.id: s for s, until in list_forgotten(repo.vault) if until > now_ns()}
            kept = still_back(self.promised_there)
            assert kept <= {*listed, *back}, f"forgotten at the copy, and gone before its time: {kept}"
            self.happened.update({"could be brought back there"} if back else ())
            for sid, snapshot in {**listed, **back}.items():
                if sid in back or sid not in self.copy.forgotten:
                    found = contents(snapshot)
                    assert found == self.lab.trees.get(sid, found), f"snapshot {sid} is another at the copy"
            if checked:
                report = snapvault.check(repo, read_data=True)
                assert report.status == "ok", (report.problems, report.lost)


def play(made: Base, seed: int) -> Pair:
    """One seeded run; AssertionError with the trace if anything is lost."""
    source, copy = lab.memory(), lab.memory()
    source.objects.update(made.source.objects)
    copy.objects.update(made.copy if seed % 2 else made.begun)
    labs = (Lab(store, home=None, trees=dict(made.source.trees)) for store in (source, copy))  # type: ignore[arg-type]
    pair = Pair(seed, next(labs), Scheduler(seed, mishaps=seed % 3), copy=next(labs))
    pair.machines = Path(mkdtemp(dir="/dev/shm", prefix="snapvault-"))
    try:
        pair.play()
        pair.verify()
    except (AssertionError, SnapvaultError) as e:
        raise AssertionError(f"seed {seed}: {e}\n" + "\n".join(pair.scheduler.trace[-400:])) from e
    finally:
        source.objects.clear()
        copy.objects.clear()
        shutil.rmtree(pair.machines)
    return pair


# -- rules switched off ----------------------------------------------------------------------------------------------

_without, _copy = _Replication._without, _Replication._copy


class _Anything(set[str]):
    """Contains whatever is asked for."""

    def __rsub__(self, other: object) -> set[str]:
        return set()


def _passes_over(self: _Replication, *args: Any, last: bool) -> set[str]:
    self._absent = _Anything()
    _without(self, *args, last=last)
    self._tally.problems.clear()
    return set()


def _goes_on(self: _Replication, *args: Any, again: bool = False, **options: Any) -> None:
    _copy(self, *args, **options)


MUTANTS: dict[str, list[tuple[Any, str, Any]]] = {
    "a pull passes over vanished packs": [
        (_Replication, "_without", _passes_over),
        (_Replication, "_copy", _goes_on),
    ],
    "a pull brings what the source forgot": [(_Replication, "_forgotten", lambda self, slots: {})],
    "a copy condemns what it likes": [(survey.Survey, "may_go", lambda self, pack: True)],
    "a tombstone counts at once": [(survey, "is_due", lambda tombstone: True)],
    "a copy finishes the deletions of the source": [
        (module, "going_by", lambda vault, slots: [s for s in slots if s.record.kind == "gc-done"])
        for module in (survey, reclaim)
    ],
}


@contextmanager
def mutant(name: str) -> Iterator[None]:
    """While this is open, the rule is broken."""
    patches = [mock.patch.object(*patch) for patch in MUTANTS[name]]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()
