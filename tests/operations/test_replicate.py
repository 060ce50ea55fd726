"""A copy at a second site: what it brings, keeps, refuses and survives."""

import shutil
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

import snapvault
from snapvault import KeyFile, ReplicaResult, Repository
from snapvault.backend.local import LocalBackend
from snapvault.backend.probe import PREFIX as PROBES
from snapvault.backend.protocol import Buffer, ObjectInfo
from snapvault.backend.trace import TraceBackend
from snapvault.backend.wrapper import Wrapper
from snapvault.chunking import Chunking
from snapvault.format import names
from snapvault.format.local import PromotionRecord
from snapvault.format.wire import Kind
from snapvault.foundation.errors import (
    Cancelled,
    Conflict,
    Damaged,
    InvalidInput,
    RepositoryNotFound,
    StoreDenied,
    StoreUnavailable,
)
from snapvault.foundation.events import Control, Event
from snapvault.foundation.ids import SessionId
from snapvault.operations import replicate as module
from snapvault.operations.copying import ObjectCopier, Outcome
from snapvault.operations.prune import PruneLimits, plan_prune
from snapvault.repository import capabilities
from snapvault.repository.keyring import HolderKeys
from snapvault.repository.session import revoke
from snapvault.repository.trust import sign
from tests.repos import SEED, again, back, contents, make, objects, open_session, save, small_packs

NOW = timedelta(0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    small_packs(monkeypatch)
    return make(tmp_path / "repo", chunking=Chunking(64, 128, 256))


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return tmp_path / "second"


def at(place: Path) -> Repository:
    return snapvault.open(place, keys=lambda: SEED)


def fill(source: Path, number: int, *, files: range = range(20)) -> None:
    """Contents that nothing else has."""
    for i in files:
        (source / f"{i:02}").write_bytes(b"".join(b"%d.%d.%d;" % (number, i, k) for k in range(200)))


def versions(repo: Repository, source: Path, count: int) -> dict[str, dict[str, bytes | str]]:
    made = {}
    for number in range(count):
        fill(source, number, files=range(10 * number, 10 * number + 20))
        made[save(repo, source).snapshot] = contents(source)
    return made


def copied(repo: Repository, second: Path) -> ReplicaResult:
    """A replication that must be whole."""
    result = snapvault.replicate(repo.url, str(second))
    assert result.status == "ok", result
    return result


def forget(place: Repository, *snapshots: str) -> None:
    snapvault.forget_snapshots(again(place), snapshots, undelete_window=NOW)


def prune(place: Repository) -> snapvault.PruneResult:
    return plan_prune(again(place), limits=PruneLimits(0)).execute(wait=NOW)


def holds(place: Path, made: dict[str, dict[str, bytes | str]], source: Path, tmp_path: Path) -> None:
    """Exactly these snapshots, and all of each."""
    repo = at(place)
    assert {s.id for s in repo.snapshots()} == set(made)
    for sid, tree in made.items():
        out = tmp_path / f"out-{sid}"
        shutil.rmtree(out, ignore_errors=True)
        assert contents(back(repo, out, source, sid)) == tree
    report = snapvault.check(at(place), read_data=True)
    assert report.status == "ok", report.findings


# -- what comes ------------------------------------------------------------------------------------------------------


def test_everything_comes_and_nothing_twice(repo: Repository, source: Path, second: Path, tmp_path: Path) -> None:
    made = versions(repo, source, 2)
    result = copied(repo, second)
    there = {n: size for n, size in objects(repo).items() if not n.startswith(names.LOCAL)}
    packs = sum(n.startswith(names.PACKS) for n in there)
    assert (result.snapshots, result.packs) == (2, packs) and packs >= 2 and result.bytes > 0
    assert {n: size for n, size in objects(at(second)).items() if not n.startswith(names.LOCAL)} == there
    holds(second, made, source, tmp_path)
    again_ = copied(repo, second)
    assert (again_.objects, again_.bytes, again_.snapshots) == (0, 0, 0)
    fill(source, 7)
    made[save(again(repo), source).snapshot] = contents(source)
    more = copied(repo, second)
    new = sum(n.startswith(names.PACKS) for n in objects(repo)) - packs
    assert (more.snapshots, more.packs) == (1, new) and new > 0
    holds(second, made, source, tmp_path)


def test_the_recovery_key_alone_opens_a_copy(tmp_path: Path, source: Path, second: Path) -> None:
    made = snapvault.init(tmp_path / "repo", password="p")
    fill(source, 0)
    save(made.repository, source)
    copied(made.repository, second)
    shutil.rmtree(tmp_path / "repo")
    (tmp_path / "key").write_text(made.recovery_key)
    with snapvault.open(second, keys=KeyFile(tmp_path / "key"), cache=tmp_path / "empty") as copy:
        assert contents(back(copy, tmp_path / "out", source)) == contents(source)


def test_it_needs_no_key(repo: Repository, source: Path, second: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(repo, source, 1)

    def refuse(*_: object) -> None:
        raise AssertionError("a key was used")

    monkeypatch.setattr("snapvault.repository.keyring.HolderKeys.__init__", refuse)
    monkeypatch.setattr("snapvault.crypto.hpke.HpkePrivateKey.__init__", refuse)
    copied(repo, second)


def test_snapshots_are_put_after_what_they_need(repo: Repository, source: Path, second: Path, tmp_path: Path) -> None:
    """Whenever it is cut off, what is there can be used, and a rerun finishes."""
    made = versions(repo, source, 2)
    k = 0
    while True:
        cut = _Cut(LocalBackend(second, create=True), k)
        try:
            module._Replication(LocalBackend(repo.url), cut, None).run()
        except StoreUnavailable:
            pass
        else:
            break
        if k % 3 == 0 and any(n.startswith(names.KEYSETS) for n in _listing(second)):
            found = at(second)
            present = [s.id for s in found.snapshots()]
            for sid in present:
                shutil.rmtree(tmp_path / "out", ignore_errors=True)
                assert contents(back(found, tmp_path / "out", source, sid)) == made[sid]
        shutil.rmtree(second)
        k += 1
    assert k > 12
    holds(second, made, source, tmp_path)


def _listing(place: Path) -> list[str]:
    return [o.name for o in LocalBackend(place).list()]


class _Cut(Wrapper):
    """A store that dies for good before the k-th object of the copy."""

    def __init__(self, inner: LocalBackend, k: int, prefix: str = "") -> None:
        super().__init__(inner)
        self._left, self._prefix = k, prefix

    def _die(self, name: str) -> None:
        if name.startswith(self._prefix) and not name.startswith(PROBES):
            self._left -= 1
        if self._left < 0:
            raise StoreUnavailable("dead")

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        self._die(name)
        self.inner.put(name, data)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        self._die(name)
        self.inner.put_if_absent(name, data)


def test_a_run_that_was_cut_off_goes_on(repo: Repository, source: Path, second: Path, tmp_path: Path) -> None:
    made = versions(repo, source, 2)
    with pytest.raises(StoreUnavailable):
        module._Replication(LocalBackend(repo.url), _Cut(LocalBackend(second, create=True), 1, names.PACKS), None).run()
    assert 0 < len(_packs(second)) < len(_packs(repo.url))
    result = copied(repo, second)
    assert result.objects < len(objects(repo))
    holds(second, made, source, tmp_path)


def test_what_the_store_does_is_found_out_once(repo: Repository, source: Path, second: Path) -> None:
    """A run that was killed beside its probe leaves a copy of a store that nobody knows; the next one looks again."""
    save(repo, source)
    copied(repo, second)
    (record,) = (second / names.CAPABILITIES).iterdir()
    record.unlink()
    for _ in range(2):
        copied(repo, second)
        (known,) = (second / names.CAPABILITIES).iterdir()
        assert known.read_bytes() and known != record
        record = second


def test_a_probe_that_gets_no_answer_fails_the_run(
    repo: Repository, source: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(backend: object) -> None:
        raise StoreUnavailable("it says nothing")

    monkeypatch.setattr(capabilities, "probe", silent)
    save(repo, source)
    with pytest.raises(StoreUnavailable, match="it says nothing"):
        snapvault.replicate(repo.url, str(second))


def test_a_header_that_could_not_be_read_comes_with_the_next_run(repo: Repository, source: Path, second: Path) -> None:
    sid = save(repo, source).snapshot
    header = Path(repo.url, names.session(SessionId(sid)))
    data = header.read_bytes()
    header.chmod(0o600)
    header.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert snapvault.replicate(repo.url, str(second)).status == "damaged"
    header.write_bytes(data)
    assert copied(repo, second).objects == 1
    assert snapvault.check(at(second)).status == "ok"


def test_progress_and_cancel(repo: Repository, source: Path, second: Path) -> None:
    versions(repo, source, 1)
    seen: list[Event] = []
    snapvault.replicate(repo.url, str(second), control=Control(progress=seen.append))
    assert seen and {e.operation for e in seen} == {"replicate"}

    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        snapvault.replicate(repo.url, str(second.with_name("third")), control=Control(cancel=cancel))


# -- forgetting ------------------------------------------------------------------------------------------------------


def test_deletions_are_not_mirrored(repo: Repository, source: Path, second: Path, tmp_path: Path) -> None:
    made = versions(repo, source, 3)
    first = next(iter(made))
    copied(repo, second)
    forget(repo, first)
    assert prune(repo).packs_removed > 0
    copied(repo, second)
    holds(second, made, source, tmp_path)
    assert prune(at(second)).packs_removed == 0, "the copy still has its snapshot"
    holds(second, made, source, tmp_path)
    forget(at(second), first)
    assert prune(at(second)).packs_removed > 0
    copied(repo, second)
    del made[first]
    holds(second, made, source, tmp_path)


def test_a_copy_removes_nothing_that_the_source_has(
    repo: Repository, source: Path, second: Path, tmp_path: Path
) -> None:
    """A snapshot that is forgotten here alone: the source may send another one that needs the same packs."""
    made = versions(repo, source, 2)
    first, last = made
    copied(repo, second)
    forget(at(second), first)
    forget(at(second), last)
    assert prune(at(second)).packs_removed == 0
    assert {n for n in _listing(second) if n.startswith(names.PACKS)} == {
        n for n in objects(repo) if n.startswith(names.PACKS)
    }
    made = {save(again(repo), source).snapshot: contents(source)}
    copied(repo, second)
    holds(second, made, source, tmp_path)


@pytest.mark.parametrize("promoted", [False, True])
def test_what_was_forgotten_before_it_was_copied_stops_no_prune(
    repo: Repository, source: Path, second: Path, promoted: bool
) -> None:
    """Though at the source it can still be brought back, and a later snapshot names it."""
    forgotten, later = list(versions(repo, source, 3))[1:]
    snapvault.forget_snapshots(again(repo), [forgotten])
    copied(repo, second)
    if promoted:
        snapvault.promote(at(second))
    assert plan_prune(at(second)).execute(wait=NOW).status == "ok"
    assert [s.id for s in at(second).snapshots()][-1] == later


def killed_before_its_index(repo: Repository, source: Path) -> list[str]:
    """A backup stored packs, and was killed before it said so; the packs."""
    before = objects(repo)
    save(again(repo), source)
    new = objects(repo).keys() - before.keys()
    for name in new:
        if name.startswith((names.INDEX, names.SNAPSHOTS)):
            Path(repo.url, name).unlink()
    return [name for name in new if name.startswith(names.PACKS)]


def end_all(repo: Repository, but: Collection[str]) -> None:
    """All sessions but these cannot commit any more."""
    for sid in {n[-32:] for n in objects(repo) if n.startswith(names.SESSIONS)} - set(but):
        revoke(repo.vault.store, repo.vault.ring, SessionId(sid))


def test_what_a_killed_run_left_holds_nothing_alone(
    repo: Repository, source: Path, second: Path, tmp_path: Path
) -> None:
    """A prune lets go of what two packs hold; the one that stays is one of which an index object tells."""
    made = versions(repo, source, 1)
    fill(source, 7)
    orphans = killed_before_its_index(repo, source)
    made[save(again(repo), source).snapshot] = contents(source)
    kept = {n for n in objects(repo) if n.startswith(names.PACKS)} - set(orphans)
    assert prune(repo).status == "ok" and orphans and kept <= objects(repo).keys()
    copied(repo, second)
    holds(second, made, source, tmp_path)
    end_all(repo, made)
    assert prune(repo).status == "ok" and {n for n in objects(repo) if n.startswith(names.PACKS)} == kept
    holds(Path(repo.url), made, source, tmp_path)


@pytest.mark.parametrize("ended", ["committed", "revoked"])
def test_packs_that_no_index_object_names_come(
    repo: Repository, source: Path, second: Path, tmp_path: Path, ended: str
) -> None:
    """Where the index object was lost; or where a killed run alone has what was stored again, and lost since."""
    copied(repo, second)
    if ended == "committed":
        made = versions(repo, source, 1)
        [index] = [n for n in objects(repo) if n.startswith(names.INDEX)]
        Path(repo.url, index).unlink()
    else:
        orphans = killed_before_its_index(repo, source)
        made = {save(again(repo), source).snapshot: contents(source)}
        for name in [n for n in objects(repo) if n.startswith(names.PACKS) and n not in orphans]:
            Path(repo.url, name).unlink()
        for name in [n for n in objects(repo) if n.startswith(names.INDEX)]:
            Path(repo.url, name).unlink()
        end_all(repo, made)
    result = copied(repo, second)
    [problem] = result.problems
    assert problem.harmless and len(problem.objects) == result.packs > 0 and "no index object" in problem.message
    for sid, tree in made.items():
        assert contents(back(at(second), tmp_path / "out", source, sid)) == tree
    assert not copied(repo, second).objects


def test_what_a_run_stored_that_has_not_ended_does_not_come(repo: Repository, source: Path, second: Path) -> None:
    copied(repo, second)
    assert killed_before_its_index(repo, source)
    result = copied(repo, second)
    assert not result.packs and not result.problems


def test_a_run_that_both_places_ended_for_themselves(repo: Repository, source: Path, second: Path) -> None:
    """It was begun before the copy was promoted; that each place says so in its own words is no damage."""
    save(repo, source)
    copied(repo, second)
    one = open_session(repo)
    header = names.session(one.sid)
    (second / header).parent.mkdir(exist_ok=True)
    (second / header).write_bytes(Path(repo.url, header).read_bytes())
    new = at(second)
    snapvault.promote(new)
    one.abort()
    revoke(new.vault.store, new.vault.ring, one.sid)
    slot = names.snapshot(one.sid)
    assert Path(repo.url, slot).read_bytes() != (second / slot).read_bytes()
    assert snapvault.replicate(str(second), repo.url).status == "ok"


def test_a_snapshot_that_never_came_before_the_copy_was_promoted(
    repo: Repository, source: Path, second: Path, tmp_path: Path
) -> None:
    """The new source ended its run, as one that had died; the old one keeps it, and becomes a copy nevertheless."""
    versions(repo, source, 1)
    copied(repo, second)
    [late] = versions(repo, source, 1)
    header = names.session(SessionId(late))
    (second / header).write_bytes(Path(repo.url, header).read_bytes())
    new = at(second)
    snapvault.promote(new)
    revoke(new.vault.store, new.vault.ring, SessionId(late))
    cache = tmp_path / "cache"
    assert late not in {s.id for s in snapvault.open(second, keys=lambda: SEED, cache=cache).snapshots()}
    result = snapvault.replicate(str(second), repo.url)
    assert result.status == "ok" and ["says more at the target" in p.message for p in result.problems] == [True]
    # What a slot says at one place is not believed of another.
    assert late in {s.id for s in again(repo, cache=cache).snapshots()}
    for first, other in ((repo.url, str(second)), (str(second), repo.url)):
        with snapvault.open(first, keys=lambda: SEED, cache=cache, sites=[snapvault.Site(other)]) as opened:
            assert late in {s.id for s in opened.snapshots()}
    with pytest.raises(Conflict):
        snapvault.replicate(repo.url, str(second))


def test_a_snapshot_that_the_source_lost_and_a_prune_ended(
    repo: Repository, source: Path, second: Path, tmp_path: Path
) -> None:
    """The copy alone has it: push and heal say so, and whoever reads both places finds it."""
    made = versions(repo, source, 3)
    first, _, last = made
    copied(repo, second)
    Path(repo.url, names.snapshot(SessionId(last))).unlink()
    forget(repo, first)
    assert plan_prune(again(repo), limits=PruneLimits(0)).execute(wait=NOW, lease=NOW).packs_removed
    assert last not in {s.id for s in again(repo).snapshots()}
    for problems in (
        snapvault.replicate(repo.url, str(second)).problems,
        snapvault.heal(snapvault.Site(repo.url), snapvault.Site(str(second))).remaining_here,
    ):
        [problem] = problems
        assert problem.objects == (names.snapshot(SessionId(last)),) and not problem.harmless
        assert "was lost at the source, and a prune there ended" in problem.message
    with snapvault.open(repo.url, keys=lambda: SEED, sites=[snapvault.Site(str(second))]) as opened:
        assert contents(back(opened, tmp_path / "out", source, last)) == made[last]
    forget(at(second), last)  # where it is
    assert contents(back(at(second), tmp_path / "again", source, list(made)[1])) == made[list(made)[1]]


def test_what_a_prune_said_and_the_source_lost(repo: Repository, source: Path, second: Path) -> None:
    """The next prune there ends it as one that had died; the copy still knows what was removed."""
    first, _ = versions(repo, source, 2)
    forget(repo, first)
    assert prune(repo).bytes_copied
    copied(repo, second)
    [done] = [n for n in objects(repo) if n.startswith(names.SNAPSHOTS + names.GC_PREFIX)]
    Path(repo.url, done).unlink()
    revoke(repo.vault.store, repo.vault.ring, SessionId(done.removeprefix(names.SNAPSHOTS)))
    [problem] = copied(repo, second).problems
    assert problem.harmless and problem.objects == (done,)
    snapvault.promote(at(second))
    [problem] = snapvault.replicate(str(second), repo.url).problems
    assert problem.harmless and problem.objects == (done,)


def test_what_died_at_the_old_source_is_ended_by_a_prune(repo: Repository, source: Path, second: Path) -> None:
    """Although no snapshot was forgotten; what it had stored goes at once."""
    versions(repo, source, 1)
    copied(repo, second)
    fill(source, 7)
    orphans = set(killed_before_its_index(repo, source))
    snapvault.promote(at(second))
    with pytest.raises(Conflict, match="have not ended") as e:
        snapvault.replicate(str(second), repo.url)
    assert "'snapvault prune --exclusive' there" in e.value.hint
    result = prune(repo)
    assert result.status == "ok" and not result.packs_removed and orphans <= objects(repo).keys()  # the lease holds
    result = plan_prune(again(repo), exclusive=True).execute(wait=NOW)
    assert result.status == "ok" and result.packs_removed == len(orphans) and orphans.isdisjoint(objects(repo))
    assert snapvault.replicate(str(second), repo.url).status == "ok"


def test_a_prune_beside_a_replication_that_was_cut_off(repo: Repository, source: Path, second: Path) -> None:
    """Commit slots come in any order: a copy may have a snapshot, and not the one before it.  That is no damage."""
    first, _ = versions(repo, source, 2)
    copied(repo, second)
    (second / names.snapshot(SessionId(first))).unlink()
    with pytest.raises(Damaged, match="has not come to this copy"):
        prune(at(second))
    [problem] = snapvault.check(at(second)).problems
    assert f"snapshot {first} is not at this copy" in problem.message and "the next one brings it" in problem.message
    copied(repo, second)
    assert prune(at(second)).status == "ok" and snapvault.check(at(second)).status == "ok"
    Path(repo.url, names.snapshot(SessionId(first))).unlink()
    assert "is gone" in snapvault.check(again(repo)).problems[0].message


def test_what_was_forgotten_before_it_came_does_not_come(
    repo: Repository, source: Path, second: Path, tmp_path: Path
) -> None:
    made = versions(repo, source, 2)
    first, last = made
    forget(repo, first)
    copied(repo, second)
    assert names.snapshot(first) not in _listing(second) and names.tombstone(first) in _listing(second)
    holds(second, {last: made[last]}, source, tmp_path)


def forgotten_twice(repo: Repository, sid: str) -> Iterator[bytes]:
    """The tombstone, with a day and then with none: two maintainers had the same plan."""
    plans = [snapvault.plan_forget(again(repo), snapvault.Retention(last=1)) for _ in range(2)]
    for plan, window in zip(plans, (timedelta(days=1), NOW), strict=True):
        assert plan.execute(undelete_window=window).forgotten == (sid,)
        yield Path(repo.url, names.tombstone(sid)).read_bytes()


def test_what_was_forgotten_once_more_before_it_came(repo: Repository, source: Path, second: Path) -> None:
    """Of all objects a tombstone alone may be put anew: to be due earlier.  Then it does not become later again."""
    first, _ = versions(repo, source, 2)
    here, there = (Path(place, names.tombstone(first)) for place in (repo.url, second))
    seen = list[bytes]()
    for data in forgotten_twice(repo, first):
        copied(repo, second)
        assert there.read_bytes() == data
        seen.append(data)
    assert copied(repo, second).objects == 0
    here.write_bytes(seen[0])  # a source that was rolled back
    assert copied(repo, second).objects == 0 and there.read_bytes() == seen[1]


def test_a_copy_whose_tombstones_nobody_may_replace(
    repo: Repository, source: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = versions(repo, source, 2)
    twice = forgotten_twice(repo, first)
    before = next(twice)
    copied(repo, second)
    next(twice)
    put = LocalBackend.put

    def denied(self: LocalBackend, name: str, data: Sequence[Buffer]) -> None:
        if name.startswith(names.TOMBSTONES):
            raise StoreDenied("only adds")
        put(self, name, data)

    monkeypatch.setattr(LocalBackend, "put", denied)
    assert [p.harmless for p in copied(repo, second).problems] == [True]
    assert (second / names.tombstone(first)).read_bytes() == before


@pytest.mark.parametrize("forger", ["nobody", "a writer", "another snapshot's"])
def test_a_tombstone_that_nobody_entitled_signed_does_not_come(
    repo: Repository, source: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forger: str
) -> None:
    """Also if the source shows it only once it is believed; and one that is at the copy is replaced."""
    first, last = versions(repo, source, 2)
    snapvault.add_key(repo, "writer", "w", file=tmp_path / "writer.json")
    forget(repo, first)
    copied(repo, second)
    name, find = names.tombstone(first), module._Replication._forgotten
    good = Path(repo.url, name).read_bytes()
    record = repo.vault.history.verify_tombstone(name, good)
    keys = HolderKeys.generate()
    if forger == "a writer":
        keys = snapvault.open(repo.url, keys=KeyFile(tmp_path / "writer.json")).vault.ring.signing
    elif forger != "nobody":
        keys, record = repo.vault.ring.signing, record._replace(sid=SessionId(last))
    forged = sign(Kind.TOMBSTONE, record.encode(), keys.id, keys.signer)
    assert len(forged) == len(good)

    def swapped(self: module._Replication, slots: Iterable[str]) -> dict[SessionId, int]:
        Path(repo.url, name).write_bytes(good)
        found = find(self, slots)
        Path(repo.url, name).write_bytes(forged)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(module._Replication, "_forgotten", swapped)
        assert any(name in p.message for p in snapvault.replicate(repo.url, str(second)).problems)
    assert (second / name).read_bytes() == good
    Path(repo.url, name).write_bytes(good)
    (second / name).write_bytes(forged)
    assert copied(repo, second).healed == 1 and (second / name).read_bytes() == good


def test_a_prune_at_the_source_meanwhile(
    repo: Repository, source: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = versions(repo, source, 3)
    first, *_ = made
    copy, pruned = ObjectCopier.copy, list[int]()

    def hooked(self: ObjectCopier, info: ObjectInfo) -> Outcome:
        if info.name.startswith(names.PACKS) and not pruned:
            pruned.append(0)
            forget(repo, first)
            pruned.append(prune(repo).packs_removed)
        return copy(self, info)

    monkeypatch.setattr(ObjectCopier, "copy", hooked)
    monkeypatch.setattr(module, "PACKS_AT_ONCE", 1)
    copied(repo, second)
    assert pruned[1] > 0
    del made[first]
    holds(second, made, source, tmp_path)


def test_a_prune_that_ends_after_the_slots_were_listed(
    repo: Repository, source: Path, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its packs are still there, and no index object names them any more: they do not come."""
    first, *_ = versions(repo, source, 2)
    forget(repo, first)
    bring, removed = module._Replication._bring_data, dict[Path, bytes]()

    def hooked(self: module._Replication, slots: dict[str, int], *, last: bool) -> None:
        if not removed:
            before = {path: path.read_bytes() for path in _packs(repo.url)}
            assert prune(repo).packs_removed
            removed.update((path, data) for path, data in before.items() if not path.exists())
            for path, data in removed.items():
                path.write_bytes(data)
        bring(self, slots, last=last)

    monkeypatch.setattr(module._Replication, "_bring_data", hooked)
    assert not copied(repo, second).problems
    assert {p.name for p in _packs(second)}.isdisjoint(p.name for p in removed)


# -- promotion -------------------------------------------------------------------------------------------------------


def test_a_copy_is_no_source_until_it_is_promoted(repo: Repository, source: Path, second: Path, tmp_path: Path) -> None:
    made = versions(repo, source, 2)
    copied(repo, second)
    with pytest.raises(Conflict, match="source goes on elsewhere"):
        snapvault.backup(at(second), source, dataset="d")
    with pytest.raises(Conflict, match="source goes on elsewhere"):
        snapvault.rotate(at(second))
    with pytest.raises(Conflict, match="source goes on elsewhere"):
        snapvault.plan_repair(at(second))
    with pytest.raises(InvalidInput, match="no copy"):
        snapvault.promote(again(repo))
    shutil.rmtree(repo.url)
    snapvault.promote(at(second))
    fill(source, 9)
    made[save(at(second), source).snapshot] = contents(source)
    first = next(iter(made))
    forget(at(second), first)
    assert prune(at(second)).packs_removed > 0
    del made[first]
    holds(second, made, source, tmp_path)


def test_what_the_old_source_removed_stays_until_nobody_needs_it(
    repo: Repository, source: Path, second: Path, tmp_path: Path
) -> None:
    """Its slot says that packs are gone for ever; here they are not, and a snapshot needs them."""
    made = versions(repo, source, 3)
    copied(repo, second)
    forget(repo, next(iter(made)))
    assert prune(repo).packs_removed > 0
    copied(repo, second)
    snapvault.promote(at(second))
    prune(at(second))
    holds(second, made, source, tmp_path)


def test_a_promoted_place_takes_nothing_more(repo: Repository, source: Path, second: Path) -> None:
    versions(repo, source, 1)
    copied(repo, second)
    snapvault.promote(at(second))
    with pytest.raises(Conflict, match="source of its own"):
        snapvault.replicate(repo.url, str(second))


def test_a_promotion_needs_the_owners_signature(repo: Repository, source: Path, second: Path) -> None:
    versions(repo, source, 1)
    copied(repo, second)
    with pytest.raises(snapvault.RoleRequired):
        snapvault.promote(_with_role(repo, second, "maintainer"))
    stranger = HolderKeys.generate()
    record = PromotionRecord(at(second).vault.ring.config_digest, 1)
    forged = sign(Kind.PROMOTION, record.encode(), stranger.id, stranger.signer)
    LocalBackend(second).put(names.PROMOTED_MARK, [forged])
    with pytest.raises(Damaged, match="not signed by the owner"):
        save(at(second), source)


def _with_role(repo: Repository, second: Path, role: str) -> Repository:
    file = second.with_name(f"{role}.key")
    snapvault.add_key(again(repo), role, role, file=file)
    copied(repo, second)
    return snapvault.open(second, keys=KeyFile(file))


# -- what is refused -------------------------------------------------------------------------------------------------


def test_what_is_no_place_for_a_copy(repo: Repository, source: Path, second: Path, tmp_path: Path) -> None:
    versions(repo, source, 1)
    make(tmp_path / "other")
    with pytest.raises(InvalidInput, match="another repository"):
        snapvault.replicate(repo.url, str(tmp_path / "other"))
    second.mkdir()
    (second / "letter").write_text("x")
    with pytest.raises(InvalidInput, match="not empty"):
        snapvault.replicate(repo.url, str(second))
    with pytest.raises(InvalidInput, match="onto itself"):
        snapvault.replicate(repo.url, repo.url)
    with pytest.raises(RepositoryNotFound):
        snapvault.replicate(str(tmp_path / "nowhere"), str(tmp_path / "third"))


def test_a_source_is_not_taken_for_a_copy(repo: Repository, source: Path, second: Path, tmp_path: Path) -> None:
    """The two places confused: the source would refuse backups from then on."""
    versions(repo, source, 1)
    copied(repo, second)
    with pytest.raises(Conflict, match="is a copy"):
        snapvault.replicate(str(second), repo.url)
    save(again(repo), source)


def test_a_place_that_is_used_as_a_source_right_now(
    repo: Repository, source: Path, second: Path, tmp_path: Path
) -> None:
    versions(repo, source, 1)
    shutil.copytree(repo.url, second)
    session = open_session(at(second))
    with pytest.raises(Conflict, match="have not ended"):
        snapvault.replicate(repo.url, str(second))
    session.abort()
    save(again(repo), source)
    copied(repo, second)


def test_a_place_with_other_objects_of_the_same_repository(
    repo: Repository, source: Path, second: Path, tmp_path: Path
) -> None:
    made = versions(repo, source, 1)
    shutil.copytree(repo.url, second)
    fill(source, 5)
    made[save(at(second), source).snapshot] = contents(source)
    fill(source, 6)
    made[save(again(repo), source).snapshot] = contents(source)
    copied(repo, second)
    holds(second, made, source, tmp_path)


def test_an_older_source(repo: Repository, source: Path, second: Path, tmp_path: Path) -> None:
    versions(repo, source, 1)
    shutil.copytree(repo.url, tmp_path / "old")
    snapvault.rotate(again(repo))
    copied(repo, second)
    with pytest.raises(Conflict, match="old state"):
        snapvault.replicate(str(tmp_path / "old"), str(second))


# -- damage ----------------------------------------------------------------------------------------------------------


def _packs(place: Path | str) -> list[Path]:
    return sorted(p for p in Path(place, "packs").rglob("*") if p.is_file())


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damage_at_the_source_is_named_and_does_not_come(repo: Repository, source: Path, second: Path) -> None:
    versions(repo, source, 3)  # each makes one pack or more
    flipped, gone, short = _packs(repo.url)[:3]
    _flip(flipped)
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-1])
    result = snapvault.replicate(repo.url, str(second))
    assert result.status == "damaged"
    named = {n for p in result.problems for n in p.objects}
    assert named == {str(p.relative_to(repo.url)) for p in (flipped, gone, short)}
    assert not {p.name for p in _packs(second)} & {flipped.name, gone.name, short.name}
    assert len(list(at(second).snapshots())) == 3


def test_damage_at_the_copy_is_healed(repo: Repository, source: Path, second: Path, tmp_path: Path) -> None:
    made = versions(repo, source, 2)
    copied(repo, second)
    gone, short = _packs(second)[:2]
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-1])
    result = copied(repo, second)
    assert (result.packs, result.healed) == (2, 1)
    holds(second, made, source, tmp_path)


def test_other_bytes_under_one_name(repo: Repository, source: Path, second: Path) -> None:
    """A snapshot at the source, and that it was revoked at the copy: both stay, and it is said."""
    versions(repo, source, 1)
    shutil.copytree(repo.url, second)
    session = open_session(repo)
    shutil.copy(Path(repo.url, names.session(session.sid)), second / "sessions")
    held = at(second).vault
    revoke(held.store, held.ring, session.sid)
    session._fill("commit", b"")
    before = (second / names.snapshot(session.sid)).read_bytes()
    result = snapvault.replicate(repo.url, str(second))
    assert result.status == "damaged" and "other bytes" in result.problems[0].message
    assert (second / names.snapshot(session.sid)).read_bytes() == before


def test_every_object_is_read_once(repo: Repository, source: Path, second: Path) -> None:
    versions(repo, source, 2)
    trace = TraceBackend(LocalBackend(repo.url), record=True)
    module._Replication(trace, LocalBackend(second, create=True), None).run()
    read = [call.name for call in trace.log if call.method == "get" and call.name.startswith(names.PACKS)]
    assert len(read) == len(set(read)) == len(_packs(repo.url))
