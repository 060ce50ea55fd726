"""The threads of a backup: they wait for one another, and never in a circle."""

import random
import threading
from pathlib import Path

import pytest
from battery import model
from battery.oracle import Ledger

from snapvault.backend.memory import MemoryBackend
from snapvault.foundation.events import Control, Limits
from snapvault.repository import create


@pytest.mark.timeout(60)
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_many_packs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Every segment fills a pack, so cutting, uploading and counting meet all the time."""
    monkeypatch.setattr(create, "PACK_SIZE", 1)
    monkeypatch.setattr(create, "SEGMENT_SIZE", 4096)
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(random.Random(1).randbytes(3_000_000))
    ledger, store = Ledger(source), MemoryBackend()
    done = threading.Event()

    def work() -> None:
        with model.init(store) as repo:
            ledger.backup(repo, control=Control(limits=Limits(threads=threads)))
        done.set()

    threading.Thread(target=work, daemon=True).start()  # a deadlock shall fail this test and hang no other
    assert done.wait(40), "the pipeline is stuck"
    assert len(model.packs(store)) > 200
    with model.opened(store) as repo:
        ledger.verify(repo, tmp_path)
