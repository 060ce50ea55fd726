"""Where on a disk things lie."""

import errno
import fcntl
import os
import struct
from pathlib import Path

import pytest

from snapvault.platform.disk import spread

TOP = 0x00020000  # EXT4_TOPDIR_FL


def test_a_folder_is_told_to_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps the flags that it has."""
    asked: list[tuple[int, int]] = []

    def ioctl(fd: int, request: int, argument: bytes) -> bytes:
        assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path)
        asked.append((request, *struct.unpack("l", argument)))
        return struct.pack("l", 0x80000)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    spread(tmp_path)
    assert asked == [(0x80086601, 0), (0x40086602, 0x80000 | TOP)]


def test_a_file_system_that_knows_no_such_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ioctl(fd: int, request: int, argument: bytes) -> bytes:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    spread(tmp_path)
    with pytest.raises(FileNotFoundError):
        spread(tmp_path / "not there")
