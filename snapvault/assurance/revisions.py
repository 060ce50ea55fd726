"""The newest revisions of the register: read, combined, replaced (docs/format/register.md).

A revision says everything anew, and names the one that it replaces.  Of two that did not see one another both count
until the next one replaces both: whatever either declares is owed.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from snapvault.assurance.dataset import Dataset
from snapvault.assurance.declaration import SCHEMA, Declaration, Refused, declare
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.register import RegisterRecord, RetiredRow, decode_register
from snapvault.format.wire import FormatError
from snapvault.foundation.errors import Damaged, InvalidInput
from snapvault.foundation.words import count
from snapvault.repository.chain import Link, ends, rolled_back
from snapvault.repository.repository import Vault
from snapvault.repository.trust import Untrusted

MAX_BODY = 8 << 20  # bytes of a revision
_SHOWN = 10  # names in a message
_UNSEEN = (
    "'snapvault check --repair-from SITE' brings the object back if a copy has it; delete it if it is lost for good, "
    "or none of yours"
)


class Revision(NamedTuple):
    """One, opened."""

    link: Link
    declaration: Declaration
    retired: Mapping[str, RetiredRow]


class Newest(NamedTuple):
    """The revisions that no other one replaces, oldest first, and what is wrong."""

    revisions: list[Revision]
    problems: list[Damaged]
    lost: list[Damaged]  # of the problems, those for which something may be declared that is not seen
    since: Mapping[tuple[str, str], int]  # when (ns) a dataset was declared (""), and owed at a site; without a break

    @property
    def number(self) -> int:
        """Of the last one; 0 if there is none."""
        return self.revisions[-1].link.record.number if self.revisions else 0

    def active(self) -> dict[str, Dataset]:
        """Whatever one of them declares, as the last one that does says it."""
        found = dict[str, Dataset]()
        for revision in self.revisions:
            found |= revision.declaration.datasets
        return found

    def retired(self) -> dict[str, RetiredRow]:
        """What one of them retired, and none declares."""
        found, active = dict[str, RetiredRow](), self.active()
        for revision in self.revisions:
            found |= revision.retired
        return {name: row for name, row in found.items() if name not in active}

    def conflicts(self) -> tuple[str, ...]:
        """A line for each that the last one does not agree with."""
        found = []
        for one in self.revisions[:-1]:
            mine, last = one.declaration.datasets, self.revisions[-1].declaration.datasets
            if differing := [name for name in {**mine, **last} if mine.get(name) != last.get(name)]:
                numbers = f"{one.link.record.number} and {self.number}"
                found.append(f"revisions {numbers} were made at the same time and differ in {some(differing)}")
        return tuple(found)


def newest(vault: Vault) -> Newest:
    """As the store shows them; they are pinned.  RoleRequired for a key that may not read, errors of the store."""
    pinned = dict(vault.pins.site.register)  # before: somebody may put another one meanwhile
    links, problems = vault.register.read()
    followed = {names.REGISTER + prev.hex() for link in links for prev in link.record.prevs}
    # What was put by somebody who may not says nothing; what another one replaced is not needed.
    lost = [p for p in problems if not isinstance(p, Untrusted) and not followed.issuperset(p.affected)]
    last, revisions = ends(links), list[Revision]()
    for link in last:
        try:
            revisions.append(_opened(link))
        except Damaged as e:
            problems.append(e)
            lost.append(e)
    since, dropped = _history(links)
    for name in dict.fromkeys(by.name for by in dropped.values()):
        problems.append(_left_out(vault, name, dropped))
    gone = rolled_back(pinned, links)
    if not gone:
        vault.pins.site.register = {link.digest.hex(): link.record.number for link in last}
    return Newest(revisions, problems + gone, lost + gone, since)


def _history(links: Sequence[Link]) -> tuple[dict[tuple[str, str], int], dict[str, Link]]:
    """Since when what is owed; and what dropped out, neither declared nor retired since, with the revision that did it.

    By all revisions, oldest first; one that cannot be read, or is no declaration, changes nothing.
    """
    since, said, dropped = dict[tuple[str, str], int](), dict[bytes, set[str]](), dict[str, Link]()
    for link in links:
        with suppress(FormatError, AttributeError, TypeError):
            record = decode_register(link.body)
            if record.declared.get("schema") == SCHEMA:
                since = {key: since.get(key, link.record.time) for key in _owed(record.declared)}
            declared = set(record.declared.get("datasets", {}))
            kept, said[link.digest] = declared | {row.name for row in record.retired}, declared
            before = set[str]().union(*(said.get(prev, ()) for prev in link.record.prevs))
            dropped |= dict.fromkeys(sorted(before - kept), link)
            dropped = {name: by for name, by in dropped.items() if name not in kept}
    return since, dropped


def _left_out(vault: Vault, revision: str, dropped: Mapping[str, Link]) -> Damaged:
    names_of = {name: by for name, by in dropped.items() if by.name == revision}
    link = next(iter(names_of.values()))
    who = f"revision {link.number} by {vault.ring.name_of(link.holder)}"
    why = f"{who} leaves out, without a reason: {some(list(names_of))}"
    return Damaged(why, hint="import it again; retire it if that is meant", affected=[revision])


def _owed(declared: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a revision owes, by what it says alone: as ``declare`` finds it, at a fraction of the cost."""
    groups, defaults = declared.get("groups", {}), declared.get("defaults", {})
    for name, row in declared.get("datasets", {}).items():
        yield name, ""
        said = (row, groups.get(row.get("group"), {}), defaults)
        for site in next((table["sites"] for table in said if "sites" in table), ()):
            yield name, site


def _opened(link: Link) -> Revision:
    """Damaged if a valid record is no register that this snapvault reads."""
    try:
        record = decode_register(link.body)
        return Revision(link, declare(record.declared, link.name), {row.name: row for row in record.retired})
    except (Refused, FormatError) as e:
        message, hint = f"{link.name} cannot be read: {e.message}", "a newer snapvault may have written it"
        raise FormatError(message, hint=hint, affected=[link.name]) from e


def changeable(vault: Vault) -> Newest:
    """The newest revisions, if this holder may replace them here and now, and sees all that they declare."""
    vault.ring.require_role(Role.MAINTAINERS, "change the register")
    if vault.rollback is not None:
        raise vault.rollback
    vault.standing().require_source("change the register")
    vault.check_holder()
    found = newest(vault)
    for problem in found.lost:
        raise type(problem)(
            f"the register stays as it is, since not all that it declares can be seen: {problem.message}",
            hint=_UNSEEN if problem.hint == Damaged.hint else problem.hint,
            affected=problem.affected,
        )
    return found


def put(vault: Vault, before: Newest, declaration: Declaration, retired: Mapping[str, RetiredRow]) -> int:
    """Store one more revision in place of the newest, durably; its number.  InvalidInput if it is too large."""
    body = RegisterRecord(dict(declaration.content), tuple(retired.values())).encode()
    try:
        if len(body) > MAX_BODY:
            raise FormatError("too large")
        decode_register(body)  # too many values, for one: what nobody could read again is not stored
    except FormatError as e:
        what = count(len(declaration.datasets), "dataset")
        hint = "say in defaults and groups what they have in common"
        raise InvalidInput(f"a register does not hold these {what}: {e.message}", hint=hint) from e
    link = vault.register.append(body, (revision.link for revision in before.revisions))
    vault.pins.site.register = {link.digest.hex(): link.record.number}
    vault.pins.save()
    return link.record.number


def some(found: Sequence[str], between: str = ", ") -> str:
    """The first names, and how many more there are."""
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return between.join(found[:_SHOWN]) + more
