"""One repository in a process: forks, threads, an asyncio caller."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from repos import make

import snapvault
from snapvault.operations import saver


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> snapvault.Repository:
    monkeypatch.setattr(saver, "RACY_NS", -(10**9))  # so that trees do not depend on how old the source is
    (tmp_path / "source").mkdir()
    for n in range(20):
        (tmp_path / "source" / f"{n}").write_bytes(os.urandom(50_000))
    repo = make(tmp_path / "repo")
    snapvault.backup(repo, tmp_path / "source", dataset="d")
    return repo


def test_a_child_of_a_fork_refuses_to_go_on(repo: snapvault.Repository, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            snapvault.backup(repo, tmp_path / "source", dataset="d")
        except snapvault.InvalidInput as e:
            code = 7 if "fork" in str(e) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert len(list(repo.snapshots())) == 1
    assert snapvault.backup(repo, tmp_path / "source", dataset="d").status == "ok"


def test_many_threads_read_while_one_writes(repo: snapvault.Repository, tmp_path: Path) -> None:
    source = tmp_path / "source"

    def read(n: int) -> bool:
        snapshot = repo.snapshot("d@latest")
        with snapshot.open(f"{source}/{n}") as file:
            return file.read() == (source / f"{n}").read_bytes()

    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(read, n % 20) for n in range(80)]
        for _ in range(3):
            assert snapvault.backup(repo, source, dataset="d", force_read=True).bytes_new == 0
        assert all(r.result() for r in reads)


def test_an_asyncio_caller_uses_threads(repo: snapvault.Repository, tmp_path: Path) -> None:
    async def both() -> tuple[snapvault.BackupResult, snapvault.RestoreResult]:
        return await asyncio.gather(
            asyncio.to_thread(snapvault.backup, repo, tmp_path / "source", dataset="e"),
            asyncio.to_thread(snapvault.restore, repo, "d@latest", tmp_path / "out"),
        )

    saved, restored = asyncio.run(both())
    assert (saved.status, restored.status, restored.files_written) == ("ok", "ok", 20)
