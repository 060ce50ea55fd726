"""From what a user writes to a backend."""

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from snapvault.backend.local import LocalBackend
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.metrics import MetricsBackend
from snapvault.backend.protocol import Backend
from snapvault.backend.retry import RetryBackend, RetryPolicy
from snapvault.foundation.errors import InvalidInput
from snapvault.platform.remote import OBJECT_LOCK

_URL = re.compile(r"([a-z0-9]+::)*[A-Za-z][A-Za-z0-9+.-]*://")


def open_backend(
    url: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    create: bool = False,
    retry: bool = True,
    patience: RetryPolicy | None = None,
) -> Backend:
    """The backend for a path, ``file://``, ``memory://NAME`` or any fsspec URL, with metrics; remote ones with retries.

    ``create`` makes a missing folder or bucket; ``patience``: how long calls are repeated.  Raises InvalidInput for
    what cannot be a store, and the errors of the protocol where a server must be asked (SFTP connects here; S3 with
    the first call).
    """
    text = os.fspath(url)
    if not text:
        raise InvalidInput("the place of the repository is empty")
    scheme, _, rest = text.partition("://")
    if not isinstance(url, str) or not _URL.match(url):
        return MetricsBackend(_local(text, storage_options, create=create))
    if scheme == "file":
        return MetricsBackend(_local(file_path(text), storage_options, create=create))
    if scheme == "memory":
        if OBJECT_LOCK in (storage_options or {}):
            raise InvalidInput(f"{text}: no object can be locked there")
        return MetricsBackend(MemoryBackend(rest.strip("/")))
    remote = MetricsBackend(_remote(text, storage_options, create=create))
    return RetryBackend(remote, patience) if retry else remote


def check_place(url: str) -> None:
    """InvalidInput for a URL that can be none of a store, or has credentials in it; nothing is asked."""
    if _URL.match(url) and url.partition("://")[0] not in ("file", "memory"):
        from snapvault.backend.remote import check_url

        check_url(url)


def _local(path: str, storage_options: Mapping[str, Any] | None, *, create: bool) -> Backend:
    if storage_options:
        raise InvalidInput(f"{path} is a folder and takes no storage options")
    return LocalBackend(path, create=create)


def file_path(url: str) -> str:
    """The path of a ``file://`` URL; InvalidInput."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise InvalidInput(f"{parts.scheme} URLs name an absolute path on this machine", hint="file:///srv/backup")
    return unquote(url.split("://", 1)[1].removeprefix("localhost"))


def _remote(url: str, storage_options: Mapping[str, Any] | None, *, create: bool) -> Backend:
    from snapvault.backend.remote import FsspecBackend

    return FsspecBackend(url, storage_options, create=create)
