"""Any fsspec URL as a backend (docs/backends.md).

fsspec's file systems differ in what they promise and some promise more than they do.  The drivers below work around
what is known (each of it has a test), and nothing is believed that the probe has not seen.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from snapvault.backend.names import check_name, check_prefix, check_range
from snapvault.backend.object_lock import LockRule, ObjectLocks, take_rule
from snapvault.backend.protocol import Buffer, Exists, NotFound, ObjectInfo
from snapvault.backend.remote_errors import kind_of, reason, secrets_in, shown_cause
from snapvault.foundation.errors import InvalidInput, RepositoryNotFound, SnapvaultError, StoreUnavailable
from snapvault.platform.remote import OBJECT_LOCK

T = TypeVar("T")

_S3 = frozenset({"s3", "s3a"})
_SFTP = frozenset({"sftp", "ssh"})
_HTTP = frozenset({"http", "https"})
_WEBDAV = frozenset({"webdav", "dav"})
_REFUSED = {
    "sshfs": "it ignores ranges and loses files in moves; use sftp://",
    "file": "it never syncs to disk; use a plain path",
    "local": "it never syncs to disk; use a plain path",
    "simplecache": "a cache in front of a store hides its state; use the store's own URL",
    "filecache": "a cache in front of a store hides its state; use the store's own URL",
    "blockcache": "a cache in front of a store hides its state; use the store's own URL",
}
EXTRAS = {
    **dict.fromkeys(_S3, "s3"),
    **dict.fromkeys(_SFTP, "sftp"),
    **dict.fromkeys(_HTTP, "http"),
    **dict.fromkeys(_WEBDAV, "webdav"),
    "obstore": "obstore",
}


class Driver(Protocol):
    """One kind of file system.  Raises what it likes; ``FsspecBackend`` maps it."""

    @property
    def place(self) -> str:
        """The URL for messages."""
        ...

    def write(self, name: str, data: Sequence[Buffer], *, create: bool) -> None: ...

    def read(self, name: str, start: int, length: int | None) -> bytes: ...

    def size(self, name: str) -> int: ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]: ...

    def remove(self, name: str) -> None: ...

    def remove_stale_temps(self, older_than: float) -> int: ...

    def close(self) -> None: ...


class FsspecBackend:
    """A place behind an fsspec URL such as ``s3://bucket/path`` or ``sftp://host/path``.

    ``storage_options`` go to the file system; credentials belong there or into the driver's own configuration, never
    into the URL.  ``create`` makes the bucket or folder if it is missing.  Thread-safe; refuses use after a fork.
    Raises InvalidInput for a URL that cannot work (unknown protocol, driver not installed, credentials in it).
    """

    remote = True

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None, *, create: bool = False) -> None:
        parts = check_url(url)
        self._secrets = secrets_in(storage_options or {})
        self._pid = os.getpid()
        self._closed = False
        self._url = self._address = url.rstrip("/")
        with self._mapped("", missing=RepositoryNotFound):
            options = _configured(parts.scheme, storage_options or {})
            self._secrets = secrets_in(options)
            self.lock_rule = take_rule(options)
            self._driver = _make_driver(parts.scheme, self._url, options, self.lock_rule, create=create)
        self._url = self._driver.place

    @property
    def url(self) -> str:
        return self._url

    @property
    def address(self) -> str:
        """What was given, to open the same place again: ``url`` may say more than a URL."""
        return self._address

    def __repr__(self) -> str:
        return f"FsspecBackend({self._url!r})"

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        with self._mapped(check_name(name), missing=StoreUnavailable):
            self._driver.write(name, data, create=False)

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        with self._mapped(check_name(name), missing=StoreUnavailable, taken=Exists):
            self._driver.write(name, data, create=True)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_range(name, start, length)
        with self._mapped(check_name(name)):
            return self._driver.read(name, start, length)

    def head(self, name: str) -> ObjectInfo:
        with self._mapped(check_name(name)):
            return ObjectInfo(name, self._driver.size(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._list(check_prefix(prefix))

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._mapped(prefix, missing=RepositoryNotFound):
            yield from self._driver.list(prefix)

    def delete(self, name: str) -> None:
        with contextlib.suppress(NotFound), self._mapped(check_name(name)):
            self._driver.remove(name)

    def remove_stale_temps(self, older_than: float) -> int:
        """Delete what killed writers left half-written ``older_than`` seconds ago or longer; how many."""
        with self._mapped("", missing=RepositoryNotFound):
            return self._driver.remove_stale_temps(older_than)

    @property
    def hides_deleted(self) -> bool:
        """Whether what was deleted was seen to stay as an older version."""
        return bool(getattr(self._driver, "hides_deleted", False))

    def with_locks(self, name: str, call: Callable[[ObjectLocks], T]) -> T:
        """See LockingBackend."""
        locks: ObjectLocks | None = getattr(self._driver, "locks", None)
        if locks is None:
            raise InvalidInput(f"{self._url} was opened without the storage option {OBJECT_LOCK}")
        with self._mapped(check_name(name)):
            return call(locks)

    def close(self) -> None:
        if not self._closed and os.getpid() == self._pid:  # a child must not shut its parent's connections
            self._closed = True
            with self._mapped(""):
                self._driver.close()

    @contextlib.contextmanager
    def _mapped(
        self, name: str, *, missing: type[SnapvaultError] = NotFound, taken: type[SnapvaultError] = StoreUnavailable
    ) -> Iterator[None]:
        """``missing`` and ``taken``: what "not there" and "there already" mean for this call.

        Only of an object that was asked for is it NotFound, and only to who wants to create one Exists.
        """
        if os.getpid() != self._pid:
            raise InvalidInput(f"{self._url} was opened before a fork", hint="open it again in the child process")
        try:
            yield
        except SnapvaultError:
            raise
        except Exception as err:
            kind = kind_of(err)
            if kind is None:
                raise
            error = self._error({NotFound: missing, Exists: taken}.get(kind, kind), err, name)
            raise error from shown_cause(err, self._secrets)

    def _error(self, kind: type[SnapvaultError], err: Exception, name: str) -> SnapvaultError:
        where = f"{name} in {self._url}" if name else self._url
        text = f"there is no {where}" if kind is NotFound else f"{where}: {reason(err, self._secrets)}"
        return kind(text, affected=[name] if name else [])


def check_url(url: str) -> SplitResult:
    """The parts of a URL; InvalidInput if it cannot be one of a store.  Never repeats what may be a password."""
    if "::" in url.partition("://")[0]:
        raise InvalidInput("chained URLs are no store", hint="use the URL of the store itself")
    parts = urlsplit(url)
    if not parts.scheme or "://" not in url:
        raise InvalidInput("not a URL", hint="expected something like s3://bucket/path")
    if parts.password is not None or (parts.username is not None and parts.scheme not in _SFTP):
        raise InvalidInput(
            f"the {parts.scheme} URL contains credentials",
            hint="pass them as storage options, or let the driver find them in its own configuration",
        )
    if parts.query or parts.fragment:
        raise InvalidInput(f"the {parts.scheme} URL contains '?' or '#'", hint="pass options as storage options")
    if parts.scheme in _REFUSED:
        raise InvalidInput(f"fsspec's {parts.scheme} is not used for repositories", hint=_REFUSED[parts.scheme])
    return parts


def _configured(scheme: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with what fsspec's own configuration (its files, FSSPEC_...) has besides for such URLs."""
    import fsspec  # drivers are heavy, and most processes need one of them or none

    try:
        return dict(fsspec.config.apply_config(fsspec.get_filesystem_class(scheme), dict(given)))
    except ImportError as err:
        raise _not_installed(scheme, err) from err


def _make_driver(scheme: str, url: str, options: dict[str, Any], rule: LockRule | None, *, create: bool) -> Driver:
    if rule is not None and scheme not in _S3:
        raise InvalidInput(f"{url}: no object can be locked there", hint=f"the storage option {OBJECT_LOCK} is for S3")
    through = options.pop("driver", "s3fs") if scheme in _S3 else ""
    try:
        return _driver_class(scheme, through)(url, options, create=create, **({"rule": rule} if rule else {}))
    except ImportError as err:
        raise _not_installed("obstore" if through == "obstore" else scheme, err) from err
    except (ValueError, TypeError, KeyError) as err:
        secrets = secrets_in(options)
        text = f"{url} with these storage options: {reason(err, secrets)}"
        raise InvalidInput(text, hint="check URL and storage options") from shown_cause(err, secrets)


def _driver_class(scheme: str, through: str) -> Callable[..., Driver]:
    if through == "obstore":
        from snapvault.backend.remote_obstore import ObstoreDriver

        return ObstoreDriver
    if through == "s3fs":
        from snapvault.backend.remote_s3 import S3Driver

        return S3Driver
    if through:
        raise ValueError(f"driver is 's3fs' or 'obstore', not {through!r}")
    if scheme in _SFTP:
        from snapvault.backend.remote_sftp import SftpDriver

        return SftpDriver
    if scheme in _HTTP:
        from snapvault.backend.remote_http import HttpDriver

        return HttpDriver
    if scheme in _WEBDAV:
        from snapvault.backend.remote_webdav import WebdavDriver

        return WebdavDriver
    from snapvault.backend.remote_generic import GenericDriver

    return GenericDriver


def _not_installed(scheme: str, err: ImportError) -> InvalidInput:
    extra = EXTRAS.get(scheme)
    hint = f"pip install 'snapvault[{extra}]'" if extra else str(err)
    return InvalidInput(f"what {scheme} needs is not installed", hint=hint)
