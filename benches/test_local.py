"""Putting objects on a local disk, durably, beside a bare write and fsync."""

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from snapvault.backend.local import LocalBackend


@pytest.mark.parametrize("size", [4 << 10, 16 << 20], ids=["4KiB", "16MiB"])
def test_put(meter: Any, noise: bytes, tmp_path: Path, size: int) -> None:
    backend, data, names = LocalBackend(tmp_path / "store", create=True), noise[:size], itertools.count()

    def put() -> None:
        backend.put_if_absent(f"packs/{next(names):064x}", [data])

    def bare() -> None:
        fd = os.open(tmp_path / f"bare-{next(names)}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)

    meter.beside(put, bare, size, rounds=10)


def test_get(meter: Any, noise: bytes, tmp_path: Path) -> None:
    """A segment's worth out of a pack that the page cache has."""
    backend, size = LocalBackend(tmp_path, create=True), 1 << 20
    backend.put("packs/x", [noise])
    meter.rate(lambda: backend.get("packs/x", 5 << 20, size), size / 1e6, "MB")
