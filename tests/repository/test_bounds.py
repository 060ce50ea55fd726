"""What a hostile or failing store may cost: memory, names in the cache, a new recovery key, a session header."""

import contextlib
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3stub

import snapvault
from snapvault.backend.local import LocalBackend
from snapvault.backend.protocol import ObjectInfo
from snapvault.backend.remote import FsspecBackend
from snapvault.backend.retry import RetryBackend, RetryPolicy
from snapvault.backend.wrapper import Wrapper
from snapvault.format import names
from snapvault.format.pack import MAX_PACK
from snapvault.format.snapshot import SnapshotDetails
from snapvault.format.tree import EMPTY
from snapvault.format.wire import FormatError, Kind, frame
from snapvault.foundation.errors import Damaged, FormatTooNew, SnapvaultError, StoreUnavailable
from snapvault.foundation.events import Control
from snapvault.foundation.ids import PackId, SessionId
from snapvault.operations.repository import Repository
from snapvault.repository.cache import Cache
from snapvault.repository.careful import CarefulBackend
from snapvault.repository.keyring import DomainKeys
from snapvault.repository.keysets import newest_keyset, read_config
from snapvault.repository.session import Session
from snapvault.repository.slots import list_slots
from snapvault.testing.faults import Fault, FaultyBackend
from tests.repos import SEED, again, back, contents, make, save

SID = "0" * 32


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(os.urandom(20_000))
    return tmp_path / "source"


class Huge(Wrapper):
    """Offers a terabyte under every name."""

    def head(self, name: str) -> ObjectInfo:
        return ObjectInfo(name, 1 << 40)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter([self.head(o.name) for o in self.inner.list(prefix)])

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        raise AssertionError(f"{length} bytes of {name} were read")


@pytest.mark.parametrize("name", ["keyset/1", "snapshots/" + SID, "sessions/" + SID, "index/" + 2 * SID])
def test_no_object_is_read_that_is_larger_than_any_may_be(tmp_path: Path, name: str) -> None:
    vault = make(tmp_path / "repo").vault
    vault.store.backend = Huge(vault.store.backend)
    with pytest.raises(FormatError, match="which the format does not allow"):
        vault.store.fresh(name)
    (found,) = vault.store.immutables([name], {name: 1 << 40})
    assert isinstance(found, Damaged)


def test_a_repository_of_terabytes_is_refused(tmp_path: Path) -> None:
    vault = make(tmp_path / "repo").vault
    huge = Huge(vault.backend)
    with pytest.raises(FormatError, match="config"):
        read_config(huge)
    with pytest.raises(FormatError, match="keyset/1"):
        newest_keyset(huge, vault.ring.config, vault.ring.config_digest)
    assert list(list_slots(huge)) == []
    with contextlib.suppress(SnapvaultError):
        CarefulBackend(huge).put_if_absent("notes/x", [b"x"])


def test_a_name_that_leads_out_of_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    for name in ("../out", "objects/../../out", f"{tmp_path}/out", "a\0b"):
        cache.put(name, b"x")
        assert cache.get(name) is None
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").touch()
    cache.remove("../out")
    assert (tmp_path / "out").exists() and cache.names("../") == []


def test_an_unchanged_snapshot_outlives_its_session_object(tmp_path: Path, source: Path) -> None:
    repo = make(tmp_path / "repo")
    save(repo, source)
    packs = len(list(repo.vault.backend.list(names.PACKS)))
    unchanged = save(repo, source).snapshot
    assert len(list(repo.vault.backend.list(names.PACKS))) == packs  # so no pack carries its header
    for file in (tmp_path / "repo" / "sessions").iterdir():
        file.unlink()
    assert contents(back(again(repo), tmp_path / "out", source, unchanged)) == contents(source)


def test_a_config_that_is_too_new_says_of_what(tmp_path: Path) -> None:
    repo = make(tmp_path / "repo")
    config = {"name": "snapvault", "format": 2, "id": bytes(32), "owner_hpke": b"", "owner_sign": b""}
    (tmp_path / "repo" / "config").write_bytes(frame(Kind.CONFIG, config))
    with pytest.raises(FormatTooNew, match=str(tmp_path / "repo")):
        again(repo)


def test_the_url_of_a_repository_opens_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where messages say more than the URL, as of an S3 store behind an endpoint."""
    with s3stub.serve() as stub, contextlib.closing(FsspecBackend(*stub.place())) as backend:
        assert backend.address == stub.place()[0] == "s3://bucket/repo"
        assert "http://" in backend.url  # which tells two places of one URL apart
    repo = make(tmp_path / "repo")
    monkeypatch.setattr(LocalBackend, "url", "somewhere at http://there")
    monkeypatch.setattr(LocalBackend, "address", str(tmp_path / "repo"), raising=False)
    for handle in (again(repo), pickle.loads(pickle.dumps(again(repo)))):
        with handle.reopen(keys=lambda: SEED) as opened:
            assert opened.id == repo.id and opened.url == str(tmp_path / "repo")


# -- a new recovery key -----------------------------------------------------------------------------------------------


def recovery_opens(repo: Repository, text: str) -> bool:
    """Whether this key opens everything, also without slots and keysets."""
    opened = snapvault.open(repo.url, keys=lambda: text.encode())
    list(opened.snapshots())
    keyset = opened.vault.ring.current
    return opened.vault.ring.recovery is not None and opened.vault.ring.recovery.public == keyset.epochs[-1].recovery


@pytest.mark.parametrize("fault", [
    Fault(method="put_if_absent", prefix="keyset/", after=True),  # it took effect, and its reply is lost
    Fault(method="delete", prefix="slots/", times=None),
])  # fmt: skip
def test_a_recovery_key_that_is_in_force_is_shown(tmp_path: Path, fault: Fault) -> None:
    repo = make(tmp_path / "repo")
    faulty = repo.vault.store.backend = FaultyBackend(repo.vault.store.backend, [fault])
    text = snapvault.rotate(repo, new_recovery_key=True).recovery_key
    faulty.assert_fired()
    assert recovery_opens(repo, text)


def test_a_recovery_key_of_which_nobody_heard_is_shown_by_the_next_run(tmp_path: Path) -> None:
    made = snapvault.init(str(tmp_path / "repo"), keys=lambda: SEED)
    repo = made.repository
    plan = [
        Fault(method="put_if_absent", prefix="keyset/", after=True),
        Fault(method="head", prefix="keyset/", times=None),
    ]
    repo.vault.store.backend = FaultyBackend(repo.vault.store.backend, plan)
    with pytest.raises(StoreUnavailable):
        snapvault.rotate(repo, new_recovery_key=True)
    in_force = again(repo).vault.ring.current
    assert in_force.number == 2
    snapvault.open(repo.url, keys=made.recovery_key.encode)  # the old one opens still
    text = snapvault.rotate(again(repo), new_recovery_key=True).recovery_key
    assert again(repo).vault.ring.current == in_force
    assert recovery_opens(repo, text)
    with pytest.raises(snapvault.RoleRequired):  # its slot is gone
        snapvault.rotate(snapvault.open(repo.url, keys=made.recovery_key.encode))
    assert snapvault.rotate(again(repo), new_recovery_key=True).recovery_key != text


# -- sessions that lie about their domain -----------------------------------------------------------------------------


def test_a_session_that_lies_about_its_domain_harms_no_other(tmp_path: Path, source: Path) -> None:
    made = snapvault.init(str(tmp_path / "repo"), keys=lambda: SEED)
    repo = made.repository
    honest = save(repo, source).snapshot
    vault = repo.vault
    false = DomainKeys(vault.ring.write_domain.id, os.urandom(32), vault.ring.config_digest)
    liar = Session(vault.store, vault.ring, false, sid=SessionId(SID))  # the first in every list
    liar.announce()
    liar.commit(SnapshotDetails("d", "h", EMPTY, (b"/",), 1, 1), (), 1)
    for file in (tmp_path / "repo" / "keyset").iterdir():
        file.unlink()
    opened = snapvault.open(repo.url, keys=made.recovery_key.encode)
    assert {s.id for s in opened.snapshots()} == {honest, SID}
    assert contents(back(opened, tmp_path / "out", source, honest)) == contents(source)
    assert any("another secret of its domain" in str(p) for p in opened.vault.sessions.problems)


# -- a store that is dead ---------------------------------------------------------------------------------------------


def test_a_cancelled_backup_outwaits_no_dead_store(tmp_path: Path, source: Path) -> None:
    repo, cancel = make(tmp_path / "repo"), threading.Event()

    class Dying(FaultyBackend):
        def _call(self, method: str, name: str) -> Any:
            if name.startswith(names.PACKS) and method == "put_if_absent":
                self.plan = [Fault(times=None)]
                cancel.set()
            return super()._call(method, name)

    dying = Dying(repo.vault.store.backend)
    repo.vault.store.backend = RetryBackend(dying, RetryPolicy(3.0, 3.0, 0.01, 0.02))
    with pytest.raises(SnapvaultError):
        snapvault.backup(repo, source, dataset="d", control=Control(cancel=cancel))
    assert 0 < len(dying.fired) < 5  # a retry for every pause would be hundreds


def test_a_pack_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    """It takes the store no space to say so; a check names it and asks for nothing of it."""
    with snapvault.init(tmp_path / "repo", keys=lambda: bytes(range(32))).repository as repo:
        name = names.pack(PackId(bytes(32)))
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True)
        with open(path, "wb") as file:
            file.truncate(MAX_PACK + 1)
        report = snapvault.check(repo, read_data=True)
    assert report.bytes_read == 0 and any("which the format does not allow" in f.message for f in report.problems)
