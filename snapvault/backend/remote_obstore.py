"""S3 objects through obstore, which takes less of the processor; all else through s3fs as before (docs/adr/0012).

Not its listings: it takes a reply that is no listing for an empty one, and a page that was cut short for the last.  Nor
its retries, multipart uploads and bulk deletion, each of which would do more than was asked for.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import NoCredentialsError  # type: ignore[import-untyped]
from obstore.exceptions import BaseError
from obstore.store import S3Store

from snapvault.backend.names import end_of
from snapvault.backend.object_lock import LockRule
from snapvault.backend.protocol import Buffer
from snapvault.backend.remote_asyn import run
from snapvault.backend.remote_errors import s3_code
from snapvault.backend.remote_s3 import S3Driver
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.platform.remote import CONNECT_TIMEOUT, READ_TIMEOUT

# What both libraries can be told.  Whatever else s3fs understands would be ignored for the objects.
OPTIONS = frozenset({"key", "secret", "token", "profile", "endpoint_url", "client_kwargs"})
CLIENT_OPTIONS = frozenset({"endpoint_url", "region_name"})
_CREDENTIALS = timedelta(minutes=5)  # after which those that botocore finds are asked for again
# obstore has no time-out that begins once a body was sent: one that tells a dead server soon would end slow uploads.
_WHOLE_PUT = 15 * 60  # seconds


class ObstoreDriver(S3Driver):
    """Takes the place of S3Driver where the storage option ``driver`` is ``obstore``."""

    def __init__(self, url: str, options: Mapping[str, Any], *, create: bool, rule: LockRule | None = None) -> None:
        if rule is not None:  # it cannot send the headers
            raise InvalidInput("the obstore driver locks no objects", hint="leave out driver = 'obstore'")
        unknown = (options.keys() - OPTIONS) | (options.get("client_kwargs", {}).keys() - CLIENT_OPTIONS)
        if unknown:
            raise InvalidInput(
                f"the obstore driver does not know the storage option {min(unknown)!r}",
                hint="leave out driver = 'obstore'",
            )
        super().__init__(url, options, create=create)
        self._reads = self._store(read_timeout=f"{READ_TIMEOUT}s", timeout="1day")
        self._writes = self._store(timeout=f"{_WHOLE_PUT}s")

    def _store(self, **timeouts: str) -> S3Store:
        client = self._fs._s3.meta
        plain = client.endpoint_url.startswith("http:")
        options: Any = {"connect_timeout": f"{CONNECT_TIMEOUT}s", "allow_http": plain, **timeouts}
        return S3Store(
            self.bucket, endpoint=client.endpoint_url, region=client.region_name, conditional_put="etag",
            disable_bulk_delete=True, credential_provider=self._credentials, retry_config={"max_retries": 0},
            client_options=options,
        )  # fmt: skip

    def _credentials(self) -> Any:
        """Given ones, or what botocore finds: the environment, profiles, roles."""

        async def frozen() -> Any:
            found = await self._fs.session.get_credentials()
            return await found.get_frozen_credentials() if found is not None else None

        fs = self._fs
        if fs.key and fs.secret:
            return {"access_key_id": fs.key, "secret_access_key": fs.secret, "token": fs.token, "expires_at": None}
        found = run(fs, frozen(), self.place)
        if found is None:
            raise NoCredentialsError
        names = {"access_key_id": found.access_key, "secret_access_key": found.secret_key, "token": found.token}
        return {**names, "expires_at": datetime.now(UTC) + _CREDENTIALS}

    def read(self, name: str, start: int, length: int | None) -> bytes:
        if length == 0:
            end_of(name, self.size(name), start, length)
            return b""
        wanted: Any = {} if not start and length is None else {"range": {"offset": start}}
        if length is not None:
            wanted = {"range": (start, start + length)}
        try:
            found = self._reads.get(self.key(name), options=wanted)
            body = bytes(found.bytes())
        except BaseError as err:
            code, status = s3_code(err)
            if status == 416:
                end_of(name, self.size(name), start, length)  # says Damaged, unless it was the empty rest
                return b""
            if not (code or status) and "HTTP error" not in str(err):  # its own checks of what came
                raise Damaged(f"{name}: {str(err).partition(chr(10))[0]}", affected=[name]) from err
            raise
        end = end_of(name, found.meta["size"], start, length)
        if tuple(found.range) != (start, end) or len(body) != end - start:
            raise Damaged(f"{name}: {len(body)} bytes came instead of {end - start}", affected=[name])
        return body

    def size(self, name: str) -> int:
        return int(self._reads.head(self.key(name))["size"])

    def remove(self, name: str) -> None:
        self._reads.delete(self.key(name))

    def _put(self, name: str, data: Sequence[Buffer], *, conditional: bool) -> None:
        mode: Any = "create" if conditional else "overwrite"
        self._writes.put(self.key(name), b"".join(data), mode=mode, use_multipart=False)
