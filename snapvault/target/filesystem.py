"""A folder of a local file system as the place that a restore writes to.

Every path is relative to the root (b"" is the root itself) and is walked through descriptors of real folders: neither
a hostile snapshot nor a link that somebody plants in the target can make a call touch anything outside.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from snapvault.format.nodes import file_type
from snapvault.format.tree import Node, NodeKind
from snapvault.foundation.errors import SourceError
from snapvault.platform.bulk import Expected, read_files, stat_entries, write_files
from snapvault.platform.metadata import O_PATH, LocalOwners, open_noatime
from snapvault.target.attributes import Shortfall, apply_metadata, describe, differences, is_simple
from snapvault.target.folders import Folder, Folders, check_name, split
from snapvault.target.removal import make_usable, remove_entry

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_NO_NAMES: Mapping[int, str] = {}
TEMPORARY = b".snapvault-"  # a file of this prefix in a target is a leftover of a run that was killed


class NewFile:
    """A file under a temporary name beside its final one.  ``fd`` is open for reading and writing."""

    __slots__ = ("_folder", "_name", "_remove", "_temporary", "fd")  # fd: -1 while closed

    def __init__(self, folder: Folder, name: bytes, remove: Callable[[], None]) -> None:
        self._folder, self._name, self._remove = folder, name, remove
        self._temporary = TEMPORARY + secrets.token_hex(12).encode()
        self.fd = os.open(self._temporary, _NEW, 0o600, dir_fd=folder.fd)

    def reopen(self) -> None:
        """Open it again after ``close``."""
        if self.fd < 0:
            self.fd = os.open(self._temporary, os.O_RDWR | os.O_NOFOLLOW, dir_fd=self._folder.fd)

    def commit(self) -> None:
        """Close, and put it in the place of whatever has its name.  OSError: nothing changed, ``abort`` it."""
        self.close()
        at = self._folder.fd
        try:
            os.rename(self._temporary, self._name, src_dir_fd=at, dst_dir_fd=at)
        except IsADirectoryError:
            self._remove()
            os.rename(self._temporary, self._name, src_dir_fd=at, dst_dir_fd=at)

    def abort(self) -> None:
        """Close, and leave nothing."""
        self.close()
        with suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=self._folder.fd)

    def close(self) -> None:
        """Let go of the descriptor; the file stays under its temporary name."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class OwnedNode(NamedTuple):
    """A node, and the names of the owners of its tree."""

    node: Node
    users: Mapping[int, str]
    groups: Mapping[int, str]


class WholeFile(NamedTuple):
    """A new file: its path, all its bytes, its node, and the names of the owners of its tree."""

    path: bytes
    data: memoryview
    node: Node
    users: Mapping[int, str]
    groups: Mapping[int, str]


class FilesystemTarget:
    """Writes below ``root``.  Safe for several threads, as long as they do not work on the same entry.

    ``numeric_owner``: owners are restored by number; else by name where the name exists here.  ``clear``: a folder in
    the place of something else goes with all that is in it; else ENOTEMPTY, if there is something in it.

    Raises SourceError if the root cannot be made or opened.  Methods raise OSError as it comes, and InvalidInput for
    a path with a component that no entry can have.
    """

    def __init__(
        self,
        root: str | bytes | os.PathLike[str],
        *,
        create: bool = True,
        numeric_owner: bool = False,
        clear: bool = True,
    ) -> None:
        self.root = os.path.abspath(os.fsencode(root))
        self.label = os.fsdecode(self.root)
        try:
            if create:
                os.makedirs(self.root, exist_ok=True)
            self._root = Folder(os.open(self.root, O_PATH | os.O_DIRECTORY))
        except OSError as e:
            raise SourceError(
                f"the target {self.label!r} cannot be opened: {e.strerror}",
                hint="name a folder that exists or can be made",
                affected=[self.label],
            ) from e
        self.empty = _is_empty(self.root)  # when it was opened
        self._folders = Folders(self._root)
        self._owners, self._clear = LocalOwners(numeric_owner), clear

    def close(self) -> None:
        """Close the root and let go of the folders: whoever restored may want to unmount the target."""
        self._folders.clear()
        self._root.close()

    def lstat(self, path: bytes) -> os.stat_result | None:
        """The stat of an entry; None if there is none (also behind a symlink in the place of a folder)."""
        try:
            folder, name = self._place(path)
            return os.stat(name, dir_fd=folder.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def node(self, path: bytes) -> Node | None:
        """All metadata of an entry, as a source gives it; None if there is none."""
        st = self.lstat(path)
        if st is None:
            return None
        folder, name = self._place(path)
        try:
            return describe(b"/proc/self/fd/%d/%s" % (folder.fd, name), path.rpartition(b"/")[2], st)
        except FileNotFoundError:
            return None

    def listdir(self, path: bytes) -> list[bytes]:
        """Names of the entries of a folder, sorted."""
        folder = self._folders.at(path)
        # The kept descriptor is of no use for reading, and would share its position with other threads.
        fd = open_noatime(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder.fd)
        try:
            return sorted(os.fsencode(n) for n in os.listdir(fd))
        finally:
            os.close(fd)

    def make_directory(self, path: bytes) -> bool:
        """Make a folder, mode 0700.  False if one is there; anything else there is removed first.

        A folder that is there gets the rights that its owner needs to write into it (``apply`` sets the final ones).
        """
        if not path:
            make_usable(self._root.fd, b".")
            return False
        parent, name = self._entry(path)
        try:
            os.mkdir(name, 0o700, dir_fd=parent.fd)
            return True
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_mode):
                make_usable(parent.fd, name)
                return False
            os.unlink(name, dir_fd=parent.fd)
            os.mkdir(name, 0o700, dir_fd=parent.fd)
            return True

    def remove(self, path: bytes) -> None:
        """Remove an entry, a folder with all that is in it.  Links are never followed; nothing there is fine."""
        parent, name = self._entry(path)
        with suppress(FileNotFoundError):
            if remove_entry(parent.fd, name):
                self._folders.forget(path)

    def create_new(self, path: bytes, mode: int = 0o600) -> int:
        """A descriptor of a new file at its final name.  FileExistsError: something is there, use ``create``.

        A wider ``mode`` spares ``apply`` a call, and is right only for a node without xattrs: with an ACL the mode
        alone would let too many in.  Of it, group and others get what both may: until ``apply``, the group is another.
        """
        common = mode >> 3 & mode & 7
        folder, _, name = path.rpartition(b"/")
        if name in (b"", b".", b"..") or b"\0" in name or path[:1] == b"/":
            check_name(b"", path)
        parent = self._folders.at(folder)  # held: another thread may evict or replace it meanwhile
        return os.open(name, _NEW, mode & 0o700 | common << 3 | common, dir_fd=parent.fd)

    def create_whole(self, files: Sequence[WholeFile]) -> list[bool]:
        """Make new files with all that is known of them, at once.  False: it was not made, and nothing of it is left.

        That is so where something has its name, where it fails, and for what takes more than owner, mode and time;
        make it by itself then.
        """
        held, wanted, numbers = [], [], []
        made = [False] * len(files)
        for number, (path, data, node, users, groups) in enumerate(files):
            uid, gid = self._owners.uid(node.uid, users), self._owners.gid(node.gid, groups)
            if not is_simple(node, uid, gid):
                continue
            try:
                folder, name = self._entry(path)
            except OSError:
                continue
            held.append(folder)  # its descriptor is good as long as it is held
            wanted.append((folder.fd, name, data, node.mode, uid, gid, node.mtime_ns))
            numbers.append(number)
        for number, error in zip(numbers, write_files(wanted), strict=True):
            made[number] = not error
        return made

    def create(self, path: bytes) -> NewFile:
        """A new file, mode 0600, that takes the place of whatever is at ``path`` when it is committed."""
        folder, name = self._entry(path)
        return NewFile(folder, name, lambda: self._make_way(path))

    def open_existing(self, path: bytes, *, write: bool) -> int:
        """A descriptor of a regular file that is there.  ESTALE: it is something else, which is not opened."""
        folder, name = self._entry(path)
        fd = os.open(name, O_PATH | os.O_NOFOLLOW, dir_fd=folder.fd)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.ESTALE, "it is no regular file", path)
            # Through the descriptor, so that it is the very file that was looked at.
            return _open_own(b"/proc/self/fd/%d" % fd, (os.O_RDWR if write else os.O_RDONLY) | os.O_NONBLOCK)
        finally:
            os.close(fd)

    def read_plain(self, folder: bytes, files: Sequence[OwnedNode]) -> list[bytes | None]:
        """The bytes of files in one folder, in a few calls for all.

        ``files``: without attributes, holes and further names.  None: it is not as its node says in kind, size, owner,
        mode, attributes and time, or it cannot be told so fast; then look at it by itself.
        """
        contents: list[bytes | None] = [None] * len(files)
        try:
            held = self._folders.at(folder)
        except OSError:
            return contents
        for node, _, _ in files:
            check_name(node.name, node.name)
        entries = stat_entries(held.fd, b"/proc/self/fd/%d/" % held.fd, [node.name for node, _, _ in files])
        good: list[int] = []
        wanted: list[Expected] = []
        for i, ((node, users, groups), entry) in enumerate(zip(files, entries, strict=True)):
            if isinstance(entry, int) or entry[9:]:  # several names, or attributes
                continue
            name, kind, mode, uid, gid, mtime, ctime, inode, size = entry[:9]
            if (kind, mode, mtime, size) != (node.kind, node.mode, node.mtime_ns, node.size):
                continue
            if uid == self._owners.uid(node.uid, users) and gid == self._owners.gid(node.gid, groups):
                good.append(i)
                wanted.append((name, size, mtime, ctime, inode))
        for i, data in zip(good, read_files(held.fd, wanted), strict=True):
            contents[i] = data
        return contents

    def symlink(self, path: bytes, target: bytes) -> None:
        """Make a symlink in the place of whatever is there."""
        folder, name = self._entry(path)
        self._replacing(path, lambda: os.symlink(target, name, dir_fd=folder.fd))

    def link(self, existing: bytes, path: bytes) -> None:
        """Give the entry at ``existing`` one more name, in the place of whatever is there."""
        source, source_name = self._entry(existing)
        folder, name = self._entry(path)
        have = self.lstat(path)
        if have is not None:
            want = os.stat(source_name, dir_fd=source.fd, follow_symlinks=False)
            if (have.st_dev, have.st_ino) == (want.st_dev, want.st_ino):
                return

        def make() -> None:
            os.link(source_name, name, src_dir_fd=source.fd, dst_dir_fd=folder.fd, follow_symlinks=False)

        self._replacing(path, make)

    def special(self, path: bytes, node: Node) -> Shortfall | None:
        """Make a device, FIFO or socket in the place of whatever is there; a device that needs root is told."""
        folder, name = self._entry(path)
        kind = file_type(node.kind) | 0o600
        try:
            self._replacing(path, lambda: os.mknod(name, kind, node.device, dir_fd=folder.fd))
        except PermissionError as e:
            if e.errno != errno.EPERM or node.kind not in (NodeKind.CHARACTER, NodeKind.BLOCK):
                raise
            return Shortfall(path, "device", True, "it is a device, which only root can make")
        return None

    def apply(
        self,
        path: bytes,
        node: Node,
        users: Mapping[int, str] = _NO_NAMES,
        groups: Mapping[int, str] = _NO_NAMES,
        *,
        fd: int | None = None,
    ) -> list[Shortfall]:
        """Set owner, mode, attributes and time (in this order) to the node's, and say what could not be set.

        ``users`` and ``groups`` name the owners of the node's tree.  ``fd`` is the entry, if it is open.
        OSError: the entry is gone, or ESTALE: it is of another kind.
        """
        uid, gid = self._owners.uid(node.uid, users), self._owners.gid(node.gid, groups)
        if fd is not None:
            return apply_metadata(fd, path, node, os.fstat(fd), uid, gid)
        folder, name = self._place(path)
        pinned = os.open(name, O_PATH | os.O_NOFOLLOW, dir_fd=folder.fd)
        try:
            st = os.fstat(pinned)
            if stat.S_IFMT(st.st_mode) != file_type(node.kind):
                raise OSError(errno.ESTALE, "it is of another kind than it was made", path)
            # By this name every call reaches the pinned entry, also a symlink or device itself.
            return apply_metadata(b"/proc/self/fd/%d" % pinned, path, node, st, uid, gid)
        finally:
            os.close(pinned)

    def differs(
        self,
        path: bytes,
        node: Node,
        users: Mapping[int, str] = _NO_NAMES,
        groups: Mapping[int, str] = _NO_NAMES,
    ) -> frozenset[str]:
        """What would change: of missing, kind, size, target, device, owner, mode, xattrs and mtime.

        Contents are not read: a file of the right size and time may still differ.
        """
        have = self.node(path)
        if have is None:
            return frozenset({"missing"})
        return differences(have, node, self._owners.uid(node.uid, users), self._owners.gid(node.gid, groups))

    def _entry(self, path: bytes) -> tuple[Folder, bytes]:
        folder, name = split(path)
        return self._folders.at(folder), name

    def _place(self, path: bytes) -> tuple[Folder, bytes]:
        """As ``_entry``, and for the root too."""
        return self._entry(path) if path else (self._root, b".")

    def _replacing(self, path: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._make_way(path)
            make()

    def check_way(self, path: bytes) -> None:
        """ENOTEMPTY if nothing but a folder can stand here, since one does that is not to be cleared."""
        if self._clear:
            return
        try:
            there = self.listdir(path)
        except NotADirectoryError:
            return
        if there:
            raise OSError(errno.ENOTEMPTY, "a folder that is not empty has its name; --delete would remove it", path)

    def _make_way(self, path: bytes) -> None:
        self.check_way(path)
        self.remove(path)


def _is_empty(folder: bytes) -> bool:
    """False also if it cannot be told."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def _open_own(place: bytes, flags: int) -> int:
    """Open a file.  An owner who took the rights from themselves (mode 0) has them back for the moment of opening."""
    try:
        return os.open(place, flags)
    except PermissionError:
        st = os.stat(place)
        if st.st_uid != os.geteuid() or st.st_mode & 0o600 == 0o600:
            raise
        os.chmod(place, stat.S_IMODE(st.st_mode) | 0o600)
        try:
            return os.open(place, flags)
        finally:
            os.chmod(place, stat.S_IMODE(st.st_mode))
