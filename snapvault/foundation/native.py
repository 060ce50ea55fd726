"""The compiled module, where the installation has it.

One place decides: ``native`` is the module or ``None``, and whoever falls back to a plain-Python twin calls
:func:`warn_about_twin` first, so that a slow installation says why it is slow, once.
"""

import logging
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

native: ModuleType | None
try:
    import snapvault._native as native
except ImportError:  # installed where nothing could compile it
    native = None

NATIVE = native is not None


def same_bytes(a: "Buffer", b: "Buffer") -> bool:
    """Whether two buffers hold the same bytes, found with the GIL released.  (``==`` of views goes item by item.)"""
    return bool(native.same_bytes(a, b)) if native is not None else bytes(a) == bytes(b)


@cache
def warn_about_twin() -> None:
    """Log, once a process, that the plain-Python twin of the native module is in use."""
    logging.getLogger("snapvault").warning(
        "the native module is missing, so chunking and the index run in plain Python: the same results, but chunking "
        "at about 10 MB/s; install a C compiler and reinstall snapvault"
    )
