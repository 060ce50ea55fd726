"""The output of a command as a source, such as a database dump.  Never through a shell."""

import logging
import os
import shlex
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from snapvault.format.tree import Node
from snapvault.foundation.errors import InvalidInput, SourceError
from snapvault.source.protocol import FileReader
from snapvault.source.stream import SingleFile

_log = logging.getLogger("snapvault.source.command")

STDERR_LINES = 10  # of these at most, the last ones, stand in the error
_LINE = 500  # bytes of a line of standard error that are kept
_GRACE = 5.0  # seconds between asking a command to end and killing it


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, started as it stands; what it writes to standard output becomes a file."""

    argv: Sequence[str]
    name: str = ""  # of the file; default: the program's name

    def __post_init__(self) -> None:
        if isinstance(self.argv, str | bytes) or not self.argv:
            raise InvalidInput("a command is a sequence of the program and its arguments", hint="no shell is involved")

    @property
    def file_name(self) -> str:
        """The name of the file that its output becomes."""
        return self.name or os.path.basename(self.argv[0])


class CommandSource(SingleFile):
    """Runs a Command when opened.  See SourceTree.

    Opening raises SourceError if the program cannot be started; ``finish`` of the reader raises it with the exit
    status and the last lines of standard error if the command fails, so that a broken dump is never committed.
    """

    def __init__(self, command: Command) -> None:
        super().__init__(command.file_name, f"command {shlex.join(command.argv)}")
        self._command = command

    def open(self, path: bytes, node: Node) -> FileReader:
        """See SourceTree.  Each opening runs the command anew."""
        argv = list(self._command.argv)
        try:
            # Its own session, so that everything it starts can be ended with it.
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except (OSError, ValueError) as e:
            reason = e.strerror if isinstance(e, OSError) else str(e)
            raise SourceError(f"the command {argv[0]!r} cannot be started: {reason}", affected=[argv[0]]) from e
        return CommandReader(process, node, argv[0])


class CommandReader:
    """The standard output of a running command.  See FileReader."""

    __slots__ = ("_ended", "_errors", "_listener", "_process", "_program", "_result", "_size", "node")

    def __init__(self, process: "subprocess.Popen[bytes]", node: Node, program: str) -> None:
        assert process.stdout is not None and process.stderr is not None
        self.node, self._process, self._program = node, process, program
        self._size, self._ended = 0, False
        self._result: bool | None = None
        self._errors: deque[str] = deque(maxlen=STDERR_LINES)
        self._listener = threading.Thread(
            target=_listen, args=(process.stderr, self._errors, program), name="snapvault-stderr", daemon=True
        )
        self._listener.start()

    def read(self, size: int) -> bytes:
        """See FileReader."""
        if self._ended:
            return b""
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        self._size += len(data)
        self._ended = not data
        return data

    def finish(self) -> bool:
        """See FileReader.  Before the end of the output it ends the command and returns False.

        SourceError: the command exited with another status than 0, or by a signal.
        """
        if self._result is None:
            self._result = False
            self.node.size = self._size
            if self._ended:
                self._wait()
                self._result = True
            else:
                self._stop()
        return self._result

    def _wait(self) -> None:
        process = self._process
        status = process.wait()
        self._close()
        if status:
            how = f"was ended by {_signal_name(-status)}" if status < 0 else f"failed with exit status {status}"
            said = "".join(f"\n  {line}" for line in self._errors)
            raise SourceError(
                f"the command {self._program!r} {how}; its output is not stored{':' + said if said else ''}"
            )

    def _stop(self) -> None:
        for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                break
        self._close()

    def _close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()
        # Something that the command left running may hold standard error open for ever: it is not waited for.
        self._listener.join(_GRACE)


def _listen(stream: IO[bytes], lines: "deque[str]", program: str) -> None:
    with stream:
        while line := stream.readline(_LINE):
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                lines.append(text)
                _log.info("%s: %s", program, text)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
