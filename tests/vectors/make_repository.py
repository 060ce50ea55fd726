"""Writes repository.json: a whole small repository, its keys, and what must come out of it.

    python tests/vectors/make_repository.py

Run as root, and only after a change of the format on purpose: nothing of it can be made twice in the same bytes.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from make import write

import snapvault
from snapvault.operations.forget import forget_snapshots
from snapvault.operations.keys import add_key, rotate

PASSWORD = "correct horse"
SOURCE = Path("/srv/snapvault-vector")


def build_source() -> None:
    SOURCE.mkdir(mode=0o750)
    (SOURCE / "empty").touch()
    (SOURCE / "hello").write_text("hello, world\n")
    os.setxattr(SOURCE / "hello", "user.note", b"\0\xff")
    os.link(SOURCE / "hello", SOURCE / "hello again")
    os.symlink("hello", SOURCE / "link")
    os.mkfifo(SOURCE / "fifo", 0o600)
    Path(os.fsdecode(os.fsencode(SOURCE) + b"/name \xff\n")).write_bytes(bytes(range(256)))
    with open(SOURCE / "sparse", "wb") as f:
        f.seek(1 << 20)
        f.write(b"after a hole")
    (SOURCE / "folder").mkdir()
    (SOURCE / "folder" / "inside").write_bytes(b"the same words again, " * 2000)
    for path in (*SOURCE.rglob("*"), SOURCE):
        os.utime(path, ns=(0, 1_600_000_000_123_456_789), follow_symlinks=False)


def build(folder: Path) -> dict[str, Any]:
    made = snapvault.init(str(folder / "repo"), password=PASSWORD)
    repo = made.repository
    snapvault.backup(repo, SOURCE, dataset="first", host="web-1")
    add_key(repo, "reader", "auditor", file=folder / "reader.json")
    repo = repo.reopen(password=PASSWORD)
    rotate(repo)
    repo = repo.reopen(password=PASSWORD)
    (SOURCE / "folder" / "new").write_text("new in the second epoch\n")
    os.utime(SOURCE / "folder" / "new", ns=(0, 5))
    second = snapvault.backup(repo, SOURCE, dataset="second", host="web-1", tags=("kept",)).snapshot
    forget_snapshots(repo, [snapvault.backup(repo, SOURCE, dataset="third", host="web-1").snapshot])
    expected = [describe(repo, second, e) for e in repo.snapshot(second).ls("/", recursive=True)]
    files = [p for p in (folder / "repo").rglob("*") if p.is_file() and "escue" not in p.name and "ESCUE" not in p.name]
    return {
        "password": PASSWORD,
        "recovery key": made.recovery_key,
        "reader": (folder / "reader.json").read_text(),
        "snapshots": ["first", "second"],
        "second": expected,
        "objects": {str(p.relative_to(folder / "repo")): p.read_bytes().hex() for p in sorted(files)},
    }


def describe(repo: snapvault.Repository, snapshot: str, entry: snapvault.Entry) -> dict[str, Any]:
    node = entry.node
    found = {
        "path": os.fsencode(entry.path).hex(), "kind": node.kind, "mode": node.mode, "size": node.size,
        "mtime": node.mtime_ns if entry.path.startswith(str(SOURCE)) else None, "target": node.target.hex(),
        "xattrs": {k.hex(): v.hex() for k, v in (node.xattrs or {}).items()},
    }  # fmt: skip
    if entry.kind == "file" and not node.extents:
        with repo.snapshot(snapshot).open(entry.path) as f:
            found["content"] = f.read().hex() if node.size < 1000 else ""
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        build_source()
        try:
            write("repository.json", build(Path(name)))
        finally:
            shutil.rmtree(SOURCE)
