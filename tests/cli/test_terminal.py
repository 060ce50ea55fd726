"""What somebody at a terminal sees: prompts, a bar; and somebody at a log: a line now and then."""

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from machines import PASSWORD, PYTHON, Machine

from snapvault.cli.output import Output
from snapvault.cli.progress import Bar, Lines, describe
from snapvault.foundation.events import Event

LIMIT = 30


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, cli: Machine, *argv: object) -> None:
        self._fd, child = pty.openpty()
        env = {k: v for k, v in cli.env.items() if k != "SNAPVAULT_PASSWORD"} | {"TERM": "xterm"}
        self.process = subprocess.Popen(
            [*PYTHON, *map(str, argv)], stdin=child, stdout=child, stderr=child, env=env, start_new_session=True
        )
        os.close(child)
        self.seen = ""

    def until(self, text: str) -> None:
        """Read until this is on the screen."""
        limit = time.monotonic() + LIMIT
        while text not in self.seen:
            assert time.monotonic() < limit, self.seen
            self.seen += self._read()

    def type(self, text: str) -> None:
        """With a newline."""
        os.write(self._fd, text.encode() + b"\n")

    def end(self) -> int:
        """Read to the end; the exit code."""
        while data := self._read():
            self.seen += data
        os.close(self._fd)
        return self.process.wait(LIMIT)

    def _read(self) -> str:
        try:
            return os.read(self._fd, 65536).decode()
        except OSError:  # the other side is closed
            return ""


def test_init_asks_twice(cli: Machine, tmp_path: Path) -> None:
    terminal = Terminal(cli, "-r", tmp_path / "repo", "init")
    terminal.until("Password for the new repository")
    terminal.type(PASSWORD)
    terminal.until("Once more")
    terminal.type(PASSWORD)
    assert terminal.end() == 0 and "SNAPVAULT-RECOVERY-1" in terminal.seen
    assert PASSWORD not in terminal.seen
    assert cli("-r", tmp_path / "repo", "snapshots").code == 0


def test_two_different_passwords_make_nothing(cli: Machine, tmp_path: Path) -> None:
    terminal = Terminal(cli, "-r", tmp_path / "repo", "init")
    terminal.until("Password for")
    terminal.type(PASSWORD)
    terminal.until("Once more")
    terminal.type(PASSWORD + "?")
    assert terminal.end() == 2 and "differ" in terminal.seen and not (tmp_path / "repo/config").exists()


def test_other_commands_ask_once(cli: Machine, repo: Path) -> None:
    del cli.env["SNAPVAULT_KEY_FILE"]
    terminal = Terminal(cli, "snapshots")
    terminal.until("Password for")
    terminal.type(PASSWORD)
    assert terminal.end() == 0 and "Once more" not in terminal.seen and "0 snapshots" in terminal.seen


@pytest.mark.parametrize("typed", ["", "\x04"])
def test_no_password_at_the_prompt(cli: Machine, repo: Path, typed: str) -> None:
    del cli.env["SNAPVAULT_KEY_FILE"]
    terminal = Terminal(cli, "snapshots")
    terminal.until("Password for")
    terminal.type(typed)
    assert terminal.end() == 2 and "empty" in terminal.seen and "Traceback" not in terminal.seen


def test_no_password_is_asked_for_where_there_is_no_repository(cli: Machine, tmp_path: Path) -> None:
    terminal = Terminal(cli, "-r", tmp_path, "snapshots")
    assert terminal.end() == 10 and "Password" not in terminal.seen


def event(seconds: float, **fields: object) -> Event:
    values = {"phase": "read", "done": 1200, "bytes_done": 3 << 20, "seconds": seconds, **fields}
    return Event("backup", **values)  # type: ignore[arg-type]


def test_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(Output())
    for tenth in range(1010):  # 101 seconds
        lines.show(event(tenth / 10))
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 4  # after 10, 40, 70 and 100 seconds or so
    assert shown.err.startswith("backup: read 1,200 3.0 MiB 307 KiB/s, 10.0 s\n")


def test_nothing_when_it_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Lines(Output(quiet=True)).show(event(11))
    assert capsys.readouterr() == ("", "")


def test_a_hostile_name_in_a_progress_line() -> None:
    assert "\x1b" not in describe(event(1, phase="\x1b[2J"))


@pytest.mark.parametrize("colour", [True, False])
def test_a_bar_on_a_terminal(cli: Machine, colour: bool) -> None:
    code = (
        "from snapvault.cli.progress import long_operation; from snapvault.cli.output import Output\n"
        "from snapvault.foundation.events import Event; import sys\n"
        "with long_operation(Output()) as control:\n"
        "    for i in range(1, 5):\n"
        "        control.progress(Event('check', 'read', i, 4, i << 20, 4 << 20, '', float(i)))\n"
        "        if i == 2: sys.stdin.readline()\n"
        "print('done')\n"
    )
    if colour:
        del cli.env["NO_COLOR"]
    fd, child = pty.openpty()
    env = {**cli.env, "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=child, stdout=child, stderr=child, env=env)
    os.close(child)
    seen, drawn = b"", 0
    with pytest.raises(OSError):
        while True:
            seen += os.read(fd, 65536)
            if b"check: read 2 of 4 2.0 MiB of 4.0 MiB" in seen and not drawn:
                drawn = os.write(fd, b"\n")
    os.close(fd)
    assert process.wait(LIMIT) == 0 and drawn and b"done" in seen
    assert (b"\x1b[38;5;" in seen) == colour


def test_a_bar_waits_for_slow_operations() -> None:
    bar = Bar()
    bar.show(event(0.2))
    assert bar._progress is None
    bar.close()


def test_a_backup_on_a_pipe_shows_no_bar(cli: Machine, repo: Path, source: Path) -> None:
    done = cli.process("backup", "--dataset", "d", source)
    assert done.code == 0 and done.err == "" and "\x1b" not in done.out
