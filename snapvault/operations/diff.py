"""Diff: what changed from one snapshot to another.  Trees with the same ids are not even read."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from snapvault.access.resolve import resolve
from snapvault.access.snapshot import Snapshot
from snapvault.format.tree import Node, NodeKind
from snapvault.operations.results import Change
from snapvault.repository.reader import BlobReader

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository


def diff(repo: "Repository", a: str | Snapshot, b: str | Snapshot, *, path: str = "/") -> Iterator[Change]:
    """Changes that lead from ``a`` to ``b``, in order of their paths; InvalidInput, RoleRequired, Damaged."""
    vault = repo.vault.reading()
    vault.ring.require_read("compare snapshots")
    before = resolve(vault, a) if isinstance(a, str) else a
    after = resolve(vault, b) if isinstance(b, str) else b
    return _Diff(before.reader(), after.reader()).nodes(
        path.rstrip("/"), before.entry(path).node, after.entry(path).node
    )


class _Diff:
    def __init__(self, before: BlobReader, after: BlobReader) -> None:
        self._before, self._after = before, after

    def nodes(self, path: str, old: Node, new: Node) -> Iterator[Change]:
        """Changes of one entry, and of what is below it."""
        stack: list[Iterator[tuple[str, Node | None, Node | None]]] = [iter([(path, old, new)])]
        while stack:
            item = next(stack[-1], None)
            if item is None:
                stack.pop()
                continue
            at, a, b = item
            if (change := _compare(at or "/", a, b)) is not None:
                yield change
            a_folder, b_folder = _folder(a), _folder(b)
            if (a_folder or b_folder) and not (a_folder and b_folder and a.content == b.content):  # type: ignore[union-attr]
                stack.append(self._pairs(at, a if a_folder else None, b if b_folder else None))

    def _pairs(self, path: str, a: Node | None, b: Node | None) -> Iterator[tuple[str, Node | None, Node | None]]:
        old, new = _entries(self._before, a), _entries(self._after, b)
        for name in sorted(old.keys() | new.keys()):
            yield f"{path}/{os.fsdecode(name)}", old.get(name), new.get(name)


def _entries(reader: BlobReader, node: Node | None) -> dict[bytes, Node]:
    if node is None:
        return {}
    return {n.name: n for tree in reader.trees(node.content) for n in tree.nodes}


def _folder(node: Node | None) -> bool:
    return node is not None and node.kind == NodeKind.DIRECTORY


def _compare(path: str, a: Node | None, b: Node | None) -> Change | None:
    if a is None or b is None:
        there = b if a is None else a
        assert there is not None
        kind, sizes = ("added", (0, there.size)) if a is None else ("removed", (there.size, 0))
        return Change(path, kind, (), *sizes)
    if a.kind != b.kind:
        return Change(path, "type", (), a.size, b.size)
    details = [
        what
        for what, x, y in (
            ("mode", a.mode, b.mode),
            ("owner", (a.uid, a.gid), (b.uid, b.gid)),
            ("mtime", a.mtime_ns, b.mtime_ns),
            ("xattrs", a.xattrs or {}, b.xattrs or {}),
            ("device", a.device, b.device),
        )
        if x != y and not (what == "mtime" and a.kind == NodeKind.DIRECTORY)
    ]
    content = a.kind == NodeKind.FILE and (a.content, a.size, a.extents) != (b.content, b.size, b.extents)
    if content or a.target != b.target:
        return Change(path, "modified", tuple(details), a.size, b.size)
    return Change(path, "metadata", tuple(details), a.size, b.size) if details else None
