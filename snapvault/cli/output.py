"""Where a command's words go: text for people, or JSON lines (docs/json.md).

Results go to standard output; progress, warnings and errors to standard error.  With ``--json`` everything is a line on
standard output, except where that carries data (``restore --stdout``): then the lines go to standard error.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from snapvault.cli.text import examples, harmless, harmless_lines, printable
from snapvault.foundation.errors import SnapvaultError
from snapvault.operations.results import Issue

SCHEMA = 1
NAMED = 3  # paths that a line names
_OBJECT = re.compile(r"(?:packs|index|sessions)/[0-9a-z/]+")  # a name in the store
_BLOB = re.compile(r"blob [0-9a-f]+ cannot be read: ")


class Output:
    """One a process."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json, self.quiet = as_json, quiet
        self.data_on_stdout = False

    # -- JSON ---------------------------------------------------------------------------------------------------

    def line(self, kind: str, content: Mapping[str, Any]) -> None:
        """One JSON line of type ``kind``."""
        stream = sys.stderr if self.data_on_stdout else sys.stdout
        record = {"type": kind, "schema": SCHEMA, **_with_bytes(content)}
        _write(stream, json.dumps(record, default=_jsonable))

    # -- what a command says ------------------------------------------------------------------------------------

    def item(self, content: Mapping[str, Any], text: str) -> None:
        """One entry of a listing.  ``text`` is escaped here."""
        if self.as_json:
            self.line("item", content)
        else:
            _write(sys.stdout, harmless_lines(text))

    def summary(self, content: Mapping[str, Any], lines: Iterable[str] = ()) -> None:
        """The end of a command that did its work."""
        if self.as_json:
            self.line("summary", content)
            return
        for text in lines:
            _write(sys.stderr if self.data_on_stdout else sys.stdout, harmless_lines(text))

    def note(self, text: str) -> None:
        """Something to know, for people only."""
        if not self.as_json and not self.quiet:
            _write(sys.stderr, harmless_lines(text))

    def warning(self, text: str) -> None:
        """Something that may need somebody, and that changes no exit code by itself."""
        if self.as_json:
            self.line("error", {"code": "warning", "message": text})
        else:
            _write(sys.stderr, f"warning: {harmless_lines(text)}")

    def issues(self, issues: tuple[Issue, ...], code: str, headline: str, *, each: bool = False) -> None:
        """Paths that went wrong: all of them as JSON; as text a count, and a line for what they have in common.

        ``each``: a line for each.
        """
        if self.as_json:
            for i in issues:
                self.line("error", {"code": code, "path": i.path, "message": i.message})
        elif issues:
            _write(sys.stderr, f"{headline}:")
            lines = [f"  {printable(i.path)}: {harmless(i.message)}" for i in issues] if each else _grouped(issues)
            shown = lines if each else examples(lines, "paths" if len(lines) == len(issues) else "lines")
            for text in shown:
                _write(sys.stderr, text)

    def error(self, error: SnapvaultError) -> None:
        """What ended the command: a sentence that names the thing, and one with the way out."""
        if self.as_json:
            self.line("error", {**error.to_dict(), "retryable": error.retryable, "affected": list(error.affected)})
            return
        _write(sys.stderr, f"snapvault: {harmless_lines(error.message)}")
        if error.hint:
            _write(sys.stderr, f"  hint: {harmless_lines(error.hint)}")


class LogHandler(logging.Handler):
    """Warnings of the library become warnings of the command; with ``--debug`` everything is shown."""

    def __init__(self, output: Output, *, debug: bool) -> None:
        super().__init__(logging.DEBUG if debug else logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        if record.levelno >= logging.WARNING:
            self._output.warning(record.getMessage())
        else:
            _write(sys.stderr, f"{record.levelname.lower()}: {record.name}: {harmless_lines(record.getMessage())}")


def _grouped(issues: tuple[Issue, ...]) -> list[str]:
    """A line a path; but one line for all that hang on one damaged object: a pack may hold thousands of files."""
    causes: dict[tuple[str, str], list[Issue]] = {}
    for issue in issues:
        named = _OBJECT.search(issue.message)
        folder = "folder" if issue.message.startswith("entries of") else ""
        causes.setdefault((named[0], folder) if named else ("", issue.path), []).append(issue)
    lines = []
    for group in causes.values():
        message = harmless(_BLOB.sub("", group[0].message))  # each path has another blob
        if len(group) <= NAMED:
            lines += [f"  {printable(i.path)}: {harmless(i.message)}" for i in group]
        else:
            some = ", ".join(printable(i.path) for i in group[:NAMED])
            lines.append(f"  {some} and {len(group) - NAMED:,} more (--json lists them all): {message}")
    return lines


def _write(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


def _with_bytes(content: Mapping[str, Any]) -> dict[str, Any]:
    """A path that is no UTF-8 comes as its bytes as well, since few JSON readers keep lone surrogates."""
    path = content.get("path")
    if isinstance(path, str) and not path.isascii() and any(0xDC80 <= ord(c) <= 0xDCFF for c in path):
        import base64

        return {**content, "path_base64": base64.b64encode(os.fsencode(path)).decode()}
    return dict(content)


def _jsonable(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} in JSON output")
