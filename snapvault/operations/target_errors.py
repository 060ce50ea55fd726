"""Errors of a folder that is restored into: what ends the whole restore, and what concerns one entry."""

import errno

from snapvault.foundation.errors import SourceError
from snapvault.operations.results import text_path

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # going on would fail for every file


def reason_of(path: bytes, error: OSError) -> str:
    """Why this entry cannot be restored or looked at.  SourceError: the target is full or failing."""
    reason = error.strerror or str(error)
    if error.errno in _FATAL:
        raise SourceError(
            f"the target failed at {text_path(path)}: {reason}",
            hint="mend or free the target and run the restore again; what is there already is not written twice",
            affected=[text_path(path)],
        ) from error
    return reason
