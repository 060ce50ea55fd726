"""Making a copy the source, once the old one is lost or retired (docs/replication.md)."""

from typing import TYPE_CHECKING

from snapvault.backend.protocol import Exists
from snapvault.format import names
from snapvault.format.keyset import Role
from snapvault.format.local import PromotionRecord
from snapvault.format.wire import Kind
from snapvault.foundation.clock import now_ns
from snapvault.foundation.errors import Conflict, Damaged, InvalidInput
from snapvault.repository.replica import Standing
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
    try:
        now = vault.standing()
    except Damaged:  # the mark of a copy cannot be read: a source needs none
        now = Standing(1)
    if now.promoted:
        raise InvalidInput("this place was promoted before: it is a source")
    if not now.replica:
        raise InvalidInput("this is no copy: there is nothing to promote")
    keys = vault.ring.signing
    data = sign(Kind.PROMOTION, PromotionRecord(vault.ring.config_digest, now_ns()).encode(), keys.id, keys.signer)
    try:
        vault.backend.put_if_absent(names.PROMOTED_MARK, [data])
    except Exists:
        if not vault.standing().promoted:  # by somebody else, at the same moment
            raise Conflict(f"{vault.backend.url} is marked as promoted, and is not") from None
