"""Storing one source: walk its folders, take what is unchanged from the parent, read the rest."""

from dataclasses import dataclass, field
from itertools import islice

from snapvault.format.tree import EMPTY, Content, Node, NodeKind
from snapvault.foundation.clock import now_ns
from snapvault.operations.awaited import AwaitedReader
from snapvault.operations.parent import Before, Parent
from snapvault.operations.run import READ_SIZE, Run, describe, user_name
from snapvault.source.protocol import NOTHING_KNOWN, Listing, Problem, ReadsAhead, SourceTree
from snapvault.source.stream import SingleFile

AHEAD_FILE, AHEAD_BYTES, AHEAD_FILES = 1 << 20, 4 << 20, 256  # small files are read together, at most so many
RACY_NS = 2 * 10**9  # a file changed this shortly before it was read may change again within the same tick


@dataclass(slots=True)
class _Folder:
    """A folder whose entries are being stored."""

    path: bytes
    node: Node
    nodes: list[Node]
    before: Before
    old: Content  # of the folder as it was
    same: frozenset[bytes]  # entries that are described as they were
    unmodified: dict[bytes, Content]  # files among them that are stored whole
    shuffled: bool = False  # the nodes are not in the order of their names
    next: int = 0  # of the nodes
    done: list[Node] = field(default_factory=list)
    ahead: dict[bytes, bytes | None] = field(default_factory=dict)  # bytes of small files that come next
    ahead_since: int = 0  # when their reading began


class Saver:
    """Stores the folders and files of one source through a run."""

    def __init__(self, run: Run, source: SourceTree, parent: Parent, *, force_read: bool = False) -> None:
        self._run, self._source, self._parent, self._force = run, source, parent, force_read
        self._counts = run.counts
        self._trusting = not force_read and parent.user == user_name()
        self._ahead = source.read_ahead if isinstance(source, ReadsAhead) else None
        self._held = 0  # bytes read ahead, in all folders above one another
        self._linked: dict[tuple[int, int], Node] = {}  # the first name of files with several

    def save(self, path: bytes, node: Node, old: Node | None) -> Node | None:
        """Store a root and everything below it: its node with content; None if it could not be read."""
        if node.kind != NodeKind.DIRECTORY:
            return self._save_entry(path, node, old)
        stack: list[_Folder] = []
        top = self._enter(path, node, old)
        if top is None:
            return None
        stack.append(top)
        while True:
            folder = stack[-1]
            entered = self._save_entries(folder)
            if entered is not None:
                stack.append(entered)
                continue
            self._leave(folder)
            stack.pop()
            if not stack:
                return folder.node
            stack[-1].done.append(folder.node)

    def _save_entries(self, folder: _Folder) -> _Folder | None:
        """Store entries up to the next folder, which is given back; None: that was all."""
        prefix, before, done = folder.path.rstrip(b"/") + b"/", folder.before, folder.done
        nodes, unmodified = folder.nodes, folder.unmodified
        while folder.next < len(nodes):
            child = nodes[folder.next]
            folder.next += 1
            if child.name in unmodified:
                child.content = unmodified[child.name]
                done.append(child)
            elif child.kind == NodeKind.DIRECTORY:
                entered = self._enter(prefix + child.name, child, before.get(child.name))
                if entered is not None:
                    return entered
            else:
                saved = self._save_entry(prefix + child.name, child, before.get(child.name), folder)
                if saved is not None:
                    done.append(saved)
        return None

    def _enter(self, path: bytes, node: Node, old: Node | None) -> _Folder | None:
        old_content = old.content if old is not None and old.kind == NodeKind.DIRECTORY else EMPTY
        before = self._parent.entries(old_content)
        try:
            listing: Listing = self._source.scan(path, before.plain() if self._trusting else NOTHING_KNOWN)
        except FileNotFoundError:
            self._counts.vanished += 1
            return None
        except OSError as e:
            self._counts.issue(path, f"the folder cannot be listed: {describe(e)}")
            return None
        self._run.reporter.tick("read", self._counts.files, bytes_done=self._counts.bytes_read)
        for problem in listing.problems:
            self._problem(problem)
        unmodified = self._parent.unmodified(before, listing.same)
        self._counts.files_unmodified += len(unmodified)
        self._counts.bytes_total += sum(n.size for n in listing.nodes if n.name in unmodified)
        shuffled = self._run.shared
        nodes = self._shuffled(listing.nodes) if shuffled else listing.nodes
        return _Folder(path, node, nodes, before, old_content, listing.same, unmodified, shuffled)

    def _shuffled(self, nodes: list[Node]) -> list[Node]:
        """Folders, and files in groups, in an order of this run's own: most of them, others have stored by then."""

        def place(numbered: tuple[int, Node]) -> int:
            number, node = numbered
            return self._run.place_in(node.name if node.kind == NodeKind.DIRECTORY else b"%d" % (number // AHEAD_FILES))

        return [node for _, node in sorted(enumerate(nodes), key=place)]

    def _leave(self, folder: _Folder) -> None:
        self._held -= _size(folder.ahead)
        if folder.shuffled:
            folder.done.sort(key=lambda n: n.name)
        if self._as_it_was(folder):
            folder.node.content = folder.old
        else:
            folder.node.content = self._run.folder(folder.done, self._source.users, self._source.groups)
        self._counts.folders += 1

    def _as_it_was(self, folder: _Folder) -> bool:
        """Whether the folder is stored already, with the same entries, contents and names of owners."""
        done, before, users, groups = folder.done, folder.before, self._source.users, self._source.groups
        return (
            before.sound
            and len(done) == len(folder.same) == len(before.rows) > 0
            and all(n.name in folder.unmodified or self._same_folder(folder, n) for n in done)
            and before.users == {u: users[u] for u in {n.uid for n in done} if u in users}
            and before.groups == {g: groups[g] for g in {n.gid for n in done} if g in groups}
            and before.holds_numbers()
            and self._parent.folder_is_stored(folder.old)
        )

    def _same_folder(self, folder: _Folder, n: Node) -> bool:
        return n.kind == NodeKind.DIRECTORY and n.name in folder.same and n.content == folder.before.content(n.name)

    def _reusable(self, old: Node | None, node: Node) -> bool:
        return not self._force and self._parent.reusable(old, node)

    def _problem(self, problem: Problem) -> None:
        if problem.vanished:
            self._counts.vanished += 1
        else:
            self._counts.issue(problem.path, problem.message)

    def _save_entry(self, path: bytes, node: Node, old: Node | None, folder: _Folder | None = None) -> Node | None:
        if node.kind != NodeKind.FILE:
            self._counts.others += 1
            self._run.reporter.tick("read", self._counts.files, bytes_done=self._counts.bytes_read)
            return node
        counts = self._counts
        if self._reusable(old, node):
            assert old is not None
            node.content, node.extents = old.content, old.extents
            counts.files_unmodified += 1
            counts.bytes_total += node.size
            self._run.reporter.tick("read", counts.files, bytes_done=counts.bytes_read)
            return node
        saved = self._linked.get(node.link) if node.link is not None else None
        if saved is not None and _same(saved, node):
            node.content, node.extents, node.racy = saved.content, saved.extents, saved.racy
        else:
            read = self._read_ahead(folder, node) if folder is not None else None
            if read is None:
                read = self._read(path, node)
            if read is None:
                return None
            node = read
            if node.link is not None:
                self._linked[node.link] = node
        if old is None or old.kind != NodeKind.FILE:
            counts.files_new += 1
        elif _as_stored(old, node):
            counts.files_unmodified += 1
        else:
            counts.files_changed += 1
        counts.bytes_total += node.size
        self._run.reporter.tick("read", counts.files, bytes_done=counts.bytes_read)
        return node

    def _read_ahead(self, folder: _Folder, node: Node) -> Node | None:
        """Store a small file whose bytes were read together with others of its folder; None: read it by itself."""
        if self._ahead is None or not 0 < node.size <= AHEAD_FILE:
            return None
        if node.name not in folder.ahead:
            self._held -= _size(folder.ahead)
            folder.ahead.clear()
            folder.ahead_since = now_ns()
            wanted = self._next_small(folder, node)
            folder.ahead = dict(zip((n.name for n in wanted), self._ahead(folder.path, wanted), strict=True))
            self._held += _size(folder.ahead)
        data = folder.ahead.pop(node.name)
        if data is None:
            return None
        self._held -= len(data)
        self._counts.bytes_read += len(data)
        node.content = self._run.content(self._run.store_bytes(data))
        node.racy = _racy(node, folder.ahead_since)
        return node

    def _next_small(self, folder: _Folder, node: Node) -> list[Node]:
        """This file and those after it that will have to be read as well."""
        wanted, total = [node], self._held + node.size
        for n in islice(folder.nodes, folder.next, folder.next + AHEAD_FILES):
            if n.kind != NodeKind.FILE or not 0 < n.size <= AHEAD_FILE or n.link is not None:
                continue
            if n.name in folder.unmodified or self._reusable(folder.before.get(n.name), n):
                continue
            total += n.size
            if total > AHEAD_BYTES:
                break
            wanted.append(n)
        return wanted

    def _read(self, path: bytes, node: Node) -> Node | None:
        """Read a file; once more if it changed meanwhile.  None: dropped and named, or vanished."""
        for attempt in (1, 2):
            try:
                read, steady = self._read_once(path, node)
            except FileNotFoundError:
                self._counts.vanished += 1
                return None
            except OSError as e:
                self._counts.issue(path, f"cannot be read, and is not in the snapshot: {describe(e)}")
                return None
            if steady:
                return read
            if attempt == 2:
                read.changed = True
                self._counts.issue(path, "changed while it was read; what is stored may be a mixture")
        return read

    def _read_once(self, path: bytes, node: Node) -> tuple[Node, bool]:
        began = now_ns()
        reader = self._source.open(path, node)
        if isinstance(self._source, SingleFile):
            reader = AwaitedReader(reader, self._run.reporter.check, READ_SIZE)
        try:
            ids, size = self._run.store_file(reader)
        finally:
            steady = reader.finish()
        read = reader.node
        read.content = self._run.content(ids) if ids else EMPTY
        if not steady:
            _fit(read, size)
        read.racy = _racy(read, began)
        return read, steady


def _size(ahead: dict[bytes, bytes | None]) -> int:
    return sum(len(data) for data in ahead.values() if data is not None)


def _racy(node: Node, began: int) -> bool:
    """Whether another change could leave the same times.  A place without inodes tells versions apart by itself."""
    recent = began - RACY_NS
    # A time of modification in the future was set by somebody: a change of content would move both.
    return node.inode != 0 and (node.ctime_ns >= recent or recent <= node.mtime_ns <= now_ns())


def _same(a: Node, b: Node) -> bool:
    return (a.size, a.mtime_ns, a.ctime_ns, a.inode) == (b.size, b.mtime_ns, b.ctime_ns, b.inode)


def _as_stored(old: Node, node: Node) -> bool:
    """Whether a file that was read would come back as it did before: other inodes and change times are no change."""
    return (
        not node.changed
        and old.content == node.content
        and old.size == node.size
        and old.extents == node.extents
        and old.mtime_ns == node.mtime_ns
        and (old.mode, old.uid, old.gid) == (node.mode, node.uid, node.gid)
        and (old.xattrs or {}) == (node.xattrs or {})
        and (old.link is None) == (node.link is None)
    )


def _fit(node: Node, stored: int) -> None:
    """Make the size of a file that changed while it was read agree with the bytes that were stored."""
    if node.extents is None:
        node.size = stored
    elif sum(n for _, n in node.extents) != stored:
        node.extents, node.size = None, stored
