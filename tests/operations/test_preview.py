"""A dry run, and the look after a restore: every difference is seen, however the work is cut into batches and parts."""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from repos import SMALL, again, back, contents, damage, make, objects, save, small_packs, varied

import snapvault
from snapvault import Control, Limits, Repository, SourceError
from snapvault.format import names
from snapvault.foundation.errors import Cancelled
from snapvault.foundation.native import NATIVE
from snapvault.operations import compare, preview
from snapvault.operations.visit import Visited
from snapvault.target.filesystem import FilesystemTarget

LARGE = 40_000


@pytest.fixture(params=["as it is", "one at a time", "in threes", "in parts", "not in bulk"], autouse=True)
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much one thread takes at once."""
    if request.param == "not in bulk":  # as without the native module
        monkeypatch.setattr(FilesystemTarget, "read_plain", lambda self, folder, files: [None] * len(files))
    elif request.param == "in parts":
        monkeypatch.setattr(preview, "LARGE", 1000)
        monkeypatch.setattr(compare, "PART_BYTES", 3000)
        monkeypatch.setattr(compare, "READ_BYTES", 700)
    elif request.param != "as it is":
        monkeypatch.setattr(preview, "BATCH", 3 if request.param == "in threes" else 1)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of none, one and many pieces, with holes and with two names, in folders below and beside them."""
    root = tmp_path / "tree"
    random = Random(3)
    for folder in ("a", "a/b", "c"):
        (root / folder).mkdir(parents=True)
        for size in (0, 1, 60, LARGE):
            (root / folder / f"{size}").write_bytes(random.randbytes(size))
    with open(root / "c/holes", "wb") as f:
        for at in (0, 100_000, 200_000):
            f.seek(at)
            f.write(random.randbytes(9000))
        f.truncate(300_000)
    os.link(root / "a/60", root / "c/other name")
    (root / "c/link").symlink_to("60")
    return root


@pytest.fixture
def repo(tmp_path: Path, tree: Path) -> Repository:
    made = make(tmp_path / "repo", chunking=SMALL)
    save(made, tree)
    return made


def _differing(repo: Repository, out: Path, tree: Path, **options: bool) -> dict[str, str]:
    """Paths and kinds, by what a dry run says; and it says each once."""
    changes = snapvault.restore(repo, "latest", out, dry_run=True, **options).changes
    found = {os.path.relpath(f"/{c.path}", tree): c.kind for c in changes}
    assert len(found) == len(changes)
    return found


def _flip(path: Path, at: int) -> None:
    """Change a byte, and nothing that a stat shows."""
    st = path.stat()
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def test_what_was_restored_is_the_same(repo: Repository, tree: Path, tmp_path: Path) -> None:
    back(repo, tmp_path / "out", tree)
    result = snapvault.restore(repo, "latest", tmp_path / "out", dry_run=True, delete=True)
    assert (result.changes, result.status, result.files_same) == ((), "ok", 13)
    assert result.bytes_same == 3 * (61 + LARGE) + 300_000


@pytest.mark.parametrize("name", ["a/1", "a/b/60", f"a/{LARGE}", f"c/{LARGE}", "c/holes"])
def test_one_byte(repo: Repository, tree: Path, tmp_path: Path, name: str) -> None:
    restored = back(repo, tmp_path / "out", tree)
    size = 9000 if name == "c/holes" else (tree / name).stat().st_size
    for at in {0, size // 2, size - 1}:
        _flip(restored / name, at)
        assert _differing(repo, tmp_path / "out", tree) == {name: "modified"}
        _flip(restored / name, at)
    assert _differing(repo, tmp_path / "out", tree) == {}


def test_in_the_last_part_of_a_sparse_file(repo: Repository, tree: Path, tmp_path: Path) -> None:
    restored = back(repo, tmp_path / "out", tree)
    _flip(restored / "c/holes", 208_999)
    assert _differing(repo, tmp_path / "out", tree) == {"c/holes": "modified"}


CHANGES: dict[str, tuple[Callable[[Path], object], dict[str, str]]] = {
    "longer": (lambda p: os.truncate(p / f"a/{LARGE}", LARGE + 1), {f"a/{LARGE}": "modified"}),
    "shorter": (lambda p: os.truncate(p / f"a/{LARGE}", LARGE // 2), {f"a/{LARGE}": "modified"}),
    "no longer empty": (lambda p: (p / "a/0").write_bytes(b"x"), {"a/0": "modified"}),
    "empty": (lambda p: os.truncate(p / "a/60", 0), {"a/60": "modified"}),  # its other name goes with it
    "gone": (lambda p: (p / "a/b/1").unlink(), {"a/b/1": "added"}),
    "mode": (lambda p: os.chmod(p / "a/b/60", 0o604), {"a/b/60": "metadata"}),
    "owner": (lambda p: os.chown(p / "a/b/60", 12345, -1), {"a/b/60": "metadata"}),
    "group": (lambda p: os.chown(p / "a/b/60", -1, 12345), {"a/b/60": "metadata"}),
    "time": (lambda p: os.utime(p / "a/b/60", ns=(5, 5)), {"a/b/60": "metadata"}),
    "attribute": (lambda p: os.setxattr(p / "a/b/60", "user.x", b"y"), {"a/b/60": "metadata"}),
    "a hole filled": (lambda p: _fill(p / "c/holes"), {"c/holes": "modified"}),
    "parted names": (lambda p: _part(p / "c/other name"), {"c/other name": "modified"}),
    "a third name": (lambda p: _replace_by_link(p / "a/60", p / "a/b/60"), {"a/b/60": "modified"}),
    "a folder in the place of a file": (lambda p: _replace_by_folder(p / f"a/{LARGE}"), {f"a/{LARGE}": "type"}),
    "more": (lambda p: (p / "a/more").touch(), {"a/more": "removed"}),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_is_seen(repo: Repository, tree: Path, tmp_path: Path, what: str) -> None:
    change, expected = CHANGES[what]
    restored = back(repo, tmp_path / "out", tree)
    change(restored)
    assert _differing(repo, tmp_path / "out", tree, delete=True) == expected


def _fill(path: Path) -> None:
    st = path.stat()
    with open(path, "r+b") as f:
        f.seek(50_000)
        f.write(bytes(10))
    os.utime(path, ns=(1, st.st_mtime_ns))


def _part(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_link(first: Path, path: Path) -> None:
    path.unlink()
    os.link(first, path)


def test_no_link_is_followed(repo: Repository, tree: Path, tmp_path: Path) -> None:
    """The very files are there, but behind a link in the place of their folder."""
    restored = back(repo, tmp_path / "out", tree)
    shutil.move(restored / "a/b", tmp_path / "elsewhere")
    (restored / "a/b").symlink_to(tmp_path / "elsewhere")
    assert _differing(repo, tmp_path / "out", tree) == {
        "a/b": "type", **{f"a/b/{size}": "added" for size in (0, 1, 60, LARGE)}
    }  # fmt: skip


def _two_as_one(tmp_path: Path, kept: str, **files: bytes) -> tuple[Repository, Path]:
    """Files that are alike but for their bytes; in what was restored, all are names of the one that is kept."""
    root = tmp_path / "two"
    root.mkdir()
    for name, data in files.items():
        (root / name).write_bytes(data)
        os.utime(root / name, ns=(1, 1))
    repo = make(tmp_path / "repo")
    save(repo, root)
    restored = back(repo, tmp_path / "out", root)
    for name in files.keys() - {kept}:
        _replace_by_link(restored / kept, restored / name)
    os.utime(restored, ns=(1, root.stat().st_mtime_ns))
    return repo, root


def test_two_files_that_became_one(tmp_path: Path) -> None:
    """Alike in everything, and in the target two names of one file: they have to be parted."""
    repo, root = _two_as_one(tmp_path, "one", one=b"alike", two=b"alike")
    assert _differing(repo, tmp_path / "out", root) == {"two": "modified"}


@pytest.mark.parametrize("name", ["a/1", f"a/{LARGE}", "c/link", "c/other name"])
def test_a_folder_with_something_in_it_stays(repo: Repository, tree: Path, tmp_path: Path, name: str) -> None:
    """Without ``delete`` nothing goes that is not in the snapshot, whatever its folder stands in the way of."""
    restored = back(repo, tmp_path / "out", tree)
    _replace_by_folder(restored / name)
    (restored / name / "precious").write_text("mine")
    for options in ({"dry_run": True}, {}, {"verify": True}):
        result = snapvault.restore(repo, "latest", tmp_path / "out", **options)
        issues = [(os.path.relpath(i.path, tree), i.message) for i in result.issues]
        assert [n for n, _ in issues] == [name] and "a folder that is not empty" in issues[0][1]
        assert result.status == "partial" and (restored / name / "precious").read_text() == "mine"
    assert _differing(repo, tmp_path / "out", tree, delete=True)[name] in ("type", "modified")
    assert snapvault.restore(repo, "latest", tmp_path / "out", delete=True).status == "ok"
    assert contents(restored) == contents(tree)


def test_an_empty_folder_makes_way(repo: Repository, tree: Path, tmp_path: Path) -> None:
    restored = back(repo, tmp_path / "out", tree)
    _replace_by_folder(restored / "a/1")
    assert _differing(repo, tmp_path / "out", tree) == {"a/1": "type"}
    assert snapvault.restore(repo, "latest", tmp_path / "out").status == "ok"
    assert contents(restored) == contents(tree)


def test_one_file_for_two_that_differ(tmp_path: Path) -> None:
    """Both are to be written: the one that is right cannot keep what the other one is in."""
    repo, root = _two_as_one(tmp_path, "two", one=b"one", two=b"two")
    assert _differing(repo, tmp_path / "out", root) == {"one": "modified", "two": "modified"}
    assert snapvault.restore(repo, "latest", tmp_path / "out").files_written == 2


def test_a_second_name_of_what_is_lost(repo: Repository, tree: Path, tmp_path: Path) -> None:
    back(repo, tmp_path / "out", tree)
    damage(repo, f"{tree}/a/60")
    (tmp_path / f"out{tree}/a/60").unlink()
    (tmp_path / f"out{tree}/c/other name").unlink()
    result = snapvault.restore(again(repo), "latest", tmp_path / "out", verify=True)
    assert {os.path.relpath(i.path, tree) for i in result.lost} >= {"a/60", "c/other name"}


@pytest.mark.parametrize(("number", "stays"), [(errno.EIO, False), (errno.EMFILE, True)])
def test_what_cannot_be_read(
    repo: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, stays: bool
) -> None:
    """A disk that fails ends it.  A file that cannot be opened is named, as its other name is; it may be the same."""
    back(repo, tmp_path / "out", tree)
    open_existing = FilesystemTarget.open_existing

    def fail(self: FilesystemTarget, path: bytes, *, write: bool) -> int:
        if path.endswith((b"a/60", b"a/40000")):
            raise OSError(number, os.strerror(number))
        return open_existing(self, path, write=write)

    monkeypatch.setattr(FilesystemTarget, "open_existing", fail)
    before = len(os.listdir("/proc/self/fd"))
    if stays:
        result = snapvault.restore(repo, "latest", tmp_path / "out", dry_run=True)
        names = {os.path.relpath(i.path, tree) for i in result.issues}
        assert (names, result.changes, result.status) == ({"a/60", "a/40000", "c/other name"}, (), "partial")
    else:
        with pytest.raises(SourceError, match="Input/output error"):
            snapvault.restore(repo, "latest", tmp_path / "out", dry_run=True)
    assert len(os.listdir("/proc/self/fd")) == before


def test_cancelled_in_the_middle(repo: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    back(repo, tmp_path / "out", tree)
    cancel = threading.Event()
    look = preview.Preview._look_at

    def look_and_cancel(self: preview.Preview, at: Visited) -> preview._Entry:
        cancel.set()
        return look(self, at)

    monkeypatch.setattr(preview.Preview, "_look_at", look_and_cancel)
    with pytest.raises(Cancelled):
        snapvault.restore(repo, "latest", tmp_path / "out", dry_run=True, control=Control(cancel=cancel))


def test_small_files_are_looked_at_in_bulk(
    repo: Repository, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Where the native module reads them; else one by one."""
    in_bulk = NATIVE and "not in bulk" not in request.node.name
    back(repo, tmp_path / "out", tree)
    alone: set[bytes] = set()
    look = preview.Preview._look_at

    def note(self: preview.Preview, at: Visited) -> preview._Entry:
        alone.add(os.path.basename(at.path))
        return look(self, at)

    monkeypatch.setattr(preview.Preview, "_look_at", note)
    snapvault.restore(repo, "latest", tmp_path / "out", dry_run=True)
    assert b"c" in alone and alone & {b"0", b"1"} == (set() if in_bulk else {b"0", b"1"})


def test_lost_though_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a snapshot that lost data nobody says that all is well, whatever stands in the target."""
    small_packs(monkeypatch)
    root = varied(tmp_path / "varied")
    repo = make(tmp_path / "repo")
    save(repo, root, control=Control(limits=Limits(threads=1)))  # so that the folders come last, into another pack
    back(repo, tmp_path / "out", root)
    pack = damage(repo, f"{root}/3")
    for name in [pack, *(n for n in objects(repo) if n.startswith(names.INDEX))]:
        (tmp_path / "repo" / name).unlink()
    result = snapvault.restore(again(repo), "latest", tmp_path / "out", dry_run=True)
    assert result.status == "damaged" and f"{root}/3" in {i.path for i in result.lost}


def test_the_order_is_that_of_the_tree(repo: Repository, tree: Path, tmp_path: Path) -> None:
    restored = back(repo, tmp_path / "out", tree)
    for folder in ("a", "c"):
        shutil.rmtree(restored / folder)
    paths = [c.path for c in snapvault.restore(repo, "latest", tmp_path / "out", dry_run=True).changes]
    assert paths == sorted(paths, key=lambda p: p.split("/")) and len(paths) == 18


def test_no_descriptor_stays_open(repo: Repository, tree: Path, tmp_path: Path) -> None:
    back(repo, tmp_path / "out", tree)
    before = len(os.listdir("/proc/self/fd"))
    snapvault.restore(repo, "latest", tmp_path / "out", dry_run=True)
    assert len(os.listdir("/proc/self/fd")) == before
