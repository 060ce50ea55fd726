"""Local state: a cache that is never believed unchecked, and pins that catch an old state."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from blake3 import blake3

import snapvault
from snapvault import PruneLimits, Retention
from snapvault.backend.memory import MemoryBackend
from snapvault.format import names
from snapvault.format.wire import DIGEST_SIZE, Kind, frame
from snapvault.foundation.ids import SessionId
from snapvault.repository.cache import Cache
from snapvault.repository.pins import Pins
from snapvault.repository.store import Store
from tests.repos import again, flipped, make, save

KEY = b"k" * 32


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c")
    cache.put("objects/a/b", b"one", b"two")
    assert cache.get("objects/a/b") == b"onetwo"
    cache.put_sealed("tables/x", KEY, [b"one", b"two"])
    kept = cache.get_sealed("tables/x", KEY)
    assert kept is not None
    assert bytes(kept) == b"onetwo"


@pytest.mark.parametrize("position", [0, 3, 10, -1])
def test_an_altered_entry_is_not_believed(tmp_path: Path, position: int) -> None:
    cache = Cache(tmp_path)
    cache.put_sealed("x", KEY, [b"0123456789abcdef"])
    data = bytearray((tmp_path / "x").read_bytes())
    data[position] ^= 1
    (tmp_path / "x").write_bytes(data)
    assert cache.get_sealed("x", KEY) is None
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("invented", [True, False])
def test_entries_that_somebody_replaced(tmp_path: Path, *, invented: bool) -> None:
    """By what ends in a right digest: an invention, or another object of the kind.  The store is asked then."""
    (tmp_path / "file").write_bytes(b"content")
    repo = make(tmp_path / "repo", cache=tmp_path / "cache")
    wanted = [save(repo, tmp_path / "file").snapshot for _ in range(3)]
    again(repo, cache=tmp_path / "cache").snapshot("latest")
    for kind in ("snapshots", "sessions"):
        kept = sorted((tmp_path / "cache").glob(f"*/objects/*/{kind}/*"))
        contents = [path.read_bytes() for path in kept]
        assert len(kept) == 3
        for path, data in zip(kept, contents[1:] + contents[:1], strict=True):
            body = bytearray(data[:-DIGEST_SIZE])
            body[-1] ^= invented
            path.write_bytes(bytes(body) + blake3(body).digest())
    with again(repo, cache=tmp_path / "cache") as anew:
        assert {snapshot.id for snapshot in anew.snapshots()} == set(wanted)
        assert snapvault.check(anew, read_data=True).status == "ok"


def test_what_one_endpoint_says_is_not_kept_for_another(tmp_path: Path) -> None:
    """Two buckets of one name: what opens them is the same URL, the endpoint is in the options."""
    cache, name = Cache(tmp_path), names.snapshot(SessionId("0" * 32))

    class Bucket(MemoryBackend):
        address = "s3://bucket/repo"

    for endpoint in ("here", "there"):
        data, bucket = frame(Kind.SNAPSHOT, endpoint), Bucket(endpoint)
        bucket.put(name, [data])
        assert Store(bucket, cache).immutable(name) == data == Store(bucket, cache).immutable(name)


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put_sealed("x", KEY, [b"data"])
    assert cache.get_sealed("x", b"o" * 32) is None


def test_no_folder_and_no_rights_mean_not_cached(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for cache in (Cache(None), Cache(tmp_path / "file" / "below")):
        cache.put("x", b"data")
        cache.put_sealed("y", KEY, [b"data"])
        assert cache.get("x") is None
        assert cache.get_sealed("y", KEY) is None
        assert cache.names("") == []


def test_trimming_keeps_the_newest(tmp_path: Path) -> None:
    import os

    cache = Cache(tmp_path)
    for n in range(5):
        cache.put(f"f{n}", bytes(100))
        os.utime(tmp_path / f"f{n}", (n, n))
    cache.put("tables/t", bytes(1000))
    cache.trim(250)
    assert cache.names("") == ["f3", "f4", "tables"]
    for n in range(5, 8):
        cache.put(f"f{n}", bytes(100))
        os.utime(tmp_path / f"f{n}", (n, n))
        cache.trim(250)
        assert cache.names("") == [f"f{n - 1}", f"f{n}", "tables"]
    assert cache.names("tables/") == ["tables/t"]


def test_pins_survive_and_are_kept_by_place(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "s", "here")
    pins.site.keyset, pins.site.records[SessionId("a" * 32)] = 3, "d"
    pins.save()
    assert Pins(tmp_path / "s", "here").site.records == {"a" * 32: "d"}
    assert Pins(tmp_path / "s", "there").site.records == {}
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_broken_pins_are_no_pins(tmp_path: Path) -> None:
    (tmp_path / "pins.json").write_text('{"here": ')
    assert Pins(tmp_path, "here").site.keyset == 0


def test_a_snapshot_that_was_seen_and_is_gone_is_reported(tmp_path: Path) -> None:
    made = snapvault.init(str(tmp_path / "r"), password="x", state=tmp_path / "state")
    (tmp_path / "f").write_text("data")
    with made.repository as repo:
        first = snapvault.backup(repo, tmp_path / "f", dataset="d")
        second = snapvault.backup(repo, tmp_path / "f", dataset="d")
    (tmp_path / "r" / "snapshots" / second.snapshot).unlink()
    with snapvault.open(str(tmp_path / "r"), password="x", state=tmp_path / "state") as repo:
        report = snapvault.check(repo)
        assert report.status == "damaged"
        assert any(second.snapshot in f.message for f in report.findings)
        third = snapvault.backup(repo, tmp_path / "f", dataset="d")
        assert any(second.snapshot in w for w in third.warnings)
    with snapvault.open(str(tmp_path / "r"), password="x") as repo:  # without pins nobody can know
        assert [s.id for s in repo.snapshots()] == [first.snapshot, third.snapshot]
    (pins,) = (tmp_path / "state").rglob("pins.json")
    assert json.loads(pins.read_text())


def test_what_is_forgotten_once_more_with_less_time_is_gone_for_others_too(tmp_path: Path) -> None:
    """Though they have read, and cached, when it was to be gone."""
    repo, options = make(tmp_path / "repo"), {"cache": tmp_path / "cache", "state": tmp_path / "state"}
    (tmp_path / "file").write_text("text")
    victim = save(repo, tmp_path / "file").snapshot
    (Path(repo.url) / names.snapshot(SessionId(victim))).write_bytes(b"damaged")
    snapvault.forget_snapshots(again(repo), [victim])
    for _ in range(2):
        with again(repo, **options) as other:
            assert snapvault.check(other).status == "damaged" and other.vault.commit_slots()[1]
    snapvault.forget_snapshots(again(repo), [victim], undelete_window=timedelta(0))
    with again(repo, **options) as other:
        assert snapvault.check(other).status == "ok" and not other.vault.commit_slots()[1]
        assert snapvault.plan_prune(other).execute().status == "ok"


def test_what_is_forgotten_anew_can_be_brought_back_as_was_said(tmp_path: Path) -> None:
    """Also where somebody has cached a tombstone that was due, which was damaged and put anew since."""
    repo, options = make(tmp_path / "repo"), {"cache": tmp_path / "cache", "state": tmp_path / "state"}
    (tmp_path / "file").write_text("text")
    victim = save(repo, tmp_path / "file").snapshot
    plan, tombstone = snapvault.plan_forget(again(repo), Retention(tags=("none",), minimum=0)), names.tombstone(victim)
    snapvault.forget_snapshots(repo, [victim], undelete_window=timedelta(0))
    with again(repo, **options) as other:
        assert not list(other.snapshots())
    (Path(repo.url) / tombstone).write_bytes(flipped((Path(repo.url) / tombstone).read_bytes()))
    assert plan.execute(undelete_window=timedelta(days=30)).forgotten == (victim,)
    with again(repo, **options) as other:
        assert not snapvault.plan_prune(other, limits=PruneLimits(unused=0)).execute(wait=timedelta(0)).packs_removed
    assert snapvault.undelete(again(repo), victim).original == victim


def test_what_a_removed_maintainer_said_last_stays(tmp_path: Path) -> None:
    """Not what the owner had cached of it."""
    repo, options = make(tmp_path / "repo"), {"cache": tmp_path / "cache", "state": tmp_path / "state"}
    (tmp_path / "file").write_text("text")
    victim, _ = (save(repo, tmp_path / "file").snapshot for _ in range(2))
    snapvault.add_key(repo, "maintainer", "m", file=tmp_path / "m.json")
    with (
        snapvault.open(repo.url, keys=snapvault.KeyFile(tmp_path / "m.json"), state=tmp_path / "m") as m,
        again(repo, **options) as owner,
    ):
        for plan, days in [(snapvault.plan_forget(m, Retention(last=1)), days) for days in (30, 1)]:
            assert plan.execute(undelete_window=timedelta(days=days)).forgotten == (victim,)
            assert len(list(owner.snapshots())) == 1
        snapvault.remove_key(owner, "m")
    (tombstone,) = again(repo).vault.history.tombstones()[0].values()
    assert tombstone.not_before - tombstone.created == 86_400 * 10**9


def test_what_a_cached_tombstone_did_not_mean_is_looked_at_again(tmp_path: Path) -> None:
    """A damaged record was forgotten, the true one came back, and is forgotten, too."""
    repo, options = make(tmp_path / "repo"), {"cache": tmp_path / "cache", "state": tmp_path / "state"}
    (tmp_path / "file").write_text("text")
    victim = save(repo, tmp_path / "file").snapshot
    record = Path(repo.url) / names.snapshot(SessionId(victim))
    good = record.read_bytes()
    record.write_bytes(flipped(good))
    snapvault.forget_snapshots(again(repo), [victim], undelete_window=timedelta(0))
    with again(repo, **options) as other:
        assert not list(other.snapshots())
    record.write_bytes(good)
    with again(repo, **options) as other:
        assert [s.id for s in other.snapshots()] == [victim]
    snapvault.forget_snapshots(again(repo), [victim])
    with again(repo, **options) as other:
        assert not list(other.snapshots())


def test_an_older_keyset_is_refused_by_writers_and_reported(tmp_path: Path) -> None:
    made = snapvault.init(str(tmp_path / "r"), password="x", state=tmp_path / "state")
    with made.repository as repo:
        snapvault.rotate(repo)
    (tmp_path / "r" / "keyset" / "2").unlink()
    with snapvault.open(str(tmp_path / "r"), password="x", state=tmp_path / "state") as repo:
        with pytest.raises(snapvault.Damaged, match="keyset"):
            snapvault.backup(repo, tmp_path, dataset="d")
        assert snapvault.check(repo).status == "damaged"
