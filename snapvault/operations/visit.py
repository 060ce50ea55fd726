"""Visiting a snapshot's entries in order, for restore, check and archives: iterative, so depth has no limit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from snapvault.access.snapshot import Entry
from snapvault.format.tree import Content, Node, NodeKind, Tree
from snapvault.foundation.errors import Damaged
from snapvault.operations.selection import Selection

Names = Mapping[int, str]


class TreeSource(Protocol):
    """What reads folders."""

    def trees(self, content: Content) -> Iterator[Tree]: ...


@dataclass(slots=True, eq=False)
class Visited:
    """One entry: its path below the top (b"" for the top itself), and its owners' names."""

    path: bytes
    node: Node
    users: Names
    groups: Names
    leaving: bool = False  # a folder whose entries were all visited
    names: Mapping[bytes, int] | None = None  # kinds of all entries of a folder that is left; None: unreadable
    beside: Sequence[Node] = ()  # the entries that stand in the same piece of the folder, this one too


def visit_entry(
    reader: TreeSource, top: Entry, lost: Callable[[bytes, Damaged], None], selection: Selection
) -> Iterator[Visited]:
    """What is selected inside of a folder; any other entry is by itself, under its own name."""
    node = top.node
    users, groups = ({node.uid: top.user} if top.user else {}), ({node.gid: top.group} if top.group else {})
    first = Visited(b"" if node.kind == NodeKind.DIRECTORY else node.name, node, users, groups)
    return _visit(reader, first, lost, selection) if node.kind == NodeKind.DIRECTORY else iter([first])


def visit(
    reader: TreeSource, top: Node, lost: Callable[[bytes, Damaged], None], selection: Selection | None = None
) -> Iterator[Visited]:
    """Every selected entry below ``top``, folders before their entries and once more after them.

    A folder whose tree is damaged is told to ``lost`` and visited without entries.  With ``include`` patterns, folders
    are visited only if something in them is selected.
    """
    return _visit(reader, Visited(b"", top, {}, {}), lost, selection or Selection())


def _visit(
    reader: TreeSource, first: Visited, lost: Callable[[bytes, Damaged], None], selection: Selection
) -> Iterator[Visited]:
    stack = [_Open(first, _Entries(reader, first, lost), not selection.narrow)]
    if not selection.narrow:
        yield first
        stack[0].shown = True
    while stack:
        folder = stack[-1]
        child = next(folder.entries, None)
        if child is None:
            stack.pop()
            if folder.shown:
                names = None if folder.entries.damaged else folder.entries.names
                yield Visited(folder.at.path, folder.at.node, folder.at.users, folder.at.groups, True, names)
            continue
        is_folder = child.node.kind == NodeKind.DIRECTORY
        if selection.excluded(child.path, is_folder):
            continue
        taken = folder.taken or selection.included(child.path, is_folder)
        if taken:
            for above in stack:
                if not above.shown:
                    above.shown = True
                    yield above.at
            yield child
        if is_folder:
            stack.append(_Open(child, _Entries(reader, child, lost), taken, taken))


@dataclass(slots=True)
class _Open:
    at: Visited
    entries: "_Entries"
    taken: bool
    shown: bool = False


class _Entries:
    """The entries of one folder, remembering their names and whether they could all be read."""

    def __init__(self, reader: TreeSource, folder: Visited, lost: Callable[[bytes, Damaged], None]) -> None:
        self._reader, self._folder, self._lost = reader, folder, lost
        self.names: dict[bytes, int] = {}
        self.damaged = False
        self._iterator = self._all()

    def __iter__(self) -> Iterator[Visited]:
        return self._iterator

    def __next__(self) -> Visited:
        return next(self._iterator)

    def _all(self) -> Iterator[Visited]:
        prefix = self._folder.path + b"/" if self._folder.path else b""
        try:
            for tree in self._reader.trees(self._folder.node.content):
                for node in tree.nodes:
                    self.names[node.name] = node.kind
                    yield Visited(prefix + node.name, node, tree.users, tree.groups, beside=tree.nodes)
        except Damaged as e:
            self.damaged = True
            self._lost(self._folder.path, e)
