"""Repositories for tests: made in a moment (a key instead of a password), and compared with what went in."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

import snapvault
from snapvault import BackupResult, Chunking, Control, Event, Repository
from snapvault.backend.trace import TraceBackend
from snapvault.format import names
from snapvault.format.tree import ID_SIZE
from snapvault.foundation.ids import BlobId
from snapvault.repository import create
from snapvault.repository.session import Session

SEED = bytes(range(32))
SMALL = Chunking(64, 128, 256)  # so that a small file has many chunks


def make(place: Path | str, **options: Any) -> Repository:
    """A new repository, opened with SEED."""
    return snapvault.init(str(place), keys=lambda: SEED, **options).repository


def small_packs(monkeypatch: pytest.MonkeyPatch, *, segment: int = 4096, pack: int = 16384) -> None:
    """Repositories made from now on have packs of few segments of few files; bytes."""
    monkeypatch.setattr(create, "SEGMENT_SIZE", segment)
    monkeypatch.setattr(create, "PACK_SIZE", pack)


def varied(root: Path) -> Path:
    """A folder of 30 files, each larger than the one before it, that share nothing."""
    root.mkdir()
    for i in range(30):
        (root / f"{i}").write_bytes(bytes([i]) * 50 + Random(i).randbytes(300 * (i + 1)))
    return root


def with_copy(source: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """``place/repo`` with one snapshot of many small packs, and a copy of it at ``place/copy``."""
    small_packs(monkeypatch, segment=2048, pack=8192)
    made = make(place / "repo", chunking=SMALL)
    save(made, source)
    snapvault.replicate(made.url, str(place / "copy"))
    return made


def again(repo: Repository, **options: Any) -> Repository:
    """The same repository, opened anew."""
    return snapvault.open(repo.url, keys=lambda: SEED, **options)


def save(repo: Repository, *sources: Any, **options: Any) -> BackupResult:
    """A backup that must be whole."""
    result = snapvault.backup(repo, *sources, **{"dataset": "d", **options})
    assert result.status == "ok", result
    return result


def back(repo: Repository, out: Path, root: Path, snapshot: str = "latest", **options: Any) -> Path:
    """Restore the root that was backed up; where it is now.  It must be whole."""
    result = snapvault.restore(repo, snapshot, out, **options)
    assert result.status == "ok", result
    return Path(f"{out}{root}")


def traced(repo: Repository) -> TraceBackend:
    """Count and record what this repository asks of its store from now on."""
    store = repo.vault.store
    store.backend = TraceBackend(store.backend, record=True)
    return store.backend


def open_session(repo: Repository) -> Session:
    """A backup that has begun, and does nothing more."""
    vault = again(repo).vault
    session = Session(vault.store, vault.ring, vault.ring.write_domain)
    session.announce()
    return session


def damage(repo: Repository, path: str, *, snapshot: str = "latest") -> str:
    """Flip bits in the segment that holds the end of a stored file.  The name of the pack."""
    found = repo.snapshot(snapshot)
    reader = found.reader()
    last = BlobId(reader.expand(found.entry(path).node.content)[-ID_SIZE:])
    place = reader.index.places(last)[0]
    name = names.pack(place.pack.id)
    with open(f"{repo.url}/{name}", "r+b") as f:
        f.seek(place.start + place.sealed // 2)
        byte = f.read(1)[0]
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte ^ 1]))
    return name


def objects(repo: Repository) -> dict[str, int]:
    """Names and sizes of all that is in the store."""
    return {o.name: o.size for o in repo.vault.backend.list()}


def flipped(data: bytes) -> bytes:
    """Other bytes of the same length, whatever they were."""
    return data[:-1] + bytes([data[-1] ^ 1])


def contents(root: Path) -> dict[str, bytes | str]:
    """Every entry below ``root``: files' bytes, links' targets, other kinds by their mode."""
    found: dict[str, bytes | str] = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            at = str(path.relative_to(root))
            if path.is_symlink():
                found[at] = os.readlink(path)
            elif path.is_file():
                found[at] = path.read_bytes()
            else:
                found[at] = f"{path.stat().st_mode:o}"
    return found


def python(code: str, *args: str | Path, before: tuple[str, ...] = (), **options: Any) -> str:
    """Standard output of ``python -c code args``; ``before``: a command that starts it."""
    env = {**os.environ, "PYTHONPATH": str(Path(snapvault.__file__).parents[1])}
    argv = [*before, sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, **options)
    if done.returncode:
        raise AssertionError(f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def beside(repo: Repository, source: Path, meanwhile: Callable[[], None]) -> BackupResult:
    """A backup, in whose first moments something else happens."""
    begun = False

    def look(event: Event) -> None:
        nonlocal begun
        if event.phase == "read" and not begun:
            begun = True
            meanwhile()

    result = save(again(repo), source, control=Control(progress=look))
    assert begun
    return result
