"""The version, as the package's metadata states it."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("snapvault")
except PackageNotFoundError:  # a source tree that was never installed
    VERSION = "0"
PROGRAM = f"snapvault {VERSION}"
