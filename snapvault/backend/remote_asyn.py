"""Coroutines of fsspec's asynchronous file systems, run from a thread that waits for them."""

from collections.abc import Awaitable
from typing import Any, TypeVar

from fsspec.asyn import sync

from snapvault.foundation.errors import StoreUnavailable

T = TypeVar("T")


def run(fs: Any, coroutine: Awaitable[T], place: str) -> T:
    """Its result.  fsspec's own ``sync`` gives None when it was cancelled, which is no success."""

    async def wrapped() -> tuple[T]:
        return (await coroutine,)

    result = sync(fs.loop, wrapped)
    if result is None:
        raise StoreUnavailable(f"a request to {place} was cancelled")
    return result[0]  # type: ignore[no-any-return]
