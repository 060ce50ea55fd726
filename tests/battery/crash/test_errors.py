"""The store is full, denied, read-only or broken, at every call (family 4)."""

import errno
import itertools
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from battery import killing, model
from battery.faultyos import CHANGING, READING, FaultyOs
from battery.oracle import Ledger

import snapvault
from snapvault.backend.local import LocalBackend
from snapvault.foundation.errors import SnapvaultError
from snapvault.testing.faults import Fault, FaultyBackend

ERRORS = {
    errno.ENOSPC: snapvault.StoreFull,
    errno.EDQUOT: snapvault.StoreFull,
    errno.EIO: snapvault.StoreUnavailable,
    errno.EACCES: snapvault.StoreDenied,
    errno.EROFS: snapvault.StoreDenied,
}


@pytest.fixture(scope="module")
def base(ram: Path) -> killing.Base:
    return killing.make_base(ram)


class Folder:
    """The base repository in a folder of its own."""

    def __init__(self, base: killing.Base, *, empty: bool = False) -> None:
        self.path, self.ledger, self._scratch = base.scratch / "folder", base.ledger.copy(), base.scratch
        for name, body in {} if empty else base.objects.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def backend(self, *, create: bool = False) -> LocalBackend:
        return LocalBackend(self.path, create=create)

    def verify(self, *, check: bool = True) -> set[str]:
        with model.opened(self.backend()) as repo:
            return self.ledger.verify(repo, self._scratch, check=check)


def starved(
    base: killing.Base,
    act: Callable[[Folder], object],
    code: int,
    which: frozenset[str],
    *,
    empty: bool = False,
    step: int = 1,
) -> Iterator[tuple[Folder, FaultyOs, SnapvaultError | None]]:
    """A folder, and the error that ``act`` ended with, for each call that can fail, or every ``step``-th."""
    for at in itertools.count(1, step):
        with Folder(base, empty=empty) as folder:
            faulty, error = FaultyOs(which, at, code), None
            with faulty.active():
                try:
                    act(folder)
                except SnapvaultError as e:
                    error = e
            if not faulty.failed:
                assert error is None and at > 10
                return
            yield folder, faulty, error


def back_up(folder: Folder) -> None:
    killing.back_up(folder.backend(), folder.ledger)


NOW = timedelta(0)
NARROW = (errno.ENOSPC, errno.EIO)
ALIASES = (errno.EDQUOT, errno.EROFS)  # mean the same to us as another one, which is tried at every call


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
def test_backup(base: killing.Base, code: int) -> None:
    failures = 0
    step = 5 if code in ALIASES else 1
    for folder, faulty, error in starved(base, back_up, code, CHANGING, step=step):
        if error is None:
            assert faulty.failed in ("unlink", "close"), f"{faulty.failed} failed, and the backup did not mind"
        else:
            failures += 1
            assert type(error) is ERRORS[code] and error.exit_code == 1, error
            assert str(folder.path) in error.message
        back_up(folder)
        assert len(folder.verify(check=code == errno.ENOSPC)) <= 1  # the last fsync, after the link of the commit
    assert failures >= 40 // step


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES], ids=errno.errorcode.get)
def test_backup_of_a_store_that_cannot_be_read(base: killing.Base, code: int) -> None:
    for folder, faulty, error in starved(base, back_up, code, READING):
        assert type(error) is ERRORS[code] and error.exit_code == 1, (faulty.failed, error)
        back_up(folder)
        assert not folder.verify(check=False)


@pytest.mark.parametrize("code", NARROW, ids=errno.errorcode.get)
def test_a_store_that_stays_broken(base: killing.Base, code: int) -> None:
    """Also the clean-up fails then; it must neither hang nor hide the error."""
    calls = FaultyOs()
    with Folder(base) as folder, calls.active():
        back_up(folder)
    refused = 0
    for at in range(1, len(calls.log) + 1, 3):
        with Folder(base) as folder:
            faulty = FaultyOs(CHANGING, at, code, for_ever=True)
            with faulty.active():
                try:
                    back_up(folder)
                except ERRORS[code]:
                    refused += 1
                else:
                    assert set(faulty.log[at - 1 :]) <= {"unlink", "close"}, "the end failed, and nobody minded"
            assert faulty.failed or len(faulty.log) < at  # with threads, not every run makes as many calls
            back_up(folder)
            folder.verify(check=False)
    assert refused >= 20


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES], ids=errno.errorcode.get)
def test_init(base: killing.Base, code: int) -> None:
    def make(folder: Folder) -> None:
        model.init(folder.backend(create=True)).close()

    failures = unminded = 0
    step = 1 if code == errno.ENOSPC else 4
    for folder, faulty, error in starved(base, make, code, CHANGING, empty=True, step=step):
        folder.ledger.trees.clear()
        if error is None:
            assert faulty.failed in ("unlink", "close", "fsync"), f"{faulty.failed} failed, and init did not mind"
            unminded += faulty.failed == "fsync"  # after the removal of a throwaway of the probe
        else:
            failures += 1
            assert type(error) is ERRORS[code], error
            try:
                make(folder)
            except snapvault.InvalidInput as e:
                assert "already" in e.message  # only the last fsync had failed
        back_up(folder)
        folder.verify(check=False)
    assert failures >= 50 // step and unminded <= 12


@pytest.mark.parametrize("code", NARROW, ids=errno.errorcode.get)
@pytest.mark.parametrize("operation", ["rotate", "add", "forget"])
def test_keys_and_forget(base: killing.Base, code: int, operation: str) -> None:
    first, file = next(iter(base.ledger.trees)), base.scratch / "new.key"

    def act(folder: Folder) -> None:
        with model.opened(folder.backend()) as repo:
            if operation == "rotate":
                snapvault.rotate(repo)
            elif operation == "add":
                snapvault.add_key(repo, "writer", "new", file=file)
            else:
                snapvault.forget_snapshots(repo, [first])

    for folder, faulty, error in starved(base, act, code, CHANGING):
        if error is None:  # what only tidies up; or a sync of what is there already, which was done again
            again = faulty.log[faulty.at :]
            assert faulty.failed == "unlink" or (faulty.failed in ("fsync", "close") and "fsync" in again), (
                faulty.failed
            )
        else:
            assert type(error) is ERRORS[code], (faulty.failed, error)
        with model.opened(folder.backend()) as repo:
            known = {key.name for key in snapvault.list_keys(repo)}
            if first not in {s.id for s in repo.snapshots()}:
                folder.ledger.forgotten.add(first)
        if operation == "add" and "new" not in known:
            assert not file.exists()
            act(folder)
        if operation == "add":
            with model.served_by(folder.backend()), snapvault.open("memory://", keys=snapvault.KeyFile(file)) as repo:
                folder.ledger.backup(repo)
        back_up(folder)
        folder.verify(check=False)
        file.unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def with_objects(base: killing.Base, ledger: Ledger, folder: Folder) -> killing.Base:
    """The base repository as it is in a folder."""
    backend = folder.backend()
    return killing.Base({o.name: backend.get(o.name) for o in backend.list()}, ledger, base.scratch)


@pytest.mark.parametrize("code", NARROW, ids=errno.errorcode.get)
def test_prune(base: killing.Base, code: int) -> None:
    """Every other call; whatever fails, nothing is lost, and the next one does it."""
    first = next(iter(base.ledger.trees))
    with Folder(base) as folder:
        with model.opened(folder.backend()) as repo:
            snapvault.forget_snapshots(repo, [first], undelete_window=NOW)
        folder.ledger.forgotten.add(first)
        forgotten = with_objects(base, folder.ledger, folder)

    def act(folder: Folder) -> None:
        with model.opened(folder.backend()) as repo, model.small_parts():
            limits = snapvault.PruneLimits(unused=0.0)
            plan = snapvault.plan_prune(repo, limits=limits, control=model.ONE_THREAD)
            assert plan.execute(wait=NOW, lease=NOW).status == "ok"

    failures = 0
    for folder, faulty, error in starved(forgotten, act, code, CHANGING, step=2):
        failures += error is not None
        assert error is not None or faulty.failed in ("unlink", "close", "fsync"), faulty.failed
        assert error is None or type(error) is ERRORS[code], (faulty.failed, error)
        folder.verify()
        act(folder)
        back_up(folder)
        folder.verify()
    assert failures >= 10


@pytest.mark.parametrize("code", NARROW, ids=errno.errorcode.get)
def test_repair(base: killing.Base, code: int) -> None:
    """Every other call; whatever fails, what could be restored before can be restored, and the next one does it."""
    with Folder(base) as folder:
        largest = max((folder.path / "packs").glob("*/*"), key=lambda p: p.stat().st_size)
        data = largest.read_bytes()
        largest.write_bytes(data[: len(data) // 2] + b"rot" + data[len(data) // 2 + 3 :])
        next((folder.path / "index").iterdir()).unlink()
        damaged = with_objects(base, folder.ledger, folder)
        before = killing.lost(folder.backend(), base)
    assert any(before.values())

    def act(folder: Folder) -> None:
        with model.opened(folder.backend()) as repo, model.small_parts():
            result = snapvault.plan_repair(repo, control=model.ONE_THREAD).execute(wait=NOW, lease=NOW)
            assert result.status == "partial", result

    failures = 0
    for folder, faulty, error in starved(damaged, act, code, CHANGING, step=2):
        failures += error is not None
        assert error is None or type(error) is ERRORS[code], (faulty.failed, error)
        assert killing.lost(folder.backend(), base) == before
        act(folder)
        assert killing.lost(folder.backend(), base) == before
        back_up(folder)
    assert failures >= 20


@pytest.mark.parametrize("operation", ["check", "restore"])
def test_reading_what_cannot_be_read_now(base: killing.Base, operation: str) -> None:
    """It is an error of the store, and never taken for damage: nothing is called lost that may be there."""

    def act(folder: Folder) -> None:
        if operation == "check":
            with model.opened(folder.backend()) as repo:
                report = snapvault.check(repo, read_data=True)
            assert not report.lost and report.packs_read == report.packs, report
            assert all(f.harmless and "written down" in f.message for f in report.findings), report.findings
        else:
            folder.verify(check=False)

    for folder, faulty, error in starved(base, act, errno.EIO, READING):
        assert type(error) is snapvault.StoreUnavailable or operation == "check", (faulty.failed, error)
        assert folder.verify(check=False) == set()


def test_an_error_of_the_pipeline_is_no_unreadable_file(base: killing.Base) -> None:
    """Sources raise OSError, too: whatever a thread that seals or uploads dies of must not be taken for theirs."""
    store, raw = base.store(), OSError(errno.ENOSPC, "No space left on device")
    faulty = FaultyBackend(store, [Fault(method="put_if_absent", prefix="packs/", error=raw)])  # type: ignore[arg-type]
    with model.opened(faulty) as repo, pytest.raises(snapvault.StoreUnavailable, match="No space left"):
        snapvault.backup(repo, base.ledger.source, dataset="model", host="here", control=model.ONE_THREAD)
    faulty.assert_fired()
    killing.verify(store, base, base.ledger)
