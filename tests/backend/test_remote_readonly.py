"""HTTP and WebDAV where the server misbehaves: nothing is short, and what could not be asked for is not absent."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
import pytest
import s3stub
from s3stub import Answer, Stub

from snapvault.backend import remote_readonly
from snapvault.backend.factory import open_backend
from snapvault.backend.protocol import NotFound, ObjectInfo
from snapvault.backend.remote import FsspecBackend
from snapvault.foundation.errors import (
    Damaged,
    InvalidInput,
    RepositoryNotFound,
    SnapvaultError,
    StoreDenied,
    StoreUnavailable,
)

BEHIND = {"http": "http://127.0.0.1:{}/dav/repo", "webdav": "webdav://repo"}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with s3stub.serve() as server:
        yield server


def place(stub: Stub, scheme: str) -> FsspecBackend:
    options = {"base_url": f"http://127.0.0.1:{stub.port}/dav"} if scheme == "webdav" else {}
    return FsspecBackend(BEHIND[scheme].format(stub.port), options)


@pytest.fixture(params=["http", "webdav"])
def either(request: pytest.FixtureRequest, stub: Stub) -> Iterator[FsspecBackend]:
    backend = place(stub, request.param)
    yield backend
    backend.close()


@pytest.fixture
def http(stub: Stub) -> Iterator[FsspecBackend]:
    backend = place(stub, "http")
    yield backend
    backend.close()


@pytest.fixture
def dav(stub: Stub) -> Iterator[FsspecBackend]:
    backend = place(stub, "webdav")
    yield backend
    backend.close()


def index(folder: str, *links: str) -> Answer:
    anchors = "".join(f'<a href="{link}">{link}</a>' for link in links)
    page = f"<html><head><title>Index of /dav/{folder}</title></head><body>{anchors}</body></html>"
    return Answer(body=page.encode())


def sized(size: int) -> Answer:
    return Answer(headers={"Content-Length": str(size)})


FOLDER, OK = "<D:resourcetype><D:collection/></D:resourcetype>", "<D:status>HTTP/1.1 200 OK</D:status>"


def file(size: int) -> str:
    return f"<D:resourcetype/><D:getcontentlength>{size}</D:getcontentlength>"


def status(code: int) -> str:
    return f"<D:status>HTTP/1.1 {code} Reason</D:status>"


def multistatus(*entries: tuple[str, str], end: str = "</D:multistatus>") -> Answer:
    items = "".join(
        f"<D:response><D:href>{href}</D:href>"
        + (f"<D:propstat><D:prop>{text}</D:prop>{OK}</D:propstat>" if not text.startswith("<D:status") else text)
        + "</D:response>"
        for href, text in entries
    )
    return Answer(207, body=f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{items}{end}'.encode())


STATUSES: list[tuple[Answer, type[SnapvaultError]]] = [
    (Answer(401), StoreDenied),
    (Answer(403), StoreDenied),
    (Answer(405), StoreDenied),
    (Answer(429), StoreUnavailable),
    (Answer(500), StoreUnavailable),
    (Answer(503), StoreUnavailable),
    (Answer(drop=True), StoreUnavailable),
]


@pytest.mark.parametrize(("answer", "kind"), STATUSES, ids=[f"{a.status}" for a, _ in STATUSES])
def test_refusals_are_not_absence(
    stub: Stub, either: FsspecBackend, answer: Answer, kind: type[SnapvaultError]
) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: either.get("a"),
        lambda: either.get("a", 1, 2),
        lambda: either.head("a"),
        lambda: list(either.list()),
        lambda: list(either.list("packs/")),
    )
    for call in calls:
        stub.script = [answer] * 2
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind and f"127.0.0.1:{stub.port}" in str(caught.value)


def test_fsspec_says_not_there_when_it_was_refused(stub: Stub) -> None:
    """Why its ``info`` is not used.  If this fails, fsspec was mended."""
    fs = fsspec.filesystem("http", skip_instance_cache=True)
    stub.script = [Answer(403), Answer(403)]
    with pytest.raises(FileNotFoundError):
        fs.info(f"http://127.0.0.1:{stub.port}/a")


@pytest.mark.parametrize("scheme", ["http", "webdav"])
def test_nobody_listens(scheme: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nobody = Stub()
        nobody.port = held.getsockname()[1]
        backend = place(nobody, scheme)
        for call in (lambda: backend.get("a"), lambda: backend.head("a"), lambda: list(backend.list())):
            with pytest.raises(StoreUnavailable):
                call()


def part(first: int, last: int, size: int, body: bytes) -> Answer:
    return Answer(206, body=body, headers={"Content-Range": f"bytes {first}-{last}/{size}"})


def test_ranges(stub: Stub, either: FsspecBackend) -> None:
    stub.script = [part(2, 5, 10, b"2345"), part(2, 9, 10, b"23456789")]
    assert either.get("a", 2, 4) == b"2345"
    assert either.get("a", 2) == b"23456789"
    wrong = [part(3, 6, 10, b"3456"), part(2, 4, 10, b"234"), part(2, 5, 10, b"234"), Answer(206, body=b"2345")]
    for answer in wrong:
        stub.script = [answer]
        with pytest.raises(Damaged):
            either.get("a", 2, 4)


def test_a_server_without_ranges(stub: Stub, either: FsspecBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends all, which is right, unless that is more than anybody would want in memory."""
    stub.script = [Answer(body=b"0123456789")] * 3
    assert either.get("a", 2, 4) == b"2345"
    assert either.get("a", 2) == b"23456789"
    with pytest.raises(Damaged, match="10 bytes"):
        either.get("a", 8, 4)
    for scheme in ("http", "webdav"):
        monkeypatch.setattr(f"snapvault.backend.remote_{scheme}.WHOLE", 9)
    stub.script = [Answer(body=b"0123456789")]
    with pytest.raises(Damaged, match="ignored the range"):
        either.get("a", 2, 4)
    stub.script = [part(2, 11, 20, b"0123456789")]
    with pytest.raises(Damaged):  # more than was asked for
        either.get("a", 2, 4)


def test_a_body_that_breaks_off(stub: Stub, either: FsspecBackend) -> None:
    stub.script = [Answer(body=b"12345", headers={"Content-Length": "10"})]
    with pytest.raises(StoreUnavailable):
        either.get("a")


def test_nothing_is_compressed_on_the_way(stub: Stub, either: FsspecBackend) -> None:
    """A HEAD would tell the length of what is sent, not of the object."""
    assert remote_readonly.HEADERS["Accept-Encoding"] == "identity"
    stub.objects["/dav/repo/a"] = b"body"
    assert either.get("a") == b"body"
    assert stub.headers[-1]["Accept-Encoding"] == "identity" and stub.headers[-1]["Cache-Control"] == "no-cache"


def test_a_listing_over_http(stub: Stub, http: FsspecBackend) -> None:
    stub.script = [index("repo/", "config", "packs/"), index("repo/packs/", "one")]
    stub.objects |= {"/dav/repo/config": bytes(7), "/dav/repo/packs/one": bytes(8)}
    assert list(http.list()) == [ObjectInfo("config", 7), ObjectInfo("packs/one", 8)]


MOVED = Answer(302, headers={"Location": "/dav/repo/config/"})
SHORT: dict[str, list[Answer]] = {
    "no index": [Answer(body=b"<html><title>Welcome</title></html>")],
    "cut": [Answer(body=index("repo/", "config").body[:-20])],
    "broken off": [Answer(body=b"<html>", headers={"Content-Length": "999"})],
    "a folder is refused": [index("repo/", "packs/"), Answer(403)],
    "a folder is not there": [index("repo/", "packs/"), Answer(404), index("repo/", "packs/")],
    "an object is not there": [index("repo/", "config"), Answer(404)],
    "an object has no size": [index("repo/", "config"), Answer(headers={"Content-Length": ""})],
    "an object is a folder": [
        index("repo/", "config"),
        Answer(302, headers={"Location": "/dav/repo/config/"}),
        sized(1),
    ],
}


@pytest.mark.parametrize("script", SHORT.values(), ids=SHORT.keys())
def test_a_listing_over_http_that_is_short(stub: Stub, http: FsspecBackend, script: list[Answer]) -> None:
    stub.script = list(script)
    with pytest.raises((StoreUnavailable, StoreDenied)):
        list(http.list())


def test_folders_that_are_not_there(stub: Stub, http: FsspecBackend, dav: FsspecBackend) -> None:
    stub.script = [Answer(404), index("repo/", "config")]
    assert list(http.list("packs/")) == []
    stub.script = [Answer(404), multistatus(("/dav/repo/", FOLDER), ("/dav/repo/config", file(3)))]
    assert list(dav.list("packs/")) == []
    for backend in (http, dav):
        stub.script = []
        with pytest.raises(RepositoryNotFound, match="server must show"):
            list(backend.list("packs/ab/"))


def test_what_is_a_folder_is_no_object(stub: Stub, http: FsspecBackend, dav: FsspecBackend) -> None:
    to_folder = Answer(301, headers={"Location": "/dav/repo/packs/"})
    for call in (lambda: http.get("packs"), lambda: http.head("packs"), lambda: http.get("packs", 1, 2)):
        stub.script = [to_folder, index("repo/packs/")]
        with pytest.raises(NotFound):
            call()
    stub.script = [Answer(405), multistatus(("/dav/repo/packs/", FOLDER))]
    with pytest.raises(NotFound):
        dav.get("packs")
    stub.script = [multistatus(("/dav/repo/packs/", FOLDER))]
    with pytest.raises(NotFound):
        dav.head("packs")


def test_a_listing_over_webdav(stub: Stub, dav: FsspecBackend) -> None:
    root = multistatus(("/dav/repo/", FOLDER), ("/dav/repo/c%6fnfig", file(7)), ("/dav/repo/packs/", FOLDER))
    packs = multistatus(("http://127.0.0.1/dav/repo/packs", FOLDER), ("/dav/repo/packs/one", file(8)))
    stub.script = [root, packs]
    assert list(dav.list()) == [ObjectInfo("config", 7), ObjectInfo("packs/one", 8)]
    stub.script = [multistatus(("/dav/repo/config", file(7)))]
    assert dav.head("config") == ObjectInfo("config", 7)


ROOT = ("/dav/repo/", FOLDER)
SHORT_DAV: dict[str, Answer] = {
    "cut by the server": multistatus(
        ROOT, ("/dav/repo/a", file(1)), ("/dav/repo/", "<D:status>HTTP/1.1 507 X</D:status>")
    ),
    "an entry is refused": multistatus(ROOT, ("/dav/repo/a", "<D:status>HTTP/1.1 403 Forbidden</D:status>")),
    "an entry has no size": multistatus(ROOT, ("/dav/repo/a", "<D:resourcetype/>")),
    "an entry has no kind": multistatus(ROOT, ("/dav/repo/a", "<D:getcontentlength>1</D:getcontentlength>")),
    "an entry has no name": multistatus(ROOT, ("", file(1))),
    "of another place": multistatus(("/other/", FOLDER), ("/other/a", file(1))),
    "with deeper ones": multistatus(ROOT, ("/dav/repo/a/b", file(1))),
    "not of itself": multistatus(("/dav/repo/a", file(1))),
    "broken": multistatus(ROOT, end=""),
    "no WebDAV": Answer(200, body=b"<html></html>"),
}


@pytest.mark.parametrize("answer", SHORT_DAV.values(), ids=SHORT_DAV.keys())
def test_a_listing_over_webdav_that_is_short(stub: Stub, dav: FsspecBackend, answer: Answer) -> None:
    stub.script = [answer]
    with pytest.raises(StoreUnavailable):
        list(dav.list())


def test_webdav4_takes_a_listing_that_was_cut(stub: Stub) -> None:
    """Why its ``ls`` is not used.  If this fails, webdav4 was mended."""
    fs = fsspec.filesystem("webdav", base_url=f"http://127.0.0.1:{stub.port}/dav", skip_instance_cache=True)
    stub.script = [SHORT_DAV["cut by the server"]]
    assert [info["name"] for info in fs.ls("repo")] != []


def test_making_a_repository_is_refused() -> None:
    for url, options in (("http://127.0.0.1:9/r", {}), ("webdav://r", {"base_url": "http://127.0.0.1:9"})):
        with pytest.raises(StoreDenied, match="can only be read"):
            open_backend(url, options, create=True)


@pytest.mark.parametrize(
    ("url", "options", "says"),
    [
        ("webdav://repo", {}, "base_url"),
        ("webdav://repo", {"base_url": "http://me:sec-ret@127.0.0.1/"}, "credentials"),
        ("webdav://repo", {"base_url": "http://127.0.0.1/", "no_such_option": 1}, "no_such_option"),
        ("http://me:sec-ret@127.0.0.1/", {}, "credentials"),
        ("http://127.0.0.1/repo?token=sec-ret", {}, "'?'"),
    ],
)
def test_what_cannot_be_opened(url: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_backend(url, options)
    assert says in str(caught.value) and "sec-ret" not in str(caught.value)


def test_options_that_no_request_takes(stub: Stub) -> None:
    """fsspec finds out with the first request."""
    backend = FsspecBackend(f"http://127.0.0.1:{stub.port}/repo", {"no_such_option": 1})
    with pytest.raises(InvalidInput, match="no_such_option"):
        backend.get("a")
