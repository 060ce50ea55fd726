"""What this client alone knows of a repository: small JSON files in the state directory, one value for each URL.

Kept apart from the disposable cache.  What is lost of them costs a protection, or time; never data.
"""

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any


class StateFile:
    """One file, and the value for one URL in it; ``folder`` None: nothing is remembered."""

    def __init__(self, folder: Path | None, name: str, url: str, *, suffix: str = ".json") -> None:
        self._path = None if folder is None else folder / f"{name}{suffix}"
        self._url = url

    @property
    def path(self) -> Path | None:
        """The file."""
        return self._path

    @property
    def folder(self) -> Path | None:
        """Where it is kept."""
        return None if self._path is None else self._path.parent

    def _read(self) -> dict[str, Any]:
        if self._path is not None:
            with suppress(OSError, ValueError, TypeError):
                return dict(json.loads(self._path.read_text()))
        return {}

    def read(self) -> dict[str, Any]:
        """The value for this URL; empty if there is none, or none that can be read."""
        found = self._read().get(self._url, {})
        return found if isinstance(found, dict) else {}

    def take(self) -> dict[str, Any]:
        """The value, which nobody finds after that: of several processes that take it, one gets it."""
        if self._path is None:
            return {}
        taken = self._path.with_name(f".{self._path.stem}-{secrets.token_hex(8)}")
        try:
            self._path.rename(taken)
        except OSError:
            return {}
        found = StateFile(taken.parent, taken.name, self._url, suffix="").read()
        taken.unlink(missing_ok=True)
        return found

    def write(self, value: dict[str, Any]) -> bool:
        """Put another value in its place, atomically and durably: whether that worked."""
        if self._path is None:
            return False
        everything = self._read()
        if everything.get(self._url) == value:
            return True
        everything[self._url] = value
        temporary = self._path.with_name(f".{self._path.stem}-{secrets.token_hex(8)}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with temporary.open("x") as f:
                f.write(json.dumps(everything))
                f.flush()
                os.fsync(f.fileno())
            temporary.replace(self._path)
        except OSError:
            return False
        return True
