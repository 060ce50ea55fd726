"""A folder stays open for as long as a call uses it, whatever other threads do to the ones that are kept."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from snapvault.format.tree import Node, NodeKind
from snapvault.target.filesystem import FilesystemTarget
from snapvault.target.folders import Folders


def test_every_call_holds_its_folder(tmp_path: Path) -> None:
    """Nothing is kept here, so a descriptor that no call holds is closed at once."""
    target = FilesystemTarget(tmp_path / "target")
    target._folders = Folders(target._root, kept=0)
    node = Node(b"x", NodeKind.FILE, 0o644, os.getuid(), os.getgid(), 5)
    target.make_directory(b"a")
    target.make_directory(b"a/b")
    os.close(target.create_new(b"a/b/new"))
    new = target.create(b"a/b/other")
    new.close()
    new.reopen()
    new.commit()
    os.close(target.open_existing(b"a/b/new", write=True))
    target.symlink(b"a/b/symlink", b"new")
    target.link(b"a/b/new", b"a/b/link")
    target.special(b"a/b/fifo", Node(b"x", NodeKind.FIFO, 0, 0, 0, 0))
    assert target.apply(b"a/b/new", node) == []
    assert target.differs(b"a/b/new", node) <= {"size"}
    assert target.lstat(b"a/b/new") is not None and target.node(b"a/b/fifo") is not None
    assert target.listdir(b"a/b") == [b"fifo", b"link", b"new", b"other", b"symlink"]
    target.remove(b"a/b")
    assert target.listdir(b"a") == []


def test_many_threads_in_one_new_folder(tmp_path: Path) -> None:
    """All of them open the folder for the first time at once."""
    for turn in range(100):
        target = FilesystemTarget(tmp_path / f"{turn}")
        target.make_directory(b"a")
        with ThreadPoolExecutor(8) as pool:
            for fd in pool.map(lambda i, t=target: t.create_new(b"a/%d" % i), range(16)):  # type: ignore[misc]
                os.close(fd)
        assert len(os.listdir(tmp_path / f"{turn}/a")) == 16
        target.close()
