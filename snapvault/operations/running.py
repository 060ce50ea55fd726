"""The GCs of this client that run now, so that the next run can tell that one of them died (docs/concurrency.md).

Each holds a lock on a file of its own in the state directory.  The kernel lets it go when the process ends, however it
does, and not before: not while it is stopped.  What is lost of this costs time; never data.
"""

import fcntl
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapvault.backend.wrapper import discard
from snapvault.format import names
from snapvault.format.session import GC
from snapvault.foundation.errors import Damaged
from snapvault.foundation.ids import SessionId
from snapvault.repository.repository import Vault
from snapvault.repository.session import revoke
from snapvault.repository.statefile import StateFile

PREFIX = "running-"


def this_host() -> dict[str, str]:
    """What tells this machine from others that share the state directory with it."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = ""
        with suppress(OSError):  # containers often have none
            machine = Path("/etc/machine-id").read_text().strip()
        return {"boot": boot, "machine": f"{os.uname().nodename} {machine}"}
    return {"boot": "", "machine": os.uname().nodename}


def is_here(host: object) -> bool:
    """Whether it is this machine, or a container on it: a lock that can be taken is one that nobody holds."""
    if not isinstance(host, dict):
        return False
    return any(value and host.get(what) == value for what, value in this_host().items())


class Mark:
    """A file that names a GC, locked by this process."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd, self._path = fd, path

    @classmethod
    def lock(cls, path: Path) -> "Mark | None":
        """Lock a file that is there.  BlockingIOError: somebody holds it; None: it cannot be had."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        mark = cls(fd, path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if mark._is_there():
                return mark
        except BlockingIOError:
            mark.release()
            raise
        except OSError:  # a file system without locks
            pass
        mark.release()
        return None

    @classmethod
    def make(cls, path: Path, content: dict[str, Any]) -> "Mark | None":
        """A new file, which nobody ever sees unlocked; None if that cannot be."""
        temporary = path.with_name(f".{PREFIX}{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        mark = cls(fd, path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, json.dumps(content).encode())
            os.fsync(fd)
            temporary.rename(path)
        except OSError:
            mark.release()
            temporary.unlink(missing_ok=True)
            return None
        return mark

    def read(self, url: str) -> dict[str, Any]:
        """What it says for this URL; empty if nothing that can be read."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            found = json.loads(os.pread(self._fd, os.fstat(self._fd).st_size, 0)).get(url)
            return found if isinstance(found, dict) else {}
        return {}

    def rename(self, path: Path) -> bool:
        """Give it another name, under the same lock: whether that worked."""
        try:
            self._path.rename(path)
        except OSError:
            return False
        self._path = path
        return self._is_there()

    def _is_there(self) -> bool:
        """Whether the name still stands for what is locked."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(self._path))
        except OSError:
            return False

    def drop(self) -> None:
        """The GC has ended, or is remembered elsewhere.  Idempotent."""
        if self._fd >= 0:
            with suppress(OSError):
                if self._is_there():
                    self._path.unlink()
        self.release()

    def release(self) -> None:
        """Nobody works on it any more; if it was not dropped, the next run ends it.  Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@dataclass(frozen=True, slots=True)
class Found:
    """How many had died and were ended, and how many are alive."""

    ended: int = 0
    alive: int = 0


class Running:
    """The GCs of one client in one repository; without a state directory nothing is known of them."""

    def __init__(self, vault: Vault) -> None:
        self._vault, self._folder, self._url = vault, vault.pins.folder, vault.address

    def begin(self, sid: SessionId) -> Mark | None:
        """Before it is announced; None: nothing is remembered."""
        if self._folder is None:
            return None
        return Mark.make(self._path(self._folder, sid), {self._url: {"sid": sid, "host": this_host()}})

    def take(self, file: StateFile) -> tuple[dict[str, Any], Mark | None]:
        """What a file says of a GC that waits, and its mark, if it can have one.

        Of several processes that take it, one gets it.  At every moment there is a file that names the GC.
        """
        if self._folder is None or file.path is None:
            return {}, None
        try:
            mark = Mark.lock(file.path)
        except BlockingIOError:
            return {}, None
        if mark is not None:
            found = mark.read(self._url)
            sid = _gc_id(found)
            if sid is not None and is_here(found.get("host")):
                if mark.rename(self._path(self._folder, sid)):
                    return found, mark
                mark.release()
                return {}, None
            mark.release()
        return file.take(), None

    def end_dead(self, *, safe: bool) -> Found:
        """End those whose process is gone; errors of the store.

        They can be told by their locks, which can be taken.  To revoke one is never wrong: it fills the slot, so that
        the GC deletes nothing (G7).  ``safe``: the store has put-if-absent; else nothing is revoked, since what the
        process had sent last may arrive yet, and take the place of that.
        """
        ended = alive = 0
        for path in sorted(self._folder.glob(f"{PREFIX}{names.GC_PREFIX}*.json")) if self._folder else ():
            try:
                mark = Mark.lock(path)
            except BlockingIOError:
                alive += 1
                continue
            if mark is None:
                continue
            try:
                found = mark.read(self._url)
                sid = _gc_id(found)
                if sid is None or not is_here(found.get("host")):
                    continue
                done = self._end(sid, safe=safe)
                if done is not None:
                    ended += done
                    mark.drop()
            finally:
                mark.release()
        return Found(ended, alive)

    def _end(self, sid: SessionId, *, safe: bool) -> bool | None:
        """Whether there was something to end; None: it is another key's, or not to be ended here."""
        vault = self._vault
        if any(True for _ in vault.backend.list(names.snapshot(sid))):
            return False
        if not any(True for _ in vault.backend.list(names.session(sid))):  # it was killed before it announced itself
            return False
        try:
            session, author = vault.sessions.header(sid)
        except Damaged:  # a matter of the fence
            return False
        if author.holder != vault.ring.signing.id or not safe:
            return None
        if session.head.purpose != GC:
            return False
        if revoke(vault.store, vault.ring, sid):  # else what it did counts, and at a copy its record with it
            discard(vault.backend, names.GC + sid)
        return True

    def _path(self, folder: Path, sid: SessionId) -> Path:
        return folder / f"{PREFIX}{sid}.json"


def _gc_id(found: dict[str, Any]) -> SessionId | None:
    sid = SessionId(str(found.get("sid", "")))
    return sid if names.is_session_id(sid) and sid.startswith(names.GC_PREFIX) else None
