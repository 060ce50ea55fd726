"""The conformance suite of backends.

Subclass ``BackendSuite`` in a test module, give it a fixture ``backend`` that yields an empty store for each test, and
pytest runs everything below::

    class TestMine(BackendSuite):
        @pytest.fixture
        def backend(self):
            yield MyBackend(...)

A store that cannot do everything says so with ``capabilities``; the suite then demands that the probe finds out.

``ReadOnlySuite`` is for stores that only show what somebody else put there.  Its fixture ``filled`` gives a function
that takes the content, by name, and answers with the backend::

    class TestMirror(ReadOnlySuite):
        @pytest.fixture
        def filled(self, tmp_path):
            return lambda objects: MyMirror(write_files(tmp_path, objects))
"""

import contextlib
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from snapvault.backend.checked import CheckedBackend
from snapvault.backend.probe import PREFIX, RACERS, Capabilities, probe
from snapvault.backend.protocol import Backend, Exists, NotFound, ObjectInfo
from snapvault.foundation.errors import Damaged, InvalidInput, StoreDenied

T = TypeVar("T")
Fill = Callable[[Mapping[str, bytes]], Backend]

EVERYTHING = Capabilities(put_if_absent=True, range_read=True, list_after_put=True)
MANY = 1005  # more than the 1000 names of one S3 listing page, at which restic once stopped
LARGE = 20_000_000  # bytes
THREADS = 8
NAMES = ("a-b/c", "a.b", "a/b", "a/b-c", "a/b.c", "a/bc/d", "a/bc/e", "a0", "b/a/a/a", "z")
BAD_NAMES = ("", "/a", "a/", "a//b", ".", "..", "a/../b", ".hidden", "a/.tmp-x", "a\n", "a b", "ä", "a\\b")


class ReadSuite:
    """What a store promises to whoever reads."""

    @pytest.fixture
    def filled(self) -> Fill:
        """A function that puts objects into an empty store, and gives the backend."""
        raise NotImplementedError

    def test_get(self, filled: Fill) -> None:
        backend = filled({"packs/ab/one": b"first second", "a": b"xyz", "empty": b""})
        assert backend.get("packs/ab/one") == b"first second"
        for body in (backend.get("a"), backend.get("a", 1, 1), backend.get("empty")):
            assert type(body) is bytes

    def test_head(self, filled: Fill) -> None:
        backend = filled({"a/b": bytes(12345), "empty": b""})
        assert backend.head("a/b") == ObjectInfo("a/b", 12345)
        assert backend.head("empty").size == 0

    def test_ranges(self, filled: Fill) -> None:
        body = random.Random(2).randbytes(1000)
        backend = filled({"a": body, "empty": b""})
        for start, length in ((0, 1), (0, 1000), (1, 998), (999, 1), (500, 0), (1000, 0), (0, None), (1000, None)):
            assert backend.get("a", start, length) == body[start : None if length is None else start + length]
        assert backend.get("empty", 0, 0) == b""

    def test_ranges_of_a_large_object(self, filled: Fill) -> None:
        body = random.Random(1).randbytes(LARGE)
        backend = filled({"packs/00/large": body})
        assert backend.get("packs/00/large") == body
        assert backend.get("packs/00/large", LARGE - 70_000, 70_000) == body[-70_000:]
        assert backend.get("packs/00/large", 10_000_001) == body[10_000_001:]

    @pytest.mark.parametrize(("start", "length"), [(0, 1001), (999, 2), (1000, 1), (1001, None), (5000, 1), (1001, 0)])
    def test_range_beyond_the_end_is_damage(self, filled: Fill, start: int, length: int | None) -> None:
        backend = filled({"a": bytes(1000)})
        with pytest.raises(Damaged) as caught:
            backend.get("a", start, length)
        assert caught.value.affected == ("a",)

    @pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1), (-5, 3)])
    def test_negative_range_is_refused(self, filled: Fill, start: int, length: int | None) -> None:
        backend = filled({"a": bytes(10)})
        with pytest.raises(InvalidInput):
            backend.get("a", start, length)

    def test_missing(self, filled: Fill) -> None:
        backend = filled({"folder/b": b"x"})
        calls: tuple[Callable[[str], object], ...] = (backend.get, backend.head, lambda name: backend.get(name, 1, 1))
        for name in ("a", "folder", "folder/c", "folder/b/c", "no/such"):
            for call in calls:
                with pytest.raises(NotFound) as caught:
                    call(name)
                assert caught.value.affected == (name,)

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_bad_names_are_refused(self, filled: Fill, name: str) -> None:
        backend = filled({})
        calls: tuple[Callable[[], object], ...] = (
            lambda: backend.put(name, [b"x"]),
            lambda: backend.put_if_absent(name, [b"x"]),
            lambda: backend.get(name),
            lambda: backend.head(name),
            lambda: backend.delete(name),
        )
        for call in calls:
            with pytest.raises(InvalidInput):
                call()
        assert list(backend.list()) == []

    def test_list_is_in_name_order(self, filled: Fill) -> None:
        backend = filled({name: name.encode() for name in reversed(NAMES)})
        assert [(info.name, info.size) for info in backend.list()] == sorted((name, len(name)) for name in NAMES)

    def test_list_prefix_is_a_string_prefix(self, filled: Fill) -> None:
        backend = filled(dict.fromkeys(NAMES, b"x"))
        for prefix in ("", "a", "a/", "a/b", "a/b-", "a/bc", "a/bc/", "a-", "b/a/a", "c", "a/b/c/d", "zz"):
            assert [info.name for info in backend.list(prefix)] == sorted(n for n in NAMES if n.startswith(prefix))

    def test_list_of_an_empty_store(self, filled: Fill) -> None:
        backend = filled({})
        assert list(backend.list()) == []
        assert list(backend.list("packs/")) == []

    def test_list_of_many(self, filled: Fill) -> None:
        names = [f"index/{i:05}" for i in range(MANY)]
        names += [f"packs/{i % 3:02x}/{i:05}" for i in range(30)]
        backend = filled({name: name.encode() for name in names})
        assert [info.name for info in backend.list("index/")] == names[:MANY]
        assert {info.name: info.size for info in backend.list()} == {name: len(name) for name in names}

    def test_close_is_idempotent(self, filled: Fill) -> None:
        backend = filled({"a": b"x"})
        assert backend.get("a") == b"x"
        backend.close()
        backend.close()

    def test_url_is_shown(self, filled: Fill) -> None:
        backend = filled({})
        assert backend.url
        assert backend.url in repr(backend)


class ReadOnlySuite(ReadSuite):
    """A store that only shows what somebody else put there: whoever writes is told so, and nothing changes."""

    def test_writing_is_refused(self, filled: Fill) -> None:
        backend = filled({"a": b"x", "b/c": b"y"})
        calls: tuple[Callable[[], object], ...] = (
            lambda: backend.put("a", [b"new"]),
            lambda: backend.put_if_absent("d", [b"new"]),
            lambda: backend.delete("a"),
            lambda: backend.delete("d"),
            lambda: probe(backend),
        )
        for call in calls:
            with pytest.raises(StoreDenied, match="only be read") as caught:
                call()
            assert caught.value.affected and caught.value.hint
        assert {info.name: backend.get(info.name) for info in backend.list()} == {"a": b"x", "b/c": b"y"}

    def test_threads(self, filled: Fill) -> None:
        bodies = {f"packs/{i:02}": random.Random(i).randbytes(3000 + i) for i in range(40)}
        backend = filled(bodies)

        def work(name: str) -> None:
            assert backend.get(name) == bodies[name]
            assert backend.get(name, 7, 100) == bodies[name][7:107]
            assert backend.head(name).size == len(bodies[name])
            with pytest.raises(NotFound):
                backend.get(f"{name}-none")

        _together(work, bodies)


class BackendSuite(ReadSuite):
    """Everything that ``snapvault.backend.protocol`` promises."""

    capabilities = EVERYTHING

    @pytest.fixture
    def filled(self, backend: Backend) -> Fill:
        def put(item: tuple[str, bytes]) -> None:
            name, body = item
            backend.put_if_absent(name, [body[: 1 << 20], memoryview(body)[1 << 20 :]])

        def fill(objects: Mapping[str, bytes]) -> Backend:
            _together(put, objects.items())
            return backend

        return fill

    def test_put_and_get(self, backend: Backend) -> None:
        backend.put("packs/ab/one", [b"first ", bytearray(b"second "), memoryview(b"-third-")[1:-1]])
        assert backend.get("packs/ab/one") == b"first second third"

    def test_put_replaces(self, backend: Backend) -> None:
        backend.put("a", [b"old and longer"])
        backend.put("a", [b"new"])
        assert backend.get("a") == b"new"
        assert backend.head("a") == ObjectInfo("a", 3)

    def test_empty_object(self, backend: Backend) -> None:
        backend.put("none", [])
        backend.put_if_absent("empty", [b"", b""])
        for name in ("none", "empty"):
            assert backend.get(name) == b""
            assert backend.get(name, 0, 0) == b""
            assert backend.head(name).size == 0
        assert [info.size for info in backend.list()] == [0, 0]

    def test_many_buffers(self, backend: Backend) -> None:
        parts = [bytes([i % 256]) * (i % 5) for i in range(5000)]
        backend.put("a", parts)
        assert backend.get("a") == b"".join(parts)

    def test_put_if_absent(self, backend: Backend) -> None:
        """On a store that ignores the condition, the wrapper that looks first keeps a single user safe."""
        safe = backend if self.capabilities.put_if_absent else CheckedBackend(backend)
        safe.put_if_absent("a/b", [b"first"])
        with pytest.raises(Exists) as caught:
            safe.put_if_absent("a/b", [b"second"])
        assert caught.value.affected == ("a/b",)
        assert backend.get("a/b") == b"first"

    def test_put_if_absent_of_equal_bytes(self, backend: Backend) -> None:
        safe = backend if self.capabilities.put_if_absent else CheckedBackend(backend)
        for body in (b"", b"same"):
            safe.put_if_absent(f"n{len(body)}", [body])
            with pytest.raises(Exists):
                safe.put_if_absent(f"n{len(body)}", [body])

    @pytest.mark.parametrize("round_", range(3))
    def test_racing_creators(self, backend: Backend, round_: int) -> None:
        """Without the promise, racing creators may even lose the object (rclone's SFTP does), but never tear it."""
        name, bodies = f"snapshots/{round_}", [bytes([i + 1]) * 50_000 for i in range(RACERS)]
        winners = [body for body in _race(backend, name, bodies) if body]
        if self.capabilities.put_if_absent:
            assert len(winners) == 1
            assert backend.get(name) == winners[0]
        else:
            with contextlib.suppress(NotFound):
                assert backend.get(name) in bodies

    def test_probe(self, backend: Backend) -> None:
        assert probe(backend) == self.capabilities
        if self.capabilities.put_if_absent:  # else what was raced for may be listed still, as on rclone's SFTP at times
            assert list(backend.list(PREFIX)) == []

    def test_list_shows_what_was_put_and_deleted(self, backend: Backend) -> None:
        for i in range(20):
            backend.put(f"sessions/{i:02}", [b"x"])
            assert len(list(backend.list("sessions/"))) == i + 1
        for i in range(20):
            backend.delete(f"sessions/{i:02}")
            assert [info.name for info in backend.list("sessions/")] == [f"sessions/{j:02}" for j in range(i + 1, 20)]

    def test_delete(self, backend: Backend) -> None:
        backend.put("a/b", [b"x"])
        backend.delete("a/b")
        with pytest.raises(NotFound):
            backend.get("a/b")
        backend.delete("a/b")
        backend.delete("never/there")
        backend.put_if_absent("a/b", [b"again"])
        assert backend.get("a/b") == b"again"

    def test_threads(self, backend: Backend) -> None:
        """Every thread works on names of its own and on shared ones; nobody sees another's bytes."""

        def work(number: int) -> None:
            for i in range(15):
                own, body = f"own/{number}/{i}", random.Random(number * 100 + i).randbytes(3000 + i)
                backend.put(own, [body])
                assert backend.get(own) == body
                assert backend.get(own, 7, 100) == body[7:107]
                assert backend.head(own).size == len(body)
                with pytest.raises(NotFound):
                    backend.get(f"own/{number}/none")
            assert len(list(backend.list(f"own/{number}/"))) == 15

        _together(work, range(THREADS))
        assert len(list(backend.list("own/"))) == 15 * THREADS


def _created(backend: Backend, name: str, body: bytes) -> bytes:
    try:
        backend.put_if_absent(name, [body])
    except Exists:
        return b""
    return body


def _race(backend: Backend, name: str, bodies: list[bytes]) -> list[bytes]:
    start = threading.Barrier(len(bodies))

    def one(body: bytes) -> bytes:
        start.wait()
        return _created(backend, name, body)

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(one, bodies))


def _together(call: Callable[[T], object], items: Iterable[T]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(call, items):
            pass
