"""Streams and commands as sources."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snapvault.format.tree import NodeKind
from snapvault.foundation.errors import InvalidInput, SourceError
from snapvault.source.command import Command, CommandSource
from snapvault.source.protocol import FileReader, SourceTree
from snapvault.source.stream import SingleFile, StreamSource


def _opened(source: SingleFile) -> FileReader:
    tree: SourceTree = source  # type: ignore[assignment]
    return tree.open(tree.roots[0], tree.root_node(tree.roots[0]))


def _read(reader: FileReader, size: int = 1000) -> bytes:
    return b"".join(iter(lambda: reader.read(size), b""))


def _python(code: str, name: str = "out") -> CommandSource:
    return CommandSource(Command([sys.executable, "-c", code], name))


def test_a_stream_is_one_file() -> None:
    source = StreamSource("dump.sql", io.BytesIO(b"x" * 5000))
    assert source.roots == (b"/dump.sql",)
    node = source.root_node(b"/dump.sql")
    assert (node.name, node.kind, node.mode, node.uid) == (b"dump.sql", NodeKind.FILE, 0o600, os.geteuid())
    assert node.inode == 0 and node.ctime_ns == 0  # never taken as unchanged
    assert source.root_node(b"/").kind == NodeKind.DIRECTORY
    assert [n.name for n in source.scan(b"/").nodes] == [b"dump.sql"]
    reader = source.open(b"/dump.sql", node)
    assert _read(reader) == b"x" * 5000
    assert reader.finish() is True and reader.finish() is True and reader.node.size == 5000
    with pytest.raises(SourceError, match="only once"):
        source.open(b"/dump.sql", node)
    with pytest.raises(SourceError, match="no '/other'"):
        source.root_node(b"/other")


def test_a_stream_not_read_to_its_end_is_not_whole() -> None:
    reader = _opened(StreamSource("s", io.BytesIO(b"12345")))
    assert reader.read(3) == b"123"
    assert reader.finish() is False and reader.node.size == 3


def test_a_pipe_delivers_in_pieces() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as stream, os.fdopen(write, "wb", buffering=0) as feed:
        reader = _opened(StreamSource("s", stream))
        feed.write(b"one")
        assert reader.read(1 << 20) == b"one"
        os.set_blocking(read, False)
        with pytest.raises(BlockingIOError):
            reader.read(10)
        feed.write(b"two")
        assert reader.read(2) == b"tw"
        feed.close()
        assert _read(reader) == b"o" and reader.finish() is True


@pytest.mark.parametrize("name", ["", "/", ".", "..", "a/b", "a\0b"])
def test_a_name_no_file_can_have(name: str) -> None:
    with pytest.raises(InvalidInput):
        StreamSource(name, io.BytesIO())


def test_a_text_stream_is_refused() -> None:
    with pytest.raises(InvalidInput, match="binary mode"):
        _opened(StreamSource("s", io.StringIO("text"))).read(1)  # type: ignore[arg-type]


def test_the_output_of_a_command() -> None:
    reader = _opened(_python("import sys; sys.stdout.write('a' * 3_000_000); sys.stderr.write('noise\\n' * 100_000)"))
    assert _read(reader, 1 << 16) == b"a" * 3_000_000
    assert reader.finish() is True and reader.node.size == 3_000_000


def test_a_command_is_named_after_its_program_and_runs_without_a_shell(tmp_path: Path) -> None:
    source = CommandSource(Command(["/bin/echo", "-n", "$HOME; touch", str(tmp_path / "x")]))
    assert source.roots == (b"/echo",)
    assert _read(_opened(source)) == f"$HOME; touch {tmp_path}/x".encode()
    assert not (tmp_path / "x").exists()
    impossible: tuple[Any, ...] = ("echo 1", b"echo", [])
    for argv in impossible:
        with pytest.raises(InvalidInput):
            Command(argv)


def test_a_command_that_fails_is_an_error_with_its_last_words() -> None:
    code = "import sys; print('half'); [print('line', i, file=sys.stderr) for i in range(100)]; sys.exit(7)"
    reader = _opened(_python(code))
    assert _read(reader) == b"half\n"
    with pytest.raises(SourceError, match="exit status 7") as error:
        reader.finish()
    assert "line 99" in str(error.value) and "line 90" in str(error.value) and "line 89" not in str(error.value)
    assert error.value.exit_code == 1


def test_a_command_ended_by_a_signal_is_an_error() -> None:
    reader = _opened(_python("import os; print('half', flush=True); os.kill(os.getpid(), 9)"))
    _read(reader)
    with pytest.raises(SourceError, match="SIGKILL"):
        reader.finish()


@pytest.mark.parametrize("program", ["/nowhere/at/all", "/etc/passwd", "a\0b"])
def test_a_command_that_cannot_start(program: str) -> None:
    with pytest.raises(SourceError, match="cannot be started"):
        _opened(CommandSource(Command([program], "x")))


def test_an_abandoned_command_is_ended_with_what_it_started(tmp_path: Path) -> None:
    code = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "print(os.getpid(), child.pid, flush=True)\n"
        "child.wait()"
    )
    reader = _opened(_python(code))
    first = b""
    while not first.endswith(b"\n"):
        first += reader.read(1)
    assert reader.finish() is False
    for pid in first.split():
        state = Path(f"/proc/{int(pid)}/stat")
        # Gone, or a zombie that its new parent has not yet collected.
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_a_command_that_ignores_the_request_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapvault.source.command._GRACE", 0.2)
    code = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); signal.pause()"
    reader = _opened(_python(code))
    assert reader.read(1) == b"x"
    assert reader.finish() is False
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_the_caller_left_in_its_buffer_is_read_first() -> None:
    for more in (b"", b"later"):
        read, write = os.pipe()
        with os.fdopen(read, "rb") as stream:
            os.write(write, b"head body")
            assert stream.read(5) == b"head "
            reader = _opened(StreamSource("s", stream))
            os.write(write, more)
            assert reader.read(1) == b"b"
            os.close(write)
            assert _read(reader) == b"ody" + more and reader.finish()
            assert os.get_blocking(read)


def test_python_ends_while_a_pipe_is_silent() -> None:
    code = (
        "import sys, threading, time\n"
        "from snapvault.source.stream import StreamSource\n"
        "s = StreamSource('s', sys.stdin.buffer)\n"
        "r = s.open(s.roots[0], s.root_node(s.roots[0]))\n"
        "threading.Thread(target=r.read, args=(10,), daemon=True).start()\n"
        "time.sleep(0.3)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(60) == 0
