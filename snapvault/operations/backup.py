"""Backup: store sources as a snapshot."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any

from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.events import Control
from snapvault.operations.results import BackupResult
from snapvault.operations.sources import Source, is_local, local_source, make_source
from snapvault.operations.writer import SnapshotWriter, checked_dataset, checked_tags
from snapvault.source.protocol import SourceTree

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository


def backup(
    repo: "Repository",
    *sources: Source,
    dataset: str,
    exclude: Sequence[str] = (),
    exclude_files: Sequence[str | PathLike[str]] = (),
    files_from: Sequence[str | PathLike[str]] = (),
    one_file_system: bool = False,
    exclude_caches: bool = False,
    exclude_larger_than: int | None = None,
    stream_name: str = "stdin",
    source_options: Mapping[str, Any] | None = None,
    tags: Iterable[str] = (),
    time: datetime | None = None,
    host: str | None = None,
    parent: str | None = None,
    force_read: bool = False,
    dry_run: bool = False,
    control: Control | None = None,
) -> BackupResult:
    """Store ``sources`` as a new snapshot of ``dataset``; it is durable once this returns.

    A file that cannot be read is dropped and named, one that changes while it is read is stored and marked, and the
    result's status is then ``partial``.  If no root can be read: SourceError and no snapshot.  A command that fails:
    SourceError, nothing committed.  Any error of the store aborts (StoreFull, StoreDenied, StoreUnavailable), as do
    Conflict and Cancelled; what was indexed until then is not uploaded again.  RoleRequired without a key that may
    write.  ``source_options`` go to fsspec for URLs; a naive ``time`` is refused.
    """
    checked_dataset(dataset)
    tags = checked_tags(tags)
    selection = {
        "exclude": exclude, "exclude_files": exclude_files, "one_file_system": one_file_system,
        "exclude_caches": exclude_caches, "exclude_larger_than": exclude_larger_than,
    }  # fmt: skip
    trees, warnings = _trees(repo, sources, files_from, selection, stream_name, source_options)
    roots = tuple(sorted(root for tree in trees for root in tree.roots))
    writer = SnapshotWriter(
        repo, dataset, host=host, tags=tags, time=time, parent=parent, force_read=force_read, dry_run=dry_run,
        paths=roots, control=control,
    )  # fmt: skip
    with writer:
        writer.warn(warnings)
        writer.add_trees(trees)
    assert writer.result is not None
    return writer.result


def _trees(
    repo: "Repository",
    sources: Sequence[Source],
    files_from: Sequence[str | PathLike[str]],
    selection: Mapping[str, Any],
    stream_name: str,
    source_options: Mapping[str, Any] | None,
) -> tuple[list[SourceTree], list[str]]:
    """All local paths are one source, so that hard links between them are seen; every other source is its own."""
    local = [s for s in sources if is_local(s)]
    others = [s for s in sources if not is_local(s)]
    if not local and not others and not files_from:
        raise InvalidInput("there is nothing to back up: no source was given")
    trees: list[SourceTree] = []
    warnings: list[str] = []
    if local or files_from:
        tree, warnings = local_source(repo.url, local, files_from=files_from, **selection)  # type: ignore[arg-type]
        trees.append(tree)
    trees += [make_source(s, storage_options=source_options, name=stream_name) for s in others]
    return trees, warnings
