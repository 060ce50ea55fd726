"""What is signed about a site, who may sign, and what counts."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

import snapvault
from snapvault import Attestation, KeyFile, Repository
from snapvault.backend.local import LocalBackend
from snapvault.chunking import Chunking
from snapvault.format import names
from snapvault.format.signed import decode_signed
from snapvault.format.wire import Kind
from snapvault.operations import attest as module
from snapvault.operations.sites import Sites, site_states
from snapvault.repository.keyring import HolderKeys
from snapvault.repository.trust import sign
from tests.repos import again, make, objects, save, small_packs


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(bytes(range(256)) * 40)
    return tmp_path / "source"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    small_packs(monkeypatch)
    return make(tmp_path / "repo", chunking=Chunking(64, 128, 256))


def signed(repo: Repository, site: str = "here", *, read: bool = False) -> Attestation:
    return snapvault.attest(again(repo), site, read=read)


def _objects(repo: Repository, prefix: str) -> list[Path]:
    return sorted(p for p in Path(repo.url, prefix).rglob("*") if p.is_file())


def test_a_whole_place(repo: Repository, source: Path) -> None:
    ids = {save(repo, source).snapshot, save(again(repo), source, dataset="other").snapshot}
    for read in (False, True):
        found = signed(repo, read=read)
        assert set(found.snapshots) == ids and (found.bad, found.names) == (0, ())
        assert (found.site, found.by, found.level) == ("here", "owner", "hashed" if read else "present")
        counted = {n: s for n, s in objects(repo).items() if not n.startswith((names.LOCAL, names.ATTESTATIONS))}
        assert (found.objects, found.bytes) == (len(counted), sum(counted.values()))
        assert snapvault.attestations(again(repo))[0] == replace(found, report=None)
    assert snapvault.check(again(repo), read_data=True).findings == ()
    assert snapvault.scrub(repo.url).findings == ()


def test_nothing_new_is_signed_without_reading_indexes(
    repo: Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(repo, source)
    first = signed(repo)

    def refuse(*_: object) -> None:
        raise AssertionError("an index was read")

    monkeypatch.setattr(module._Inventory, "_index", refuse)
    assert signed(repo).snapshots == first.snapshots


@pytest.mark.parametrize("prefix", ["packs", "index"])
def test_what_is_missing(repo: Repository, source: Path, prefix: str) -> None:
    save(repo, source)
    signed(repo)
    gone = _objects(repo, prefix)[0]
    gone.unlink()
    found = signed(repo)
    assert found.snapshots == ()
    if prefix == "packs":
        assert found.names == (str(gone.relative_to(repo.url)),)


def test_damage_shows_only_to_who_reads(repo: Repository, source: Path) -> None:
    save(repo, source)
    pack = _objects(repo, "packs")[0]
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    assert len(signed(repo).snapshots) == 1
    found = signed(repo, read=True)
    assert (found.snapshots, found.bad) == ((), 1)
    assert found.names == (str(pack.relative_to(repo.url)),)


def test_one_domain_lacks_a_pack_and_the_other_none(repo: Repository, source: Path, tmp_path: Path) -> None:
    kept = save(repo, source).snapshot
    before = set(_objects(repo, "packs"))
    snapvault.add_key(again(repo), "writer", "laptop", file=tmp_path / "laptop.key")
    with snapvault.open(repo.url, keys=KeyFile(tmp_path / "laptop.key")) as laptop:
        save(laptop, source)
    (set(_objects(repo, "packs")) - before).pop().unlink()
    assert signed(repo).snapshots == (kept,)


def test_a_key_of_the_role_site_signs_and_opens_nothing(repo: Repository, source: Path, tmp_path: Path) -> None:
    snapshot = save(repo, source).snapshot
    snapvault.add_key(again(repo), "site", "second", file=tmp_path / "site.key")
    with snapvault.open(repo.url, keys=KeyFile(tmp_path / "site.key")) as site:
        found = snapvault.attest(site, "second")
        with pytest.raises(snapvault.RoleRequired):
            list(site.snapshots())
    assert (found.by, found.snapshots) == ("second", (snapshot,))
    assert snapvault.attestations(again(repo)) == [found]
    snapvault.remove_key(again(repo), "second")
    assert snapvault.attestations(again(repo)) == []


def test_forged_and_altered_ones_count_for_nothing(repo: Repository, source: Path) -> None:
    save(repo, source)
    found = signed(repo)
    backend = LocalBackend(repo.url)
    (name,) = [o.name for o in backend.list(names.ATTESTATIONS)]
    payload = decode_signed(Kind.ATTESTATION, backend.get(name)).payload
    stranger = HolderKeys.generate()
    own = again(repo).vault.ring.signing.id
    forged = sign(Kind.ATTESTATION, payload, own, stranger.signer)
    backend.put(names.attestation(own, 2**62, bytes(8)), [forged])
    backend.put(names.attestation(stranger.id, 2**62, bytes(8)), [forged])
    backend.put(names.attestation(own, 2**62, bytes(7) + b"1"), [b"garbage"])
    assert snapvault.attestations(again(repo)) == [found]
    assert signed(repo).snapshots == found.snapshots


def test_old_ones_go_but_for_the_last_that_was_read(
    repo: Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    save(repo, source)
    hashed = signed(repo, read=True)
    made = [signed(repo) for _ in range(6)]
    assert snapvault.attestations(again(repo)) == [*reversed(made[-3:]), replace(hashed, report=None)]


def test_what_is_owed(repo: Repository, source: Path, tmp_path: Path) -> None:
    sites = Sites(tmp_path / "state", repo.id, repo.url)
    sites.put("here", "/somewhere")
    first = save(repo, source)
    (state,) = site_states(again(repo), sites.all())
    (snapshot,) = again(repo).snapshots()
    assert (state.snapshots, state.unanswered, state.unanswered_since) == (0, 1, snapshot.time)
    assert state.newest is None and state.hashed is None
    signed(repo)
    (state,) = site_states(again(repo), sites.all())
    assert (state.snapshots, state.unanswered, state.unanswered_since) == (1, 0, None)
    second = save(again(repo), source)
    times = {s.id: s.time for s in again(repo).snapshots()}
    (state,) = site_states(again(repo), sites.all())
    assert (state.snapshots, state.unanswered, state.unanswered_since) == (1, 1, times[second.snapshot])
    assert first.snapshot in times
    (other,) = site_states(again(repo), ["elsewhere"])
    assert other.unanswered == 2, "what another site holds is no answer"


def test_sites_are_remembered(tmp_path: Path) -> None:
    sites = Sites(tmp_path, "1234", "/srv/repo")
    sites.put("b", "s3://bucket/repo")
    sites.put("a", "/mnt/a")
    assert list(Sites(tmp_path, "1234", "/srv/repo").all().items()) == [("a", "/mnt/a"), ("b", "s3://bucket/repo")]
    assert Sites(tmp_path, "5678", "/srv/repo").all() == {}
    sites.put("a", None)
    assert sites.url("b") == "s3://bucket/repo"
    with pytest.raises(snapvault.InvalidInput, match="known are: b"):
        sites.url("a")


@pytest.mark.parametrize("newer", ["1234", "5678"])
def test_sites_of_a_repository_that_was_made_anew(tmp_path: Path, newer: str) -> None:
    """At the place of another one, whose sites are of no use any more."""
    for number in ("1234", "5678"):
        Sites(tmp_path, number, "/srv/repo").put("second", f"/mnt/{number}")
        os.utime(tmp_path / number / "sites.json", (0, number == newer))
    known = Sites.of_home(tmp_path, "/srv/repo")
    assert known is not None and known.all() == {"second": f"/mnt/{newer}"}
