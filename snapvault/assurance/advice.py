"""The command to run next about a dataset in trouble."""

import shlex
from collections.abc import Sequence

from snapvault.assurance.dataset import Dataset
from snapvault.assurance.marks import Mark


def command_for(dataset: Dataset, mark: Mark, site: str, whole: Sequence[str], *, backed_up: bool) -> str:
    """What to type.  ``site``: where the trouble is; ``whole``: where it is intact; "" is the repository itself."""
    name, trouble = shlex.quote(dataset.name), mark.trouble
    if trouble in ("never-backed-up", "incomplete", "stale") or not backed_up:
        return (
            f"snapvault backup --all --dataset {name}" if dataset.sources else f"snapvault backup --dataset {name} PATH"
        )
    if trouble == "unanswered":
        return f"snapvault site push {shlex.quote(site)}"
    if trouble in ("damaged", "lost"):
        others = [s for s in (site, *whole) if s]
        return f"snapvault check --repair-from {shlex.quote(others[0])}" if others else "snapvault check --read-data"
    if trouble in ("dead", "slow"):
        return f"snapvault evidence list {name}"
    if dataset.probe is None and "probe" in mark.why:
        return "snapvault register list --export toml"
    at = f" --site {shlex.quote(site)}" if site else ""
    return f"snapvault drill {name}{at}"
