"""Adversary, a writer of snapshots (family 8): trees that no honest encoder makes, restored by everybody's own hands.

Whatever a tree says, nothing outside of the target is touched; what cannot be restored is named, all else is restored.
"""

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import msgpack
import pytest
from battery import lab
from battery.lab import Lab
from blake3 import blake3

import snapvault
from snapvault.format.snapshot import SnapshotDetails
from snapvault.format.tree import BlobType, Content, NodeKind, encode_tree
from snapvault.operations.repository import Repository
from snapvault.operations.run import Run

FINE = b"as it was"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Lab]:
    store = lab.memory()
    snapvault.init(store.url, keys=lambda: lab.SEED, chunking=lab.CHUNKING).repository.close()
    yield Lab(store, tmp_path)
    store.objects.clear()


@pytest.fixture
def repo(made: Lab) -> Iterator[Repository]:
    with made.open() as opened:
        yield opened


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    (folder / "victim").write_bytes(b"untouched")
    return folder


def state(folder: Path) -> list[tuple[Any, ...]]:
    """All that a write, a chmod or a touch would change."""
    return [
        (str(p), st.st_mode, st.st_uid, st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_nlink)
        for p in sorted([folder, *folder.rglob("*")])
        for st in [p.lstat()]
    ]


def commit(repo: Repository, pieces: list[bytes], files: dict[bytes, bytes] | None = None) -> str:
    """A snapshot whose top folder has these pieces, byte for byte; ``files`` are stored beside it."""
    with Run(repo.vault, "backup", None) as run:
        for data in (files or {}).values():
            run.blobs.put(BlobType.DATA, data)
        ids = b"".join(run.blobs.put(BlobType.TREE, piece) for piece in pieces)
        run.blobs.flush()
        assert run.session is not None
        run.session.commit(SnapshotDetails("evil", "here", Content(0, ids), (b"/",), 1, 1), (), 1)
        run.committed = True
        return run.session.sid


def row(
    name: Any, kind: int = NodeKind.FILE, *, ids: Any = b"", size: int = 0, extra: Any = None, mode: int = 0o644
) -> list[Any]:
    """A node as it stands in a tree."""
    return [name, kind, mode, 0, 0, 0, 0, 0, size, ids, *([extra] if extra is not None else [])]


def tree(*rows: Any, version: int = 1) -> bytes:
    return bytes(msgpack.packb([version, {}, {}, list(rows)], use_bin_type=True))


def blob_of(repo: Repository, data: bytes) -> bytes:
    return repo.vault.ring.write_domain.blob_id(BlobType.DATA, data)


FOLDER, LINK = NodeKind.DIRECTORY, NodeKind.SYMLINK
ROWS: dict[str, list[Any]] = {
    "..": [row(b"..", FOLDER)],
    ".": [row(b".", FOLDER)],
    "empty": [row(b"")],
    "slash": [row(b"/")],
    "absolute": [row(b"/etc/cron.d/evil")],
    "path": [row(b"a/b")],
    "climbing": [row(b"../outside/victim")],
    "climbing in the middle": [row(b"a/../../outside/victim")],
    "nul": [row(b"a\0b")],
    "text": [row("../outside/victim")],
    "number": [row(7)],
    "twice": [row(b"x", FOLDER), row(b"x", FOLDER)],
    "link and folder": [row(b"x", LINK, extra={1: b"../outside"}), row(b"x", FOLDER)],
    "folder and link": [row(b"x", FOLDER), row(b"x", LINK, extra={1: b"../outside"})],
    "out of order": [row(b"y", FOLDER), row(b"x", FOLDER)],
    "a kind that is none": [row(b"x", 99)],
    "a mode beyond the bits": [row(b"x", mode=0o100644)],
    "a negative size": [row(b"x", size=-1)],
    "content of a link": [row(b"x", LINK, ids=bytes(32), extra={1: b"t"})],
    "half an id": [row(b"x", ids=bytes(31), size=1)],
    "too deep": [row(b"x", ids=[200, bytes(32)], size=1)],
    "nul in a target": [row(b"x", LINK, extra={1: b"a\0b"})],
    "a sparse map beyond the end": [row(b"x", size=10, extra={5: (5).to_bytes(8, "little") * 2 * 9})],
    "an attribute without name": [row(b"x", extra={4: {b"": b"v"}})],
    "not a row": [7],
    "too short a row": [[b"x", 0]],
}


@pytest.mark.parametrize("what", ROWS)
def test_trees_that_are_refused(what: str, repo: Repository, tmp_path: Path, outside: Path) -> None:
    """A folder with such an entry is lost, and said so by restore and check; the folder beside it is restored."""
    good = encode_tree([lab.file_node(b"fine", len(FINE), Content(0, blob_of(repo, FINE)))], {}, {})
    with Run(repo.vault, "backup", None) as run:
        bad_id = run.blobs.put(BlobType.TREE, tree(*ROWS[what]))
        good_id = run.blobs.put(BlobType.TREE, good)
        run.blobs.put(BlobType.DATA, FINE)
        top = tree(row(b"bad", FOLDER, ids=bad_id), row(b"good", FOLDER, ids=good_id))
        root = run.blobs.put(BlobType.TREE, top)
        run.blobs.flush()
        assert run.session is not None
        run.session.commit(SnapshotDetails("evil", "here", Content(0, root), (b"/",), 1, 1), (), 1)
        run.committed = True
    sid = run.session.sid
    before = state(outside)
    target = tmp_path / "target"
    result = snapvault.restore(repo, sid, target)
    assert result.status == "damaged" and [i.path for i in result.lost] == ["/bad"]
    assert lab.read_tree(target) == {"bad": None, "good": None, "good/fine": FINE}
    assert [(p.snapshot, p.path) for p in snapvault.check(repo).lost] == [(sid, "/bad")]
    with pytest.raises(snapvault.Damaged):
        list(repo.snapshot(sid).ls("/", recursive=True))
    stream = io.BytesIO()
    assert snapvault.restore(repo, sid, stream).status == "damaged"
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
        assert {m.name for m in tar} == {"bad", "good", "good/fine"}
    assert state(outside) == before and sorted(os.listdir(tmp_path)) == ["outside", "target"]


@pytest.mark.parametrize("names", [(b"b", b"a"), (b"a", b"a"), (b"x", b"x")])
def test_pieces_of_a_folder_out_of_order(names: tuple[bytes, bytes], repo: Repository, tmp_path: Path) -> None:
    """Each piece is in order; together they name an entry twice, or are not."""
    sid = commit(
        repo, [tree(row(n, LINK, extra={1: b"../outside"})) for n in names[:1]] + [tree(row(names[1], FOLDER))]
    )
    result = snapvault.restore(repo, sid, tmp_path / "target")
    assert result.status == "damaged" and [i.path for i in result.lost] == ["/"]
    assert {(p.snapshot, p.path) for p in snapvault.check(repo).lost} == {(sid, "/")}


def test_a_link_that_an_earlier_restore_made(repo: Repository, tmp_path: Path, outside: Path) -> None:
    """The first snapshot makes ``x`` a link out of the target; the next one has a folder there, with a victim."""
    first = commit(repo, [tree(row(b"x", LINK, extra={1: b"../outside"}))])
    inner = tree(row(b"victim", ids=blob_of(repo, b"evil"), size=4, mode=0o777))
    with Run(repo.vault, "backup", None) as run:
        run.blobs.put(BlobType.DATA, b"evil")
        inner_id = run.blobs.put(BlobType.TREE, inner)
        root = run.blobs.put(BlobType.TREE, tree(row(b"x", FOLDER, ids=inner_id, mode=0o777)))
        run.blobs.flush()
        assert run.session is not None
        run.session.commit(SnapshotDetails("evil", "here", Content(0, root), (b"/",), 1, 1), (), 2)
        run.committed = True
    target, before = tmp_path / "target", state(outside)
    assert snapvault.restore(repo, first, target).status == "ok"
    assert os.readlink(target / "x") == "../outside"
    for delete in (False, True):
        result = snapvault.restore(repo, run.session.sid, target, delete=delete, verify=True)
        assert state(outside) == before
        if result.status == "ok":
            assert (target / "x/victim").read_bytes() == b"evil" and not (target / "x").is_symlink()
        else:
            assert {i.path for i in result.issues} >= {"/x"} or result.lost


@pytest.mark.parametrize("at", ["x", "x/y", "x/y/file"])
def test_a_link_planted_in_the_target(at: str, repo: Repository, tmp_path: Path, outside: Path) -> None:
    """Somebody put links into the target before: into folders, and in place of a file."""
    with repo.writer("fine", host="here") as writer, writer.open("/x/y/file") as file:
        file.write(b"evil")
    assert writer.result is not None
    target = tmp_path / "target"
    place = target / at
    place.parent.mkdir(parents=True)
    place.symlink_to(outside / "victim" if at.endswith("file") else outside)
    (outside / "y").mkdir()
    (outside / "y/file").write_bytes(b"untouched")
    before = state(outside)
    for delete in (False, True):
        snapvault.restore(repo, writer.result.snapshot, target, delete=delete)
        assert state(outside) == before
    stray = target / "stray"
    stray.symlink_to(outside)
    snapvault.restore(repo, writer.result.snapshot, target, delete=True)
    assert state(outside) == before and not stray.is_symlink()


def test_links_among_names_of_different_kinds(repo: Repository, tmp_path: Path, outside: Path) -> None:
    """A link out of the target and a file claim to be one inode: the file must not be written through the link."""
    same = {3: [1, 2]}
    rows = [
        row(b"a", LINK, extra={1: b"../outside/victim", **same}),
        row(b"b", ids=blob_of(repo, b"evil"), size=4, mode=0o777, extra=same),
        row(b"c", FOLDER, extra=same),
        row(b"d", NodeKind.FIFO, extra=same),
    ]
    sid = commit(repo, [tree(*rows)], {b"b": b"evil"})
    before = state(outside)
    for _ in range(2):
        snapvault.restore(repo, sid, tmp_path / "target")
        assert state(outside) == before
    assert os.readlink(tmp_path / "target/a") == "../outside/victim"


def test_a_folder_that_holds_itself(repo: Repository, tmp_path: Path) -> None:
    """Ids are digests, so no tree can hold itself; one that names an id that is not there is a lost folder."""
    sid = commit(repo, [tree(row(b"x", FOLDER, ids=blake3(b"itself").digest()))])
    result = snapvault.restore(repo, sid, tmp_path / "target")
    assert [i.path for i in result.lost] == ["/x"]


def test_a_deep_chain_costs_no_stack(repo: Repository, tmp_path: Path) -> None:
    """Two thousand folders in one another, made of two thousand small trees."""
    with Run(repo.vault, "backup", None) as run:
        ids = b""
        for _ in range(2000):
            ids = run.blobs.put(BlobType.TREE, tree(row(b"d", FOLDER, ids=ids, mode=0o755)))
        run.blobs.flush()
        assert run.session is not None
        run.session.commit(SnapshotDetails("evil", "here", Content(0, ids), (b"/",), 1, 1), (), 1)
        run.committed = True
    sid = run.session.sid
    assert snapvault.check(repo).status == "ok"
    try:
        result = snapvault.restore(repo, sid, tmp_path / "target")
        assert result.status == "ok" and result.folders >= 2000
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "target"], check=True)  # deeper than Python removes
    subprocess.run(["rm", "-rf", tmp_path / "target"], check=True)  # too deep for pytest to remove


@pytest.mark.parametrize("size", [1 << 40, 100 * 100**8])
def test_a_list_of_lists_that_multiplies(size: int, repo: Repository, tmp_path: Path) -> None:
    """Lists that name one list a hundred times over, eight levels deep, are 10^16 chunks from a few KB.

    A check needs neither the time nor the memory of that; where the size is a lie, nor does a restore.
    """
    with Run(repo.vault, "backup", None) as run:
        ids = run.blobs.put(BlobType.DATA, b"x" * 100) * 100
        for _ in range(8):
            ids = run.blobs.put(BlobType.LIST, ids) * 100
        root = run.blobs.put(BlobType.TREE, tree(row(b"huge", ids=[8, ids[:32]], size=size)))
        run.blobs.flush()
        assert run.session is not None
        run.session.commit(SnapshotDetails("evil", "here", Content(0, root), (b"/",), 1, 1), (), 1)
        run.committed = True
    lost = {p.path for p in snapvault.check(repo).lost}
    assert lost == (set() if size == 100 * 100**8 else {"/huge"})
    if lost:
        result = snapvault.restore(repo, run.session.sid, tmp_path / "target")
        assert [i.path for i in result.lost] == ["/huge"]


def test_restore_to_a_url_stays_below_it(repo: Repository, tmp_path: Path) -> None:
    with repo.writer("fine", host="here") as writer, writer.open("/x/file") as file:
        file.write(b"data")
    assert writer.result is not None
    memory = fsspec.filesystem("memory")
    memory.pipe("/elsewhere/victim", b"untouched")
    before = set(memory.find("/"))  # one memory for the whole process: other tests may have left files there
    for what in ("..", "climbing", "absolute"):
        sid = commit(repo, [tree(*ROWS[what])])
        result = snapvault.restore(repo, sid, f"memory://below/{what.strip('.')}t")
        assert result.status == "damaged"
    assert memory.cat("/elsewhere/victim") == b"untouched"
    assert all(p.startswith("/below/") for p in set(memory.find("/")) - before)
    memory.rm("/elsewhere", recursive=True)
