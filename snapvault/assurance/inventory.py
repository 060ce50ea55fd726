"""An inventory in CSV as a declaration: a row a dataset, its columns found by their names.

A column says everything of its field, an empty cell that nothing is declared; fields without a column stay as they were
declared before, and so do defaults and groups.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapvault.assurance.declaration import SCHEMA, Declaration, Refused, declare
from snapvault.foundation.errors import InvalidInput
from snapvault.operations.results import Issue

FIELDS = (
    "name", "source", "host", "owner", "tier", "group", "rpo", "rto", "sites", "drill", "level", "probe", "retention",
)  # fmt: skip
_OTHER_NAMES = {
    "dataset": "name", "sources": "source", "sitesowed": "sites", "drillfrequency": "drill", "drilllevel": "level",
}  # fmt: skip
_DELIMITERS = ",;\t"
_BETWEEN = re.compile(r"[\s,;|]+")


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a CSV file declares."""

    declaration: Declaration
    unused: tuple[str, ...]  # columns that are no field


def read_inventory(
    path: str | Path, before: Declaration | None, *, columns: Mapping[str, str] | None = None, encoding: str = "utf-8"
) -> Inventory:
    """Read a CSV file whose first row names its columns; a comma, a semicolon or a tab is between them.

    ``before``: what is declared now.  ``columns``: fields by columns that are not called like their field.
    InvalidInput if it cannot be read at all; Refused, with the rows that cannot.
    """
    rows, where = _Rows(str(path), _text(path, encoding)), str(path)
    fields = _fields(rows.header, columns or {}, where)
    known: dict[str, Any] = {"schema": SCHEMA} if before is None else dict(before.content)
    old, new = dict(known.get("datasets", {})), dict[str, dict[str, Any]]()
    numbers, faults = dict[str, int](), list[Issue]()
    for number, cells in rows.read(faults):
        said = {field: cells[at].strip() for field, at in fields.items()}
        name = said.pop("name")
        if not name:
            faults.append(Issue(f"row {number}", "it names no dataset"))
        elif name in numbers:
            faults.append(Issue(f"row {number}", f"{name} stands in row {numbers[name]} already"))
        else:
            numbers[name] = number
            try:
                new[name] = _row(dict(old.get(name, {})), said)
            except InvalidInput as e:
                faults.append(Issue(f"row {number}", f"{name}: {e}"))
    if not numbers and not faults:
        raise InvalidInput(f"{where} declares nothing: it has no rows")
    declaration = _declared({**known, "datasets": new}, where, lambda name: f"row {numbers[name]}, {name}", faults)
    unused = (c for at, c in enumerate(rows.header) if c and at not in fields.values())
    return Inventory(declaration, tuple(unused))


def _declared(content: Any, where: str, row: Callable[[str], str], faults: list[Issue]) -> Declaration:
    """The declaration, if there are no faults, neither in rows nor in what they say."""
    try:
        declaration = declare(content, where, row)
    except Refused as e:
        faults += e.faults
    if faults:
        raise Refused(where, sorted(faults, key=lambda f: int(f.path.split()[1].rstrip(","))))
    return declaration


def _text(path: str | Path, encoding: str) -> str:
    try:
        data = Path(path).read_bytes()
        text = data.decode("utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding)
    except OSError as e:
        raise InvalidInput(f"{path} cannot be read: {e.strerror}") from e
    except LookupError:
        raise InvalidInput(f"{encoding!r} is no encoding", hint="such as utf-8, utf-16, cp1252") from None
    except UnicodeError as e:
        line = data.count(b"\n", 0, e.start) + 1 if isinstance(e, UnicodeDecodeError) else 1
        likely = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "with the one it was saved in, like cp1252"
        raise InvalidInput(f"{path} is not in {encoding} (line {line})", hint=f"give --encoding {likely}") from e
    if "\0" in text:
        raise InvalidInput(f"{path} is not in {encoding}: it has zero bytes", hint="give --encoding utf-16-le, or -be")
    return text


class _Rows:
    """The rows of a CSV file, with the numbers of the lines that they begin on."""

    def __init__(self, where: str, text: str) -> None:
        self._where = where
        first = text.split("\n", 1)[0]
        self._delimiter = max(_DELIMITERS, key=lambda d: len(next(csv.reader([first], delimiter=d), [])))
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True)
        try:
            self.header = [cell.strip() for cell in next(self._reader, [])]
        except csv.Error as e:
            raise InvalidInput(f"the first row of {where} cannot be read: {e}") from e

    def read(self, faults: list[Issue]) -> list[tuple[int, list[str]]]:
        """All that can be read; ``faults`` gets the others."""
        found, begin = list[tuple[int, list[str]]](), self._reader.line_num + 1
        while True:
            try:
                cells = next(self._reader)
            except StopIteration:
                return found
            except csv.Error as e:
                faults.append(Issue(f"row {begin}", f"cannot be read: {e}"))
                cells = []
            if any(cell.strip() for cell in cells):
                if len(cells) == len(self.header):
                    found.append((begin, cells))
                else:
                    faults.append(
                        Issue(f"row {begin}", f"it has {len(cells)} cells, the first row has {len(self.header)}")
                    )
            begin = self._reader.line_num + 1


def _fields(header: Sequence[str], columns: Mapping[str, str], where: str) -> dict[str, int]:
    """The column of each field; InvalidInput."""
    for column, field in columns.items():
        if column not in header or field not in FIELDS:
            what = f"there is no column {column!r}" if column not in header else f"{field!r} is no field"
            raise InvalidInput(f"{what} in {where}", hint=f"columns: {', '.join(header)}; fields: {', '.join(FIELDS)}")
    found = dict[str, int]()
    for at, column in enumerate(header):
        plain = re.sub(r"[\s_-]", "", column).casefold()
        field = columns.get(column, _OTHER_NAMES.get(plain, plain))
        if field not in FIELDS or (field in columns.values() and column not in columns):
            continue
        if field in found:
            raise InvalidInput(f"two columns of {where} are the {field}: {header[found[field]]!r} and {column!r}")
        found[field] = at
    if "name" not in found:
        raise InvalidInput(
            f"no column of {where} is the name of the dataset; there are: {', '.join(header) or 'none'}",
            hint="say which: --map COLUMN=name",
        )
    return found


def _row(row: dict[str, Any], said: Mapping[str, str]) -> dict[str, Any]:
    """A dataset's table with what the cells say."""
    drill = dict(row.pop("drill", {}))
    for field, cell in said.items():
        if field in ("drill", "level"):
            key = "every" if field == "drill" else "level"
            drill = {k: v for k, v in drill.items() if k != key} | ({key: cell} if cell else {})
        elif cell:
            row[field] = _VALUES[field](cell) if field in _VALUES else cell
        else:
            row.pop(field, None)
    return {**row, "drill": drill} if drill else row


def _words(cell: str) -> dict[str, Any]:
    """``key=value`` and so on; InvalidInput."""
    pairs = [word.partition("=") for word in _BETWEEN.split(cell) if word]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise InvalidInput(f"{wrong[0]!r} is not written like key=value")
    return {key: int(value) if re.fullmatch(r"[0-9]{1,9}", value) else value for key, _, value in pairs}


def _probe(cell: str) -> dict[str, Any]:
    kind, _, options = cell.partition(" ")
    return {"kind": kind, **_words(options)}


_VALUES: dict[str, Callable[[str], Any]] = {
    "source": lambda cell: [part.strip() for part in cell.split("|")],
    "sites": lambda cell: [name for name in _BETWEEN.split(cell) if name],
    "retention": _words,
    "probe": _probe,
}
