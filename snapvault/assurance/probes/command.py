"""A program of your own: it gets the restored folder, and its exit status says whether the data is alive."""

import os
import subprocess
from pathlib import Path

import msgspec

from snapvault.assurance.probes import Common, Facts, NotRun, ProbeFailed

SKIPPED = 77  # the exit status of a test that could not be run, as automake and others have it


class Options(Common):
    """``argv``: never through a shell; ``{root}`` in it is the restored folder."""

    argv: list[str]
    env: dict[str, str] = msgspec.field(default_factory=dict)


def run(root: Path, options: Options) -> Facts:
    """Exit status 0: alive; 77: could not tell; anything else: not."""
    argv = [word.replace("{root}", str(root)) for word in options.argv]
    try:
        done = subprocess.run(argv, cwd=root, env={**os.environ, **options.env}, check=False)
    except (OSError, ValueError, IndexError) as e:
        raise NotRun(f"the program {' '.join(argv[:1])!r} cannot be started: {e}") from e
    if done.returncode == SKIPPED:
        raise NotRun(f"the program {argv[0]!r} says that it could not tell (exit status {SKIPPED})")
    if done.returncode:
        how = f"failed with exit status {done.returncode}" if done.returncode > 0 else "was killed"
        raise ProbeFailed(f"{argv[0]} {how}")
    return {}
