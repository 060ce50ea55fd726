"""Making a copy the source, once the old one is lost or retired (docs/replication.md)."""

from typing import TYPE_CHECKING

from snapvault.backend.protocol import Exists
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import PromotionRecord
from snapvault.format.wire import Kind
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import InvalidInput
from snapvault.repository.trust import sign

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository


def promote(repo: "Repository") -> None:
    """From here on this place is a source: backups, key changes and prunes of everything are done here.

    For ever, since the old source, should it come back, may have gone another way.  RoleRequired unless owner;
    InvalidInput if this is no copy.
    """
    vault = repo.vault
    vault.ring.require_role((Role.OWNER,), "promote a copy")
    if not vault.standing().replica:
        raise InvalidInput("this is no copy: there is nothing to promote")
    keys = vault.ring.signing
    data = sign(Kind.PROMOTION, PromotionRecord(vault.ring.config_digest, now_ns()).encode(), keys.id, keys.signer)
    try:
        vault.backend.put_if_absent(names.PROMOTED_MARK, [data])
    except Exists:
        vault.standing()  # by somebody else, at the same moment; or it is damaged
