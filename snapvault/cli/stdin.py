"""Standard input as a source."""

import sys


class StandardInput:
    """Standard input without Python's buffer.

    A backup reads it in a thread.  If that still waits when the process ends, the buffer's lock makes Python abort.
    """

    def __init__(self) -> None:
        self._raw = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)

    def read(self, size: int, /) -> bytes:
        """``size`` bytes, fewer only at the end: the 64 KiB that a pipe gives are little to look for chunks in."""
        parts = []
        while size > 0 and (data := self._raw.read(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)
