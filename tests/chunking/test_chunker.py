"""The chunker: both implementations against golden vectors, against the definition, and against each other."""

import importlib.util
import json
import logging
import mmap
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from snapvault.chunking import MAXIMUM_CHUNK, NATIVE, Chunker, Chunking, chunker, twin
from snapvault.chunking.chunker import chunk_table
from snapvault.foundation import native as native_module
from snapvault.foundation.errors import InvalidInput

HERE = Path(__file__).parent
VECTORS = json.loads((HERE / "vectors.json").read_text())
KEY = bytes(range(32))
SMALL = Chunking(64, 256, 1024)
Cuts = Callable[..., list[int]]

_spec = importlib.util.spec_from_file_location("make_vectors", HERE / "make_vectors.py")
assert _spec and _spec.loader
make_vectors = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_vectors)


def noise(size: int, seed: bytes = b"noise") -> bytes:
    return blake3(seed).digest(length=size)


def twin_cuts(data: bytes, sizes: Chunking, key: bytes, *, final: bool) -> list[int]:
    return twin.cuts(memoryview(data), struct.unpack("<256Q", chunk_table(key)), sizes, final=final)


def native_cuts(data: bytes, sizes: Chunking, key: bytes, *, final: bool) -> list[int]:
    assert NATIVE, "the tests need the native module: install with a compiler"
    return Chunker(sizes, key).cuts(data, final=final)


def both_cuts(data: bytes, sizes: Chunking = SMALL, key: bytes = KEY, *, final: bool = True) -> list[int]:
    ends = native_cuts(data, sizes, key, final=final)
    assert ends == twin_cuts(data, sizes, key, final=final)
    return ends


def fingerprint(data: bytes, at: int, table: tuple[int, ...]) -> int:
    return sum(table[byte] << (63 - i) for i, byte in enumerate(data[at - 64 : at])) % 2**64


def defined_cuts(data: bytes, sizes: Chunking, key: bytes) -> list[int]:
    """The cuts by the definition of docs/format/chunking.md, each fingerprint from its 64 bytes alone."""
    table = struct.unpack("<256Q", chunk_table(key))
    bits = sizes.average.bit_length() - 1
    ends, start = [], 0
    while start < len(data):
        end = min(start + sizes.maximum, len(data))
        for at in range(start + sizes.minimum, end):
            zeros = bits + 2 if at - start < sizes.average else bits - 2
            if fingerprint(data, at, table) >> (64 - zeros) == 0:
                end = at
                break
        ends.append(end)
        start = end
    return ends


@st.composite
def some_sizes(draw: st.DrawFn) -> Chunking:
    average = 1 << draw(st.integers(7, 12))
    minimum = draw(st.integers(64, average - 1))
    return Chunking(minimum, average, draw(st.integers(average + 1, 5 * average)))


@st.composite
def some_data(draw: st.DrawFn) -> bytes:
    """Noise, runs and short alphabets, in pieces, so that strict and loose cuts, forced ones and repeats all occur."""
    piece = st.one_of(
        st.builds(lambda n, s: noise(n, s), st.integers(0, 6000), st.binary(max_size=4)),
        st.builds(lambda b, n: bytes([b]) * n, st.integers(0, 255), st.integers(0, 3000)),
        st.builds(lambda unit, n: unit * n, st.binary(min_size=1, max_size=40), st.integers(0, 60)),
    )
    return b"".join(draw(st.lists(piece, max_size=4)))


keys = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("cuts", [native_cuts, twin_cuts])
def test_golden_vectors(cuts: Cuts) -> None:
    assert len(VECTORS) > 60
    for vector in VECTORS:
        data, sizes = make_vectors.recipe_input(vector["input"]), Chunking(*vector["sizes"])
        key = bytes.fromhex(vector["key"])
        assert cuts(data, sizes, key, final=True) == vector["ends"], vector["input"]
        assert cuts(data, sizes, key, final=False) == vector["ends"][: vector["certain"]], vector["input"]


@pytest.mark.parametrize("sizes", [SMALL, Chunking(64, 128, 200), Chunking(100, 512, 3333)])
def test_the_cuts_are_those_of_the_definition(sizes: Chunking) -> None:
    for data in (noise(12_000), b"abc" * 2000, noise(700) * 5, bytes(3000) + noise(3000)):
        assert both_cuts(data, sizes) == defined_cuts(data, sizes, KEY)


@settings(max_examples=300, deadline=None)
@given(some_data(), some_sizes(), keys)
def test_twins_agree_and_chunks_keep_the_bounds(data: bytes, sizes: Chunking, key: bytes) -> None:
    ends = both_cuts(data, sizes, key)
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert b"".join(data[end - length : end] for length, end in zip(lengths, ends, strict=True)) == data
    assert all(sizes.minimum <= length <= sizes.maximum for length in lengths[:-1])
    assert all(0 < length <= sizes.maximum for length in lengths[-1:])


@settings(max_examples=200, deadline=None)
@given(some_data(), some_sizes(), keys, st.lists(st.integers(0, 4000), max_size=12))
def test_cuts_do_not_depend_on_how_the_stream_is_split(
    data: bytes, sizes: Chunking, key: bytes, pieces: list[int]
) -> None:
    found, carried, origin, at = [], b"", 0, 0
    for piece in pieces:
        carried += data[at : at + piece]
        at += piece
        ends = both_cuts(carried, sizes, key, final=False)
        found += [origin + end for end in ends]
        rest = ends[-1] if ends else 0
        origin, carried = origin + rest, carried[rest:]
        assert len(carried) < sizes.maximum, "an end that was certain was held back"
    found += [origin + end for end in both_cuts(carried + data[at:], sizes, key)]
    assert found == both_cuts(data, sizes, key)


@pytest.mark.parametrize("edge", ["minimum", "average", "maximum"])
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_edge_lengths(edge: str, off: int) -> None:
    """Of an input with no cut in it: zeros, under a key whose table does not cut them."""
    size = getattr(SMALL, edge) + off
    expected = [1024, 1025] if size == 1025 else [size]
    assert both_cuts(bytes(size)) == expected
    assert both_cuts(bytes(size), final=False) == ([1024] if size >= 1024 else [])


def test_a_cut_at_the_very_end_of_the_data_is_certain() -> None:
    data = noise(5000)
    for end in both_cuts(data)[:-1]:
        assert both_cuts(data[:end], final=False)[-1] == end
        assert end not in both_cuts(data[: end - 1], final=False)


def test_content_decides_so_an_insertion_moves_few_cuts() -> None:
    data = noise(400_000)
    before, after = both_cuts(data), both_cuts(b"!" + data)
    kept = {end + 1 for end in before} & set(after)
    assert len(kept) > 0.95 * len(before)


def test_the_key_decides_too() -> None:
    data = noise(50_000)
    common = set(both_cuts(data, key=bytes(32))) & set(both_cuts(data, key=b"k" * 32))
    assert len(common) < 10


def test_nothing_gives_no_cuts() -> None:
    assert both_cuts(b"") == both_cuts(b"", final=False) == []


def test_defaults_and_their_mean() -> None:
    sizes = Chunking()
    assert (sizes.minimum, sizes.average, sizes.maximum) == (16 << 10, 64 << 10, 256 << 10)
    data = noise(32 << 20)
    mean = len(data) / len(native_cuts(data, sizes, KEY, final=True))
    assert 0.95 < mean / (sizes.average * 1.14) < 1.05


@pytest.mark.parametrize(
    "sizes",
    [
        (63, 256, 1024),
        (256, 256, 1024),
        (64, 1024, 1024),
        (64, 1024, 512),
        (64, 300, 1024),
        (64, 256, MAXIMUM_CHUNK + 1),
    ],
)
def test_impossible_sizes_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidInput):
        Chunking(*sizes)


def test_the_widest_sizes_are_accepted() -> None:
    data = noise(300_000)
    assert both_cuts(data, Chunking(64, MAXIMUM_CHUNK // 2, MAXIMUM_CHUNK)) == [300_000]
    assert len(both_cuts(data[:30_000], Chunking(64, 128, 129))) > 200


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(InvalidInput, match="32"):
        Chunker(SMALL, bytes(size))


def test_the_key_is_not_shown() -> None:
    assert KEY.hex() not in repr(Chunker(SMALL, KEY))


def test_every_kind_of_buffer() -> None:
    data = noise(9000)
    expected = both_cuts(data)
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = data
        words = memoryview(bytearray(data)).cast("I")
        for buffer in (bytearray(data), memoryview(data), words, mapped):
            assert Chunker(SMALL, KEY).cuts(buffer, final=True) == expected


@pytest.fixture
def twin_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(chunker, "native", None)
    native_module.warn_about_twin.cache_clear()
    yield
    native_module.warn_about_twin.cache_clear()


@pytest.mark.usefixtures("twin_only")
def test_without_the_native_module_one_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    data = noise(9000)
    with caplog.at_level(logging.WARNING, logger="snapvault"):
        for buffer in (data, memoryview(bytearray(data)).cast("I")):
            assert Chunker(SMALL, KEY).cuts(buffer, final=True) == twin_cuts(data, SMALL, KEY, final=True)
    assert [record.name for record in caplog.records] == ["snapvault"]
    assert "native module is missing" in caplog.text


def test_the_gil_is_released_while_scanning() -> None:
    """No switch can be forced during the call: this thread runs before it is over only if the GIL is given up."""
    scanning = Chunker(Chunking(64, MAXIMUM_CHUNK // 2, MAXIMUM_CHUNK), KEY)
    interval = sys.getswitchinterval()
    # Private and never written to, so it costs no memory.
    with mmap.mmap(-1, 1 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as zeros:
        done: list[int] = []
        worker = threading.Thread(target=lambda: done.append(len(scanning.cuts(zeros, final=True))))
        sys.setswitchinterval(1000)
        try:
            worker.start()
            ran_meanwhile = not done
            worker.join()
        finally:
            sys.setswitchinterval(interval)
    assert ran_meanwhile and done == [128]


def test_the_vector_of_the_format_page() -> None:
    page = (HERE.parent.parent / "docs" / "format" / "chunking.md").read_text()
    vector = json.loads(page.split("```json")[1].split("```")[0])
    key, data = bytes.fromhex(vector["key"]), blake3(b"chunk vector 3").digest(length=4096) + bytes(5000)
    assert blake3(data).hexdigest() == vector["data_blake3"]
    assert blake3(chunk_table(key)).hexdigest() == vector["table_blake3"]
    table = struct.unpack("<256Q", chunk_table(key))
    assert {at: f"{table[int(at)]:016x}" for at in vector["table"]} == vector["table"]
    ends = both_cuts(data, Chunking(vector["minimum"], vector["average"], vector["maximum"]), key)
    assert ends == vector["ends"]
    assert [f"{fingerprint(data, end, table):016x}" for end in ends] == vector["fingerprints"]
