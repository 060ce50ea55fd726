"""Operations in processes of their own, under strace."""

from collections.abc import Sequence
from pathlib import Path

import strace
from battery import model

CHANGING = "mkdir,mkdirat,write,writev,pwrite64,fsync,fdatasync,link,linkat,rename,renameat,renameat2,unlink,unlinkat"
_CODE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from battery.crash.worker import main
main(*sys.argv[1:])
"""
_TESTS = str(Path(__file__).parents[1])


_COMMAND = "import sys; from snapvault.cli.main import main; main()"


class Place:
    """A folder with repository, cache and state; the source lies beside it."""

    def __init__(self, root: Path, source: Path) -> None:
        self.root, self.source = root, source
        self.repository = root / "repository"

    def run(
        self, operation: str, *, serial: bool = True, inject: Sequence[str] = (), trace: str = CHANGING
    ) -> strace.Run:
        """Run the worker; see there."""
        log = self.root.parent / f"{self.root.name}.trace"
        mode = "serial" if serial else "threads"
        arguments = (operation, str(self.repository), str(self.source), str(self.root), mode)
        return strace.run(_CODE, _TESTS, *arguments, trace=trace, log=log, inject=inject)

    def command(self, *argv: object, inject: Sequence[str] = (), trace: str = CHANGING) -> strace.Run:
        """The command line itself, in a home of its own."""
        key = self.root / "key"
        key.write_bytes(model.SEED)
        env = {
            "HOME": str(self.root), "SNAPVAULT_KEY_FILE": str(key), "SNAPVAULT_CACHE_DIR": str(self.root / "cache"),
            "SNAPVAULT_STATE_DIR": str(self.root / "state"), "SNAPVAULT_REPOSITORY": str(self.repository),
        }  # fmt: skip
        log = self.root.parent / f"{self.root.name}.trace"
        return strace.run(_COMMAND, *map(str, argv), trace=trace, log=log, inject=inject, env=env)
