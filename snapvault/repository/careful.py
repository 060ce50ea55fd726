"""put-if-absent where the store's own is no promise, by what the probe wrote down about it."""

import threading
from collections.abc import Sequence

from snapvault.backend.checked import CheckedBackend
from snapvault.backend.protocol import Backend, Buffer, NotFound
from snapvault.format import names
from snapvault.format.local import decode_capabilities
from snapvault.foundation.errors import Damaged
from snapvault.repository.store import fetch


class CarefulBackend(CheckedBackend):
    """Looks first, unless a probe saw that this store refuses by itself.

    A store that takes the condition and ignores it (rclone's S3) would overwrite a commit slot.
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self._promised: bool | None = None  # not known yet

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        if self._is_promised():
            self.inner.put_if_absent(name, data)
        else:
            super().put_if_absent(name, data)

    def _is_promised(self) -> bool:
        """Whether there are records of what this store does, and all of them say that it keeps this promise."""
        with self._lock:
            if self._promised is None:
                found = [self._record(o.name, o.size) for o in list(self.inner.list(names.CAPABILITIES))]
                self._promised = bool(found) and all(found)
            return self._promised

    def _record(self, name: str, size: int) -> bool:
        try:
            return decode_capabilities(fetch(self.inner, name, size)).put_if_absent
        except (Damaged, NotFound):
            return False
