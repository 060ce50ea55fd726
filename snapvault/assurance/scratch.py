"""The scratch place of a drill: a folder of its own that is gone when the drill ends, however it ends."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from snapvault.foundation.errors import InvalidInput
from snapvault.platform.disk import free, spread
from snapvault.target.removal import remove_entry

PREFIX = "snapvault-drill-"
LOCK = "lock"
FREE_SHARE = 0.9  # of the free space, that a drill without a quota may use


class Scratch:
    """A folder below ``base``, held by a lock that the system drops when this process ends.

    What drills left there that were killed is removed first.
    """

    def __init__(self, base: Path, quota: int | None) -> None:
        """InvalidInput if nothing can be made there."""
        try:
            base.mkdir(parents=True, exist_ok=True)
            with _alone(base):  # one that is not locked yet looks as if its drill were killed
                _remove_stale(base)
                self.top = base.resolve() / f"{PREFIX}{secrets.token_hex(8)}"
                # Others may pass through, and see nothing: a database server runs as somebody else.
                self.top.mkdir()
                self.top.chmod(0o711)
                spread(self.top)
                self._lock = os.open(self.top / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._lock, fcntl.LOCK_EX)
            left = free(base)
        except OSError as e:
            raise InvalidInput(f"{base} cannot be used as a scratch place: {e.strerror}", affected=[str(base)]) from e
        self.used = 0  # bytes, by what was restored; holes count
        self.quota = int(left * FREE_SHARE) if quota is None else min(quota, left)

    def folder(self, name: str, mode: int = 0o700) -> Path:
        """A new folder in it, whose name begins so: what it is called decides where on the disk it lies."""
        path = self.top / f"{name}-{secrets.token_hex(4)}"
        path.mkdir(mode=mode)
        path.chmod(mode)
        return path

    def close(self) -> None:
        """Remove all of it."""
        remove_path(self.top)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """While nobody else makes or removes scratch places below ``base``."""
    lock = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _remove_stale(base: Path) -> None:
    for entry in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or just being removed
            lock = os.open(entry / LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_path(entry)
            finally:
                os.close(lock)


def remove_path(path: Path) -> None:
    """Remove a file or a whole folder, if it is there; follows no links in it."""
    at = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            remove_entry(at, os.fsencode(path.name))
    finally:
        os.close(at)
