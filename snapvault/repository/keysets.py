"""The config and the keysets as a store shows them: whose repository it is, and whose keys count."""

import contextlib

from blake3 import blake3

from snapvault.backend.protocol import Backend, NotFound
from snapvault.format import names
from snapvault.format.config import ConfigRecord, decode_config
from snapvault.format.keyset import KeysetRecord, decode_keyset
from snapvault.format.signed import decode_signed
from snapvault.format.wire import FormatError, Kind
from snapvault.foundation.errors import Damaged, FormatTooNew, RepositoryNotFound
from snapvault.repository.store import fetch
from snapvault.repository.trust import Untrusted, signed_by

_CONFIG_HINT = "'snapvault check --repair-from SITE' brings the object 'config', which never changes, from a copy"


def read_config(backend: Backend) -> tuple[ConfigRecord, bytes]:
    """The config and its digest; RepositoryNotFound, Damaged."""
    try:
        data = fetch(backend, names.CONFIG)
    except NotFound:
        if _keysets(backend):  # which come after it
            raise Damaged(
                f"the config of {backend.url} is gone, and its keysets are there",
                hint=_CONFIG_HINT,
                affected=[names.CONFIG],
            ) from None
        raise RepositoryNotFound(f"there is no repository at {backend.url}") from None
    try:
        return decode_config(data), blake3(data).digest()
    except FormatTooNew as e:
        raise FormatTooNew(f"{backend.url}: {e.message}", affected=[names.CONFIG]) from e
    except FormatError as e:
        raise type(e)(
            f"the config of {backend.url} is damaged: {e.message}",
            hint=_CONFIG_HINT,
            affected=[names.CONFIG],
        ) from e


def read_keyset(backend: Backend, config: ConfigRecord, config_digest: bytes) -> tuple[KeysetRecord, bytes]:
    """The newest keyset that the owner signed, and its digest; RepositoryNotFound if the init never finished."""
    record, digest, _ = newest_keyset(backend, config, config_digest)
    return record, digest


def refuse_orphaned(backend: Backend) -> None:
    """Damaged if there is data of a repository: for where there are no keysets, and new keys would open none of it."""
    for prefix in (names.SNAPSHOTS, names.PACKS, names.INDEX):
        if any(True for _ in backend.list(prefix)):
            raise Damaged(
                f"the keysets of the repository at {backend.url} are gone, and its data is there",
                hint="'snapvault check --repair-from SITE' brings them from a copy of the repository; without one, "
                "open it with the recovery key, and restore what it holds",
                affected=[names.KEYSETS],
            )


def newest_keyset(
    backend: Backend, config: ConfigRecord, config_digest: bytes
) -> tuple[KeysetRecord, bytes, Damaged | None]:
    """The newest keyset that the owner signed, its digest, and what is wrong with a newer one.

    A newer one may be damage, or somebody's invention that must not lock everybody out.  So readers go on with what is
    signed; writers must not, since a damaged one may have removed a key.
    """
    listed = _keysets(backend)
    if not listed:
        refuse_orphaned(backend)
        raise RepositoryNotFound(
            f"the repository at {backend.url} has no keyset, and no data: its init never finished",
            hint="run 'snapvault init' again",
        )
    problem: Damaged | None = None
    for number, size in sorted(listed.items(), reverse=True):
        name = names.keyset(number)
        try:
            data = fetch(backend, name, size)
            return verify_keyset(data, number, config, config_digest), blake3(data).digest(), problem
        except NotFound:
            continue
        except FormatTooNew as e:
            raise FormatTooNew(f"{backend.url}: {e.message}", affected=[name]) from e
        except Damaged as e:
            problem = problem or type(e)(
                f"{name} is damaged, or was not written by the owner: {e.message}",
                hint="fetch this object from a copy of the repository, or delete it if no copy has it; "
                "the recovery key opens without it",
                affected=[name],
            )
    assert problem is not None
    raise problem


def keyset_numbers(backend: Backend) -> list[int]:
    """The numbers of all keysets, ascending."""
    return sorted(_keysets(backend))


def _keysets(backend: Backend) -> dict[int, int]:
    """Numbers and sizes of all keysets; names that are none are left to check."""
    found = {}
    for info in backend.list(names.KEYSETS):
        with contextlib.suppress(FormatError):
            found[names.keyset_number(info.name)] = info.size
    return found


def verify_keyset(data: bytes, number: int, config: ConfigRecord, config_digest: bytes) -> KeysetRecord:
    """A keyset that the owner of this repository signed under this number; Untrusted, FormatError, FormatTooNew."""
    signed = decode_signed(Kind.KEYSET, data)
    if not signed_by(Kind.KEYSET, signed, config.owner_sign):
        raise Untrusted("it is not signed by the owner")
    record = decode_keyset(signed.payload)
    if record.config != config_digest or record.number != number:
        raise Untrusted("it does not belong here")
    return record
