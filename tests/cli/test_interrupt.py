"""Ctrl-C and SIGTERM: exit code 130, no snapshot, and nothing that was indexed is uploaded again."""

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import Machine

from snapvault.cli.interrupt import Interrupt

SIGNALS = [signal.SIGINT, signal.SIGTERM]
LIMIT = 20  # seconds: a hang, not a measurement


def ended(process: "subprocess.Popen[bytes]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=LIMIT)
    assert b"Traceback" not in err, err
    return process.returncode, out.decode(), err.decode()


def until(what: str, path: Path) -> None:
    """Wait until something of this pattern is there."""
    limit = time.monotonic() + LIMIT
    while not any(path.glob(what)):
        assert time.monotonic() < limit, f"no {what}"
        time.sleep(0.01)


@pytest.fixture
def slow_pipe() -> Iterator[tuple[int, int]]:
    """A pipe: what is written into it, the command reads."""
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        os.close(fd)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_backup_that_waits_for_its_stream(
    cli: Machine, repo: Path, slow_pipe: tuple[int, int], number: signal.Signals
) -> None:
    process = cli.start("backup", "--dataset", "d", "--stdin", stdin=slow_pipe[0])
    until("sessions/*", repo)
    process.send_signal(number)
    code, out, err = ended(process)
    assert (code, out) == (130, "") and "cancelled" in err and "run again" in err
    assert cli("snapshots", "--json").summary["snapshots"] == 0
    assert cli("check", "--read-data").code == 0


def test_a_backup_that_waits_for_its_command(cli: Machine, repo: Path, tmp_path: Path) -> None:
    code = f"echo $$ > {tmp_path}/pid; echo begun; exec sleep 1000"
    process = cli.start("backup", "--dataset", "d", "--from-command", "--", "sh", "-c", code)
    until("pid", tmp_path)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130
    dump = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(dump, 0)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_backup_in_its_middle_is_taken_up_by_the_next(
    cli: Machine, repo: Path, slow_pipe: tuple[int, int], number: signal.Signals
) -> None:
    """Two packs of 32 MiB are full when it stops; the next run uploads only the rest."""
    data = os.urandom(80 << 20)
    process = cli.start("backup", "--dataset", "d", "--stdin", stdin=slow_pipe[0])
    feeder = threading.Thread(target=_feed, args=(slow_pipe[1], data))
    feeder.start()
    until("packs/*/*", repo)
    feeder.join(LIMIT)
    process.send_signal(number)
    assert ended(process)[0] == 130
    stored = {p.name for p in repo.glob("packs/*/*")}
    assert len(stored) >= 2 and cli("snapshots", "--json").summary["snapshots"] == 0
    again = cli("backup", "--dataset", "d", "--json", "--stdin", stdin=data)
    assert again.code == 0 and again.summary["bytes_new"] < 20 << 20, again.summary
    assert stored <= {p.name for p in repo.glob("packs/*/*")}
    assert cli("restore", "d@latest:/stdin", "--stdout").stdout == data


def _feed(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def test_a_prompt_is_left(cli: Machine, repo: Path) -> None:
    """Not a long operation: the process is waiting for the password command."""
    cli.env = {k: v for k, v in cli.env.items() if k not in ("SNAPVAULT_PASSWORD", "SNAPVAULT_KEY_FILE")}
    started = repo.parent / "started"
    cli.env["SNAPVAULT_PASSWORD_COMMAND"] = f"sh -c 'touch {started}; exec sleep 1000'"
    process = cli.start("snapshots", start_new_session=True)
    until("started", repo.parent)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does
    assert ended(process)[0] == 130


def test_the_first_signal_asks_and_the_second_insists() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.cancel.is_set()  # and nothing was raised here
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is before


class PressedOnImport:
    """Ctrl-C while this module is being looked for."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "snapvault.cli.main":
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("ignored", [False, True])
def test_while_it_is_being_loaded(ignored: bool) -> None:
    """The signal ends it, unless whoever started it chose to ignore it."""
    source = inspect.getsource(PressedOnImport)
    code = (
        f"import os, signal, sys\n{source}\nsys.meta_path.insert(0, PressedOnImport())\nsys.argv[1:] = ['--version']\n"
    )
    chosen = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n" if ignored else ""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}{chosen}from snapvault.__main__ import main; main()"],
        capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.stderr == "" and done.returncode == (0 if ignored else -signal.SIGINT)
    assert bool(done.stdout) == ignored
