"""Keys: list, add, remove holders; change a password; rotate to a new epoch."""

import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from snapvault.backend.own import holds
from snapvault.backend.protocol import Exists, NotFound
from snapvault.backend.wrapper import discard, settle
from snapvault.crypto.kdf import context_digest, derive
from snapvault.crypto.recovery import RecoveryKey
from snapvault.format import names
from snapvault.format.evidence import encode_evidence
from snapvault.format.keyset import Holder, Revocation, Role
from snapvault.format.signed import decode_signed
from snapvault.format.slot import ARGON2ID, RECOVERY, SlotRecord
from snapvault.format.snapshot import COMMIT
from snapvault.format.wire import Kind
from snapvault.foundation.errors import (
    Conflict,
    Damaged,
    InvalidInput,
    KeyRejected,
    SnapvaultError,
    StoreDenied,
    StoreUnavailable,
)
from snapvault.foundation.ids import DomainId, HolderId, SessionId
from snapvault.operations.results import Result
from snapvault.operations.unlisted import read_all
from snapvault.repository.create import put_slot
from snapvault.repository.credentials import SEED_SIZE, ClientKey, Password, Secret, parse_key, write_private
from snapvault.repository.keyring import HolderKeys, KeysetEditor, recovery_key_pair
from snapvault.repository.keysets import read_keyset
from snapvault.repository.repository import Vault
from snapvault.repository.session import revoke
from snapvault.repository.slots import list_slots, unwrap
from snapvault.repository.takeover import take_over_indexes
from snapvault.repository.trust import sign, signed_by

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

log = logging.getLogger("snapvault")

OWNER_ONLY = (Role.OWNER,)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A holder of keys."""

    id: str
    name: str
    role: str
    slots: tuple[str, ...]  # how its keys are wrapped: argon2id, key-file, recovery
    current: bool  # the key in use
    removed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class KeyResult(Result):
    """What was done to a holder's keys."""

    id: str
    name: str
    role: str
    keyset: int
    file: str = ""
    recovery_key: str = field(default="", repr=False)


def list_keys(repo: "Repository") -> list[KeyInfo]:
    """All holders, and those that were removed."""
    vault = repo.vault
    keyset, own = vault.ring.current, vault.ring.own
    slots = list(list_slots(vault.backend))
    found = [
        KeyInfo(
            h.id.hex(), h.name, h.role, tuple(sorted(r.wrapping for _, r in slots if r.holder == h.id)),
            own is not None and own.id == h.id,
        )
        for h in keyset.holders
    ]  # fmt: skip
    return found + [KeyInfo(r.holder.hex(), r.name, r.role, (), False, True) for r in keyset.revocations]


def add_key(
    repo: "Repository",
    role: str,
    name: str,
    *,
    password: Secret | None = None,
    file: str | os.PathLike[str] | None = None,
) -> KeyResult:
    """Give somebody keys of their own.

    ``file``: write a client key file there (mode 0600).  ``password``: wrap them by a password as well or instead.  A
    writer gets a domain of its own: it deduplicates against nobody else's data and can open nothing.  InvalidInput,
    RoleRequired unless owner.
    """
    vault = repo.vault
    vault.ring.require_role(OWNER_ONLY, "add keys")
    if role not in Role.ALL or role == Role.OWNER:
        raise InvalidInput(f"{role!r} is no role to add", hint="roles are maintainer, reader, writer and site")
    if (password is None) == (file is None):
        raise InvalidInput("a new key needs a file or a password, one of them")
    if not name or not name.isprintable() or any(h.name == name for h in vault.ring.current.holders):
        raise InvalidInput(f"{name!r} is taken or is no name for a key", hint="name another one")
    keys = HolderKeys.generate()
    editor = _editor(vault)
    domains: tuple[DomainId, ...] = ()
    if role == Role.WRITER:
        domains = (DomainId(os.urandom(16)),)
    editor.add_holder(keys.id, role, name, keys.hpke.public, keys.signer.public, domains)
    if role in Role.READERS:
        editor.share_with(keys.id, vault.ring)
    for domain in domains:
        editor.add_domain(domain, name)
    number = vault.ring.current.number + 1
    if file is not None:
        _remove_leftover(vault, file)
        key = ClientKey(os.urandom(SEED_SIZE), vault.ring.config_digest, keys.id, name, number)
        write_private(file, key.encode())
        credential: ClientKey | Password = key
    else:
        assert password is not None
        credential = Password(password)
    try:
        put_slot(vault.backend, keys, credential, vault.ring.config_digest)
        _publish(vault, editor)
    except SnapvaultError:
        # Unless the store may have taken the keyset, and only its answer was lost: then the file is the only key.
        if file is not None and not _may_be_holder(vault, keys.id):
            Path(file).unlink(missing_ok=True)
        raise
    return KeyResult(keys.id.hex(), name, role, number, "" if file is None else os.fspath(file))


def _remove_leftover(vault: Vault, file: str | os.PathLike[str]) -> None:
    """Remove the file, and the slot, of an earlier ``add_key`` that was killed before it made a holder of it."""
    try:
        key = parse_key(Path(file).read_bytes())
    except (OSError, KeyRejected):
        return  # there is none, or it is something else, which is not ours to remove
    if not isinstance(key, ClientKey) or key.holder is None or key.config_digest != vault.ring.config_digest:
        return
    if not _may_be_holder(vault, key.holder):
        _delete_slots(vault, key.holder)
        Path(file).unlink()


def _may_be_holder(vault: Vault, holder: HolderId) -> bool:
    """Whether a holder is, or was, named by the newest keyset; also if that cannot be seen now."""
    try:
        keyset, _ = read_keyset(vault.backend, vault.ring.config, vault.ring.config_digest)
    except SnapvaultError:
        return True
    return holder in {h.id for h in keyset.holders} | {r.holder for r in keyset.revocations}


def remove_key(repo: "Repository", who: str) -> KeyResult:
    """Remove a holder, by name or by the beginning of its id.

    What it wrote until now stays; anything later of it is ignored and reported.  If it could read, a new epoch begins,
    so that it cannot open new data; what it could read before, it may have kept.
    InvalidInput, RoleRequired unless owner.
    """
    vault = repo.vault
    vault.ring.require_role(OWNER_ONLY, "remove keys")
    removed = _find_removed(vault, who)
    if removed is not None:
        # An earlier removal, which may have been killed half-way.  What was committed since stays refused: here nobody
        # can tell it from what a thief of the key committed.
        _revoke_sessions(vault, removed.holder)
        _delete_slots(vault, removed.holder)
        return KeyResult(removed.holder.hex(), removed.name, removed.role, vault.ring.current.number)
    holder = _find(vault, who)
    if holder.role == Role.OWNER:
        raise InvalidInput("the owner's key cannot be removed", hint="change its password, or rotate")
    editor = _editor(vault)
    editor.remove_holder(holder.id)
    editor.unshare(holder.id)
    if holder.role in Role.READERS:
        editor.add_epoch(vault.ring.current.epochs[-1].recovery)
    if holder.role in Role.READERS:
        vault.evidence.take_over(holder.id, encode_evidence([]))
    if holder.role in Role.MAINTAINERS:
        _take_over_tombstones(vault, holder)
        vault.register.take_over(holder.id)
        slots = vault.history.all_slots()
        vault.notes.take_over(holder.sign, {s.record.sid: s.holder for s in slots if s.record.kind == COMMIT})
    kept = editor.record.revocations
    heads: tuple[SessionId, ...] | None = None
    listed: set[str] = set()
    while heads != (heads := _heads(vault, holder)):
        _take_over_indexes(vault, holder, listed)
        # A commit that came in between was acknowledged, so the next keyset accepts it too.
        revocation = Revocation(holder.id, holder.name, holder.role, holder.sign, heads)
        editor.record = replace(editor.record, revocations=(*kept, revocation))
        _publish(vault, editor)
        _revoke_sessions(vault, holder.id)
        editor = _editor(vault)
    _take_over_indexes(vault, holder, listed)  # of what ran meanwhile, and cannot go on
    _delete_slots(vault, holder.id)
    return KeyResult(holder.id.hex(), holder.name, holder.role, vault.ring.current.number)


def _take_over_tombstones(vault: Vault, holder: Holder) -> None:
    """Sign a maintainer's tombstones as the owner: once it is removed they count no more, since they may be new."""
    own = vault.ring.signing
    for info in list(vault.backend.list(names.TOMBSTONES)):
        with suppress(Damaged, NotFound):  # such a one forgets nothing now
            data = vault.store.fresh(info.name, info.size)
            record = vault.history.verify_tombstone(info.name, data)
            if signed_by(Kind.TOMBSTONE, decode_signed(Kind.TOMBSTONE, data), holder.sign):
                vault.backend.put(info.name, [sign(Kind.TOMBSTONE, record.encode(), own.id, own.signer)])


def _take_over_indexes(vault: Vault, holder: Holder, listed: set[str]) -> None:
    if holder.role in Role.WRITERS or holder.role in Role.MAINTAINERS:
        take_over_indexes(vault.store, vault.ring, vault.loader, holder.id, listed)


def _find_removed(vault: Vault, who: str) -> Revocation | None:
    """The revocation of this name or id, unless a holder of now is meant."""
    keyset = vault.ring.current

    def meant(holder: HolderId, name: str) -> bool:
        return name == who or (len(who) >= 4 and holder.hex().startswith(who))

    if any(meant(h.id, h.name) for h in keyset.holders):
        return None
    return next((r for r in reversed(keyset.revocations) if meant(r.holder, r.name)), None)


def _delete_slots(vault: Vault, holder: HolderId) -> None:
    """Of somebody who is no holder, so that they open nothing if the store keeps them."""
    for name, _ in list(list_slots(vault.backend, holder)):
        discard(vault.backend, name)


def _heads(vault: Vault, holder: Holder) -> tuple[SessionId, ...]:
    """The newest commits of a holder, those that a revocation already refuses included; Incomplete.

    None may be left out: it would be refused for ever.
    """
    return tuple(sid for sid, _ in vault.history.heads(read_all(vault).every, holder.id))


def _revoke_sessions(vault: Vault, holder: HolderId) -> None:
    """Fill the slots of the holder's open sessions, so that none of them can commit any more."""
    filled = {o.name for o in vault.backend.list(names.SNAPSHOTS)}
    for info in list(vault.backend.list(names.SESSIONS)):
        try:
            sid = names.session_id(info.name, names.SESSIONS)
            if names.snapshot(sid) in filled:
                continue
            _, author = vault.sessions.header(sid)
        except Damaged:
            continue
        if author.holder == holder:
            revoke(vault.store, vault.ring, sid)


def change_password(repo: "Repository", new: Secret) -> KeyResult:
    """Wrap the keys in use by a new password, then remove the slots of old passwords.

    Whoever kept an old slot and its password still has these keys: after a leak, ``rotate`` too.  RoleRequired for the
    recovery key without an owner slot.
    """
    vault = repo.vault
    own = vault.ring.signing
    old = [name for name, r in list_slots(vault.backend, own.id) if r.wrapping == ARGON2ID]
    put_slot(vault.backend, own, Password(Password(new).get()), vault.ring.config_digest)
    for name in old:
        try:
            vault.backend.delete(name)
        except StoreDenied as e:
            raise StoreDenied(
                f"the new password is in force, and so is the old one: {e.message}",
                hint="delete that object with credentials that may; the old password opens the repository until then",
                affected=[name],
            ) from e
    holder = next(h for h in vault.ring.current.holders if h.id == own.id)
    return KeyResult(own.id.hex(), holder.name, holder.role, vault.ring.current.number)


def rotate(repo: "Repository", *, new_recovery_key: bool = False) -> KeyResult:
    """Begin a new epoch: new data is sealed to a fresh read key, given to all who may read now.

    ``new_recovery_key``: also issue a new recovery key (for new data; keep the old sheet for the old data).  The old
    one opens a slot until the new one is in force.  A run that was killed, or did not hear whether the store took the
    new key, is taken up by the next: that shows the same key.  RoleRequired unless owner.
    """
    vault = repo.vault
    vault.ring.require_role(OWNER_ONLY, "rotate keys")
    if new_recovery_key:
        return _rotate_recovery(vault)
    editor = _editor(vault)
    editor.add_epoch(vault.ring.current.epochs[-1].recovery)
    _publish(vault, editor)
    return _rotated(vault)


def _rotate_recovery(vault: Vault) -> KeyResult:
    recovery = _begun_recovery_key(vault)
    ours, old = (False, []) if recovery is None else _recovery_slots(vault, recovery)
    if recovery is None or not old:
        editor = _editor(vault)
        recovery = _recovery_key(vault, editor.record.number)
        ours, old = _recovery_slots(vault, recovery)
        if not ours:
            put_slot(vault.backend, vault.ring.signing, recovery, vault.ring.config_digest)
        editor.add_epoch(_recovery_public(vault, recovery))
        _publish(vault, editor)
    elif not ours:
        put_slot(vault.backend, vault.ring.signing, recovery, vault.ring.config_digest)
    # From here on the new key is in force, and must be shown: nothing that follows may raise.
    for name in old:
        try:
            vault.backend.delete(name)
        except SnapvaultError as e:
            log.warning("a slot of the old recovery key is still there; rotate once more to remove it: %s", e)
    return _rotated(vault, recovery.encode())


def _recovery_key(vault: Vault, number: int) -> RecoveryKey:
    """The recovery key that comes with keyset ``number``: the owner alone derives it, and can do so again."""
    digest = vault.ring.config_digest
    context = context_digest(digest, number.to_bytes(8, "little"))
    return RecoveryKey(derive(vault.ring.signing.seeds, "recovery key", context), digest)


def _recovery_public(vault: Vault, recovery: RecoveryKey) -> bytes:
    return recovery_key_pair(recovery.seed, vault.ring.config_digest).public


def _begun_recovery_key(vault: Vault) -> RecoveryKey | None:
    """The recovery key in force, if a rotation issued it; the one of ``init`` is random."""
    keyset = vault.ring.current
    keys = (_recovery_key(vault, number) for number in range(keyset.number, 1, -1))
    return next((k for k in keys if _recovery_public(vault, k) == keyset.epochs[-1].recovery), None)


def _recovery_slots(vault: Vault, recovery: RecoveryKey) -> tuple[bool, list[str]]:
    """Whether a slot of the owner opens under this key, and the slots that other recovery keys open."""
    slots = [(name, r) for name, r in list_slots(vault.backend, vault.ring.signing.id) if r.wrapping == RECOVERY]
    others = [name for name, r in slots if not _opens(r, recovery)]
    return len(others) < len(slots), others


def _opens(record: SlotRecord, recovery: RecoveryKey) -> bool:
    try:
        return unwrap(record, recovery, recovery.config_digest) is not None
    except Damaged:
        return False


def _rotated(vault: Vault, text: str = "") -> KeyResult:
    own = vault.ring.signing
    holder = next(h for h in vault.ring.current.holders if h.id == own.id)
    return KeyResult(own.id.hex(), holder.name, holder.role, vault.ring.current.number, recovery_key=text)


def _find(vault: Vault, who: str) -> Holder:
    holders = vault.ring.current.holders
    found = [h for h in holders if h.name == who] or [
        h for h in holders if len(who) >= 4 and h.id.hex().startswith(who)
    ]
    if len(found) != 1:
        known = ", ".join(f"{h.name} ({h.id.hex()[:8]})" for h in holders)
        raise InvalidInput(f"{who!r} names {'several keys' if found else 'no key'}; there are {known}")
    return found[0]


def _editor(vault: Vault) -> KeysetEditor:
    """The next keyset, after the one in use."""
    if vault.rollback is not None:
        raise vault.rollback
    vault.standing().require_source("change keys")
    record = vault.ring.current
    following = replace(record, number=record.number + 1, previous=vault.ring.keyset_digest)
    return KeysetEditor(following, vault.ring.config_digest, vault.ring.signing)


def _is_there(vault: Vault, name: str, data: bytes) -> bool:
    """Whether a put whose reply was lost took effect and lasts; False if that cannot be seen."""
    try:
        there = holds(vault.backend, name, [data])
        if there:
            settle(vault.backend, (name.rpartition("/")[0] + "/",))  # a folder's sync may be what failed
        return there
    except StoreUnavailable:
        return False


def _publish(vault: Vault, editor: KeysetEditor) -> None:
    """Put the next keyset; Conflict if another was put meanwhile.  The open repository goes on with the new one."""
    own = vault.ring.signing
    data = sign(Kind.KEYSET, editor.record.encode(), own.id, own.signer)
    name = names.keyset(editor.record.number)
    try:
        vault.backend.put_if_absent(name, [data])
    except StoreUnavailable:
        if not _is_there(vault, name, data):
            raise
    except Exists:
        if not holds(vault.backend, name, [data]):
            raise Conflict(f"{name} was written by somebody else meanwhile", hint="open the repository again") from None
    vault.adopt(editor.record, blake3(data).digest())
