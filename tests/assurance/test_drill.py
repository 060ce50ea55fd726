"""Drills: what they pass, and everything that must make them fail or say that they could not tell."""

import os
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import snapvault
from snapvault import Dataset, DrillGround, DrillResult, DrillRule, Probe, Repository
from snapvault.assurance import planted
from snapvault.assurance.drill import Before, freshness, level_of, recovery, root_of
from snapvault.assurance.outcome import FAIL, NOT_RUN, PASS
from snapvault.assurance.planted import DamagingBackend, RememberingBackend
from snapvault.assurance.probing import mutate
from snapvault.assurance.restoring import Place
from snapvault.assurance.sampling import PARTS, Sample, scatter
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.trace import TraceBackend
from snapvault.format import names
from snapvault.foundation.errors import Cancelled, InvalidInput, RoleRequired, StoreUnavailable
from snapvault.foundation.events import Control, Event
from snapvault.operations import preview
from snapvault.operations.visit import Visited
from snapvault.repository.store import Store
from snapvault.target.filesystem import FilesystemTarget
from snapvault.testing.faults import Fault, FaultyBackend
from tests.repos import SEED, SMALL, again, damage, make, objects, save, small_packs, traced

ORDERS = Dataset("orders", rpo=timedelta(hours=1), rto=timedelta(hours=1), probe=Probe("sqlite", {"rows": {"t": 500}}))
NOW = datetime.now(UTC)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    small_packs(monkeypatch, pack=65536)
    return make(tmp_path / "repo", chunking=SMALL)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "below").mkdir(parents=True)
    with closing(sqlite3.connect(root / "a.db")) as db:
        db.execute("CREATE TABLE t (x)")
        db.executemany("INSERT INTO t VALUES (?)", [(os.urandom(20),) for _ in range(500)])
        db.commit()
    for i in range(30):
        (root / "below" / f"file {i}").write_bytes(os.urandom(700))
    (root / "link").symlink_to("a.db")
    return root


@pytest.fixture
def stored(repo: Repository, source: Path) -> Repository:
    save(repo, source, dataset="orders")
    return repo


def hold(repo: Repository, level: str, dataset: Dataset = ORDERS, **options: Any) -> DrillResult:
    """One drill, after which nothing may be left."""
    scratch = Path(repo.url).parent / "scratch"
    result = snapvault.drill(again(repo), dataset, level=level, scratch=scratch, **options)
    assert list(scratch.iterdir()) == []
    return result


def values(result: DrillResult) -> dict[str, str]:
    return {step: outcome.value for step, outcome in result.steps.items()}


# -- what passes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["structure", "sample", "full", "alive"])
def test_every_level_of_a_good_dataset(stored: Repository, level: str) -> None:
    before = objects(stored)
    result = hold(stored, level)
    assert (result.status, result.outcome.value, set(values(result).values())) == ("ok", PASS, {PASS})
    steps = {*result.needed, "freshness", *(() if level == "structure" else ("recovery",))}
    assert set(result.steps) == steps and objects(stored) == before
    assert result.snapshot is not None and result.snapshot.id == again(stored).snapshot("latest").id
    assert (result.dataset, result.site, result.place, result.level) == (ORDERS, "", stored.url, level)
    assert result.blobs > 30 if level == "structure" else result.files > 0
    if level in ("full", "alive"):
        assert result.files == 31 and result.bytes > 31 * 700 and result.recovery is not None
    assert result.to_dict()["outcome"] == PASS and result.age is not None and 0 <= result.age < 3600


@pytest.mark.parametrize("level", ["structure", "sample", "full", "alive"])
def test_the_control_names_what_it_damaged(stored: Repository, level: str) -> None:
    control = hold(stored, level).control
    assert control is not None and control.outcome.value == PASS
    (hit,) = control.damages
    assert hit.object.startswith(names.PACKS) and hit.offset < objects(stored)[hit.object]
    if level == "structure":
        assert (control.path, control.caught_by, control.disk_offset) == ("/", "walk", None)
    else:
        assert (control.caught_by, control.disk_caught_by) == ("restore", "compare")
        assert control.disk_offset is not None and "/source/" in control.path


def test_a_drill_can_be_repeated_and_another_one_is_not_the_same(stored: Repository) -> None:
    one, same = hold(stored, "full"), hold(stored, "full")
    assert one.control is not None and same.control is not None
    assert one.control.damages == same.control.damages and one.seed == same.seed
    others = [hold(stored, "full", seed="mine"), hold(stored, "full", before=Before(drills=1))]
    assert all(o.control is not None and o.control.damages != one.control.damages for o in others)
    assert others[0].seed == "mine"


def test_a_copy_is_drilled_at_its_site(stored: Repository, tmp_path: Path) -> None:
    snapvault.replicate(stored.url, tmp_path / "copy")
    shutil.rmtree(Path(stored.url, "packs"))  # nothing of it comes from elsewhere
    with snapvault.open(tmp_path / "copy", keys=lambda: SEED) as copy:
        result = snapvault.drill(copy, ORDERS, site="second", scratch=tmp_path / "scratch")
    assert (result.status, result.level, result.site, result.place) == ("ok", "alive", "second", str(tmp_path / "copy"))


def test_nothing_comes_from_the_cache_of_this_machine(stored: Repository, tmp_path: Path) -> None:
    """Else it would pass where a bare machine could read nothing."""
    cache = tmp_path / "cache"
    with again(stored, cache=cache) as repo:
        snapvault.restore(repo, "latest", tmp_path / "out")
    kept = {p: p.stat().st_mtime_ns for p in cache.rglob("*")}
    repo = again(stored, cache=cache)
    store = traced(repo)
    snapvault.drill(repo, ORDERS, level="full", scratch=tmp_path / "scratch")
    read = {call.name for call in store.log if call.method == "get"}
    for prefix in (names.SNAPSHOTS, names.SESSIONS, names.INDEX, names.PACKS):
        assert any(name.startswith(prefix) for name in read), prefix
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*")} == kept


def test_several_at_once_on_one_ground(stored: Repository, tmp_path: Path) -> None:
    with DrillGround(again(stored), scratch=tmp_path / "scratch") as ground, ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda level: ground.drill(ORDERS, level), ["alive", "full", "sample", "structure"] * 2)
        )
    assert [(r.status, r.outcome.why) for r in results] == [("ok", "")] * 8
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_levels_that_are_taken_if_none_is_named() -> None:
    probe, rule = Probe("sqlite"), DrillRule(timedelta(days=1), "sample")
    assert level_of(Dataset("d")) == "full" and level_of(Dataset("d", probe=probe)) == "alive"
    assert level_of(Dataset("d", probe=probe, drill=rule)) == "sample"


# -- samples ----------------------------------------------------------------------------------------------------------


def test_samples_cover_everything_in_as_many_drills_as_there_are_parts(stored: Repository, source: Path) -> None:
    paths = [os.fsencode(p).lstrip(b"/") for p in source.rglob("*") if not p.is_dir()]
    # By one seed in three some part of so few files is empty, and gives way to the next.
    seed = next(s for s in map(str, count()) if len({scatter(s, path) % PARTS for path in paths}) == PARTS)
    results = [hold(stored, "sample", seed=seed, before=Before(samples=n)) for n in range(PARTS)]
    assert [r.part for r in results] == list(range(1, PARTS + 1)) and {r.parts for r in results} == {PARTS}
    assert sum(r.files for r in results) == 31


def test_a_file_stays_in_its_part() -> None:
    paths = [f"folder/{i}".encode() for i in range(200)]
    for path in paths:
        assert sum(Sample("seed", part).included(path, False) for part in range(PARTS)) == 1
        assert not any(Sample("seed", part).included(path, True) for part in range(PARTS))
    first = [p for p in paths if Sample("seed", 0).included(p, False)]
    assert first == [p for p in paths if Sample("seed", 0).included(p, False)]
    assert first != [p for p in paths if Sample("other", 0).included(p, False)]


def test_a_part_without_files_gives_way_to_the_next(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 3000)
    save(repo, tmp_path / "one", dataset="orders")
    parts = [hold(repo, "sample", before=Before(samples=n)) for n in range(PARTS)]
    assert {(r.status, r.files) for r in parts} == {("ok", 1)} and len({r.part for r in parts}) == 1


# -- what fails: the data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["full", "alive"])
def test_damage_in_the_store(stored: Repository, source: Path, level: str) -> None:
    damage(again(stored), f"{source}/below/file 7")
    result = hold(stored, level)
    assert (result.status, result.outcome.value, result.steps["restored"].value) == ("damaged", FAIL, FAIL)
    assert result.lost >= 1 and f"{source}/below" in result.outcome.why
    assert any(p.startswith(f"{source}/below/file 7: ") for p in result.problems)
    if level == "alive":
        assert result.steps["probe"].value == NOT_RUN and "not whole" in result.steps["probe"].why


def test_damage_that_a_sample_meets_only_when_its_turn_comes(stored: Repository, source: Path) -> None:
    damage(again(stored), f"{source}/below/file 7")
    statuses = [hold(stored, "sample", before=Before(samples=n)).status for n in range(PARTS)]
    assert "damaged" in statuses and "ok" in statuses


def test_a_pack_that_is_gone(stored: Repository, source: Path, tmp_path: Path) -> None:
    """Of data or of trees: what restores nothing sees it as well as what restores everything."""
    (source / "below" / "new").write_bytes(b"so that all trees of this snapshot lie in another pack")
    save(again(stored), source, dataset="orders")
    reasons = []
    for pack in sorted(Path(stored.url, "packs").rglob("*/*")):
        pack.rename(tmp_path / "away")
        for level in ("structure", "full"):
            result = hold(stored, level)
            assert result.outcome.value == FAIL and result.status in ("failed", "damaged")
            reasons.append(result.outcome.why)
        (tmp_path / "away").rename(pack)
    assert any("lie in no pack that is there" in why for why in reasons[::2])


def test_no_snapshot_at_all(stored: Repository) -> None:
    result = hold(stored, "full", Dataset("payments"))
    assert (result.status, result.snapshot) == ("failed", None) and "no snapshot of payments" in result.outcome.why


def test_a_snapshot_of_nothing_is_no_success(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save(repo, tmp_path / "empty", dataset="orders")
    result = hold(repo, "full")
    assert result.status == "partial" and result.steps["restored"].value == NOT_RUN


def test_a_probe_is_asked_of_nothing_too(repo: Repository, tmp_path: Path) -> None:
    """A source that was emptied comes back as it was, and is dead."""
    (tmp_path / "empty").mkdir()
    save(repo, tmp_path / "empty", dataset="orders")
    result = hold(repo, "alive")
    assert (result.status, result.steps["probe"].value) == ("failed", FAIL)


def test_the_newest_that_is_whole_is_drilled(stored: Repository, source: Path) -> None:
    """As on the board; one in part is drilled only where there is no other."""
    whole = again(stored).snapshot("latest").id
    with closing(again(stored)) as repo:
        other = snapvault.backup(repo, source, source.parent / "none", dataset="orders")
    assert other.status == "partial"
    result = hold(stored, "full")
    assert result.snapshot is not None and result.snapshot.id == whole
    snapvault.forget_snapshots(again(stored), [whole])
    result = hold(stored, "full")
    assert result.snapshot is not None and result.snapshot.id == other.snapshot


def test_what_was_written_is_compared(stored: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    restore = Place.restore

    def rot(self: Place, *given: Any) -> Any:
        back = restore(self, *given)
        for path in self._folder.rglob("file 3"):
            st = path.stat()
            path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
            os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))
        return back

    monkeypatch.setattr(Place, "restore", rot)
    result = hold(stored, "full")
    assert (result.status, result.steps["restored"].value, result.steps["compared"].value) == ("failed", PASS, FAIL)
    assert "file 3" in result.outcome.why


# -- what fails: the control ------------------------------------------------------------------------------------------


def test_a_damage_that_is_not_caught_makes_the_drill_fail(stored: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    def harmless(self: DamagingBackend, name: str, start: int = 0, length: int | None = None) -> bytes:
        self.given = True
        return self.inner.get(name, start, length)

    monkeypatch.setattr(DamagingBackend, "get", harmless)
    for level in ("structure", "sample", "full", "alive"):
        result = hold(stored, level)
        assert (result.status, result.steps["control"].value) == ("failed", FAIL)
        assert "not caught" in result.outcome.why
        assert result.control is not None and result.control.caught_by == planted.NOTHING


def test_a_damage_that_is_never_read_proves_nothing(stored: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DamagingBackend, "get", lambda self, *given: self.inner.get(*given))
    result = hold(stored, "full")
    assert result.status == "failed" and "never read" in result.outcome.why


def test_the_store_is_asked_once_for_what_comes_damaged() -> None:
    """It is read and looked for again and again, which at a distant store could take longer than the drill."""
    inner = TraceBackend(MemoryBackend())
    inner.put("packs/x", [bytes(100)])
    remembering = RememberingBackend(inner, {"packs/x"})
    damaging = DamagingBackend(remembering, [planted.Damage("packs/x", 50)])
    assert damaging.get("packs/x", 0, 50) == bytes(50) and not damaging.given
    for _ in range(3):
        assert damaging.get("packs/x", 40, 20) == bytes(10) + b"\1" + bytes(9)
        assert damaging.get("packs/x") == bytes(50) + b"\1" + bytes(49)
        assert [o.name for o in damaging.list("packs/")] == ["packs/x"]
    assert (damaging.given, inner.calls["get"], inner.calls["list"]) == (True, 3, 1)
    for start in range(planted.KEPT + 1):
        remembering.get("packs/x", start, 1)
    remembering.get("packs/x", 0, 1)
    assert inner.calls["get"] == 3 + planted.KEPT + 2, "not all that was ever read is kept"
    inner.put("packs/y", [b"y"])
    assert [damaging.get("packs/y"), damaging.get("packs/y")] == [b"y", b"y"]
    assert inner.calls["get"] == 3 + planted.KEPT + 4


def test_what_is_not_damaged_is_read_side_by_side() -> None:
    """A reload of the index reads every pack that it knows nothing of, many at once."""
    together = threading.Barrier(2)

    class Meeting(MemoryBackend):
        def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
            together.wait(60)
            return super().get(name, start, length)

    inner = Meeting()
    inner.put("packs/x", [b"x"])
    remembering = RememberingBackend(inner, {"packs/x"})
    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(remembering.get, ["packs/x"] * 2)] == [b"x", b"x"]


def test_what_cannot_be_read_back_is_not_compared(stored: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where somebody who is not root drills folders that let nobody in: that is unknown, and not good."""
    look = preview.Preview._look_at

    def closed(self: preview.Preview, at: Visited) -> preview._Entry:
        return preview._Entry(at, error=PermissionError(13, "denied")) if b"file 3" in at.path else look(self, at)

    monkeypatch.setattr(FilesystemTarget, "read_plain", lambda self, folder, files: [None] * len(files))
    monkeypatch.setattr(preview.Preview, "_look_at", closed)
    monkeypatch.setattr(preview, "is_root", lambda: False)
    result = hold(stored, "full")
    assert (result.steps["compared"].value, result.outcome.value) == (NOT_RUN, NOT_RUN)
    assert "could not be looked at without root" in result.steps["compared"].why


def test_a_comparison_that_sees_nothing_makes_the_drill_fail(
    stored: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "compare", lambda *_: [])
    result = hold(stored, "full")
    assert result.status == "failed" and result.control is not None
    assert (result.control.caught_by, result.control.disk_caught_by) == ("restore", planted.NOTHING)


def test_a_blob_that_lies_at_two_places_is_damaged_at_both(
    stored: Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the other copy would save the day, and the control would seem to be missed."""
    for pack in Path(stored.url, "packs").rglob("*/*"):
        pack.rename(pack.with_suffix(".away"))
    save(again(stored), source, dataset="orders")
    for pack in Path(stored.url, "packs").rglob("*.away"):
        pack.rename(pack.with_suffix(""))
    result = hold(stored, "full")
    assert result.status == "ok" and result.control is not None and len(result.control.damages) == 2


# -- what fails: age and time -----------------------------------------------------------------------------------------


def test_old_data_breaches_the_objective(repo: Repository, source: Path) -> None:
    save(repo, source, dataset="orders", time=NOW - timedelta(days=60))
    for level in ("structure", "full", "alive"):
        result = hold(repo, level)
        assert (result.status, result.outcome.value, result.breached) == ("breached", FAIL, ("freshness",))
        assert "60 days old, and may be 60 min" in result.outcome.why


def test_a_snapshot_that_stands_still_while_time_goes_on(stored: Repository) -> None:
    """Even without an objective: a drill has seen a newer one here."""
    seen = Before(drills=3, newest=NOW + timedelta(hours=2))
    result = hold(stored, "full", Dataset("orders"), before=seen)
    assert result.breached == ("freshness",) and "plays back an old state" in result.outcome.why


def test_a_snapshot_from_the_future(repo: Repository, source: Path) -> None:
    save(repo, source, dataset="orders", time=NOW + timedelta(days=3))
    assert "still to come" in hold(repo, "full").outcome.why


def test_nothing_promised_is_nothing_breached(stored: Repository) -> None:
    result = hold(stored, "full", Dataset("orders"))
    assert result.status == "ok" and values(result)["freshness"] == values(result)["recovery"] == NOT_RUN


def test_what_takes_too_long(stored: Repository) -> None:
    result = hold(stored, "full", Dataset("orders", rto=timedelta(microseconds=1)))
    assert (result.status, result.breached) == ("breached", ("recovery",)) and "(RTO)" in result.outcome.why


@pytest.mark.parametrize(("over", "value"), [(0, PASS), (1, FAIL)], ids=["at the limit", "just over"])
def test_an_objective_is_met_at_its_limit(stored: Repository, over: int, value: str) -> None:
    snapshot, hour = again(stored).snapshot("latest"), timedelta(hours=1)
    assert freshness(snapshot, hour, snapshot.time + hour + timedelta(microseconds=over), None).value == value
    assert recovery({"open": 1, "restore": 3_599_000, "probe": 999 + over}, hour).value == value
    ahead = freshness(snapshot, hour, snapshot.time - timedelta(days=1, microseconds=over), None)
    assert ahead.value == value


def test_failure_stands_before_a_breach(repo: Repository, source: Path) -> None:
    save(repo, source, dataset="orders", time=NOW - timedelta(days=60))
    dataset = Dataset("orders", rpo=timedelta(hours=1), probe=Probe("sqlite", {"rows": {"t": 501}}))
    result = hold(repo, "alive", dataset)
    assert result.status == "failed" and result.breached == ("freshness",)


# -- the probe --------------------------------------------------------------------------------------------------------


def probed(repo: Repository, probe: Probe | None) -> DrillResult:
    return hold(repo, "alive", Dataset("orders", probe=probe))


def test_a_probe_that_fails(stored: Repository) -> None:
    result = probed(stored, Probe("sqlite", {"rows": {"t": 501}}))
    assert (result.status, result.outcome.value) == ("failed", FAIL) and "500 rows" in result.outcome.why
    assert result.probe is not None and result.probe.on_empty == result.probe.on_mutated == ""


@pytest.mark.parametrize(
    ("script", "where"),
    [
        ("exit 0", "an empty folder and on a mutated copy"),
        ("test ! -e a.db || head -c 15 a.db | grep -q SQLite", "an empty folder"),
        ("test -s a.db", "a mutated copy"),
        ("test $(ls below | wc -l) -eq 30 && test $(stat -c %s 'below/file 1') -eq 700", "a mutated copy"),
    ],
    ids=["always", "whatever is there", "the name", "counts and sizes"],
)
def test_a_probe_that_proves_nothing_is_not_run(stored: Repository, script: str, where: str) -> None:
    result = probed(stored, Probe("command", {"argv": ["sh", "-c", script]}))
    assert (result.status, result.steps["probe"].value, result.outcome.value) == ("partial", NOT_RUN, NOT_RUN)
    assert f"passes on {where}" in result.outcome.why


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("mv {root} {root}.old; ln -s OUTSIDE {root}", "put something else in place of the folder"),
        ("rm -r {root}; exit 0", "put something else in place of the folder"),
        ("ls a.db || { cd ..; mv source.aside a; ln -s OUTSIDE source.aside; false; }", "put something else in place"),
        ("d={root}; d=${d%%/restored/*}; rm -f $d/output*; mkdir $d/output; exit 0", "also passes on an empty folder"),
        ("test -e a.db || exit 77; head -c 15 a.db | grep -q SQLite", "could not tell on an empty folder"),
    ],
    ids=["link", "gone", "link aside", "output", "skips"],
)
def test_a_probe_that_cannot_be_asked_where_it_must_fail(
    stored: Repository, tmp_path: Path, script: str, why: str
) -> None:
    """And none is asked on what nobody restored."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.db").write_text("mine" * 100)
    result = probed(stored, Probe("command", {"argv": ["sh", "-c", script.replace("OUTSIDE", str(outside))]}))
    assert (result.status, result.steps["probe"].value) == ("partial", NOT_RUN) and why in result.outcome.why
    assert (outside / "a.db").read_text() == "mine" * 100


def test_what_has_a_name_elsewhere_is_not_mutated(tmp_path: Path) -> None:
    """Without walls a probe could link what it was not given."""
    (tmp_path / "root").mkdir()
    for name in ("mine", "root/one"):
        (tmp_path / name).write_text("as it was")
    (tmp_path / "root/linked").hardlink_to(tmp_path / "mine")
    (tmp_path / "root/two").hardlink_to(tmp_path / "root/one")
    mutate(tmp_path / "root", "seed")
    assert (tmp_path / "mine").read_text() == "as it was"
    assert (tmp_path / "root/one").read_bytes() == (tmp_path / "root/two").read_bytes() != b"as it was"


def test_a_probe_that_tells(stored: Repository) -> None:
    result = probed(stored, Probe("command", {"argv": ["sh", "-c", "head -c 15 a.db | grep -q SQLite"]}))
    assert result.status == "ok" and result.probe is not None
    assert (result.probe.on_empty, result.probe.on_mutated) == (FAIL, FAIL)


@pytest.mark.parametrize(
    ("probe", "why"),
    [
        (None, "no probe is declared"), (Probe("magic"), "no probe of the kind 'magic'"),
        (Probe("sqlite", {"tabels": {}}), "unknown field `tabels`"),
        (Probe("command", {"argv": ["no-such"]}), "no-such"),
        (Probe("command", {"argv": ["sh", "-c", "exit 77"]}), "could not tell"),
    ],
    ids=["none", "kind", "options", "program", "skipped"],
)  # fmt: skip
def test_a_probe_that_is_missing_or_skipped_is_not_run(stored: Repository, probe: Probe | None, why: str) -> None:
    result = probed(stored, probe)
    assert (result.status, result.steps["probe"].value, result.steps["restored"].value) == ("partial", NOT_RUN, PASS)
    assert why in result.outcome.why


def test_a_probe_that_hangs_fails_and_others_go_on(stored: Repository, tmp_path: Path) -> None:
    hanging = Dataset("orders", probe=Probe("command", {"argv": ["sleep", "1000"]}, timedelta(seconds=0.2)))
    with DrillGround(again(stored), scratch=tmp_path / "scratch") as ground:
        results = [ground.drill(hanging, "alive"), ground.drill(ORDERS, "alive")]
    assert [r.status for r in results] == ["failed", "ok"] and "did not end" in results[0].outcome.why


def test_where_the_data_of_a_probe_is(repo: Repository, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    place = tmp_path / "place"
    for sources, expected in (((one,), one), ((one / "file",), one), ((one, two), Path("/"))):
        save(again(repo), *sources)
        snapshot = again(repo).snapshot("latest")
        snapvault.restore(again(repo), "latest", place)
        assert root_of(snapshot, place) == Path(f"{place}{expected}".rstrip("/"))
    shutil.rmtree(f"{place}{one}")
    Path(f"{place}{one}").symlink_to("/etc")  # what a hostile snapshot could hold
    save(again(repo), one)
    assert root_of(again(repo).snapshot("latest"), place) in (place, Path(f"{place}{tmp_path}"))


# -- who, where, and what goes wrong on the way -----------------------------------------------------------------------


def test_who_may(stored: Repository, tmp_path: Path) -> None:
    for role in ("reader", "maintainer", "writer", "site"):
        snapvault.add_key(again(stored), role, role, file=tmp_path / role)
        with snapvault.open(stored.url, keys=snapvault.KeyFile(tmp_path / role)) as repo:
            if role in ("reader", "maintainer"):
                assert snapvault.drill(repo, ORDERS, level="full", scratch=tmp_path / "scratch").status == "ok"
            else:
                with pytest.raises(RoleRequired, match="drill"):
                    snapvault.drill(repo, ORDERS, level="full", scratch=tmp_path / "scratch")


def test_a_level_that_is_none(stored: Repository) -> None:
    with pytest.raises(InvalidInput, match="levels are"):
        hold(stored, "half")


def test_a_dataset_that_is_larger_than_the_quota(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(3_000_000))
    save(repo, tmp_path / "large", dataset="orders")
    result = hold(repo, "full", quota=1_000_000)
    assert (result.status, result.exit_code) == ("partial", 1) and "1,000,000 bytes" in result.outcome.why
    assert hold(repo, "full", quota=50_000_000).status == "ok"


def failing(repo: Repository, *plan: Fault) -> Repository:
    opened = again(repo)
    opened.vault._store = Store(FaultyBackend(opened.vault.backend, plan), opened.vault.cache)
    return opened


def test_a_store_that_fails_is_no_verdict_and_the_next_drill_goes_on(stored: Repository, tmp_path: Path) -> None:
    repo = failing(stored, Fault(method="get", prefix=names.PACKS, error=StoreUnavailable("the line is cut")))
    with DrillGround(repo, scratch=tmp_path / "scratch") as ground:
        results = [ground.drill(ORDERS, "full") for _ in range(2)]
    assert [(r.status, r.exit_code) for r in results] == [("partial", 1), ("ok", 0)]
    assert results[0].outcome.value == NOT_RUN and "the line is cut" in results[0].outcome.why


def test_a_drill_that_is_cancelled(stored: Repository, tmp_path: Path) -> None:
    cancel = threading.Event()

    def stop(event: Event) -> None:
        cancel.set()

    control = Control(progress=stop, cancel=cancel)
    with pytest.raises(Cancelled):
        snapvault.drill(again(stored), ORDERS, level="full", scratch=tmp_path / "scratch", control=control)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_damage_where_damage_was_to_be_planted(
    stored: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drill has failed by then; the control says that it could not be done, and no more."""

    def fail(*_: object) -> None:
        raise snapvault.Damaged("a blob cannot be read")

    monkeypatch.setattr(planted.Planter, "_pick", fail)
    result = hold(stored, "full")
    assert result.status == "partial" and result.steps["control"].value == NOT_RUN


def test_names_that_are_no_text_do_not_stop_the_evidence(repo: Repository, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    (tmp_path / name).write_bytes(os.urandom(900))
    save(repo, tmp_path / name, dataset="orders")
    damage(again(repo), f"{tmp_path}/{name}")
    result = hold(repo, "full")
    assert result.status == "damaged"
    (signed,) = snapvault.record_evidence(again(repo), [result])
    assert "\\udcff" in signed.result["problems"][0]
