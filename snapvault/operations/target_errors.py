"""Errors of a place that is restored into: what ends the whole restore, and what concerns one entry."""

import errno

from snapvault.foundation.errors import SourceError
from snapvault.operations.results import text_path

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_FATAL = FULL | {errno.EIO}


def raise_if_fatal(path: bytes, error: OSError, *, fatal: bool | None = None, target: str = "the target") -> str:
    """Why this entry cannot be restored or looked at; SourceError if going on would fail for every entry.

    ``fatal``: whether it would, where the number of the error does not tell.
    """
    reason = error.strerror or str(error)
    if error.errno in _FATAL if fatal is None else fatal:
        shown = text_path(path or b"/")
        raise SourceError(
            f"{target} failed at {shown}: {reason}",
            hint="mend or free the target and run the restore again; what is there already is not written twice",
            affected=[shown],
        ) from error
    return reason
