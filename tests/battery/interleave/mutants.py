"""Each rule of the real code switched off: the interleavings must find that something is lost, or never ends."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any
from unittest import mock

from snapvault.format import names
from snapvault.foundation.errors import Conflict
from snapvault.operations import run, survey
from snapvault.operations.collect import GarbageCollection, _Copier
from snapvault.operations.fence import Fence
from snapvault.operations.pending import Pending
from snapvault.operations.survey import Survey
from snapvault.repository.loader import IndexLoader
from snapvault.repository.session import Session


def _announces_last(self: run.Run) -> Any:
    found = REAL["load"](self)
    if self.session is not None:
        REAL["announce"](self.session)
    return found


def _never_refused(self: Session, removed: Any) -> None:
    with suppress(Conflict):
        REAL["finish"](self, removed)


def _overwrites(self: Session, data: bytes) -> None:
    self._store.backend.put(names.snapshot(self.sid), [data])


def _record_first(self: GarbageCollection, doomed: Any) -> Any:
    """Allowed once the slot is filled; then only the slot says what goes.  And it takes its time."""
    self._vault.backend.delete(names.GC + self._session.sid)
    for _ in range(40):
        list(self._vault.backend.list(names.GC))
    return REAL["delete"](self, doomed)


def _waits_for_nobody(self: Pending, *args: Any) -> Any:
    return replace(REAL["left"](self, *args), open=frozenset())


REAL: dict[str, Callable[..., Any]] = {
    "load": run.Run._load,
    "announce": Session.announce,
    "finish": Session.finish_gc,
    "delete": GarbageCollection._delete,
    "left": Pending._left,
}


@contextmanager
def mutant(name: str) -> Iterator[None]:
    """While this is open, the rule is broken."""
    patches: dict[str, list[tuple[Any, str, Any]]] = {
        "W1 announces nothing": [(Session, "announce", lambda self: None)],
        "W1 after W2": [(Session, "announce", lambda self: None), (run.Run, "_load", _announces_last)],
        "W2 counts condemned packs": [(IndexLoader, "condemned", lambda self: set())],
        "W2 does not read GC done": [
            (IndexLoader, "removed_by", lambda self, name: ([], b"")),
            (GarbageCollection, "_delete", _record_first),
        ],
        "a prune that goes on waits for nobody": [(Pending, "_left", _waits_for_nobody)],
        "a tombstone counts at once": [(survey, "is_due", lambda tombstone: True)],
        "the record goes first": [(GarbageCollection, "_delete", _record_first)],
        "W5 overwrites the slot": [(Session, "_settle", _overwrites)],
        "no G5": [(Fence, "wait", lambda self, seconds, reporter: ())],
        "G3 publishes nothing": [(GarbageCollection, "_publish", lambda self: None)],
        "G6 copies nothing": [(_Copier, "copy", lambda self, row, segments: None)],
        "G6 trusts copies that are going": [
            (Survey, "survives", lambda self, blob, condemned: bool(self.index.places(blob)))
        ],
        "G7 deletes though refused": [(Session, "finish_gc", _never_refused)],
    }
    with ExitStack() as stack:
        for owner, attribute, wrong in patches[name]:
            stack.enter_context(mock.patch.object(owner, attribute, wrong))
        yield


ALL = (
    "W1 announces nothing", "W1 after W2", "W2 counts condemned packs", "W2 does not read GC done",
    "W5 overwrites the slot", "no G5", "G3 publishes nothing", "G6 copies nothing", "G6 trusts copies that are going",
    "G7 deletes though refused", "a prune that goes on waits for nobody", "a tombstone counts at once",
)  # fmt: skip
HARMLESS = ("the record goes first",)
