"""Notes on snapshots: other tags, and holds, which no retention rule overrides."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snapvault.access.resolve import resolve
from snapvault.format.keyset import Role
from snapvault.format.local import NoteDetails
from snapvault.operations.results import Result
from snapvault.operations.writer import checked_tags

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository


@dataclass(frozen=True, slots=True)
class NoteResult(Result):
    """A snapshot, its tags, and whether it is held, now."""

    snapshot: str
    tags: tuple[str, ...]
    held: bool


def set_tags(repo: "Repository", ref: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> NoteResult:
    """Add tags to a snapshot and take others from it.  RoleRequired unless owner or maintainer, InvalidInput."""
    vault = repo.vault
    vault.ring.require_role(Role.MAINTAINERS, "tag snapshots")
    snapshot = resolve(vault, ref)
    tags = checked_tags(t for t in (*snapshot.tags, *checked_tags(add)) if t not in set(remove))
    if tags != snapshot.tags:
        vault.notes.add(snapshot.id, snapshot.slot.holder, NoteDetails(tags=tags))
    return NoteResult(snapshot.id, tags, snapshot.held)


def set_hold(repo: "Repository", ref: str, *, held: bool = True) -> NoteResult:
    """Hold a snapshot, so that no retention rule forgets it, or release it.  RoleRequired, InvalidInput."""
    vault = repo.vault
    vault.ring.require_role(Role.MAINTAINERS, "hold snapshots")
    snapshot = resolve(vault, ref)
    if held != snapshot.held:
        vault.notes.add(snapshot.id, snapshot.slot.holder, NoteDetails(hold=held))
    return NoteResult(snapshot.id, snapshot.tags, held)
