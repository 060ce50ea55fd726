"""Sessions: the rules W1 to W5 as seen in the store, revocation, and what GC records mean to writers."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from blake3 import blake3

import snapvault
from snapvault.backend.factory import open_backend
from snapvault.backend.protocol import Buffer, Exists
from snapvault.backend.trace import TraceBackend
from snapvault.backend.wrapper import Wrapper
from snapvault.format import names
from snapvault.format.local import GcRecord
from snapvault.format.session import GC
from snapvault.format.wire import Kind, frame
from snapvault.foundation.ids import PackId, SessionId
from snapvault.operations.run import Run
from snapvault.repository.session import Session, revoke
from snapvault.repository.trust import sign


@pytest.fixture
def repo(tmp_path: Path) -> snapvault.Repository:
    return snapvault.init(str(tmp_path / "repo"), password="x").repository


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(os.urandom(300_000))
    return tmp_path / "source"


def test_the_order_of_a_backup(repo: snapvault.Repository, source: Path) -> None:
    vault = repo.vault
    trace = TraceBackend(vault.store.backend, record=True)
    vault.store.backend = trace
    snapvault.backup(repo, source, dataset="d")
    puts = [c.name.split("/")[0] for c in trace.log if c.method.startswith("put")]
    assert puts == ["sessions", "packs", "index", "snapshots"]
    order = [(c.method, c.name) for c in trace.log]
    announced = next(i for i, (m, n) in enumerate(order) if n.startswith(names.SESSIONS))
    lists = [n for m, n in order[announced:] if m == "list"]
    wanted = [names.GC, names.SNAPSHOTS + names.GC_PREFIX, names.PACKS, names.INDEX]
    assert [n for n in lists if n in wanted] == wanted


def test_a_revoked_session_cannot_commit(repo: snapvault.Repository, source: Path) -> None:
    with pytest.raises(snapvault.Conflict, match="revoked"), repo.writer("d") as writer:
        writer.add(source)
        session = writer._run.session
        assert session is not None
        revoke(repo.vault.store, repo.vault.ring, session.sid)
    assert list(repo.snapshots()) == []
    assert snapvault.check(repo).status == "ok"
    again = snapvault.backup(repo, source, dataset="d")
    assert again.status == "ok"


def test_packs_that_a_gc_condemns_are_not_deduplicated_onto(repo: snapvault.Repository, source: Path) -> None:
    snapvault.backup(repo, source, dataset="d")
    vault = repo.vault
    packs = list(vault.loader.packs_present())
    session = Session(vault.store, vault.ring, vault.ring.write_domain, purpose=GC, sid=SessionId("gc" + "0" * 32))
    vault.backend.put_if_absent(names.session(session.sid), [session.header])
    keys = vault.ring.signing
    record = GcRecord(vault.ring.config_digest, session.sid, tuple(PackId(p) for p in packs))
    vault.backend.put_if_absent(names.GC + session.sid, [sign(Kind.GC, record.encode(), keys.id, keys.signer)])
    second = snapvault.backup(repo, source, dataset="d", force_read=True)
    assert second.bytes_new > 300_000
    third = snapvault.backup(repo, source, dataset="d", force_read=True)
    assert third.bytes_new == 0


def test_heads_and_numbers_form_a_dag(repo: snapvault.Repository, source: Path) -> None:
    """Two runs of one writer at once see the same head; the next run sees both."""
    first = snapvault.backup(repo, source, dataset="d")
    with repo.writer("a") as a, repo.writer("b") as b:
        a.add(source)
        b.add(source)
    assert a.result is not None
    assert b.result is not None
    last = snapvault.backup(repo, source, dataset="d")
    slots, problems = repo.vault.history.slots()
    by_id = {s.record.sid: s.record for s in slots}
    assert not problems
    assert by_id[SessionId(first.snapshot)].number == 1
    for parallel in (a.result, b.result):
        record = by_id[SessionId(parallel.snapshot)]
        assert record.number == 2
        assert [p for p, _ in record.prevs] == [first.snapshot]
    record = by_id[SessionId(last.snapshot)]
    assert record.number == 3
    assert {p for p, _ in record.prevs} == {a.result.snapshot, b.result.snapshot}


def test_a_run_that_fails_leaves_an_abort_and_no_snapshot(repo: snapvault.Repository, source: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), Run(repo.vault, "backup", None) as run:
        run.blobs.put(0, b"data")
        raise RuntimeError("stop")
    assert list(repo.snapshots()) == []
    slots, _ = repo.vault.history.slots()
    assert [s.record.kind for s in slots] == ["abort"]


def test_a_key_that_is_removed_while_it_backs_up_is_told(
    repo: snapvault.Repository, source: Path, tmp_path: Path
) -> None:
    snapvault.add_key(repo, "writer", "w", file=tmp_path / "w.key")
    client = snapvault.open(str(tmp_path / "repo"), keys=snapvault.KeyFile(tmp_path / "w.key"))
    before = snapvault.backup(client, source, dataset="w")
    with pytest.raises(snapvault.SnapvaultError) as caught, client.writer("w") as writer:
        writer.add(source)
        snapvault.remove_key(repo, "w")
    assert caught.value.code in ("conflict", "key-rejected")
    assert [s.id for s in repo.snapshots()] == [before.snapshot]
    with pytest.raises(snapvault.KeyRejected):
        snapvault.backup(client, source, dataset="w")
    with pytest.raises(snapvault.KeyRejected):
        snapvault.open(str(tmp_path / "repo"), keys=snapvault.KeyFile(tmp_path / "w.key"))
    assert snapvault.check(repo, read_data=True).status == "ok"


def test_an_interrupted_init_is_taken_up(tmp_path: Path) -> None:
    snapvault.init(str(tmp_path / "r"), password="x").repository.close()
    (tmp_path / "r" / "keyset" / "1").unlink()
    with pytest.raises(snapvault.RepositoryNotFound):
        snapvault.open(str(tmp_path / "r"), password="x")
    with pytest.raises(snapvault.KeyRejected, match="unfinished"):
        snapvault.init(str(tmp_path / "r"), password="y")
    config = (tmp_path / "r" / "config").read_bytes()
    with snapvault.init(str(tmp_path / "r"), password="x").repository as repo:
        assert (tmp_path / "r" / "config").read_bytes() == config
        assert snapvault.check(repo).status == "ok"


def test_a_place_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "letter.txt").write_text("mine")
    with pytest.raises(snapvault.InvalidInput, match=r"letter\.txt"):
        snapvault.init(str(tmp_path / "r"), password="x")
    assert sorted(os.listdir(tmp_path / "r")) == ["letter.txt"]
    backend = open_backend(str(tmp_path / "r"))
    assert [o.name for o in backend.list()] == ["letter.txt"]


class TornOnce(Wrapper):
    """A store whose first put of each pack leaves half of it, as one without atomic puts may; the retry says Exists."""

    torn = 0

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        if name.startswith(names.PACKS):
            whole = b"".join(data)
            self.inner.put(name, [whole[: len(whole) // 2]])
            self.torn += 1
            raise Exists(name)
        self.inner.put_if_absent(name, data)


def test_half_a_pack_under_its_name_is_not_taken_for_the_whole(repo: snapvault.Repository, source: Path) -> None:
    store = TornOnce(repo.vault.store.backend)
    repo.vault.store.backend = store
    snapvault.backup(repo, source, dataset="d")
    assert store.torn
    assert snapvault.check(repo, read_data=True).status == "ok"


def test_a_newer_object_in_the_store_stops_nobody(repo: snapvault.Repository, source: Path, tmp_path: Path) -> None:
    """Only the config says what a repository is: anybody with a writer's key can add an object."""
    snapvault.backup(repo, source, dataset="d")
    for kind, folder in ((Kind.INDEX, names.INDEX), (Kind.SNAPSHOT, names.SNAPSHOTS), (Kind.SESSION, names.SESSIONS)):
        body = frame(kind, [b"later"])[:-32]
        body = body[:5] + b"\2" + body[6:]
        data = body + blake3(body).digest()
        name = folder + (blake3(data).hexdigest() if folder == names.INDEX else "f" * 32)
        repo.vault.backend.put(name, [data])
    again = snapvault.open(repo.url, password="x")
    assert snapvault.restore(again, "d@latest", tmp_path / "out").status == "ok"
    assert snapvault.backup(again, source, dataset="d").snapshot
    assert snapvault.check(again).status == "damaged"
