"""What the benches of the parts share: bytes to work on, and figures in units that mean something.

    python -m pytest benches                    # a minute or two; the index of 10^7 blobs: -m "long or not long"
    python -m pytest benches -k segment --benchmark-columns=min,median --benchmark-json=parts.json

Run them on a quiet machine.  A speed is that of the fastest round: the others measure what else the machine was doing.
"""

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

Call = Callable[[], object]


def _text(size: int) -> bytes:
    draw = random.Random("text")
    words = ["".join(draw.choices("etaoinshrdlucm", k=draw.randrange(2, 11))) for _ in range(3000)]
    return " ".join(draw.choices(words, weights=range(3000, 0, -1), k=size // 3)).encode()[:size]


@pytest.fixture(scope="session")
def text() -> bytes:
    """8 MiB that zstd 3 makes about two and a half times smaller."""
    return _text(8 << 20)


@pytest.fixture(scope="session")
def noise() -> bytes:
    """32 MiB that no compressor makes smaller."""
    return random.Random("noise").randbytes(32 << 20)


class Meter:
    """Measures a call, and says how many units a second that is."""

    def __init__(self, benchmark: BenchmarkFixture) -> None:
        self._benchmark: Any = benchmark  # its methods have no types

    def rate(self, call: Callable[..., object], amount: float, unit: str, **options: Any) -> None:
        """``amount`` of ``unit`` are done by one call; ``options`` as for ``benchmark.pedantic``."""
        if options:
            self._benchmark.pedantic(call, **options)
        else:
            self._benchmark(call)
        self._note(amount, unit)

    def _note(self, amount: float, unit: str) -> None:
        stats = self._benchmark.stats
        if stats is not None:  # it is None under --benchmark-disable
            self._benchmark.extra_info[f"{unit}/s"] = round(amount / stats.stats.min, 3)

    def beside(self, call: Call, bare: Call, size: int, rounds: int = 20) -> None:
        """``call`` and what the bare primitives need for the same ``size`` bytes, each in turn."""
        best_call = best_bare = float("inf")
        for _ in range(rounds):
            best_bare = min(best_bare, _seconds(bare))
            best_call = min(best_call, _seconds(call))
        self._benchmark.pedantic(call, rounds=rounds, iterations=1)
        self._benchmark.extra_info["MB/s"] = round(size / best_call / 1e6, 1)
        self._benchmark.extra_info["bare MB/s"] = round(size / best_bare / 1e6, 1)
        self._benchmark.extra_info["% above bare"] = round((best_call / best_bare - 1) * 100, 1)


def _seconds(call: Call) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@pytest.fixture
def meter(benchmark: BenchmarkFixture) -> Meter:
    return Meter(benchmark)


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """The figures that the plugin's own table leaves out."""
    session = getattr(config, "_benchmarksession", None)
    told = [b for b in session.benchmarks if b.extra_info] if session is not None else []
    if told:
        terminalreporter.section("rates")
    for bench in told:
        figures = "   ".join(f"{value:12,.2f} {unit}" for unit, value in bench.extra_info.items())
        terminalreporter.write_line(f"{bench.name:48}{figures}")
