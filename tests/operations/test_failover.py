"""A reader who knows several places gets everything that one of them has whole (battery, family 13)."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from blake3 import blake3

import snapvault
from snapvault import Repository, RestoreResult, Site
from snapvault.backend.limit import LimitBackend
from snapvault.backend.local import LocalBackend
from snapvault.backend.protocol import Backend, ObjectInfo
from snapvault.backend.wrapper import Wrapper
from snapvault.format import names
from snapvault.format.wire import DIGEST_SIZE
from snapvault.foundation.errors import Damaged, StoreUnavailable
from snapvault.repository import places
from tests.repos import SEED, again, contents, make, objects, save, varied, with_copy
from tests.servers import moto_s3


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return varied(tmp_path / "source")


@pytest.fixture
def repo(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """With a copy beside it; many small packs.  Both are near, though a request may take a while."""
    monkeypatch.setattr(places, "NEAR", 10.0)
    return with_copy(source, tmp_path, monkeypatch)


@pytest.fixture
def copy(repo: Repository, tmp_path: Path) -> Path:
    return tmp_path / "copy"


def both(repo: Repository, *sites: Path | str, **options: Any) -> Repository:
    return snapvault.open(repo.url, keys=lambda: SEED, sites=[Site(str(s)) for s in sites], **options)


def restored(opened: Repository, source: Path, tmp_path: Path) -> RestoreResult:
    """A restore that must be whole."""
    out = tmp_path / "out"
    result = snapvault.restore(opened, "latest", out)
    assert result.status == "ok", result
    assert contents(Path(f"{out}{source}")) == contents(source)
    shutil.rmtree(out)
    return result


def flip(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def packs(place: str | Path) -> list[Path]:
    return sorted(p for p in Path(place, "packs").rglob("*") if p.is_file())


def test_damage_to_disjoint_halves(repo: Repository, copy: Path, source: Path, tmp_path: Path) -> None:
    common = sorted(n for n in objects(repo) if not n.startswith(names.LOCAL))
    assert len(common) > 12
    for number, name in enumerate(common):
        flip((copy if number % 2 else Path(repo.url)) / name)
    result = restored(both(repo, copy), source, tmp_path)
    assert {p.place for p in result.came_from} == {repo.url, str(copy)}
    assert all(place.bytes and not place.silent for place in result.came_from)
    half = {n for i, n in enumerate(common) if i % 2 == 0}
    assert result.came_from[0].lacking and set(result.came_from[0].lacking) <= half


def test_one_pack_damaged_in_another_segment_at_each(
    repo: Repository, copy: Path, source: Path, tmp_path: Path
) -> None:
    """Each of the two has parts of it that only it has whole."""
    found = {p: {s.start: s.sealed for s in _segments(repo, p.name)} for p in packs(repo.url)}
    big, starts = max(found.items(), key=lambda item: len(item[1]))  # threads share the segments out by chance
    assert len(starts) > 1
    (first, size), (last, other) = min(starts.items()), max(starts.items())
    flip(big, first + size // 2)
    flip(copy / big.relative_to(repo.url), last + other // 2)
    restored(both(repo, copy), source, tmp_path)
    snapshot = both(repo, copy).snapshot("latest")
    for path in sorted(source.iterdir()):  # one by one: what is damaged at one place is looked for at the other first
        with snapshot.open(str(path)) as file:
            assert file.read() == path.read_bytes()


def _segments(repo: Repository, pack: str) -> list[Any]:
    reader = repo.snapshot("latest").reader()
    found = {}
    for entry in repo.snapshot("latest").ls("/", recursive=True):
        for place in reader.locate(entry.node.content.ids) if entry.kind == "file" else ():
            if place.pack.id.hex() == pack:
                found[place.start] = place
    return list(found.values())


def test_the_same_pack_damaged_at_both_names_its_files(repo: Repository, copy: Path, tmp_path: Path) -> None:
    pack = packs(repo.url)[0].relative_to(repo.url)
    for place in (Path(repo.url), copy):
        (place / pack).write_bytes(bytes((place / pack).stat().st_size))
    alone = snapvault.restore(both(repo), "latest", tmp_path / "alone")
    result = snapvault.restore(both(repo, copy), "latest", tmp_path / "out")
    assert result.status == "damaged" and result.lost == alone.lost


@pytest.mark.parametrize("what", [names.PACKS, names.INDEX, names.SNAPSHOTS, names.SESSIONS, names.KEYSETS, "config"])
def test_what_is_missing_at_the_first(repo: Repository, copy: Path, source: Path, tmp_path: Path, what: str) -> None:
    gone = Path(repo.url, what)
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    restored(both(repo, copy), source, tmp_path)


def test_the_newest_keyset_is_missing_at_the_first(repo: Repository, copy: Path, source: Path, tmp_path: Path) -> None:
    """What was written since is sealed to keys that only the other place tells of."""
    snapvault.rotate(again(repo))
    (source / "new").write_bytes(b"new")
    newest = save(again(repo), source).snapshot
    snapvault.replicate(repo.url, str(copy))
    Path(repo.url, names.keyset(2)).unlink()
    state, before = tmp_path / "state", objects(repo)
    with both(repo, copy, state=state) as opened:
        assert opened.snapshot("latest").id == newest
        restored(opened, source, tmp_path)
        with pytest.raises(Damaged, match="lacks keyset 2") as e:  # nobody could open it here alone
            save(opened, source)
    assert "check --repair-from" in e.value.hint and objects(repo) == before
    assert save(again(repo, state=state), source).status == "ok"  # no keyset was pinned that was never seen here


@pytest.mark.parametrize("how", ["header", "directory", "cut short"])
def test_packs_of_a_lost_index_object_whose_own_directories_are_damaged_at_the_first(
    repo: Repository, copy: Path, source: Path, tmp_path: Path, how: str
) -> None:
    shutil.rmtree(Path(repo.url, names.INDEX))
    for pack in packs(repo.url):
        if how == "cut short":
            pack.write_bytes(pack.read_bytes()[:-100])
        else:
            flip(pack, 40 if how == "header" else -100)
    restored(both(repo, copy), source, tmp_path)


def test_the_first_is_gone_from_the_beginning(repo: Repository, copy: Path, source: Path, tmp_path: Path) -> None:
    shutil.rmtree(repo.url)
    opened = both(repo, copy)
    result = restored(opened, source, tmp_path)
    assert [p.bytes > 0 for p in result.came_from] == [True, False] and result.came_from[1].silent
    with pytest.raises(snapvault.RepositoryNotFound):
        snapvault.backup(opened, source, dataset="d")


def test_the_first_is_encrypted_in_place(repo: Repository, copy: Path, source: Path, tmp_path: Path) -> None:
    for name, size in objects(repo).items():
        Path(repo.url, name).write_bytes(Random(name).randbytes(size))
    result = restored(both(repo, copy), source, tmp_path)
    assert result.came_from[0].place == str(copy) and not result.came_from[0].lacking


class _Dies:
    """A local place that answers so many reads of packs, and then no call any more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, url: str, after: int) -> None:
        self.left, get, listing = after, LocalBackend.get, LocalBackend.list

        def dying(backend: LocalBackend, name: str, start: int = 0, length: int | None = None) -> bytes:
            self.left -= backend.url == url and name.startswith(names.PACKS)
            if backend.url == url and self.left < 0:
                raise StoreUnavailable("no route to host")
            return get(backend, name, start, length)

        def dead(backend: LocalBackend, prefix: str = "") -> Iterator[Any]:
            if backend.url == url and self.left < 0:
                raise StoreUnavailable("no route to host")
            return listing(backend, prefix)

        monkeypatch.setattr(LocalBackend, "get", dying)
        monkeypatch.setattr(LocalBackend, "list", dead)


def test_a_place_that_dies_in_the_middle(
    repo: Repository, copy: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = _Dies(monkeypatch, repo.url, 4)
    result = restored(both(repo, copy), source, tmp_path)
    assert dies.left < 0
    first, second = result.came_from
    assert first.bytes and first.silent == "no route to host" and second.bytes and not second.silent


def test_what_one_lacks_while_the_other_is_silent_is_lost_and_says_so(
    repo: Repository, copy: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = both(repo, copy)
    opened.snapshot("latest")  # while both are there
    packs(copy)[0].unlink()
    _Dies(monkeypatch, repo.url, 0)
    result = snapvault.restore(opened, "latest", tmp_path / "out")
    assert result.status == "damaged" and "no route to host" in result.lost[0].message


def test_a_server_that_is_killed_in_the_middle_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "s3").mkdir()
    (tmp_path / "big").write_bytes(Random(1).randbytes(12 << 20))
    with moto_s3(tmp_path / "s3") as fresh:
        url, options = fresh()
        repo = snapvault.init(url, keys=lambda: SEED, storage_options=options).repository
        save(repo, tmp_path / "big")
        snapvault.replicate(Site(url, options), str(tmp_path / "copy"))
        near = Site(url, options)
        opened = snapvault.open(url, keys=lambda: SEED, storage_options=options, sites=[Site(str(tmp_path / "copy"))])
        file = opened.snapshot("latest").open(str(tmp_path / "big"))
        begin = file.read(3 << 20)
    assert begin + file.read() == (tmp_path / "big").read_bytes(), near
    out = io.BytesIO()
    result = snapvault.restore(opened, opened.snapshot("latest"), out, path=str(tmp_path / "big"))
    assert out.getvalue() == (tmp_path / "big").read_bytes() and result.came_from[1].bytes


def test_a_backup_relies_on_the_first_place_alone(repo: Repository, copy: Path, source: Path, tmp_path: Path) -> None:
    """What another place holds is no reason to store less here, and a check says what is missing here."""
    for pack in packs(repo.url):
        pack.unlink()
    opened = both(repo, copy)
    assert snapvault.check(opened).status == "damaged"
    result = snapvault.backup(opened, source, dataset="d", force_read=True)
    assert result.bytes_new > 100_000
    restored(again(repo), source, tmp_path)


def test_nothing_is_pinned_of_the_first_that_was_seen_elsewhere(
    repo: Repository, copy: Path, tmp_path: Path, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    for slot in Path(repo.url, names.SNAPSHOTS).iterdir():
        slot.unlink()
    with both(repo, copy, state=state) as opened:
        assert len(list(opened.snapshots())) == 1
    with snapvault.open(repo.url, keys=lambda: SEED, state=state) as alone:
        assert not list(alone.snapshots())
    assert "plays back" not in caplog.text


def test_the_nearer_one_is_read(
    repo: Repository, copy: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = Site.open

    def far(site: Site, **options: Any) -> Any:
        backend = opens(site, **options)
        return LimitBackend(backend, latency=2.5) if site.url == repo.url else backend

    monkeypatch.setattr(Site, "open", far)
    monkeypatch.setattr(places, "NEAR", 0.5)
    result = restored(both(repo, copy), source, tmp_path)
    assert [(p.place, p.bytes > 0) for p in result.came_from] == [(str(copy), True), (repo.url, False)]


def test_nearness_has_classes() -> None:
    assert places.NEAR == 0.025
    assert [places._distance(s) for s in (0.0, 0.024, 0.09, 0.2, 1.0)] == [0, 0, 0, 1, 2]


def test_another_repository_at_the_second_hides_nothing(
    repo: Repository, copy: Path, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(copy)
    make(copy)
    result = restored(both(repo, copy), source, tmp_path)
    assert [bool(place.bytes) for place in result.came_from] == [True, False]
    said = f"{copy} holds another repository"
    assert result.came_from[1].silent == said and said in caplog.text


def test_another_repository_at_the_first_hides_nothing(
    repo: Repository, copy: Path, source: Path, tmp_path: Path
) -> None:
    """And nothing is written there with the keys of the one that was opened."""
    shutil.rmtree(repo.url)
    snapvault.init(repo.url, keys=lambda: bytes(32))
    opened = both(repo, copy)
    assert opened.id == repo.id
    restored(opened, source, tmp_path)
    with pytest.raises(snapvault.RepositoryNotFound, match="another repository"):
        snapvault.backup(opened, source, dataset="d")


FORGED = (names.CONFIG, names.KEYSETS, names.SLOTS, names.SESSIONS, names.INDEX, names.SNAPSHOTS, "")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("prefix", FORGED)
def test_what_somebody_invented_at_one_place(
    repo: Repository, copy: Path, source: Path, tmp_path: Path, prefix: str, *, first: bool
) -> None:
    """Its digest is right, for anybody can make one; only who signed it, or what it opens to, tells."""
    lying, sound = (Path(repo.url), copy) if first else (copy, Path(repo.url))
    wanted = [n for n in objects(repo) if n.startswith(prefix) and not n.startswith((names.PACKS, names.LOCAL))]
    framed = [n for n in wanted if not n.startswith(names.RESCUE)]
    assert framed
    for name in framed:
        body = bytearray((lying / name).read_bytes()[:-DIGEST_SIZE])
        body[len(body) // 2] ^= 1
        (lying / name).write_bytes(bytes(body) + blake3(body).digest())
    known = both(repo, copy) if first else snapvault.open(copy, keys=lambda: SEED, sites=[Site(repo.url)])
    restored(known, source, tmp_path)
    restored(snapvault.open(sound, keys=lambda: SEED, sites=[Site(str(lying))]), source, tmp_path)


@pytest.mark.parametrize("size", [-5, 1 << 40])
def test_a_place_that_lists_impossible_sizes(
    repo: Repository, copy: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    class Lying(Wrapper):
        def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
            return (ObjectInfo(o.name, size) for o in self.inner.list(prefix))

    opens = Site.open

    def opened(site: Site, **options: Any) -> Backend:
        place = opens(site, **options)
        return Lying(place) if site.url == str(copy) else place

    monkeypatch.setattr(Site, "open", opened)
    restored(snapvault.open(copy, keys=lambda: SEED, sites=[Site(repo.url)]), source, tmp_path)


def test_a_wrong_key_is_wrong_everywhere(repo: Repository, copy: Path) -> None:
    with pytest.raises(snapvault.KeyRejected):
        snapvault.open(repo.url, keys=lambda: bytes(32), sites=[Site(str(copy))])
