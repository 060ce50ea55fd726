"""Repair saves what can be read, says what is lost, and makes way for the next backup to heal it."""

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from blake3 import blake3

import snapvault
from snapvault import CheckReport, RepairResult, Repository
from snapvault.format import names
from snapvault.foundation.errors import RoleRequired
from snapvault.foundation.ids import PackId
from snapvault.operations.repair import plan_repair
from tests.repos import SMALL, again, back, contents, damage, make, objects, open_session, save, small_packs

NOW = timedelta(0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Files that share nothing.  Beside it is room for what is restored, so that no folder above it changes."""
    (tmp_path / "out").mkdir()
    root = tmp_path / "source"
    (root / "deep").mkdir(parents=True)
    for i in range(20):
        (root / ("deep" if i % 2 else ".") / f"{i:02}").write_bytes(random.Random(i).randbytes(3000))
    return root


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Packs of few segments of few files."""
    small_packs(monkeypatch)
    return make(tmp_path / "repo", chunking=SMALL)


def repair(repo: Repository, **options: timedelta) -> RepairResult:
    return plan_repair(again(repo)).execute(**{"wait": NOW, "lease": NOW, **options})


def check(repo: Repository) -> CheckReport:
    return snapvault.check(again(repo), read_data=True)


def flip(repo: Repository, name: str, at: int) -> None:
    place = Path(repo.url, name)
    data = bytearray(place.read_bytes())
    data[at] ^= 1
    place.chmod(0o600)
    place.write_bytes(data)


def some(repo: Repository, prefix: str) -> list[str]:
    return [n for n in objects(repo) if n.startswith(prefix)]


def test_nothing_to_repair(repo: Repository, source: Path) -> None:
    save(repo, source)
    before = objects(repo)
    result = repair(repo)
    assert result.status == "ok" and result.after.status == "ok"
    done = result.to_dict()
    assert not any(v for k, v in done.items() if k not in ("status", "remaining", "waits_for", "problems")), done
    assert {n: s for n, s in objects(repo).items() if not n.startswith(names.LOCAL)} == {
        n: s for n, s in before.items() if not n.startswith(names.LOCAL)
    }


def test_a_damaged_segment(repo: Repository, source: Path, tmp_path: Path) -> None:
    """What else is in that pack is saved; the path is named; the next backup heals it, and the note goes."""
    sid = save(repo, source).snapshot
    lost = str(source / "07").replace("source/07", "source/deep/07")
    bad = damage(repo, lost)
    named = {p.path for p in check(repo).lost}
    assert lost in named and len(named) < 10
    result = repair(repo)
    assert (result.status, result.packs_salvaged, result.snapshots_marked) == ("partial", 1, 1) and result.blobs_lost
    assert bad not in objects(repo)
    assert {p.path for p in result.after.lost} == named == set(again(repo).snapshot(sid).lost)
    found = check(repo)
    assert found.status == "partial" and all(p.noted for p in found.lost) and not found.problems
    again_result = repair(repo)
    assert (again_result.status, again_result.packs_salvaged, again_result.snapshots_marked) == ("partial", 0, 0)
    assert snapvault.plan_prune(again(repo)).execute(wait=NOW).status == "ok"
    restored = snapvault.restore(again(repo), sid, tmp_path / "out" / "part")
    assert {i.path for i in restored.lost} == named
    save(again(repo), source)
    back(again(repo), tmp_path / "out" / "healed", source, sid)
    assert contents(Path(f"{tmp_path}/out/healed{source}")) == contents(source)
    healed = repair(repo)
    assert (healed.status, healed.snapshots_healed, again(repo).snapshot(sid).lost) == ("ok", 1, ())


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda data: data[: len(data) // 2],
    "a byte more": lambda data: data + b"x",
    "the header": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "the directory": lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
    "the end": lambda data: data[:-1],
}


def repaired_and_brought_back(repo: Repository, source: Path) -> tuple[list[str], list[str]]:
    """A backup whose packs were damaged, copied by a repair, and came back: these, and the copies."""
    save(repo, source)
    old = some(repo, names.PACKS)
    kept = {name: Path(repo.url, name).read_bytes() for name in old}
    for name in old:
        flip(repo, name, -40)  # of the directory, so that all of it can be read
    assert repair(repo).status == "ok"
    copies = some(repo, names.PACKS)
    assert copies and set(copies).isdisjoint(old)
    for name, data in kept.items():
        Path(repo.url, name).write_bytes(data)
    return old, copies


def test_what_was_removed_and_is_back_is_taken_in_where_the_rest_is_damaged(
    repo: Repository, source: Path, tmp_path: Path
) -> None:
    """What a repair copied is damaged in turn, and the packs that it removed are back: nothing is lost, for good."""
    old, copies = repaired_and_brought_back(repo, source)
    for name in copies:
        flip(repo, name, len(Path(repo.url, name).read_bytes()) // 2)
    assert repair(repo).status == "ok"
    assert set(some(repo, names.PACKS)).isdisjoint({*old, *copies})
    assert snapvault.plan_prune(again(repo)).execute(wait=NOW).status == "ok"
    assert check(repo).status == "ok"
    assert contents(back(again(repo), tmp_path / "out", source)) == contents(source)


def test_a_prune_leaves_what_was_removed_and_is_back_if_nothing_else_holds_it(
    repo: Repository, source: Path, tmp_path: Path
) -> None:
    old, copies = repaired_and_brought_back(repo, source)
    for name in (*copies, *some(repo, names.INDEX)):
        Path(repo.url, name).unlink()
    for _ in range(2):
        result = snapvault.plan_prune(again(repo)).execute(wait=NOW)
        assert result.status == "damaged" and all("was removed for ever and is back" in p for p in result.problems)
        assert len(result.problems) == len(old)
    assert contents(back(again(repo), tmp_path / "out", source)) == contents(source)
    assert repair(repo).status == "ok"
    assert snapvault.plan_prune(again(repo)).execute(wait=NOW).status == "ok"
    assert set(some(repo, names.PACKS)).isdisjoint(old)
    assert contents(back(again(repo), tmp_path / "out" / "again", source)) == contents(source)


@pytest.mark.parametrize("what", ["prune", "repair"])
def test_what_is_back_and_only_an_old_index_object_that_is_back_too_describes(
    repo: Repository, source: Path, tmp_path: Path, what: str
) -> None:
    """Packs whose own directories are damaged."""
    save(repo, source)
    old = some(repo, names.PACKS)
    for name in old:
        flip(repo, name, -40)
    kept = {name: Path(repo.url, name).read_bytes() for name in (*old, *some(repo, names.INDEX))}
    assert repair(repo).status == "ok"
    for name in (*some(repo, names.PACKS), *some(repo, names.INDEX)):
        Path(repo.url, name).unlink()
    for name, data in kept.items():
        Path(repo.url, name).write_bytes(data)
    if what == "prune":
        assert snapvault.plan_prune(again(repo)).execute(wait=NOW).status == "damaged"
        assert contents(back(again(repo), tmp_path / "out", source)) == contents(source)
    assert repair(repo).status == "ok"
    assert snapvault.plan_prune(again(repo)).execute(wait=NOW).status == "ok"
    assert set(some(repo, names.PACKS)).isdisjoint(old)
    assert contents(back(again(repo), tmp_path / "out" / "again", source)) == contents(source)


def test_a_prune_removes_what_was_removed_and_is_back_if_others_hold_it(repo: Repository, source: Path) -> None:
    _, copies = repaired_and_brought_back(repo, source)
    assert snapvault.plan_prune(again(repo)).execute(wait=NOW).status == "ok"
    assert set(some(repo, names.PACKS)) == set(copies)


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.parametrize("indexed", [True, False])
def test_a_damaged_pack(repo: Repository, source: Path, tmp_path: Path, what: str, indexed: bool) -> None:
    """Everything that a restore had before, it has after; and then nothing is damaged but what is noted."""
    sid = save(repo, source).snapshot
    for name in some(repo, names.PACKS)[::2]:
        place = Path(repo.url, name)
        place.chmod(0o600)
        place.write_bytes(DAMAGES[what](place.read_bytes()))
    if not indexed:
        for name in some(repo, names.INDEX):
            Path(repo.url, name).unlink()
    before = snapvault.restore(again(repo), sid, tmp_path / "out" / "before")
    result = repair(repo)
    after = snapvault.restore(again(repo), sid, tmp_path / "out" / "after")
    assert {i.path for i in after.lost} <= {i.path for i in before.lost}
    assert result.status == ("partial" if after.lost else "ok"), result
    assert {p.path for p in result.after.lost} == {i.path for i in after.lost}
    assert check(repo).status == result.status
    if indexed:  # then a damage beside the segments costs nothing
        assert what == "cut short" or not after.lost
    save(again(repo), source)
    assert repair(repo).status == "ok"
    back(again(repo), tmp_path / "out" / "healed", source, sid)


@pytest.mark.parametrize("whole", ["part of a header", "all but the directory"])
def test_a_pack_that_no_index_names_and_that_says_nothing(repo: Repository, source: Path, whole: str) -> None:
    """Somebody put it there, or a killed run: nobody can rely on it, so it is told, and is no damage."""
    save(repo, source)
    data = Path(repo.url, some(repo, names.PACKS)[0]).read_bytes()
    for number in range(2):
        junk = data[: 700 if whole == "part of a header" else -100] + random.Random(number).randbytes(300)
        path = Path(repo.url, names.pack(PackId(blake3(junk).digest())))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(junk)
    for share in (0.0, 1.0):
        report = snapvault.check(again(repo), read_data=share)
        assert report.status == "ok" and path.name in " ".join(f.message for f in report.findings if f.harmless)
    assert plan_repair(again(repo)).execute().status == "ok"
    (source / "00").write_bytes(b"new")
    save(again(repo), source)
    snapvault.forget_snapshots(again(repo), [next(iter(again(repo).snapshots())).id])
    # What was forgotten, and can be brought back, may need it: of that a check looks at the packs alone.
    assert snapvault.check(again(repo), read_data=True).status == "damaged"


def test_the_index_comes_from_the_packs(repo: Repository, source: Path, tmp_path: Path) -> None:
    save(repo, source)
    for name in some(repo, names.INDEX):
        Path(repo.url, name).unlink()
    plan = plan_repair(again(repo))
    assert plan.packs_listed == len(some(repo, names.PACKS)) and not some(repo, names.INDEX)
    result = plan.execute(wait=NOW)
    assert result.status == "ok" and some(repo, names.INDEX)
    found = again(repo)
    assert contents(back(found, tmp_path / "out" / "out", source)) == contents(source)
    assert found.vault.loader.load(scan=True) and found.vault.loader.unnamed == 0


@pytest.mark.parametrize("at", [3, 40, 200, -20])
def test_a_damaged_index(repo: Repository, source: Path, at: int) -> None:
    save(repo, source)
    (name,) = some(repo, names.INDEX)
    flip(repo, name, at)
    result = repair(repo)
    assert (result.status, result.objects_removed) == ("ok", 1)
    assert name not in objects(repo) and some(repo, names.INDEX)


def test_what_prunes_put_is_listed_again(repo: Repository, source: Path, tmp_path: Path) -> None:
    """Packs of a GC belong to no snapshot; an index that is lost shows all the same."""
    first = save(repo, source).snapshot
    for i in range(0, 20, 3):
        (source / ("deep" if i % 2 else ".") / f"{i:02}").unlink()
    save(repo, source)
    snapvault.forget_snapshots(again(repo), [first], undelete_window=NOW)
    plan = snapvault.plan_prune(again(repo), limits=snapvault.PruneLimits(unused=0.0))
    assert plan.execute(wait=NOW).bytes_copied
    for name in some(repo, names.INDEX):
        Path(repo.url, name).unlink()
    assert check(repo).status == "damaged"
    assert repair(repo).status == "ok"
    assert contents(back(again(repo), tmp_path / "out" / "out", source)) == contents(source)


@pytest.mark.parametrize("gone", [True, False])
def test_headers_of_sessions(repo: Repository, source: Path, tmp_path: Path, gone: bool) -> None:
    save(repo, source)
    (name,) = some(repo, names.SESSIONS)
    header = Path(repo.url, name).read_bytes()
    if gone:
        Path(repo.url, name).unlink()
    else:
        flip(repo, name, 50)
    result = repair(repo)
    assert (result.status, result.objects_restored) == ("ok", 1)
    assert Path(repo.url, name).read_bytes() == header
    back(again(repo), tmp_path / "out" / "out", source)


def test_a_header_that_is_lost_everywhere_but_in_the_commit(repo: Repository, source: Path, tmp_path: Path) -> None:
    """Only once it is back can the index be trusted, which alone says what is in the packs."""
    save(repo, source)
    Path(repo.url, some(repo, names.SESSIONS)[0]).unlink()
    for name in some(repo, names.PACKS):
        flip(repo, name, 40)
    result = repair(repo)
    assert result.status == "ok" and result.packs_salvaged and not result.blobs_lost
    assert contents(back(again(repo), tmp_path / "out" / "all", source)) == contents(source)


def test_rescue_files(repo: Repository, source: Path) -> None:
    flip(repo, "rescue-1.py", 1000)
    Path(repo.url, "RESCUE-1.md").unlink()
    result = repair(repo)
    assert (result.status, result.objects_restored) == ("ok", 2)


def test_packs_that_are_gone(repo: Repository, source: Path, tmp_path: Path) -> None:
    """The index forgets them; a prune removes nothing that the marked snapshot, or another, still has."""
    first = save(repo, source).snapshot
    (source / "new").write_bytes(bytes(5000))
    second = save(repo, source).snapshot
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_bytes(random.Random(99).randbytes(9000))
    third = save(repo, other, dataset="other").snapshot
    for name in (p for n, p in enumerate(some(repo, names.PACKS)) if n % 3 == 0):
        Path(repo.url, name).unlink()
    before = {sid: snapvault.restore(again(repo), sid, tmp_path / "out" / sid) for sid in (first, second, third)}
    assert repair(repo).status == "partial"
    snapvault.forget_snapshots(again(repo), [second], undelete_window=NOW)
    snapvault.plan_prune(again(repo), limits=snapvault.PruneLimits(unused=0.0)).execute(wait=NOW)
    for sid in (first, third):
        after = snapvault.restore(again(repo), sid, tmp_path / "out" / f"after-{sid}")
        assert {i.path for i in after.lost} == {i.path for i in before[sid].lost}
        assert after.files_written == before[sid].files_written
    assert check(repo).status == "partial"


def test_all_packs_are_gone(repo: Repository, source: Path, tmp_path: Path) -> None:
    sid = save(repo, source).snapshot
    for name in some(repo, names.PACKS):
        Path(repo.url, name).unlink()
    result = repair(repo)
    assert (result.status, result.packs_listed) == ("partial", 0)
    assert again(repo).snapshot(sid).lost == ("/",)
    assert snapvault.plan_prune(again(repo)).execute(wait=NOW).status == "ok"
    save(again(repo), source)
    assert repair(repo).status == "ok"
    back(again(repo), tmp_path / "out" / "healed", source, sid)


def test_a_pack_that_comes_back(repo: Repository, source: Path, tmp_path: Path) -> None:
    """From a copy, after a repair removed it: a prune leaves it for the next repair, which takes what is in it."""
    sid = save(repo, source).snapshot
    name = names.pack(repo.snapshot(sid).reader().index.tables[0].packs[0].id)
    whole = Path(repo.url, name).read_bytes()
    Path(repo.url, name).write_bytes(whole[:2000])
    assert repair(repo).status == "partial"
    Path(repo.url, name).write_bytes(whole)
    snapvault.plan_prune(again(repo)).execute(wait=NOW)
    assert name in objects(repo)
    healed = repair(repo)
    assert (healed.status, healed.snapshots_healed) == ("ok", 1)
    snapvault.plan_prune(again(repo)).execute(wait=NOW)
    assert name not in objects(repo)
    assert contents(back(again(repo), tmp_path / "out" / "all", source)) == contents(source)


def test_all_that_a_session_wrote_is_gone(repo: Repository, source: Path, tmp_path: Path) -> None:
    """Packs and index objects: its record sums up what nobody can list any more."""
    sid = save(repo, source).snapshot
    for name in some(repo, names.PACKS) + some(repo, names.INDEX):
        Path(repo.url, name).unlink()
    result = repair(repo)
    assert result.status == "partial" and again(repo).snapshot(sid).lost == ("/",)
    assert check(repo).status == "partial"


def test_a_prune_keeps_what_is_not_known_to_be_lost(repo: Repository, source: Path) -> None:
    """A note makes nobody careless: what is missing beside it, while something cannot be read, is not passed over."""
    save(repo, source)
    damage(repo, str(source / "02"))
    repair(repo)
    name = some(repo, names.PACKS)[0]
    flip(repo, name, 40)
    flip(repo, name, -40)
    for index in some(repo, names.INDEX):
        Path(repo.url, index).unlink()
    with pytest.raises(snapvault.Damaged):
        snapvault.plan_prune(again(repo))


def test_a_dry_run_changes_nothing(repo: Repository, source: Path) -> None:
    save(repo, source)
    damage(repo, str(source / "02"))
    check(repo)  # writes down what it found, as any check
    before = objects(repo)
    plan = plan_repair(again(repo))
    assert plan.packs_salvaged == 1 and plan.status == "damaged" and plan.to_dict()["lost"]
    assert {n: s for n, s in objects(repo).items() if not n.startswith(names.VERIFIED)} == {
        n: s for n, s in before.items() if not n.startswith(names.VERIFIED)
    }


def test_a_running_backup_is_waited_for(repo: Repository, source: Path) -> None:
    """Its session may rely on what is damaged, so that stays; the rest is done."""
    save(repo, source)
    bad = damage(repo, str(source / "02"))
    (header,) = some(repo, names.SESSIONS)
    Path(repo.url, header).unlink()
    running = open_session(repo)
    result = repair(repo, lease=timedelta(hours=1))
    assert (result.status, result.waits_for, result.objects_restored) == ("damaged", (running.sid,), 1)
    assert bad in objects(repo) and result.after.lost
    running.abort()
    assert repair(repo, lease=timedelta(hours=1)).status == "partial"
    assert bad not in objects(repo)


@pytest.mark.parametrize("name", [names.GC + names.GC_PREFIX + "0" * 32, names.GC + "anything"])
def test_a_record_of_a_gc_that_nobody_can_read(repo: Repository, source: Path, name: str) -> None:
    """It might name any pack, so nobody relied on anything."""
    save(repo, source)
    repo.vault.backend.put(name, [b"no record"])
    assert save(again(repo), source, force_read=True).bytes_stored
    assert repair(repo).status == "ok"
    assert name not in objects(repo)
    assert not save(again(repo), source, force_read=True).bytes_stored


@pytest.mark.parametrize("role", ["reader", "writer"])
def test_who_may(repo: Repository, tmp_path: Path, role: str) -> None:
    snapvault.add_key(repo, role, role, file=tmp_path / role)
    with pytest.raises(RoleRequired):
        plan_repair(snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / role)))


def test_domains_of_their_own(repo: Repository, source: Path, tmp_path: Path) -> None:
    """A writer that cannot read has its own domain."""
    snapvault.add_key(repo, "writer", "w", file=tmp_path / "w")
    writer = snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / "w"), state=tmp_path / "state")
    mine = save(repo, source).snapshot
    theirs = save(writer, source, dataset="w").snapshot
    bad = {damage(repo, str(source / "02"), snapshot=sid) for sid in (mine, theirs)}
    assert len(bad) == 2
    result = repair(repo)
    assert (result.status, result.packs_salvaged, result.snapshots_marked) == ("partial", 2, 2)
    save(again(repo), source)
    assert {p.snapshot for p in check(repo).lost} == {theirs}
    writer = snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / "w"), state=tmp_path / "state")
    save(writer, source, dataset="w")
    assert repair(repo).status == "ok"


def test_what_a_removed_writer_alone_named(repo: Repository, source: Path, tmp_path: Path) -> None:
    """Its index object counts no more, and may be right: a prune does not take what it names as lost, and says why."""
    snapvault.add_key(repo, "writer", "w", file=tmp_path / "w")
    with snapvault.open(repo.url, keys=(tmp_path / "w").read_bytes) as writer:
        sid = save(writer, source).snapshot
    for name in some(repo, names.PACKS):
        Path(repo.url, name).unlink()
    snapvault.remove_key(again(repo), "w")
    assert repair(repo).snapshots_marked == 1
    result = snapvault.plan_prune(again(repo)).execute(wait=NOW, lease=NOW)
    (problem,) = result.problems
    assert result.status == "damaged" and f"snapvault forget --undelete-window 0h {sid}" in problem
    snapvault.forget_snapshots(again(repo), [sid], undelete_window=NOW)
    assert snapvault.plan_prune(again(repo)).execute(wait=NOW, lease=NOW).status == "ok"
