"""A real PostgreSQL server on a socket in a folder, run by somebody who is not root, as it demands."""

import contextlib
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

USER = "postgres"


@contextlib.contextmanager
def server(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which PostgreSQL's own programs find the server.  RuntimeError if it is not installed."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not binaries:
        raise RuntimeError("PostgreSQL is not installed; tests/setup brings it")
    programs = binaries[-1].parent
    folder.mkdir()
    owner = pwd.getpwnam(USER)
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as short:  # a socket's path has 107 bytes at most
        place = Path(short)
        subprocess.run(["chown", f"{owner.pw_uid}:{owner.pw_gid}", place], check=True)

        def run(program: str, *argv: str) -> None:
            user = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
            command = [*user, programs / program, *argv]
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")

        data = str(place / "data")
        run("initdb", "-D", data, "--auth=trust", "--no-sync", "-U", USER)
        options = f"-k {place} -c listen_addresses='' -c fsync=off"
        run("pg_ctl", "-D", data, "-w", "-l", str(place / "log"), "-o", options, "start")
        try:
            yield {"PGHOST": str(place), "PGUSER": USER}
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")
