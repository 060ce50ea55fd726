"""The public handle of an open repository."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from snapvault.access.resolve import list_snapshots, resolve
from snapvault.access.snapshot import Snapshot
from snapvault.backend.metrics import Metrics
from snapvault.chunking import Chunking
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.ids import RepositoryId
from snapvault.repository.credentials import Credential, KeyProvider, Secret, credential
from snapvault.repository.repository import Vault, open_vault
from snapvault.repository.site import Site

if TYPE_CHECKING:
    from snapvault.operations.writer import SnapshotWriter

DEFAULT = Chunking()


class Repository:
    """An open repository.  A context manager; thread-safe for reading; refuses use after a fork.

    Pickling keeps the URL and the places of cache and state, never a secret: ``reopen`` the copy with a key.
    """

    def __init__(self, vault: Vault, url: str, cache: Path | None, state: Path | None) -> None:
        self._vault: Vault | None = vault
        self.url, self.cache, self.state = url, cache, state
        self.id: RepositoryId = vault.id
        self.role: str = vault.ring.role

    @property
    def vault(self) -> Vault:
        """The innards, for the operations of this package."""
        vault = self._opened()
        vault.check_usable()
        return vault

    def _opened(self) -> Vault:
        if self._vault is None:
            raise InvalidInput("this is a pickled repository without its keys", hint="call reopen() with a key")
        return self._vault

    def snapshots(self, *, dataset: str | None = None, host: str | None = None) -> Iterator[Snapshot]:
        """Snapshots that are not forgotten, oldest first; RoleRequired, StoreUnavailable."""
        return iter(list_snapshots(self.vault.reading(), dataset=dataset, host=host))

    def snapshot(self, ref: str) -> Snapshot:
        """One snapshot: an id prefix, ``DATASET@latest``, ``DATASET@TIME`` or ``latest``; InvalidInput."""
        return resolve(self.vault.reading(), ref)

    def writer(self, dataset: str, **options: Any) -> "SnapshotWriter":
        """Write a snapshot file by file; options as of ``backup``."""
        from snapvault.operations.writer import SnapshotWriter

        return SnapshotWriter(self, dataset, **options)

    def metrics(self) -> Metrics:
        """Calls, errors, retries, seconds and bytes of the store since this was opened; also after it was closed."""
        return self._opened().metrics()

    def require_signing(self) -> None:
        """RoleRequired unless this key can sign: the recovery key alone cannot."""
        _ = self.vault.ring.signing

    def reopen(
        self,
        *,
        password: Secret | None = None,
        keys: KeyProvider | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> "Repository":
        """A fresh handle of the same repository, after a fork or from a pickle."""
        return open(
            self.url, password=password, keys=keys, storage_options=storage_options, cache=self.cache, state=self.state
        )

    def close(self) -> None:
        """Idempotent."""
        if self._vault is not None:
            self._vault.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Repository {self.id[:8]} at {self.url}, role {self.role}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self.url, self.cache, self.state, self.id, self.role)


def _unpickle(url: str, cache: Path | None, state: Path | None, rid: RepositoryId, role: str) -> Repository:
    handle = object.__new__(Repository)
    handle._vault = None
    handle.url, handle.cache, handle.state, handle.id, handle.role = url, cache, state, rid, role
    return handle


@dataclass(frozen=True, slots=True)
class InitResult:
    """A new repository, open, and its recovery key, which is shown this once."""

    repository: Repository
    recovery_key: str = field(repr=False)


def init(
    url: str | os.PathLike[str],
    *,
    password: Secret | None = None,
    keys: KeyProvider | None = None,
    storage_options: Mapping[str, Any] | None = None,
    chunking: Chunking = DEFAULT,
    cache: str | os.PathLike[str] | None = None,
    state: str | os.PathLike[str] | None = None,
) -> InitResult:
    """Make a repository and open it.

    Raises InvalidInput if there is one already or the place is not empty, and StoreDenied, StoreFull, StoreUnavailable.
    An init that was killed is taken up by the next one with the same password.
    """
    brought = credential(password, keys)
    from snapvault.repository.create import create  # only here: every command pays for what is imported above

    place, folders = os.fspath(url), (_folder(cache), _folder(state))
    created = create(place, brought, chunking, storage_options=storage_options)
    repository = _open(place, lambda: brought, storage_options, *folders)
    return InitResult(repository, created.recovery_key.encode())


def open(
    url: str | os.PathLike[str],
    *,
    password: Secret | None = None,
    keys: KeyProvider | None = None,
    storage_options: Mapping[str, Any] | None = None,
    sites: Sequence[Site] = (),
    cache: str | os.PathLike[str] | None = None,
    state: str | os.PathLike[str] | None = None,
) -> Repository:
    """Open a repository.

    ``sites``: other places that hold copies of it.  Listing, reading and restoring snapshots goes on there where an
    object is damaged or missing at the first place, or that does not answer, or is farther; if it is gone from the
    beginning, only these can be done.  Everything else works on the first place alone.
    ``cache``: a folder for what can be had again from the repository.  ``state``: a folder for the pins that catch a
    store which plays back an old state; None: no pins.  Raises RepositoryNotFound, KeyRejected, FormatTooNew, Damaged,
    StoreDenied, StoreUnavailable.
    """
    place = os.fspath(url)
    return _open(place, lambda: credential(password, keys), storage_options, _folder(cache), _folder(state), sites)


def _folder(place: str | os.PathLike[str] | None) -> Path | None:
    return None if place is None else Path(place)


def _open(
    url: str, bring: Callable[[], Credential], options: Mapping[str, Any] | None, cache: Path | None,
    state: Path | None, sites: Sequence[Site] = (),
) -> Repository:  # fmt: skip
    vault = open_vault(url, bring, storage_options=options, cache=cache, state=state, sites=sites)
    return Repository(vault, vault.address, cache, state)
