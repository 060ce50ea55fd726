"""Notes on snapshots: what counts of several, who may write them, and what becomes of those of a removed maintainer."""

from pathlib import Path

import pytest
from blake3 import blake3

import snapvault
from snapvault import Repository, Retention
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import NoteDetails, NoteRecord
from snapvault.format.wire import Kind
from snapvault.foundation.errors import RoleRequired
from snapvault.repository.trust import sign
from tests.repos import again, make, save


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    (tmp_path / "source").mkdir()
    repo = make(tmp_path / "repo")
    for _ in range(3):
        save(repo, tmp_path / "source", tags=["nightly"])
    return repo


def client(repo: Repository, role: str, tmp_path: Path) -> Repository:
    if not (tmp_path / role).exists():
        snapvault.add_key(repo, role, role, file=tmp_path / role)
    return snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / role))


def noted(repo: Repository) -> list[str]:
    return [o.name for o in repo.vault.backend.list(names.NOTES)]


def oldest(repo: Repository) -> snapvault.Snapshot:
    return next(iter(repo.snapshots()))


def test_what_is_said_later_stands(repo: Repository) -> None:
    sid = oldest(repo).id
    snapvault.set_tags(repo, sid, add=["b", "a"], remove=["nightly"])
    snapvault.set_hold(repo, sid)
    assert snapvault.set_tags(repo, sid, add=["c"]).tags == ("a", "b", "c")
    snapvault.set_hold(repo, sid)  # it is already: nothing is written
    assert len(noted(repo)) == 3
    assert (oldest(again(repo)).tags, oldest(again(repo)).held) == (("a", "b", "c"), True)
    snapvault.set_hold(repo, sid, held=False)
    assert (oldest(again(repo)).tags, oldest(again(repo)).held) == (("a", "b", "c"), False)
    assert oldest(repo).to_dict()["held"] is False


def test_two_who_did_not_see_one_another(repo: Repository) -> None:
    """One tags while the other holds: both count."""
    snapshot = oldest(repo)
    before = {o.name: repo.vault.backend.get(o.name) for o in repo.vault.backend.list(names.NOTES)}
    snapvault.set_hold(repo, snapshot.id)
    held = {n: repo.vault.backend.get(n) for n in noted(repo) if n not in before}
    for name in held:
        repo.vault.backend.delete(name)
    snapvault.set_tags(repo, snapshot.id, add=["x"])
    for name, data in held.items():
        repo.vault.backend.put(name, [data])
    found = oldest(again(repo))
    assert found.held and "x" in found.tags


@pytest.mark.parametrize("role", [Role.READER, Role.WRITER])
def test_who_may_write_none(repo: Repository, tmp_path: Path, role: str) -> None:
    other, snapshot = client(repo, role, tmp_path), oldest(repo)
    with pytest.raises(RoleRequired):
        snapvault.set_hold(other, snapshot.id)
    with pytest.raises(RoleRequired):
        snapvault.set_tags(other, snapshot.id, add=["x"])
    # One that it signs all the same says nothing, and is reported.
    record = NoteRecord(repo.vault.ring.config_digest, snapshot.id, 1, (), blake3(b"").digest())
    keys = other.vault.ring.signing
    data = sign(Kind.NOTE, record.encode(), keys.id, keys.signer)
    name = names.note(snapshot.id, blake3(data).digest())
    repo.vault.backend.put(name, [data])
    assert oldest(again(repo)).tags == ("nightly",)
    report = snapvault.check(again(repo))
    assert any(name in f.objects for f in report.findings)


def test_a_note_cannot_be_replaced_by_one_that_does_not_verify(repo: Repository, tmp_path: Path) -> None:
    snapvault.set_hold(repo, oldest(repo).id)
    (held,) = noted(repo)
    writer = client(repo, Role.WRITER, tmp_path)
    keys, digest = writer.vault.ring.signing, bytes.fromhex(held[-64:])
    record = NoteRecord(repo.vault.ring.config_digest, oldest(repo).id, 1, (digest,), blake3(b"").digest())
    data = sign(Kind.NOTE, record.encode(), keys.id, keys.signer)
    repo.vault.backend.put(names.note(oldest(repo).id, blake3(data).digest()), [data])
    assert oldest(again(repo)).held


def test_what_a_maintainer_said_stays_when_it_is_removed(repo: Repository, tmp_path: Path) -> None:
    maintainer = client(repo, Role.MAINTAINER, tmp_path)
    sid = oldest(repo).id
    snapvault.set_hold(maintainer, sid)
    stolen = noted(repo)
    snapvault.remove_key(again(repo), Role.MAINTAINER)
    assert oldest(again(repo)).held
    assert set(noted(repo)) > set(stolen)
    maintainer.vault.notes.add(sid, oldest(repo).slot.holder, NoteDetails(hold=False))  # by the removed key
    assert oldest(again(repo)).held


def test_a_snapshot_with_a_note_that_cannot_be_read_is_kept(repo: Repository) -> None:
    sid = oldest(repo).id
    snapvault.set_hold(repo, sid)
    (name,) = noted(repo)
    path = Path(repo.url) / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    plan = snapvault.plan_forget(again(repo), Retention(last=1))
    assert plan.reasons[sid] == ("a note on it cannot be read",)
    assert plan.status == "damaged" and plan.problems
    assert len(plan.forget) == 1 and sid not in plan.execute().forgotten
    assert len(list(again(repo).snapshots())) == 2
