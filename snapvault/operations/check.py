"""Check: is everything there, does it verify, and what would be lost.

Everything is read from the store itself, past the local cache.  Levels: the structure (every small object, every tree,
every chunk's place in a pack that is there in its full size); a share of the packs' data; all data.
"""

import time
from typing import TYPE_CHECKING

from snapvault.backend.protocol import ObjectInfo
from snapvault.foundation.errors import InvalidInput
from snapvault.foundation.events import Control, Reporter
from snapvault.operations.check_data import DataCheck
from snapvault.operations.check_objects import Beginning, ObjectCheck
from snapvault.operations.check_trees import TreeCheck
from snapvault.operations.results import CheckReport, Finding, LostPath
from snapvault.repository.cache import Cache
from snapvault.repository.repository import Vault

if TYPE_CHECKING:
    from snapvault.operations.repository import Repository


def check(repo: "Repository", *, read_data: bool | float = False, control: Control | None = None) -> CheckReport:
    """Check a repository.

    ``read_data``: False, True, or a share between 0 and 1; shares rotate, since what was found whole is remembered in
    the repository.  Damage is reported, not raised; errors of the store (StoreUnavailable, StoreDenied) are.
    RoleRequired without a key that may read: use ``scrub``.
    """
    share = float(read_data)
    if not 0 <= share <= 1:
        raise InvalidInput(f"{read_data} is no share of the data", hint="give a number between 0 and 1")
    vault = repo.vault.limited(control)
    vault.ring.require_read("check data")
    fresh = Vault(vault.backend, vault.ring, Cache(None), vault.pins, vault.rollback)
    return _Check(fresh, share, Reporter("check", control), control).run()


class _Check:
    def __init__(self, vault: Vault, share: float, reporter: Reporter, control: Control | None) -> None:
        self._vault, self._share, self._reporter = vault, share, reporter
        self._threads = control.limits.threads if control is not None and control.limits is not None else None
        self._started = time.monotonic()

    def run(self) -> CheckReport:
        # Snapshots first: all that they need was put before them, so it is in the listing that follows.  Those that
        # are committed while the check runs are left to the next one.
        began = Beginning(self._vault)
        listing = {o.name: o for o in self._vault.backend.list()}  # complete or an error
        self._reporter.check()
        objects = ObjectCheck(self._vault, listing, began, self._reporter)
        objects.run()
        data = DataCheck(self._vault, objects, self._reporter, self._threads)
        data.run(self._share)
        trees = TreeCheck(self._vault, objects, data.bad, self._reporter)
        lost = trees.run()
        findings = objects.findings + data.findings + trees.findings
        return self._report(listing, findings, objects, data, trees, tuple(lost))

    def _report(
        self,
        listing: dict[str, ObjectInfo],
        findings: list[Finding],
        objects: ObjectCheck,
        data: DataCheck,
        trees: TreeCheck,
        lost: tuple[LostPath, ...],
    ) -> CheckReport:
        total = sum(objects.present.values()) or 1
        return CheckReport(
            "data" if self._share else "structure", tuple(findings), lost, len(listing), len(trees.snapshots),
            sum(len(t) for t in objects.index.tables), len(objects.present), data.packs_read, data.bytes_read,
            data.bytes_read / total, data.verified_bytes / total, time.monotonic() - self._started,
        )  # fmt: skip
