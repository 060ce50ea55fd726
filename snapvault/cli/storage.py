"""``--storage-options FILE``: what fsspec needs to reach a place, kept out of URLs and command lines.

A TOML file (docs/guide/s3.md)::

    schema = 1
    ["s3://backups"]
    key = "..."
    secret = "..."
    client_kwargs = {endpoint_url = "https://s3.example.org"}

Each table holds the options of all URLs that begin with its name; the longest name wins.
"""

import tomllib
from typing import Any

from snapvault.foundation.errors import InvalidInput

SCHEMA = 1


def load_options(path: str) -> dict[str, dict[str, Any]]:
    """The tables of the file, by URL; InvalidInput."""
    try:
        with open(path, "rb") as f:
            content = tomllib.load(f)
    except OSError as e:
        raise InvalidInput(f"the storage options {path} cannot be read: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InvalidInput(f"the storage options {path} are no TOML: {e}") from e
    if content.pop("schema", None) != SCHEMA:
        raise InvalidInput(f"the storage options {path} do not begin with 'schema = {SCHEMA}'")
    for name, options in content.items():
        if "://" not in name or not isinstance(options, dict):
            raise InvalidInput(
                f"{name!r} in the storage options {path} is no table of a URL", hint='write ["s3://bucket"]'
            )
    return content


def options_for(tables: dict[str, dict[str, Any]], url: str) -> dict[str, Any] | None:
    """The options of the longest name that ``url`` begins with, at a "/"; None if there is none."""
    matching = [
        n
        for n in tables
        if (url.rstrip("/") + "/").startswith(n.rstrip("/") + "/") or (n.endswith("://") and url.startswith(n))
    ]
    return tables[max(matching, key=len)] if matching else None
