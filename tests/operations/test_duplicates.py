"""What two sessions stored at the same time: a prune keeps one copy of it, and never removes the last."""

import random
from datetime import timedelta
from pathlib import Path

import pytest

import snapvault
from snapvault import Repository
from snapvault.format import names
from snapvault.operations.prune import PruneLimits, PruneResult, plan_prune
from tests.repos import SMALL, again, back, beside, contents, make, objects, save, small_packs

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


def flip(repo: Repository, pack: str) -> None:
    """A bit in the first segment."""
    path = Path(repo.url) / pack
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)


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
    for pack in sorted(by_session(repo).values())[which]:
        flip(repo, pack)
    if known:
        assert snapvault.check(again(repo), read_data=True).status == "damaged"
    for _ in range(2):
        prune(repo)
        all_there(repo, source, tmp_path)
    report = snapvault.check(again(repo), read_data=True)
    assert not report.lost
    if known:  # all that was damaged is superfluous
        assert report.status == "ok", report.problems


def test_where_both_copies_are_damaged_nothing_goes(repo: Repository, source: Path) -> None:
    """A prune that does not know stops when it sees it; one that knows leaves these packs to a repair."""
    for packs in by_session(repo).values():
        for pack in packs:
            flip(repo, pack)
    before = {name for packs in by_session(repo).values() for name in packs}
    with pytest.raises(snapvault.Damaged, match="nothing is removed"):
        prune(repo)
    assert before <= set(objects(repo))
    assert snapvault.check(again(repo), read_data=True).status == "damaged"
    result = prune(repo)
    assert result.status == "ok" and result.packs_damaged == len(before) and before <= set(objects(repo))


def test_what_only_a_damaged_pack_holds_stops_no_prune(repo: Repository, source: Path) -> None:
    """Of two damaged copies one was stored again in part, since the source has the rest no more."""
    before = {name for packs in by_session(repo).values() for name in packs}
    for pack in before:
        flip(repo, pack)
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
