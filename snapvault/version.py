"""The version: here and nowhere else; the package's metadata takes it from here."""

VERSION = "0.1.0.dev0"
PROGRAM = f"snapvault {VERSION}"
