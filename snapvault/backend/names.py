"""Rules that all backends share: names, ranges, and which folders a prefix can reach."""

import re
from collections.abc import Sequence

from snapvault.backend.protocol import Buffer
from snapvault.foundation.errors import Damaged, InvalidInput

_COMPONENT = "[A-Za-z0-9_-][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_COMPONENT}(/{_COMPONENT})*")
_HINT = "use A-Z a-z 0-9 . _ - and /"
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_PREFIX = re.compile(rf"({_COMPONENT}/)*({_COMPONENT})?")


def check_name(name: str) -> str:
    """The name itself if it may be one of an object; else InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is not the name of an object", hint=_HINT, affected=[name])
    return name


def check_prefix(prefix: str) -> str:
    """The prefix itself if some name can begin with it; else InvalidInput."""
    if not _PREFIX.fullmatch(prefix):
        raise InvalidInput(f"no object's name begins with {prefix!r}", hint=_HINT)
    return prefix


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def check_range(name: str, start: int, length: int | None) -> None:
    """InvalidInput unless ``start`` and ``length`` are counts of bytes."""
    if start < 0 or (length is not None and length < 0):
        raise InvalidInput(f"bytes {start}+{length} of {name} is not a range", affected=[name])


def end_of(name: str, size: int, start: int, length: int | None) -> int:
    """Where the range ends in an object of ``size`` bytes; Damaged if the object is shorter than that."""
    end = size if length is None else start + length
    if start > size or end > size:
        raise short(name, start, length, size)
    return end


def short(name: str, start: int, length: int | None, size: int) -> Damaged:
    """The error for an object that has fewer bytes than the caller knows it must have."""
    want = f"from byte {start}" if length is None else f"bytes {start} to {start + length}"
    return Damaged(f"{name} has {size} bytes; asked for {want}", affected=[name])


def check_content_range(name: str, header: str | None, got: int, start: int, length: int | None) -> None:
    """Damaged unless the Content-Range of an HTTP reply with ``got`` bytes says that they are those asked for."""
    if header is None and start == 0 and got == length:
        return  # it has no ranges, and the whole is what was asked for
    match = _CONTENT_RANGE.fullmatch(header or "")
    if match is None:
        raise Damaged(f"{name}: the store ignored the range that was asked for", affected=[name])
    first, last, size = (int(text) for text in match.groups())
    end = end_of(name, size, start, length)
    if (first, last + 1) != (start, end) or got != end - start:
        raise Damaged(f"{name}: bytes {first} to {last + 1} came instead of {start} to {end}", affected=[name])


def total(data: Sequence[Buffer]) -> int:
    """Bytes in all buffers together."""
    return sum(memoryview(part).nbytes for part in data)


def reachable(folder: str, prefix: str) -> bool:
    """Whether a name inside ``folder`` (which ends in ``/``) can begin with ``prefix``."""
    return folder.startswith(prefix) or prefix.startswith(folder)
