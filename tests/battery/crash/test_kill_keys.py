"""Key operations killed at every backend call: nobody is locked out, nothing is lost, and the same command goes on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from battery import killing, model
from battery.oracle import Ledger

import snapvault
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.protocol import Backend
from snapvault.crypto.password import MIN_MEMORY_KIB, SALT_SIZE, Argon2Parameters

OWNER, NEXT = "the owner's password", "another password"


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of slots are opened here; what a guess costs is not the question."""
    cheap = staticmethod(lambda: Argon2Parameters(b"s" * SALT_SIZE, MIN_MEMORY_KIB, 1, 1))
    monkeypatch.setattr(Argon2Parameters, "fresh", cheap)


@dataclass
class Keys:
    """A repository whose owner has a password, a writer with a key file, and a snapshot of each."""

    base: killing.Base
    recovery: str
    writer: Path

    def open(self, store: Backend, password: str = OWNER) -> snapvault.Repository:
        with model.served_by(store):
            return snapvault.open("memory://keys", password=password)

    def open_file(self, store: Backend, path: Path) -> snapvault.Repository:
        with model.served_by(store):
            return snapvault.open("memory://keys", keys=snapvault.KeyFile(path))

    def open_recovery(self, store: Backend, text: str | None = None) -> snapvault.Repository:
        with model.served_by(store):
            return snapvault.open("memory://keys", keys=(text or self.recovery).encode)

    def verify(self, store: Backend, ledger: Ledger, password: str = OWNER) -> None:
        with self.open(store, password) as repo:
            ledger.verify(repo, self.base.scratch)


@pytest.fixture
def keys(ram: Path, tmp_path: Path) -> Keys:
    source = ram / "source"
    if not source.exists():
        model.make_source(source)
    store, ledger = MemoryBackend(), Ledger(source)
    with model.served_by(store):
        made = snapvault.init("memory://keys", password=OWNER, chunking=model.CHUNKING)
    snapvault.add_key(made.repository, "writer", "client", file=tmp_path / "client.key")
    made.repository.close()
    kept = Keys(killing.Base({}, ledger, ram), made.recovery_key, tmp_path / "client.key")
    for repo in (kept.open(store), kept.open_file(store, kept.writer)):
        ledger.backup(repo)
        repo.close()
    kept.base.objects.update(store.objects)
    return kept


def killed(keys: Keys, act: Callable[[snapvault.Repository], object]) -> "killing.Killings":
    """After a kill at each call of ``act``, opening by the owner's password included."""

    def run(backend: Backend, _: Ledger) -> None:
        with keys.open(backend) as repo:
            act(repo)

    return killing.killed(keys.base, run, at_least=6)


def test_add_key_with_a_file(keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "new.key"

    def add(repo: snapvault.Repository) -> snapvault.KeyResult:
        return snapvault.add_key(repo, "writer", "new", file=file)

    for store, ledger in killed(keys, add):
        keys.verify(store, ledger)
        with keys.open(store) as repo:
            if "new" not in {k.name for k in snapvault.list_keys(repo)}:
                add(repo)  # under the same name, into the same file
        with keys.open_file(store, file) as repo:
            assert repo.role == "writer"
            ledger.backup(repo)
        keys.verify(store, ledger)
        file.unlink()


def test_add_key_with_a_password(keys: Keys) -> None:
    def add(repo: snapvault.Repository) -> snapvault.KeyResult:
        return snapvault.add_key(repo, "reader", "new", password=NEXT)

    for store, ledger in killed(keys, add):
        keys.verify(store, ledger)
        for _ in range(6):  # names of slots are random, and so is which of two comes first
            copy = MemoryBackend()
            copy.objects.update(store.objects)
            with keys.open(copy) as repo:
                if "new" not in {k.name for k in snapvault.list_keys(repo)}:
                    add(repo)
            with keys.open(copy, NEXT) as repo:
                assert repo.role == "reader"
        with keys.open(copy, NEXT) as repo:
            ledger.verify(repo, keys.base.scratch)


def test_remove_key(keys: Keys) -> None:
    """Also the last step, done again, is no error: whoever was interrupted cannot know how far it came."""

    def remove(repo: snapvault.Repository) -> snapvault.KeyResult:
        return snapvault.remove_key(repo, "client")

    with keys.open(keys.base.store()) as repo:
        client = next(k for k in snapvault.list_keys(repo) if k.name == "client")
    for store, ledger in killed(keys, remove):
        with keys.open(store) as repo:
            assert remove(repo).name == "client"
        assert not [name for name in store.objects if name.startswith(f"slots/{client.id}/")]
        with pytest.raises(snapvault.KeyRejected):
            keys.open_file(store, keys.writer)
        keys.verify(store, ledger)


def test_change_password(keys: Keys) -> None:
    changed = 0
    for store, ledger in killed(keys, lambda repo: snapvault.change_password(repo, NEXT)):
        try:
            repo = keys.open(store)
        except snapvault.KeyRejected:
            repo, changed = keys.open(store, NEXT), changed + 1
        snapvault.change_password(repo, NEXT)
        repo.close()
        with pytest.raises(snapvault.KeyRejected):
            keys.open(store)
        keys.verify(store, ledger, NEXT)
    assert changed


@pytest.mark.parametrize("new_recovery_key", [False, True])
def test_rotate(keys: Keys, new_recovery_key: bool) -> None:
    def rotate(repo: snapvault.Repository) -> snapvault.KeyResult:
        return snapvault.rotate(repo, new_recovery_key=new_recovery_key)

    for store, ledger in killed(keys, rotate):
        with keys.open(store) as repo:
            ledger.backup(repo)
        keys.verify(store, ledger)
        with keys.open(store) as repo:
            text = rotate(repo).recovery_key
        with keys.open(store) as repo:
            ledger.backup(repo)
        with keys.open_file(store, keys.writer) as repo:
            ledger.backup(repo)
        with keys.open_recovery(store, text or None) as repo:
            ledger.verify(repo, keys.base.scratch)
