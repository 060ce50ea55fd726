"""What two sessions stored at the same time: a prune keeps one copy of it, and never removes the last."""

import itertools
import random
import shutil
from array import array
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest

import snapvault
from snapvault import Repository
from snapvault.format import names
from snapvault.format.pack import Segment
from snapvault.format.tree import BlobType
from snapvault.foundation.ids import DomainId, PackId, SessionId
from snapvault.operations.liveness import Liveness
from snapvault.operations.prune import PruneLimits, PruneResult, plan_prune
from snapvault.operations.survey import survey
from snapvault.repository import session as session_module
from snapvault.repository.index import BlobIndex, PackRow, build_table
from snapvault.repository.loader import IndexLoader
from tests.repos import SEED, SMALL, again, back, beside, contents, make, objects, save, small_packs

NOW = timedelta(0)
ALL = PruneLimits(unused=0.0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    for i in range(60):
        (root / f"{i:02}").write_bytes(random.Random(i).randbytes(20_000))
    return root


@pytest.fixture
def repo(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """The same content twice, by sessions that did not hear of one another."""
    small_packs(monkeypatch)
    made = make(tmp_path / "repo", chunking=SMALL)
    beside(made, source, lambda: save(again(made), source, dataset="other"))
    return made


def by_session(repo: Repository) -> dict[str, list[str]]:
    """The packs of each, the one with most that stays first."""
    sessions = dict[str, list[str]]()
    vault = again(repo).vault
    for row in vault.index().packs():
        sessions.setdefault(row.sid, []).append(names.pack(row.id))
    return sessions


def flip(repo: Repository, name: str, at: int) -> None:
    path = Path(repo.url) / name
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def spoil(repo: Repository, packs: Iterable[str]) -> set[str]:
    """Flip a bit in a segment of data of each of these packs that has one; folders stay readable."""
    loader, spoilt = again(repo).vault.loader, set[str]()
    for name in packs:
        digest = names.content_digest(name)
        assert digest is not None
        _, segments = loader.read_directory(PackId(digest), objects(repo)[name])
        data = [s for s in segments if set(s.types) == {BlobType.DATA}]
        for s in data[:1]:
            flip(repo, name, s.offset + s.sealed // 2)
            spoilt.add(name)
    assert spoilt
    return spoilt


def stored(repo: Repository) -> int:
    return sum(size for name, size in objects(repo).items() if name.startswith(names.PACKS))


def prune(repo: Repository, limits: PruneLimits = ALL) -> PruneResult:
    return plan_prune(again(repo), limits=limits).execute(wait=NOW)


def all_there(repo: Repository, source: Path, tmp_path: Path) -> None:
    found = list(again(repo).snapshots())
    assert len(found) == 2
    for s in found:
        assert contents(back(again(repo), tmp_path / f"out {s.id}", source, s.id)) == contents(source)


def test_one_copy_stays(repo: Repository, source: Path, tmp_path: Path) -> None:
    before = stored(repo)
    plan = plan_prune(again(repo))
    assert plan.bytes_unused > 0.4 * before and plan.status == "ok"
    result = prune(repo, PruneLimits())
    assert stored(repo) < 0.6 * before and result.bytes_freed > 0.4 * before > 10 * result.bytes_copied
    assert snapvault.check(again(repo), read_data=True).status == "ok"
    all_there(repo, source, tmp_path)
    assert plan_prune(again(repo)).bytes_freed == 0 and prune(repo, PruneLimits()).packs_removed == 0


def test_how_much_may_be_rewritten_bounds_it(repo: Repository, source: Path) -> None:
    """Each copy that stays is read and verified first."""
    whole = plan_prune(again(repo)).bytes_rewritten
    assert 0 < plan_prune(again(repo), limits=PruneLimits(rewrite=whole // 2)).bytes_rewritten <= whole // 2


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("which", [0, 1])
def test_a_copy_that_is_damaged_is_not_the_one_that_stays(
    repo: Repository, source: Path, tmp_path: Path, which: int, known: bool
) -> None:
    """Whether a check has found that, or not."""
    spoilt = spoil(repo, sorted(by_session(repo).values())[which])
    if known:
        assert snapvault.check(again(repo), read_data=True).status == "damaged"
    first, _, last = (prune(repo) for _ in range(3))
    assert not last.bytes_copied  # what a prune found it remembers
    all_there(repo, source, tmp_path)
    report = snapvault.check(again(repo), read_data=True)
    assert not report.lost
    if known:  # nearly all that was damaged was superfluous; perhaps not a folder or a chunk that one alone stored
        assert (last.packs_damaged or 0) < len(spoilt) / 4
    elif report.status == "damaged":  # of the packs that the first one found damaged the rest is needed now
        assert first.packs_damaged and last.packs_damaged, (first, last)


def test_what_a_prune_finds_damaged_it_writes_down(repo: Repository, source: Path, tmp_path: Path) -> None:
    """The copies that were to stay are damaged, which nobody knew: else each prune would copy all that once more."""
    plan = plan_prune(again(repo), limits=ALL)
    going = {names.pack(pack) for domain in plan.domains for pack in domain.condemned}
    assert going
    spoilt = spoil(repo, (name for packs in by_session(repo).values() for name in packs if name not in going))
    result = plan.execute(wait=NOW)
    assert result.bytes_copied and 0 < (result.packs_damaged or 0) <= len(spoilt)
    assert not prune(repo).bytes_copied
    all_there(repo, source, tmp_path)


def test_where_both_copies_are_damaged_nothing_goes(repo: Repository, source: Path) -> None:
    """A prune that does not know stops when it sees it; one that knows leaves these packs to a repair."""
    before = {name for packs in by_session(repo).values() for name in packs}
    spoilt = spoil(repo, before)
    with pytest.raises(snapvault.Damaged, match="nothing is removed"):
        prune(repo)
    assert before <= set(objects(repo))
    lost = snapvault.check(again(repo), read_data=True).lost
    assert lost
    result = prune(repo)
    assert result.status == "ok" and (result.packs_damaged or 0) > len(spoilt) / 2
    assert snapvault.check(again(repo), read_data=True).lost == lost


def test_a_prune_goes_on_past_damaged_packs_with_garbage(repo: Repository, source: Path) -> None:
    """They are left to a repair, and what else is unused goes."""
    for i in range(0, 60, 2):
        (source / f"{i:02}").unlink()
    kept = save(again(repo), source).snapshot
    spoil(repo, (name for packs in by_session(repo).values() for name in packs[::3]))
    assert snapvault.check(again(repo), read_data=True).status == "damaged"
    gone = [s.id for s in again(repo).snapshots() if s.id != kept]
    snapvault.forget_snapshots(again(repo), gone, undelete_window=NOW)
    result = prune(repo)
    assert result.status == "ok" and result.packs_removed and prune(repo).status == "ok"


@pytest.mark.parametrize("at", [100, 4000])
def test_a_superseded_pack_that_cannot_go_starves_no_other(repo: Repository, at: int) -> None:
    """Where its header is damaged nobody can tell whose it is."""
    for pack in min(by_session(repo).values(), key=len)[:4]:
        flip(repo, pack, at)
    assert snapvault.check(again(repo), read_data=True).status == "damaged"
    assert prune(repo, PruneLimits(rewrite=200_000)).packs_removed


def test_where_a_slot_of_a_gc_cannot_be_read_nothing_is_superfluous(repo: Repository, source: Path) -> None:
    """It may name any pack as removed; else all would be copied by each prune."""
    prune(repo)
    (slot,) = (name for name in objects(repo) if name.startswith(names.SNAPSHOTS + names.GC_PREFIX))
    flip(repo, slot, -5)
    snapvault.forget_snapshots(again(repo), [slot.removeprefix(names.SNAPSHOTS)], undelete_window=NOW)
    for i in range(60):
        (source / f"{i:02}").write_bytes(random.Random(-1 - i).randbytes(20_000))
    beside(repo, source, lambda: save(again(repo), source, dataset="other"))
    assert plan_prune(again(repo), limits=ALL).bytes_rewritten == 0


def test_what_waits_is_not_less_than_nothing(repo: Repository, source: Path) -> None:
    first, _ = (s.id for s in again(repo).snapshots())
    snapvault.forget_snapshots(again(repo), [first])
    assert plan_prune(again(repo)).bytes_waiting == 0
    (source / "more").write_bytes(random.Random(-1).randbytes(100_000))
    snapvault.forget_snapshots(again(repo), [save(again(repo), source).snapshot])
    assert plan_prune(again(repo)).bytes_waiting > 90_000


def test_no_copy_of_a_writer_lets_another_one_go(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sealed may open for the owner's keys, and not for the recovery key."""
    small_packs(monkeypatch)
    made = snapvault.init(str(tmp_path / "repo"), keys=lambda: SEED, chunking=SMALL)
    repo, seal, calls = made.repository, session_module.hpke_seal, itertools.count()
    snapvault.add_key(repo, "writer", "writer", file=tmp_path / "writer.json")

    def client() -> Repository:
        return snapvault.open(repo.url, keys=lambda: (tmp_path / "writer.json").read_bytes())

    def for_nobody(public: bytes, both: bytes, info: bytes) -> bytes:  # every second one is that of the recovery key
        sealed = seal(public, both, info)
        return bytes(len(sealed)) if next(calls) % 2 else sealed

    honest = save(client(), source).snapshot
    (source / "junk").write_bytes(random.Random(-1).randbytes(60_000))
    with monkeypatch.context() as patch:
        patch.setattr(session_module, "hpke_seal", for_nobody)
        patch.setattr(IndexLoader, "load", lambda self, **_: BlobIndex())
        save(client(), source)
    (source / "junk").unlink()
    assert plan_prune(again(repo), limits=ALL).bytes_rewritten == 0
    vault = again(repo).vault
    now = survey(vault, next(row.domain for row in vault.index().packs()))
    twice = [b for table in vault.index().tables for b in table.ids() if len(now.reader.index.places(b)) == 2]
    assert twice and not now.survives(twice[0], ())
    prune(repo)
    for folder in ("slots", "keyset"):
        shutil.rmtree(Path(repo.url) / folder)
    recovered = snapvault.open(repo.url, keys=lambda: made.recovery_key.encode())
    assert contents(back(recovered, tmp_path / "out", source, honest)) == contents(source)


def test_copies_in_several_tables_of_the_index() -> None:
    """Each is compared with all: the one in the pack of the highest rank stays."""
    rows = [PackRow(PackId(bytes([n]) * 32), 1000, SessionId("a" * 32), DomainId(bytes(16))) for n in range(3)]
    segment = Segment(0, 900, 7, bytes(32), array("I", [7]), bytes(1))
    tables = [build_table([str(row.id)], [(row, [segment])]) for row in rows]
    for ranks, spare in (
        ((1, 2, 3), [7, 7, 0]),
        ((3, 1, 2), [0, 7, 7]),
        ((0, 0, 0), [0, 0, 0]),
        ((0, 1, 0), [7, 0, 7]),
    ):
        live = Liveness(tables, None)  # type: ignore[arg-type]
        live.visit(bytes(32), BlobType.DATA)
        for _ in range(2):
            found = live.spare_bytes({row: rank for row, rank in zip(rows, ranks, strict=True) if rank})
            assert [sums[0] for sums in found] == spare
        assert [sums[0] for sums in live.live_bytes()] == [7, 7, 7]


def test_what_only_a_damaged_pack_holds_stops_no_prune(repo: Repository, source: Path) -> None:
    """Of two damaged copies one was stored again in part, since the source has the rest no more."""
    before = {name for packs in by_session(repo).values() for name in packs}
    spoil(repo, before)
    assert snapvault.check(again(repo), read_data=True).status == "damaged"
    for i in range(0, 60, 2):
        (source / f"{i:02}").unlink()
    save(again(repo), source)
    result = prune(repo)
    assert result.status == "ok" and result.packs_removed
    lost = {path.path for path in snapvault.check(again(repo), read_data=True).lost}
    assert lost and not any((source / Path(path).name).exists() for path in lost)


def test_what_is_in_two_packs_of_which_both_go_is_copied(repo: Repository, source: Path, tmp_path: Path) -> None:
    """All that is needed lies twice, beside what is not needed any more."""
    for i in range(0, 60, 2):
        (source / f"{i:02}").unlink()
    kept = {save(again(repo), source, dataset=name).snapshot for name in ("one", "two")}
    forgotten = [s.id for s in again(repo).snapshots() if s.id not in kept]
    snapvault.forget_snapshots(again(repo), forgotten, undelete_window=NOW)
    before = stored(repo)
    prune(repo)
    assert stored(repo) < 0.3 * before
    all_there(repo, source, tmp_path)
    assert snapvault.check(again(repo), read_data=True).status == "ok"
