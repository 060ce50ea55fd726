"""SnapshotWriter: a snapshot put together from sources and from files that the caller writes."""

import io
import os
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

from snapvault.format.tree import EMPTY, BlobType, Content, Node, NodeKind
from snapvault.foundation.clock import EPOCH, nanoseconds, now_ns
from snapvault.foundation.errors import InvalidInput, SourceError
from snapvault.foundation.events import Control
from snapvault.operations.parent import KeepingTrees, Parent, find_parent, keep_trees
from snapvault.operations.results import BackupResult
from snapvault.operations.run import READ_SIZE, Run, host_name
from snapvault.operations.saver import Saver
from snapvault.operations.sources import Source, is_local, local_source, make_source
from snapvault.source.protocol import SourceTree

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

_DATASET = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(slots=True)
class _Folder:
    """A folder of the snapshot that is being put together."""

    node: Node
    children: "dict[bytes, _Folder | Node]" = field(default_factory=dict)


class SnapshotWriter:
    """Leaving the block commits; an exception aborts and leaves nothing.

    ``open`` files and ``add`` sources; both from one thread at a time, or from several: a lock keeps them apart.
    """

    def __init__(
        self,
        repo: "Repository",
        dataset: str,
        *,
        host: str | None = None,
        tags: Iterable[str] = (),
        time: datetime | None = None,
        parent: str | None = None,
        force_read: bool = False,
        dry_run: bool = False,
        paths: tuple[bytes, ...] | None = None,
        control: Control | None = None,
    ) -> None:
        self.dataset, self.host = checked_dataset(dataset), checked_host(host or host_name())
        self._tags = checked_tags(tags)
        self._time = None if time is None else _nanoseconds(time)
        self._force, self._wanted = force_read, parent
        self._repo, self._dry = repo, dry_run
        self._lock = threading.RLock()
        self._paths = paths
        self._added: list[bytes] = []
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        self._root = _Folder(Node(b"", NodeKind.DIRECTORY, 0o755, 0, 0, now_ns()))
        self._whole: Content | None = None  # the content of a source whose root is "/"
        self._open_files = 0
        self._ended = False
        self._run = Run(repo.vault, "backup", control, dry_run=dry_run)
        self._kept: KeepingTrees | None = None
        if not repo.vault.ring.can_read and not dry_run:
            self._kept = KeepingTrees(self._run)
            self._run.blobs.put = self._kept.put  # type: ignore[method-assign]
        self._parent: Parent | None = None
        self.result: BackupResult | None = None

    @property
    def ended(self) -> bool:
        """Committed or aborted."""
        return self._ended

    def warn(self, messages: Iterable[str]) -> None:
        """Warnings for the result."""
        self._run.counts.warnings += messages

    # -- putting it together ------------------------------------------------------------------------------------

    def add(self, source: Source, *, at: str = "/") -> None:
        """Store a source under its own absolute paths, below ``at``.  SourceError if none of its roots can be read."""
        if isinstance(source, str | PathLike) and is_local(source):
            tree, warnings = local_source(self._repo.url, [source])
            self.warn(warnings)
            self.add_trees([tree], at=at)
        else:
            self.add_trees([make_source(source)], at=at)

    def add_trees(self, trees: Sequence[SourceTree], *, at: str = "/") -> None:
        """``add`` for sources that are ready made.  A command that fails is a SourceError, whatever else was read."""
        with self._lock:
            self._check_open()
            prefix, errors = _parts(at), []
            for tree in trees:
                for root in tree.roots:
                    error = self._add_root(tree, root, prefix)
                    if error is not None:
                        errors.append(error)
                        self._run.counts.issue(root, error.message)
                self._users.update(tree.users)
                self._groups.update(tree.groups)
            if len(errors) == sum(len(tree.roots) for tree in trees):
                raise errors[0]

    def _add_root(self, tree: SourceTree, root: bytes, prefix: list[bytes]) -> SourceError | None:
        """Store a root; why it could not be read."""
        try:
            node = tree.root_node(root)
        except SourceError as e:
            return e
        parts = _parts(root)
        where = prefix + parts
        saver = Saver(self._run, tree, self._find_parent(), force_read=self._force)
        before = len(self._run.counts.issues)
        saved = saver.save(root, node, self._old(where))
        if saved is None:
            issues = self._run.counts.issues
            reason = issues.pop().message if len(issues) > before else "it vanished"
            return SourceError(f"{os.fsdecode(root)} cannot be read: {reason}", affected=[os.fsdecode(root)])
        self._added.append(root)
        if not where:
            if self._root.children:
                raise InvalidInput("the whole of / cannot join what is in the snapshot already", hint="add it alone")
            self._whole, self._root.node = saved.content, saved
            return None
        folder = self._root
        for depth, name in enumerate(where[:-1]):
            above = b"/" + b"/".join(parts[: depth + 1 - len(prefix)]) if depth >= len(prefix) else None
            folder = self._descend(folder, name, tree.root_node(above) if above is not None else None)
        saved.name = where[-1]
        self._place(folder, saved)
        return None

    def open(self, path: str) -> "SnapshotFile":
        """A binary file to write; it is in the snapshot once it was closed."""
        parts = _parts(path)
        if not parts:
            raise InvalidInput("a file needs a name")
        with self._lock:
            self._check_open()
            self._open_files += 1
        return SnapshotFile(self, parts)

    def _descend(self, folder: _Folder, name: bytes, node: Node | None) -> _Folder:
        child = folder.children.get(name)
        if child is None:
            if node is None:
                node = Node(name, NodeKind.DIRECTORY, 0o755, 0, 0, now_ns())
            node.name, node.kind = name, NodeKind.DIRECTORY
            child = folder.children[name] = _Folder(node)
        if isinstance(child, Node):
            raise InvalidInput(f"{os.fsdecode(name)!r} is in the snapshot already, and not as a folder to add to")
        return child

    def _place(self, folder: _Folder, node: Node) -> None:
        if node.name in folder.children or self._whole is not None:
            raise InvalidInput(f"{os.fsdecode(node.name)!r} is in the snapshot already", hint="name each path once")
        folder.children[node.name] = node

    def _check_open(self) -> None:
        self._run.vault.check_usable()
        if self._ended:
            raise InvalidInput("the snapshot is finished: nothing can be added any more")

    def drop_file(self) -> None:
        """Called by a SnapshotFile that was given up."""
        with self._lock:
            self._open_files -= 1

    def finish_file(self, parts: list[bytes], ids: bytes, size: int) -> None:
        """Called by a SnapshotFile that was closed."""
        with self._lock:
            self._check_open()
            self._open_files -= 1
            folder = self._root
            for name in parts[:-1]:
                folder = self._descend(folder, name, None)
            content = self._run.content(ids) if ids else EMPTY
            node = Node(parts[-1], NodeKind.FILE, 0o644, os.getuid(), os.getgid(), now_ns(), size=size, content=content)
            self._place(folder, node)
            counts = self._run.counts
            counts.files_new += 1
            counts.bytes_total += size
            counts.bytes_read += size

    def store(self, buffer: memoryview, *, final: bool) -> tuple[bytes, int]:
        """Chunks of a SnapshotFile: their ids, and how many bytes they take."""
        with self._lock:
            self._check_open()
            put, ids, start = self._run.blobs.put, [], 0
            for end in self._run.chunker.cuts(buffer, final=final):
                ids.append(put(BlobType.DATA, buffer[start:end]))
                start = end
            self._run.reporter.tick("read", self._run.counts.files)
            return b"".join(ids), start

    # -- the parent ---------------------------------------------------------------------------------------------

    def _find_parent(self) -> Parent:
        if self._parent is None:
            self._parent = find_parent(self._run, self.dataset, self.host, self._paths, self._wanted)
        return self._parent

    def _old(self, where: list[bytes]) -> Node | None:
        """The node at this place in the parent."""
        parent = self._find_parent()
        entries, node = parent.root(), None
        if not where:
            return Node(b"", NodeKind.DIRECTORY, 0, 0, 0, 0, content=parent.content)
        for i, name in enumerate(where):
            node = entries.get(name)
            if node is None:
                return None
            if i + 1 < len(where):
                entries = parent.entries(node.content)
        return node

    # -- the end ------------------------------------------------------------------------------------------------

    def _encode(self) -> Content:
        """Store the folders, inner ones first; not recursive, so that a path may be as deep as it likes."""
        folders = [self._root]
        for folder in folders:  # grows meanwhile
            folders += [c for c in folder.children.values() if isinstance(c, _Folder)]
        for folder in reversed(folders):
            children = [folder.children[name] for name in sorted(folder.children)]
            nodes = [c if isinstance(c, Node) else c.node for c in children]
            folder.node.content = self._run.folder(nodes, self._users, self._groups)
        self._run.counts.folders += len(folders) - 1
        return self._root.node.content

    def _commit(self) -> None:
        self._run.vault.check_usable()
        if self._open_files:
            raise InvalidInput(f"{self._open_files} files of the snapshot were not closed")
        run = self._run
        root = self._whole if self._whole is not None else self._encode()
        paths = self._paths if self._paths is not None else tuple(sorted(set(self._added))) or (b"/",)
        sid = run.commit(root, dataset=self.dataset, host=self.host, paths=paths, tags=self._tags, time=self._time)
        if self._kept is not None:
            keep_trees(run.vault, (self.dataset, self.host, self._paths or ()), sid, root, self._kept.kept)
        self.result = self._result(sid)

    def _result(self, sid: str) -> BackupResult:
        c, written = self._run.counts, self._run.blobs.written
        parent = self._parent.snapshot if self._parent is not None else None
        if self._parent is not None:
            c.warnings += self._parent.warnings
        return BackupResult(
            sid, self.dataset, parent or "", c.files_new, c.files_changed, c.files_unmodified, c.folders, c.others,
            c.bytes_total, c.bytes_read, written.raw, written.stored, c.vanished, tuple(c.issues), tuple(c.warnings),
            (now_ns() - self._run.started) / 1e9, self._dry,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._run.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with self._lock:  # a file that another thread still writes is refused from here on
            ended, self._ended = self._ended, True
        if error is not None or ended:
            self._run.__exit__(kind, error, trace)
            return
        try:
            self._commit()
        except BaseException as e:
            self._run.__exit__(type(e), e, e.__traceback__)
            raise
        self._run.__exit__(None, None, None)


class SnapshotFile(io.RawIOBase):
    """A file of a snapshot that is being written.  Closing it adds it; an exception in its ``with`` block drops it."""

    def __init__(self, writer: SnapshotWriter, parts: list[bytes]) -> None:
        self._writer, self._parts = writer, parts
        self._buffer = bytearray()
        self._ids: list[bytes] = []
        self._size = 0
        self._dropped = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """All of ``data``."""
        if self.closed:
            raise ValueError("the file is closed")
        view = memoryview(data).cast("B")
        self._buffer += view
        self._size += len(view)
        if len(self._buffer) >= READ_SIZE:
            self._cut(final=False)
        return len(view)

    def _cut(self, *, final: bool) -> None:
        whole = bytes(self._buffer)
        ids, used = self._writer.store(memoryview(whole), final=final)
        self._ids.append(ids)
        self._buffer = bytearray(memoryview(whole)[used:])

    def close(self) -> None:
        """Idempotent."""
        if self.closed:
            return
        try:
            if self._dropped:
                self._writer.drop_file()
            elif not self._writer.ended:
                self._cut(final=True)
                self._writer.finish_file(self._parts, b"".join(self._ids), self._size)
        finally:
            super().close()

    def __exit__(self, *exc: Any) -> None:
        self._dropped = exc[0] is not None
        self.close()


def _parts(path: str | bytes) -> list[bytes]:
    parts = [p for p in os.fsencode(path).split(b"/") if p not in (b"", b".")]
    if any(p == b".." or b"\0" in p for p in parts):
        raise InvalidInput(f"{os.fsdecode(path)!r} is no path inside a snapshot")
    return parts


def checked_dataset(name: str) -> str:
    """InvalidInput unless this is a dataset's name."""
    if not _DATASET.fullmatch(name):
        raise InvalidInput(f"{name!r} is no dataset name", hint="use letters, digits, '.', '_' and '-'")
    return name


def checked_host(name: str) -> str:
    """InvalidInput for a name that no table or record can show."""
    if not name.isprintable():
        raise InvalidInput(f"{name!r} is no name of a host")
    return name


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags, each once, in order; InvalidInput for empty ones and ones with commas or control characters."""
    if isinstance(tags, str):
        tags = [tags]
    found = sorted(set(tags))
    for tag in found:
        if not tag.strip() or "," in tag or not tag.isprintable():
            raise InvalidInput(f"{tag!r} is no tag")
    return tuple(found)


def _nanoseconds(time: datetime) -> int:
    if time.tzinfo is None:
        raise InvalidInput("a time without a zone is ambiguous", hint="pass an aware datetime")
    ns = nanoseconds(time - EPOCH)
    if not -(2**63) <= ns < 2**63:
        raise InvalidInput(f"a snapshot cannot be of {time.isoformat()}", hint="name a time from 1678 to 2261")
    return ns
