"""Tar archives, compressed or not: every member is read to its end, and the end of the archive is there."""

import tarfile
from pathlib import Path
from typing import Any

import msgspec

from snapvault.assurance.probes import Common, Facts, Patterns, ProbeFailed
from snapvault.assurance.probes.files import UNREADABLE, chosen, decompressed

_PIECE = 1 << 20
_PATTERNS = ["**/*.tar", "**/*.tar.*", "**/*.tgz"]


class Options(Common):
    """``path``: glob patterns; ``members``: the least that there must be in all archives together."""

    path: Patterns = msgspec.field(default_factory=lambda: list(_PATTERNS))
    members: int = 1


def run(root: Path, options: Options) -> Facts:
    """All archives are whole."""
    files, members, size = chosen(root, options.path), 0, 0
    for path in files:
        try:
            count, length = _read_through(path)
        except (tarfile.TarError, *UNREADABLE) as e:
            raise ProbeFailed(f"{path.relative_to(root)}: {e}") from e
        members, size = members + count, size + length
    if members < options.members:
        raise ProbeFailed(f"there are {members} members, and should be {options.members} or more")
    return {"archives": len(files), "members": members, "bytes": size}


def _read_through(path: Path) -> tuple[int, int]:
    count = size = 0
    with decompressed(path) as file:
        raw = _Remembering(file)
        with tarfile.open(fileobj=raw, mode="r:") as archive:  # type: ignore[call-overload]
            for member in archive:
                count += 1
                if member.isreg() and (content := archive.extractfile(member)) is not None:
                    while piece := content.read(_PIECE):
                        size += len(piece)
        # tarfile takes the end of the file for the end of the archive, wherever that comes.
        if raw.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("the archive ends early")
        while raw.read(_PIECE):  # for the checksum of the compression
            pass
    return count, size


class _Remembering:
    """A file, and what was read of it last: some streams cannot go back."""

    def __init__(self, file: Any) -> None:
        self._file, self.last = file, b""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self.last = self._file.read(size)
        return self.last
