"""Evidence for a stranger: one JSON file that docs/verify_evidence.py verifies with nothing but public keys."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snapvault.assurance.evidence import newest_first, shown
from snapvault.format.chain import SALT_SIZE
from snapvault.foundation.errors import Damaged
from snapvault.repository.chain import Link
from snapvault.repository.repository import Vault

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository

FORMAT = "snapvault evidence 1"


@dataclass(frozen=True, slots=True)
class Exported:
    """How much there is in an export."""

    records: int
    disclosed: int  # records whose content is shown
    results: int  # of these records
    problems: tuple[Damaged, ...]  # with the evidence: what is not in the export, and should be or might


def export_evidence(repo: "Repository", write: Callable[[str], object], *, dataset: str | None = None) -> Exported:
    """Write an export, piece by piece.  RoleRequired, errors of the store.

    ``dataset``: only records with a result of it show their content (all of it, since all of it was signed); the
    others come sealed, so that the chain can be followed.
    """
    vault, problems, count, disclosed, results = repo.vault, list[Damaged](), 0, 0, 0
    head = {"format": FORMAT, "repository": vault.id, "keys": _keys(vault)}
    write(json.dumps(head, indent=1)[:-2] + ',\n "records": [')
    for link in newest_first(vault, problems.append):
        found = [e.dataset for e in shown(vault, link)]
        show = dataset is None or dataset in found
        write(("," if count else "") + "\n" + json.dumps(_record(vault, link, show=show), sort_keys=True))
        count, disclosed, results = count + 1, disclosed + show, results + (len(found) if show else 0)
    write("\n]}\n")
    return Exported(count, disclosed, results, tuple(problems))


def _record(vault: Vault, link: Link, *, show: bool) -> dict[str, Any]:
    """The object as it is stored, and what is sealed in it."""
    record: dict[str, Any] = {
        "name": link.name, "by": vault.ring.name_of(link.holder), "number": link.number,
        "object": base64.b64encode(vault.store.immutable(link.name)).decode(),
    }  # fmt: skip
    if show:
        record |= {"salt": link.content[:SALT_SIZE].hex(), "content": json.loads(link.body)}
    return record


def _keys(vault: Vault) -> list[dict[str, str]]:
    """Whoever may sign evidence, or might once."""
    keyset = vault.ring.current
    here = [{"id": h.id.hex(), "name": h.name, "role": h.role, "public": h.sign.hex()} for h in keyset.holders]
    gone = [{"id": r.holder.hex(), "name": r.name, "role": r.role, "public": r.sign.hex()} for r in keyset.revocations]
    return [*here, *({**key, "removed": "yes"} for key in gone)]
