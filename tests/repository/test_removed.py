"""What a holder wrote before it was removed counts for ever; what it writes after does not."""

from array import array
from pathlib import Path

import pytest
from blake3 import blake3

import snapvault
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.pack import Segment
from snapvault.format.tree import BlobType
from snapvault.foundation.ids import BlobId, DomainId, PackId, SessionId
from snapvault.operations.repository import Repository
from snapvault.repository.index import PackRow
from snapvault.repository.session import Session, encode_index
from tests.repos import again, back, contents, make, save


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(bytes(range(256)) * 40)
    return tmp_path / "source"


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return make(tmp_path / "repo", cache=tmp_path / "cache")


def client(repo: Repository, role: str, tmp_path: Path) -> Repository:
    snapvault.add_key(repo, role, role, file=tmp_path / role)
    return snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / role))


def lie(thief: Repository, domain: DomainId, sid: SessionId, blob: BlobId, row: PackRow) -> str:
    """An index object, signed by the thief in a session of its own, that says: this blob lies in this pack."""
    vault = thief.vault
    segment = Segment(100, 60, 10, blob, array("I", [10]), bytes((BlobType.DATA,)))
    name, data = encode_index(vault.ring, vault.ring.domains[domain], sid, [(row, [segment])])
    vault.backend.put_if_absent(name, [data])
    return name


def test_what_a_removed_writer_stored_stays_and_what_it_lists_later_does_not(
    repo: Repository, source: Path, tmp_path: Path
) -> None:
    writer = client(repo, Role.WRITER, tmp_path)
    own = writer.vault.ring.write_domain.id
    saved = save(writer, source)
    repo = again(repo, cache=tmp_path / "cache")
    row = next(iter(repo.vault.index().packs()))  # kept in the cache, with what the writer's own object says
    snapvault.remove_key(repo, Role.WRITER)
    later = again(repo, cache=tmp_path / "cache")
    index = later.vault.index()
    assert [r.id for r in index.packs()] == [row.id]
    assert not later.vault.loader.problems
    assert contents(back(later, tmp_path / "out", source)) == contents(source)

    garbage = BlobId(blake3(b"no such blob").digest())
    sid = SessionId(saved.snapshot)
    lie(writer, own, sid, garbage, row._replace(sid=sid))  # of a pack that it had: nobody can tell when it was written
    new = lie(writer, own, sid, garbage, PackRow(PackId(bytes(32)), 5000, sid, own))
    vault = again(repo, cache=tmp_path / "cache").vault
    assert not list(vault.index().places(garbage))
    assert {o for p in vault.loader.problems for o in p.affected} == {new}


def test_a_removed_maintainer_points_nobody_to_what_is_not_there(
    repo: Repository, source: Path, tmp_path: Path
) -> None:
    save(repo, source)
    thief = client(repo, Role.MAINTAINER, tmp_path)
    domain = repo.vault.ring.write_domain
    session = Session(thief.vault.store, thief.vault.ring, thief.vault.ring.domains[domain.id])
    thief.vault.backend.put_if_absent(names.session(session.sid), [session.header])
    snapvault.remove_key(repo, Role.MAINTAINER)
    (source / "f").write_bytes(b"new words")
    row = next(iter(repo.vault.index().packs()))
    lie(thief, domain.id, session.sid, domain.blob_id(BlobType.DATA, b"new words"), row)
    repo = again(repo, cache=tmp_path / "cache")
    save(repo, source)  # deduplicated onto a place in a pack that holds something else, this would be lost
    assert contents(back(repo, tmp_path / "out", source)) == contents(source)
    assert snapvault.check(repo, read_data=True).lost == ()


def test_what_a_removed_writer_stored_is_found_without_any_index(
    repo: Repository, source: Path, tmp_path: Path
) -> None:
    save(client(repo, Role.WRITER, tmp_path), source)
    snapvault.remove_key(again(repo), Role.WRITER)
    for file in (tmp_path / "repo" / "index").iterdir():
        file.unlink()
    assert contents(back(again(repo), tmp_path / "out", source)) == contents(source)


def test_a_removed_writers_index_is_the_last_place_to_look(repo: Repository, source: Path, tmp_path: Path) -> None:
    """The owner's list of its packs is lost, and the header of a pack damaged: a restore finds what a check finds."""
    writer = client(repo, Role.WRITER, tmp_path)
    saved = save(writer, source)
    store = repo.vault.backend
    before = {o.name for o in store.list(names.INDEX)}
    snapvault.remove_key(again(repo), Role.WRITER)
    for name in {o.name for o in store.list(names.INDEX)} - before:
        store.delete(name)
    for pack in [o.name for o in store.list(names.PACKS)]:
        data = bytearray(store.get(pack))
        data[700] ^= 1
        store.put(pack, [data])
    later = again(repo)
    assert not snapvault.check(later, read_data=True).lost
    assert contents(back(again(repo), tmp_path / "out", source, saved.snapshot)) == contents(source)
    assert not list(again(repo).vault.index().packs())  # nobody relies on it
