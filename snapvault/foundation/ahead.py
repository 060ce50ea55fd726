"""Results of calls that wait, computed in threads a few ahead of who takes them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(call: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """``call`` of each item, in order; at most twice as many as threads are done or on their way."""
    rest = iter(items)
    first = list(islice(rest, 2 * threads))
    if len(first) < 2:
        yield from map(call, first)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="snapvault-fetch") as pool:
        coming = deque(pool.submit(call, item) for item in first)
        try:
            while coming:
                yield coming.popleft().result()
                coming.extend(pool.submit(call, item) for item in islice(rest, 1))
        finally:
            for future in coming:
                future.cancel()
