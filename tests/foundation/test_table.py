"""Tables of fixed-width records: native and twin against sorted() and a dict."""

import random
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapvault.foundation import native as native_module
from snapvault.foundation import table as table_module
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.table import NATIVE, find_record, find_records, sort_records

WIDTH = 52


@pytest.fixture(params=["native", "twin"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "native":
        assert NATIVE, "the tests need the native module: install with a compiler"
    else:
        monkeypatch.setattr(table_module, "native", None)
    yield request.param
    native_module.warn_about_twin.cache_clear()


def split(table: bytes, width: int) -> list[bytes]:
    return [bytes(table[at : at + width]) for at in range(0, len(table), width)]


def unpack(found: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(found) // 8}q", found))


def expected_places(rows: list[bytes], ids: list[bytes]) -> list[int]:
    first: dict[bytes, int] = {}
    for at, row in enumerate(rows):
        first.setdefault(row[:32], at)
    return [first.get(id_, -1) for id_ in ids]


# Uniform ids, ids that share long prefixes (defeats interpolation), ids at both ends, and many equal ones.
ids = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.builds(lambda n: bytes(24) + n.to_bytes(8, "big"), st.integers(0, 300)),
    st.builds(lambda n: b"\xff" * 30 + n.to_bytes(2, "big"), st.integers(0, 65535)),
    st.builds(lambda n: (1 << n).to_bytes(32, "big"), st.integers(0, 255)),
    st.sampled_from([bytes(32), b"\xff" * 32, b"\x80" + bytes(31)]),
)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 20), st.lists(ids, max_size=200), st.lists(ids, max_size=20), st.integers(0, 2**32))
def test_both_implementations_against_sorted_and_a_dict(
    extra: int, present: list[bytes], others: list[bytes], seed: int
) -> None:
    draw = random.Random(seed)
    width = 32 + extra
    rows = [id_ + draw.randbytes(extra) for id_ in present]
    for native in (table_module.native, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(table_module, "native", native)
            table = bytearray(b"".join(rows))
            sort_records(table, width)
            ordered = split(table, width)
            assert ordered == sorted(rows)
            wanted = present + others
            places = expected_places(ordered, wanted)
            assert unpack(find_records(table, width, b"".join(wanted))) == places
            assert [find_record(table, width, id_) for id_ in wanted] == places


@pytest.mark.parametrize("count", [0, 1, 2, 23, 24, 25, 26, 255, 256, 257, 3000])
@pytest.mark.parametrize("width", [32, 33, 52, 256])
def test_sort_at_the_edges_of_its_methods(implementation: str, count: int, width: int) -> None:
    draw = random.Random(count * width)
    for common in (0, 1, 31, 32, width - 1, width):
        rows = [bytes(common) + draw.randbytes(width - common) for _ in range(count)]
        table = bytearray(b"".join(rows))
        sort_records(table, width)
        assert split(table, width) == sorted(rows)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: n.to_bytes(32, "big"),  # all at one end
        lambda n: (2**256 - 1 - n).to_bytes(32, "big"),  # all at the other
        lambda n: bytes(8) + n.to_bytes(24, "big"),  # equal prefixes
        lambda n: (3**n % 2**256).to_bytes(32, "big"),  # a geometric row, then uniform
        lambda n: bytes([255 * (n % 2)]) + n.to_bytes(31, "big"),  # two heaps
    ],
)
def test_ids_made_to_defeat_interpolation(implementation: str, make: object) -> None:
    assert callable(make)
    rows = sorted(make(n) + bytes(20) for n in range(0, 4000, 2))
    table = b"".join(rows)
    wanted = [make(n) for n in range(4000)]
    assert unpack(find_records(table, WIDTH, b"".join(wanted))) == expected_places(rows, wanted)


def test_ids_of_several_records(implementation: str) -> None:
    rows = sorted(bytes([n]) * 32 + bytes([k]) for n in (1, 2, 3, 9) for k in range(2 if n in (2, 9) else 1))
    wanted = b"".join(bytes([n]) * 32 for n in range(10))
    assert unpack(find_records(b"".join(rows), 33, wanted, single=True)) == [-1, 0, -2, 3, -1, -1, -1, -1, -1, -2]


def test_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(b"", b"", True), (b"ab", b"ab", True), (b"ab", b"ac", False), (b"ab", b"abc", False)]
    for _ in range(2):
        assert [native_module.same_bytes(memoryview(a), bytearray(b)) for a, b, _ in pairs] == [s for *_, s in pairs]
        monkeypatch.setattr(native_module, "native", None)


def test_a_million_steps_against_a_dict() -> None:
    """Grow, sort, look up: each round adds ids, some of them known already, and asks for known and unknown ones."""
    assert NATIVE
    draw = random.Random(4829)
    table, model = bytearray(), dict[bytes, bytes]()
    steps = 0
    while steps < 1_000_000:
        known = list(model)
        fresh = [draw.randbytes(32) for _ in range(5_000)] + draw.sample(known, min(len(known), 500))
        for id_ in fresh:
            payload = draw.randbytes(WIDTH - 32)
            table += id_ + payload
            model[id_] = min(payload, model.get(id_, payload))
        sort_records(table, WIDTH)
        wanted = draw.choices(known + fresh, k=25_000) + [draw.randbytes(32) for _ in range(15_000)]
        for id_, at in zip(wanted, unpack(find_records(table, WIDTH, b"".join(wanted))), strict=True):
            found = None if at < 0 else bytes(table[at * WIDTH : (at + 1) * WIDTH])
            assert found == (id_ + model[id_] if id_ in model else None)
        steps += len(fresh) + len(wanted)


def test_the_search_stays_inside_the_table(implementation: str) -> None:
    """An id so near the largest that its expected place is rounded up to the end; what follows is other memory."""
    draw = random.Random(3)
    rows = sorted(draw.randbytes(32) for _ in range(1000))
    table = memoryview(b"".join(rows) + bytes(32 * 1000))[: 32 * 1000]
    for last in (b"\xff" * 7 + b"\xfe" + bytes(24), b"\xff" * 7 + b"\xfe" * 25):
        assert find_record(table, 32, last) == -1
        assert find_records(table, 32, last + rows[-1]) == struct.pack("<2q", -1, 999)


@pytest.mark.parametrize("width", [-1, 0, 31, 50, 257])
def test_a_table_of_another_shape_is_refused(implementation: str, width: int) -> None:
    table = bytearray(514 if width == 257 else 104)
    with pytest.raises(InvalidInput):
        sort_records(table, width)
    with pytest.raises(InvalidInput):
        find_record(table, width, bytes(32))
    with pytest.raises(InvalidInput):
        find_records(table, width, bytes(32))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_of_another_size_is_refused(implementation: str, size: int) -> None:
    with pytest.raises(InvalidInput):
        find_record(bytes(104), WIDTH, bytes(size))
    if size % 32:
        with pytest.raises(InvalidInput):
            find_records(bytes(104), WIDTH, bytes(size))


def test_lookups_in_an_empty_table(implementation: str) -> None:
    assert find_record(b"", WIDTH, bytes(32)) == -1
    assert find_records(b"", WIDTH, bytes(64)) == b"\xff" * 16
    assert find_records(b"", WIDTH, b"") == b""


def test_a_table_changed_by_another_thread_while_it_is_sorted_does_no_harm() -> None:
    """A caller's mistake: the order is lost, but the process is not."""
    assert NATIVE
    table = bytearray(random.Random(1).randbytes(20_000 * WIDTH))
    stop = threading.Event()

    def disturb() -> None:
        view, draw = memoryview(table), random.Random(2)
        while not stop.is_set():
            view[:] = draw.randbytes(len(table))

    other = threading.Thread(target=disturb)
    other.start()
    outcomes = set()
    for _ in range(100):
        try:
            sort_records(table, WIDTH)
            outcomes.add("sorted")
        except RuntimeError:
            outcomes.add("noticed")
    stop.set()
    other.join()
    assert outcomes <= {"sorted", "noticed"} and len(table) == 20_000 * WIDTH


@settings(max_examples=100, deadline=None)
@given(st.lists(ids, max_size=60), st.lists(st.tuples(st.sampled_from([1, 2]), ids), max_size=60))
def test_marks_against_a_dict(present: list[bytes], asked: list[tuple[int, bytes]]) -> None:
    """Every record of an id gets the bit; the answer says whether it had it."""
    table = bytearray(b"".join(id_ + bytes(WIDTH - 32) for id_ in present))
    sort_records(table, WIDTH)
    rows = [row[:32] for row in split(table, WIDTH)]
    asked += [(bit, id_) for bit, id_ in zip([1, 2, 1] * len(present), present, strict=False)]
    for native in (table_module.native, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(table_module, "native", native)
            marks, model = bytearray(len(rows)), dict.fromkeys(rows, 0)
            for bit, id_ in asked:
                expected = 0 if id_ not in model else 2 if model[id_] & bit else 1
                assert table_module.mark_records(table, WIDTH, id_, marks, bit) == bytes([expected])
                if id_ in model:
                    model[id_] |= bit
            assert list(marks) == [model[row] for row in rows]
    with pytest.raises(InvalidInput):
        table_module.mark_records(table, WIDTH, bytes(32), bytearray(len(rows) + 1), 1)
