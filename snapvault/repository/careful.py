"""put-if-absent where the store's own is no promise, by what the probe wrote down about it."""

import threading
from collections.abc import Sequence

from snapvault.backend.checked import CheckedBackend
from snapvault.backend.protocol import Backend, Buffer
from snapvault.format import names
from snapvault.format.local import CapabilitiesRecord
from snapvault.repository.capabilities import recorded_capabilities


class CarefulBackend(CheckedBackend):
    """Looks first, unless a probe saw that this store refuses by itself.

    A store that takes the condition and ignores it (rclone's S3) would overwrite a commit slot.  What is named by its
    content may be overwritten: with the same bytes.
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._recorded: list[CapabilitiesRecord] | None = None  # not looked at yet

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        if names.content_digest(name) is not None or self._is_promised():
            self.inner.put_if_absent(name, data)
        else:
            super().put_if_absent(name, data)

    def recorded(self) -> list[CapabilitiesRecord]:
        """What probes wrote down before this was first asked."""
        with self._lock:
            if self._recorded is None:
                self._recorded = recorded_capabilities(self.inner)
            return self._recorded

    def _is_promised(self) -> bool:
        """Whether there are records of what this store does, and all of them say that it keeps this promise."""
        found = self.recorded()
        return bool(found) and all(record.put_if_absent for record in found)
