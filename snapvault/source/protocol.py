"""What the backup operation asks of a place that data comes from."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from snapvault.format.tree import Node


class Problem(NamedTuple):
    """One entry that could not be taken, or not wholly."""

    path: bytes  # absolute
    message: str  # what happened, without the path
    vanished: bool  # gone between listing and opening: counted, not an error


class Listing(NamedTuple):
    """The entries of a folder, sorted by the bytes of their names; contents are still empty."""

    nodes: list[Node]
    problems: list[Problem]


class FileReader(Protocol):
    """One open file.  Its ``node`` comes from the open handle and, after ``finish``, fits the bytes delivered."""

    node: Node

    def read(self, size: int) -> bytes:
        """The next bytes of data, at most ``size``; holes of a sparse file are not delivered.  b"" at the end.

        Raises OSError as it comes; SourceError where the whole source failed.
        """
        ...

    def finish(self) -> bool:
        """Close; may be called again.  True if the file is as it was when opened and was delivered whole.

        SourceError: the source as a whole failed (a command that exits with another status than 0).
        """
        ...


class SourceTree(Protocol):
    """Folders and files with absolute paths.  Methods may be called from several threads."""

    roots: tuple[bytes, ...]  # absolute paths as given, normalised; b"/name" for streams and remote places
    label: str  # for messages
    users: dict[int, str]  # names of the owners seen so far
    groups: dict[int, str]

    def root_node(self, path: bytes) -> Node:
        """A root, or a folder above one.  SourceError: it cannot be read.  The name of ``/`` is b""."""
        ...

    def scan(self, path: bytes) -> Listing:
        """The entries of a folder, without what is excluded.  OSError: the folder cannot be listed."""
        ...

    def open(self, path: bytes, node: Node) -> FileReader:
        """Open a file that ``scan`` or ``root_node`` gave.  OSError goes through."""
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A source that reads many small files faster together than one by one."""

    def read_ahead(self, path: bytes, nodes: Sequence[Node]) -> list[bytes | None]:
        """The bytes of files in this folder, each what its node says of it before and after.

        None: it is not, or it cannot be read so; then ``open`` it.
        """
        ...
