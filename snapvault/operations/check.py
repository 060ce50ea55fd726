"""Check: is everything there, does it verify, and what would be lost.

Everything is read from the store itself, past the local cache.  Levels: the structure (every small object, every tree,
every chunk's place in a pack that is there in its full size); a share of the packs' data; all data.
"""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from snapvault.backend.object_lock import lock_rule
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.events import Control, Reporter, limits_of
from snapvault.operations.check_data import DataCheck
from snapvault.operations.check_objects import Beginning, ObjectCheck
from snapvault.operations.check_trees import TreeCheck
from snapvault.operations.object_lock import must_stay, review_locks
from snapvault.operations.results import CheckReport
from snapvault.platform.remote import OBJECT_LOCK
from snapvault.repository.cache import Cache
from snapvault.repository.repository import Vault

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository


def check(
    repo: "Repository",
    *,
    read_data: bool | float = False,
    extend_locks: bool = False,
    control: Control | None = None,
) -> CheckReport:
    """Check a repository.

    ``read_data``: False, True, or a share between 0 and 1; shares rotate, since what was found whole is remembered in
    the repository.  ``extend_locks``: where objects are to be locked, lock those for longer whose lock ends soon, as a
    prune does; InvalidInput where they are not.  Damage is reported, not raised; errors of the store
    (StoreUnavailable, StoreDenied) are.  Paths that a repair noted as lost are ``partial``, not ``damaged``, and so is
    what is not known to be locked.  RoleRequired without a key that may read: use ``scrub``.
    """
    share = float(read_data)
    if not 0 <= share <= 1:
        raise InvalidInput(f"{read_data} is no share of the data", hint="give a number between 0 and 1")
    vault = repo.vault.limited(control)
    vault.ring.require_read("check data")
    if extend_locks and lock_rule(vault.backend) is None:
        raise InvalidInput(
            f"{vault.backend.url} was opened without the storage option {OBJECT_LOCK}: there is no lock to extend"
        )
    reporter = Reporter("check", control)
    done = Check(vault, share, reporter, control)
    wanted = must_stay(vault, done.listing, done.objects.slots)
    return replace(done.report(), lock=review_locks(vault.backend, wanted, reporter, extend=extend_locks))


class Check:
    """One check, and all that it found out; done when this is made."""

    def __init__(self, vault: Vault, share: float, reporter: Reporter, control: Control | None) -> None:
        started = time.monotonic()
        self.vault = vault = Vault(vault.backend, vault.ring, Cache(None), vault.pins, vault.rollback)
        self.share = share
        # Snapshots first: all that they need was put before them, so it is in the listing that follows.  Those that
        # are committed while the check runs are left to the next one.
        began = Beginning(vault)
        self.listing = {o.name: o for o in vault.backend.list()}  # complete or an error
        reporter.check()
        self.objects = ObjectCheck(vault, self.listing, began, reporter)
        self.objects.run()
        self.data = DataCheck(vault, self.objects, reporter, limits_of(control).threads)
        self.data.run(share)
        self.trees = TreeCheck(vault, self.objects, self.data.bad, reporter)
        self.lost = tuple(self.trees.run())
        self._seconds = time.monotonic() - started

    def report(self) -> CheckReport:
        """What there is to tell."""
        objects, data, trees = self.objects, self.data, self.trees
        findings = (*objects.findings, *data.findings, *trees.findings)
        total = sum(objects.present.values()) or 1
        return CheckReport(
            "data" if self.share else "structure", findings, self.lost, len(self.listing), len(trees.snapshots),
            sum(len(t) for t in objects.index.tables), len(objects.present), data.packs_read, data.bytes_read,
            data.bytes_read / total, data.verified_bytes / total, self._seconds,
        )  # fmt: skip
