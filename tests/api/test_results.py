"""What the API answers and how it is asked: results, errors, names, progress, cancellation, limits."""

import dataclasses
import json
import os
import pickle
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from repos import again, damage, make, objects, save

import snapvault
from snapvault import Cancelled, Control, Damaged, Event, InvalidInput, Limits, Repository
from snapvault.format import names


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return make(tmp_path / "repo")


@pytest.fixture
def src(tmp_path: Path) -> Path:
    src = tmp_path / "src"
    src.mkdir()
    (src / os.fsdecode(b"not \xff UTF-8")).write_bytes(b"x")
    (src / "ü").write_bytes(b"u")
    return src


def _big(src: Path, megabytes: int) -> None:
    """Many files of a megabyte."""
    for i in range(megabytes):
        (src / f"{i:03d}").write_bytes(random.Random(i).randbytes(1 << 20))


# -- results ----------------------------------------------------------------------------------------------------------


def _results(repo: Repository, src: Path, out: Path) -> dict[str, object]:
    """One of every kind."""
    first = save(repo, src)
    (src / os.fsdecode(b"not \xff UTF-8")).write_bytes(b"changed")
    (src / "missing").symlink_to("nowhere")
    second = snapvault.backup(repo, src, src.parent / os.fsdecode(b"gone \xff"), dataset="d")
    damage(repo, f"{src}/ü")
    snapshot = repo.snapshot(second.snapshot)
    return {
        "backup": second,
        "restore": snapvault.restore(repo, first.snapshot, out),
        "dry run": snapvault.restore(repo, second.snapshot, out, dry_run=True, delete=True),
        "check": snapvault.check(repo, read_data=True),
        "scrub": snapvault.scrub(repo.url),
        "change": next(snapvault.diff(repo, first.snapshot, second.snapshot, path=str(src))),
        "snapshot": snapshot,
        "entry": next(iter(snapshot.ls(str(src)))),
        "key": snapvault.add_key(repo, "reader", "r", file=out.parent / "r.key"),
        "key info": snapvault.list_keys(repo)[0],
        "forget": snapvault.forget_snapshots(repo, [first.snapshot]),
        "event": Event("backup", "read"),
    }


def test_results_are_json_and_frozen(repo: Repository, src: Path, tmp_path: Path) -> None:
    """With names that are no UTF-8; a status where something can go wrong; nothing can be set."""
    results = _results(repo, src, tmp_path / "out")
    for name, result in results.items():
        told = result.to_dict()  # type: ignore[attr-defined]
        again_told = json.loads(json.dumps(told))
        assert again_told and set(again_told) == set(told), name
        attribute = next(iter(told))
        with pytest.raises((AttributeError, TypeError), match=r"immutable|cannot assign|super\(type"):
            setattr(result, attribute, "other")
    assert {n: r.status for n, r in results.items() if hasattr(r, "status")} == {  # type: ignore[attr-defined]
        "backup": "partial", "restore": "damaged", "dry run": "ok", "check": "damaged", "scrub": "damaged", "key": "ok",
        "forget": "ok",
    }  # fmt: skip
    assert "\udcff" in json.loads(json.dumps(results["backup"].to_dict()))["issues"][0]["path"]  # type: ignore[attr-defined]
    for result in results.values():
        if dataclasses.is_dataclass(result):
            hash(result)


def test_errors_tell_what_to_do(repo: Repository, tmp_path: Path) -> None:
    """Each has a stable code, an exit code, and says its hint; they survive pickling (to another process)."""
    kinds = [getattr(snapvault, n) for n in snapvault.__all__]
    kinds = [k for k in kinds if isinstance(k, type) and issubclass(k, snapvault.SnapvaultError)]
    assert len(kinds) == 13 and len({k.code for k in kinds}) == 13
    for kind in kinds:
        error = kind("what", hint="do this", affected=["a"])
        assert (str(error), error.message, error.affected) == ("what; do this", "what", ("a",))
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.affected, copy.hint) == (kind, str(error), ("a",), "do this")
        assert error.exit_code in (1, 2, 10, 12, 13, 20, 130)


# -- names ------------------------------------------------------------------------------------------------------------


class TestNames:
    @pytest.fixture
    def known(self, repo: Repository, src: Path) -> dict[str, str]:
        """Snapshots of two datasets at known times."""
        found = {}
        for dataset, day in (("a", 1), ("a", 3), ("a", 2), ("b", 2)):
            time = datetime(2026, 11, day, 12, tzinfo=UTC)
            found[f"{dataset}{day}"] = save(repo, src, dataset=dataset, time=time).snapshot
        return found

    def test_by_id(self, repo: Repository, known: dict[str, str]) -> None:
        for sid in known.values():
            for ref in (sid, sid[:20], sid.upper()):
                assert repo.snapshot(ref).id == sid
        with pytest.raises(InvalidInput, match=f"no snapshot {known['a1'][:3]}.*4 or more"):
            repo.snapshot(known["a1"][:3])
        with pytest.raises(InvalidInput, match="there is no snapshot ffffffffffff; there are") as e:
            repo.snapshot("ffffffffffff")
        assert known["a1"][:8] in str(e.value)

    def test_an_ambiguous_prefix_names_the_candidates(
        self, repo: Repository, known: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from snapvault.access import resolve

        monkeypatch.setattr(resolve, "PREFIX_MIN", 0)
        with pytest.raises(InvalidInput, match="is ambiguous") as e:
            repo.snapshot("")
        assert all(sid in str(e.value) for sid in known.values())

    def test_latest(self, repo: Repository, known: dict[str, str], src: Path) -> None:
        """By the time that a snapshot claims; bare, only where there is one dataset."""
        assert repo.snapshot("a@latest").id == known["a3"]
        assert repo.snapshot("b@latest").id == known["b2"]
        with pytest.raises(InvalidInput, match="ambiguous: there are the datasets a, b"):
            repo.snapshot("latest")
        with pytest.raises(InvalidInput, match="no snapshot of the dataset 'c'; there are a, b"):
            repo.snapshot("c@latest")

    def test_records_that_cannot_be_read_are_not_none(self, repo: Repository, known: dict[str, str]) -> None:
        damaged = [Path(repo.url, names.SNAPSHOTS, sid) for name, sid in sorted(known.items())]
        for record in damaged[:-1]:
            record.write_bytes(record.read_bytes()[:-1])
        with pytest.raises(InvalidInput, match=f"there are b; {len(damaged) - 1} snapshots cannot be read"):
            again(repo).snapshot("a@latest")
        damaged[-1].write_bytes(b"")
        for ref in ("latest", "a@latest", known["a1"]):
            with pytest.raises(Damaged):
                again(repo).snapshot(ref)

    @pytest.mark.parametrize(
        ("when", "day"),
        [
            ("2026-11-02T12:00Z", 2),
            ("2026-11-02T11:59:59Z", 1),
            ("2026-11-02T14:00+02:00", 2),
            ("2030-01-01T00:00Z", 3),
            ("now", 3),
        ],
    )
    def test_at_a_time(self, when: str, day: int, repo: Repository, known: dict[str, str]) -> None:
        """The newest at or before it."""
        assert repo.snapshot(f"a@{when}").id == known[f"a{day}"]

    def test_a_time_without_a_zone_is_local(
        self, repo: Repository, known: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import time

        monkeypatch.setenv("TZ", "Asia/Jakarta")
        time.tzset()
        try:
            assert repo.snapshot("a@2026-11-02T19:00").id == known["a2"]
            assert repo.snapshot("a@2026-11-02T18:59").id == known["a1"]
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_times_that_are_none(self, repo: Repository, known: dict[str, str]) -> None:
        for when in ("yesterday", "2026-13-01", "", "99999-01-01"):
            with pytest.raises(InvalidInput, match="is not a time"):
                repo.snapshot(f"a@{when}")
        with pytest.raises(InvalidInput, match="the oldest snapshot of a is of 2026-11-01"):
            repo.snapshot("a@2020-01-01T00:00Z")

    def test_an_empty_repository(self, repo: Repository) -> None:
        for ref in ("latest", "abcd", "d@latest"):
            with pytest.raises(InvalidInput, match=r"no snapshots? "):
                repo.snapshot(ref)

    def test_filters_and_order(self, repo: Repository, known: dict[str, str], src: Path) -> None:
        other = save(repo, src, dataset="b", host="elsewhere", time=datetime(2026, 11, 2, 13, tzinfo=UTC)).snapshot
        ids = [s.id for s in repo.snapshots()]
        assert ids[0] == known["a1"] and ids[-1] == known["a3"] and set(ids) == {*known.values(), other}
        assert [s.id for s in repo.snapshots(dataset="a")] == [known["a1"], known["a2"], known["a3"]]
        assert [s.id for s in repo.snapshots(host="elsewhere")] == [other]
        assert list(repo.snapshots(dataset="a", host="elsewhere")) == []


class TestTimes:
    def test_naive_and_impossible_ones_are_refused(self, repo: Repository, src: Path) -> None:
        before = objects(repo)
        with pytest.raises(InvalidInput, match="without a zone"):
            snapvault.backup(repo, src, dataset="d", time=datetime(2026, 1, 1))
        for year in (1677, 2263):
            with pytest.raises(InvalidInput, match="cannot be of"):
                snapvault.backup(repo, src, dataset="d", time=datetime(year, 1, 1, tzinfo=UTC))
        assert objects(repo) == before

    @pytest.mark.parametrize(
        "time",
        [
            datetime(2026, 11, 24, 10, 0, 0, 123_456, tzinfo=UTC),
            datetime(2026, 11, 24, 10, 0, tzinfo=timezone(timedelta(hours=7))),
            datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC),
            datetime(1678, 1, 2, tzinfo=UTC),
            datetime(2262, 1, 1, tzinfo=UTC),
        ],
    )
    def test_aware_ones_come_back(self, time: datetime, repo: Repository, src: Path) -> None:
        snapshot = repo.snapshot(save(repo, src, time=time).snapshot)
        assert snapshot.time == time and snapshot.time.tzinfo == UTC


def test_tags_and_paths(repo: Repository, src: Path) -> None:
    save(repo, src, tags=["b", "a", "b"], host="h")
    snapshot = repo.snapshot("latest")
    assert (snapshot.tags, snapshot.paths, snapshot.host, snapshot.partial) == (("a", "b"), (str(src),), "h", False)
    assert snapshot.to_dict()["counts"]["files"] == 2
    save(repo, src, tags="one")
    assert repo.snapshot("latest").tags == ("one",)


# -- control ----------------------------------------------------------------------------------------------------------

_OPERATIONS: dict[str, Callable[[Repository, Path, Control], object]] = {
    "backup": lambda r, p, c: snapvault.backup(r, p / "src", dataset="d", force_read=True, control=c),
    "restore": lambda r, p, c: snapvault.restore(r, "latest", p / "out", control=c),
    "verify": lambda r, p, c: snapvault.restore(r, "latest", p / "out2", verify=True, control=c),
    "url": lambda r, p, c: snapvault.restore(r, "latest", f"memory://{p.name}/out", control=c),
    "stream": lambda r, p, c: snapvault.restore(r, "latest", open(os.devnull, "wb"), control=c),  # noqa: SIM115
    "check": lambda r, p, c: snapvault.check(r, read_data=True, control=c),
    "scrub": lambda r, p, c: snapvault.scrub(r.url, control=c),
}


@pytest.fixture
def full(repo: Repository, src: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with some megabytes; every report is made, however short the operation."""
    _big(src, 12)
    save(repo, src)
    monkeypatch.setattr("snapvault.foundation.events.INTERVAL", 0.0)
    return repo


@pytest.mark.parametrize("operation", _OPERATIONS)
def test_progress_is_told(operation: str, full: Repository, tmp_path: Path) -> None:
    events: list[Event] = []
    _OPERATIONS[operation](full, tmp_path, Control(progress=events.append))
    assert len(events) > 5
    kinds = {"backup": "backup", "check": "check", "scrub": "check"}
    assert {e.operation for e in events} == {kinds.get(operation, "restore")}
    assert max(e.bytes_done for e in events) > 5 << 20
    assert all(e.seconds >= 0 and e.phase for e in events)
    json.dumps([e.to_dict() for e in events])


@pytest.mark.parametrize("operation", _OPERATIONS)
def test_a_cancelled_operation_stops(operation: str, full: Repository, tmp_path: Path) -> None:
    """Before its end; it leaves no snapshot, and works when called again."""
    cancel, events = threading.Event(), []

    def progress(event: Event) -> None:
        events.append(event)
        cancel.set()

    before = [s.id for s in full.snapshots()]
    with pytest.raises(Cancelled) as e:
        _OPERATIONS[operation](full, tmp_path, Control(progress=progress, cancel=cancel))
    assert e.value.exit_code == 130 and "cancelled" in str(e.value)
    assert len(events) < 5, "it went on"
    assert [s.id for s in full.snapshots()] == before
    _OPERATIONS[operation](full, tmp_path, Control())


@pytest.mark.parametrize("operation", _OPERATIONS)
def test_cancelled_before_it_began(operation: str, full: Repository, tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        _OPERATIONS[operation](full, tmp_path, Control(cancel=cancel))


class Stop(Exception):
    pass


@pytest.mark.parametrize("operation", _OPERATIONS)
def test_an_exception_in_progress_cancels(operation: str, full: Repository, tmp_path: Path) -> None:
    """It comes out as it is."""

    def progress(event: Event) -> None:
        raise Stop

    before = [s.id for s in full.snapshots()]
    with pytest.raises(Stop):
        _OPERATIONS[operation](full, tmp_path, Control(progress=progress))
    assert [s.id for s in full.snapshots()] == before
    _OPERATIONS[operation](full, tmp_path, Control())


def test_a_cancelled_backup_is_taken_up(repo: Repository, src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was uploaded until then is indexed, and is not uploaded again."""
    _big(src, 100)
    cancel = threading.Event()

    def progress(event: Event) -> None:
        if event.bytes_done > 80 << 20:
            cancel.set()

    monkeypatch.setattr("snapvault.foundation.events.INTERVAL", 0.0)
    with pytest.raises(Cancelled):
        snapvault.backup(repo, src, dataset="d", control=Control(progress=progress, cancel=cancel))
    packs = sum(s for n, s in objects(repo).items() if n.startswith("packs/"))
    assert packs >= 32 << 20
    result = save(repo, src)
    assert result.bytes_new <= (100 << 20) - packs + (1 << 20)
    assert snapvault.check(repo).status == "ok"


def test_limits_of_threads(repo: Repository, src: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more workers than allowed do the work."""
    _big(src, 8)
    seen: dict[str, int] = {}

    def progress(event: Event) -> None:
        names = [t.name.rpartition("_")[0] for t in threading.enumerate() if "_" in t.name]
        for name in set(names):
            seen[name] = max(seen.get(name, 0), names.count(name))

    monkeypatch.setattr("snapvault.foundation.events.INTERVAL", 0.0)
    for threads in (1, 5):
        seen.clear()
        control = Control(progress=progress, limits=Limits(threads=threads))
        save(repo, src, dataset=f"d{threads}", force_read=True, control=control)
        snapvault.restore(repo, f"d{threads}@latest", tmp_path / f"{threads}", control=control)
        assert seen and seen["snapvault-fetch"] <= threads and seen.get("snapvault-seal", 0) <= threads
        if threads == 1:
            assert seen["snapvault-seal"] == 1


# -- lifetime ---------------------------------------------------------------------------------------------------------


def test_after_close(repo: Repository, src: Path) -> None:
    """Every use says so; closing twice is fine; a handle opened again works."""
    save(repo, src)
    snapshot = repo.snapshot("latest")
    with again(repo) as other:
        pass
    for handle in (other, repo):
        handle.close()
        handle.close()
        with pytest.raises(InvalidInput, match="closed"):
            list(handle.snapshots())
        with pytest.raises(InvalidInput, match="closed"):
            snapvault.backup(handle, src, dataset="d")
    with pytest.raises(InvalidInput, match="closed"):
        snapshot.open(f"{src}/ü")
    assert len(list(again(repo).snapshots())) == 1


def test_a_second_init(tmp_path: Path) -> None:
    make(tmp_path / "repo")
    with pytest.raises(InvalidInput, match="already"):
        make(tmp_path / "repo")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis").touch()
    with pytest.raises(InvalidInput, match="not empty"):
        make(tmp_path / "other")
    assert os.listdir(tmp_path / "other") == ["thesis"]


def test_threads_read_and_write_at_once(repo: Repository, src: Path, tmp_path: Path) -> None:
    """Backups, restores and reads of one handle, all at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    _big(src, 3)
    first = save(repo, src)

    def backup(i: int) -> None:
        save(repo, src, dataset=f"d{i}", force_read=True)

    def restore(i: int) -> None:
        assert snapvault.restore(repo, first.snapshot, tmp_path / f"out{i}", verify=True).status == "ok"

    def read(i: int) -> None:
        assert repo.snapshot(first.snapshot).open(f"{src}/001").read() == (src / "001").read_bytes()

    with ThreadPoolExecutor(9) as pool:
        tasks = [pool.submit(do, i) for do in (backup, restore, read) for i in range(3)]
        for task in tasks:
            task.result()
    assert len(list(repo.snapshots())) == 4
    assert snapvault.check(repo, read_data=True).status == "ok"
