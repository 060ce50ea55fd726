"""Reading from what may keep silent for ever: a stream or a command must not outwait a request to stop."""

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Full, Queue

from snapvault.format.tree import Node
from snapvault.source.protocol import FileReader

_PATIENCE = 0.2  # seconds between two looks whether the caller asked to stop
_AHEAD = 2  # blocks read in advance


class AwaitedReader:
    """A FileReader that reads another in a thread of its own and calls ``check`` while it waits.

    ``check`` raises to stop.  A read that never returns then keeps its thread, and nothing else: it is a daemon.
    """

    def __init__(self, reader: FileReader, check: Callable[[], None], block: int) -> None:
        self.node: Node = reader.node
        self._reader, self._check, self._block = reader, check, block
        self._blocks: Queue[bytes | BaseException] = Queue(_AHEAD)
        self._rest = b""
        self._ended = self._stopped = False
        threading.Thread(target=self._read_all, name="snapvault-read", daemon=True).start()

    def _read_all(self) -> None:
        try:
            while self._put(data := self._reader.read(self._block)) and data:
                pass
        except BaseException as e:  # noqa: BLE001  raised again in the caller's thread
            self._put(e)

    def _put(self, item: bytes | BaseException) -> bool:
        while not self._stopped:
            with suppress(Full):
                self._blocks.put(item, timeout=_PATIENCE)
                return True
        return False

    def read(self, size: int) -> bytes:
        """See FileReader."""
        if not self._rest and not self._ended:
            self._rest = self._next()
            self._ended = not self._rest
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _next(self) -> bytes:
        while True:
            self._check()
            with suppress(Empty):
                item = self._blocks.get(timeout=_PATIENCE)
                break
        if isinstance(item, BaseException):
            self._ended = True
            raise item
        return item

    def finish(self) -> bool:
        """See FileReader."""
        self._stopped = True
        whole = self._reader.finish()
        self.node = self._reader.node
        return whole
