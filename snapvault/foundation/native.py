"""The compiled module, where the installation has it.

One place decides: ``native`` is the module or ``None``, and whoever falls back to a plain-Python twin calls
:func:`warn_about_twin` first, so that a slow installation says why it is slow, once.
"""

import logging
from functools import cache
from types import ModuleType

native: ModuleType | None
try:
    import snapvault._native as native
except ImportError:  # installed where nothing could compile it
    native = None

NATIVE = native is not None


@cache
def warn_about_twin() -> None:
    """Log, once a process, that the plain-Python twin of the native module is in use."""
    logging.getLogger("snapvault").warning(
        "the native module is missing, so chunking and the index run in plain Python: the same results, but chunking "
        "at about 10 MB/s; install a C compiler and reinstall snapvault"
    )
