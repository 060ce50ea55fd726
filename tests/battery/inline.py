"""What the library does in threads, done at once in the caller's: every call then comes from one thread."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any


class Inline:
    """An executor that does everything at once."""

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def submit(self, call: Callable[..., Any], *args: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(call(*args))
        except Exception as e:  # noqa: BLE001  as an executor does
            future.set_exception(e)
        return future

    def map(self, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return iter([call(item) for item in items])

    def shutdown(self, **options: bool) -> None:
        """Nothing runs."""

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *exc: object) -> None:
        pass
