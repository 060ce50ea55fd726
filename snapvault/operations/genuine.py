"""What anybody can tell of an object: not only its digest, which everybody can make, but whether who signed it may."""

from blake3 import blake3

from snapvault.backend.protocol import Backend
from snapvault.format import names
from snapvault.repository.cache import Cache
from snapvault.repository.history import History
from snapvault.repository.keyring import Keyring
from snapvault.repository.keysets import verify_keyset
from snapvault.repository.sessions import Sessions
from snapvault.repository.store import Store
from snapvault.repository.trust import Untrusted

SIGNED = (names.KEYSETS, names.SESSIONS, names.SNAPSHOTS)  # objects of every site whose names do not tell their bytes


class Genuine:
    """Says it with public keys alone.  Thread-safe."""

    def __init__(self, ring: Keyring, backend: Backend) -> None:
        """``backend``: where headers of sessions are looked up."""
        store = Store(backend, Cache(None))
        self._ring, self._sessions = ring, Sessions(store, ring)
        self._history = History(store, ring, self._sessions)

    def check(self, name: str, data: bytes) -> None:
        """Untrusted or FormatError for what nobody entitled put under this name; key slots are signed by nobody."""
        ring = self._ring
        if name == names.CONFIG and blake3(data).digest() != ring.config_digest:
            raise Untrusted("it is not the config of this repository")
        if name.startswith(names.KEYSETS):
            verify_keyset(data, names.keyset_number(name), ring.config, ring.config_digest)
        elif name.startswith(names.SESSIONS):
            self._sessions.learn(names.session_id(name, names.SESSIONS), data)
        elif name.startswith(names.SNAPSHOTS):
            self._history.verify(names.session_id(name, names.SNAPSHOTS), data)
        elif name.startswith(names.TOMBSTONES):
            self._history.verify_tombstone(name, data)
