"""The register: which datasets should exist, in signed revisions out of which nothing drops unseen."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from snapvault.assurance.dataset import Dataset
from snapvault.assurance.declaration import Declaration, declare
from snapvault.assurance.revisions import changeable, newest, put, some
from snapvault.format.register import RetiredRow
from snapvault.foundation.clock import now_ns, time_of
from snapvault.foundation.errors import Conflict, Damaged, InvalidInput
from snapvault.operations.results import DAMAGED, OK, PARTIAL, Result

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository


@dataclass(frozen=True, slots=True)
class Retirement:
    """Why a dataset is owed no more, who said so, and when."""

    reason: str
    by: str  # the name of the key
    time: datetime


@dataclass(frozen=True, slots=True)
class Register:
    """What the newest revision declares; or the newest ones, together."""

    datasets: Mapping[str, Dataset]  # that are owed, by name
    retired: Mapping[str, Retirement]
    revision: int
    time: datetime
    by: str  # the name of the key that signed it
    declaration: Declaration  # as it was written; with ``conflicts``, the last one's
    since: Mapping[tuple[str, str], datetime]  # when a dataset was declared (""), and when it was first owed at a site
    conflicts: tuple[str, ...] = ()  # what newest revisions say differently that did not see one another
    damage: tuple[Damaged, ...] = ()  # revisions that cannot be read, are gone, or were put by somebody who may not

    @property
    def status(self) -> str:
        """``damaged`` or ``partial`` if this may not be all that was declared, or not what somebody wanted."""
        return DAMAGED if self.damage else PARTIAL if self.conflicts else OK


@dataclass(frozen=True, slots=True)
class RegisterResult(Result):
    """What an import, or a retirement, did to the register (or would)."""

    revision: int  # the newest now
    datasets: int  # declared now
    added: tuple[str, ...]
    changed: tuple[str, ...]
    retired: tuple[str, ...]
    revived: tuple[str, ...]  # that were retired before, and are declared again
    written: bool  # False if nothing was new, or on a dry run
    dry_run: bool
    conflicts: tuple[str, ...]  # with a revision that somebody else put meanwhile
    changes: Mapping[str, Mapping[str, tuple[Any, Any]]]  # by dataset that changed, by field: before and after

    @property
    def status(self) -> str:
        return PARTIAL if self.conflicts else OK


def read_register(repo: "Repository") -> Register | None:
    """What is declared now; None if nothing ever was.

    RoleRequired for a key that may not read; Damaged if there are revisions and none can be read; errors of the store.
    """
    found = newest(repo.vault)
    if not found.revisions:
        if found.problems:
            raise found.problems[0]
        return None
    last = found.revisions[-1]
    retired = {n: Retirement(row.reason, row.by, time_of(row.time)) for n, row in found.retired().items()}
    since = {key: time_of(ns) for key, ns in found.since.items()}
    return Register(
        found.active(), retired, found.number, time_of(last.link.record.time),
        repo.vault.ring.name_of(last.link.holder), last.declaration, since, found.conflicts(), tuple(found.problems),
    )  # fmt: skip


def import_register(repo: "Repository", declaration: Declaration, *, dry_run: bool = False) -> RegisterResult:
    """Declare this from now on, in place of what was declared before.

    InvalidInput if a dataset that is declared now is missing from it: it has to be retired first.  RoleRequired unless
    owner or maintainer; Damaged if a newest revision cannot be read; Conflict at a copy; errors of the store.
    """
    before = changeable(repo.vault)
    known, retired, declared = before.active(), before.retired(), declaration.datasets
    if missing := [name for name in known if name not in declared]:
        raise InvalidInput(
            f"of the datasets declared until now, {len(missing)} {'is' if len(missing) == 1 else 'are'} missing: "
            f"{some(missing)}",
            hint=f"put back, or retire first: snapvault register retire {some(missing, ' ')} --reason TEXT",
            affected=missing,
        )
    changes = {n: _differences(known[n], d) for n, d in declared.items() if n in known and d != known[n]}
    revived = tuple(retired.pop(name).name for name in declared if name in retired)
    same = [r.declaration.content for r in before.revisions] == [declaration.content]
    written = not same and not dry_run
    number = put(repo.vault, before, declaration, retired) if written else before.number
    return RegisterResult(
        number, len(declared), tuple(n for n in declared if n not in known), tuple(changes), (), revived, written,
        dry_run, newest(repo.vault).conflicts() if written else (), changes,
    )  # fmt: skip


def _differences(before: Dataset, after: Dataset) -> dict[str, tuple[Any, Any]]:
    """What differs, as of ``Dataset.to_dict``."""
    old, new = before.to_dict(), after.to_dict()
    return {name: (old[name], new[name]) for name in new if old[name] != new[name]}


def retire(repo: "Repository", dataset: str | Iterable[str], reason: str) -> RegisterResult:
    """Say that datasets are owed no more, and why; their snapshots stay.

    InvalidInput for one that is not declared, and without a reason; else as ``import_register``.
    """
    wanted = dict.fromkeys([dataset] if isinstance(dataset, str) else dataset)
    if not reason.strip() or not reason.isprintable():
        raise InvalidInput("a dataset is retired for a reason", hint="say it in one line")
    before = changeable(repo.vault)
    if conflicts := before.conflicts():
        raise Conflict("; ".join(conflicts), hint="import the one that is to count, then retire")
    known, retired, ring = before.active(), before.retired(), repo.vault.ring
    for name in wanted:
        if name not in known:
            why = f"was retired by {retired[name].by}" if name in retired else "is not declared"
            raise InvalidInput(f"the dataset {name!r} {why}", hint="'snapvault register list' lists what is")
    retired |= {name: RetiredRow(name, reason.strip(), ring.name_of(ring.signing.id), now_ns()) for name in wanted}
    content = dict(before.revisions[-1].declaration.content)
    content["datasets"] = {n: row for n, row in content["datasets"].items() if n not in wanted}
    left = declare(content, "the register")
    number = put(repo.vault, before, left, retired)
    after = newest(repo.vault).conflicts()
    return RegisterResult(number, len(left.datasets), (), (), tuple(wanted), (), True, False, after, {})
