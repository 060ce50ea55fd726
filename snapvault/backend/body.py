"""Buffers as a file that is read once more on demand, so that what is sent is not copied first."""

import io
from collections.abc import Sequence
from typing import Any

from snapvault.backend.protocol import Buffer

READ_SIZE = 1 << 20


class _Buffers(io.RawIOBase):
    """The concatenation of some buffers."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = [memoryview(p).cast("B") for p in parts]
        self._size = sum(map(len, self._parts))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        into, skip = memoryview(buffer).cast("B"), self._at
        for part in self._parts:
            if skip < len(part):
                taken = part[skip : skip + len(into)]
                into[: len(taken)] = taken
                self._at += len(taken)
                return len(taken)
            skip -= len(part)
        return 0


def body(parts: Sequence[Buffer]) -> io.BufferedReader:
    """A seekable file of these buffers, which must not change until it was read."""
    return io.BufferedReader(_Buffers(parts), READ_SIZE)
