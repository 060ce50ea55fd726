"""From what a caller names to a source: a path, an fsspec URL, a stream, a command."""

import os
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, BinaryIO

from snapvault.foundation.errors import InvalidInput
from snapvault.source.command import Command, CommandSource
from snapvault.source.filesystem import FilesystemSource
from snapvault.source.protocol import SourceTree
from snapvault.source.remote import RemoteSource
from snapvault.source.stream import StreamSource

Source = str | PathLike[str] | BinaryIO | Command

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(place: object) -> bool:
    """Whether this names a place by URL; ``file://`` counts as a path."""
    return isinstance(place, str) and _URL.match(place) is not None and not place.startswith("file://")


def local_path(place: str | PathLike[str]) -> str:
    """A path from a path or a ``file://`` URL."""
    return os.fspath(place).removeprefix("file://")


def make_source(source: Source, *, storage_options: Mapping[str, Any] | None = None, name: str = "stdin") -> SourceTree:
    """The source that this names, if it is no path on this machine.  InvalidInput."""
    if isinstance(source, Command):
        return CommandSource(source)
    if is_url(source):
        return RemoteSource(str(source), storage_options)
    if not isinstance(source, str | PathLike) and hasattr(source, "read"):
        return StreamSource(name, source)
    raise InvalidInput(f"{type(source).__name__} is no source", hint="give a path, a URL, a binary stream or a Command")


def is_local(source: object) -> bool:
    """Whether this is a path on this machine."""
    return isinstance(source, str | PathLike) and not is_url(source)


def local_source(
    repository: str, paths: Sequence[str | PathLike[str]], **selection: Any
) -> tuple[FilesystemSource, list[str]]:
    """Paths on this machine as one source, and what to warn of.

    The repository at this URL is never stored in itself: it is left out.  InvalidInput if the source lies in it.
    """
    skip = [] if is_url(repository) else [os.path.realpath(local_path(repository))]
    tree = FilesystemSource([local_path(p) for p in paths], skip=skip, **selection)
    roots = [os.path.realpath(r) for r in tree.roots]
    for place in map(os.fsencode, skip):
        if any(_lies_in(root, place) for root in roots):
            raise InvalidInput("a repository cannot be backed up into itself", hint="name another source")
        if any(_lies_in(place, root) for root in roots):
            return tree, [f"the repository itself lies inside the source and is left out: {os.fsdecode(place)}"]
    return tree, []


def _lies_in(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")
