"""What is sent to a server reads like one file, however it lies in memory."""

import io
from random import Random

import pytest

from snapvault.backend.body import body

PARTS = [b"", b"abc", bytearray(b"defg"), memoryview(Random(1).randbytes(3 << 20)), b"", b"end"]
WHOLE = b"".join(PARTS)


def test_it_reads_as_their_concatenation() -> None:
    assert body(PARTS).read() == WHOLE and body([]).read() == b""


@pytest.mark.parametrize("at", [0, 1, 3, 5, 7, 1 << 20, len(WHOLE) - 3, len(WHOLE) - 1, len(WHOLE)])
def test_from_anywhere(at: int) -> None:
    file = body(PARTS)
    assert file.seek(at) == at and file.read(10) == WHOLE[at : at + 10]
    assert file.seek(-2, io.SEEK_END) == len(WHOLE) - 2 and file.read() == WHOLE[-2:]
    assert file.seek(0) == 0 and file.read() == WHOLE
