"""Calls that wait, made in threads: a few ahead of who takes their results, or beside something else."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")


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


def both(first: Callable[[], R], second: Callable[[], S]) -> tuple[R, S]:
    """The results of two calls that wait, made side by side; if both fail, what the first one raises."""
    with ThreadPoolExecutor(1, thread_name_prefix="snapvault-fetch") as pool:
        other = pool.submit(second)
        return first(), other.result()


@contextmanager
def beside(call: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """``call`` in a thread, while the body of the ``with`` goes on; raises what it raised, unless the body did.

    The end of the body waits for it.  What is given raises before that, if the call has failed by then.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="snapvault-beside") as pool:
        other = pool.submit(call)

        def check() -> None:
            if other.done():
                other.result()

        yield check
        other.result()
