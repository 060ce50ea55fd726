"""A source on a local file system, read with everything that Linux keeps of it."""

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from snapvault.format.nodes import node_from_entry, node_from_stat
from snapvault.format.tree import Node, NodeKind
from snapvault.foundation.errors import InvalidInput, SourceError
from snapvault.platform.bulk import BATCH, Entry, extras, names_in, read_files, stat_entries
from snapvault.platform.metadata import LONG_PATH, Owners, list_xattrs, open_noatime, reachable, read_xattrs
from snapvault.platform.sparse import data_extents
from snapvault.source.protocol import NOTHING_KNOWN, Known, Listing, Problem
from snapvault.source.selection import (
    CACHE_TAG,
    Path,
    Selection,
    is_cache,
    normalised,
    read_paths,
    read_patterns,
)

# O_NONBLOCK: a FIFO put where a file was must not make the open wait for its writer.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY
_READAHEAD_FROM = 4 << 20  # bytes; smaller files are read in a few calls anyway


class FilesystemSource:
    """Local folders and files.  See SourceTree.

    ``paths`` are made absolute; one inside another is merged into it (it stays included, and stays an anchor for
    patterns and a start for ``one_file_system``).  A symlink given as a root is kept as a symlink, unless it ends
    with a slash.  ``files_from`` and ``exclude_files`` name files with paths and patterns, one a line.
    Symlinks above a root are followed and stored as folders.

    Raises InvalidInput for impossible paths and patterns, SourceError for list files that cannot be read.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        exclude: Iterable[str] = (),
        exclude_files: Iterable[Path] = (),
        files_from: Iterable[Path] = (),
        one_file_system: bool = False,
        exclude_caches: bool = False,
        exclude_larger_than: int | None = None,
        skip: Iterable[Path] = (),
    ) -> None:
        given = dict(normalised(p) for p in (*paths, *read_paths(files_from)))
        if not given:
            raise InvalidInput("there is nothing to back up: no path was given")
        self._given = frozenset(given)
        self.roots: tuple[bytes, ...] = tuple(sorted(p for p in given if not _lies_below(p, self._given)))
        # A symlink with another root behind it can only be stored as the folder that it stands for.
        below = {a for p in given for a in _above(p)}
        self._followed = {p for p, slash in given.items() if slash or p in below}
        self.label = ", ".join(os.fsdecode(p) for p in self.roots)
        self._rules = Selection(
            (*exclude, *read_patterns(exclude_files)),
            one_file_system,
            exclude_caches,
            exclude_larger_than,
            tuple(normalised(p)[0] for p in skip),
        )
        self._filtered = self._rules.patterns is not None or exclude_larger_than is not None
        self._owners = Owners()
        self.users, self.groups = self._owners.users, self._owners.groups

    def root_node(self, path: bytes) -> Node:
        """See SourceTree."""
        follow = path not in self._given or path in self._followed
        try:
            with reachable(path) as place:
                st = os.stat(place, follow_symlinks=follow)
                node = node_from_stat(os.path.basename(path), st)
                # An attribute that cannot be read is not worth losing the whole root for.
                node.xattrs, _ = read_xattrs(place, list_xattrs(place, follow), follow)
                if node.kind == NodeKind.SYMLINK:
                    node.target = os.readlink(place)
        except OSError as e:
            name = os.fsdecode(path)
            raise SourceError(f"{name!r} cannot be read: {e.strerror}", affected=[name]) from e
        self._owners.see(st.st_uid, st.st_gid)
        return node

    def scan(self, path: bytes, known: Known = NOTHING_KNOWN) -> Listing:
        """See SourceTree."""
        with reachable(path) as place:
            fd = self._open_folder(path, place)
            try:
                if self._closed(path, fd):
                    return Listing([], [])
                problems: list[Problem] = []
                same: set[bytes] = set()
                nodes = self._entries(path, place, fd, known, same, problems)
            finally:
                os.close(fd)
        return Listing(nodes, problems, frozenset(same))

    def read_ahead(self, path: bytes, nodes: Sequence[Node]) -> list[bytes | None]:
        """See ReadsAhead."""
        try:
            with reachable(path) as place:
                fd = self._open_folder(path, place)
        except OSError:
            return [None] * len(nodes)  # whoever opens one of them says why
        try:
            return read_files(fd, [(n.name, n.size, n.mtime_ns, n.ctime_ns, n.inode) for n in nodes])
        finally:
            os.close(fd)

    def _open_folder(self, path: bytes, place: bytes) -> int:
        # With O_NOFOLLOW only the last component counts: "link/." is the folder behind the link.
        return open_noatime(place + b"/." if path in self._followed else place, _FOLDER_FLAGS)

    def open(self, path: bytes, node: Node) -> "FilesystemReader":
        """See SourceTree.  ESTALE: it is no longer a regular file."""
        if len(path) < LONG_PATH:
            return self._open(path, node)
        with reachable(path) as place:
            return self._open(place, node)

    def _open(self, place: bytes, node: Node) -> "FilesystemReader":
        try:
            fd = open_noatime(place, _FILE_FLAGS)
        except BlockingIOError:  # somebody holds a lease (Samba): wait until it is given back
            if not stat.S_ISREG(os.lstat(place).st_mode):
                raise
            fd = open_noatime(place, _FILE_FLAGS & ~os.O_NONBLOCK)
        try:
            return FilesystemReader(fd, node)
        except BaseException:
            os.close(fd)
            raise

    def _closed(self, path: bytes, fd: int) -> bool:
        """True for a folder whose entries are left out: another file system, or a place never entered."""
        rules = self._rules
        if not (rules.skip or rules.one_file_system):
            return False
        st = os.fstat(fd)
        if rules.skip and rules.skipped(path, st):
            return True
        return rules.one_file_system and st.st_dev != os.stat(self._anchor(path)).st_dev

    def _entries(
        self, path: bytes, place: bytes, fd: int, known: Known, same: set[bytes], problems: list[Problem]
    ) -> list[Node]:
        nodes: list[Node] = []
        prefix = place.rstrip(b"/") + b"/"
        names = names_in(fd)
        if self._rules.exclude_caches and is_cache(fd):
            names = [n for n in names if n == CACHE_TAG]
        for start in range(0, len(names), BATCH):
            some = names[start : start + BATCH]
            entries = _described(fd, prefix, some, known, same)
            left_out = self._left_out(path, fd, entries)
            for name, entry in zip(some, entries, strict=True):
                if left_out is not None and left_out(name, entry):
                    same.discard(name)
                    continue
                node: Node | None
                if type(entry) is tuple and len(entry) == 9:
                    node = Node(*entry)
                else:
                    node = self._special(path, prefix, fd, name, entry, problems)
                if node is not None:
                    nodes.append(node)
        for uid, gid in {(n.uid, n.gid) for n in nodes}:
            self._owners.see(uid, gid)
        return nodes

    def _special(
        self, path: bytes, prefix: bytes, fd: int, name: bytes, entry: Entry | int, problems: list[Problem]
    ) -> Node | None:
        """A node of what is more than a plain file or folder; None and a problem if it cannot be taken."""
        try:
            if isinstance(entry, int):
                raise OSError(entry, os.strerror(entry))
            node = node_from_entry(entry)
            attributes = extras(entry)[3]
            if attributes < 0:
                raise OSError(-attributes, os.strerror(-attributes))
            if attributes:
                self._attributes(path, node, prefix + name, list_xattrs(prefix + name, False), problems)
            if node.kind == NodeKind.SYMLINK:
                node.target = os.readlink(name, dir_fd=fd)
            return node
        except KeyError:
            problems.append(Problem(_join(path, name), "is of a kind that cannot be stored", False))
        except OSError as e:
            problems.append(Problem(_join(path, name), f"cannot be read: {e.strerror}", e.errno == errno.ENOENT))
        return None

    def _attributes(self, path: bytes, node: Node, place: bytes, names: list[str], problems: list[Problem]) -> None:
        node.xattrs, failures = read_xattrs(place, names, False)
        node.incomplete = bool(failures)
        for name, error in failures:
            if node.kind == NodeKind.FILE and error.errno == errno.EACCES:
                continue  # the file itself is as unreadable, and will be named for that
            message = f"its attribute {os.fsdecode(name)!r} cannot be read: {error.strerror}"
            problems.append(Problem(_join(path, node.name), message, False))

    def _left_out(self, folder: bytes, fd: int, entries: Sequence[Entry | int]) -> "_LeftOut | None":
        """What decides for these entries of a folder; None if nothing can leave one of them out."""
        if not self._filtered and not self._rules.may_skip(folder, (e[7] for e in entries if isinstance(e, tuple))):
            return None
        anchor = self._anchor(folder)
        relative = os.fsdecode(folder[len(anchor) :].lstrip(b"/"))
        return _LeftOut(self._rules, self._given, folder, fd, relative + "/" if relative else "")

    def _anchor(self, path: bytes) -> bytes:
        """The root that ``path`` was reached from."""
        if path in self._given:
            return path
        return next((p for p in _above(path) if p in self._given), path)


def _described(fd: int, prefix: bytes, names: Sequence[bytes], known: Known, same: set[bytes]) -> list[Entry | int]:
    """``stat_entries``; attributes are not asked for where everything else is as it is known."""
    if not known:
        return stat_entries(fd, prefix, names)
    entries = stat_entries(fd, b"", names)
    other = [i for i, (name, entry) in enumerate(zip(names, entries, strict=True)) if known.get(name) != entry]
    if len(other) < len(names):
        same.update(names)
        same.difference_update(names[i] for i in other)
    for i, entry in zip(other, stat_entries(fd, prefix, [names[i] for i in other]), strict=True):
        entries[i] = entry
    return entries


class _LeftOut:
    """Decides for the entries of one folder whether the rules leave them out."""

    __slots__ = ("_fd", "_folder", "_given", "_relative", "_rules")

    def __init__(self, rules: Selection, given: frozenset[bytes], folder: bytes, fd: int, relative: str) -> None:
        self._rules, self._given, self._folder, self._fd, self._relative = rules, given, folder, fd, relative

    def __call__(self, name: bytes, entry: Entry | int) -> bool:
        rules = self._rules
        path = _join(self._folder, name)
        if rules.skip and rules.skipped_entry(path, name, self._fd):
            return True
        if path in self._given:  # named by the user: no pattern takes it away
            return False
        kind = None if isinstance(entry, int) else entry[1]
        if rules.excluded(self._relative + os.fsdecode(name), kind == NodeKind.DIRECTORY):
            return True
        limit = rules.exclude_larger_than
        if limit is None or isinstance(entry, int) or kind != NodeKind.FILE:
            return False
        return entry[8] > limit


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + name if folder == b"/" else folder + b"/" + name


def _above(path: bytes) -> list[bytes]:
    """The folders above a path, the nearest first."""
    folders = []
    while path != b"/":
        path = path.rpartition(b"/")[0] or b"/"
        folders.append(path)
    return folders


def _lies_below(path: bytes, others: frozenset[bytes]) -> bool:
    return any(p in others for p in _above(path))


class FilesystemReader:
    """An open regular file.  Takes over ``fd``.  See FileReader.

    Raises OSError (ESTALE) if it is no regular file; the descriptor is then still the caller's.
    """

    __slots__ = ("_fd", "_left", "_rest", "_stat", "delivered", "node")

    def __init__(self, fd: int, node: Node) -> None:
        self._fd = -1
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            raise OSError(errno.ESTALE, "it is no longer a regular file")
        if (
            st.st_ctime_ns != node.ctime_ns
            or st.st_ino != node.inode
            or st.st_mtime_ns != node.mtime_ns
            or st.st_size != node.size
        ):
            node = node_from_stat(node.name, st)
            node.xattrs, failures = read_xattrs(fd, list_xattrs(fd))
            node.incomplete = bool(failures)
        size = st.st_size
        self._rest: list[tuple[int, int]] = []  # extents still to be read, the next one last
        self._left = size  # bytes still to be read of this extent
        if st.st_blocks * 512 < size:
            node.extents = data_extents(fd, size)
            if node.extents is not None:
                self._rest, self._left = list(reversed(node.extents)), 0
        elif size >= _READAHEAD_FROM:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        self.node = node
        self.delivered = 0  # bytes of data
        self._stat = st
        self._fd = fd

    def read(self, size: int) -> bytes:
        """See FileReader.  Never more than the size at the opening: a growing file comes to an end."""
        wanted = min(size, self._expected())
        data = os.read(self._fd, wanted) if wanted else b""
        self._count(len(data))
        return data

    def readinto(self, out: memoryview) -> int:
        """See ReadsInto."""
        wanted = min(len(out), self._expected())
        got = os.readv(self._fd, [out[:wanted]]) if wanted else 0
        self._count(got)
        return got

    def part(self, offset: int, length: int) -> None:
        """See ReadsParts."""
        self._rest, self._left = [(offset, length)], 0

    def _expected(self) -> int:
        """Bytes that this extent still has, the next one once it is through."""
        if not self._left and self._rest:
            offset, self._left = self._rest.pop()
            os.lseek(self._fd, offset, os.SEEK_SET)
        return self._left

    def _count(self, got: int) -> None:
        self.delivered += got
        self._left -= got
        if not got:  # at the end, or cut short
            self._left = 0
            self._rest.clear()

    def finish(self) -> bool:
        """See FileReader."""
        if self._fd < 0:
            return False
        try:
            st, before = os.fstat(self._fd), self._stat
        finally:
            fd, self._fd = self._fd, -1
            os.close(fd)
        node = self.node
        promised = node.size if node.extents is None else sum(length for _, length in node.extents)
        if self.delivered != promised:
            self.node = _shortened(node, self.delivered)
            return False
        return (
            st.st_size == before.st_size
            and st.st_mtime_ns == before.st_mtime_ns
            and st.st_ctime_ns == before.st_ctime_ns
        )

    def __del__(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)


def _shortened(node: Node, delivered: int) -> Node:
    """The node of a file that ended early, so that size and map fit the bytes that there were."""
    if node.extents is None:
        return replace(node, size=delivered)
    extents, size, left = [], 0, delivered
    for offset, length in node.extents:
        if left > 0:
            extents.append((offset, min(length, left)))
            size = offset + min(length, left)
            left -= length
    return replace(node, size=size, extents=tuple(extents))
