"""``snapvault backup --all``"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import snapvault
from snapvault.cli.common import gravest, status_code, status_of
from snapvault.cli.declared import declared
from snapvault.cli.progress import long_operation
from snapvault.cli.settings import Settings
from snapvault.cli.text import human_size
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.words import count

if TYPE_CHECKING:
    from snapvault.assurance.dataset import Dataset
    from snapvault.assurance.fleet import DatasetBackup


def back_up_all(settings: Settings, names: Sequence[str], file: str | None, **options: Any) -> int:
    """Back up what is declared, or the named of it; the gravest exit code of all of them."""
    from snapvault.assurance.fleet import backup_all

    with settings.open("backup") as repository, long_operation(settings.out, limits=settings.limits()) as control:
        known, register = _declared(settings, repository, file)
        wanted = _chosen(known, names)
        found = []
        for one in backup_all(repository, wanted, source_options=settings.options_for, control=control, **options):
            _show(settings, one)
            found.append(one)
    return _sum_up(settings, found, register)


def _declared(
    settings: Settings, repository: "snapvault.Repository", file: str | None
) -> tuple[Mapping[str, "Dataset"], str]:
    """The datasets, and the status of the register."""
    if file is not None:
        from snapvault.assurance.declaration import read_declaration

        return read_declaration(file).datasets, "ok"
    try:
        register = declared(settings, repository)
    except snapvault.RoleRequired as e:
        hint = "give it what is declared as a file: --register snapvault.toml"
        raise snapvault.RoleRequired(e.message, hint=hint) from e
    return register.datasets, register.status


def _chosen(known: Mapping[str, "Dataset"], names: Sequence[str]) -> list["Dataset"]:
    for name in names:
        if name not in known:
            raise InvalidInput(f"the dataset {name!r} is not declared", hint="'snapvault register list' lists what is")
    return [dataset for name, dataset in known.items() if name in names or not names]


def _show(settings: Settings, one: "DatasetBackup") -> None:
    """What came of a dataset, as soon as it is known."""
    out, r = settings.out, one.result
    for text in r.warnings if r is not None else ():
        out.warning(f"{one.dataset}: {text}")
    if r is not None:
        what = f"{one.dataset}: {count(len(r.issues), 'path')} left out, or changed while read"
        out.issues(r.issues, "skipped", what)
    text = f"not backed up here: {one.elsewhere}"
    if one.error is not None:
        text = f"FAILED: {one.error}"
    elif r is not None:
        partial, made = " (partial)" if r.issues else "", f"snapshot {r.snapshot[:8]}" if r.snapshot else "dry run"
        text = f"{made}{partial}: {r.files_new:,} new, {r.files_changed:,} changed, {human_size(r.bytes_stored)} stored"
    out.item(one.to_dict(), f"{one.dataset}: {text}")


def _sum_up(settings: Settings, found: Sequence["DatasetBackup"], register: str) -> int:
    kinds = Counter(
        "failed" if one.error else "elsewhere" if one.result is None else "partial" if one.result.issues else "whole"
        for one in found
    )
    code = gravest((status_code(register), *(one.exit_code for one in found)))
    status = "failed" if kinds["failed"] else status_of(code)
    content = {kind: kinds[kind] for kind in ("whole", "partial", "failed", "elsewhere")}
    words = ("backed up", "backed up in part", "failed", "not backed up here")
    parts = [f"{n:,} {word}" for n, word in zip(content.values(), words, strict=True) if n]
    settings.out.summary(
        {"datasets": len(found), **content, "status": status},
        [f"{count(len(found), 'dataset')}: {', '.join(parts) or 'nothing was done'}"],
    )
    return code
