"""What remote stores and their drivers say, mapped to the few kinds of errors of the protocol.

No driver package is imported here: errors are told apart by errno, by the S3 error code that they carry, and by where
their class comes from.
"""

import errno
import re
import traceback
from collections.abc import Mapping
from typing import Any

from snapvault.backend.protocol import Exists, NotFound
from snapvault.foundation.errors import (
    InvalidInput,
    RepositoryNotFound,
    SnapvaultError,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
)

_SECRET_NAME = re.compile(r"(?!.*policy)(key|.*([_-]key|secret|token|pass|sas|credential|auth|cookie))", re.IGNORECASE)
_SHORTEST = 6  # characters; removing shorter ones would show where they were and mangle the message
_USERINFO = re.compile(r"//[^/@\s]*@")
# obstore has only text, and the wrong class for some: a race that goes on (409) is to it an object that exists.
_OBSTORE = re.compile(r"Server returned non-2xx status code: (\d{3})(?:[^\n]*?<Code>(\w+)</Code>)?")
_DEBUG = "\n\nDebug source:"  # what follows repeats all of it, many times
_BY_CODE: Mapping[str, type[SnapvaultError]] = {
    "NoSuchKey": NotFound,
    "NoSuchBucket": RepositoryNotFound,
    "PreconditionFailed": Exists,
    "AccessDenied": StoreDenied,
    "InvalidAccessKeyId": StoreDenied,
    "SignatureDoesNotMatch": StoreDenied,
    "InvalidBucketName": InvalidInput,
    "QuotaExceeded": StoreFull,
    "InsufficientStorage": StoreFull,
    "XMinioStorageFull": StoreFull,
    "EntityTooLarge": InvalidInput,
    "ExpiredToken": StoreDenied,
    "InvalidToken": StoreDenied,
    **dict.fromkeys(("RequestTimeout", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"), StoreUnavailable),
}
_BY_STATUS: Mapping[int, type[SnapvaultError]] = {
    401: StoreDenied,
    403: StoreDenied,
    404: NotFound,
    405: StoreDenied,
    412: Exists,
    507: StoreFull,
    **dict.fromkeys((400, 411, 413, 414, 416, 422), InvalidInput),
}
_BY_ERRNO: Mapping[int, type[SnapvaultError]] = {
    errno.ENOENT: NotFound,
    errno.EEXIST: Exists,
    errno.EACCES: StoreDenied,
    errno.EPERM: StoreDenied,
    errno.EROFS: StoreDenied,
    errno.ENOTSUP: StoreDenied,
    errno.ENOSYS: StoreDenied,
    errno.ENOSPC: StoreFull,
    errno.EDQUOT: StoreFull,
    errno.ENAMETOOLONG: InvalidInput,
}
_DENIED_CLASSES = frozenset({"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError"})
_DENIED_CLASSES |= {"AuthenticationException", "BadHostKeyException", "PasswordRequiredException"}
_DENIED_CLASSES |= {"PermissionDeniedError", "UnauthenticatedError"}
_INPUT_CLASSES = frozenset({"ParamValidationError", "InvalidRegionError", "UnknownServiceError"})


def secrets_in(options: Mapping[str, Any]) -> frozenset[str]:
    """Values of storage options that must never be shown."""
    found: set[str] = set()
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= secrets_in(value)
        elif _SECRET_NAME.match(name):
            values = value if isinstance(value, list | tuple) else [value]  # a pair of user and password
            found |= {text for text in values if isinstance(text, str) and len(text) >= _SHORTEST}
    return frozenset(found)


def s3_code(err: BaseException) -> tuple[str, int]:
    """The S3 error code and HTTP status that an exception or its cause carries, or ``("", 0)``.

    s3fs turns them into errno values that lose the meaning: SeaweedFS's refusal of If-None-Match becomes EINVAL.
    """
    for candidate in (err, err.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = str(response.get("Error", {}).get("Code", ""))
            return code, int(status or (code if code.isdigit() else 0))
    told = _OBSTORE.search(str(err))
    return (told[2] or "", int(told[1])) if told else ("", 0)


def kind_of_status(status: int) -> type[SnapvaultError]:
    """What an HTTP status stands for."""
    return _BY_STATUS.get(status, StoreUnavailable)


def kind_of(err: Exception) -> type[SnapvaultError] | None:
    """Which error of the protocol this is; None for what looks like a bug rather than a store's answer."""
    code, status = s3_code(err)
    if code or status:
        return _BY_CODE.get(code) or kind_of_status(status)
    if isinstance(err, OSError):
        return _of_os_error(err)
    for cls in type(err).__mro__:
        if cls.__name__ in _DENIED_CLASSES:
            return StoreDenied
        if cls.__name__ in _INPUT_CLASSES:
            return InvalidInput
    if isinstance(err, EOFError) or type(err).__module__ != "builtins":
        return StoreUnavailable  # the driver's or its HTTP library's own class: connection, time-out, protocol
    builtin = ((NotImplementedError, StoreDenied), (ValueError, InvalidInput))
    return next((kind for cls, kind in builtin if isinstance(err, cls)), None)


def _of_os_error(err: OSError) -> type[SnapvaultError]:
    by_class = ((FileNotFoundError, NotFound), (FileExistsError, Exists), (PermissionError, StoreDenied))
    for cls, kind in by_class:  # drivers raise these without an errno
        if isinstance(err, cls):
            return kind
    return _BY_ERRNO.get(err.errno or 0, StoreUnavailable)


def shown_cause(err: Exception, secrets: frozenset[str]) -> Exception | None:
    """The error itself, to be chained to ours; None where its traceback would show a secret."""
    text = "".join(traceback.format_exception(err))
    return None if _USERINFO.search(text) or any(secret in text for secret in secrets) else err


def reason(err: Exception, secrets: frozenset[str]) -> str:
    """One line of what the driver said, without credentials."""
    code, status = s3_code(err)
    text = str(err).partition(_DEBUG)[0] or type(err).__name__
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _USERINFO.sub("//***@", " ".join(text.split()))[:300]
    return f"{text} ({code or status})" if (code or status) and code not in text else text
