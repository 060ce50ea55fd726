"""S3 and what speaks its protocol, through s3fs.

One request a call, so that a lost reply is seen by whoever retries (botocore's and s3fs's own retries would turn our
own success into a refusal), and no multipart uploads, so that nothing is left half-written.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]
from fsspec.core import url_to_fs

from snapvault.backend.body import body
from snapvault.backend.names import check_content_range, end_of, is_name, total
from snapvault.backend.object_lock import LockRule
from snapvault.backend.protocol import Buffer, Exists, ObjectInfo
from snapvault.backend.remote_asyn import run
from snapvault.backend.remote_errors import s3_code
from snapvault.backend.remote_s3_lock import S3ObjectLock
from snapvault.foundation.errors import InvalidInput, StoreUnavailable
from snapvault.platform.remote import CONNECT_TIMEOUT, READ_TIMEOUT

MAX_PUT = 5 * 2**30  # bytes, of one PUT request
ASKED_FROM = 1 << 20  # bytes; a smaller body is sent at once, a larger one when the server said "100 Continue"
PAGE = 1000  # names of a listing in one reply; the most that S3 gives


class _OneRequest(AIOHTTPSession):  # type: ignore[misc]
    """aiohttp sends a PUT again by itself when a kept connection broke, and our own object would then refuse it."""

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = await super()._get_session(proxy_url)
        session._retry_connection = False  # aiohttp has no public switch; a test counts the requests
        return session


def _without_asking(params: dict[str, Any], **_: Any) -> None:
    """botocore asks the server before each body, which is a round trip more."""
    if "Expect" in params["headers"]:
        if params["body"].seek(0, io.SEEK_END) < ASKED_FROM:
            del params["headers"]["Expect"]
        params["body"].seek(0)


_CONFIG = {
    "http_session_cls": _OneRequest,
    "connect_timeout": CONNECT_TIMEOUT,
    "read_timeout": READ_TIMEOUT,
    "max_pool_connections": 32,
    "retries": {"total_max_attempts": 1},
    # what is read is verified by its digest; several servers send checksums that botocore does not understand
    "response_checksum_validation": "when_required",
}


class S3Driver:
    def __init__(self, url: str, options: Mapping[str, Any], *, create: bool, rule: LockRule | None = None) -> None:
        merged = {**options, "config_kwargs": {**_CONFIG, **options.get("config_kwargs", {})}}
        # the listings cache is stale as soon as somebody else writes, and cached instances are shared with strangers
        self._fs, path = url_to_fs(url, **merged, use_listings_cache=False, skip_instance_cache=True)
        self._fs.retries = 1
        self.bucket, _, key = path.partition("/")
        if not self.bucket:
            raise InvalidInput("an S3 URL names a bucket", hint="s3://bucket/path")
        self._root = key.strip("/") + "/" if key.strip("/") else ""
        self._region = options.get("client_kwargs", {}).get("region_name")
        endpoint = options.get("endpoint_url") or options.get("client_kwargs", {}).get("endpoint_url")
        if endpoint and urlsplit(endpoint).username is not None:
            raise InvalidInput("the endpoint URL contains credentials", hint="pass them as key and secret")
        self.place = f"{url} at {endpoint}" if endpoint else url
        self._conditional = True
        self.hides_deleted = False  # seen: the bucket has versions
        self.locks = S3ObjectLock(rule, self) if rule else None
        self._fs.connect()  # no request yet, but options that do not exist show here
        self._fs.s3.meta.events.register_last("before-call.s3", _without_asking)
        if create:
            self._make_bucket()

    def write(self, name: str, data: Sequence[Buffer], *, create: bool) -> None:
        size = total(data)
        if size > MAX_PUT:
            raise InvalidInput(f"{name} has {size} bytes; S3 takes {MAX_PUT} in one request", affected=[name])
        if create and not self._conditional:
            self._refuse_if_there(name)
        conditional = create and self._conditional
        try:
            self._put(name, data, conditional=conditional)
        except Exception as err:
            if not conditional or s3_code(err)[1] != 501:
                raise
            self._conditional = False  # the store has no such thing; the probe will see that
            self.write(name, data, create=True)

    def read(self, name: str, start: int, length: int | None) -> bytes:
        if length == 0:
            end_of(name, self.size(name), start, length)
            return b""
        ranged = bool(start) or length is not None
        last = "" if length is None else str(start + length - 1)
        try:
            wanted = {"Range": f"bytes={start}-{last}"} if ranged else {}
            body, headers = run(self._fs, self._get(name, wanted, length), self.place)
        except OSError as err:
            if s3_code(err)[1] != 416:
                raise
            end_of(name, self.size(name), start, length)  # says Damaged, unless it was the empty rest
            return b""
        if len(body) != headers["ContentLength"]:
            raise StoreUnavailable(f"{name}: {len(body)} bytes came of {headers['ContentLength']}", affected=[name])
        if ranged:
            check_content_range(name, headers.get("ContentRange"), len(body), start, length)
        return body

    def size(self, name: str) -> int:
        return int(self.call("head_object", name)["ContentLength"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Holds all names of the listing in memory: not every server sorts across folders."""
        keys: dict[str, int] = {}
        for page in self._pages(self._root + prefix):
            keys.update((str(item["Key"]), int(item["Size"])) for item in page)
        if page and len(page) >= PAGE:  # a full page that says it is the last: some servers only forget to go on
            further = self._page(self._root + prefix, StartAfter=page[-1]["Key"]).get("Contents", ())
            if any(str(item["Key"]) not in keys for item in further):
                raise StoreUnavailable(f"{self.place} ended a listing of {prefix} before its end")
        # Whatever else a store sends: below another prefix it would be taken for something that it is not.
        wanted = (key for key in keys if key.startswith(self._root + prefix))
        names = {key.removeprefix(self._root): keys[key] for key in wanted}
        return (ObjectInfo(name, names[name]) for name in sorted(names) if is_name(name))

    def remove(self, name: str) -> None:
        """In a bucket with versions it is only hidden."""
        self.hides_deleted |= bool(self.call("delete_object", name).get("DeleteMarker"))

    def remove_stale_temps(self, older_than: float) -> int:
        """There are none: a PUT stores the whole object or nothing."""
        return 0

    def close(self) -> None:
        creator = getattr(self._fs, "_s3creator", None)
        if creator is not None:
            self._fs.close_session(self._fs.loop, creator)

    def _put(self, name: str, data: Sequence[Buffer], *, conditional: bool) -> None:
        condition = {"IfNoneMatch": "*"} if conditional else {}
        lock = self.locks.headers(name) if self.locks else {}
        self.call("put_object", name, Body=body(data), **condition, **lock)

    def key(self, name: str) -> str:
        """Where the object lies in the bucket."""
        return self._root + name

    def call(self, method: str, name: str, **arguments: Any) -> Mapping[str, Any]:
        """One request about an object."""
        return self.ask(method, Key=self.key(name), **arguments)

    def ask(self, method: str, **arguments: Any) -> Mapping[str, Any]:
        """One request about the bucket."""
        return run(self._fs, self._fs._call_s3(method, Bucket=self.bucket, **arguments), self.place)

    async def _get(self, name: str, extra: Mapping[str, str], most: int | None) -> tuple[bytes, Mapping[str, Any]]:
        reply = await self._fs._call_s3("get_object", Bucket=self.bucket, Key=self.key(name), **extra)
        try:
            if most is not None and reply["ContentLength"] > most:  # it ignored the range, perhaps of a terabyte
                return b"", {**reply, "ContentLength": 0, "ContentRange": None}
            return await reply["Body"].read(), reply
        finally:
            reply["Body"].close()

    def _page(self, prefix: str, **where: str) -> Mapping[str, Any]:
        """One page of a listing; StoreUnavailable if it does not hold what it says."""
        page = self.ask("list_objects_v2", Prefix=prefix, MaxKeys=PAGE, **where)
        if "IsTruncated" not in page:  # anything at all, and nothing, is understood as an empty listing
            raise StoreUnavailable(f"what {self.place} sent is no listing")
        items = page.get("Contents", ())
        if page.get("KeyCount", len(items)) != len(items):
            raise StoreUnavailable(f"{self.place} sent {len(items)} of {page['KeyCount']} names below {prefix}")
        return page

    def _pages(self, prefix: str) -> Iterator[Sequence[Mapping[str, Any]]]:
        token: dict[str, str] = {}
        while True:
            page = self._page(prefix, **token)
            yield page.get("Contents", ())
            if not page["IsTruncated"]:
                return
            following = {"ContinuationToken": page.get("NextContinuationToken", "")}
            if following == token or not following["ContinuationToken"]:
                raise StoreUnavailable(f"{self.place} broke off a listing of {prefix}")
            token = following

    def _refuse_if_there(self, name: str) -> None:
        try:
            self.size(name)
        except FileNotFoundError:
            return
        raise Exists(f"{name} is already in {self.place}", affected=[name])

    def _make_bucket(self) -> None:
        try:
            self.ask("head_bucket")
        except FileNotFoundError:
            # the region that is the default must not be named, which fsspec's mkdir does
            abroad = self._region not in (None, "us-east-1")
            where = {"CreateBucketConfiguration": {"LocationConstraint": self._region}} if abroad else {}
            lock = {"ObjectLockEnabledForBucket": True} if self.locks else {}
            self.ask("create_bucket", **where, **lock)
