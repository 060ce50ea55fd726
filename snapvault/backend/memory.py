"""Objects in a dict, for tests and for things that need not outlive the process."""

import threading
from collections.abc import Iterator, Sequence

from snapvault.backend.names import check_name, check_prefix, check_range, end_of
from snapvault.backend.protocol import Buffer, Exists, NotFound, ObjectInfo


class _Store:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.objects: dict[str, bytes] = {}


_shared: dict[str, _Store] = {}
_shared_lock = threading.Lock()


class MemoryBackend:
    """Two backends of the same ``name`` share their content within one process; without a name it is private."""

    def __init__(self, name: str | None = None) -> None:
        self._name = name
        if name is None:
            self._store = _Store()
        else:
            with _shared_lock:
                self._store = _shared.setdefault(name, _Store())

    @property
    def url(self) -> str:
        return f"memory://{self._name or ''}"

    def __repr__(self) -> str:
        return f"MemoryBackend({self.url!r})"

    @property
    def objects(self) -> dict[str, bytes]:
        """The content itself, for tests that look at or damage what is stored."""
        return self._store.objects

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        body = b"".join(data)
        with self._store.lock:
            self._store.objects[check_name(name)] = body

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        body = b"".join(data)
        with self._store.lock:
            if check_name(name) in self._store.objects:
                raise Exists(f"{name} is already in {self.url}", affected=[name])
            self._store.objects[name] = body

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(name, start, length)
        body = self._body(name)
        return body[start : end_of(name, len(body), start, length)]

    def head(self, name: str) -> ObjectInfo:
        return ObjectInfo(name, len(self._body(name)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._store.lock:
            found = [(name, len(body)) for name, body in self._store.objects.items() if name.startswith(prefix)]
        return (ObjectInfo(name, size) for name, size in sorted(found))

    def delete(self, name: str) -> None:
        with self._store.lock:
            self._store.objects.pop(check_name(name), None)

    def close(self) -> None:
        """Nothing is held open; named content stays for the next one."""

    def _body(self, name: str) -> bytes:
        body = self._store.objects.get(check_name(name))
        if body is None:
            raise NotFound(f"there is no {name} in {self.url}", affected=[name])
        return body
