"""What is damaged at one place comes from the other, both ways; nothing that is whole is touched."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from blake3 import blake3

import snapvault
from snapvault import HealResult, Repository, Site
from snapvault.format import names
from snapvault.format.snapshot import ABORT, SnapshotRecord, merkle
from snapvault.format.wire import DIGEST_SIZE, Kind
from snapvault.foundation.ids import SessionId
from snapvault.operations.collect import GarbageCollection
from snapvault.operations.prune import PruneLimits
from snapvault.repository.session import Session, revoke
from snapvault.repository.trust import sign
from tests.repos import SEED, again, back, contents, make, objects, open_session, save, varied, with_copy


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return varied(tmp_path / "source")


@pytest.fixture
def repo(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """With a copy beside it."""
    return with_copy(source, tmp_path, monkeypatch)


def healed(repo: Repository) -> HealResult:
    return snapvault.heal(Site(repo.url), Site(str(Path(repo.url).parent / "copy")))


def files(place: str | Path, prefix: str = "") -> list[Path]:
    return sorted(p for p in Path(place, prefix).rglob("*") if p.is_file())


def flip(path: Path) -> str:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return str(path)


def whole(place: Path, source: Path, tmp_path: Path) -> None:
    opened = snapvault.open(place, keys=lambda: SEED)
    assert contents(back(opened, tmp_path / f"out-{place.name}", source)) == contents(source)
    assert snapvault.check(opened, read_data=True).status == "ok"


def test_damage_to_disjoint_halves_of_both(repo: Repository, source: Path, tmp_path: Path) -> None:
    """Every object that both should have: one half of them is flipped here, the other half there (family 13)."""
    copy = tmp_path / "copy"
    common = [n for n in objects(repo) if not n.startswith((names.LOCAL, names.CONFIG))]
    assert len(common) > 8
    for number, name in enumerate(sorted(common)):
        flip((copy if number % 2 else Path(repo.url)) / name)
    result = healed(repo)
    assert result.status == "ok", result
    assert set(result.mended_here) == {n for i, n in enumerate(sorted(common)) if i % 2 == 0}
    assert set(result.mended_there) == {n for i, n in enumerate(sorted(common)) if i % 2}
    for place in (Path(repo.url), copy):
        whole(place, source, tmp_path)


def test_what_is_missing_comes_back(repo: Repository, source: Path, tmp_path: Path) -> None:
    gone = files(repo.url, "packs")[0]
    gone.unlink()
    short = files(tmp_path / "copy", "packs")[1]
    short.write_bytes(short.read_bytes()[:-1])
    result = healed(repo)
    assert result.status == "ok"
    assert result.mended_here == (str(gone.relative_to(repo.url)),)
    assert result.mended_there == (str(short.relative_to(tmp_path / "copy")),)
    whole(Path(repo.url), source, tmp_path)
    whole(tmp_path / "copy", source, tmp_path)


@pytest.mark.parametrize("kind", ["config", "packs", "index", "sessions", "keyset", "slots", "snapshots"])
@pytest.mark.parametrize("pruned", [False, True])
def test_all_of_a_kind_that_is_gone_comes_back(
    repo: Repository, source: Path, tmp_path: Path, kind: str, pruned: bool
) -> None:
    """From the copy, and with what else named it; but nothing that a prune removed."""
    if pruned:
        (source / "new").write_bytes(b"new" * 10_000)
        save(again(repo), source)
        oldest = next(iter(again(repo).snapshots())).id
        snapvault.forget_snapshots(again(repo), [oldest], undelete_window=timedelta(0))
        snapvault.plan_prune(again(repo), limits=PruneLimits(unused=0.0)).execute()
        snapvault.replicate(repo.url, str(tmp_path / "copy"))
    before = {n: s for n, s in objects(repo).items() if not n.startswith(names.LOCAL)}
    for name in {"index": ["index", "packs"], "config": ["config", "keyset"]}.get(kind, [kind]):
        place = Path(repo.url, name)
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    result = healed(repo)
    assert result.status == "ok" and not result.mended_there, result
    assert {n: s for n, s in objects(repo).items() if not n.startswith(names.LOCAL)} == before
    whole(Path(repo.url), source, tmp_path)


@pytest.mark.parametrize("kind", ["packs", "index", "sessions", "keyset"])
def test_what_a_copy_had_comes_back_and_no_more(repo: Repository, source: Path, tmp_path: Path, kind: str) -> None:
    """What was not replicated yet is a matter of the next replication."""
    copy = tmp_path / "copy"
    (source / "new").write_bytes(b"new" * 10_000)
    new = save(again(repo), source).snapshot
    before = {str(p.relative_to(copy)) for p in files(copy) if not str(p.relative_to(copy)).startswith(names.LOCAL)}
    for folder in {"index": ["index", "packs"]}.get(kind, [kind]):
        shutil.rmtree(copy / folder)
    result = healed(repo)
    assert result.status == "ok" and not result.mended_here, result
    after = {str(p.relative_to(copy)) for p in files(copy) if not str(p.relative_to(copy)).startswith(names.LOCAL)}
    assert after == before and not (copy / names.snapshot(SessionId(new))).exists()


def test_what_was_pruned_or_removed_stays_away(repo: Repository, source: Path, tmp_path: Path) -> None:
    """Packs and index objects that a GC removed here, and the slot of a key that was removed, are still at the copy."""
    snapvault.add_key(repo, "reader", "reader", file=tmp_path / "reader.json")
    fresh = tmp_path / "fresh"
    snapvault.replicate(repo.url, str(fresh))
    snapvault.remove_key(again(repo), "reader")
    (source / "new").write_bytes(b"new" * 10_000)
    for file in files(source):
        if file.name != "new":
            file.unlink()
    kept = save(again(repo), source).snapshot
    gone = [s.id for s in again(repo).snapshots() if s.id != kept]
    snapvault.forget_snapshots(again(repo), gone, undelete_window=timedelta(0))
    assert snapvault.plan_prune(again(repo), limits=PruneLimits(unused=0.0)).execute().packs_removed
    before = objects(repo)
    result = snapvault.heal(Site(repo.url), Site(str(fresh)))
    assert result.status == "ok" and not result.mended_here, result
    assert objects(repo) == before


def test_what_a_prune_said_comes_back(repo: Repository, tmp_path: Path) -> None:
    """Of one that copied nothing the slot is all there is.  That of a prune at the copy says nothing new."""
    (tmp_path / "another").write_bytes(b"x" * 10_000)
    first = save(again(repo), tmp_path / "another", dataset="another").snapshot
    snapvault.replicate(repo.url, str(tmp_path / "copy"))
    for place in (repo.url, tmp_path / "copy"):
        opened = snapvault.open(place, keys=lambda: SEED)
        snapvault.forget_snapshots(opened, [first], undelete_window=timedelta(0))
        assert snapvault.plan_prune(opened, limits=PruneLimits(unused=0.0)).execute().packs_removed
        snapvault.replicate(repo.url, str(tmp_path / "copy"))
    [slot] = gc_slots(repo.url)
    assert not Path(repo.url, slot.replace(names.SNAPSHOTS, names.SESSIONS)).exists()
    before = objects(repo)
    assert not healed(repo).mended_here and objects(repo) == before
    Path(repo.url, slot).unlink()
    assert snapvault.check(again(repo)).status == "damaged"
    came = healed(repo).mended_here
    assert slot in came and all(name.startswith(names.SNAPSHOTS + names.GC_PREFIX) for name in came)
    assert snapvault.check(again(repo)).status == "ok"


def gc_slots(place: Path | str) -> list[str]:
    return [str(p.relative_to(place)) for p in files(place, names.SNAPSHOTS) if p.name.startswith(names.GC_PREFIX)]


@pytest.mark.parametrize("forged", [False, True])
def test_what_prunes_at_the_copy_said_stays_there(repo: Repository, source: Path, tmp_path: Path, forged: bool) -> None:
    """Also of index objects that only the copy had; also if it was promoted, and somebody there hides that.

    What they name may be needed at the source, where a prune would remove it without asking whoever runs.
    """
    copy = tmp_path / "copy"
    for number in (28, 29):
        (source / f"{number}").unlink()
        save(again(repo), source)
    snapvault.replicate(repo.url, str(copy))
    if forged:
        snapvault.promote(snapvault.open(copy, keys=lambda: SEED))
    for sid in [s.id for s in again(repo).snapshots()][:2]:
        for place in (copy,) if forged else (repo.url, copy):
            opened = snapvault.open(place, keys=lambda: SEED)
            snapvault.forget_snapshots(opened, [sid], undelete_window=timedelta(0))
            assert snapvault.plan_prune(opened, limits=PruneLimits(unused=0.0)).execute().packs_removed
            if not forged:
                snapvault.replicate(repo.url, str(copy))
    if forged:
        (copy / names.PROMOTED_MARK).unlink()
        for header in (copy / names.SESSIONS).glob(f"{names.GC_PREFIX}*"):
            header.unlink()
    assert set(gc_slots(copy)) - set(gc_slots(repo.url))
    before = objects(repo)
    assert not healed(repo).mended_here and objects(repo) == before


def test_what_a_prune_had_copied_when_it_died_comes_back(
    repo: Repository, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup relied on it since."""
    old = [s.id for s in again(repo).snapshots()]
    for number in range(0, 30, 2):
        (source / f"{number}").unlink()
    old.append(save(again(repo), source).snapshot)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Session, "finish_gc", die)
        patch.setattr(GarbageCollection, "give_up", lambda self: None)
        snapvault.forget_snapshots(again(repo), old[:1], undelete_window=timedelta(0))
        with pytest.raises(KeyboardInterrupt):
            snapvault.plan_prune(again(repo), limits=PruneLimits(unused=0.0)).execute()
    save(again(repo), source, dataset="new")
    snapvault.forget_snapshots(again(repo), old[1:], undelete_window=timedelta(0))
    for _ in range(2):
        snapvault.plan_prune(again(repo), limits=PruneLimits(unused=0.0)).execute(lease=timedelta(0))
    snapvault.replicate(repo.url, str(tmp_path / "copy"))
    for folder in (names.INDEX, names.PACKS):
        shutil.rmtree(Path(repo.url, folder))
    assert healed(repo).status == "ok"
    whole(Path(repo.url), source, tmp_path)


@pytest.mark.parametrize("forged", ["", "slot", "slot and header"])
def test_a_run_that_was_ended_stays_ended(repo: Repository, source: Path, tmp_path: Path, forged: str) -> None:
    """Or it could commit what a prune removed since.  What it had put may be in use, so its header comes, too.

    But no writer ends another's run by what it puts at the copy.
    """
    session, copy = open_session(repo), tmp_path / "copy"
    slot, header = names.snapshot(session.sid), names.session(session.sid)
    revoke(repo.vault.store, repo.vault.ring, session.sid)
    snapvault.replicate(repo.url, str(copy))
    assert {slot, header} <= {str(p.relative_to(copy)) for p in files(copy)}
    if forged:
        writer = snapvault.add_key(repo, "writer", "writer", file=tmp_path / "writer.json")
        assert writer
        snapvault.replicate(repo.url, str(copy))
        other = snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / "writer.json")).vault
        assert other.ring.holder is not None
        ended = SnapshotRecord(
            other.ring.config_digest, ABORT, session.sid, other.ring.holder.certificate, 0, (),
            other.ring.current.number, merkle([]), (), (), bytes(32),
        )  # fmt: skip
        (copy / slot).write_bytes(sign(Kind.SNAPSHOT, ended.encode(), other.ring.signing.id, other.ring.signing.signer))
        if "header" in forged:
            data = Session(other.store, other.ring, other.ring.write_domain, sid=session.sid).header
            (copy / header).write_bytes(data)
    for name in (slot,) if forged else (slot, header):
        Path(repo.url, name).unlink()
    assert set(healed(repo).mended_here) == (set() if forged else {slot, header})


def test_the_same_object_damaged_at_both_is_named(repo: Repository, tmp_path: Path) -> None:
    pack = files(repo.url, "packs")[0].relative_to(repo.url)
    flip(repo.url / pack)
    flip(tmp_path / "copy" / pack)
    result = healed(repo)
    assert result.status == "damaged" and result.mended_here == result.mended_there == ()
    for remaining in (result.remaining_here, result.remaining_there):
        assert {n for f in remaining for n in f.objects} == {str(pack)}


def test_two_whole_places_stay_as_they_are(repo: Repository, tmp_path: Path) -> None:
    before = [(p, p.stat().st_mtime_ns) for place in ("repo", "copy") for p in files(tmp_path / place)]
    result = healed(repo)
    assert result.status == "ok" and not result.mended_here and not result.mended_there
    assert [(p, p.stat().st_mtime_ns) for place in ("repo", "copy") for p in files(tmp_path / place)] == before


def test_another_repository_mends_nothing(repo: Repository, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "copy")
    make(tmp_path / "copy")
    with pytest.raises(snapvault.InvalidInput, match="another repository"):
        healed(repo)


def forge(path: Path) -> None:
    """Other bytes, with a right digest, as anybody can make them."""
    body = bytearray(path.read_bytes()[:-DIGEST_SIZE])
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body) + blake3(body).digest())


@pytest.mark.parametrize("prefix", [names.CONFIG, names.KEYSETS, names.SESSIONS, names.SNAPSHOTS])
def test_what_the_other_place_invented_does_not_come(
    repo: Repository, source: Path, tmp_path: Path, prefix: str
) -> None:
    """Else what a third one has whole could not come any more.  What was invented at one place is mended there."""
    snapvault.replicate(repo.url, str(tmp_path / "third"))
    forged = [n for n in objects(repo) if n.startswith(prefix)]
    for name in forged:
        flip(Path(repo.url, name))
        forge(tmp_path / "copy" / name)
    if prefix in (names.CONFIG, names.KEYSETS):  # nobody could say any more what is whose
        with pytest.raises(snapvault.Damaged):
            healed(repo)
    else:
        result = healed(repo)
        assert result.status == "damaged" and not result.mended_here + result.mended_there
        assert {n for f in result.remaining_here for n in f.objects} == set(forged)
        assert {n for f in result.remaining_there for n in f.objects} == set(forged)
    third = snapvault.heal(Site(repo.url), Site(str(tmp_path / "third")))
    assert third.status == "ok" and set(third.mended_here) == set(forged)
    if prefix != names.CONFIG:
        assert set(healed(repo).mended_there) == set(forged)
        whole(tmp_path / "copy", source, tmp_path)
    whole(Path(repo.url), source, tmp_path)


def test_a_config_that_is_gone_is_missed(repo: Repository, source: Path, tmp_path: Path) -> None:
    """Nobody is told that there is no repository; a push goes on once a heal brought it back, either way."""
    for place in (Path(repo.url), tmp_path / "copy"):
        (place / names.CONFIG).unlink()
        with pytest.raises(snapvault.Damaged, match=r"config .* is gone"):
            snapvault.open(place, keys=lambda: SEED)
        with pytest.raises(snapvault.Damaged, match=r"config .* is gone") as caught:
            snapvault.replicate(repo.url, str(tmp_path / "copy"))
        assert "check --repair-from" in str(caught.value)
        assert healed(repo).status == "ok"
        whole(place, source, tmp_path)


def test_a_place_of_which_nothing_is_left_that_says_whose_it_is(repo: Repository, tmp_path: Path) -> None:
    for name in (names.CONFIG, names.KEYSETS, names.SESSIONS, names.SNAPSHOTS):
        place = Path(repo.url, name)
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    before = objects(repo)
    with pytest.raises(snapvault.RepositoryNotFound):
        healed(repo)
    assert objects(repo) == before


def test_a_damaged_config_beside_another_repository(repo: Repository, tmp_path: Path) -> None:
    make(tmp_path / "other")
    flip(Path(repo.url, names.CONFIG))
    before = Path(repo.url, names.CONFIG).read_bytes()
    with pytest.raises(snapvault.Damaged):
        snapvault.heal(Site(repo.url), Site(str(tmp_path / "other")))
    assert Path(repo.url, names.CONFIG).read_bytes() == before
