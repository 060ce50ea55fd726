"""What the backup operation asks of a place that data comes from."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from snapvault.format.tree import Node

# The first nine values of a Node, of a file or folder that has nothing else to it (links, attributes, holes).
Plain = tuple[bytes, int, int, int, int, int, int, int, int]
Known = Mapping[bytes, Plain]
NOTHING_KNOWN: Known = {}


class Problem(NamedTuple):
    """One entry that could not be taken, or not wholly."""

    path: bytes  # absolute
    message: str  # what happened, without the path
    vanished: bool  # gone between listing and opening: counted, not an error


class Listing(NamedTuple):
    """The entries of a folder, sorted by the bytes of their names; contents are still empty."""

    nodes: list[Node]
    problems: list[Problem]
    same: frozenset[bytes] = frozenset()  # names of those that are in everything as they are known


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

    def scan(self, path: bytes, known: Known = NOTHING_KNOWN) -> Listing:
        """The entries of a folder, without what is excluded.  OSError: the folder cannot be listed.

        ``known``: plain files and folders as they were, by name.  Their change times are among that, so one that is the
        same has no attributes either; a source that has no such times need not look.
        """
        ...

    def open(self, path: bytes, node: Node) -> FileReader:
        """Open a file that ``scan`` or ``root_node`` gave.  OSError goes through."""
        ...


@runtime_checkable
class ReadsInto(Protocol):
    """A FileReader that reads into memory of the caller's."""

    def readinto(self, out: memoryview) -> int:
        """``read`` of at most ``len(out)`` bytes into its beginning: how many; 0 at the end."""
        ...


@runtime_checkable
class ReadsParts(FileReader, Protocol):
    """A FileReader that delivers a file without holes in any order."""

    def part(self, offset: int, length: int) -> None:
        """What is read next, and ends with b"": these bytes of the file.  Each byte is to be asked for once."""
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """A source that reads many small files faster together than one by one."""

    def read_ahead(self, path: bytes, nodes: Sequence[Node]) -> list[bytes | None]:
        """The bytes of files in this folder, each what its node says of it before and after.

        None: it is not, or it cannot be read so; then ``open`` it.
        """
        ...
