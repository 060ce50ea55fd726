"""Making a repository.  ``keyset/1``, written last, commits it; an init that was killed is taken up by the next one."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from blake3 import blake3

from snapvault.backend.factory import open_backend
from snapvault.backend.own import holds, put_own
from snapvault.backend.protocol import Backend, Exists, NotFound
from snapvault.chunking import Chunking
from snapvault.crypto.kdf import SECRET_SIZE
from snapvault.crypto.recovery import RecoveryKey
from snapvault.format import names
from snapvault.format.config import ConfigRecord
from snapvault.format.keyset import KeysetRecord, Role
from snapvault.format.wire import Kind
from snapvault.foundation.errors import Conflict, InvalidInput, KeyRejected
from snapvault.foundation.ids import DomainId
from snapvault.repository.capabilities import record_capabilities
from snapvault.repository.credentials import Credential
from snapvault.repository.keyring import HolderKeys, KeysetEditor, recovery_key_pair
from snapvault.repository.keysets import read_config, refuse_orphaned
from snapvault.repository.slots import open_slot, wrap
from snapvault.repository.trust import sign

SEGMENT_SIZE = 4 << 20
PACK_SIZE = 32 << 20
OWN_DOMAIN = "owner"
RESCUE = ("RESCUE-1.md", "rescue-1.py")


@dataclass(frozen=True, slots=True)
class Created:
    """The config digest of a new repository, and the key to print."""

    config_digest: bytes
    recovery_key: RecoveryKey


def rescue_files() -> dict[str, bytes]:
    """The files that every repository carries (design: how to get the data out without snapvault)."""
    folder = resources.files("snapvault.rescue")
    return {name: (folder / name).read_bytes() for name in RESCUE}


def create(
    url: str, credential: Credential, chunking: Chunking, *, storage_options: Mapping[str, Any] | None = None
) -> Created:
    """Make a repository at ``url``; InvalidInput if there is one, or something else, already.

    Damaged if there is data, and the keysets that go with it are gone.
    """
    backend = open_backend(url, storage_options, create=True)
    try:
        if _keyset_there(backend):
            raise InvalidInput(f"there is a repository at {backend.url} already", hint="open it, or name another place")
        refuse_foreign(backend)
        refuse_orphaned(backend)
        keys, digest = _take_up(backend, credential) or _begin(backend, credential)
        recovery = RecoveryKey(os.urandom(SECRET_SIZE), digest)
        put_slot(backend, keys, recovery, digest)
        record_capabilities(backend)
        rescue = _put_rescue(backend)
        _put_keyset(backend, keys, digest, chunking, recovery, rescue)
        return Created(digest, recovery)
    finally:
        backend.close()


def _keyset_there(backend: Backend) -> bool:
    return any(True for _ in backend.list(names.KEYSETS))


def refuse_foreign(backend: Backend) -> None:
    """InvalidInput if there is anything at a place that no unfinished init or replication left."""
    ours = (
        names.CONFIG, names.SLOTS, names.LOCAL, *names.RESCUE, names.SESSIONS, names.PACKS, names.INDEX,
        names.SNAPSHOTS,
    )  # fmt: skip
    for info in backend.list():
        if not info.name.startswith(ours):
            raise InvalidInput(
                f"{backend.url} is not empty: it holds {info.name}", hint="name an empty folder or prefix"
            )


def _begin(backend: Backend, credential: Credential) -> tuple[HolderKeys, bytes]:
    """New keys; the slot stands before the config, so that whoever finds a config can take the init up."""
    keys = HolderKeys.generate()
    config = ConfigRecord(os.urandom(32), keys.hpke.public, keys.signer.public)
    data = config.encode()
    digest = blake3(data).digest()
    put_slot(backend, keys, credential, digest)
    try:
        backend.put_if_absent(names.CONFIG, [data])
    except Exists:
        if not holds(backend, names.CONFIG, [data]):
            raise Conflict(f"somebody else is making a repository at {backend.url} right now") from None
    return keys, digest


def _take_up(backend: Backend, credential: Credential) -> tuple[HolderKeys, bytes] | None:
    """The keys of an init that was killed after it put the config; None if there is no config."""
    try:
        backend.head(names.CONFIG)
    except NotFound:
        return None
    _, digest = read_config(backend)
    try:
        _, keys = open_slot(backend, credential, digest)
    except KeyRejected as e:
        raise KeyRejected(
            f"{backend.url} holds an unfinished init with another password",
            hint="give the password of that init, or delete what is there and start again",
        ) from e
    return keys, digest


def put_slot(backend: Backend, keys: HolderKeys, credential: Credential, digest: bytes) -> None:
    """Wrap a holder's keys into one more slot."""
    name, data = wrap(keys, credential, digest)
    put_own(backend, name, data)


def _put_rescue(backend: Backend) -> tuple[tuple[str, bytes], ...]:
    digests = []
    for name, data in rescue_files().items():
        try:
            backend.put_if_absent(name, [data])
        except Exists:  # an init that was killed
            if not holds(backend, name, [data]):
                backend.put(name, [data])
        digests.append((name, hashlib.sha256(data).digest()))
    return tuple(digests)


def _put_keyset(
    backend: Backend,
    keys: HolderKeys,
    digest: bytes,
    chunking: Chunking,
    recovery: RecoveryKey,
    rescue: tuple[tuple[str, bytes], ...],
) -> None:
    sizes = (chunking.minimum, chunking.average, chunking.maximum)
    empty = KeysetRecord(digest, 1, bytes(32), (), sizes, SEGMENT_SIZE, PACK_SIZE, (), (), (), (), rescue)
    editor = KeysetEditor(empty, digest, keys)
    domain = DomainId(os.urandom(16))
    editor.add_holder(keys.id, Role.OWNER, "owner", keys.hpke.public, keys.signer.public, (domain,))
    editor.add_epoch(recovery_key_pair(recovery.seed, digest).public)
    editor.add_domain(domain, OWN_DOMAIN)
    data = sign(Kind.KEYSET, editor.record.encode(), keys.id, keys.signer)
    try:
        backend.put_if_absent(names.keyset(1), [data])
    except Exists:
        if not holds(backend, names.keyset(1), [data]):
            raise Conflict(f"somebody else made a repository at {backend.url} meanwhile") from None
