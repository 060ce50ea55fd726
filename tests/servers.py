"""Real stores on 127.0.0.1 for the tests: SeaweedFS, moto, OpenSSH, web servers, and rclone as S3, SFTP and WebDAV.

Each class starts its server on free ports and kills it with the test process.  ``fresh()`` gives the URL of a new,
empty place and the storage options to reach it.
"""

import base64
import contextlib
import ctypes
import functools
import getpass
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KEY, SECRET = "test", "testtest"
WRITER, WRITER_SECRET = "writer", "writersecret"  # of SeaweedFS: all that a client needs, and the right to delete
STARTUP = 40.0  # seconds; the servers need 1 to 4 of them on an idle machine
_PR_SET_PDEATHSIG = 1

Place = tuple[str, dict[str, Any]]
Fresh = Callable[[], Place]
Shown = Callable[[], tuple[Path, Place]]  # a new folder, and where it can be read


def _shuffled_ports() -> Iterator[int]:
    """Below the ephemeral range, each once, and of each test worker others: whoever gets one uses it only later."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = [*range(15000 + worker % WORKERS, 22000, WORKERS)]
    return iter(random.SystemRandom().sample(mine, len(mine)))


WORKERS = 32
_ports = _shuffled_ports()


def free_port(also: int = 0) -> int:
    """A port on which nobody listens, nor on the one ``also`` above it; RuntimeError."""
    for port in _ports:
        if _is_free(port) and (not also or _is_free(port + also)):
            return port
    raise RuntimeError("no free port on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Server:
    """A child process that listens on ``port``."""

    def __init__(self, argv: list[str], port: int, log: Path) -> None:
        self.port = port
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                argv, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, preexec_fn=_die_with_us,
            )  # fmt: skip

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Until ``ready`` says so; RuntimeError with the server's own words if it dies or takes too long."""
        limit = time.monotonic() + STARTUP
        while not ready():
            if self._process.poll() is not None or time.monotonic() > limit:
                tail = self._log.read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"{self._process.args!r} did not start: {tail}")
            time.sleep(0.05)

    def listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def tool(name: str) -> str:
    """The path of an installed program, those of this environment first."""
    here = Path(sys.executable).with_name(name)
    found = str(here) if here.exists() else shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed; the test extra brings it")
    return found


def s3_options(port: int, key: str = KEY, secret: str = SECRET) -> dict[str, Any]:
    return {
        "key": key,
        "secret": secret,
        "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"},
    }


def make_bucket(port: int) -> str:
    """A fresh bucket, made with the vendor's client and not with what is under test."""
    name = "test-" + secrets.token_hex(6)
    s3_client(port).create_bucket(Bucket=name)
    return name


@functools.cache
def s3_client(port: int) -> Any:
    """One for all: making it takes 0.1 s."""
    import botocore.session  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]

    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}, response_checksum_validation="when_required"),
    )


def _answers_s3(port: int) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    try:  # an object too: a server may answer before it has anywhere to put one
        s3_client(port).put_object(Bucket=make_bucket(port), Key="ready", Body=b"?")
    except (BotoCoreError, ClientError):
        return False
    return True


def _s3_places(server: Server) -> Fresh:
    return lambda: (f"s3://{make_bucket(server.port)}/repo", s3_options(server.port))


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[Fresh]:
    """SeaweedFS: the real S3, with working preconditions."""
    identity = {"name": "t", "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}
    identity["actions"] = ["Admin", "Read", "Write", "List", "Tagging"]
    writer = {"name": "writer", "credentials": [{"accessKey": WRITER, "secretKey": WRITER_SECRET}]}
    locks = ["GetBucketObjectLockConfiguration", "GetObjectRetention", "PutObjectRetention"]
    writer["actions"] = ["Read", "Write", "List", *locks]
    (folder / "s3.json").write_text(json.dumps({"identities": [identity, writer]}))
    (folder / "data").mkdir()
    # each bucket gets volumes of its own, seven at once unless told; read from the working folder
    (folder / "master.toml").write_text("[master.volume_growth]\ncopy_1 = 1\n")
    master, volume, filer, s3 = (free_port(also=10000) for _ in range(4))
    argv = [tool("weed"), "-logtostderr=true", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1"]
    argv += ["-ip.bind=127.0.0.1", f"-master.port={master}", f"-volume.port={volume}", "-volume.max=1000"]
    argv += ["-volume.preStopSeconds=1", "-master.volumeSizeLimitMB=64", "-filer", f"-filer.port={filer}"]
    argv += ["-s3", f"-s3.port={s3}", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    server = Server(argv, s3, folder / "weed.log")
    try:
        server.wait_for(lambda: server.listens() and _answers_s3(s3))
        yield _s3_places(server)
    finally:
        server.kill()


@contextlib.contextmanager
def moto_s3(folder: Path) -> Iterator[Fresh]:
    """moto: a second opinion on S3."""
    port = free_port()
    server = Server([tool("moto_server"), "-H", "127.0.0.1", "-p", str(port)], port, folder / "moto.log")
    try:
        server.wait_for(lambda: server.listens() and _answers_s3(port))
        yield _s3_places(server)
    finally:
        server.kill()


@contextlib.contextmanager
def rclone_s3(folder: Path) -> Iterator[Fresh]:
    """rclone's S3: takes If-None-Match and ignores it."""
    port = free_port()
    (folder / "data").mkdir()
    argv = [tool("rclone"), "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}"]
    argv += ["--auth-key", f"{KEY},{SECRET}", "--vfs-cache-mode", "writes", "--cache-dir", str(folder / "cache")]
    server = Server([*argv, str(folder / "data")], port, folder / "rclone.log")
    try:
        server.wait_for(lambda: server.listens() and _answers_s3(port))
        yield _s3_places(server)
    finally:
        server.kill()


@contextlib.contextmanager
def rclone_sftp(folder: Path) -> Iterator[Fresh]:
    """rclone's SFTP; the host key is made at the start, so it is accepted unseen."""
    port = free_port()
    data = folder / "data"
    data.mkdir(exist_ok=True)  # a test may start it again with what it had
    argv = [tool("rclone"), "serve", "sftp", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}"]
    argv += ["--user", "u", "--pass", SECRET, "--cache-dir", str(folder / "cache"), str(data)]
    server = Server(argv, port, folder / "rclone.log")

    def place() -> Place:
        name = secrets.token_hex(6)
        (data / name).mkdir()
        options = {"username": "u", "password": SECRET, "host_key_policy": "auto_add"}
        return f"sftp://127.0.0.1:{port}/{name}/repo", options

    try:
        server.wait_for(server.listens)
        yield place
    finally:
        server.kill()


@contextlib.contextmanager
def openssh(folder: Path) -> Iterator[Fresh]:
    """OpenSSH's own server as it comes, with as few channels a connection as it gives everybody; a key opens it."""
    port = free_port()
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    settings = {
        "ListenAddress": f"127.0.0.1:{port}", "HostKey": folder / "host_key", "PidFile": "none", "UsePAM": "no",
        "AuthorizedKeysFile": folder / "user_key.pub", "StrictModes": "no", "PasswordAuthentication": "no",
        "Subsystem": "sftp internal-sftp",
    }  # fmt: skip
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # where it drops its rights; the init system makes it elsewhere
    argv = [shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or "sshd", "-D", "-e"]
    server = Server([*argv, "-f", str(folder / "sshd_config")], port, folder / "sshd.log")

    def place() -> Place:
        options = {"username": getpass.getuser(), "key_filename": str(folder / "user_key")}
        url = f"sftp://127.0.0.1:{port}{folder}/{secrets.token_hex(6)}"
        return url, {**options, "host_key_policy": "auto_add"}

    try:
        server.wait_for(server.listens)
        yield place
    finally:
        server.kill()


@contextlib.contextmanager
def webdav(folder: Path) -> Iterator[Shown]:
    """rclone's WebDAV, with a password."""
    port = free_port()
    options = {"base_url": f"http://127.0.0.1:{port}", "auth": ["u", SECRET]}
    yield from _shown(_rclone_shows("webdav", port, folder), port, folder, "webdav://{}/repo", options)


@contextlib.contextmanager
def rclone_http(folder: Path) -> Iterator[Shown]:
    """rclone as a web server, with a password."""
    port, login = free_port(), base64.b64encode(f"u:{SECRET}".encode()).decode()
    options = {"headers": {"Authorization": f"Basic {login}"}}
    yield from _shown(_rclone_shows("http", port, folder), port, folder, f"http://127.0.0.1:{port}/{{}}/repo", options)


@contextlib.contextmanager
def python_http(folder: Path) -> Iterator[Shown]:
    """Python's own web server, which knows no ranges."""
    port = free_port()
    argv = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder / "data")]
    yield from _shown(argv, port, folder, f"http://127.0.0.1:{port}/{{}}/repo", {})


def _rclone_shows(kind: str, port: int, folder: Path) -> list[str]:
    argv = [tool("rclone"), "serve", kind, "--config", "/dev/null", "--addr", f"127.0.0.1:{port}"]
    return [*argv, "--user", "u", "--pass", SECRET, "--cache-dir", str(folder / "cache"), str(folder / "data")]


def _shown(argv: list[str], port: int, folder: Path, url: str, options: dict[str, Any]) -> Iterator[Shown]:
    """rclone keeps listings: what it is to show is there before it looks, and the folders above before it starts."""
    names = [secrets.token_hex(6) for _ in range(100)]
    for name in names:
        (folder / "data" / name).mkdir(parents=True)

    def fresh() -> tuple[Path, Place]:
        name = names.pop()
        (folder / "data" / name / "repo").mkdir()
        return folder / "data" / name / "repo", (url.format(name), options)

    server = Server(argv, port, folder / "log")
    try:
        server.wait_for(server.listens)
        yield fresh
    finally:
        server.kill()
