"""The backend together with the local cache of its immutable objects."""

from concurrent.futures import ThreadPoolExecutor

from snapvault.backend.protocol import Backend, NotFound
from snapvault.format.wire import check_frame
from snapvault.foundation.errors import Damaged
from snapvault.repository.cache import Cache

FETCHERS = 8  # requests at once for small objects


class Store:
    """Reads of small immutable objects go through the cache; everything else goes to the backend."""

    def __init__(self, backend: Backend, cache: Cache) -> None:
        self.backend, self.cache = backend, cache

    def immutable(self, name: str) -> bytes:
        """A framed object that never changes under its name; from the cache if it verifies there."""
        kept = self.cache.get("objects/" + name)
        if kept is not None:
            try:
                check_frame(kept)
                return kept
            except Damaged:
                self.cache.remove("objects/" + name)
        return self.fresh(name)

    def fresh(self, name: str) -> bytes:
        """The same, as the store has it now."""
        data = self.backend.get(name)
        try:
            check_frame(data)
        except Damaged as e:
            raise type(e)(f"{name}: {e.message}", affected=[name]) from e
        self.cache.put("objects/" + name, data)
        return data

    def immutables(self, wanted: list[str]) -> list[bytes | Damaged]:
        """Several of them at once; what is damaged or missing stands in its place as the error."""

        def one(name: str) -> bytes | Damaged:
            try:
                return self.immutable(name)
            except Damaged as e:
                return e
            except NotFound:
                return Damaged(f"{name} is gone", affected=[name])

        if len(wanted) < 2:
            return [one(n) for n in wanted]
        with ThreadPoolExecutor(FETCHERS, thread_name_prefix="snapvault-fetch") as pool:
            return list(pool.map(one, wanted))
