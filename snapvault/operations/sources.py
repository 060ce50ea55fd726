"""From what a caller names to a source: a path, an fsspec URL, a stream, a command."""

import os
import re
from collections.abc import Mapping
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


def make_source(
    source: Source, *, storage_options: Mapping[str, Any] | None = None, name: str = "stdin", **selection: Any
) -> SourceTree:
    """The source that this names; ``selection`` goes to a local file system.  InvalidInput."""
    if isinstance(source, Command):
        return CommandSource(source)
    if isinstance(source, str | PathLike):
        if is_url(source):
            return RemoteSource(os.fspath(source), storage_options)
        return FilesystemSource([local_path(source)], **selection)
    if hasattr(source, "read"):
        return StreamSource(name, source)
    raise InvalidInput(f"{type(source).__name__} is no source", hint="give a path, a URL, a binary stream or a Command")
