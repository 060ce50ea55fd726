"""A process that runs one operation on a repository in a folder, for tests that kill, stop or starve it.

Arguments: operation, repository, source, place (for cache and state), then ``serial`` or ``threads``.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from battery import model
from battery.inline import Inline

import snapvault
from snapvault.foundation.events import Control
from snapvault.repository import packer, writer


def main(operation: str, repository: str, source: str, place: str, mode: str = "threads") -> None:
    """Print one line, the exit status says the rest: the error's, or 130 after Ctrl-C."""
    if mode == "serial":
        writer.ThreadPoolExecutor = packer.ThreadPoolExecutor = Inline  # type: ignore[assignment,misc]
    options = {"keys": model.key, "cache": Path(place, "cache"), "state": Path(place, "state")}
    try:
        with model.small_parts():
            print(_run(operation, repository, source, options), flush=True)
    except snapvault.SnapvaultError as e:
        print(f"{type(e).__name__}: {e}")
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(operation: str, repository: str, source: str, options: dict[str, Any]) -> str:
    if operation == "init":
        return str(snapvault.init(repository, chunking=model.CHUNKING, **options).repository.id)
    with snapvault.open(repository, **options) as repo:
        if operation == "backup":
            made = snapvault.backup(repo, source, dataset="model", host="here", control=Control())
            return f"{made.snapshot} {made.status} {made.bytes_new}"
        if operation == "rotate":
            return str(snapvault.rotate(repo).keyset)
        if operation == "forget":
            return " ".join(snapvault.forget_snapshots(repo, ["latest"]).forgotten)
        if operation == "prune":
            plan = snapvault.plan_prune(repo, limits=snapvault.PruneLimits(unused=0.0))
            return str(plan.execute(wait=timedelta(0), lease=timedelta(0)).packs_removed)
        if operation == "repair":
            result = snapvault.plan_repair(repo).execute(wait=timedelta(0), lease=timedelta(0))
            return f"{result.status} {result.packs_salvaged}"
        raise ValueError(operation)


if __name__ == "__main__":
    main(*sys.argv[1:])
