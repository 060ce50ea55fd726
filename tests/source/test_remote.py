"""fsspec URLs as sources: in memory, over HTTP, from a real S3 server, and where the store misbehaves."""

import functools
import http.server
import secrets
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3stub
from fsspec.implementations.memory import MemoryFileSystem
from s3stub import Answer

import snapvault.source.remote as module
from snapvault.format.tree import Node, NodeKind
from snapvault.foundation.errors import InvalidInput, SourceError
from snapvault.source.remote import RemoteReader, RemoteSource


@pytest.fixture
def url() -> Iterator[str]:
    name = f"memory://{secrets.token_hex(8)}/data"
    yield name
    fs, path = fsspec.core.url_to_fs(name)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def _put(url: str, files: dict[str, bytes], **options: Any) -> None:
    fs, path = fsspec.core.url_to_fs(url, **options)
    for name, data in files.items():
        fs.pipe_file(f"{path}/{name}", data)


def _read(reader: Any, size: int = 1000) -> bytes:
    return b"".join(iter(lambda: reader.read(size), b""))


def _contents(source: RemoteSource) -> dict[bytes, bytes]:
    found, folders = {}, list(source.roots)
    while folders:
        folder = folders.pop()
        listing = source.scan(folder)
        assert listing.problems == [] and listing.nodes == sorted(listing.nodes, key=lambda n: n.name)
        for node in listing.nodes:
            path = folder + b"/" + node.name
            if node.kind == NodeKind.DIRECTORY:
                folders.append(path)
            else:
                reader = source.open(path, node)
                found[path] = _read(reader)
                assert reader.finish() is True and reader.node.size == len(found[path])
    return found


def test_a_tree_in_memory(url: str) -> None:
    _put(url, {"a": b"alpha", "sub/b": b"", "sub/deep/ü": b"x" * 5000, "a.b": b"1"})
    source = RemoteSource(url)
    assert source.roots == (b"/data",) and source.label == url
    root = source.root_node(b"/data")
    assert (root.kind, root.mode, root.uid) == (NodeKind.DIRECTORY, 0o755, 0)
    assert _contents(source) == {
        b"/data/a": b"alpha", b"/data/a.b": b"1", b"/data/sub/b": b"", "/data/sub/deep/ü".encode(): b"x" * 5000
    }  # fmt: skip
    node = source.scan(b"/data").nodes[0]
    assert node.mode == 0o644 and node.mtime_ns > 10**18
    assert node.ctime_ns == 0 and node.inode == 0  # "created" does not tell one content from the next


def test_one_file(url: str) -> None:
    _put(url, {"a": b"alpha"})
    source = RemoteSource(f"{url}/a")
    assert source.roots == (b"/a",)
    node = source.root_node(b"/a")
    assert node.kind == NodeKind.FILE and node.name == b"a" and _read(source.open(b"/a", node)) == b"alpha"


def test_what_is_not_there_or_not_known(url: str) -> None:
    with pytest.raises(SourceError, match="nothing at this address"):
        RemoteSource(url).root_node(b"/data")
    with pytest.raises(InvalidInput, match="cannot be used"):
        RemoteSource("nosuchprotocol://x")
    with pytest.raises(SourceError, match="no '/elsewhere'"):
        RemoteSource(url).root_node(b"/elsewhere")


def test_credentials_are_not_shown() -> None:
    source = RemoteSource("http://user:hunter2@127.0.0.1:9/f?signature=s3cr3t")
    assert source.label == "http://127.0.0.1:9/f" and source.roots == (b"/f",)
    with pytest.raises(SourceError) as error:
        source.root_node(b"/f")
    assert "hunter2" not in str(error.value) and "s3cr3t" not in str(error.value)


@pytest.mark.parametrize("answer", [Answer(500), Answer(404), Answer(drop=True)], ids=lambda a: f"{a.status}")
def test_credentials_are_not_shown_when_reading_fails(answer: Answer) -> None:
    with s3stub.serve() as stub:
        source = RemoteSource(f"http://127.0.0.1:{stub.port}/f?signature=s3cr3t")
        stub.script = [Answer(headers={"Content-Length": "10"})] + [answer] * 3
        node = source.root_node(b"/f")
        with pytest.raises(OSError) as error:
            _read(source.open(b"/f", node))
    shown = "".join(traceback.format_exception(error.value)) + str(error.value.filename)
    assert "s3cr3t" not in shown


def test_an_error_in_a_sub_folder_is_not_an_empty_folder(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec's own ``find`` and ``walk`` leave out what they cannot list."""
    _put(url, {"sub/b": b"1"})
    source = RemoteSource(url)
    honest = MemoryFileSystem.ls

    def failing(self: Any, path: str, detail: bool = True, **kwargs: Any) -> Any:
        if path.endswith("/sub"):
            raise PermissionError(13, "denied")
        return honest(self, path, detail=detail, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "ls", failing)
    assert [n.name for n in source.scan(b"/data").nodes] == [b"sub"]
    with pytest.raises(PermissionError):
        source.scan(b"/data/sub")


def test_errors_of_the_libraries_become_os_errors(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import aiohttp

    def failing(*_: Any, **__: Any) -> Any:
        raise aiohttp.ClientPayloadError("cut")

    _put(url, {"a": b"1"})
    source = RemoteSource(url)
    node = source.scan(b"/data").nodes[0]
    monkeypatch.setattr(MemoryFileSystem, "cat_file", failing)
    with pytest.raises(OSError, match="ClientPayloadError: cut"):
        source.open(b"/data/a", node).read(1)


class _Store:
    """A file system whose answers are given: one file, as it is, as it is listed, and as it is sent."""

    def __init__(self, content: bytes, **info: Any) -> None:
        self.content, self.extra, self.calls = content, info, 0
        self.cut: int | None = None
        self.ranges = True

    def invalidate_cache(self, path: str | None = None) -> None:
        pass

    def info(self, path: str) -> dict[str, Any]:
        return {"name": path, "type": "file", "size": len(self.content), **self.extra}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        self.calls += 1
        body = self.content[start:end] if self.ranges else self.content
        return body[: self.cut]


def _reader(store: _Store, block: int, monkeypatch: pytest.MonkeyPatch) -> RemoteReader:
    monkeypatch.setattr(module, "BLOCK", block)
    return RemoteReader(store, "f", module._node(b"f", store.info("f")))


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 250, 300])
def test_blocks(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _Store(secrets.token_bytes(size), ETag="e")
    reader = _reader(store, 100, monkeypatch)
    assert _read(reader, 33) == store.content and reader.finish() is True
    assert store.calls == -(-size // 100)


@pytest.mark.parametrize("block", [100, 1000])
def test_a_short_body_is_an_error(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _Store(bytes(250), ETag="e")
    reader = _reader(store, block, monkeypatch)
    store.cut = 60
    with pytest.raises(OSError, match="sent 60 bytes"):
        _read(reader)
    assert reader.finish() is False


def test_a_file_that_is_replaced_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = _Store(b"a" * 250, ETag="one")
    reader = _reader(store, 100, monkeypatch)
    reader.read(10)
    store.content, store.extra = b"b" * 250, {"ETag": "two"}
    assert len(_read(reader)) == 240 and reader.finish() is False  # a mixture, of the right size
    reader = _reader(store, 1000, monkeypatch)  # one request: the whole of another version
    store.content = b"c" * 70
    assert _read(reader) == b"c" * 70 and reader.finish() is False and reader.node.size == 70


def test_a_server_without_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    store = _Store(secrets.token_bytes(250))
    store.ranges = False
    reader = _reader(store, 100, monkeypatch)
    assert _read(reader) == store.content and reader.finish() is True and store.calls == 1


def test_a_file_of_unknown_size(monkeypatch: pytest.MonkeyPatch) -> None:
    store = _Store(secrets.token_bytes(250), size=None)
    reader = _reader(store, 100, monkeypatch)
    assert _read(reader) == store.content and reader.finish() is True and reader.node.size == 250


def test_fingerprints() -> None:
    def node(**info: Any) -> Node:
        return module._node(b"f", {"type": "file", "size": 5, **info})

    one = node(ETag='"abc"', LastModified="2026-01-02T03:04:05+00:00")
    assert 0 < one.ctime_ns < 2**63
    assert one.mtime_ns == 1_767_323_045 * 10**9
    assert one.ctime_ns == node(ETag='"abc"').ctime_ns != node(ETag='"abd"').ctime_ns
    assert one.ctime_ns != node(ETag='"abc"', size=6).ctime_ns
    old = node(mtime=1_700_000_000.5)
    assert old.mtime_ns == 1_700_000_000_500_000_000
    assert old.ctime_ns > 0 and old.ctime_ns != node(mtime=1_700_000_001).ctime_ns
    assert node(**{"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}).mtime_ns == 784_111_777 * 10**9
    assert node(created=1_700_000_000).ctime_ns == 0 and node().ctime_ns == 0
    assert node(LastModified="nonsense").mtime_ns == 0
    assert (
        node(mtime=4_000_000_000).ctime_ns == 0
    )  # so new (or a clock so wrong) that the next change may look the same


def test_entries_that_cannot_be_stored(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names as only an object store can have them are told, not lost without a word."""
    file = {"size": 1, "type": "file"}
    listed = [
        {"name": "r/data/", "size": 0, "type": "file"}, {"name": "r/data//", "size": 0, "type": "directory"},
        {"name": "r/data/x", **file}, {"name": "r/data/x/", "size": 0, "type": "directory"},
        {"name": "r/data/..", **file}, {"name": "r/data/ok", **file},
        {"name": "r/data/l", "size": 1, "type": "link"}, {"name": "r/data/dangling", "size": 1, "type": "link"},
        {"name": "r/data/to-folder", "size": 1, "type": "link"},
    ]  # fmt: skip

    class Fs:
        def invalidate_cache(self, path: str | None = None) -> None:
            pass

        def ls(self, path: str, detail: bool) -> list[dict[str, Any]]:
            return listed

        def info(self, path: str) -> dict[str, Any]:
            if path.endswith("dangling"):
                raise FileNotFoundError(path)
            return {"name": path, "size": 7, "type": "directory" if path.endswith("folder") else "file"}

    monkeypatch.setattr(module, "connect", lambda *_: (Fs(), "r/data"))
    listing = RemoteSource("x://r/data").scan(b"/data")
    assert [(n.name, n.kind, n.size) for n in listing.nodes] == [
        (b"l", NodeKind.FILE, 7), (b"ok", NodeKind.FILE, 1), (b"x", NodeKind.DIRECTORY, 0)
    ]  # fmt: skip
    assert sorted(p.path for p in listing.problems) == [
        b"/data/", b"/data/..", b"/data/dangling", b"/data/to-folder", b"/data/x"
    ]  # fmt: skip
    assert not any(p.vanished for p in listing.problems)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real web server, without ranges and ETags."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path
        server.shutdown()
        thread.join()


def test_over_http(web: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    place, folder = web
    data = secrets.token_bytes(300_000)
    (folder / "file.bin").write_bytes(data)
    monkeypatch.setattr(module, "BLOCK", 100_000)
    source = RemoteSource(f"{place}/file.bin?query=1")
    assert source.roots == (b"/file.bin",)
    node = source.root_node(b"/file.bin")
    assert node.size == 300_000 and abs(node.mtime_ns - (folder / "file.bin").stat().st_mtime_ns) < 10**9
    reader = source.open(b"/file.bin", node)
    assert _read(reader) == data and reader.finish() is True
    with pytest.raises(SourceError):
        RemoteSource(f"{place}/missing").root_node(b"/missing")


@pytest.mark.server
def test_a_bucket(seaweedfs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    place, options = seaweedfs()
    files = {"a": b"1", "sub/b": secrets.token_bytes(300_000), "sub/deep/c": b"", "ü/x y+z": b"2"}
    _put(place, files, **options)
    monkeypatch.setattr(module, "BLOCK", 100_000)
    source = RemoteSource(place, options)
    root = source.roots[0]
    assert _contents(source) == {root + b"/" + name.encode(): data for name, data in files.items()}
    before = next(n for n in source.scan(root).nodes if n.name == b"a")
    assert before.ctime_ns > 0 and before == next(
        n for n in RemoteSource(place, options).scan(root).nodes if n.name == b"a"
    )
    _put(place, {"a": b"3"}, skip_instance_cache=True, **options)  # as another process would
    after = next(n for n in source.scan(root).nodes if n.name == b"a")  # not the cached listing
    assert after.ctime_ns != before.ctime_ns and after.ctime_ns > 0


@pytest.mark.server
def test_over_sftp(rclone_sftp: Any) -> None:
    place, options = rclone_sftp()
    fs, path = fsspec.core.url_to_fs(place, **options)
    fs.makedirs(f"{path}/sub", exist_ok=True)
    for name, data in (("a", b"alpha"), ("sub/b", b"beta")):
        with fs.open(f"{path}/{name}", "wb") as f:
            f.write(data)
    source = RemoteSource(place, options)
    root = source.roots[0]
    assert _contents(source) == {root + b"/a": b"alpha", root + b"/sub/b": b"beta"}


@pytest.mark.server
def test_sftp_to_an_unknown_host(rclone_sftp: Any) -> None:
    """fsspec would give the password to whoever answers."""
    place, options = rclone_sftp()
    del options["host_key_policy"]
    with pytest.raises(InvalidInput, match="host key") as caught:
        RemoteSource(place, options)
    assert "auto_add" in caught.value.hint
