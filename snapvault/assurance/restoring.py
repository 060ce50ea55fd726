"""Bringing back and comparing, step by step: the same for what a drill restores and for the damage that it plants."""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from snapvault.access.snapshot import Entry, Snapshot
from snapvault.foundation.errors import SourceError
from snapvault.foundation.events import Control, Event
from snapvault.operations.preview import verify
from snapvault.operations.restore import Restorer, snapshot_domain
from snapvault.operations.results import Issue
from snapvault.operations.selection import Selection
from snapvault.operations.tally import Tally
from snapvault.platform.disk import Quota
from snapvault.repository.repository import Vault
from snapvault.target.filesystem import FilesystemTarget


@dataclass(frozen=True, slots=True)
class BroughtBack:
    """What came back."""

    files: int
    others: int  # folders are not counted
    bytes: int
    lost: tuple[Issue, ...]  # stored data is damaged
    incomplete: tuple[Issue, ...]  # restored, but not in everything
    tally: Tally


class Place:
    """A folder that entries of one snapshot are restored into, and compared in."""

    def __init__(
        self, vault: Vault, snapshot: Snapshot, folder: Path, control: Control | None, quota: int | None = None
    ) -> None:
        self._vault, self._folder, self._control, self._asked = vault, folder, control, control
        self._most, self._quota = quota, None if quota is None else Quota(folder, quota)
        self._domain = snapshot_domain(vault, snapshot)
        if self._quota is not None:
            self._control = replace(control or Control(), progress=self._tick)

    def restore(self, entry: Entry, selection: Selection) -> BroughtBack:
        """SourceError if the disk or the quota does not suffice; errors of the store, Cancelled."""
        tally = Tally()
        with closing(FilesystemTarget(self._folder)) as target:
            Restorer(self._vault, target, tally, self._domain, control=self._control).run(entry, selection)
        self._within_quota(tally.bytes_written, last=True)
        return BroughtBack(
            tally.files_written, tally.others, tally.bytes_written, tuple(tally.lost), tuple(tally.issues), tally
        )

    def compare(self, entry: Entry, selection: Selection, restored: Tally) -> list[Issue]:
        """Read back what is on the disk, and compare it with the record: what differs, beyond what is known.

        SourceError if it cannot be read; errors of the store, Cancelled.
        """
        known = {(i.path, i.message) for i in (*restored.issues, *restored.lost)}
        with closing(FilesystemTarget(self._folder)) as target:
            verify(self._vault, target, restored, self._domain, entry, selection, self._control)
        return [i for i in (*restored.issues, *restored.lost) if (i.path, i.message) not in known]

    def _tick(self, event: Event) -> None:
        """Once in a while, as long as the restore goes on."""
        self._within_quota(event.bytes_done)
        if self._asked is not None and self._asked.progress is not None:
            self._asked.progress(event)

    def _within_quota(self, written: int, *, last: bool = False) -> None:
        if self._quota is not None and self._quota.exceeded(written, last=last):
            raise SourceError(
                f"the restore fills more than the {self._most:,} bytes that it may",
                hint="give the drill a larger quota, or another scratch place", affected=[str(self._folder)],
            )  # fmt: skip
