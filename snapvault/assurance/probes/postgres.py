"""PostgreSQL: a dump is loaded into a throw-away cluster, and a query is answered.

The dump is what ``pg_dump`` writes, plain (also compressed) or in one of its own formats.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from snapvault.assurance.probes import Common, Facts, NotRun, Patterns, ProbeFailed
from snapvault.assurance.probes.files import UNREADABLE, chosen, decompressed

SUPERUSER, DATABASE = "postgres", "probe"
CUSTOM = b"PGDMP"  # how pg_dump's own format begins
HEADING, ENDING = b"-- PostgreSQL database", re.compile(rb"-- PostgreSQL database (cluster )?dump complete")
_PATTERNS = ["**/*.sql", "**/*.sql.*", "**/*.dump", "**/toc.dat"]
_PAUSE = 0.05  # seconds between two looks whether the server is there
_WHERE = "/usr/lib/postgresql"  # Debian's; what is on the path comes after it
_TABLES = (
    "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE relkind IN ('r', 'p') AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"
)


class Options(Common):
    """``path``: the dump; ``roles``: users whom it names; ``query``: what is asked; ``expect``: its answer.

    Without ``query``, the tables are counted.  Without ``expect``, every answer is good but none, 0, f and nothing.
    """

    path: Patterns = msgspec.field(default_factory=lambda: list(_PATTERNS))
    roles: list[str] = msgspec.field(default_factory=list)
    query: str = _TABLES
    expect: str | None = None


def run(root: Path, options: Options) -> Facts:
    """One dump, loaded and asked."""
    files = chosen(root, options.path)
    if len(files) > 1:
        raise NotRun(f"there are {len(files)} dumps: say which one by path")
    _check_whole(files[0])
    with throw_away() as cluster:
        cluster.load(files[0], options.roles)
        answer = cluster.psql("-At", "-c", options.query).strip()
    expected = answer == options.expect if options.expect is not None else answer not in ("", "0", "f")
    if not expected:
        wanted = f", and should answer {options.expect!r}" if options.expect is not None else ""
        raise ProbeFailed(f"the query answered {answer[:200]!r}{wanted}")
    return {"answer": answer[:200], "version": cluster.version()}


@contextmanager
def throw_away() -> "Iterator[Cluster]":
    """A server with an empty database, for the time of the block.  NotRun if there can be none."""
    programs, owner = _programs(), _owner()
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        os.chmod(folder, 0o711)
        cluster = Cluster(programs, Path(folder), owner)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def _check_whole(path: Path) -> None:
    """psql loads a plain dump that was cut short without a word: pg_dump says in the last lines that all is there."""
    if path.name == "toc.dat":
        return
    try:
        with decompressed(path) as f:
            head = last = f.read(1 << 16)
            if head.startswith(CUSTOM) or HEADING not in head:
                return
            while piece := f.read(1 << 20):
                last = last[-4096:] + piece
    except UNREADABLE as e:
        raise ProbeFailed(f"{path.name}: {e}") from e
    if not ENDING.search(last[-4096:]):
        raise ProbeFailed(f"{path.name} is cut short: its last lines do not say that the dump is complete")


def _programs() -> Path:
    """The folder of the newest server."""
    found = sorted(Path(_WHERE).glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    program = str(found[-1]) if found else shutil.which("initdb")
    if program is None:
        raise NotRun("PostgreSQL's server is not installed (initdb is not found)")
    return Path(program).resolve().parent


def _owner() -> int | None:
    """Whom the server runs as, since it refuses root."""
    if os.geteuid() != 0:
        return None
    for name in (SUPERUSER, "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise NotRun("the server refuses to run as root, and there is no user 'postgres' or 'nobody'")


class Cluster:
    """A server on a socket in a folder, for nobody else."""

    def __init__(self, programs: Path, folder: Path, owner: int | None) -> None:
        self._programs, self._folder, self._owner = programs, folder, owner
        self._data, self._log = folder / "data", folder / "log"
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._data.mkdir(mode=0o700)
        if self._owner is not None:
            os.chown(self._data, self._owner, self._owner)
        self._as_owner("initdb", "-D", str(self._data), "--auth=trust", "--no-sync", "-U", SUPERUSER, "-E", "UTF8")
        settings = {
            "listen_addresses": "", "unix_socket_directories": str(self._data), "fsync": "off",
            "full_page_writes": "off", "dynamic_shared_memory_type": "mmap", "logging_collector": "off",
        }  # fmt: skip
        words = [word for k, v in settings.items() for word in ("-c", f"{k}={v}")]
        argv = [str(self._programs / "postgres"), "-D", str(self._data), *words]
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                argv, cwd="/", stdout=log, stderr=log, user=self._owner, group=self._owner, extra_groups=self._groups
            )
        self._wait()
        self.psql("-c", f"CREATE DATABASE {DATABASE}", database=SUPERUSER)

    @property
    def _groups(self) -> list[int] | None:
        return None if self._owner is None else []

    def _as_owner(self, program: str, *argv: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *argv], cwd="/", check=False, capture_output=True, text=True,
            user=self._owner, group=self._owner, extra_groups=self._groups,
        )  # fmt: skip
        if done.returncode:
            raise NotRun(f"{program} failed: {_last_line(done.stderr)}")

    def _wait(self) -> None:
        """Until the server takes connections; whoever runs this ends it when the time is over."""
        assert self._server is not None
        while self.client("pg_isready", "-q").returncode:
            if self._server.poll() is not None:
                raise NotRun(f"the server did not start: {_last_line(self._log.read_text(errors='replace'))}")
            time.sleep(_PAUSE)

    def load(self, dump: Path, roles: list[str]) -> None:
        for role in roles:
            quoted = role.replace('"', '""')
            self.psql("-c", f'CREATE ROLE "{quoted}"')
        with decompressed(dump) as f:
            custom = dump.name == "toc.dat" or f.read(len(CUSTOM)) == CUSTOM
        if custom:
            place = dump.parent if dump.name == "toc.dat" else dump
            argv = ["pg_restore", "--no-owner", "--no-privileges", "--exit-on-error", "-d", DATABASE, str(place)]
            self._must(self.client(*argv), "the dump cannot be loaded")
            return
        self._must(self._load_plain(dump), "the dump cannot be loaded")

    def _load_plain(self, dump: Path) -> "subprocess.CompletedProcess[str]":
        argv = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", DATABASE, "-o", os.devnull]
        with tempfile.TemporaryFile("w+", errors="replace") as errors:
            psql = subprocess.Popen(self._argv(*argv), stdin=subprocess.PIPE, stderr=errors, cwd=self._data)
            assert psql.stdin is not None
            with decompressed(dump) as f, suppress(BrokenPipeError):  # it ended at an error
                shutil.copyfileobj(f, psql.stdin, 1 << 20)
                psql.stdin.close()
            code = psql.wait()
            errors.seek(0)
            return subprocess.CompletedProcess(argv, code, "", errors.read())

    def psql(self, *argv: str, database: str = DATABASE) -> str:
        done = self.client("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, *argv)
        self._must(done, "the query failed")
        return done.stdout

    def _argv(self, program: str, *argv: str) -> list[str]:
        # A socket's path has 107 bytes at most; that of the working folder is always short.
        return [str(self._programs / program), "-h", "/proc/self/cwd", "-U", SUPERUSER, *argv]

    def client(self, program: str, *argv: str) -> "subprocess.CompletedProcess[str]":
        """Run one of PostgreSQL's own programs on it."""
        return subprocess.run(
            self._argv(program, *argv), cwd=self._data, check=False, capture_output=True, text=True, errors="replace"
        )

    def _must(self, done: "subprocess.CompletedProcess[str]", what: str) -> None:
        if done.returncode:
            raise ProbeFailed(f"{what}: {_first_error(done.stderr)}")

    def version(self) -> str:
        return subprocess.run(
            [str(self._programs / "postgres"), "--version"], check=False, capture_output=True, text=True
        ).stdout.strip()

    def stop(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            self._server.wait()


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def _first_error(text: str) -> str:
    lines = text.strip().splitlines()
    return next((line for line in lines if "error" in line.lower()), _last_line(text))
