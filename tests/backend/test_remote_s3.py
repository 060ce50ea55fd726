"""The traps of S3 and of s3fs, on a server that answers as told and on real ones."""

import asyncio
import errno
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3stub
from s3stub import Answer, Stub
from servers import Fresh

from snapvault.backend import remote_s3
from snapvault.backend.factory import open_backend
from snapvault.backend.protocol import Backend, Exists, NotFound, ObjectInfo
from snapvault.backend.remote import FsspecBackend
from snapvault.backend.retry import RetryBackend, RetryPolicy
from snapvault.foundation.errors import (
    Damaged,
    InvalidInput,
    RepositoryNotFound,
    SnapvaultError,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
)

QUICK = RetryPolicy(total=10.0, until_first_success=10.0, first_wait=0.001, longest_wait=0.01)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with s3stub.serve() as server:
        yield server


def opened(stub: Stub, driver: str) -> Iterator[FsspecBackend]:
    url, options = stub.place()
    made = FsspecBackend(url, {**options, "driver": driver})
    yield made
    made.close()


@pytest.fixture(params=["s3fs", "obstore"])
def backend(stub: Stub, request: pytest.FixtureRequest) -> Iterator[FsspecBackend]:
    """Both drivers, which must be told apart by nothing here."""
    yield from opened(stub, request.param)


@pytest.fixture
def through_s3fs(stub: Stub) -> Iterator[FsspecBackend]:
    yield from opened(stub, "s3fs")


REFUSALS: list[tuple[Answer, type[SnapvaultError]]] = [
    (Answer(500, "InternalError"), StoreUnavailable),
    (Answer(503, "SlowDown"), StoreUnavailable),
    (Answer(503, "ServiceUnavailable"), StoreUnavailable),
    (Answer(429, "TooManyRequests"), StoreUnavailable),
    (Answer(400, "RequestTimeout"), StoreUnavailable),
    (Answer(403, "AccessDenied"), StoreDenied),
    (Answer(403, "SignatureDoesNotMatch"), StoreDenied),
    (Answer(403, "RequestTimeTooSkewed"), StoreDenied),
    (Answer(403, "ExpiredToken"), StoreDenied),
    (Answer(400, "ExpiredToken"), StoreDenied),
    (Answer(400, "BadDigest"), StoreUnavailable),
    (Answer(400, "InvalidArgument"), InvalidInput),
    (Answer(404, "NoSuchBucket"), RepositoryNotFound),
    (Answer(405, "MethodNotAllowed"), StoreDenied),
    (Answer(507, "InsufficientStorage"), StoreFull),
    (Answer(403, "QuotaExceeded"), StoreFull),
    (Answer(drop=True), StoreUnavailable),
]


@pytest.mark.parametrize(("answer", "kind"), REFUSALS, ids=[f"{a.status}-{a.code}" for a, _ in REFUSALS])
def test_refusals_are_typed_and_asked_once(
    stub: Stub, backend: FsspecBackend, answer: Answer, kind: type[SnapvaultError]
) -> None:
    """One request a call: botocore's and s3fs's own retries would hide a lost reply from whoever retries."""
    for call in (
        lambda: backend.get("a"),
        lambda: backend.put("a", [b"x"]),
        lambda: backend.put_if_absent("a", [b"x"]),
        lambda: list(backend.list()),
    ):
        stub.seen.clear()
        stub.script = [answer] * 5
        with pytest.raises(kind) as caught:
            call()
        assert type(caught.value) is kind
        assert "s3://bucket/repo" in str(caught.value) and f"127.0.0.1:{stub.port}" in str(caught.value)
        assert len(stub.seen) == 1


def test_412_and_409(stub: Stub, backend: FsspecBackend) -> None:
    stub.script = [Answer(412, "PreconditionFailed"), Answer(409, "ConditionalRequestConflict")]
    with pytest.raises(Exists):
        backend.put_if_absent("a", [b"x"])
    with pytest.raises(StoreUnavailable):  # a race that is still going on: ask again
        backend.put_if_absent("a", [b"x"])


def test_412_after_a_lost_reply_is_our_own(stub: Stub, backend: FsspecBackend) -> None:
    for lost in (Answer(drop=True, apply=True), Answer(500, "InternalError", apply=True)):
        stub.objects.clear()
        stub.script = [lost]
        RetryBackend(backend, QUICK).put_if_absent("snapshots/x", [b"com", b"mit"])
        assert stub.objects == {"/bucket/repo/snapshots/x": b"commit"}
        assert [method for method, _ in stub.seen[-4:]] == ["PUT", "PUT", "HEAD", "GET"]


def test_412_after_a_lost_reply_may_be_another(stub: Stub, backend: FsspecBackend) -> None:
    stub.objects["/bucket/repo/snapshots/x"] = b"revoked"
    stub.script = [Answer(drop=True)]
    with pytest.raises(Exists):
        RetryBackend(backend, QUICK).put_if_absent("snapshots/x", [b"commit"])


def test_a_store_without_conditional_puts(stub: Stub, backend: FsspecBackend) -> None:
    """501 Not Implemented: look, then put; the probe will find that it is no promise."""
    stub.script = [Answer(501, "NotImplemented")]
    backend.put_if_absent("a", [b"1"])
    assert stub.objects == {"/bucket/repo/a": b"1"}
    assert [method for method, _ in stub.seen] == ["PUT", "HEAD", "PUT"]
    with pytest.raises(Exists):
        backend.put_if_absent("a", [b"2"])
    assert stub.objects == {"/bucket/repo/a": b"1"}


def test_short_and_wrong_bodies(stub: Stub, backend: FsspecBackend) -> None:
    def partial(first: int, last: int, size: int, body: bytes) -> Answer:
        return Answer(206, body=body, headers={"Content-Range": f"bytes {first}-{last}/{size}"})

    stub.script = [Answer(body=b"12345", headers={"Content-Length": "10"})]
    with pytest.raises(StoreUnavailable):  # the connection broke: worth a retry
        backend.get("a")
    wrong = [
        Answer(body=b"0123456789"),  # the whole object although a range was asked for
        Answer(body=b"2345"),  # the right bytes, but nothing says which they are
        partial(3, 6, 10, b"3456"),
        partial(2, 4, 10, b"234"),
        partial(2, 5, 10, b"234"),
        partial(2, 4, 5, b"234"),  # the object ends before the range does
    ]
    for answer in wrong:
        stub.script = [answer]
        with pytest.raises(Damaged):
            backend.get("a", 2, 4)
    stub.script = [partial(2, 5, 10, b"2345"), partial(2, 9, 10, b"23456789")]
    assert backend.get("a", 2, 4) == b"2345"
    assert backend.get("a", 2) == b"23456789"


def test_a_server_without_ranges(stub: Stub, through_s3fs: FsspecBackend) -> None:
    """The whole is no damage if it is what was asked for."""
    stub.script = [Answer(body=b"0123456789")] * 2
    assert through_s3fs.get("a", 0, 10) == b"0123456789"
    with pytest.raises(Damaged):
        through_s3fs.get("a", 0, 9)


def test_a_body_shorter_than_announced(through_s3fs: FsspecBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the HTTP library ever let one through."""

    async def short(*args: Any) -> tuple[bytes, dict[str, int]]:
        return b"123", {"ContentLength": 5}

    monkeypatch.setattr(through_s3fs._driver, "_get", short)
    with pytest.raises(StoreUnavailable, match="3 bytes came of 5"):
        through_s3fs.get("a")


def test_what_obstore_cannot_be_told(stub: Stub) -> None:
    """Rather than that it is ignored."""
    url, options = stub.place()
    client = {**options["client_kwargs"], "verify": False}
    for extra in ({"anon": True}, {"config_kwargs": {}}, {"client_kwargs": client}, {"driver": "boto"}):
        with pytest.raises(InvalidInput) as caught:
            FsspecBackend(url, {**options, "driver": "obstore", **extra})
        assert re.search("anon|config_kwargs|verify|'boto'", str(caught.value)) and "testtest" not in str(caught.value)


def test_obstore_with_what_botocore_finds(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile, as with s3fs; and where it finds none, that is said."""
    url, options = stub.place()
    (tmp_path / "credentials").write_text("[mine]\naws_access_key_id = found\naws_secret_access_key = sec-ret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    place = {"driver": "obstore", "client_kwargs": options["client_kwargs"]}
    FsspecBackend(url, {**place, "profile": "mine"}).put("a", [b"x"])
    assert stub.objects == {"/bucket/repo/a": b"x"} and "Credential=found/" in stub.headers[-1]["Authorization"]
    with pytest.raises(StoreDenied, match="credentials"):
        FsspecBackend(url, place).put("b", [b"x"])


def test_nothing_is_shared_with_strangers(stub: Stub) -> None:
    """fsspec hands out one instance, with its listings, to all who ask alike."""
    drivers: list[Any] = [FsspecBackend(*stub.place())._driver for _ in range(2)]
    assert drivers[0]._fs is not drivers[1]._fs
    assert not drivers[0]._fs.dircache.use_listings_cache


def test_what_fsspec_is_configured_with_is_added_to(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own configuration would give way to ours, or ours to it; and the place would not say which server it is."""
    url, options = stub.place(connect_timeout=3)
    monkeypatch.setitem(fsspec.config.conf, "s3", {**options, "secret": "from-configuration"})
    backend = FsspecBackend(url, {"secret": "given"})
    driver: Any = backend._driver
    assert driver._fs.secret == "given" and driver._fs.key == options["key"]
    assert driver._fs.config_kwargs["connect_timeout"] == 3 and driver._fs.config_kwargs["read_timeout"] == 30
    assert f"127.0.0.1:{stub.port}" in backend.url
    backend.put("a", [b"x"])
    assert stub.objects == {"/bucket/repo/a": b"x"}


PAGE = "<ListBucketResult><IsTruncated>{more}</IsTruncated>{token}{items}</ListBucketResult>"
ITEM = "<Contents><Key>{key}</Key><Size>{size}</Size></Contents>"


def page(*keys: str, token: str = "", more: bool = False) -> Answer:
    items = "".join(ITEM.format(key=key, size=len(key)) for key in keys)
    text = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return Answer(body=PAGE.format(more=str(more).lower(), token=text, items=items).encode())


def test_listing_over_pages_in_any_order(stub: Stub, backend: FsspecBackend) -> None:
    """SeaweedFS sorts by folder, so that ``a/b`` comes before ``a-b``."""
    stub.script = [page("repo/a/b", "repo/a/", "repo/a-b", token="t1", more=True), page("repo/a/.tmp-1", "repo/0")]
    assert [info.name for info in backend.list()] == ["0", "a-b", "a/b"]
    assert len(stub.seen) == 2


@pytest.mark.parametrize(
    "second",
    [Answer(500, "InternalError"), Answer(drop=True), page("repo/b", more=True), page("repo/b", token="t1", more=True)],
)
def test_a_listing_that_breaks_off_is_an_error(stub: Stub, backend: FsspecBackend, second: Answer) -> None:
    stub.script = [page("repo/a", token="t1", more=True), second]
    with pytest.raises(StoreUnavailable):
        list(backend.list())
    assert len(stub.seen) == 2


@pytest.mark.parametrize("body", ["", "<html></html>", "<html><body>Log in</body></html>", "<ListBucketResult/>"])
def test_what_is_no_listing_is_not_an_empty_one(stub: Stub, backend: FsspecBackend, body: str) -> None:
    """botocore finds nothing in it, and a prune would take that for an empty repository."""
    stub.script = [Answer(body=body.encode())]
    with pytest.raises(StoreUnavailable, match="no listing"):
        list(backend.list())


def test_a_full_page_that_calls_itself_the_last_is_asked_about(
    stub: Stub, backend: FsspecBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers forget to go on after a thousand names (restic#1246, #3317)."""
    monkeypatch.setattr(remote_s3, "PAGE", 2)
    stub.script = [page("repo/a", "repo/b"), page("repo/c")]
    with pytest.raises(StoreUnavailable, match="before its end"):
        list(backend.list())
    stub.script = [page("repo/a", "repo/b"), page()]
    assert [info.name for info in backend.list()] == ["a", "b"]
    stub.script = [page("repo/a/b", "repo/a-b"), page("repo/a/b")]  # which it goes through in another order
    assert [info.name for info in backend.list()] == ["a-b", "a/b"]
    stub.seen.clear()
    stub.script = [page("repo/a")]
    assert [info.name for info in backend.list()] == ["a"] and len(stub.seen) == 1


def test_names_that_were_not_asked_for_are_left_out(stub: Stub, backend: FsspecBackend) -> None:
    """They would be taken for what was: a copy would get a mark, or a record, of the source's own."""
    strange = "repo/notes", "repo/local/replica/mark", "other/notes/b", "notes/c"
    stub.script = [page("repo/notes/a", *strange)]
    assert [info.name for info in backend.list("notes/")] == ["notes/a"]
    stub.script = [page("repo/notes/a", "other/notes/b", "notes/c")]
    assert [info.name for info in backend.list()] == ["notes/a"]


def test_a_page_that_lacks_what_it_counts(stub: Stub, backend: FsspecBackend) -> None:
    whole = page("repo/a", "repo/b")
    short = whole.body.replace(b"<IsTruncated>", b"<KeyCount>3</KeyCount><IsTruncated>")
    stub.script = [Answer(body=short)]
    with pytest.raises(StoreUnavailable, match="2 of 3"):
        list(backend.list())
    stub.script = [Answer(body=short.replace(b"3</KeyCount>", b"2</KeyCount>"))]
    assert len(list(backend.list())) == 2


@pytest.mark.server
@pytest.mark.parametrize("server", ["seaweedfs", "moto_s3", "rclone_s3"])
def test_listings_of_exactly_full_pages(
    server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every server that is at hand: nothing is missed, and nothing looks as if it were."""
    monkeypatch.setattr(remote_s3, "PAGE", 3)
    backend = FsspecBackend(*request.getfixturevalue(server)(), create=True)
    wanted = ["a-b", "a/b", "a/c", "b", "c/d/e", "z"]
    for count, name in enumerate(wanted, 1):
        backend.put(name, [b"x"])
        assert [info.name for info in backend.list()] == sorted(wanted[:count])


def test_a_refusal_means_taken_only_to_who_creates(stub: Stub, backend: FsspecBackend) -> None:
    stub.objects["/bucket/repo/a"] = b"x"
    for call in (
        lambda: backend.get("a"),
        lambda: backend.head("a"),
        lambda: backend.put("a", [b"x"]),
        lambda: backend.delete("a"),
        lambda: list(backend.list()),
    ):
        stub.script = [Answer(412, "PreconditionFailed")]
        with pytest.raises(StoreUnavailable):
            call()


def test_a_cancelled_request_is_no_success(through_s3fs: FsspecBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec's sync() gives None then."""

    async def cancelled(*args: Any, **kwargs: Any) -> None:
        raise asyncio.CancelledError

    driver: Any = through_s3fs._driver
    monkeypatch.setattr(driver._fs, "_call_s3", cancelled)
    for call in (
        lambda: through_s3fs.get("a"),
        lambda: through_s3fs.put("a", [b"x"]),
        lambda: through_s3fs.put_if_absent("a", [b"x"]),
        lambda: through_s3fs.delete("a"),
        lambda: list(through_s3fs.list()),
    ):
        with pytest.raises(StoreUnavailable, match="cancelled"):
            call()


def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
        options = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": endpoint}}
        backend = RetryBackend(FsspecBackend("s3://bucket/repo", options), RetryPolicy(until_first_success=0.1))
        with pytest.raises(StoreUnavailable) as caught:
            backend.get("config")
    assert "s3://bucket/repo" in str(caught.value) and endpoint in str(caught.value)


def test_a_server_that_never_answers() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        stub = Stub()
        stub.port = silent.getsockname()[1]
        backend = FsspecBackend(*stub.place(read_timeout=0.2))
        with pytest.raises(StoreUnavailable):
            backend.get("config")


def test_secrets_are_never_shown(stub: Stub) -> None:
    secret = "wJalrXUtnFEMI/K7MDENG"
    url, options = stub.place()
    options["secret"] = secret
    backend = FsspecBackend(url, options)
    error = f"<Error><Code>AccessDenied</Code><Message>bad {secret} of http://u:p@host/</Message></Error>".encode()
    stub.script = [Answer(403, body=error)]
    with pytest.raises(StoreDenied) as caught:
        backend.get("a")
    shown = str(caught.value) + repr(backend) + backend.url
    assert secret not in shown and "u:p@" not in shown
    assert "AccessDenied" in shown


@pytest.mark.parametrize(
    "url", ["s3://key:sec-ret@bucket/repo", "s3://sec-ret@bucket/repo", "s3://bucket/repo?secret=sec-ret"]
)
def test_credentials_in_the_url_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_backend(url)
    assert "sec-ret" not in str(caught.value)


def test_credentials_in_the_endpoint_are_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        open_backend("s3://bucket/repo", {"client_kwargs": {"endpoint_url": "http://me:sec-ret@127.0.0.1:1"}})
    assert "sec-ret" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://", "s3:///path"])
def test_no_bucket(url: str) -> None:
    with pytest.raises(InvalidInput):
        open_backend(url, {"key": "k", "secret": "s"})


def test_a_fork_ends_it(stub: Stub, backend: FsspecBackend) -> None:
    backend.put("a", [b"x"])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            backend.get("a")
        except InvalidInput:
            backend.close()  # does not touch the parent's connections
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert backend.get("a") == b"x"


def test_too_large_for_one_request(backend: FsspecBackend) -> None:
    big = memoryview(bytearray(1 << 20))
    with pytest.raises(InvalidInput):
        backend.put("a", [big] * 5121)


@pytest.mark.server
class TestReal:
    @pytest.fixture(params=["seaweedfs", "moto_s3", "rclone_s3"])
    def fresh(self, request: pytest.FixtureRequest) -> Fresh:
        fresh: Fresh = request.getfixturevalue(request.param)
        return fresh

    def test_listings_are_never_stale(self, fresh: Fresh) -> None:
        """s3fs keeps listings, and instances, unless told otherwise."""
        url, options = fresh()
        one, two = open_backend(url, options), open_backend(url, options)
        one.put("index/1", [b"x"])
        assert len(list(one.list())) == len(list(two.list())) == 1
        two.put("index/2", [b"yy"])
        assert list(one.list("index/")) == [ObjectInfo("index/1", 1), ObjectInfo("index/2", 2)]
        one.delete("index/1")
        assert list(two.list("index/")) == [ObjectInfo("index/2", 2)]
        with pytest.raises(NotFound):
            two.head("index/1")

    def test_missing_bucket(self, fresh: Fresh) -> None:
        url, options = fresh()
        gone = url.replace("s3://test-", "s3://gone-")
        backend = open_backend(gone, options)
        with pytest.raises(RepositoryNotFound):
            list(backend.list())
        made = open_backend(gone, options, create=True)
        made.put("a", [b"x"])
        assert [info.name for info in backend.list()] == ["a"]

    def test_bucket_itself_as_root(self, fresh: Fresh) -> None:
        url, options = fresh()
        backend = open_backend(url.removesuffix("/repo"), options)
        backend.put("a/b", [b"x"])
        assert [info.name for info in backend.list("a/")] == ["a/b"]

    def test_neighbours_are_not_listed(self, fresh: Fresh) -> None:
        url, options = fresh()
        open_backend(url + "-other", options).put("a", [b"x"])
        backend = open_backend(url, options)
        backend.put("b", [b"x"])
        assert [info.name for info in backend.list()] == ["b"]


@pytest.mark.server
def test_wrong_credentials(seaweedfs: Fresh) -> None:
    url, options = seaweedfs()
    backend = open_backend(url, {**options, "secret": "not-the-secret"})
    for call in (lambda: backend.get("a"), lambda: backend.put("a", [b"x"]), lambda: list(backend.list())):
        with pytest.raises(StoreDenied) as caught:
            call()
        assert "not-the-secret" not in str(caught.value)


@pytest.mark.server
def test_s3fs_loses_the_meaning_of_a_refusal(seaweedfs: Fresh) -> None:
    """Why the S3 code is read and not the errno.  If this fails, s3fs was mended."""
    url, options = seaweedfs()
    fs = fsspec.filesystem("s3", **options, skip_instance_cache=True)
    fs.pipe_file(f"{url}/a", b"1", mode="create")
    with pytest.raises(OSError) as caught:
        fs.pipe_file(f"{url}/a", b"2", mode="create")
    assert caught.value.errno == errno.EINVAL and not isinstance(caught.value, FileExistsError)
    backend: Backend = open_backend(url, options)
    with pytest.raises(Exists):
        backend.put_if_absent("a", [b"2"])


def test_bodies_are_sent_as_they_are(stub: Stub, backend: FsspecBackend) -> None:
    body = bytes(range(256)) * 100
    backend.put("a", [memoryview(body)[:100], bytearray(body[100:200]), body[200:]])
    assert stub.objects["/bucket/repo/a"] == body


def test_only_a_large_body_waits_for_the_server(stub: Stub, through_s3fs: FsspecBackend) -> None:
    """To be asked costs a round trip, and spares a body that would be refused."""
    for size in (0, remote_s3.ASKED_FROM - 1, remote_s3.ASKED_FROM):
        through_s3fs.put(f"{size}", [bytes(size)])
        assert len(stub.objects[f"/bucket/repo/{size}"]) == size
    assert [h.get("Expect") for h in stub.headers] == [None, None, "100-continue"]
