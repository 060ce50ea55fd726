"""A server of a few lines that answers as told, to see how its answers are understood; left alone, it speaks S3."""

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import servers


@dataclass(frozen=True)
class Answer:
    """What the next request gets; ``apply`` says whether a PUT takes effect first, ``drop`` closes without a reply."""

    status: int = 200
    code: str = ""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    apply: bool = False
    drop: bool = False


class Stub:
    """``script`` is used up answer by answer; after that the server behaves.

    ``seen`` are methods and paths, ``headers`` came with them.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.script: list[Answer] = []
        self.seen: list[tuple[str, str]] = []
        self.headers: list[Message] = []
        self.port = 0

    def place(self, **config: Any) -> servers.Place:
        options = servers.s3_options(self.port)
        return "s3://bucket/repo", {**options, **({"config_kwargs": config} if config else {})}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _serve(self) -> None:
        stub, path = self.stub, self.path.split("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        stub.seen.append((self.command, path))
        stub.headers.append(self.headers)
        answer = stub.script.pop(0) if stub.script else None
        if answer is None:
            answer = self._behave(path, body)
        elif answer.apply and self.command == "PUT":
            stub.objects[path] = body
        if answer.drop:
            self.close_connection = True
            return
        self._reply(answer)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_PROPFIND = _serve

    def _behave(self, path: str, body: bytes) -> Answer:
        objects = self.stub.objects
        if self.command == "PUT":
            if self.headers.get("If-None-Match") == "*" and path in objects:
                return Answer(412, "PreconditionFailed")
            objects[path] = body
            return Answer(headers={"ETag": '"x"'})
        if self.command == "DELETE":
            objects.pop(path, None)
            return Answer(204)
        if path not in objects:
            return Answer(404, "NoSuchKey")
        ranged = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if ranged is None:
            return Answer(body=objects[path])
        first, size = int(ranged[1]), len(objects[path])
        part = objects[path][first : int(ranged[2]) + 1 if ranged[2] else size]
        return Answer(206, body=part, headers={"Content-Range": f"bytes {first}-{first + len(part) - 1}/{size}"})

    def _reply(self, answer: Answer) -> None:
        body = answer.body
        if answer.code:
            body = f"<Error><Code>{answer.code}</Code><Message>as told</Message></Error>".encode()
        headers = {"Content-Length": str(len(body)), **answer.headers}
        self.send_response(answer.status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        if headers["Content-Length"] != str(len(body)):
            self.close_connection = True


@contextlib.contextmanager
def serve() -> Iterator[Stub]:
    stub = Stub()
    handler = type("Handler", (_Handler,), {"stub": stub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    stub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
