"""Recursion over folders for stores that have them: in name order, and complete or an error."""

from collections.abc import Callable, Iterable, Iterator

from snapvault.backend.names import is_name, reachable
from snapvault.backend.protocol import ObjectInfo

Entry = tuple[str, int]  # name inside the store, bytes; a folder's name ends in "/"


def walk(entries: Callable[[str], Iterable[Entry]], prefix: str) -> Iterator[ObjectInfo]:
    """Every object whose name begins with ``prefix``.

    ``entries("a/")`` gives what lies directly in folder ``a``, in any order, and raises if it cannot tell.  One folder
    is held in memory at a time (and those above it).  Names that no object can have are not ours and left out.
    """
    yield from _below(entries, prefix[: prefix.rfind("/") + 1], prefix)


def _below(entries: Callable[[str], Iterable[Entry]], folder: str, prefix: str) -> Iterator[ObjectInfo]:
    found = dict(entries(folder))  # a folder that is changed while it is read may show a name twice
    for name, size in sorted(found.items()):  # the slash of a folder sorts where its objects' names do
        if not is_name(name.removesuffix("/")):
            continue
        if not name.endswith("/"):
            if name.startswith(prefix):
                yield ObjectInfo(name, size)
        elif reachable(name, prefix):
            yield from _below(entries, name, prefix)
