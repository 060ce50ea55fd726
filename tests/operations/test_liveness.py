"""What snapshots need, against a walk with sets; and nothing that is needed is ever taken for dead."""

from pathlib import Path

import pytest

import snapvault
from snapvault import Repository
from snapvault.chunking import Chunking
from snapvault.format.tree import BlobType, Content, NodeKind
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import BlobId
from snapvault.operations import run
from snapvault.operations.liveness import Liveness
from snapvault.repository import records as records_module
from tests.repos import again, make, save


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Folders, files in many chunks, and lists of lists."""
    monkeypatch.setattr(run, "INLINE_IDS", 3)
    monkeypatch.setattr(run, "split_ids", lambda ids: [ids[i : i + 128] for i in range(0, len(ids), 128)])
    source = tmp_path / "source"
    for folder in ("a", "a/b", "c"):
        (source / folder).mkdir(parents=True)
        for number in range(20):
            (source / folder / str(number)).write_bytes(f"{folder} {number} ".encode() * 40 * number)
    repo = make(tmp_path / "repo", chunking=Chunking(64, 128, 256))
    save(repo, source)
    (source / "c/19").write_bytes(b"changed" * 1000)
    (source / "a/b/3").unlink()
    save(repo, source)
    return again(repo)


def needed(repo: Repository, snapshots: list[snapvault.Snapshot]) -> set[BlobId]:
    """The slow way."""
    reader, found = repo.vault.reader(), set[BlobId]()

    def lists(content: Content) -> list[BlobId]:
        ids = [BlobId(content.ids[i : i + 32]) for i in range(0, len(content.ids), 32)]
        found.update(ids)
        if not content.depth:
            return ids
        return [leaf for i in ids for leaf in lists(Content(content.depth - 1, reader.id_list(i)))]

    def walk(content: Content) -> None:
        for blob in lists(content):
            for node in reader.tree(blob).nodes:
                (walk if node.kind == NodeKind.DIRECTORY else lists)(node.content)

    for snapshot in snapshots:
        walk(snapshot.details.root)
    return found


def marked(repo: Repository, live: Liveness) -> set[BlobId]:
    tables = repo.vault.index().tables
    return {b for t, m in zip(tables, live.marks, strict=True) for b, bit in zip(t.ids(), m, strict=True) if bit}


def liveness(repo: Repository) -> Liveness:
    return Liveness(repo.vault.index().tables, repo.vault.reader())


@pytest.mark.parametrize(
    "which", [slice(0, 1), slice(1, 2), slice(0, 2), slice(0, 0)], ids=["the old", "the new", "both", "none"]
)
def test_what_is_needed(repo: Repository, which: slice) -> None:
    snapshots, live = list(repo.snapshots())[which], liveness(repo)
    for snapshot in snapshots:
        live.add(snapshot.details.root)
    model = needed(repo, snapshots)
    assert marked(repo, live) == model
    assert any(s.entry(f"{s.paths[0]}/c/19").node.content.depth > 1 for s in snapshots) or not snapshots
    total = sum(p.length for b in model for p in repo.vault.index().places(b)[:1])
    assert sum(map(sum, live.live_bytes())) == total


def test_the_twin_counts_the_same(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    live = liveness(repo)
    live.add(next(iter(repo.snapshots())).details.root)
    native = live.live_bytes()
    monkeypatch.setattr(records_module, "native", None)
    assert live.live_bytes() == native


def test_a_file_that_names_a_folder_hides_nothing_in_it(repo: Repository) -> None:
    """A hostile file names the blobs of somebody's folders as its content: they are walked all the same."""
    snapshot, live = next(iter(repo.snapshots())), liveness(repo)
    trees = [b for b in needed(repo, [snapshot]) if _is_tree(repo, b)]
    live.visit(b"".join(trees), BlobType.DATA)
    live.add(snapshot.details.root)
    assert marked(repo, live) == needed(repo, [snapshot])


def _is_tree(repo: Repository, blob: BlobId) -> bool:
    return repo.vault.index().places(blob)[0].type == BlobType.TREE


def test_what_is_missing_is_an_error(repo: Repository) -> None:
    with pytest.raises(Damaged, match="in no index"):
        liveness(repo).add(Content(0, bytes(32)))
    with pytest.raises(Damaged, match="in no index"):
        Liveness([], repo.vault.reader()).add(Content(0, bytes(32)))
