"""Zip archives: every member is read, and its checksum compared."""

import zipfile
import zlib
from pathlib import Path

import msgspec

from snapvault.assurance.probes import Common, Facts, NotRun, Patterns, ProbeFailed
from snapvault.assurance.probes.files import chosen


class Options(Common):
    """``path``: glob patterns; ``members``: the least that there must be in all archives together."""

    path: Patterns = msgspec.field(default_factory=lambda: ["**/*.zip"])
    members: int = 1


def run(root: Path, options: Options) -> Facts:
    """All archives are whole."""
    files, members, size = chosen(root, options.path), 0, 0
    for path in files:
        try:
            with zipfile.ZipFile(path) as archive:
                if (broken := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"the member {broken} is damaged")
                members += len(archive.infolist())
                size += sum(info.file_size for info in archive.infolist())
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as e:
            raise ProbeFailed(f"{path.relative_to(root)}: {e}") from e
        except (RuntimeError, NotImplementedError) as e:  # encrypted, or an unknown compression
            raise NotRun(f"{path.relative_to(root)}: {e}") from e
    if members < options.members:
        raise ProbeFailed(f"there are {members} members, and should be {options.members} or more")
    return {"archives": len(files), "members": members, "bytes": size}
