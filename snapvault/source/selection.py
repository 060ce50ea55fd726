"""What is left out of a backup: patterns, cache folders, other file systems, big files, places never entered."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from snapvault.foundation.errors import InvalidInput, SourceError

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

CACHE_TAG = b"CACHEDIR.TAG"
_CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"  # https://bford.info/cachedir/


@dataclass(frozen=True)
class Selection:
    """Rules of what is left out.  Patterns are gitignore's, anchored at the root that an entry lies under."""

    exclude: Sequence[str] = ()
    one_file_system: bool = False
    exclude_caches: bool = False
    exclude_larger_than: int | None = None  # bytes
    skip: Sequence[bytes] = ()  # absolute paths that are left out, by whatever name they are reached
    _identities: set[tuple[int, int]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        for path in self.skip:
            try:
                st = os.stat(path)
            except OSError:
                continue  # not there, so nothing to leave out
            self._identities.add((st.st_dev, st.st_ino))

    @cached_property
    def patterns(self) -> "GitIgnoreSpec | None":
        """The compiled patterns; None if there are none.  InvalidInput names one that is malformed."""
        if not self.exclude:
            return None
        from pathspec import GitIgnoreSpec  # loaded when used: most sources have no patterns

        for pattern in self.exclude:
            try:
                GitIgnoreSpec.from_lines([_searchable(pattern)])
            except ValueError as e:
                raise InvalidInput(f"the exclude pattern {pattern!r} is malformed: {e}") from e
        return GitIgnoreSpec.from_lines([_searchable(p) for p in self.exclude])

    def excluded(self, relative: str, is_folder: bool) -> bool:
        """True if a pattern leaves out the entry at this path below its root."""
        patterns = self.patterns
        return patterns is not None and patterns.match_file(_searchable(relative + "/" if is_folder else relative))

    def skipped(self, path: bytes, st: os.stat_result) -> bool:
        """True for a place that is never entered, also when it is reached by another name."""
        return path in self.skip or (st.st_dev, st.st_ino) in self._identities

    def may_skip(self, folder: bytes, inodes: Iterable[int]) -> bool:
        """False if no entry with one of these inodes, in this folder, can be a place that is never entered."""
        if not self.skip:
            return False
        place = folder.rstrip(b"/")
        return not self._inodes.isdisjoint(inodes) or any(p.rpartition(b"/")[0] == place for p in self.skip)

    def skipped_entry(self, path: bytes, name: bytes, folder_fd: int) -> bool:
        """``skipped`` for the entry of an open folder."""
        if path in self.skip:
            return True
        try:
            return self.skipped(path, os.stat(name, dir_fd=folder_fd, follow_symlinks=False))
        except OSError:
            return False  # gone, or told as what it is by whoever reads it

    @cached_property
    def _inodes(self) -> frozenset[int]:
        return frozenset(inode for _, inode in self._identities)


def _searchable(text: str) -> str:
    # A regular expression's "$" also matches before a final newline, which a name may end with; NUL no name holds.
    return text.replace("\n", "\0")


def is_cache(folder_fd: int) -> bool:
    """True if the folder is tagged as a cache.  A tag that cannot be read is none."""
    try:
        fd = os.open(CACHE_TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder_fd)
    except OSError:
        return False
    try:
        return os.read(fd, len(_CACHE_SIGNATURE)) == _CACHE_SIGNATURE
    except OSError:
        return False
    finally:
        os.close(fd)


def read_patterns(files: Iterable[Path]) -> list[str]:
    """The lines of exclude files, in order; blank lines and ``#`` comments are gitignore's.  SourceError."""
    return [line for f in files for line in os.fsdecode(_bytes_of(f, "exclude file")).splitlines()]


def read_paths(files: Iterable[Path]) -> list[bytes]:
    """Paths named by list files: one a line, or ended by NUL bytes if there is one.  SourceError."""
    paths: list[bytes] = []
    for f in files:
        data = _bytes_of(f, "list of files")
        paths += [p for p in data.split(b"\0" if b"\0" in data else b"\n") if p]
    return paths


def _bytes_of(file: Path, what: str) -> bytes:
    try:
        with open(file, "rb") as f:
            return f.read()
    except OSError as e:
        name = os.fsdecode(file)
        raise SourceError(f"the {what} {name!r} cannot be read: {e.strerror}", affected=[name]) from e


def normalised(path: Path) -> tuple[bytes, bool]:
    """The absolute path, and whether it ended with a slash (then a symlink stands for the folder behind it).

    ``..`` is resolved as the kernel does: after a symlink it leads to the parent of where that points.
    """
    given = os.fsencode(path)
    if not given or b"\0" in given:
        raise InvalidInput(f"{os.fsdecode(path)!r} is not a path")
    whole = os.path.join(os.getcwdb(), given)
    parts = whole.split(b"/")
    if b".." in parts:
        last = len(parts) - parts[::-1].index(b"..")
        whole = b"/".join([os.path.realpath(b"/".join(parts[:last])), *parts[last:]])
    return b"/" + os.path.normpath(whole).lstrip(b"/"), given.endswith((b"/", b"/."))
