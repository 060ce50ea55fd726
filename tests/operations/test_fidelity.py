"""What goes out comes back, to referees that are not ours; and a restore over a tree writes only what differs."""

import errno
import io
import json
import os
import random
import resource
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from repos import SMALL, back, contents, make, python, save, traced
from trees import build_torture_tree, referee

import snapvault
from snapvault import Control, InvalidInput, Limits, Repository, RestoreResult, SourceError
from snapvault.operations import compare, files, restore, saver
from snapvault.operations.tally import UNREAD
from snapvault.operations.visit import Visited
from snapvault.repository.create import SEGMENT_SIZE
from snapvault.target.filesystem import FilesystemTarget, WholeFile


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return make(tmp_path / "repo")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, Path]:
    """A small torture tree in a repository."""
    base = tmp_path_factory.mktemp("stored")
    build_torture_tree(base / "tree", entries=300, big_sparse=64 << 20)
    shutil.rmtree(base / "tree/deep")  # beyond what a path can name
    repo = make(base / "repo")
    save(repo, base / "tree")
    return repo, base / "tree"


def _marks(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and ctime of everything that is no folder: what no untouched entry changes."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            st = os.lstat(os.path.join(folder, name))
            found[os.path.relpath(os.path.join(folder, name), root)] = (st.st_ino, st.st_ctime_ns)
    return found


def test_everything_comes_back(repo: Repository, tmp_path: Path) -> None:
    """A second backup then reads nothing, and a second restore writes nothing."""
    tree = tmp_path / "tree"
    build_torture_tree(tree)
    time.sleep(saver.RACY_NS / 1e9)  # a file as young as that is read once more
    first = save(repo, tree)
    assert first.files_new > 20_000 and first.bytes_total > 10 << 30 and first.bytes_read < 50 << 20
    result = snapvault.restore(repo, "latest", tmp_path / "out", verify=True)
    assert (result.status, result.verified, result.unprivileged) == ("ok", True, 0), result
    out = Path(f"{tmp_path}/out{tree}")
    assert referee(tree, out) == []
    marks = _marks(out)
    second = save(repo, tree)
    assert (second.parent, second.files_new, second.files_changed) == (first.snapshot, 0, 0)
    assert second.bytes_read == 0 and second.files_unmodified == first.files_new
    over = snapvault.restore(repo, second.snapshot, tmp_path / "out", delete=True)
    assert (over.status, over.files_written, over.removed) == ("ok", 0, 0)
    assert _marks(out) == marks
    assert referee(tree, out) == []


@pytest.mark.parametrize("state", ["empty", "other kinds", "changed", "sparse"])
def test_over_an_existing_tree(state: str, stored: tuple[Repository, Path], tmp_path: Path) -> None:
    """A dry run says what the real run then does; the referee agrees; and what was the same was not touched."""
    repo, tree = stored
    out = tmp_path / "out"
    root = Path(f"{out}{tree}")
    out.mkdir()
    if state != "empty":
        back(repo, out, tree)
        _STATES[state](root)
    before = _marks(root) if root.exists() else {}
    planned = snapvault.restore(repo, "latest", out, delete=True, dry_run=True)
    assert (planned.status, planned.files_written, planned.bytes_written) == ("ok", 0, 0)
    assert (_marks(root) if root.exists() else {}) == before, "a dry run wrote something"
    kinds = {os.path.relpath(c.path, str(root.relative_to(out))): c.kind for c in planned.changes}
    if state == "other kinds":
        replaced = ("special", "files", "attributes/symlink", "owners/large", "links a/again", "times/1960")
        assert {kinds[name] for name in replaced} == {"type"}
    result = snapvault.restore(repo, "latest", out, delete=True, verify=True)
    assert result.status == "ok"
    assert referee(tree, root) == []
    _agree(planned, root, out, before, _marks(root))
    assert snapvault.restore(repo, "latest", out, delete=True, dry_run=True).changes == ()


def _agree(planned: RestoreResult, root: Path, out: Path, before: dict[str, object], after: dict[str, object]) -> None:
    """The entries that changed on disk are those that the dry run named."""
    at = str(root.relative_to(out))
    named = {c.path: c.kind for c in planned.changes if not os.path.isdir(root / os.path.relpath(c.path, at))}
    told = {os.path.relpath(p, at) for p, kind in named.items() if kind != "removed"}
    links = {p for p in after if (root / p).lstat().st_nlink > 1}  # a new name moves the ctime of the others
    changed = {p for p, mark in after.items() if before.get(p) != mark}
    assert changed - links == told - links
    gone = {p for p in set(before) - set(after) if not os.path.isdir(root / p)}
    removed = [os.path.relpath(p, at) for p, kind in named.items() if kind == "removed"]
    assert all(any(p == r or p.startswith(r + "/") for r in removed) or not (root / p).parent.is_dir() for p in gone)


def _other_kinds(root: Path) -> None:
    """Everything is there as something else."""
    shutil.rmtree(root / "special")
    (root / "special").write_bytes(b"was a file")
    shutil.rmtree(root / "files")
    (root / "files").symlink_to(root / "names")
    (root / "attributes/symlink").unlink()
    (root / "attributes/symlink/inside").mkdir(parents=True)
    (root / "owners/large").unlink()
    (root / "owners/large").mkdir()
    (root / "owners/large/not in the snapshot").touch()
    (root / "links a/again").unlink()
    (root / "links a/again").symlink_to("file")
    (root / "times/1960").unlink()
    os.mkfifo(root / "times/1960")


def _changed(root: Path) -> None:
    (root / "files/3000000").write_bytes(b"short")
    with open(root / "files/65536", "r+b") as f:
        f.write(b"x")
    os.utime(root / "files/65536", ns=(1, (root / "files/4096").stat().st_mtime_ns))
    (root / "more").mkdir()
    (root / "more/and more").write_bytes(b"goes")
    (root / "huge/extra").touch()
    os.chmod(root / "owners/daemon", 0o777)
    os.chown(root / "owners/nameless", 0, 0)
    os.removexattr(root / "attributes/file", "user.binary")
    os.setxattr(root / "attributes/folder", "user.foreign", b"goes")
    (root / "links b/elsewhere").unlink()
    (root / "links b/elsewhere").write_bytes(b"one file, three names")
    (root / "special/dangling").unlink()
    os.symlink("elsewhere", root / "special/dangling")
    (root / "special/null").unlink()
    os.mknod(root / "special/null", stat.S_IFCHR | 0o666, os.makedev(1, 7))
    os.utime(root / "times", ns=(1, 1))


def _sparse(root: Path) -> None:
    for name in os.listdir(root / "sparse"):
        path = root / "sparse" / name
        st = path.stat()
        if name == "hole-between":
            with open(path, "r+b") as f:
                f.write(b"other")
        elif name == "hole-only":
            path.write_bytes(bytes(st.st_size))  # the same bytes, but no hole any more
        else:
            os.truncate(path, st.st_size + 1)
        os.utime(path, ns=(1, st.st_mtime_ns))


_STATES: dict[str, Callable[[Path], None]] = {"other kinds": _other_kinds, "changed": _changed, "sparse": _sparse}


def test_without_delete_what_is_more_stays(stored: tuple[Repository, Path], tmp_path: Path) -> None:
    repo, tree = stored
    root = back(repo, tmp_path, tree)
    (root / "extra").write_bytes(b"e")
    result = snapvault.restore(repo, "latest", tmp_path)
    assert (result.status, result.removed, (root / "extra").read_bytes()) == ("ok", 0, b"e")
    assert result.files_written == 0
    result = snapvault.restore(repo, "latest", tmp_path, delete=True)
    assert (result.removed, (root / "extra").exists()) == (1, False)


def test_delete_refuses_the_whole_system(repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "root").symlink_to("/")
    save(repo, tmp_path / "root")
    for target in ("/", "//", "/tmp/..", tmp_path / "root"):
        with pytest.raises(InvalidInput, match="into /"):
            snapvault.restore(repo, "latest", target, delete=True, dry_run=True)


def test_delete_leaves_what_a_pattern_excluded(repo: Repository, tmp_path: Path) -> None:
    """It is in the snapshot, so it is not for ``delete`` to remove."""
    src = tmp_path / "src"
    (src / "logs").mkdir(parents=True)
    for name in ("a", "b.log", "logs/c"):
        (src / name).write_bytes(name.encode())
    save(repo, src)
    root = back(repo, tmp_path / "out", src)
    (root / "x").touch()
    back(repo, tmp_path / "out", src, exclude=["*.log", "logs/"], delete=True)
    assert sorted(contents(root)) == ["a", "b.log", "logs", "logs/c"]


def test_include_and_exclude(repo: Repository, tmp_path: Path) -> None:
    """Patterns are gitignore's, anchored at what is restored; folders on the way come with their metadata."""
    src = tmp_path / "src"
    for name in ("a.txt", "b.bin", "sub/c.txt", "sub/d.bin", "deep/er/e.txt", "other/f"):
        (src / name).parent.mkdir(parents=True, exist_ok=True)
        (src / name).write_bytes(name.encode())
    os.chmod(src / "deep/er", 0o711)
    save(repo, src)

    def taken(**options: object) -> list[str]:
        out = tmp_path / "out"
        back(repo, out, src, path=str(src), **options)
        found = sorted(k for k, v in contents(out).items() if isinstance(v, bytes))
        if (out / "deep/er").exists():
            assert stat.S_IMODE((out / "deep/er").stat().st_mode) == 0o711
        shutil.rmtree(out)
        return found

    assert taken(include=["*.txt"]) == ["a.txt", "deep/er/e.txt", "sub/c.txt"]
    assert taken(include=["/a.txt", "/sub/"]) == ["a.txt", "sub/c.txt", "sub/d.bin"]
    assert taken(include=["*.txt"], exclude=["deep"]) == ["a.txt", "sub/c.txt"]
    assert taken(exclude=["*.bin", "/other"]) == ["a.txt", "deep/er/e.txt", "sub/c.txt"]
    for place in (tmp_path / "out", tmp_path / "not there", io.BytesIO()):
        dry = place == tmp_path / "not there"
        result = snapvault.restore(repo, "latest", place, path=str(src), include=["nothing", "n*"], dry_run=dry)
        assert (result.status, result.files_written, [i.path for i in result.issues]) == ("partial", 0, [str(src)])
        assert "'nothing', 'n*'" in result.issues[0].message
    assert snapvault.restore(repo, "latest", tmp_path / "one", path=f"{src}/a.txt", include=["nothing"]).status == "ok"


def test_a_part_by_its_path(stored: tuple[Repository, Path], tmp_path: Path) -> None:
    """What is inside a folder comes to the target; a single file, or link, comes under its own name."""
    repo, tree = stored
    back(repo, tmp_path / "folder", tree, path=f"{tree}/attributes")
    assert referee(tree / "attributes", tmp_path / "folder") == []
    for name in ("files/65536", "files/mode-4755", "special/long", "special/fifo", "sparse/hole-between"):
        back(repo, tmp_path / "single", tree, path=f"{tree}/{name}", verify=True)
        back(repo, tmp_path / "single", tree, path=f"{tree}/{name}", delete=True)
        copy = tmp_path / "single" / Path(name).name
        assert referee(_alone(tree / name, tmp_path), _alone(copy, tmp_path)) == []
    assert len(os.listdir(tmp_path / "single")) == 5
    with pytest.raises(InvalidInput, match="holds no /nowhere"):
        snapvault.restore(repo, "latest", tmp_path / "none", path="/nowhere")
    assert not (tmp_path / "none").exists()


def test_the_target_gets_the_metadata_of_the_folder(repo: Repository, tmp_path: Path) -> None:
    """As rsync has it for PATH/ to TARGET/; the whole snapshot has no folder of its own, and leaves it alone."""
    src, out = tmp_path / "src", tmp_path / "out"
    src.mkdir(mode=0o751)
    (src / "f").touch()
    os.chown(src, 12, 34)
    os.setxattr(src, "user.a", b"b")
    os.utime(src, ns=(1, 12345))
    save(repo, src)
    out.mkdir(mode=0o700)
    planned = snapvault.restore(repo, "latest", out, path=str(src), dry_run=True)
    assert [(c.path, c.kind) for c in planned.changes if c.path != "f"] == [("/", "metadata")]
    assert snapvault.restore(repo, "latest", out, path=str(src), verify=True).status == "ok"
    st = out.stat()
    assert (stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns) == (0o751, 12, 34, 12345)
    assert os.getxattr(out, "user.a") == b"b"
    assert snapvault.restore(repo, "latest", out, path=str(src), dry_run=True).changes == ()
    os.chmod(out, 0o700)
    snapvault.restore(repo, "latest", out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_folders_are_finished_while_others_follow(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the batches: times and modes of folders last, links lead where they did, few wait."""
    src = tmp_path / "src"
    for i in range(60):
        folder = src / f"{i:02d}/below"
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(random.Random(i).randbytes(1000))
        (folder / "first").write_bytes(b"%d" % i)
        os.link(folder / "first", folder / "again")
        os.link(src / "00/below/first", folder / "of 00")
        for place in (folder, folder.parent):
            os.chmod(place, 0o500 + i)
            os.utime(place, ns=(1, 10**9 + i))
    os.utime(src / "00/below", ns=(1, 1))
    save(repo, src)
    waiting: list[int] = []
    leave = restore.Restorer._leave

    def counted(self: restore.Restorer, at: Visited) -> None:
        leave(self, at)
        waiting.append(len(self._closing))

    monkeypatch.setattr(restore.Restorer, "_leave", counted)
    monkeypatch.setattr(restore, "WAITING_MAX", 7)
    for options in ({}, {"delete": True}):
        root = back(repo, tmp_path / "out", src, **options)
        assert referee(src, root) == []
        for i in range(3):
            (root / f"{i}").touch()
            (root / f"{i:02d}/below/again").unlink()
            (root / f"{i:02d}/below/again").symlink_to("other")
    assert 0 < max(waiting) < 7


def test_a_removal_that_fails_spoils_nothing_else(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named; others are removed, and the folder gets its time and mode."""
    src = tmp_path / "src"
    (src / "sub").mkdir(parents=True, mode=0o711)
    os.utime(src / "sub", ns=(1, 12345))
    save(repo, src)
    root = back(repo, tmp_path / "out", src)
    for name in "abc":
        (root / "sub" / name).touch()
    os.chmod(root / "sub", 0o777)
    remove = FilesystemTarget.remove

    def refusing(self: FilesystemTarget, path: bytes) -> None:
        if path.endswith(b"/b"):
            raise OSError(errno.EBUSY, "Device or resource busy")
        remove(self, path)

    monkeypatch.setattr(FilesystemTarget, "remove", refusing)
    result = snapvault.restore(repo, "latest", tmp_path / "out", delete=True)
    assert [(Path(i.path).name, i.message) for i in result.issues] == [
        ("b", "cannot be removed: Device or resource busy")
    ]
    assert (result.removed, os.listdir(root / "sub")) == (2, ["b"])
    st = (root / "sub").stat()
    assert (stat.S_IMODE(st.st_mode), st.st_mtime_ns) == (0o711, 12345)


def _alone(path: Path, base: Path) -> Path:
    """A folder with nothing but a hard link to ``path``."""
    folder = base / f"alone {random.random()}"
    folder.mkdir()
    os.link(path, folder / path.name, follow_symlinks=False)
    os.utime(folder, (1, 1))
    return folder


class TestInPlace:
    """A large file that differs is mended where it is."""

    @pytest.fixture(autouse=True)
    def _from_a_megabyte(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compare, "IN_PLACE_FROM", 1 << 20)

    @pytest.fixture(params=[False, True], ids=["one domain", "two domains"])
    def big(self, request: pytest.FixtureRequest, repo: Repository, tmp_path: Path) -> tuple[Path, Path]:
        """A file and its restored copy; perhaps in a repository that somebody else may write to as well."""
        if request.param:
            snapvault.add_key(repo, "writer", "client", file=tmp_path / "client.key")
        src = tmp_path / "src"
        src.mkdir()
        (src / "big").write_bytes(random.Random(1).randbytes(24 << 20))
        save(repo, src)
        return src / "big", back(repo, tmp_path / "out", src) / "big"

    def _mend(self, repo: Repository, tmp_path: Path) -> tuple[RestoreResult, int]:
        """And the bytes that were read from the store's packs."""
        trace = traced(repo)
        result = snapvault.restore(repo, "latest", tmp_path / "out", verify=True)
        assert result.status == "ok", result
        return result, trace.bytes_received

    def test_only_what_differs_is_fetched_and_written(
        self, repo: Repository, big: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, copy = big
        with open(copy, "r+b") as f:
            for at in (5, 4 << 20):
                f.seek(at)
                f.write(b"damage")
        inode = copy.stat().st_ino
        written: list[int] = []
        monkeypatch.setattr(files, "_write_all", _counting(files._write_all, written))
        _, read = self._mend(repo, tmp_path)
        assert copy.read_bytes() == original.read_bytes()
        assert copy.stat().st_ino == inode and copy.stat().st_mtime_ns == original.stat().st_mtime_ns
        assert len(written) == 2 and sum(written) <= 2 * 256 << 10
        assert read < 3 * SEGMENT_SIZE  # of each place its segment

    @pytest.mark.parametrize("size", [100, 8 << 20, (8 << 20) - 1, (8 << 20) + 1, 20 << 20])
    def test_of_another_length(self, repo: Repository, big: tuple[Path, Path], tmp_path: Path, size: int) -> None:
        original, copy = big
        os.truncate(copy, size)
        inode = copy.stat().st_ino
        self._mend(repo, tmp_path)
        assert (copy.read_bytes(), copy.stat().st_ino) == (original.read_bytes(), inode)

    def test_parts_are_compared_side_by_side(
        self, repo: Repository, big: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compare, "PART_BYTES", 8 << 20)
        together = threading.Barrier(2)
        part = compare.Comparison._part

        def meet(self: compare.Comparison, *given: Any) -> list[int]:
            if given[1] < 200:  # of three parts the first two
                together.wait(60)
            return part(self, *given)

        monkeypatch.setattr(compare.Comparison, "_part", meet)
        with open(big[1], "r+b") as f:
            for at in (5, 12 << 20, 23 << 20):
                f.seek(at)
                f.write(b"damage")
        result = snapvault.restore(repo, "latest", tmp_path / "out", control=Control(limits=Limits(threads=2)))
        assert (result.status, result.files_written) == ("ok", 1)
        assert big[1].read_bytes() == big[0].read_bytes()

    def test_not_through_a_second_name(self, repo: Repository, big: tuple[Path, Path], tmp_path: Path) -> None:
        """Somebody keeps the old file under a name outside of the target: it stays as it is."""
        original, copy = big
        os.truncate(copy, 5 << 20)
        os.link(copy, tmp_path / "kept")
        self._mend(repo, tmp_path)
        assert copy.read_bytes() == original.read_bytes()
        assert (tmp_path / "kept").stat().st_size == 5 << 20


def _counting(write: Callable[..., None], sizes: list[int]) -> Callable[..., None]:
    def counted(fd: int, data: memoryview, offset: int) -> None:
        sizes.append(len(data))
        write(fd, data, offset)

    return counted


def test_delete_spares_files_that_are_still_being_written(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of one file come in several batches, and between two of them it has only its temporary name."""
    monkeypatch.setattr(restore, "BATCH_PIECES", 7)
    monkeypatch.setattr(files, "OPEN_MAX", 1)
    src = tmp_path / "src"
    src.mkdir()
    for i in range(4):
        (src / f"{i}").write_bytes(random.Random(i).randbytes(700_000))
    save(repo, src)
    root = back(repo, tmp_path / "out", src)
    for i in range(4):
        (root / f"{i}").write_bytes(b"differs")
    (root / "extra").touch()
    back(repo, tmp_path / "out", src, delete=True)
    assert contents(root) == contents(src)


def test_names_that_were_one_file_in_the_target_are_parted(repo: Repository, tmp_path: Path) -> None:
    """Separate files in the snapshot: one's mode must not become the other's, nor a later write."""
    src = tmp_path / "src"
    src.mkdir()
    for name, mode in (("a", 0o600), ("b", 0o644), ("c", 0o644)):
        (src / name).write_bytes(b"the same")
        os.chmod(src / name, mode)
        os.utime(src / name, ns=(1, 1))
    save(repo, src)
    root = back(repo, tmp_path / "out", src)
    for name in "bc":
        (root / name).unlink()
        os.link(root / "a", root / name)
    back(repo, tmp_path / "out", src, verify=True)
    assert referee(src, root) == []
    assert len({(root / name).stat().st_ino for name in "abc"}) == 3


def test_hardlinks_are_made_again(repo: Repository, tmp_path: Path) -> None:
    """Several names of one file in a target that has them as separate files; also of one that changed."""
    src = tmp_path / "src"
    (src / "sub").mkdir(parents=True)
    (src / "a").write_bytes(b"one")
    os.link(src / "a", src / "sub/b")
    os.link(src / "a", src / "z")
    save(repo, src)
    root = back(repo, tmp_path / "out", src)
    for name in ("a", "sub/b"):
        (root / name).unlink()
        (root / name).write_bytes(b"one")
    result = snapvault.restore(repo, "latest", tmp_path / "out", verify=True)
    assert result.status == "ok"
    assert referee(src, root) == []


def test_a_link_in_the_place_of_a_folder_is_not_followed(repo: Repository, tmp_path: Path) -> None:
    """Neither by a dry run with ``delete``, which only looks."""
    src = tmp_path / "src"
    (src / "folder").mkdir(parents=True)
    (src / "folder/file").write_bytes(b"f")
    save(repo, src)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"p")
    for stand_in in ("link", "file"):
        root = back(repo, tmp_path / stand_in, src)
        shutil.rmtree(root / "folder")
        if stand_in == "link":
            (root / "folder").symlink_to(outside)
        else:
            (root / "folder").write_bytes(b"f")
        planned = snapvault.restore(repo, "latest", tmp_path / stand_in, delete=True, dry_run=True)
        assert planned.status == "ok", planned.issues
        assert {(Path(c.path).name, c.kind) for c in planned.changes} == {("folder", "type"), ("file", "added")}
        back(repo, tmp_path / stand_in, src, delete=True)
        assert contents(root) == contents(src)
        assert contents(outside) == {"precious": b"p"}


def test_a_dry_run_into_nothing_makes_nothing(stored: tuple[Repository, Path], tmp_path: Path) -> None:
    repo, _ = stored
    planned = snapvault.restore(repo, "latest", tmp_path / "not there", dry_run=True)
    assert not (tmp_path / "not there").exists()
    real = snapvault.restore(repo, "latest", tmp_path / "not there")
    assert {c.kind for c in planned.changes} == {"added"}
    assert len(planned.changes) == real.files_written + real.folders - 1 + real.others


def test_verify_says_what_is_different(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that keeps other bytes than were written."""
    src = tmp_path / "src"
    src.mkdir()
    for name in "abc":
        (src / name).write_bytes(name.encode() * 1000)
    save(repo, src)
    create = FilesystemTarget.create_whole

    def other(target: FilesystemTarget, given: list[WholeFile]) -> list[bool]:
        rotten = [f._replace(data=memoryview(bytes(f.data).replace(b"b" * 9, b"x" * 9))) for f in given]
        return create(target, rotten)

    monkeypatch.setattr(FilesystemTarget, "create_whole", other)
    result = snapvault.restore(repo, "latest", tmp_path / "out", verify=True)
    assert (result.status, [(Path(i.path).name, i.message) for i in result.issues]) == (
        "partial", [("b", "differs after the restore: modified")],
    )  # fmt: skip


def test_what_cannot_be_written_leaves_nothing_wrong(repo: Repository, tmp_path: Path) -> None:
    """A file that grows too large is not left cut short, nor is its other name given to what stood there before."""
    src = tmp_path / "src"
    src.mkdir()
    for name in "ac":
        (src / name).write_bytes(name.encode() * 10_000)
    os.link(src / "a", src / "b")
    (src / "d").write_bytes(b"d")
    save(repo, src)
    root = Path(f"{tmp_path / 'out'}{src}")
    root.mkdir(parents=True)
    (root / "a").write_bytes(b"older")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, before[1]))
    try:
        result = snapvault.restore(repo, "latest", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (result.status, sorted(Path(i.path).name for i in result.issues)) == ("partial", ["a", "b", "c"])
    assert contents(root) == {"a": b"older", "d": b"d"}


AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")


def test_restore_without_root(tmp_path: Path) -> None:
    """What needs root is counted and is no failure; all else is as it was, and stays untouched the second time."""
    tree = tmp_path / "tree"
    build_torture_tree(tree, entries=50, big_sparse=1 << 20)
    shutil.rmtree(tree / "deep")
    os.chmod(tmp_path, 0o755)
    repo = make(tmp_path / "repo")
    save(repo, tree)
    for folder, folders, names in os.walk(tmp_path / "repo"):
        for name in (*folders, *names, "."):
            os.chown(os.path.join(folder, name), 65534, 65534)
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    for parent in tmp_path.parents[:2]:
        os.chmod(parent, 0o755)
    out = python(
        "import sys, json, snapvault\n"
        "repo = snapvault.open(sys.argv[1], keys=lambda: bytes(range(32)))\n"
        "for _ in range(2):\n"
        "    print(json.dumps(snapvault.restore(repo, 'latest', sys.argv[2], verify=True, delete=True).to_dict()))\n",
        tmp_path / "repo", home / "out", before=AS_NOBODY, cwd="/",
    )  # fmt: skip
    first, second = map(json.loads, out.splitlines())
    # What is in a folder that lets nobody in was restored, and is not said to be the same.
    unread = {i["path"] for i in first["issues"] if i["message"] == UNREAD}  # a verify looks, and cannot
    assert first["status"] == "partial" and len(unread) == len(first["issues"]) > 0
    assert all(not os.lstat(os.path.dirname(f"/{path}")).st_mode & 0o100 for path in unread)
    assert first["unprivileged"] > 10
    root = Path(f"{home}/out{tree}")
    names = sorted(k for k, v in contents(tree).items() if isinstance(v, bytes))
    assert len(names) > 100
    for name in names:
        assert (root / name).read_bytes() == (tree / name).read_bytes(), name
        want, have = (tree / name).lstat(), (root / name).lstat()
        assert (have.st_mtime_ns, have.st_uid) == (want.st_mtime_ns, 65534), name
        if want.st_uid != 65534:
            assert not have.st_mode & 0o4000, "setuid of somebody else"
        assert have.st_mode & 0o777 == want.st_mode & 0o777, name
    assert not (root / "special/null").exists() and (root / "special/fifo").is_fifo()
    assert (second["status"], second["files_written"], second["removed"]) == ("partial", 0, 0)
    assert {i["path"] for i in second["issues"]} == unread


class TestUrls:
    """fsspec places: names and bytes."""

    @pytest.fixture(params=["memory", "local"])
    def url(self, request: pytest.FixtureRequest, tmp_path: Path) -> str:
        """``local`` needs its folders made; in ``memory`` they come with the files."""
        if request.param == "local":
            return f"local://{tmp_path}/remote"
        return f"memory://{tmp_path.name}"

    @pytest.fixture
    def src(self, tmp_path: Path) -> Path:
        src = tmp_path / "src"
        (src / "sub/sub").mkdir(parents=True)
        (src / "a").write_bytes(random.Random(1).randbytes(3_000_000))
        (src / "sub/b").write_bytes(b"b")
        (src / "sub/sub/empty").touch()
        (src / "x.log").write_bytes(b"log")
        with open(src / "sparse", "wb") as f:
            f.seek(500_000)
            f.write(b"end")
        return src

    def _files(self, url: str) -> dict[str, bytes]:
        import fsspec

        fs, path = fsspec.core.url_to_fs(url)
        return {name[len(path) :].lstrip("/"): fs.cat_file(name) for name in fs.find(path)}

    def test_target(self, repo: Repository, src: Path, url: str) -> None:
        save(repo, src)
        dry = snapvault.restore(repo, "latest", url, path=str(src), dry_run=True)
        assert {c.path for c in dry.changes if c.kind == "added"} >= {"a", "sub/b", "sub/sub/empty", "x.log", "sparse"}
        result = snapvault.restore(repo, "latest", url, path=str(src), verify=True)
        assert (result.status, result.files_written) == ("ok", 5), result
        wanted = {k: v for k, v in contents(src).items() if isinstance(v, bytes) and k[-3:] != "sub"}
        assert self._files(url) == wanted
        result = snapvault.restore(repo, "latest", url, path=str(src))
        assert (result.files_written, result.files_same) == (0, 5)

    def test_target_with_other_files(self, repo: Repository, src: Path, url: str) -> None:
        """Only what differs is written; ``delete`` takes what the snapshot does not hold, and no more."""
        import fsspec

        save(repo, src)
        snapvault.restore(repo, "latest", url, path=str(src))
        fs, path = fsspec.core.url_to_fs(url)
        fs.pipe_file(f"{path}/sub/b", b"B")
        fs.pipe_file(f"{path}/extra", b"e")
        dry = snapvault.restore(repo, "latest", url, path=str(src), delete=True, dry_run=True)
        assert {(c.path, c.kind) for c in dry.changes} == {("sub/b", "modified"), ("extra", "removed")}
        result = snapvault.restore(repo, "latest", url, path=str(src), delete=True, exclude=["*.log"])
        assert (result.files_written, result.removed) == (1, 1)
        files = self._files(url)
        assert (files["sub/b"], "extra" in files, files.get("x.log")) == (b"b", False, b"log")

    def test_target_of_a_single_file(self, repo: Repository, src: Path, url: str) -> None:
        """Under its own name, as in a folder."""
        save(repo, src)
        result = snapvault.restore(repo, "latest", url, path=f"{src}/sub/b", verify=True, delete=True)
        assert (result.status, self._files(url)) == ("ok", {"b": b"b"})

    def test_delete_with_include(self, repo: Repository, src: Path, url: str, tmp_path: Path) -> None:
        """At a URL as in a folder: what the snapshot does not hold goes from the folders that are visited."""
        import fsspec

        save(repo, src)
        (src / "other").mkdir()
        for place in (url, tmp_path / "out"):
            snapvault.restore(repo, "latest", place, path=str(src))
            fs, path = fsspec.core.url_to_fs(str(place))
            for name in ("more", "sub/more", "sub/sub/more", "gone/below/more"):
                fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
                fs.pipe_file(f"{path}/{name}", b"more")
            result = snapvault.restore(repo, "latest", place, path=str(src), include=["/sub/b"], delete=True)
            assert result.removed == 3
            kept = {"a", "sub/b", "sub/sub/empty", "sub/sub/more", "x.log", "sparse"}
            assert set(self._files(str(place))) == kept

    def test_a_url_that_fails(self, repo: Repository, src: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Reading back and removing: named by path, and the rest goes on.  Full: an error at once, as of a folder."""
        import fsspec

        save(repo, src)
        snapvault.restore(repo, "latest", url, path=str(src))
        fs, path = fsspec.core.url_to_fs(url)
        for name in ("more", "sub/more"):
            fs.pipe_file(f"{path}/{name}", b"more")
        kinds = type(fs)
        rm_file, honest = kinds.rm_file, kinds.open

        def refusing(self: object, name: str) -> None:
            if name.endswith("/sub/more"):
                raise PermissionError(errno.EACCES, "Permission denied", name)
            rm_file(self, name)

        monkeypatch.setattr(kinds, "rm_file", refusing)
        result = snapvault.restore(repo, "latest", url, path=str(src), delete=True)
        assert (result.removed, [(i.path, i.message) for i in result.issues]) == (
            1, [(f"{src}/sub/more", "cannot be removed: Permission denied")],
        )  # fmt: skip

        def unreadable(self: object, name: str, mode: str = "rb", **options: object) -> object:
            if name.endswith("/sub/b") and mode == "rb":
                raise PermissionError(errno.EACCES, "Permission denied", name)
            return honest(self, name, mode, **options)

        fs.rm_file(f"{path}/sub/b")
        monkeypatch.setattr(kinds, "open", unreadable)
        result = snapvault.restore(repo, "latest", url, path=str(src), verify=True)
        assert (result.files_written, [i.path for i in result.issues]) == (1, [f"{src}/sub/b"])
        assert "could not be verified" in result.issues[0].message

        def full(self: object, name: str, mode: str = "rb", **options: object) -> object:
            if mode == "wb":
                raise OSError(errno.ENOSPC, "No space left on device", name)
            return honest(self, name, mode, **options)

        monkeypatch.setattr(kinds, "open", full)
        fs.rm_file(f"{path}/a")
        with pytest.raises(SourceError, match="No space left"):
            snapvault.restore(repo, "latest", url, path=str(src))

    def test_what_a_url_cannot_keep_is_counted(self, repo: Repository, tmp_path: Path, url: str) -> None:
        src = tmp_path / "odd"
        src.mkdir()
        os.symlink("x", src / "link")
        (src / "named").write_bytes(b"n")
        (src / os.fsdecode(b"not \xff")).write_bytes(b"n")
        save(repo, src)
        result = snapvault.restore(repo, "latest", url, path=str(src))
        assert (result.unprivileged, result.status) == (1, "partial")
        assert [i.path for i in result.issues] == [f"{src}/" + os.fsdecode(b"not \xff")]
        assert self._files(url) == {"named": b"n"}

    def test_source(self, repo: Repository, src: Path, url: str, tmp_path: Path) -> None:
        """A folder behind a URL, a single file, and several at once; unchanged ones are not read again."""
        import fsspec

        fs, path = fsspec.core.url_to_fs(url)
        for name, data in contents(src).items():
            if isinstance(data, bytes):
                fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
                fs.pipe_file(f"{path}/{name}", data)
            if isinstance(data, bytes) and url.startswith("local"):
                os.utime(f"{path}/{name}", (1, 10**9))
        first = save(repo, url)
        assert (first.files_new, first.bytes_read) == (5, 3_500_007)
        second = save(repo, url)  # memory tells nothing that would change with a file
        assert second.bytes_read == (0 if url.startswith("local") else first.bytes_read)
        assert (second.files_changed, second.files_unmodified, second.bytes_new) == (0, 5, 0)
        root = back(repo, tmp_path / "out", Path("/" + url.rpartition("/")[2]))
        assert {k: v for k, v in contents(root).items() if isinstance(v, bytes)} == self._files(url)
        save(repo, f"{url}/a", f"{url}/sub", dataset="list")
        snapshot = repo.snapshot("list@latest")
        paths = sorted(e.path for e in snapshot.ls(recursive=True))
        assert paths == ["/a", "/sub", "/sub/b", "/sub/sub", "/sub/sub/empty"]
        assert snapshot.open("/a").read() == (src / "a").read_bytes()

    def test_a_source_that_is_not_there(self, repo: Repository, url: str) -> None:
        with pytest.raises(snapvault.SourceError, match="nothing at this address"):
            snapvault.backup(repo, f"{url}/nowhere", dataset="d")
        assert list(repo.snapshots()) == []


def test_a_socket_that_is_in_use(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("s")
        s.listen()
        save(repo, tmp_path / "src")
    assert stat.S_ISSOCK((back(repo, tmp_path / "out", tmp_path / "src") / "s").stat().st_mode)


def test_many_small_chunks(tmp_path: Path) -> None:
    """A file whose list of chunks is itself cut into blobs, and mended in place."""
    repo = make(tmp_path / "repo", chunking=SMALL)
    src = tmp_path / "src"
    src.mkdir()
    (src / "f").write_bytes(random.Random(1).randbytes(2_000_000))
    save(repo, src)
    node = repo.snapshot("latest").entry(f"{src}/f").node
    assert node.content.depth >= 1
    root = back(repo, tmp_path / "out", src, verify=True)
    assert contents(root) == contents(src)
