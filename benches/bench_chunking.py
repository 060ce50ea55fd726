"""Speed of the native module beside its twin, and what the chunker's one free choice, the skew, does.

python benches/bench_chunking.py            # speed
python benches/bench_chunking.py skew       # the table of docs/adr/0001, about a minute
"""

import os
import random
import statistics
import struct
import sys
import time
from collections.abc import Callable
from unittest import mock

from blake3 import blake3

from snapvault.chunking import Chunker, Chunking, twin
from snapvault.chunking.chunker import chunk_table
from snapvault.foundation import table as tables

KEY = bytes(32)
WIDTH = 52


def best_seconds(call: Callable[[], object], rounds: int) -> float:
    """The fastest of some runs: the others measure what else the machine was doing."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def scan_speed(sizes: Chunking, data: bytes, rounds: int) -> str:
    chunker = Chunker(sizes, KEY)
    seconds = best_seconds(lambda: chunker.cuts(data, final=True), rounds)
    mean = len(data) / len(chunker.cuts(data, final=True))
    return f"{len(data) / seconds / 1e6:9.0f} MB/s   mean chunk {mean / 1024:8.1f} KiB"


def speed() -> None:
    data = os.urandom(64 << 20)
    for sizes in (Chunking(), Chunking(64, 4 << 20, 8 << 20)):
        print(f"scan, native, {sizes.minimum}/{sizes.average}/{sizes.maximum}: {scan_speed(sizes, data, 20)}")
    with mock.patch("snapvault.chunking.chunker.native", None):
        print(f"scan, twin, default sizes:        {scan_speed(Chunking(), data[: 8 << 20], 3)}")
    for native, count in ((tables.native, 10_000_000), (tables.native, 1_000_000), (None, 1_000_000)):
        with mock.patch("snapvault.foundation.table.native", native):
            table_speed("native" if native else "twin", count)


def table_speed(name: str, count: int) -> None:
    table = bytearray(os.urandom(count * WIDTH))
    keys = b"".join(bytes(table[at : at + 32]) for at in range(0, len(table), 100 * WIDTH))
    begin = time.perf_counter()
    tables.sort_records(table, WIDTH)
    seconds = time.perf_counter() - begin
    batch = best_seconds(lambda: tables.find_records(table, WIDTH, keys), 3) / (len(keys) // 32)
    one = best_seconds(lambda: [tables.find_record(table, WIDTH, keys[at : at + 32]) for at in range(0, 32_000, 32)], 3)
    print(
        f"{count:,} records of {WIDTH} bytes, {name}: sort {seconds:.2f} s, "
        f"find {batch * 1e6:.2f} us in a batch, {one / 1000 * 1e6:.2f} us alone"
    )


def chunks_of(data: bytes, sizes: Chunking) -> dict[bytes, int]:
    ends = twin.cuts(memoryview(data), struct.unpack("<256Q", chunk_table(KEY)), sizes, final=True)
    pieces = (data[start:end] for start, end in zip([0, *ends], ends, strict=False))
    return {blake3(piece).digest(): len(piece) for piece in pieces}


def skews() -> None:
    """An image overwritten in 2 % of its bytes, in pieces of one sixteenth to four chunks, and one with insertions."""
    sizes, size, draw = Chunking(1024, 4096, 16384), 16 << 20, random.Random(1)
    image = draw.randbytes(size)
    edited, left = bytearray(image), size // 50
    while left > 0:
        length = draw.choice([256, 1024, 4096, 16384])
        at = draw.randrange(size - length)
        edited[at : at + length] = draw.randbytes(length)
        left -= length
    step = size // 1000
    inserted = b"".join(image[at : at + step] + draw.randbytes(draw.randrange(1, 100)) for at in range(0, size, step))
    for skew in range(4):
        with mock.patch.object(twin, "_SKEW", skew):
            before = chunks_of(image, sizes)
            after = [chunks_of(data, sizes) for data in (bytes(edited), inserted)]
        mean = size / len(before)
        spread = statistics.pstdev(before.values()) / mean
        new = [sum(length for key, length in chunks.items() if key not in before) / size for chunks in after]
        forced = sum(length == sizes.maximum for length in before.values()) / len(before)
        print(
            f"skew {skew}: mean {mean / sizes.average:.2f} x average, deviation {spread:.2f}, "
            f"cut by force {forced:.1%}; "
            f"new after overwrites {new[0]:.1%}, after insertions {new[1]:.1%}"
        )


if __name__ == "__main__":
    skews() if sys.argv[1:] == ["skew"] else speed()
