"""Something else happens between two calls of an operation."""

from collections.abc import Callable, Iterator, Sequence

from snapvault.backend.protocol import Backend, Buffer, ObjectInfo
from snapvault.backend.wrapper import Wrapper


class Between(Wrapper):
    """Does ``act`` once, before call number ``at``."""

    def __init__(self, inner: Backend, at: int, act: Callable[[], object]) -> None:
        super().__init__(inner)
        self.count, self._at, self._act = 0, at, act

    def _step(self) -> None:
        self.count += 1
        if self.count == self._at:
            self._act()

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        self._step()
        self.inner.put(name, data)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        self._step()
        self.inner.put_if_absent(name, data)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self._step()
        return self.inner.get(name, start, length)

    def head(self, name: str) -> ObjectInfo:
        self._step()
        return self.inner.head(name)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self._step()
        return self.inner.list(prefix)

    def delete(self, name: str) -> None:
        self._step()
        self.inner.delete(name)
