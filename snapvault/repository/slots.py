"""Wrapping a holder's keys into a slot, and opening one (docs/format/slot.md)."""

import hmac
import os
from collections.abc import Callable, Collection, Iterator

from snapvault.backend.protocol import Backend, NotFound
from snapvault.crypto.envelope import seal, unseal
from snapvault.crypto.kdf import SECRET_SIZE, context_digest, derive
from snapvault.crypto.password import Argon2Parameters, password_key
from snapvault.crypto.recovery import RecoveryKey
from snapvault.format import names
from snapvault.format.slot import ARGON2ID, KEY_FILE, RECOVERY, PasswordParameters, SlotRecord, decode_slot
from snapvault.format.wire import FormatError
from snapvault.foundation.errors import Damaged, KeyRejected
from snapvault.foundation.ids import HolderId
from snapvault.repository.credentials import ClientKey, Credential, Password
from snapvault.repository.keyring import HolderKeys
from snapvault.repository.store import fetch

MAX_TRIES = 64  # password slots tried for one password: each costs 0.2 s and 64 MiB


def _wrapping_key(credential: Credential, parameters: PasswordParameters | None, context: bytes) -> bytes:
    if isinstance(credential, Password):
        if parameters is None:
            raise FormatError("a password slot has no parameters")
        return password_key(credential.get(), Argon2Parameters(*parameters))
    purpose = "recovery slot" if isinstance(credential, RecoveryKey) else "key-file slot"
    return derive(credential.seed, purpose, context)


def _wrapping(credential: Credential) -> str:
    if isinstance(credential, Password):
        return ARGON2ID
    return RECOVERY if isinstance(credential, RecoveryKey) else KEY_FILE


def wrap(keys: HolderKeys, credential: Credential, config_digest: bytes) -> tuple[str, bytes]:
    """Name and bytes of a new slot."""
    context = context_digest(config_digest, keys.id)
    parameters = None
    if isinstance(credential, Password):
        fresh = Argon2Parameters.fresh()
        parameters = PasswordParameters(fresh.salt, fresh.memory, fresh.passes, fresh.lanes)
    kek = _wrapping_key(credential, parameters, context)
    sealed = seal(kek, "slot", context, 0, len(keys.seeds), keys.seeds)
    commitment = derive(kek, "slot commitment", context)
    record = SlotRecord(config_digest, keys.id, _wrapping(credential), parameters, commitment, sealed)
    return names.slot(keys.id, os.urandom(8)), record.encode()


def unwrap(record: SlotRecord, credential: Credential, config_digest: bytes) -> HolderKeys | None:
    """The keys in a slot, or None if this credential does not open it; Damaged if it does and the content is bad."""
    context = context_digest(config_digest, record.holder)
    kek = _wrapping_key(credential, record.parameters, context)
    if not hmac.compare_digest(derive(kek, "slot commitment", context), record.commitment):
        return None
    seeds = bytes(unseal(kek, "slot", context, record.sealed).data)
    if len(seeds) != 2 * SECRET_SIZE:
        raise Damaged("a key slot holds keys of the wrong size")
    keys = HolderKeys(seeds[:SECRET_SIZE], seeds[SECRET_SIZE:])
    if keys.id != record.holder:
        raise Damaged("a key slot holds another holder's keys")
    return keys


def list_slots(
    backend: Backend,
    holder: HolderId | None = None,
    *,
    first: Collection[HolderId] = (),
    on_damaged: Callable[[str], None] = lambda name: None,
) -> Iterator[tuple[str, SlotRecord]]:
    """The readable slots (of one holder), those of ``first`` first; a damaged one is passed over: another may open."""
    prefix = names.SLOTS if holder is None else f"{names.SLOTS}{holder.hex()}/"
    preferred = tuple(f"{names.SLOTS}{h.hex()}/" for h in first)
    for info in sorted(backend.list(prefix), key=lambda info: not info.name.startswith(preferred)):
        try:
            record = decode_slot(fetch(backend, info.name, info.size))
        except NotFound:  # gone since it was listed: a rotation replaces slots
            continue
        except FormatError:
            on_damaged(info.name)
            continue
        if info.name.startswith(f"{names.SLOTS}{record.holder.hex()}/"):
            yield info.name, record


def open_slot(
    backend: Backend, credential: Credential, config_digest: bytes, holders: Collection[HolderId] = ()
) -> tuple[str, HolderKeys]:
    """The first slot that this credential opens: its name, and the keys.  KeyRejected if there is none.

    Slots of ``holders`` are tried first: an interrupted ``key add`` leaves one of a holder that never came to be, which
    the same password may open.
    """
    bound = getattr(credential, "config_digest", b"")
    if bound and bound != config_digest:
        raise KeyRejected(
            "this key belongs to another repository", hint="check the repository's URL; the store may have been swapped"
        )
    holder = credential.holder if isinstance(credential, ClientKey) else None
    tries, damaged, wrapping = 0, list[str](), _wrapping(credential)
    if isinstance(credential, Password):
        credential = Password(credential.get())  # ask once, however many slots there are
    for name, record in list_slots(backend, holder, first=holders, on_damaged=damaged.append):
        if record.wrapping != wrapping or record.config != config_digest:
            continue
        tries += 1
        if tries > MAX_TRIES:
            break
        try:
            keys = unwrap(record, credential, config_digest)
        except Damaged:
            damaged.append(name)
            continue
        if keys is not None:
            return name, keys
    if holder is not None and not tries and not damaged:
        raise KeyRejected(
            "there is no key slot of this key in this repository: it was removed, or its slot is lost",
            hint="ask the owner for a new key",
        )
    raise _rejected(wrapping, tries, damaged)


def _rejected(wrapping: str, tries: int, damaged: list[str]) -> KeyRejected:
    """Whether the key is wrong, or the slot that it opens is gone, nobody can tell: so both are said."""
    what = {ARGON2ID: "password", KEY_FILE: "key file", RECOVERY: "recovery key"}[wrapping]
    hint = f"if it is the right {what}, copy what is below slots/ from another copy of the repository"
    hint += "" if wrapping == RECOVERY else ", or open it by the recovery key"
    if damaged:
        return KeyRejected(
            f"the {what} opens no key slot of this repository, of which {len(damaged)} cannot be read: {damaged[0]}",
            hint=hint,
            affected=damaged,
        )
    if not tries:
        return KeyRejected(f"there is no key slot for a {what} in this repository", hint=hint)
    return KeyRejected(f"the {what} opens no key slot of this repository")
