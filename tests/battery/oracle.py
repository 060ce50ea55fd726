"""What every fault of the battery is judged by.

Every snapshot that was acknowledged restores bit for bit, bytes and metadata; whatever else is listed is whole, too;
and ``check`` agrees.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import snapvault

Tree = dict[str, tuple[Any, ...]]  # path below the root -> kind, metadata and content


def remember(root: Path) -> Tree:
    """Everything below ``root`` (not the root itself) that a restore must bring back."""
    return {os.path.relpath(path, root): _describe(path) for path in _walk(os.fspath(root))}


def _walk(folder: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        yield entry.path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)


def _describe(path: str) -> tuple[Any, ...]:
    st = os.lstat(path)
    kind = stat.S_IFMT(st.st_mode)
    content: object = ""
    if stat.S_ISLNK(st.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(st.st_mode):
        content = st.st_size, hashlib.sha256(Path(path).read_bytes()).hexdigest()
    names = sorted(os.listxattr(path, follow_symlinks=False))
    attributes = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names)
    links = st.st_nlink if not stat.S_ISDIR(st.st_mode) else 0
    return kind, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, content, links, attributes


class Ledger:
    """Remembers what was acknowledged."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.trees: dict[str, Tree] = {}  # snapshot -> what it must restore to
        self.forgotten: set[str] = set()

    def copy(self) -> "Ledger":
        """One that goes its own way from here."""
        other = Ledger(self.source)
        other.trees, other.forgotten = dict(self.trees), set(self.forgotten)
        return other

    def backup(self, repo: snapvault.Repository, **options: Any) -> snapvault.BackupResult:
        """Back the source up; once this returned, the snapshot is owed."""
        tree = remember(self.source)
        options = {"dataset": "model", "host": "here"} | options
        result = snapvault.backup(repo, self.source, **options)
        assert result.status == "ok", result
        self.trees[result.snapshot] = tree
        return result

    def forget(self, repo: snapvault.Repository, snapshot: str) -> None:
        """Forget a snapshot; once this returned, it must not be listed any more."""
        snapvault.forget_snapshots(repo, [snapshot])
        self.forgotten.add(snapshot)

    def verify(self, repo: snapvault.Repository, scratch: Path, *, check: bool = True) -> set[str]:
        """The oracle.  The ids of snapshots that are listed without having been acknowledged (each was whole)."""
        listed = {s.id: s for s in repo.snapshots()}
        owed = set(self.trees) - self.forgotten
        assert owed <= set(listed), f"acknowledged snapshots are gone: {owed - set(listed)}"
        assert not self.forgotten & set(listed), "a forgotten snapshot is listed again"
        for sid, snapshot in listed.items():
            if sid in self.trees:
                tree = restored(repo, snapshot, str(self.source), scratch)
                assert tree == self.trees[sid], f"snapshot {sid} restored to something else"
            else:
                restored(repo, snapshot, "/", scratch)
        if check:
            assert_sound(repo, read_data=True)
        return set(listed) - owed


def restored(repo: snapvault.Repository, snapshot: snapvault.Snapshot, path: str, scratch: Path) -> Tree:
    """What is inside a folder of a snapshot, by a restore below ``scratch`` that is removed again."""
    target = scratch / "restored"
    try:
        result = snapvault.restore(repo, snapshot, target, path=path)
        assert result.status == "ok", (result.issues, result.lost)
        return remember(target)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def assert_sound(repo: snapvault.Repository, *, read_data: bool | float = False) -> None:
    """``check`` finds nothing wrong."""
    report = snapvault.check(repo, read_data=read_data)
    assert report.status == "ok", (report.problems, report.lost)
    assert not read_data or report.packs_read == report.packs
