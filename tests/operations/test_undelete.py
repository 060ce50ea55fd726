"""A forgotten snapshot comes back as a new one, and relies on nothing that a prune may be about to remove."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from battery.lab import put_gc

import snapvault
from snapvault import Repository, Retention
from snapvault.access.resolve import list_forgotten
from snapvault.chunking import Chunking
from snapvault.format import names
from snapvault.foundation.errors import Damaged, InvalidInput, RoleRequired
from snapvault.foundation.ids import PackId
from tests.repos import again, back, contents, make, save


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for folder in ("a", "b/c"):
        (tmp_path / "source" / folder).mkdir(parents=True)
        (tmp_path / "source" / folder / "f").write_bytes(folder.encode() * 3000)
    return tmp_path / "source"


@pytest.fixture
def repo(tmp_path: Path, source: Path) -> Repository:
    repo = make(tmp_path / "repo", chunking=Chunking(64, 128, 256))
    save(repo, source, tags=["good"])
    return repo


def forgotten(repo: Repository) -> str:
    sid = next(iter(repo.snapshots())).id
    snapvault.forget_snapshots(repo, [sid])
    assert not list(again(repo).snapshots())
    return sid


def packs(repo: Repository) -> list[PackId]:
    return [row.id for row in again(repo).vault.index().packs()]


def test_it_is_what_it_was(repo: Repository, source: Path, tmp_path: Path) -> None:
    before = next(iter(repo.snapshots()))
    snapvault.set_tags(repo, before.id, add=["kept"])
    result = snapvault.undelete(again(repo), forgotten(repo)[:8])
    assert (result.original, result.bytes_stored) == (before.id, 0)
    (now,) = again(repo).snapshots()
    assert (now.id, now.time, now.tags) == (result.snapshot, before.time, ("good", "kept"))
    assert contents(back(again(repo), tmp_path / "out", source)) == contents(source)
    with pytest.raises(InvalidInput, match="back already"):
        snapvault.undelete(again(repo), before.id)
    snapvault.forget_snapshots(again(repo), [now.id])
    assert snapvault.undelete(again(repo), now.id).original == now.id


def test_what_is_damaged_can_be_forgotten_once_more_to_be_gone_earlier(repo: Repository, source: Path) -> None:
    """Its record cannot be read, which stops every prune until its time is over."""
    broken = next(iter(repo.snapshots())).id
    (source / "a/f").write_bytes(b"other" * 1000)
    save(again(repo), source)
    path = Path(repo.url, names.snapshot(broken))
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    snapvault.forget_snapshots(again(repo), [broken])
    until = again(repo).vault.history.tombstones()[0][broken].not_before
    snapvault.forget_snapshots(again(repo), [broken], undelete_window=timedelta(days=2))
    assert again(repo).vault.history.tombstones()[0][broken].not_before == until, "no longer than it was said first"
    snapvault.forget_snapshots(again(repo), [broken], undelete_window=timedelta(0))
    assert again(repo).vault.history.tombstones()[0][broken].not_before < until
    assert snapvault.plan_prune(again(repo)).execute().status == "ok"


def test_what_is_forgotten_already_is_said_to_be(repo: Repository) -> None:
    sid = forgotten(repo)
    ((_, until),) = list_forgotten(repo.vault)
    day = datetime.fromtimestamp(until // 10**9, UTC).isoformat()
    with pytest.raises(InvalidInput, match=f"{sid[:8]} of d is forgotten already; until {re.escape(day)} nothing") as e:
        snapvault.forget_snapshots(repo, [sid[:8]], undelete_window=timedelta(0))
    assert f"undelete {sid[:8]}" in str(e.value.hint) and list_forgotten(repo.vault)[0][1] == until
    for ref in ("feedbeefed", sid[:3], f"{sid[:8]}*"):
        with pytest.raises(InvalidInput, match="there is no snapshot"):
            snapvault.forget_snapshots(repo, [ref])


def test_what_is_condemned_is_stored_again(repo: Repository, source: Path, tmp_path: Path) -> None:
    """A prune has looked already, and will remove all that there is."""
    sid, before = forgotten(repo), packs(repo)
    put_gc(repo.vault, before)
    assert snapvault.undelete(again(repo), sid).bytes_stored > 0
    for pack in before:
        repo.vault.backend.delete(names.pack(pack))
    assert contents(back(again(repo), tmp_path / "out", source)) == contents(source)


def test_what_is_gone_does_not_come_back(repo: Repository) -> None:
    sid = forgotten(repo)
    for pack in packs(repo):
        repo.vault.backend.delete(names.pack(pack))
    with pytest.raises(Damaged):
        snapvault.undelete(again(repo), sid)
    assert not list(again(repo).snapshots())


def test_what_a_prune_removed_is_no_damage(repo: Repository) -> None:
    sid = next(iter(repo.snapshots())).id
    snapvault.forget_snapshots(repo, [sid], undelete_window=timedelta(0))
    assert snapvault.plan_prune(again(repo)).execute(wait=timedelta(0)).packs_removed
    with pytest.raises(InvalidInput, match="a prune has removed"):
        snapvault.undelete(again(repo), sid)


def test_names_that_mean_none(repo: Repository) -> None:
    kept = next(iter(repo.snapshots())).id
    for ref in (kept, "feed", "a", "d@latest"):
        with pytest.raises(InvalidInput, match="no forgotten snapshot"):
            snapvault.undelete(repo, ref)


def test_who_may(repo: Repository, tmp_path: Path) -> None:
    sid = forgotten(repo)
    for role in ("reader", "writer"):
        snapvault.add_key(repo, role, role, file=tmp_path / role)
        with pytest.raises(RoleRequired):
            snapvault.undelete(snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / role)), sid)


def test_a_writers_snapshot_by_a_maintainer(repo: Repository, source: Path, tmp_path: Path) -> None:
    """It stays in the writer's domain, and among the writer's snapshots for the rules."""
    for role in ("writer", "maintainer"):
        snapvault.add_key(again(repo), role, role, file=tmp_path / role)
    writer, maintainer = (
        snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / role)) for role in ("writer", "maintainer")
    )
    made = []
    for number in range(3):
        (source / "a/f").write_bytes(b"%d" % number * 5000)
        made.append(save(writer, source, dataset="w").snapshot)
    snapvault.forget_snapshots(maintainer, made[:1])
    new = snapvault.undelete(maintainer, made[0]).snapshot
    owner = again(repo)
    old, back = owner.vault.sessions.secrets(made[0]).domain, owner.snapshot(new).domain  # type: ignore[arg-type]
    assert old == back
    plan = snapvault.plan_forget(owner, Retention(last=3, minimum=0), dataset="w")
    assert {s.id for s in plan.keep} == {new, *made[1:]} and set(plan.reasons.values()) == {("last",)}
    plan = snapvault.plan_forget(owner, Retention(last=2, minimum=0), dataset="w")
    assert [s.id for s in plan.forget] == [new]


def test_the_window_is_told(repo: Repository) -> None:
    sid = next(iter(repo.snapshots())).id
    with pytest.raises(InvalidInput):
        snapvault.plan_forget(repo, Retention(last=1)).execute(undelete_window=timedelta(-1))
    snapvault.forget_snapshots(repo, [sid], undelete_window=timedelta(days=3))
    tombstone = repo.vault.history.tombstones()[0][sid]
    assert tombstone.not_before - tombstone.created == 3 * 86_400 * 10**9
