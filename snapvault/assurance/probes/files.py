"""Which of the restored files a probe reads."""

import bz2
import gzip
import lzma
import zlib
from pathlib import Path
from typing import Any

import zstandard

from snapvault.assurance.probes import NotRun, Patterns, ProbeFailed

UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)  # what a damaged file raises
_OPENERS: dict[str, Any] = {
    ".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": zstandard.open,
}  # fmt: skip


def chosen(root: Path, patterns: Patterns) -> list[Path]:
    """The files below ``root`` that match one of these glob patterns; ProbeFailed if there is none."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    try:
        found = {p for pattern in patterns for p in root.glob(pattern) if p.is_file() and not p.is_symlink()}
    except (NotImplementedError, ValueError) as e:
        raise NotRun(f"{' or '.join(patterns)!r} is no relative path: {e}") from e
    if not found:
        raise ProbeFailed(f"there is no file {' or '.join(patterns)}")
    return sorted(found)


def decompressed(path: Path) -> Any:
    """The file, opened to be read through what its name says that it is compressed with."""
    return _OPENERS.get(path.suffix, open)(path, "rb")
