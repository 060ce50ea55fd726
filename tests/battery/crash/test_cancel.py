"""Cancelling: an operation stops soon, leaves no snapshot, and the next one continues (family 14).

Soon is counted, not timed: in calls to the store, and in files opened on a clock that ticks with every look at it.
"""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from battery import killing, model
from battery.beside import Between
from battery.oracle import Ledger

import snapvault
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.protocol import Backend
from snapvault.foundation import events
from snapvault.foundation.events import Control, Limits
from snapvault.operations import scrub as scrub_module
from snapvault.repository import packer
from snapvault.source.filesystem import FilesystemSource

LEFT = 12  # calls that an operation may still make: what its threads have begun, an index, the end of its session
TICK = 0.01  # seconds that pass with every look at the clock; progress comes every tenth of a second
FILES = 12  # files (or folders) that may still be opened


@pytest.fixture(scope="module")
def base(ram: Path) -> killing.Base:
    return killing.make_base(ram)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model run is over before the first tenth of a second."""
    monkeypatch.setattr(events, "INTERVAL", 0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes by being looked at."""
    now = [0.0]

    def monotonic() -> float:
        now[0] += TICK
        return now[0]

    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=monotonic))


def control(cancel: threading.Event) -> Control:
    return Control(progress=lambda _: None, cancel=cancel, limits=Limits(threads=1))


def back_up(backend: Backend, base: killing.Base, cancel: threading.Event) -> object:
    with model.opened(backend) as repo:
        return base.ledger.copy().backup(repo, control=control(cancel))


def restore(backend: Backend, base: killing.Base, cancel: threading.Event) -> object:
    with model.opened(backend) as repo:
        ref = list(base.ledger.trees)[-1]
        try:
            return snapvault.restore(repo, ref, base.scratch / "target", control=control(cancel))
        finally:
            shutil.rmtree(base.scratch / "target", ignore_errors=True)


def check(backend: Backend, base: killing.Base, cancel: threading.Event) -> object:
    with model.opened(backend) as repo:
        return snapvault.check(repo, read_data=True, control=control(cancel))


def scrub(backend: Backend, _: killing.Base, cancel: threading.Event) -> object:
    with mock.patch.object(scrub_module, "open_backend", lambda *args, **options: backend):
        return snapvault.scrub("memory://model", control=control(cancel))


@pytest.mark.parametrize("act", [back_up, restore, check, scrub])
def test_at_every_call_to_the_store(
    base: killing.Base, at_once: None, act: Callable[[Backend, killing.Base, threading.Event], object]
) -> None:
    clean = Between(base.store(), 0, lambda: None)
    act(clean, base, threading.Event())
    stopped = 0
    for at in range(5, clean.count + 1):  # opening a repository takes no control
        store, cancel = base.store(), threading.Event()
        between = Between(store, at, cancel.set)
        try:
            act(between, base, cancel)
        except snapvault.Cancelled as e:
            assert e.exit_code == 130
            stopped += 1
            assert between.count - at <= LEFT, f"cancelled at {at}, it went on for {between.count - at} calls"
        else:
            assert cancel.is_set() and clean.count - at <= LEFT, f"cancelled at {at} of {clean.count} in vain"
        if act is back_up:
            ledger = base.ledger.copy()
            killing.resume(store, ledger)
            assert len(killing.verify(store, base, ledger)) <= 1
    killing.verify(store, base, base.ledger)
    assert stopped >= (clean.count - 5) // 2


class Opened:
    """Counts what a source is asked to open, and does something at one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, method: str, at: int, act: Callable[[], object]) -> None:
        self.count = 0
        real = getattr(FilesystemSource, method)

        def call(source: FilesystemSource, *args: Any) -> Any:
            self.count += 1
            if self.count == at:
                act()
            return real(source, *args)

        patch.setattr(FilesystemSource, method, call)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    return root


@pytest.mark.parametrize("kind", ["files", "ahead", "folders", "unchanged"])
def test_further_files(source: Path, tmp_path: Path, clock: None, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Of 500 files, folders or folders with unchanged files, few are looked at after the request."""
    for i in range(500):
        if kind in ("files", "ahead"):
            (source / f"{i}").write_bytes(b"%d" % i * 50)
        else:
            (source / f"{i}").mkdir()
        if kind == "unchanged":
            (source / f"{i}" / "file").write_bytes(b"%d" % i)
    store, ledger = MemoryBackend(), Ledger(source)
    with model.init(store) as repo:
        if kind == "unchanged":
            ledger.backup(repo)
        cancel = threading.Event()
        method, at = {"files": ("open", 100), "ahead": ("read_ahead", 1)}.get(kind, ("scan", 100))
        if kind == "files":  # one by one
            monkeypatch.setattr(FilesystemSource, "read_ahead", lambda _, path, nodes: [None] * len(nodes))
        opened = Opened(monkeypatch, method, at, cancel.set)
        with pytest.raises(snapvault.Cancelled):
            ledger.backup(repo, control=control(cancel))
        assert at <= opened.count <= at + (FILES if at > 1 else 0)
        assert {s.id for s in repo.snapshots()} == set(ledger.trees)
        ledger.backup(repo)
        ledger.verify(repo, tmp_path)


def test_in_the_middle_of_a_file(tmp_path: Path, source: Path, clock: None) -> None:
    class Endless:
        """A stream that asks to stop after 20 MB."""

        def __init__(self) -> None:
            self.given, self.cancel = 0, threading.Event()

        def read(self, size: int = -1) -> bytes:
            self.given += size
            if self.given > 20 << 20:
                self.cancel.set()
            return bytes(size)

    stream: Any = Endless()
    with model.init(MemoryBackend()) as repo:
        with pytest.raises(snapvault.Cancelled):
            snapvault.backup(repo, stream, dataset="endless", control=control(stream.cancel))
        assert stream.given <= (20 + FILES + 4) << 20  # a few blocks are read in advance
        assert not list(repo.snapshots())


def test_an_exception_in_the_progress_callback(
    base: killing.Base, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cancels, comes out as it is, and what was uploaded until then is not uploaded again."""

    class Own(Exception):
        pass

    monkeypatch.setattr(packer, "INDEX_BYTES", 1 << 30)  # so that there is something left to index
    count: list[events.Event] = []
    with model.opened(base.store()) as repo:
        base.ledger.copy().backup(repo, control=Control(progress=count.append, limits=Limits(threads=1)))
    assert len(count) >= 8
    uploaded: set[int] = set()
    for last in range(1, len(count) + 1):
        store, ledger, seen = base.store(), base.ledger.copy(), []

        def progress(event: events.Event, seen: list[events.Event] = seen, last: int = last) -> None:
            seen.append(event)
            sleep(0.05)  # so that the other threads get ahead, and something is uploaded by then
            if len(seen) == last:
                raise Own

        with model.opened(store) as repo, pytest.raises(Own):
            ledger.backup(repo, control=Control(progress=progress, limits=Limits(threads=1)))
        assert len(seen) == last, "it was called again after it had raised"
        with model.opened(store) as repo:
            stored = {info.name for info in repo.vault.backend.list("packs/")}
            uploaded.add(len(stored))
            assert len(stored) == len({row.id for row in repo.vault.loader.load().packs()})
        assert killing.verify(store, base, ledger) == set()
        killing.resume(store, ledger)
        killing.verify(store, base, ledger)
    assert len(uploaded) > 1, "nothing was uploaded before it raised"


@pytest.mark.parametrize("operation", ["restore", "check"])
def test_an_exception_in_the_progress_callback_of(base: killing.Base, at_once: None, operation: str) -> None:
    class Own(Exception):
        pass

    def progress(_: events.Event) -> None:
        raise Own

    store = base.store()
    with model.opened(store) as repo, pytest.raises(Own):
        if operation == "restore":
            ref = list(base.ledger.trees)[-1]
            snapvault.restore(repo, ref, base.scratch / "other", control=Control(progress=progress))
        else:
            snapvault.check(repo, read_data=True, control=Control(progress=progress))
    killing.verify(store, base, base.ledger)
