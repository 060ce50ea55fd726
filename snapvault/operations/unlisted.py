"""Commit slots that a listing left out.

No store says that its listing is short, and a snapshot that is not seen looks like one that needs nothing.  So what
else names a session is heeded too, and its slot asked for by its name (docs/concurrency.md).
"""

from collections.abc import Collection, Iterable, Iterator

from snapvault.backend.protocol import Backend, NotFound
from snapvault.format import names
from snapvault.format.snapshot import COMMIT
from snapvault.foundation.ahead import ahead
from snapvault.foundation.errors import Damaged, StoreUnavailable
from snapvault.foundation.ids import SessionId
from snapvault.repository.history import Reading, Slot
from snapvault.repository.repository import Vault
from snapvault.repository.store import FETCHERS


class Incomplete(StoreUnavailable):
    """A listing left out what is there."""

    hint = "run it again; if it stays so, this store cannot be relied upon for removing anything"


class NotHere(Damaged):
    """At a copy, a snapshot is missing that a later one names: a replication is under way, was cut off, or lacks it."""


def announced(backend: Backend) -> set[SessionId]:
    """Every session that is named by an object of its own: header or record of a GC."""
    found = {o.name.removeprefix(prefix) for prefix in (names.SESSIONS, names.GC) for o in backend.list(prefix)}
    return {SessionId(sid) for sid in found if names.is_session_id(sid)}


def predecessors(slots: Iterable[Slot]) -> Iterator[tuple[SessionId, bytes, Slot]]:
    """The snapshots that commits name as seen before: id, digest of the slot, and who names it."""
    for slot in slots:
        if slot.record.kind == COMMIT:
            yield from ((sid, digest, slot) for sid, digest in slot.record.prevs)


def hidden(backend: Backend, sessions: Collection[SessionId]) -> list[SessionId]:
    """Those of some sessions without a slot in a listing whose slot is there all the same."""

    def is_there(sid: SessionId) -> bool:
        try:
            backend.head(names.snapshot(sid))
        except NotFound:
            return False
        return True

    doubtful = sorted(sessions)
    return [sid for sid, there in zip(doubtful, ahead(is_there, doubtful, FETCHERS), strict=True) if there]


def require_shown(backend: Backend, shown: Collection[SessionId], known: Iterable[SessionId]) -> None:
    """Incomplete if the slot of one of these sessions is there, and a listing did not show it.

    Or it was filled since: then the next listing shows it.
    """
    missed = hidden(backend, set(known) - set(shown))
    if missed:
        raise Incomplete(
            f"the listing of {backend.url} leaves out {len(missed)} commit slots that are there: {missed[0]}, ...",
            affected=map(names.snapshot, missed),
        )


def read_all(vault: Vault) -> Reading:
    """The commit slots, of which the listing left none out that a header or a later snapshot names; Incomplete."""
    missed: tuple[str, ...] = ()
    while True:
        known = announced(vault.backend)
        reading = vault.history.read()
        try:
            require_shown(vault.backend, reading.shown, known.union(sid for sid, _, _ in predecessors(reading.every)))
            return reading
        except Incomplete as e:
            if missed == (missed := e.affected):
                raise


def require_predecessors(
    slots: Iterable[Slot], shown: Collection[SessionId], forgotten: Collection[tuple[SessionId, bytes]], *, copy: bool
) -> None:
    """Damaged if a snapshot that a later one names is gone; ``forgotten``: and not missed, with the digests.

    NotHere at a ``copy``, to which commit slots come in any order.
    """
    for sid, digest, slot in predecessors(slots):
        if sid in shown or (sid, digest) in forgotten:
            continue
        named = f"which {slot.record.sid} names as its predecessor"
        if copy:
            raise NotHere(
                f"nothing is removed: snapshot {sid} has not come to this copy, {named}",
                hint="let the replication come to its end, or run it again; if that snapshot was lost or forgotten at "
                "the source, forget it here by its id, with --undelete-window 0h",
                affected=[names.snapshot(sid)],
            )
        raise Damaged(
            f"nothing is removed: snapshot {sid} is gone, {named}",
            hint="mend it from a copy of the repository, or forget it by its id, with --undelete-window 0h",
            affected=[names.snapshot(sid)],
        )
