"""Making a place a copy of a repository, and bringing it the keys (docs/replication.md).

Everything here is verified with public keys alone.
"""

import re
import secrets
from collections.abc import Callable

from snapvault.backend.own import put_own
from snapvault.backend.probe import PREFIX as PROBES
from snapvault.backend.protocol import Backend, Exists, NotFound
from snapvault.backend.wrapper import discard
from snapvault.format import names
from snapvault.format.config import ConfigRecord
from snapvault.format.keyset import KeysetRecord
from snapvault.format.local import ReplicaRecord
from snapvault.foundation.ahead import ahead, both
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Conflict, Damaged, InvalidInput, RepositoryNotFound
from snapvault.foundation.ids import SessionId
from snapvault.operations.copying import ObjectCopier, Outcome
from snapvault.operations.genuine import Genuine
from snapvault.repository.create import refuse_foreign
from snapvault.repository.keyring import public_ring
from snapvault.repository.keysets import newest_keyset, read_config
from snapvault.repository.replica import standing
from snapvault.repository.session import open_sessions
from snapvault.repository.store import FETCHERS

_SLOT = re.compile(rf"{names.SLOTS}([0-9a-f]{{32}})/[0-9a-f]{{16}}")


def join(source: Backend, target: Backend, config: ConfigRecord, digest: bytes) -> None:
    """See to it that the target is marked as a copy of this repository; the errors of ``replicate``."""
    known = _is_known(target, digest)  # first: a copy that is being made is marked before it has a config
    now = standing(target, digest, config.owner_sign)
    if now.promoted:
        if source.url == target.url:
            raise _same(source, target)
        raise Conflict(
            f"{target.url} was made a source of its own", hint="replicate from there instead, or to another place"
        )
    if now.replica:
        return
    if known and standing(source, digest, config.owner_sign).replica:
        raise Conflict(
            f"{source.url} is a copy, and {target.url} is a source",
            hint="if that source is lost for good, 'snapvault site promote' the copy first",
        )
    _mark(source, target, digest, config.owner_sign)


def _is_known(target: Backend, digest: bytes) -> bool:
    """Whether this repository is at the target already; InvalidInput if something else is."""
    try:
        _, other = read_config(target)
    except RepositoryNotFound:
        refuse_foreign(target)
        return False
    if other != digest:
        raise InvalidInput(f"another repository is at {target.url}", hint="name an empty place, or a copy of this one")
    return True


def _refuse_same(source: Backend, target: Backend) -> None:
    """InvalidInput if both are one place under two names: what is put at one of them is seen at the other.

    Also if one lies inside the other, whose objects would then be among its own.
    """
    a, b = (place.url.rstrip("/") + "/" for place in (source, target))
    if a != b and (a.startswith(b) or b.startswith(a)):
        raise InvalidInput(f"{source.url} and {target.url} lie inside one another", hint="name another place")
    name = f"{PROBES}{secrets.token_hex(12)}"
    put_own(target, name, b"x")
    try:
        source.head(name)
    except NotFound:
        return
    finally:
        discard(target, name)
    raise _same(source, target)


def _same(source: Backend, target: Backend) -> InvalidInput:
    return InvalidInput(f"{source.url} is to be copied onto itself: {target.url} is the same place")


def _mark(source: Backend, target: Backend, digest: bytes, owner_sign: bytes) -> None:
    _, (collected, _) = both(
        lambda: _refuse_same(source, target),
        lambda: both(lambda: _collected(target), lambda: _refuse_busy(source, target)),
    )
    try:
        target.put_if_absent(names.REPLICA_MARK, [ReplicaRecord(digest, now_ns(), collected).encode()])
    except Exists:
        if standing(target, digest, owner_sign).replica:
            return  # by another replication, which looks as we do
        raise Conflict(f"{target.url} was marked, and is not a copy", hint="run it again") from None
    try:
        _refuse_busy(source, target)  # whoever begins now sees the mark once it has announced itself
    except Conflict:
        target.delete(names.REPLICA_MARK)
        raise


def _collected(target: Backend) -> tuple[SessionId, ...]:
    """GCs that have ended there."""
    slots = (o.name.removeprefix(names.SNAPSHOTS) for o in target.list(names.SNAPSHOTS + names.GC_PREFIX))
    return tuple(SessionId(sid) for sid in slots if names.is_session_id(sid))


def _refuse_busy(source: Backend, target: Backend) -> None:
    """Conflict if somebody uses the target as a source right now: sessions that the source does not know."""
    begun, collecting = both(lambda: open_sessions(target), lambda: [o.name for o in target.list(names.GC)])
    if begun:
        begun -= {SessionId(o.name.removeprefix(names.SESSIONS)) for o in source.list(names.SESSIONS)}
    busy = sorted(begun) + collecting
    if busy:
        raise Conflict(
            f"backups or prunes at {target.url} have not ended: {', '.join(busy[:5])}",
            hint="a copy is no source: let them end; what died is ended by 'snapvault prune --exclusive' there",
        )


def bring_keys(
    source: Backend, target: Backend, config: ConfigRecord, digest: bytes, report: Callable[[str, str], None]
) -> KeysetRecord:
    """Bring config, key slots, rescue files and keysets; the newest keyset.

    Conflict if the target has a newer one; Damaged if what makes a copy open cannot be brought.  ``report`` gets what
    else is wrong, and the name of the object.
    """
    keyset, _, problem = newest_keyset(source, config, digest)
    if problem is not None:
        report(problem.message, names.KEYSETS)
    _refuse_older(source, target, config, digest, keyset)
    genuine = Genuine(public_ring(config, digest, keyset), source)  # the source may show something else each time
    copier = ObjectCopier(source, target, dict(keyset.rescue), genuine)
    holders = {h.id.hex() for h in keyset.holders}
    slots = [o for o in source.list(names.SLOTS) if (m := _SLOT.fullmatch(o.name)) and m[1] in holders]
    rescue = [o for name, _ in keyset.rescue for o in source.list(name) if o.name == name]
    _bring(copier, source, names.CONFIG)
    others = [*slots, *rescue]
    for info, outcome in zip(others, ahead(copier.copy, others, FETCHERS), strict=True):
        if outcome in (Outcome.DAMAGED, Outcome.CONFLICT, Outcome.REFUSED):
            report(f"{info.name} is damaged at one of the places, or has other bytes at each", info.name)
    for number in range(1, keyset.number + 1):  # each after the one that it names
        _bring(copier, source, names.keyset(number))
    return keyset


def _refuse_older(source: Backend, target: Backend, config: ConfigRecord, digest: bytes, keyset: KeysetRecord) -> None:
    try:
        there, _, _ = newest_keyset(target, config, digest)
    except (RepositoryNotFound, Damaged):
        return
    if there.number > keyset.number:
        raise Conflict(
            f"{target.url} has keyset {there.number}, {source.url} only {keyset.number}: "
            "the source shows an old state, or is the copy",
            hint="look which of them is the newer one before anything is copied over it",
        )


def _bring(copier: ObjectCopier, source: Backend, name: str) -> None:
    try:
        outcome = copier.copy(source.head(name))
    except NotFound:
        outcome = Outcome.GONE
    if outcome not in (Outcome.COPIED, Outcome.HEALED, Outcome.SAME):
        raise Damaged(
            f"nothing is copied: {name} is damaged or missing at the source, or another one is at the target",
            hint="'snapvault check --repair-from' mends each place from the other",
            affected=[name],
        )
