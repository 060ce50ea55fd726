"""A process that forks, has many threads, is called by asyncio, stopped and continued (family 14)."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from battery import model
from battery.oracle import Ledger, assert_sound

import snapvault
from snapvault.format import names
from snapvault.foundation.events import Control
from snapvault.repository.session import revoke

PATIENCE = 60  # seconds until something counts as hanging
FIRST = 4 << 20  # bytes that a slow backup gets at once


@pytest.fixture
def ledger(ram: Path) -> Ledger:
    source = ram / "source"
    if not source.exists():
        model.make_source(source)
    return Ledger(source)


@pytest.fixture
def repo(tmp_path: Path, ledger: Ledger) -> Iterator[snapvault.Repository]:
    """A repository with a snapshot, open, with cache and state."""
    made = snapvault.init(
        str(tmp_path / "repo"),
        keys=model.key,
        chunking=model.CHUNKING,
        cache=tmp_path / "cache",
        state=tmp_path / "state",
    )
    with made.repository as repo:
        ledger.backup(repo)
        yield repo


# -- fork ------------------------------------------------------------------------------------------------------------


def in_child(act: Callable[[], object]) -> str:
    """What ``act`` raises in a forked process, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing was raised"
        try:
            act()
        except BaseException as e:  # noqa: BLE001  the child must not go on as a second test run
            said = f"{type(e).__name__}: {e}"
        os.write(writer, said.encode()[:1000])
        os._exit(0)
    os.close(writer)
    try:
        if not select.select([reader], [], [], PATIENCE)[0]:
            return "it hangs"
        return os.read(reader, 1000).decode()
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


USES: dict[str, Callable[[snapvault.Repository, Path], object]] = {
    "list": lambda repo, _: list(repo.snapshots()),
    "backup": lambda repo, place: snapvault.backup(repo, place, dataset="child"),
    "restore": lambda repo, place: snapvault.restore(repo, "latest", place / "restored"),
    "check": lambda repo, _: snapvault.check(repo),
    "add key": lambda repo, place: snapvault.add_key(repo, "reader", "child", file=place / "child.key"),
    "rotate": lambda repo, _: snapvault.rotate(repo),
    "forget": lambda repo, _: snapvault.forget_snapshots(repo, ["latest"]),
    "writer": lambda repo, _: repo.writer("child"),
}


@pytest.mark.parametrize("use", USES)
def test_a_repository_refuses_use_after_a_fork(
    repo: snapvault.Repository, ledger: Ledger, tmp_path: Path, use: str
) -> None:
    said = in_child(lambda: USES[use](repo, tmp_path))
    assert said.startswith("InvalidInput: ") and "forked" in said
    ledger.backup(repo)  # the parent goes on
    ledger.verify(repo, tmp_path)


def test_what_was_taken_from_it_refuses_too(repo: snapvault.Repository, ledger: Ledger) -> None:
    snapshot = repo.snapshot("latest")
    large = str(ledger.source / "large")
    file = snapshot.open(large)
    assert file.read(10)
    for act in (lambda: list(snapshot.ls("/", recursive=True)), lambda: snapshot.open(large), file.read):
        said = in_child(act)
        assert said.startswith("InvalidInput: ") and "forked" in said, said
    assert len(file.read()) == (ledger.source / "large").stat().st_size - 10


@pytest.mark.parametrize("ending", ["commit", "exception", "more data"])
def test_a_fork_in_the_middle_of_writing(
    repo: snapvault.Repository, ledger: Ledger, tmp_path: Path, ending: str
) -> None:
    """The child can neither commit nor abort for its parent, and does not wait for threads that it does not have."""
    data = os.urandom(300_000)
    with repo.writer("service") as writer:
        with writer.open("/first") as file:
            file.write(data)

        def act() -> None:
            if ending == "more data":
                with writer.open("/second") as file:
                    file.write(data[::-1] * 10)
            writer.__exit__(*((KeyError, KeyError("child"), None) if ending == "exception" else (None, None, None)))

        said = in_child(act)
        assert said == "nothing was raised" if ending == "exception" else "forked" in said, said
        with writer.open("/third") as file:
            file.write(data)
    assert writer.result is not None and writer.result.files_new == 2
    assert repo.snapshot("service@latest").open("/third").read() == data
    assert_sound(repo, read_data=True)


# -- threads ---------------------------------------------------------------------------------------------------------


def test_eight_threads_read_while_one_writes(
    repo: snapvault.Repository, ledger: Ledger, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """All through one handle."""
    before = sys.getswitchinterval()
    request.addfinalizer(lambda: sys.setswitchinterval(before))
    sys.setswitchinterval(1e-6)
    first, done, rounds = repo.snapshot("latest"), threading.Event(), [0] * 8
    wanted = (ledger.source / "large").read_bytes()

    def read(number: int) -> None:
        while not done.is_set() or not rounds[number]:
            assert first.id in {s.id for s in repo.snapshots()}
            with repo.snapshot(first.id).open(str(ledger.source / "large")) as file:
                assert file.read() == wanted
            if number % 4 == 0:
                target = tmp_path / f"restored {number}-{rounds[number]}"
                assert snapvault.restore(repo, first.id, target).status == "ok"
            elif number % 4 == 1:
                report = snapvault.check(repo)
                assert report.status == "ok", (report.problems, report.lost)
            rounds[number] += 1

    other = tmp_path / "other"
    other.mkdir()
    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, number) for number in range(8)]
        try:
            for step in range(6):
                (other / f"{step}").write_bytes(os.urandom(100_000))
                assert snapvault.backup(repo, other, dataset="other", control=Control()).status == "ok"
        finally:
            done.set()
        for reader in readers:
            reader.result(PATIENCE)
    assert all(rounds)
    ledger.verify(repo, tmp_path)


def test_an_asyncio_caller(repo: snapvault.Repository, ledger: Ledger, tmp_path: Path) -> None:
    """Operations run beside one another in threads; a task that is cancelled cancels its operation."""

    async def work() -> list[str]:
        event = threading.Event()
        events: list[str] = []

        cancel = threading.Event()

        def progress(_: object) -> None:
            event.set()
            cancel.wait(PATIENCE)

        async def cancelled() -> None:
            control = Control(progress=progress, cancel=cancel)
            task = asyncio.create_task(
                asyncio.to_thread(snapvault.backup, repo, ledger.source, dataset="c", force_read=True, control=control)
            )
            await asyncio.to_thread(event.wait, PATIENCE)
            cancel.set()
            try:
                await task
            except snapvault.Cancelled:
                events.append("cancelled")

        made = await asyncio.gather(
            asyncio.to_thread(snapvault.backup, repo, ledger.source, dataset="a"),
            asyncio.to_thread(snapvault.backup, repo, ledger.source, dataset="b"),
            asyncio.to_thread(snapvault.restore, repo, "model@latest", tmp_path / "restored"),
            cancelled(),
        )
        assert [r.status for r in made if r is not None] == ["ok", "ok", "ok"]
        return events

    assert asyncio.run(work()) == ["cancelled"]
    assert sorted({s.dataset for s in repo.snapshots()}) == ["a", "b", "model"]
    assert_sound(repo, read_data=True)


# -- signals ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow_backup(repo: snapvault.Repository, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A backup that reads what is written into its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-m", "battery.crash.slow", repo.url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": f"{Path(snapvault.__file__).parents[1]}:{Path(__file__).parents[2]}"},
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def started(repo: snapvault.Repository, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the backup has stored a part."""
    before = len(list(repo.vault.backend.list("packs/")))
    assert process.stdin is not None
    process.stdin.write(os.urandom(FIRST))
    process.stdin.flush()
    limit = time.monotonic() + PATIENCE
    while len(list(repo.vault.backend.list("packs/"))) < before + 20:
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.02)


def test_stopped_and_continued(
    repo: snapvault.Repository, ledger: Ledger, tmp_path: Path, slow_backup: "subprocess.Popen[bytes]"
) -> None:
    """Others go on while it sleeps; when it wakes it commits what is whole."""
    started(repo, slow_backup)
    slow_backup.send_signal(signal.SIGSTOP)
    try:
        ledger.backup(repo)
        ledger.verify(repo, tmp_path)
    finally:
        slow_backup.send_signal(signal.SIGCONT)
    out, _ = slow_backup.communicate(b"the rest", timeout=PATIENCE)
    assert slow_backup.returncode == 0
    with repo.snapshot(out.decode().strip()).open("/stdin") as file:
        assert file.read()[FIRST:] == b"the rest"
    assert_sound(repo, read_data=True)


def test_revoked_while_it_was_stopped(
    repo: snapvault.Repository, ledger: Ledger, tmp_path: Path, slow_backup: "subprocess.Popen[bytes]"
) -> None:
    """A maintainer gave it up: it must find that out, and nothing of it is acknowledged."""
    started(repo, slow_backup)
    slow_backup.send_signal(signal.SIGSTOP)
    vault = repo.vault
    done = {o.name.rpartition("/")[2] for o in vault.backend.list("snapshots/")}
    [asleep] = {o.name.rpartition("/")[2] for o in vault.backend.list("sessions/")} - done
    revoke(vault.store, vault.ring, asleep)
    slow_backup.send_signal(signal.SIGCONT)
    out, _ = slow_backup.communicate(b"the rest", timeout=PATIENCE)
    assert slow_backup.returncode == snapvault.Conflict.exit_code and b"revoked" in out
    ledger.backup(repo)
    ledger.verify(repo, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_to_a_process_that_uses_the_library(
    repo: snapvault.Repository, ledger: Ledger, tmp_path: Path, slow_backup: "subprocess.Popen[bytes]", number: int
) -> None:
    started(repo, slow_backup)
    slow_backup.send_signal(number)
    out, _ = slow_backup.communicate(timeout=PATIENCE)
    assert slow_backup.returncode == 130 and not out
    stored = {info.name for info in repo.vault.backend.list("packs/")}
    indexed = {names.pack(row.id) for row in repo.vault.loader.load().packs()}
    assert len(stored) >= 20 and stored == indexed, "what was uploaded is not indexed"
    assert len(list(repo.snapshots())) == 1
    ledger.backup(repo)
    ledger.verify(repo, tmp_path)
