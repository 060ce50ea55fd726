"""Which entries of a snapshot a restore takes: gitignore patterns, anchored at what is restored."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from snapvault.foundation.errors import InvalidInput

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec


class Selection:
    """``include`` takes only what matches (and all below it); ``exclude`` leaves out."""

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self._include, self._exclude = _spec(include), _spec(exclude)
        self.all = self._include is None and self._exclude is None
        self.narrow = self._include is not None
        self.patterns = (include,) if isinstance(include, str) else tuple(include)
        self.matched = False  # whether anything was asked for by ``include``

    def excluded(self, path: bytes, is_folder: bool) -> bool:
        """Whether the entry, with all below it, is left out."""
        return self._exclude is not None and self._exclude.match_file(_text(path, is_folder))

    def included(self, path: bytes, is_folder: bool) -> bool:
        """Whether the entry is asked for by itself; what lies below an included folder is included too."""
        if self._include is None:
            return True
        found = bool(self._include.match_file(_text(path, is_folder)))
        self.matched = self.matched or found
        return found


def _text(path: bytes, is_folder: bool) -> str:
    return os.fsdecode(path) + ("/" if is_folder else "")


def _spec(patterns: Sequence[str]) -> "GitIgnoreSpec | None":
    if isinstance(patterns, str):
        patterns = [patterns]
    if not patterns:
        return None
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as e:
        raise InvalidInput(f"a pattern is malformed: {e}") from e
