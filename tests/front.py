"""A proxy before an S3 server, which refuses to overwrite: what a policy on ``s3:if-none-match`` does on AWS."""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_DENIED = b"<Error><Code>AccessDenied</Code><Message>explicit deny in a policy</Message></Error>"
_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    behind: int
    refused: list[str]

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, _, query = self.path.partition("?")
        puts_object = self.command == "PUT" and path.strip("/").count("/") >= 1 and "retention" not in query
        if puts_object and self.headers.get("If-None-Match") != "*":
            self.refused.append(path)
            self._reply(403, {}, _DENIED)
            return
        server = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=60)
        with contextlib.closing(server):
            headers = {k: v for k, v in self.headers.items() if k.lower() not in {"connection", "expect"}}
            server.request(self.command, self.path, body, headers)  # with the host that was signed
            answer = server.getresponse()
            self._reply(answer.status, dict(answer.getheaders()), answer.read())

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        size = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", size)
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def serve(behind: int) -> Iterator[tuple[int, list[str]]]:
    """The proxy's port, and the paths of the PUTs that it refused."""
    refused: list[str] = []
    handler = type("Handler", (_Handler,), {"behind": behind, "refused": refused})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1], refused
    finally:
        server.shutdown()
        server.server_close()
