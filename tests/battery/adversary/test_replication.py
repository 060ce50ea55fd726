"""Whoever may merely write at the source, or holds the copy, takes nothing away from anybody (family 8)."""

import os
import shutil
import threading
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3

import snapvault
from snapvault import BackupResult, KeyFile, ReplicaResult, Repository, Site
from snapvault.backend.local import LocalBackend
from snapvault.chunking import Chunking
from snapvault.format import names
from snapvault.format.local import ReplicaRecord
from snapvault.format.wire import DIGEST_SIZE, Kind, frame
from snapvault.foundation.clock import SKEW, nanoseconds
from snapvault.foundation.ids import PackId, SessionId
from snapvault.operations import attest as attest_module
from snapvault.operations import replicate as module
from snapvault.operations.prune import PruneLimits, plan_prune
from snapvault.operations.run import Run
from snapvault.operations.sites import site_states
from snapvault.repository.index import PackRow
from snapvault.repository.session import Session, encode_index
from tests.repos import SEED, again, back, contents, flipped, make, save, small_packs

NOW = timedelta(0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def repo(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    small_packs(monkeypatch)
    made = make(tmp_path / "repo", chunking=Chunking(64, 128, 256))
    fill(source, 0)
    save(made, source)
    snapvault.add_key(again(made), "writer", "w", file=tmp_path / "w.key")
    return made


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return tmp_path / "second"


def at(place: Path | str) -> Repository:
    return snapvault.open(place, keys=lambda: SEED)


def fill(source: Path, number: int) -> None:
    for i in range(20):
        (source / f"{i:02}").write_bytes(Random(1000 * number + i).randbytes(3000))


def put(place: Path | str, name: str, data: bytes) -> None:
    LocalBackend(place).put(name, [data])


def packs(place: Path | str) -> dict[str, int]:
    return {o.name: o.size for o in LocalBackend(place).list(names.PACKS)}


def bring(repo: Repository, second: Path) -> ReplicaResult:
    return snapvault.replicate(repo.url, str(second))


def is_whole(place: Path, source: Path, tmp_path: Path, snapshot: str = "latest") -> None:
    out = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    assert contents(back(at(place), out, source, snapshot)) == contents(source)


def forged_index(repo: Repository, tmp_path: Path, rows: list[tuple[PackId, int]]) -> str:
    """The writer says that these packs are of its own session."""
    with snapvault.open(repo.url, keys=KeyFile(tmp_path / "w.key")) as opened:
        vault, domain = opened.vault, opened.vault.ring.write_domain
        session = Session(vault.store, vault.ring, domain)
        session.announce()
        listed = [(PackRow(pack, size, session.sid, domain.id), []) for pack, size in rows]
        name, data = encode_index(vault.ring, domain, session.sid, listed)
        vault.backend.put_if_absent(name, [data])
        session.abort()
        return name


# -- at the source -----------------------------------------------------------------------------------------------------


def test_a_forged_mark_switches_no_fence_off(repo: Repository, source: Path, tmp_path: Path) -> None:
    """A backup that relies on what a prune condemned: the prune waits for it, whatever this place is said to be."""
    first = next(repo.snapshots()).id
    fill(source, 1)
    save(again(repo), source)
    snapvault.forget_snapshots(again(repo), [first], undelete_window=NOW)
    fill(source, 0)
    ready, go, results = threading.Event(), threading.Event(), list[BackupResult]()
    acknowledge = Run.acknowledge

    def slow(self: Run, details: object) -> str:
        ready.set()
        go.wait(60)
        return acknowledge(self, details)  # type: ignore[arg-type]

    def prune() -> snapvault.PruneResult:
        opened = snapvault.open(repo.url, keys=lambda: SEED, state=tmp_path / "state")
        return plan_prune(opened, limits=PruneLimits(0)).execute(wait=NOW)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "acknowledge", slow)
        victim = threading.Thread(target=lambda: results.append(save(again(repo), source)))
        victim.start()
        assert ready.wait(60)
        try:
            assert prune().waits_for
            mark = ReplicaRecord(bytes.fromhex(repo.vault.id), 1, ())
            put(repo.url, names.REPLICA_MARK, mark.encode())
            with pytest.raises(snapvault.Conflict, match="became a copy"):
                prune()
        finally:
            go.set()
            victim.join()
    is_whole(Path(repo.url), source, tmp_path, results[0].snapshot)


def test_a_garbage_mark_is_cleared_by_a_promotion(repo: Repository, source: Path) -> None:
    put(repo.url, names.REPLICA_MARK, b"garbage")
    with pytest.raises(snapvault.Damaged, match="promote"):
        save(again(repo), source)
    snapvault.promote(again(repo))
    save(again(repo), source)


# -- on the way --------------------------------------------------------------------------------------------------------


def test_a_forged_tombstone_keeps_no_snapshot_away(
    repo: Repository, source: Path, second: Path, tmp_path: Path
) -> None:
    sid = SessionId(next(repo.snapshots()).id)
    put(repo.url, names.tombstone(sid), frame(Kind.TOMBSTONE, [b"x", [], b""]))
    result = bring(repo, second)
    assert result.snapshots == 1 and any("is ignored" in p.message for p in result.problems)
    is_whole(second, source, tmp_path)


def test_packs_that_a_writer_describes_wrongly_come(
    repo: Repository, source: Path, second: Path, tmp_path: Path
) -> None:
    forged_index(repo, tmp_path, [(PackId(bytes.fromhex(n[-64:])), size + 1) for n, size in packs(repo.url).items()])
    bring(repo, second)
    assert packs(second) == packs(repo.url)
    is_whole(second, source, tmp_path)


def test_phantom_packs_stop_nothing(
    repo: Repository, source: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one in each attempt."""
    pull = module._Replication._pull

    def haunted(self: module._Replication, *, last: bool) -> None:
        forged_index(repo, tmp_path, [(PackId(os.urandom(32)), 5000)])
        pull(self, last=last)

    monkeypatch.setattr(module._Replication, "_pull", haunted)
    result = bring(repo, second)
    assert result.status == "damaged" and result.snapshots == 1
    is_whole(second, source, tmp_path)


def test_what_is_missing_is_said_each_time(repo: Repository, second: Path) -> None:
    gone = Path(repo.url, next(iter(packs(repo.url))))
    gone.unlink()
    for _ in range(3):
        result = bring(repo, second)
        assert result.status == "damaged" and any(gone.name in p.message for p in result.problems)
        assert snapvault.attest(at(second), "second").snapshots == ()


@pytest.mark.parametrize("garbage", [False, True])
def test_packs_of_a_damaged_index_object_come(
    repo: Repository, source: Path, second: Path, tmp_path: Path, garbage: bool
) -> None:
    """The source reads them by their own directories, and so does the copy."""
    index = next(p for p in Path(repo.url, "index").iterdir())
    index.write_bytes(b"garbage" if garbage else flipped(index.read_bytes()))
    for _ in range(2):
        assert bring(repo, second).status == "damaged"
    assert packs(second) == packs(repo.url)
    is_whole(second, source, tmp_path)
    assert snapvault.attest(at(second), "second").snapshots == ()


def test_keys_that_are_new_meanwhile(
    repo: Repository, source: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that is sealed to them does not come without them."""
    join = module.join

    def rotated(*args: object) -> None:
        join(*args)  # type: ignore[arg-type]
        snapvault.rotate(again(repo))
        save(again(repo), source, dataset="new")

    monkeypatch.setattr(module, "join", rotated)
    assert bring(repo, second).snapshots == 2
    is_whole(second, source, tmp_path, "new@latest")


@pytest.mark.parametrize(
    "name", ["keyset/99", "keyset/junk", "slots/x/y", "RESCUE-1.md.x", "snapshots/junk", "sessions/junk", "notes/x/y"]
)
def test_junk_stops_nothing(repo: Repository, source: Path, second: Path, tmp_path: Path, name: str) -> None:
    put(repo.url, name, frame(Kind.KEYSET, [b"x", [], b""]))
    for _ in range(2):
        bring(repo, second)
    is_whole(second, source, tmp_path)
    os.remove(Path(repo.url, name))
    assert bring(repo, second).status == "ok"
    if name.startswith(names.KEYSETS):
        assert name not in {o.name for o in LocalBackend(second).list(names.KEYSETS)}


@pytest.mark.parametrize("prefix", [names.CONFIG, names.KEYSETS, names.SESSIONS, names.SNAPSHOTS])
def test_what_nobody_signed_does_not_come(
    repo: Repository, source: Path, second: Path, tmp_path: Path, prefix: str
) -> None:
    """Though its digest is right; else the true object could not come any more, once it is back."""
    if prefix in (names.SESSIONS, names.SNAPSHOTS):
        bring(repo, second)
    fill(source, 1)
    save(again(repo), source)
    kept = {f: f.read_bytes() for f in Path(repo.url).rglob("*") if f.is_file()}
    for path in kept:
        name = str(path.relative_to(repo.url))
        if name.startswith(prefix) and not (second / name).exists():
            body = bytearray(kept[path][:-DIGEST_SIZE])
            body[len(body) // 2] ^= 1
            path.write_bytes(bytes(body) + blake3(body).digest())
    if prefix in (names.CONFIG, names.KEYSETS):
        with pytest.raises(snapvault.Damaged):
            bring(repo, second)
    else:
        result = bring(repo, second)
        assert result.status == "damaged" and result.snapshots == (prefix != names.SNAPSHOTS)
        assert any("at the source, or forged" in p.message for p in result.problems)
    for path, data in kept.items():
        path.write_bytes(data)
    assert bring(repo, second).status == "ok"
    is_whole(second, source, tmp_path)


@pytest.mark.parametrize("spelling", ["link", "dots", "file"])
def test_one_place_under_two_names(repo: Repository, source: Path, tmp_path: Path, spelling: str) -> None:
    (tmp_path / "link").symlink_to(repo.url)
    other = {"link": str(tmp_path / "link"), "dots": f"{repo.url}/../repo", "file": f"file://{repo.url}"}[spelling]
    with pytest.raises(snapvault.InvalidInput, match="onto itself"):
        snapvault.replicate(repo.url, other)
    save(again(repo), source)


def test_one_place_inside_the_other(repo: Repository, source: Path, tmp_path: Path) -> None:
    with pytest.raises(snapvault.InvalidInput, match="inside one another"):
        snapvault.replicate(repo.url, f"{repo.url}/copy")
    save(again(repo), source)


def test_two_first_replications_at_once(
    repo: Repository, source: Path, second: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them looks whether the place is in use while the other one has brought sessions already."""
    from snapvault.operations import joining

    refuse, looks = joining._refuse_busy, list[int]()

    def look(a: LocalBackend, b: LocalBackend) -> None:
        looks.append(0)
        if len(looks) == 2:  # of the outer one, after its mark
            assert bring(repo, second).status == "ok"
        refuse(a, b)

    monkeypatch.setattr(joining, "_refuse_busy", look)
    assert bring(repo, second).status == "ok"
    assert at(second).vault.standing().replica
    is_whole(second, source, tmp_path)


# -- attestations ------------------------------------------------------------------------------------------------------


def test_a_writer_is_no_witness(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with snapvault.open(repo.url, keys=KeyFile(tmp_path / "w.key")) as writer:
        with pytest.raises(snapvault.RoleRequired):
            snapvault.attest(writer, "second")
        monkeypatch.setattr(attest_module, "SIGNERS", ("writer",))
        monkeypatch.setattr(attest_module, "may_say", lambda *_: True)
        snapvault.attest(writer, "second")
        monkeypatch.undo()
    (state,) = site_states(again(repo), ["second"])
    assert state.newest is None and state.unanswered == 1


def test_a_site_speaks_for_itself_alone_and_not_from_the_future(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapvault.add_key(again(repo), "site", "third", file=tmp_path / "site.key")
    with snapvault.open(repo.url, keys=KeyFile(tmp_path / "site.key")) as site:
        with pytest.raises(snapvault.InvalidInput, match="its own name"):
            snapvault.attest(site, "second")
        real = attest_module.now_ns
        monkeypatch.setattr(attest_module, "now_ns", lambda: real() + 3 * nanoseconds(SKEW))
        snapvault.attest(site, "third")
        monkeypatch.undo()
    assert snapvault.attestations(again(repo)) == []


def test_rot_is_not_forgotten_because_it_is_listed(repo: Repository, second: Path) -> None:
    bring(repo, second)
    pack = second / next(iter(packs(second)))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    assert snapvault.attest(at(second), "second", read=True).bad == 1
    bring(repo, second)
    found = snapvault.attest(at(second), "second")
    assert (found.bad, found.snapshots) == (1, ())
    snapvault.exchange_attestations(Site(repo.url), Site(str(second)))
    (state,) = site_states(again(repo), ["second"])
    assert (state.snapshots, state.hashed) == (0, None)
    assert snapvault.heal(Site(str(second)), Site(repo.url)).status == "ok"
    assert len(snapvault.attest(at(second), "second", read=True).snapshots) == 1


def test_what_a_signer_deleted_does_not_come_back(
    repo: Repository, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attest_module, "KEPT", 3)
    bring(repo, second)
    for _ in range(8):
        snapvault.attest(at(second), "second")
        snapvault.exchange_attestations(Site(repo.url), Site(str(second)))
    assert len(list(LocalBackend(second).list(names.ATTESTATIONS))) <= 4
    assert len(list(LocalBackend(repo.url).list(names.ATTESTATIONS))) == 3


def test_what_is_said_of_one_site_drives_out_nothing_of_another(
    repo: Repository, second: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One key signs for all of them; that one was read, and found damaged, is remembered there, and here."""
    monkeypatch.setattr(attest_module, "KEPT", 2)
    third = tmp_path / "third"
    for place in (second, third):
        bring(repo, place)
    pack = second / min(packs(second))
    pack.write_bytes(bytes([pack.read_bytes()[0] ^ 1]) + pack.read_bytes()[1:])
    assert snapvault.attest(at(second), "second", read=True).bad == 1
    for number in range(4):
        fill(source, number)
        save(again(repo), source)
        for site, place in (("third", third), ("second", second)):
            bring(repo, place)
            said = snapvault.attest(at(place), site, read=site == "third" and number == 0)
            snapvault.exchange_attestations(Site(repo.url), Site(str(place)))
        assert said.bad == 1
    kept = snapvault.attestations(again(repo))
    assert [a.level for a in kept if a.site == "second"] == ["present", "present", "hashed"]
    assert [a.level for a in kept if a.site == "third"] == ["present", "present", "hashed"]


def test_a_copy_fills_no_source_with_garbage(repo: Repository, second: Path) -> None:
    bring(repo, second)
    own = repo.vault.ring.signing.id
    put(second, names.attestation(own, 2**60, bytes(8)), frame(Kind.ATTESTATION, [b"x", [], b""]))
    snapvault.exchange_attestations(Site(repo.url), Site(str(second)))
    assert list(LocalBackend(repo.url).list(names.ATTESTATIONS)) == []


def test_a_pull_from_a_place_that_may_only_be_read(
    repo: Repository, second: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(repo, second)
    snapvault.attest(at(second), "second")
    read_only = LocalBackend(repo.url)

    def denied(*_: object) -> None:
        raise snapvault.StoreDenied("read-only")

    monkeypatch.setattr(read_only, "put", denied)
    monkeypatch.setattr(read_only, "put_if_absent", denied)
    assert module._Replication(read_only, LocalBackend(second), None).run().status == "ok"


def test_a_copy_whose_disk_is_not_there(repo: Repository, second: Path) -> None:
    bring(repo, second)
    shutil.rmtree(second)
    with pytest.raises(snapvault.RepositoryNotFound):
        snapvault.replicate(repo.url, str(second), create=False)
    assert not second.exists()
