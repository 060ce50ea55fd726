"""What a disk may hold after the power went: a recorded run of the local backend, cut anywhere.

``Recorder`` stands in for ``os`` in the two modules that write repositories.  It passes every call on, and notes those
that change something in the order in which they happened.  ``State`` plays the notes back up to some point and knows
what of it the disk had promised to keep: contents up to the fsync of the file, names up to the fsync of the folder.
Of all the rest, ``lose`` keeps an arbitrary part; the unwritten sectors of a file read as zeros, or it ends early.
"""

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from snapvault.backend import local
from snapvault.platform import durable
from snapvault.testing.faults import Killed

SECTOR = 512  # bytes: what a disk writes as a whole


@dataclass(frozen=True)
class Note:
    """One thing that happened.  ``file`` numbers files in the order of their making, 0 for a folder."""

    what: str  # mkdir, create, link, rename, unlink (of a name); write, sync (of a file); syncdir; mark
    folder: str = ""
    name: str = ""
    file: int = 0
    data: bytes = b""
    old: str = ""  # rename: the name before
    mark: Any = None


class _Switch:
    """``os`` for the threads of others, and for all that a recorder does not note."""

    def __init__(self, recorder: "Recorder", others: Set[threading.Thread]) -> None:
        self._recorder, self._others = recorder, others

    def __getattr__(self, name: str) -> Any:
        return getattr(os if threading.current_thread() in self._others else self._recorder, name)


class Recorder:
    """``os`` for those two modules.  Only what happens below ``root`` is noted."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.notes: list[Note] = []
        self.kill_after: Callable[[Note], bool] | None = None  # the note after which the process is dead
        self._lock = threading.RLock()
        self._open: dict[int, str | int] = {}  # descriptor -> path of a folder, or number of a file
        self._names: dict[tuple[str, str], int] = {}
        self._files = 0
        self._dead = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @contextmanager
    def recording(self) -> Iterator["Recorder"]:
        """While this is open, the local backend works through this recorder, but for threads that are there now.

        Who was killed in a test before may still send signs of life, to its own repository.
        """
        strangers = set(threading.enumerate()) - {threading.current_thread()}
        durable.os = local.os = _Switch(self, strangers)  # type: ignore[assignment]
        try:
            yield self
        finally:
            durable.os = local.os = os

    def mark(self, mark: Any) -> None:
        """Note that something was acknowledged here."""
        self._note(Note("mark", mark=mark))

    def revive(self) -> None:
        """A new process, after a kill."""
        self._dead, self.kill_after = False, None
        self._open.clear()

    def _note(self, note: Note) -> None:
        self.notes.append(note)
        if self.kill_after is not None and self.kill_after(note):
            self._dead = True
            raise Killed

    @contextmanager
    def _call(self) -> Iterator[None]:
        with self._lock:  # so that the notes stand in the order of the calls
            if self._dead:
                raise Killed
            yield

    def _at(self, path: str, dir_fd: int | None) -> tuple[str, str]:
        if dir_fd is not None:
            return str(self._open.get(dir_fd, "")), path
        return os.path.split(os.path.abspath(path))

    def _inside(self, folder: str) -> bool:
        return (folder + "/").startswith(self.root + "/")

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        with self._call():
            fd = os.open(path, flags, mode, dir_fd=dir_fd)
            folder, name = self._at(os.fspath(path), dir_fd)
            if not self._inside(folder) and os.path.join(folder, name) != self.root:
                return fd
            if flags & os.O_DIRECTORY:
                self._open[fd] = os.path.join(folder, name)
            elif flags & os.O_CREAT:
                self._files += 1
                self._open[fd] = self._names[folder, name] = self._files
                self._note(Note("create", folder, name, self._files))
            return fd

    def close(self, fd: int) -> None:
        with self._lock:
            self._open.pop(fd, None)
            os.close(fd)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        with self._call():
            os.mkdir(path, mode)
            folder, name = self._at(os.fspath(path), None)
            if self._inside(folder):
                self._note(Note("mkdir", folder, name))

    def writev(self, fd: int, buffers: Sequence[Any]) -> int:
        with self._call():
            written = os.writev(fd, buffers)
            if fd in self._open:
                self._note(Note("write", file=int(self._open[fd]), data=b"".join(buffers)[:written]))
            return written

    def fsync(self, fd: int) -> None:
        with self._call():
            os.fsync(fd)
            at = self._open.get(fd)
            if isinstance(at, int):
                self._note(Note("sync", file=at))
            elif at is not None:
                self._note(Note("syncdir", at))

    def link(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
        with self._call():
            os.link(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
            folder, name = self._at(new, dst_dir_fd)
            self._names[folder, name] = file = self._names[self._at(old, src_dir_fd)]
            self._note(Note("link", folder, name, file))

    def replace(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        with self._call():
            os.replace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            folder, name = self._at(new, dst_dir_fd)
            self._names[folder, name] = file = self._names.pop((folder, old))
            self._note(Note("rename", folder, name, file, old=old))

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        with self._call():
            os.unlink(path, dir_fd=dir_fd)
            folder, name = self._at(os.fspath(path), dir_fd)
            if self._inside(folder):
                self._names.pop((folder, name), None)
                self._note(Note("unlink", folder, name))


@dataclass
class _File:
    synced: bytes = b""
    now: bytes = b""


@dataclass
class _Folder:
    synced: dict[str, int] = field(default_factory=dict)  # name -> file, or 0 for a folder
    pending: list[Note] = field(default_factory=list)


def _apply(entries: dict[str, int], note: Note) -> None:
    if note.what == "unlink":
        entries.pop(note.name, None)
        return
    entries.pop(note.old, None)
    entries[note.name] = note.file


class State:
    """The disk at one point of a recorded run."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: dict[int, _File] = {}
        self._folders: dict[str, _Folder] = {root: _Folder()}
        self.marks: list[Any] = []

    def play(self, note: Note) -> None:
        """Go on by one note."""
        if note.what == "mark":
            self.marks.append(note.mark)
        elif note.what == "write":
            self._files[note.file].now += note.data
        elif note.what == "sync":
            self._files[note.file].synced = self._files[note.file].now
        elif note.what == "syncdir":
            folder = self._folders[note.folder]
            for pending in folder.pending:
                _apply(folder.synced, pending)
            folder.pending.clear()
        else:
            if note.what == "mkdir":
                self._folders[os.path.join(note.folder, note.name)] = _Folder()
            elif note.what == "create":
                self._files[note.file] = _File()
            self._folders[note.folder].pending.append(note)

    @property
    def uncertain(self) -> int:
        """How many changes of names may be there or not."""
        return sum(len(f.pending) for f in self._folders.values())

    def lose(self, keep: Callable[[], bool], random: random.Random) -> dict[str, bytes]:
        """Files below the root, by path: of what was not synced, what ``keep`` says."""
        kept: dict[str, dict[str, int]] = {}
        for path, folder in self._folders.items():
            entries = dict(folder.synced)
            for note in folder.pending:
                if keep():
                    _apply(entries, note)
            kept[path] = entries
        contents: dict[int, bytes] = {}
        return dict(self._walk(self._root, kept, lambda n: contents.setdefault(n, self._content(n, keep, random))))

    def _walk(
        self, folder: str, kept: dict[str, dict[str, int]], content: Callable[[int], bytes]
    ) -> Iterator[tuple[str, bytes]]:
        for name, file in kept[folder].items():
            path = os.path.join(folder, name)
            if file:
                yield os.path.relpath(path, self._root), content(file)
            else:
                yield from self._walk(path, kept, content)

    def _content(self, number: int, keep: Callable[[], bool], random: random.Random) -> bytes:
        file = self._files[number]
        if file.now == file.synced:
            return file.now
        known = len(file.synced)
        sectors = [file.now[at : at + SECTOR] for at in range(known, len(file.now), SECTOR)]
        torn = [s if keep() else bytes(len(s)) for s in sectors]
        return file.synced + b"".join(torn[: random.randint(0, len(torn)) if keep() else len(torn)])


def objects(files: dict[str, bytes], repository: str) -> dict[str, bytes]:
    """Names and bodies of what a repository at this path shows."""
    prefix = repository + "/"
    named = {path.removeprefix(prefix): body for path, body in files.items() if path.startswith(prefix)}
    return {name: body for name, body in named.items() if durable.TEMP_PREFIX not in name}
