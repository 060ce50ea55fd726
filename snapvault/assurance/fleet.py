"""Backing up all declared datasets: one that fails never stops the others."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snapvault.assurance.dataset import Dataset
from snapvault.foundation.errors import Cancelled, SnapvaultError, SourceError
from snapvault.foundation.events import Control
from snapvault.operations.backup import backup
from snapvault.operations.results import BackupResult
from snapvault.operations.run import host_name
from snapvault.operations.sources import is_local, local_path

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository


@dataclass(frozen=True, slots=True)
class DatasetBackup:
    """What came of one dataset: a snapshot, an error, or nothing since it is not backed up here."""

    dataset: str
    result: BackupResult | None = None
    error: SnapvaultError | None = None
    elsewhere: str = ""  # why it is not backed up here

    @property
    def exit_code(self) -> int:
        """As of a backup of this dataset alone."""
        if self.error is not None:
            return self.error.exit_code
        return 3 if self.result is not None and self.result.issues else 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        error, r = self.error and self.error.to_dict(), self.result
        result = r and {**r.to_dict(), "issues": len(r.issues)}
        return {"dataset": self.dataset, "result": result, "error": error, "elsewhere": self.elsewhere}


def backup_all(
    repo: "Repository",
    datasets: Iterable[Dataset],
    *,
    host: str | None = None,
    source_options: Callable[[str], Mapping[str, Any] | None] = lambda url: None,
    control: Control | None = None,
    **options: Any,
) -> Iterator[DatasetBackup]:
    """Back up the sources of each dataset that has some here, one after the other.

    ``host``: instead of this machine's name.  ``source_options``: what fsspec needs for a URL.  ``options``: as of
    ``backup``, for all of them.  Whatever goes wrong with a dataset is told in its place; only Cancelled is raised.
    """
    here = host or host_name()
    for dataset in datasets:
        if reason := elsewhere(dataset, here):
            yield DatasetBackup(dataset.name, elsewhere=reason)
            continue
        try:
            yield DatasetBackup(dataset.name, _backup(repo, dataset, host, source_options, control, options))
        except Cancelled:
            raise
        except SnapvaultError as e:
            yield DatasetBackup(dataset.name, error=e)
        except OSError as e:
            yield DatasetBackup(dataset.name, error=SourceError(f"{e.filename or dataset.name}: {e.strerror or e}"))


def elsewhere(dataset: Dataset, host: str) -> str:
    """Why a dataset is not backed up on this host; "" if it is."""
    if not dataset.sources:
        return "no source is declared"
    return f"on {dataset.host}" if dataset.host not in ("", host) else ""


def missing_sources(dataset: Dataset) -> list[str]:
    """The paths of a dataset that do not exist on this machine; URLs are not looked at."""
    return [s for s in dataset.sources if is_local(s) and not os.path.lexists(local_path(s))]


def _backup(
    repo: "Repository", dataset: Dataset, host: str | None, source_options: Callable[[str], Mapping[str, Any] | None],
    control: Control | None, options: Mapping[str, Any],
) -> BackupResult:  # fmt: skip
    needed = [found for found in map(source_options, dataset.sources) if found is not None]
    if any(found != needed[0] for found in needed):
        raise SourceError(f"the sources of {dataset.name} need different storage options", hint="declare two datasets")
    return backup(
        repo, *dataset.sources, dataset=dataset.name, host=host, source_options=needed[0] if needed else None,
        control=control, **options,
    )  # fmt: skip
