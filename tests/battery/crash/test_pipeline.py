"""The threads of a backup: they wait for one another, and never in a circle."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from battery import model
from battery.oracle import Ledger

import snapvault
from snapvault.backend.local import LocalBackend

_CODE = """
import sys
from battery import model
import snapvault
from snapvault.foundation.events import Control, Limits
from snapvault.repository import create
threads, place, source = sys.argv[1:]
with model.small_parts():
    create.PACK_SIZE, create.SEGMENT_SIZE = 1, 4096
    with snapvault.init(place, keys=model.key, chunking=model.CHUNKING).repository as repo:
        control = Control(limits=Limits(threads=int(threads)))
        snapvault.backup(repo, source, dataset="model", host="here", control=control)
"""


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_many_packs_at_once(ram: Path, threads: int) -> None:
    """Every segment fills a pack, so cutting, uploading and counting meet all the time."""
    source, place = ram / f"source-{threads}", ram / f"repository-{threads}"
    source.mkdir()
    (source / "file").write_bytes(random.Random(1).randbytes(3_000_000))
    path = f"{Path(snapvault.__file__).parents[1]}:{Path(__file__).parents[2]}"
    argv = [sys.executable, "-c", _CODE, str(threads), str(place), str(source)]
    subprocess.run(argv, env={"PYTHONPATH": path}, check=True, timeout=60)  # more: it is stuck
    with model.opened(LocalBackend(place)) as repo:
        assert len(list(repo.vault.backend.list("packs/"))) > 200
        Ledger(source).verify(repo, ram)
