"""Prune removes what no snapshot needs, and nothing else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import snapvault
from snapvault import Repository
from snapvault.chunking import Chunking
from snapvault.format import names
from snapvault.foundation.errors import Damaged, RoleRequired
from snapvault.foundation.ids import SessionId
from snapvault.operations import prune as prune_module
from snapvault.operations import running
from snapvault.operations.collect import GarbageCollection
from snapvault.operations.pending import Pending
from snapvault.operations.prune import LEASE, PruneLimits, PruneResult, plan_prune
from snapvault.operations.reclaim import NOTHING
from snapvault.repository.session import revoke
from tests.repos import again, back, contents, damage, make, objects, open_session, save, small_packs

NOW = timedelta(0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Packs of few segments of few files."""
    small_packs(monkeypatch)
    return make(tmp_path / "repo", chunking=Chunking(64, 128, 256))


def fill(source: Path, number: int, *, files: range = range(40)) -> None:
    """Contents that nothing else has."""
    for i in files:
        (source / f"{i:02}").write_bytes(b"".join(b"%d.%d.%d;" % (number, i, k) for k in range(200)))


def prune(repo: Repository, limits: PruneLimits | None = None, **options: timedelta) -> PruneResult:
    return plan_prune(again(repo), limits=limits).execute(**{"wait": NOW, **options})


def forget(repo: Repository, *snapshots: str) -> None:
    snapvault.forget_snapshots(again(repo), snapshots, undelete_window=NOW)


def all_whole(repo: Repository, expected: dict[str, dict[str, bytes | str]], source: Path, tmp_path: Path) -> None:
    assert {s.id for s in again(repo).snapshots()} == set(expected)
    for sid, tree in expected.items():
        assert contents(back(again(repo), tmp_path / f"out-{sid}", source, sid)) == tree
    report = snapvault.check(again(repo), read_data=True)
    assert report.status == "ok", report.findings


def packs(repo: Repository) -> dict[str, int]:
    return {n: size for n, size in objects(repo).items() if n.startswith(names.PACKS)}


def with_garbage(repo: Repository, source: Path) -> dict[str, dict[str, bytes | str]]:
    """Two snapshots with nothing in common, of which the first is forgotten: what the other one holds."""
    fill(source, 0)
    first = save(repo, source).snapshot
    fill(source, 1)
    kept = {save(repo, source).snapshot: contents(source)}
    forget(repo, first)
    return kept


def test_what_nobody_needs_goes(repo: Repository, source: Path, tmp_path: Path) -> None:
    expected = {}
    for number in range(3):
        fill(source, number)
        expected[save(repo, source).snapshot] = contents(source)
    before = packs(repo)
    assert prune(repo, PruneLimits(unused=1.0)).packs_removed == 0 and packs(repo) == before
    first, second, third = expected
    forget(repo, first, second)
    plan = plan_prune(again(repo), limits=PruneLimits(unused=1.0))
    assert plan.bytes_unused > 0.3 * sum(before.values()) and plan.bytes_rewritten == 0
    result = plan.execute(wait=NOW)
    assert result.status == "ok" and result.bytes_copied == 0
    assert result.bytes_freed == plan.bytes_freed == sum(before.values()) - sum(packs(repo).values())
    all_whole(repo, {third: expected[third]}, source, tmp_path)
    assert prune(repo, PruneLimits(unused=1.0)).packs_removed == 0
    fill(source, 0)  # what was removed is stored again
    expected[save(again(repo), source).snapshot] = contents(source)
    all_whole(repo, dict(list(expected.items())[2:]), source, tmp_path)


def test_what_lies_beside_what_goes_is_copied(repo: Repository, source: Path, tmp_path: Path) -> None:
    """Every other file is shared, so that no pack is dead."""
    fill(source, 0)
    first = save(repo, source).snapshot
    fill(source, 1, files=range(0, 40, 2))
    second = save(repo, source).snapshot
    expected = {second: contents(source)}
    forget(repo, first)
    assert plan_prune(again(repo), limits=PruneLimits(unused=1.0)).bytes_rewritten == 0
    before = sum(packs(repo).values())
    plan = plan_prune(again(repo), limits=PruneLimits(unused=0.0))
    assert plan.bytes_rewritten > 0
    result = plan.execute(wait=NOW)
    assert result.bytes_copied > 0 and result.bytes_freed == before - sum(packs(repo).values()) > 0.2 * before
    all_whole(repo, expected, source, tmp_path)
    assert plan_prune(again(repo), limits=PruneLimits(unused=0.02)).bytes_rewritten == 0
    limited = plan_prune(again(repo), limits=PruneLimits(unused=0.0, rewrite=1))
    assert limited.bytes_rewritten == 0


def test_the_undelete_window(repo: Repository, source: Path, tmp_path: Path) -> None:
    fill(source, 0)
    first = save(repo, source).snapshot
    tree = contents(source)
    fill(source, 1)
    save(repo, source)
    snapvault.forget_snapshots(again(repo), [first])
    plan = plan_prune(again(repo))
    assert plan.bytes_freed == 0 and plan.bytes_waiting > 0
    assert plan.execute(wait=NOW).bytes_removed == 0
    brought = snapvault.undelete(again(repo), first).snapshot
    assert contents(back(again(repo), tmp_path / "out", source, brought)) == tree


def test_a_writer_that_has_not_ended_is_waited_for(repo: Repository, source: Path) -> None:
    fill(source, 0)
    first = save(repo, source).snapshot
    forget(repo, first)
    session, before = open_session(repo), objects(repo)
    result = prune(repo)
    assert result.waits_for == (session.sid,) and result.status == "partial" and result.packs_removed == 0
    assert {n for n in objects(repo) if not n.startswith((names.SNAPSHOTS, names.SESSIONS))} == {
        n for n in before if not n.startswith((names.SNAPSHOTS, names.SESSIONS))
    }
    session.abort()
    assert prune(repo).packs_removed > 0 and not packs(repo)


def test_a_writer_without_a_sign_of_life_is_revoked(repo: Repository, source: Path) -> None:
    fill(source, 0)
    forget(repo, save(repo, source).snapshot)
    session = open_session(repo)
    assert prune(repo, lease=timedelta(hours=1)).waits_for
    assert prune(repo, lease=NOW).packs_removed > 0
    with pytest.raises(snapvault.Conflict):
        session._fill("commit", b"")


def test_packs_of_a_run_that_was_killed(repo: Repository, source: Path, tmp_path: Path) -> None:
    """In no index, and their session's slot filled: garbage.  Not filled: left alone."""
    fill(source, 0)
    kept = {save(repo, source).snapshot: contents(source)}
    before = set(objects(repo))
    fill(source, 1)
    save(repo, source)
    for name in set(objects(repo)) - before:
        if name.startswith((names.INDEX, names.SNAPSHOTS)):
            repo.vault.backend.delete(name)
    there = packs(repo)
    whole = PruneLimits(unused=1.0)
    assert prune(repo, whole).packs_removed == 0 and packs(repo) == there  # the lease holds
    assert prune(repo, whole, lease=NOW).packs_removed > 0 and set(packs(repo)) < set(there)
    all_whole(repo, kept, source, tmp_path)


def test_what_cannot_be_read_stops_it(repo: Repository, source: Path) -> None:
    fill(source, 0)
    first = save(repo, source).snapshot
    fill(source, 1, files=range(0, 40, 2))
    second = save(repo, source).snapshot
    forget(repo, first)
    damage(repo, f"{source}/01", snapshot=second)
    before = packs(repo)
    with pytest.raises(Damaged, match="nothing is removed"):
        prune(repo, PruneLimits(unused=0.0))
    assert before.items() <= packs(repo).items()
    path = Path(repo.url) / names.snapshot(second)  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Damaged, match="nothing is removed"):
        plan_prune(again(repo))


def test_small_index_objects_are_merged(
    repo: Repository, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune_module, "MERGED_FROM", 4)
    expected = {}
    for number in range(5):
        fill(source, number, files=range(number, number + 2))
        expected[save(again(repo), source).snapshot] = contents(source)
    assert len([n for n in objects(repo) if n.startswith(names.INDEX)]) == 5
    assert prune(repo, PruneLimits(unused=1.0)).packs_removed == 0
    assert len([n for n in objects(repo) if n.startswith(names.INDEX)]) == 1
    all_whole(repo, expected, source, tmp_path)


def test_an_interrupted_deletion_is_finished(
    repo: Repository, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = with_garbage(repo, source)
    with monkeypatch.context() as patch:
        patch.setattr(GarbageCollection, "_delete", lambda self, doomed: NOTHING)
        prune(repo)
    left = packs(repo)
    all_whole(repo, kept, source, tmp_path)
    plan = plan_prune(again(repo))
    assert plan.leftovers and not any(d.condemned for d in plan.domains)
    plan.execute(wait=NOW)
    assert len(packs(repo)) < len(left)
    all_whole(repo, kept, source, tmp_path / "again")


def test_no_time_to_rewrite(repo: Repository, source: Path, tmp_path: Path) -> None:
    """What nobody needs goes all the same; what would have to be rewritten stays, and the next prune does it."""
    expected, every = {}, []
    for number in range(3):
        fill(source, number)
        if number == 1:
            fill(source, 0, files=range(0, 40, 5))
        every.append(save(repo, source).snapshot)
        expected[every[-1]] = contents(source)
    forget(repo, every[0], every[1])
    kept = {every[2]: expected[every[2]]}
    fill(source, 0, files=range(0, 40, 5))
    kept[save(again(repo), source).snapshot] = contents(source)
    plan = plan_prune(again(repo), limits=PruneLimits(unused=0.0, time=NOW))
    condemned = sum(len(d.condemned) for d in plan.domains)
    result = plan.execute(wait=NOW)
    assert result.status == "ok" and not result.bytes_copied
    assert result.packs_spared > 0 and result.packs_spared + result.packs_removed == condemned
    all_whole(repo, kept, source, tmp_path)
    assert prune(repo, PruneLimits(unused=0.0)).bytes_copied
    all_whole(repo, kept, source, tmp_path / "then")


def test_an_index_that_names_what_a_prune_removed(repo: Repository, source: Path, tmp_path: Path) -> None:
    """As a writer leaves it that was revoked, and learns it too late: no problem, and the next prune replaces it."""
    fill(source, 0)
    first = save(repo, source).snapshot
    late = next(n for n in objects(repo) if n.startswith(names.INDEX))
    said = repo.vault.backend.get(late)
    fill(source, 1)
    kept = {save(repo, source).snapshot: contents(source)}
    forget(repo, first)
    prune(repo)
    repo.vault.backend.put(late, [said])
    assert {f.harmless for f in snapvault.check(again(repo)).findings} == {True}
    all_whole(repo, kept, source, tmp_path)
    assert prune(again(repo)).packs_removed == 0
    assert late not in objects(repo) and not snapvault.check(again(repo)).findings
    assert not any(d.merged for d in plan_prune(again(repo)).domains)
    all_whole(repo, kept, source, tmp_path / "again")


@pytest.mark.parametrize("role", ["reader", "writer"])
def test_who_may(repo: Repository, tmp_path: Path, role: str) -> None:
    snapvault.add_key(repo, role, role, file=tmp_path / role)
    with pytest.raises(RoleRequired):
        plan_prune(snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / role)))


def test_backups_one_after_another_do_not_starve_it(repo: Repository, source: Path, tmp_path: Path) -> None:
    """There is always one; but those that begin after the prune did need not end for the next run to go on."""
    state = {"state": tmp_path / "state"}
    kept = with_garbage(repo, source)
    one = open_session(repo)
    waiting = plan_prune(again(repo, **state)).execute(wait=NOW)
    assert waiting.status == "partial" and waiting.waits_for == (one.sid,)
    two = open_session(repo)
    one.abort()
    before = packs(repo)
    done = plan_prune(again(repo, **state)).execute(wait=NOW)
    assert done.packs_removed == len(before.keys() - packs(repo).keys()) > 0
    two.abort()
    all_whole(repo, kept, source, tmp_path)
    assert not [n for n in objects(repo) if n.startswith(names.GC)]


def test_what_waits_is_taken_up_once(repo: Repository, source: Path, tmp_path: Path) -> None:
    """Of two that begin at the same moment, one goes on with it; the other one must not give up what that one puts."""
    fill(source, 0)
    first = save(repo, source).snapshot
    fill(source, 1)
    save(repo, source)
    forget(repo, first)
    open_session(repo)
    vault = again(repo, state=tmp_path / "state").vault
    assert plan_prune(again(repo, state=tmp_path / "state")).execute(wait=NOW).waits_for
    (domain,) = vault.ring.domains.values()
    assert Pending(vault, domain).take_up() is not None
    assert Pending(vault, domain).take_up() is None


def test_what_waits_and_was_revoked_begins_anew(repo: Repository, source: Path, tmp_path: Path) -> None:
    """By another maintainer, who could not know whether it lives."""
    state = {"state": tmp_path / "state"}
    kept = with_garbage(repo, source)
    one = open_session(repo)
    assert plan_prune(again(repo, **state)).execute(wait=NOW).waits_for
    (record,) = [n for n in objects(repo) if n.startswith(names.GC)]
    vault = again(repo).vault
    revoke(vault.store, vault.ring, SessionId(record.removeprefix(names.GC)))
    assert plan_prune(again(repo, **state)).execute(wait=NOW).waits_for == (one.sid,)
    one.abort()
    assert plan_prune(again(repo, **state)).execute(wait=NOW).packs_removed
    all_whole(repo, kept, source, tmp_path)


def test_a_repair_ends_what_waits(repo: Repository, source: Path, tmp_path: Path) -> None:
    """It condemns other packs, and would wait for it; also in a domain in which it has nothing to do."""
    state = {"state": tmp_path / "state"}
    snapvault.add_key(repo, "writer", "w", file=tmp_path / "w")
    fill(source, 0)
    first = save(repo, source).snapshot
    other = snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / "w"), state=tmp_path / "other")
    second = save(other, source, dataset="w").snapshot
    fill(source, 1)
    kept = {save(repo, source).snapshot: contents(source)}
    forget(repo, first, second)
    one = open_session(repo)
    assert plan_prune(again(repo, **state)).execute(wait=NOW).waits_for
    one.abort()
    for name in [n for n in objects(repo) if n.startswith(names.INDEX)]:
        Path(repo.url, name).unlink()
    assert snapvault.plan_repair(again(repo, **state)).execute(wait=NOW).status == "ok"
    all_whole(repo, kept, source, tmp_path)
    assert plan_prune(again(repo, **state)).execute(wait=NOW).packs_removed
    all_whole(repo, kept, source, tmp_path / "then")


# -- a prune that died ----------------------------------------------------------------------------------------------

PRUNE = """
import sys
from datetime import timedelta
import snapvault
from tests.repos import SEED
url, state = sys.argv[1:]
with snapvault.open(url, keys=lambda: SEED, state=state) as repo:
    snapvault.plan_prune(repo).execute(wait=timedelta(minutes=5))
"""


def begin_prune(repo: Repository, state: Path) -> subprocess.Popen[bytes]:
    """A prune in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, "-c", PRUNE, repo.url, str(state)], env=env)


@contextmanager
def pruning(repo: Repository, state: Path) -> Iterator[tuple[subprocess.Popen[bytes], SessionId]]:
    """A prune in a process of its own, which waits for a session that is open; and its id."""
    before = {n for n in objects(repo) if n.startswith(names.GC)}
    with begin_prune(repo, state) as process:
        try:
            end = time.monotonic() + 60
            while not (found := {n for n in objects(repo) if n.startswith(names.GC)} - before):
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.05)
            yield process, SessionId(found.pop().removeprefix(names.GC))
        finally:
            process.kill()


def slot(repo: Repository, sid: SessionId) -> str:
    """What fills the slot of a session."""
    found = [s.record.kind for s in again(repo).vault.history.all_slots() if s.record.sid == sid]
    return found[0] if found else ""


def killed(repo: Repository, state: Path) -> SessionId:
    """The id of a prune that was killed after it announced itself, before it deleted anything."""
    one = open_session(repo)
    with pruning(repo, state) as (process, sid):
        process.kill()
        process.wait()
    one.abort()
    assert slot(repo, sid) == ""
    return sid


def test_the_next_run_goes_on_after_a_kill(repo: Repository, source: Path, tmp_path: Path) -> None:
    kept = with_garbage(repo, source)
    state = tmp_path / "state"
    sid = killed(repo, state)
    result = plan_prune(again(repo, state=state)).execute(wait=NOW)
    assert result.status == "ok" and result.packs_removed > 0 and slot(repo, sid) == "revoked"
    assert not [n for n in objects(repo) if n.startswith(names.GC)] and not list(state.rglob("running-*"))
    all_whole(repo, kept, source, tmp_path)


def test_the_next_run_goes_on_after_a_kill_of_one_that_went_on(repo: Repository, source: Path, tmp_path: Path) -> None:
    """The killed one had taken up what an earlier run had left open."""
    kept = with_garbage(repo, source)
    state = tmp_path / "state"
    one = open_session(repo)
    assert plan_prune(again(repo, state=state)).execute(wait=NOW).waits_for
    (waiting,) = state.rglob("gc-*.json")
    assert not list(state.rglob("running-*"))
    with begin_prune(repo, state) as process:
        end = time.monotonic() + 60
        while waiting.exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        process.kill()
    one.abort()
    assert plan_prune(again(repo, state=state)).execute(wait=NOW).packs_removed > 0
    all_whole(repo, kept, source, tmp_path)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
def test_one_that_lives_is_left_alone(
    repo: Repository, source: Path, tmp_path: Path, stopped: bool, exclusive: bool
) -> None:
    """Also if it is stopped; and if somebody says that nothing else runs."""
    with_garbage(repo, source)
    state = tmp_path / "state"
    one = open_session(repo)
    with pruning(repo, state) as (process, sid):
        if stopped:
            process.send_signal(signal.SIGSTOP)
        before = packs(repo)
        result = plan_prune(again(repo, state=state), exclusive=exclusive).execute(wait=NOW)
        assert sid in result.waits_for and packs(repo) == before
        assert process.poll() is None and slot(repo, sid) == "" and slot(repo, one.sid) == ""
    one.abort()
    assert plan_prune(again(repo, state=state)).execute(wait=NOW).packs_removed > 0


def test_another_machine_waits_for_it(
    repo: Repository, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which shares the state directory, or has one of its own: it cannot tell."""
    with_garbage(repo, source)
    state = tmp_path / "state"
    sid = killed(repo, state)
    assert plan_prune(again(repo)).execute(wait=NOW).waits_for == (sid,)
    assert plan_prune(again(repo, state=tmp_path / "other")).execute(wait=NOW).waits_for == (sid,)
    with monkeypatch.context() as patch:
        patch.setattr(running, "this_host", lambda: {"boot": "other", "machine": "other"})
        assert plan_prune(again(repo, state=state)).execute(wait=NOW).waits_for  # for it, or for who waits for it
    assert slot(repo, sid) == ""


def test_another_key_waits_for_it(repo: Repository, source: Path, tmp_path: Path) -> None:
    with_garbage(repo, source)
    state = tmp_path / "state"
    snapvault.add_key(repo, "maintainer", "m", file=tmp_path / "m")
    sid = killed(repo, state)
    other = snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / "m"), state=state)
    assert plan_prune(other).execute(wait=NOW).waits_for == (sid,)
    assert plan_prune(again(repo, state=state)).execute(wait=NOW).status == "ok" and slot(repo, sid) == "revoked"


def test_where_put_if_absent_is_in_doubt(
    repo: Repository, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the dead process had sent last might take the place of the revocation."""
    with_garbage(repo, source)
    state = tmp_path / "state"
    sid = killed(repo, state)
    monkeypatch.setattr(prune_module, "_is_safe", lambda vault: False)
    assert plan_prune(again(repo, state=state), exclusive=True).execute(wait=NOW).waits_for == (sid,)
    monkeypatch.setattr(prune_module, "HEARTBEAT_SECONDS", 0)
    assert plan_prune(again(repo, state=state), exclusive=True).execute(wait=NOW).packs_removed > 0
    assert plan_prune(again(repo, state=state), exclusive=True).execute(wait=NOW).status == "ok"
    assert not list(state.rglob("running-*"))


def test_nothing_else_uses_it(repo: Repository, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What did not end is dead then; where put-if-absent is in doubt, only once it gave no sign of life for a while."""
    kept = with_garbage(repo, source)
    one = open_session(repo)
    with monkeypatch.context() as patch:
        patch.setattr(prune_module, "_is_safe", lambda vault: False)
        state = {"state": tmp_path / "state"}
        assert plan_prune(again(repo, **state), exclusive=True).execute(wait=NOW).waits_for == (one.sid,)
        patch.setattr(prune_module, "HEARTBEAT_SECONDS", 0)
        assert plan_prune(again(repo, **state), exclusive=True).execute(wait=NOW).packs_removed > 0
    assert slot(repo, one.sid) == "revoked"
    assert not one.abort()
    fill(source, 2)
    forget(repo, *kept)
    two = open_session(repo)
    assert plan_prune(again(repo), exclusive=True).execute(wait=NOW).packs_removed > 0
    assert slot(repo, two.sid) == "revoked" and not packs(repo)


def test_until_when_it_waits(repo: Repository, source: Path, tmp_path: Path) -> None:
    """Known where it is remembered since when there was no sign of life."""
    with_garbage(repo, source)
    state = tmp_path / "state"
    open_session(repo)
    assert plan_prune(again(repo)).execute(wait=NOW).waits_until is None
    began = datetime.now(UTC)
    first = plan_prune(again(repo, state=state)).execute(wait=NOW).waits_until
    assert first is not None and began <= first - LEASE <= datetime.now(UTC)
    result = plan_prune(again(repo, state=state)).execute(wait=NOW)
    assert result.waits_until == first and result.to_dict()["waits_until"] == first.isoformat()
