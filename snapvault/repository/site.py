"""A place that holds a copy of a repository, or shall hold one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from snapvault.backend.factory import open_backend
from snapvault.backend.protocol import Backend
from snapvault.backend.retry import RetryPolicy


@dataclass(frozen=True, slots=True)
class Site:
    """``url``: as of a repository; ``storage_options``: what fsspec needs there."""

    url: str
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)

    def open(self, *, create: bool = False, patience: RetryPolicy | None = None) -> Backend:
        """Its store; the errors of the backend protocol.

        ``create``: make the folder or bucket if it is missing.  ``patience``: how long calls are repeated.
        """
        return open_backend(self.url, self.storage_options, create=create, patience=patience)
