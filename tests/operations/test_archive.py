"""Into a stream: one file's bytes, or a tar that GNU tar unpacks to the same tree."""

import io
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from repos import contents, damage, make, save
from trees import build_torture_tree, referee

import snapvault
from snapvault import Damaged, InvalidInput, Repository

FOREIGN = b"user.\xff\xfe"  # an attribute whose name is not UTF-8


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    return make(tmp_path / "repo")


@pytest.fixture
def src(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    return tmp_path / "src"


def test_gnu_tar_unpacks_the_same_tree(repo: Repository, tmp_path: Path) -> None:
    """Names, links, owners, modes, times to the nanosecond, attributes and ACLs; a socket has no place in a tar."""
    tree = tmp_path / "tree"
    build_torture_tree(tree, entries=200, big_sparse=1 << 20)
    shutil.rmtree(tree / "deep")  # a name that long goes into no archive that tar would unpack
    save(repo, tree)
    with open(tmp_path / "a.tar", "wb") as stream:
        result = snapvault.restore(repo, "latest", stream, path=str(tree))
    assert [(i.path, i.message) for i in result.issues] == [
        (f"{tree}/attributes/file", f"its attribute {os.fsdecode(FOREIGN)!r} has a name that a tar cannot hold"),
        (f"{tree}/special/socket", "a socket has no place in a tar"),
    ]
    os.removexattr(tree / "attributes/file", FOREIGN)
    assert result.status == "partial" and result.lost == ()
    out = tmp_path / "out"
    out.mkdir()
    options = (
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "--numeric-owner",
        "--same-owner",
        "-p",
        "--delay-directory-restore",
    )
    done = subprocess.run(["tar", "-xf", tmp_path / "a.tar", "-C", out, *options], capture_output=True, text=True)
    remarks = ("Ignoring unknown extended header keyword", "implausibly old time stamp", " s in the future")
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if not any(r in line for r in remarks)] == []
    (tree / "special/socket").unlink()
    for folder in ("special", "."):  # the socket moved the time of one; the top is not in the tar
        os.utime(tree / folder, ns=(1, 1))
        os.utime(out / folder, ns=(1, 1))
    shutil.copystat(tree, out)
    for path in (tree / "sparse").iterdir():  # nor are holes
        assert (out / "sparse" / path.name).read_bytes() == path.read_bytes()
    shutil.rmtree(tree / "sparse")
    shutil.rmtree(out / "sparse")
    os.utime(tree, (1, 1))
    os.utime(out, (1, 1))
    assert referee(tree, out) == []


def test_pythons_tar_reads_it_from_a_pipe(repo: Repository, src: Path) -> None:
    (src / "sub").mkdir()
    (src / "a").write_bytes(random.Random(1).randbytes(2_000_000))
    (src / "sub/ü").write_bytes(b"u")
    save(repo, src)
    stream = io.BytesIO()
    result = snapvault.restore(repo, "latest", stream, path=str(src))
    assert (result.status, result.files_written, result.bytes_written) == ("ok", 2, 2_000_001)
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue()), mode="r|") as tar:
        found = {m.name: f.read() for m in tar if (f := tar.extractfile(m))}
    assert found == {k: v for k, v in contents(src).items() if isinstance(v, bytes)}


def test_a_part_and_a_selection(repo: Repository, src: Path) -> None:
    for name in ("a.txt", "b.bin", "c.txt"):
        (src / name).write_bytes(name.encode())
    save(repo, src)
    stream = io.BytesIO()
    snapvault.restore(repo, "latest", stream, path=str(src), include=["*.txt"], exclude=["c*"])
    assert _names(stream) == ["a.txt"]


def _names(stream: io.BytesIO) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
        return tar.getnames()


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_single_file_is_its_bytes(size: int, repo: Repository, src: Path) -> None:
    (src / "f").write_bytes(random.Random(1).randbytes(size))
    save(repo, src)
    stream = io.BytesIO()
    result = snapvault.restore(repo, "latest", stream, path=f"{src}/f")
    assert stream.getvalue() == (src / "f").read_bytes()
    assert (result.files_written, result.bytes_written) == (1, size)


@pytest.mark.parametrize("option", ["delete", "verify", "dry_run"])
def test_what_a_stream_cannot_do_is_refused(option: str, repo: Repository, src: Path) -> None:
    (src / "f").write_bytes(b"f")
    save(repo, src)
    stream = io.BytesIO()
    with pytest.raises(InvalidInput, match=option):
        snapvault.restore(repo, "latest", stream, path=str(src), **{option: True})  # type: ignore[arg-type]
    assert stream.getvalue() == b""


def test_times_before_the_epoch(repo: Repository, src: Path) -> None:
    """A tar's fractions count towards zero."""
    times = {"a": -1, "b": -1_500_000_000, "c": -(10**9), "d": 1_500_000_000, "e": 0, "f": -315_619_200_000_000_001}
    for name, time in times.items():
        (src / name).touch()
        os.utime(src / name, ns=(time, time))
    save(repo, src)
    stream = io.BytesIO()
    snapvault.restore(repo, "latest", stream, path=str(src))
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        written = {m.name: m.pax_headers["mtime"] for m in tar}
    assert written == {
        "a": "-0.000000001", "b": "-1.500000000", "c": "-1.000000000", "d": "1.500000000", "e": "0.000000000",
        "f": "-315619200.000000001",
    }  # fmt: skip


def test_damage(repo: Repository, src: Path) -> None:
    """In a tar the lost file is left out and named; as a single file it is an error and nothing wrong was written."""
    for name in "ab":
        (src / name).write_bytes(random.Random(ord(name)).randbytes(3_000_000))
    os.link(src / "b", src / "c")  # its second name leads to nothing either
    save(repo, src)
    damage(repo, f"{src}/b")
    stream = io.BytesIO()
    result = snapvault.restore(repo, "latest", stream, path=str(src))
    assert (result.status, [i.path for i in result.lost]) == ("damaged", [f"{src}/b", f"{src}/c"])
    assert _names(stream) == ["a"]
    stream = io.BytesIO()
    with pytest.raises(Damaged, match="src/b"):
        snapvault.restore(repo, "latest", stream, path=f"{src}/b")
    assert (src / "b").read_bytes().startswith(stream.getvalue())


class _Full(io.RawIOBase):
    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


def test_a_stream_that_fails(repo: Repository, src: Path) -> None:
    """It is the caller's stream, and the error comes as it is; but not as success."""
    (src / "f").write_bytes(b"f")
    save(repo, src)
    for path in (str(src), f"{src}/f"):
        with pytest.raises(OSError, match="No space left"):
            snapvault.restore(repo, "latest", _Full(), path=path)  # type: ignore[arg-type]


class _Sips(io.RawIOBase):
    """An unbuffered stream that takes a part of what it is given, or for now nothing at all."""

    def __init__(self, limit: int) -> None:
        self.got, self._limit = bytearray(), limit

    def write(self, data: bytes) -> int | None:  # type: ignore[override]
        self.got += data[: self._limit]
        return min(len(data), self._limit) or None


def test_a_stream_that_takes_less(repo: Repository, src: Path) -> None:
    """What it did not take is given again; one that takes nothing is an error, not a loss."""
    (src / "f").write_bytes(random.Random(1).randbytes(300_000))
    save(repo, src)
    for path in (str(src), f"{src}/f"):
        whole, sips = io.BytesIO(), _Sips(1000)
        snapvault.restore(repo, "latest", whole, path=path)
        snapvault.restore(repo, "latest", sips, path=path)  # type: ignore[arg-type]
        assert bytes(sips.got) == whole.getvalue()
        with pytest.raises(BlockingIOError):
            snapvault.restore(repo, "latest", _Sips(0), path=path)  # type: ignore[arg-type]
