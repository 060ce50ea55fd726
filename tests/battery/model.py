"""A small repository with every object of a large one: a model run takes some thirty backend calls.

Segments, packs and index objects are cut so early that 200 KB make several of each.
"""

import math
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import snapvault
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.protocol import Backend
from snapvault.format.tree import ID_SIZE
from snapvault.foundation.events import Control, Limits
from snapvault.foundation.ids import BlobId
from snapvault.operations import saver
from snapvault.repository import create, packer, site
from snapvault.repository.index import WIDTH

# How often a run looks for others depends on the clock; the number of its calls must not.
packer.SHARED_SECONDS = math.inf

SEED = bytes(range(32))  # a bare key: opening costs no password hashing
CHUNKING = snapvault.Chunking(1024, 4096, 16384)
SEGMENT, PACK, INDEX = 16 << 10, 64 << 10, 100_000
ONE_THREAD = Control(limits=Limits(threads=1))  # so that the calls come in the same order each time


@contextmanager
def small_parts() -> Iterator[None]:
    """While this is open, new repositories and backups cut everything small, and no file counts as racy."""
    values = [
        (create, "SEGMENT_SIZE", SEGMENT),
        (create, "PACK_SIZE", PACK),
        (packer, "INDEX_BYTES", INDEX),
        (saver, "RACY_NS", -(10**9)),  # else the trees that are stored depend on how old the source is
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in values]
    try:
        for module, name, value in values:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@contextmanager
def served_by(backend: Backend) -> Iterator[None]:
    """While this is open, ``init`` and ``open`` of any URL get this backend."""
    before = site.open_backend, create.open_backend
    try:
        site.open_backend = create.open_backend = lambda *args, **options: backend
        yield
    finally:
        site.open_backend, create.open_backend = before


def key() -> bytes:
    return SEED


def init(backend: Backend) -> snapvault.Repository:
    """Make a repository in this backend."""
    with served_by(backend):
        return snapvault.init("memory://model", keys=key, chunking=CHUNKING).repository


def opened(backend: Backend) -> snapvault.Repository:
    """Open the repository in this backend."""
    with served_by(backend):
        return snapvault.open("memory://model", keys=key)


def make_source(root: Path) -> None:
    """A tree of some 200 KB with files of one and of many chunks, an empty one, a link, folders."""
    content = random.Random(7)
    root.mkdir(parents=True)
    (root / "large").write_bytes(content.randbytes(150_000))
    (root / "empty").touch()
    os.symlink("large", root / "link")
    for i in range(4):
        folder = root / f"folder {i}"
        folder.mkdir()
        (folder / "one").write_bytes(content.randbytes(9_000))
        (folder / "two").write_text(f"text {i}\n" * 300)
    os.link(root / "large", root / "folder 0" / "large too")


def change_source(root: Path, step: int) -> None:
    """Edit a file, add one, remove one."""
    content = random.Random(step)
    with open(root / "large", "r+b") as file:
        file.seek(50_000)
        file.write(content.randbytes(20_000))
    (root / "folder 1" / f"new {step}").write_bytes(content.randbytes(60_000))
    (root / "folder 2" / "two").unlink(missing_ok=True)


def indexed(backend: Backend) -> Counter[BlobId]:
    """How often index objects name each blob."""
    with opened(backend) as repo:
        tables = repo.vault.index().tables
        return Counter(
            BlobId(bytes(table.records[at : at + ID_SIZE]))
            for table in tables
            for at in range(0, len(table.records), WIDTH)
        )


def packs(store: MemoryBackend) -> dict[str, int]:
    """Names and sizes of the packs in a store."""
    return {name: len(body) for name, body in store.objects.items() if name.startswith("packs/")}


def lengths(repo: snapvault.Repository, blobs: Iterable[BlobId]) -> list[int]:
    """Plaintext bytes of each blob."""
    index = repo.vault.loader.load()
    return [sum(p.length for p in index.places(blob)[:1]) for blob in blobs]
