"""What reading from and writing to an fsspec URL have in common."""

import errno
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from snapvault.foundation.errors import InvalidInput

CONNECT_TIMEOUT, READ_TIMEOUT = 5, 30  # seconds; the second is between two bytes, not of the whole transfer
OBJECT_LOCK = "object_lock"  # a storage option of repositories, and none of fsspec's
# Of a URL inside a text: user and password, and the query.
_SECRET_PARTS = re.compile(r"(?<=://)[^/@\s]*@|(://[^\s?'\"]*)\?[^\s'\"]*")
# None of these derives from OSError.  Only libraries that are loaded can have raised one.
_LIBRARY_ERRORS = {
    "aiohttp": ("ClientError",),
    "azure.core.exceptions": ("AzureError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "gcsfs.retry": ("HttpError",),
    "google.api_core.exceptions": ("GoogleAPIError",),
    "httpx": ("HTTPError", "InvalidURL"),
    "paramiko": ("SSHException",),
    "webdav4.client": ("ClientError",),
}


def connect(url: str, storage_options: Mapping[str, Any] | None) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.  InvalidInput: fsspec does not know it."""
    import fsspec  # heavy, and most sources and targets are local

    label = shown_url(url)
    options = {name: value for name, value in (storage_options or {}).items() if name != OBJECT_LOCK}
    try:
        with as_os_errors(label):
            if url.startswith(("sftp://", "ssh://")):
                from snapvault.platform.ssh import KnownHosts

                return KnownHosts(**{**KnownHosts._get_kwargs_from_urls(url), **options}), KnownHosts._strip_protocol(
                    url
                )
            fs, path = fsspec.core.url_to_fs(url, **options)
    except (ValueError, ImportError, TypeError) as e:
        raise InvalidInput(f"{label!r} cannot be used: {e}", hint="check the URL and its storage options") from e
    return fs, str(path)


def shown_url(url: str) -> str:
    """The URL without what may be a secret: user and password, and the query, which signs a signed URL."""
    scheme, separator, rest = url.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


@contextmanager
def as_os_errors(address: str) -> Iterator[None]:
    """Errors of the libraries behind fsspec become OSError, which is what sources and targets raise.

    Without what may be a secret in a URL: neither in the message nor in the traceback.
    """
    try:
        yield
    except _loaded_errors() as e:
        text = f"{type(e).__name__}: {e}"
        raise OSError(errno.EIO, _shown(text), shown_url(address)) from (e if text == _shown(text) else None)
    except OSError as e:
        if _shown(str(e)) == str(e):
            raise
        raise type(e)(*(_shown(a) if isinstance(a, str) else a for a in e.args)) from None


def _shown(text: str) -> str:
    return _SECRET_PARTS.sub(r"\1", text)


def _loaded_errors() -> tuple[type[BaseException], ...]:
    loaded = ((sys.modules[module], names) for module, names in _LIBRARY_ERRORS.items() if module in sys.modules)
    return (EOFError, *(getattr(module, name) for module, names in loaded for name in names if hasattr(module, name)))
