"""Probes: how to tell that what was restored is alive (docs/guide/drills.md).  One file a kind.

A probe runs in a process of its own.  It gets the folder that was restored, and raises ProbeFailed, or NotRun if it
cannot tell; what it answers are facts for the evidence.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from snapvault.assurance.dataset import Probe
from snapvault.foundation.errors import InvalidInput

KINDS = ("command", "http", "parquet", "postgres", "python", "sqlite", "tar", "zip")
Facts = dict[str, int | str]


class ProbeFailed(Exception):
    """What was restored is not alive."""


class NotRun(Exception):
    """The probe cannot tell: something that it needs is missing."""


Patterns = str | list[str]  # of files, relative to the restored folder: glob patterns


class Common(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options of all kinds."""

    network: bool = False  # may reach other machines; else only itself


def known(kind: str, options: Mapping[str, Any]) -> Common:
    """The options as this kind has them; InvalidInput if there is none, or it does not know one of them."""
    if kind not in KINDS:
        raise InvalidInput(f"there is no probe of the kind {kind!r}", hint=f"kinds are {', '.join(KINDS)}")
    module = import_module(f"{__name__}.{kind}")
    try:
        found: Common = msgspec.convert(dict(options), module.Options, strict=False)
    except msgspec.ValidationError as e:
        raise InvalidInput(f"the options of a probe of the kind {kind!r} are wrong: {e}") from e
    return found


def prepared(kind: str, options: Mapping[str, Any]) -> Callable[[Path], Facts]:
    """The probe of this kind with these options; InvalidInput as of ``known``."""
    found, module = known(kind, options), import_module(f"{__name__}.{kind}")
    return lambda root: dict[str, int | str](module.run(root, found))


def check_probe(probe: Probe) -> None:
    """InvalidInput unless such a probe can be run."""
    prepared(probe.kind, probe.options)
    if probe.timeout.total_seconds() <= 0:
        raise InvalidInput(f"a probe needs time: {probe.timeout} is none")
