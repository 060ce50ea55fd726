"""SeaweedFS on this machine, and the relay in front of it."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

KEY, SECRET, REGION = "bench", "benchsecret", "us-east-1"
_STARTUP = 60.0  # seconds


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[int]:
    """Its S3 port; it ends with the context."""
    identity = {"name": "bench", "credentials": [{"accessKey": KEY, "secretKey": SECRET}]}
    identity["actions"] = ["Admin", "Read", "Write", "List", "Tagging"]
    (folder / "data").mkdir(parents=True)
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    master, volume, filer, s3 = (18_500 + n for n in range(0, 40, 10))
    weed = str(Path(sys.executable).with_name("weed"))
    command = [weed, "-logtostderr=true", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-master.port={master}", f"-volume.port={volume}", "-volume.max=1000", "-filer"]
    command += [f"-filer.port={filer}", "-s3", f"-s3.port={s3}", f"-s3.config={folder / 's3.json'}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    with _running(command, folder / "weed.log", s3):
        time.sleep(5)  # the port answers before there is anywhere to put an object
        yield s3


@contextlib.contextmanager
def relay(server: int, latency: int, folder: Path) -> Iterator[tuple[int, Path]]:
    """A port that leads to the server with so many milliseconds of round trip added, and the file of counts."""
    port, counts = server + 1000, folder / "counts.json"
    folder.mkdir(parents=True)
    command = [sys.executable, str(Path(__file__).with_name("relay.py")), str(port), str(server), str(latency)]
    with _running([*command, str(counts)], folder / "relay.log", port):
        yield port, counts


@contextlib.contextmanager
def _running(command: list[str], log: Path, port: int) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        limit = time.monotonic() + _STARTUP
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"{command[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
