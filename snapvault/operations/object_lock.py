"""Keeping locked what is needed, and saying for how long it is (docs/adr/0011-object-lock.md)."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from snapvault.backend.object_lock import Lock, LockRule, lock_rule, with_locks
from snapvault.backend.protocol import Backend, NotFound
from snapvault.format import names
from snapvault.foundation import clock
from snapvault.foundation.ahead import ahead
from snapvault.foundation.errors import StoreDenied
from snapvault.foundation.events import Reporter
from snapvault.foundation.ids import PackId
from snapvault.operations.results import LockReport
from snapvault.operations.survey import going_by
from snapvault.repository.history import Slot
from snapvault.repository.repository import Vault

AT_ONCE = 32  # requests: as many as an S3 store has connections
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class _Seen:
    """The end of an object's lock, and whether it was known, extended, refused to be."""

    until: datetime | None
    known: bool = True
    extended: bool = False
    refused: bool = False


def must_stay(vault: Vault, listed: Iterable[str], slots: Sequence[Slot], dead: Collection[PackId] = ()) -> list[str]:
    """Those of some objects that are locked for as long as they are needed; ``dead``: packs that nobody needs."""
    gone = {name for s in going_by(vault, slots) for name in s.record.removed}
    gone.update(map(names.pack, dead))
    return [name for name in listed if not name.startswith(names.LOCAL) and name not in gone]


def review_locks(
    backend: Backend, wanted: Sequence[str], reporter: Reporter, *, extend: bool = False
) -> LockReport | None:
    """How these objects are locked; None where nothing is to be.  A request for each, many at once.

    ``extend``: also lock anew, for the whole period, each whose lock ends within half of it.  All errors of the store,
    but for StoreDenied.
    """
    rule = lock_rule(backend)
    if rule is None:
        return None
    now = clock.now()
    look = partial(_look, backend, rule, now, extend)
    found = dict[str, _Seen]()
    for number, (name, seen) in enumerate(zip(wanted, ahead(look, wanted, AT_ONCE), strict=True)):
        reporter.check()
        reporter.tick("locks", number, len(wanted), current=name)
        if seen is not None:
            found[name] = seen
    unknown = [name for name, s in found.items() if not s.known]
    unlocked = [name for name, s in found.items() if s.known and (s.until is None or s.until <= now)]
    refused = [name for name, s in found.items() if s.refused]
    whole = not (unknown or unlocked)
    return LockReport(
        rule.mode, rule.days, len(found),
        min((s.until for s in found.values() if s.until is not None), default=None) if whole else None,
        len(unlocked), len(unknown), sum(s.extended for s in found.values()), len(refused),
        tuple(dict.fromkeys((*unlocked, *unknown, *refused)))[:EXAMPLES],
    )  # fmt: skip


def _look(backend: Backend, rule: LockRule, now: datetime, extend: bool, name: str) -> _Seen | None:
    """None: it is gone."""
    try:
        lock = with_locks(backend, name, lambda locks: locks.of(name))
    except NotFound:  # another prune removed it, or somebody their slot
        return None
    except StoreDenied:
        return _Seen(None, known=False)
    until = None if lock is None else lock.until
    if not extend or (until is not None and until - now >= rule.period / 2):
        return _Seen(until)
    # A lock that holds keeps its mode: S3 refuses anything else.
    longer = Lock(lock.mode if lock is not None and lock.until > now else rule.mode, now + rule.period)
    try:
        with_locks(backend, name, lambda locks: locks.set(name, longer))
        lock = with_locks(backend, name, lambda locks: locks.of(name))  # a store may say yes and do nothing
    except NotFound:
        return None
    except StoreDenied:
        return _Seen(until, refused=True)
    until = None if lock is None else lock.until
    extended = until is not None and until > longer.until - timedelta(seconds=1)  # some keep whole seconds
    return _Seen(until, extended=extended, refused=not extended)
