"""One tree of errors, ordered by what a caller would do about them.

Every error carries a stable ``code``, the CLI's ``exit_code``, whether a retry may help, a ``hint`` that names
the way out, and ``affected``: the names of objects or paths that the failure touches.
"""

from collections.abc import Iterable
from typing import Any


class SnapvaultError(Exception):
    """Base of all errors raised by snapvault."""

    code: str = "error"
    exit_code: int = 1
    retryable: bool = False
    hint: str = ""

    def __init__(self, message: str, *, hint: str | None = None, affected: Iterable[str] = ()) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint
        self.affected: tuple[str, ...] = tuple(affected)

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}; {self.hint}" if self.hint else message

    @property
    def message(self) -> str:
        """What happened, without the hint."""
        return super().__str__()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "exit_code": self.exit_code}


class InvalidInput(SnapvaultError):
    """The call or its configuration cannot be carried out as given."""

    code, exit_code = "invalid-input", 2


class RepositoryNotFound(SnapvaultError):
    """There is no repository at this place."""

    code, exit_code = "repository-not-found", 10
    hint = "check the URL, or create one with 'snapvault init'"


class KeyRejected(SnapvaultError):
    """The password or key opens nothing here."""

    code, exit_code = "key-rejected", 12
    hint = "check the password or key file; the recovery key also opens the repository"


class RoleRequired(SnapvaultError):
    """The key is good, but its role may not do this."""

    code, exit_code = "role-required", 13


class FormatTooNew(SnapvaultError):
    """The repository was written by a newer snapvault."""

    code, exit_code = "format-too-new", 1
    hint = "upgrade snapvault"


class Damaged(SnapvaultError):
    """Stored data is missing, altered or does not verify."""

    code, exit_code = "damaged", 20
    hint = "run 'snapvault check --read-data' to see what is affected"


class StoreFull(SnapvaultError):
    """The store has no space left."""

    code, exit_code = "store-full", 1
    hint = "free space in the store and run again; what was indexed is not uploaded twice"


class StoreDenied(SnapvaultError):
    """The store refused access."""

    code, exit_code = "store-denied", 1
    hint = "check credentials and permissions of the store"


class StoreUnavailable(SnapvaultError):
    """The store did not answer, or answered with a passing fault."""

    code, exit_code, retryable = "store-unavailable", 1, True
    hint = "check that the store is reachable and run again"


class SourceError(SnapvaultError):
    """The data to back up, or the place to restore to, could not be read or written."""

    code, exit_code = "source-error", 1


class Conflict(SnapvaultError):
    """Somebody else changed the same thing, or a session was revoked."""

    code, exit_code, retryable = "conflict", 1, True
    hint = "run again"


class Cancelled(SnapvaultError):
    """The caller asked to stop."""

    code, exit_code = "cancelled", 130
    hint = "run again; what was indexed is not uploaded twice"
