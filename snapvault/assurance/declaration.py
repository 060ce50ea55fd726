"""What ``snapvault.toml`` declares: read strictly, everything that is wrong with it named at once.

A stored revision of the register holds the same, so this reads both.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from snapvault.assurance.dataset import LEVELS, Dataset, DrillRule, Probe
from snapvault.assurance.probes import check_probe
from snapvault.assurance.spans import parse_span
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.words import count
from snapvault.operations.attest import checked_site
from snapvault.operations.results import Issue
from snapvault.operations.retention import Retention
from snapvault.operations.sources import is_url
from snapvault.operations.writer import checked_dataset, checked_host

T = TypeVar("T")

SCHEMA = 1
SHORTEST = timedelta(minutes=1)  # of an objective: nobody backs up, or brings back, faster than that
_UNKNOWN = "unknown key"
_SHOWN = 5  # faults in the message of the error; all of them are in ``faults``
_DEEPEST = 8  # tables and lists inside one another
_WORDS = {"str": "text", "int": "a whole number", "array": "a list", "object": "a table", "bool": "true or false"}


class Refused(InvalidInput):
    """A declaration that cannot be taken as it is.  ``faults``: each place in it, and what is wrong there."""

    def __init__(self, where: str, faults: Iterable[Issue]) -> None:
        self.faults = tuple(faults)
        shown = "; ".join(f"{f.path}: {f.message}" for f in self.faults[:_SHOWN])
        more = f"; and {len(self.faults) - _SHOWN} more" if len(self.faults) > _SHOWN else ""
        super().__init__(
            f"{where} has {count(len(self.faults), 'fault')}, so nothing of it counts: {shown}{more}",
            affected=[f.path for f in self.faults],
        )


class _Shared(Struct, forbid_unknown_fields=True):
    """What defaults, groups and datasets may say."""

    host: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    tier: str | int | UnsetType = UNSET
    rpo: str | UnsetType = UNSET
    rto: str | UnsetType = UNSET
    sites: list[str] | UnsetType = UNSET
    retention: "_Retention | UnsetType" = UNSET
    drill: "_Drill | UnsetType" = UNSET
    probe: dict[str, Any] | UnsetType = UNSET


class _Row(_Shared, forbid_unknown_fields=True):
    """What a dataset alone says beside that."""

    source: str | list[str] | UnsetType = UNSET
    group: str | UnsetType = UNSET


class _Retention(Struct, forbid_unknown_fields=True):
    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: str = ""
    tags: list[str] = []
    minimum: int = 1


class _Drill(Struct, forbid_unknown_fields=True):
    every: str
    level: str = ""


class _File(Struct, forbid_unknown_fields=True):
    schema: int
    defaults: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    datasets: dict[str, Any] = {}


FIELDS = _Row.__struct_fields__


@dataclass(frozen=True, slots=True)
class Declaration:
    """What was written, and the datasets that it comes to."""

    content: Mapping[str, Any]  # schema, defaults, groups, datasets; texts, whole numbers, booleans, lists, tables
    datasets: Mapping[str, Dataset]


def read_declaration(path: str | Path) -> Declaration:
    """A file in TOML, or in JSON if its name ends so; InvalidInput, Refused."""
    name = str(path)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        content = _json(text) if name.endswith(".json") else tomllib.loads(text)
    except OSError as e:
        raise InvalidInput(f"{name} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise InvalidInput(f"{name} is no UTF-8 (byte {e.start})", hint="save it as text in UTF-8") from e
    except (ValueError, RecursionError) as e:
        raise InvalidInput(f"{name} cannot be read: {e}") from e
    return declare(content, name)


def declare(content: Any, where: str, row: Callable[[str], str] = "datasets.{}".format) -> Declaration:
    """The datasets of a content as TOML gives it; Refused.  ``row``: how faults name a dataset's place."""
    return _Reading(content, where, row).declaration()


class _Reading:
    """One content being read."""

    def __init__(self, content: Any, where: str, row: Callable[[str], str]) -> None:
        self._content, self._where, self._row = content, where, row
        self._faults: list[Issue] = []

    def declaration(self) -> Declaration:
        """Refused if there is any fault."""
        file = self._convert("", self._content, _File)
        if file is not None and file.schema != SCHEMA:
            self._fault("schema", f"is {file.schema}; this snapvault reads {SCHEMA}")
        elif file is not None:
            defaults = self._said("defaults", file.defaults, _Shared)
            self._faults += _odd(list(file.groups), "groups")
            groups = {name: self._said(f"groups.{name}", table, _Shared) for name, table in file.groups.items()}
            self._twice(file.datasets)
            datasets = {name: self._dataset(name, table, groups, defaults) for name, table in file.datasets.items()}
        if self._faults:
            raise Refused(self._where, self._faults)
        return Declaration(self._content, datasets)

    def _fault(self, place: str, message: str) -> None:
        self._faults.append(Issue(place, message))

    def _twice(self, names: Iterable[str]) -> None:
        """Names that a person, a file system or another inventory would take for one another."""
        known = dict[str, str]()
        for name in names:
            first = known.setdefault(name.casefold(), name)
            if first != name:
                self._fault(self._row(name), f"only its case tells it from {first} ({self._row(first)})")

    def _dataset(
        self, name: str, table: Mapping[str, Any], groups: Mapping[str, dict[str, Any]], defaults: dict[str, Any]
    ) -> Dataset:
        place = self._row(name)
        own = self._said(place, table, _Row)
        group = own.get("group", "")
        if group and group not in groups:
            self._fault(f"{place}.group", f"there is no group {group!r}; there are {', '.join(groups) or 'none'}")
        said = {**defaults, **groups.get(group, {}), **own}
        try:
            return Dataset(checked_dataset(name), **{**said, "drill": _drill(said)})
        except InvalidInput as e:
            self._fault(place, str(e))
            return Dataset(name)

    def _said(self, place: str, table: Mapping[str, Any], kind: type[_Shared]) -> dict[str, Any]:
        """The fields of a Dataset that a table states; of the drill, the frequency and the level or ""."""
        odd, said = list(_odd(table, place)), dict[str, Any]()
        self._faults += odd
        row = None if odd else self._convert(place, table, kind)
        for field in () if row is None else row.__struct_fields__:
            value = getattr(row, field)
            if value is not UNSET:
                try:
                    said["sources" if field == "source" else field] = _PARSERS[field](value)
                except InvalidInput as e:
                    self._fault(f"{place}.{field}", str(e))
        return said

    def _convert(self, place: str, value: Any, kind: type[T]) -> T | None:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as e:
            at, message = _explained(str(e))
            if message.startswith(_UNKNOWN) and not at and issubclass(kind, msgspec.Struct):
                message += f"; keys are {', '.join(kind.__struct_encode_fields__)}"
            self._fault(f"{place}{at}".lstrip(".") or "the file", message)
        return None


def _explained(text: str) -> tuple[str, str]:
    """The place below the table, and what is wrong, from msgspec's words."""
    message, _, at = text.partition(" - at ")
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        message = f"{_UNKNOWN} {unknown[1]!r}"
    elif missing := re.fullmatch(r"Object missing required field `(.*)`", message):
        message = f"the key {missing[1]!r} is missing"
        if missing[1] == "schema":
            message += f": write schema = {SCHEMA}"
    elif kinds := re.fullmatch(r"Expected `(.*)`, got `(.*)`", message):
        wanted, got = (" or ".join(_WORDS.get(k, k) for k in part.split(" | ")) for part in kinds.groups())
        message = f"must be {wanted}, not {got}"
    return at.strip("`").removeprefix("$").replace("[...]", ""), message


def _odd(value: Any, place: str, depth: int = 0) -> Iterator[Issue]:
    """What a TOML file and a record of the repository cannot both hold, or nobody writes."""
    if depth > _DEEPEST:
        yield Issue(place, "is nested too deeply")
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _odd(str(key), place)
            yield from _odd(part, f"{place}.{key}", depth + 1)
    elif isinstance(value, list):
        for part in value:
            yield from _odd(part, place, depth + 1)
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            yield Issue(place, f"{value!r} holds what no text may hold")
    elif type(value) is int and abs(value) >= 1 << 63:
        yield Issue(place, "a number is too large")
    elif type(value) not in (int, bool):
        yield Issue(place, f"{value} is neither a text nor a whole number; write it in quotes")


def _sources(value: str | list[str]) -> tuple[str, ...]:
    sources = (value,) if isinstance(value, str) else tuple(value)
    for source in sources:
        if not source.startswith("/") and not is_url(source) and not source.startswith("file:///"):
            raise InvalidInput(f"{source!r} is neither a URL nor an absolute path")
    return sources


def _objective(text: str) -> timedelta:
    span = parse_span(text)
    if span < SHORTEST:
        raise InvalidInput(f"{text!r} is an objective that nothing can meet; a minute is the least")
    return span


def _retention(row: _Retention) -> Retention:
    within = parse_span(row.within) if row.within else timedelta(0)
    if timedelta(0) < within < timedelta(hours=1):
        raise InvalidInput(f"within: {row.within!r} are minutes; write months as days, like 180d")
    counts = (row.last, row.hourly, row.daily, row.weekly, row.monthly, row.yearly)
    return Retention(*counts, within, tuple(row.tags), row.minimum)


def _probe(table: dict[str, Any]) -> Probe:
    options = dict(table)
    kind, timeout = options.pop("kind", ""), options.pop("timeout", None)
    if not isinstance(kind, str) or not kind:
        raise InvalidInput("'kind' must say which probe")
    if timeout is not None and not isinstance(timeout, str):
        raise InvalidInput("timeout must be text, like '5m'")
    probe = Probe(kind, options) if timeout is None else Probe(kind, options, parse_span(timeout))
    check_probe(probe)
    return probe


def _drill_row(row: _Drill) -> tuple[timedelta, str]:
    if row.level and row.level not in LEVELS:
        raise InvalidInput(f"level {row.level!r} is none of {', '.join(LEVELS)}")
    return _objective(row.every), row.level


def _drill(said: Mapping[str, Any]) -> DrillRule | None:
    """How far a drill goes if nothing is said: as far as it can."""
    if "drill" not in said:
        return None
    every, level = said["drill"]
    if level == "alive" and "probe" not in said:
        raise InvalidInput("drills are to show that it is alive, but no probe is declared that could tell")
    return DrillRule(every, level or ("alive" if "probe" in said else "full"))


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "source": _sources, "host": checked_host, "owner": str, "tier": str, "group": str, "rpo": _objective,
    "rto": _objective, "sites": lambda names: tuple(dict.fromkeys(map(checked_site, names))),
    "retention": _retention, "drill": _drill_row, "probe": _probe,
}  # fmt: skip


def _json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"a key stands twice: {next(n for n in names if names.count(n) > 1)}")
        return found

    return json.loads(text, object_pairs_hook=unique)
