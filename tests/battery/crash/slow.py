"""A process that backs up its standard input, as a service that uses the library does: no command line around it."""

import signal
import sys
from typing import Any

from battery import model

import snapvault
from snapvault.foundation.events import Control


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def main(url: str) -> None:
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        with model.small_parts(), snapvault.open(url, keys=model.key) as repo:
            print(snapvault.backup(repo, sys.stdin.buffer, dataset="slow", control=Control()).snapshot, flush=True)
    except snapvault.SnapvaultError as e:
        print(e)
        sys.exit(e.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv[1])
