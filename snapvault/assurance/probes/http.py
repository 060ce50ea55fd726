"""A service, started from what was restored and asked for its health."""

import http.client
import os
import socket
import subprocess
import time
from pathlib import Path

import msgspec

from snapvault.assurance.probes import Common, Facts, NotRun, ProbeFailed

_PAUSE = 0.05  # seconds between two questions
_PATIENCE = 10.0  # for one answer, and for the service to end
_ANSWER = 1 << 20  # bytes of an answer that are looked at


class Options(Common):
    """``argv`` starts the service in the restored folder; ``{root}`` and ``{port}`` in it are filled in.

    ``port``: where it listens, 0: a free one; ``path`` is asked for, and must answer with ``status`` and ``contains``.
    """

    argv: list[str]
    port: int = 0
    path: str = "/"
    status: int = 200
    contains: str = ""
    env: dict[str, str] = msgspec.field(default_factory=dict)


def run(root: Path, options: Options) -> Facts:
    """The service answers as it should."""
    port = options.port or _free_port()
    argv = [word.replace("{root}", str(root)).replace("{port}", str(port)) for word in options.argv]
    env = {**os.environ, **options.env, "PORT": str(port)}
    try:
        service = subprocess.Popen(argv, cwd=root, env=env)
    except (OSError, ValueError, IndexError) as e:
        raise NotRun(f"the service {' '.join(argv[:1])!r} cannot be started: {e}") from e
    try:
        return _healthy(service, port, options)
    finally:
        _end(service)


def _healthy(service: "subprocess.Popen[bytes]", port: int, options: Options) -> Facts:
    """Ask until it listens; whoever runs this ends it when the time is over."""
    while True:
        try:
            status, body = _ask(port, options.path)
        except (OSError, http.client.HTTPException):
            if (code := service.poll()) is not None:
                raise ProbeFailed(f"the service ended with exit status {code}") from None
            time.sleep(_PAUSE)
            continue
        if status != options.status:
            raise ProbeFailed(f"{options.path} answered {status}, and should answer {options.status}")
        if options.contains.encode() not in body:
            raise ProbeFailed(f"the answer to {options.path} does not contain {options.contains!r}")
        return {"status": status, "bytes": len(body)}


def _ask(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(_ANSWER)
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _end(service: "subprocess.Popen[bytes]") -> None:
    service.terminate()
    try:
        service.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()
