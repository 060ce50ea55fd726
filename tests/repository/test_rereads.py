"""One reply that comes damaged is no damage: whoever verifies what came asks for it again (docs/backends.md)."""

import json
from pathlib import Path

import pytest

import snapvault
from snapvault import Repository
from snapvault.backend.memory import MemoryBackend
from snapvault.format import names
from snapvault.foundation.events import Reporter
from snapvault.operations.copying import ObjectCopier, Outcome
from snapvault.operations.scrub import Scrub
from snapvault.repository.store import TRIES
from snapvault.testing.faults import Fault, FaultyBackend, Kind
from tests.assurance.results import held
from tests.repos import again, make, save


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    (tmp_path / "src").write_bytes(b"tea")
    found = make(tmp_path / "repo")
    save(found, tmp_path / "src")
    return again(found)


def spoil(repo: Repository, *plan: Fault) -> FaultyBackend:
    store = repo.vault.store
    faulty = store.backend = FaultyBackend(store.backend, plan)
    return faulty


@pytest.mark.parametrize("at", [2, 3, 4])
def test_what_a_pack_says_of_itself(repo: Repository, at: int) -> None:
    """Its header, trailer and directory."""
    ((pack, size), *_) = repo.vault.loader.packs_present().items()
    whole = repo.vault.loader.read_directory(pack, size)
    faulty = spoil(repo, Fault(at=at, method="get", kind=Kind.TRUNCATE))
    assert repo.vault.loader.read_directory(pack, size) == whole
    faulty.assert_fired()


@pytest.mark.parametrize("prefix", names.RESCUE)
@pytest.mark.parametrize("of", ["check", "scrub"])
def test_a_rescue_file(repo: Repository, prefix: str, of: str) -> None:
    def look() -> snapvault.CheckReport:
        return snapvault.check(repo) if of == "check" else Scrub(repo.vault.backend, Reporter("check")).run()

    faulty = spoil(repo, Fault(method="get", prefix=prefix, kind=Kind.FLIP))
    assert look().status == "ok"
    faulty.assert_fired()
    faulty.plan[:] = [Fault(method="get", prefix=prefix, kind=Kind.FLIP, times=None)]
    (found,) = look().findings
    assert found.objects[0].startswith(prefix) and "is not the file that the owner signed" in found.message


def test_an_export_of_evidence(repo: Repository) -> None:
    """It has the object that was verified, and not another reply."""

    def export() -> str:
        parts: list[str] = []
        snapvault.export_evidence(repo, parts.append)
        return "".join(parts)

    snapvault.record_evidence(repo, [held()])
    whole = export()
    assert json.loads(whole)["records"]
    spoil(repo, *(Fault(at=at, method="get", prefix=names.EVIDENCE, kind=Kind.FLIP) for at in range(1, 20, 2)))
    assert export() == whole


@pytest.mark.parametrize("prefix", [names.PACKS, names.SNAPSHOTS, names.RESCUE[0]])
def test_a_copy_asks_three_times_for_what_stays_damaged(repo: Repository, tmp_path: Path, prefix: str) -> None:
    """Whoever verifies what came decides how often it is asked for, and nobody below does so once more."""
    source, target = repo.vault.backend, MemoryBackend("rereads")
    keyset = repo.vault.ring.current
    name = next(o.name for o in source.list(prefix))
    faulty = FaultyBackend(source, [Fault(method="get", prefix=prefix, kind=Kind.FLIP, times=None)])
    copier = ObjectCopier(faulty, target, dict(keyset.rescue))
    assert copier.copy(source.head(name)) is Outcome.DAMAGED
    assert [call for call in faulty.log if call[0] == "get"] == [("get", name)] * TRIES
