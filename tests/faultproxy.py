"""A proxy in front of a real S3 server that forwards requests as they are, and spoils those that a rule names.

The host that a request was signed for goes on unchanged, so the server verifies what the client signed.
"""

import contextlib
import http.client
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from servers import Place

REFUSALS = {  # answered without asking the server
    "403": (403, "AccessDenied"), "409": (409, "ConditionalRequestConflict"), "412": (412, "PreconditionFailed"),
    "500": (500, "InternalError"), "503": (503, "SlowDown"),
}  # fmt: skip
BEFORE = (*REFUSALS, "reset", "latency")
AFTER = ("500 after", "reset after", "timeout after", "duplicate")  # the server did what was asked
LATENCY = 0.2  # seconds
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect", "proxy-connection"})


@dataclass(frozen=True, slots=True)
class Rule:
    """Spoil ``times`` calls (None: all) of a method on names with ``prefix``, after the first ``skip`` of them.

    ``call``: put, get, head, list, delete; None: any.  ``kind``: one of those above.  A reply in which there is
    nothing to spoil in this way does not count.
    """

    kind: str
    call: str | None = None
    prefix: str = ""
    times: int | None = 1
    skip: int = 0


@dataclass
class Reply:
    """What goes back; ``length``: what Content-Length says, if that is not true."""

    status: int
    headers: dict[str, str]
    body: bytes
    length: int | None = None


@dataclass
class Proxy:
    """``seen``: calls, their names, and the ways in which the reply could be spoilt; ``fired``: what happened."""

    upstream: str  # host:port
    seen: list[tuple[str, str, frozenset[str]]] = field(default_factory=list)
    fired: list[Rule] = field(default_factory=list)
    port: int = 0
    _rules: list[Rule] = field(default_factory=list)
    _met: Counter[Rule] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def through(self, place: Place, **config: Any) -> Place:
        """The same place by way of this proxy; ``config`` is of botocore."""
        url, options = place
        client = {**options["client_kwargs"], "endpoint_url": f"http://127.0.0.1:{self.port}"}
        return url, {**options, "client_kwargs": client, "config_kwargs": config}

    @contextlib.contextmanager
    def spoiling(self, *rules: Rule) -> Iterator[None]:
        """While this is open, these rules hold; ``fired`` says afterwards which of them met a call."""
        self._met.clear()
        self.fired.clear()
        self._rules = list(rules)
        try:
            yield
        finally:
            self._rules = []

    def rule_for(self, call: str, name: str) -> Rule | None:
        """The first that means this call, and is not used up."""
        for rule in self._rules:
            meant = rule.call in (None, call) and name.startswith(rule.prefix)
            if meant and (rule.times is None or self._met[rule] < rule.skip + rule.times):
                return rule
        return None

    def fire(self, rule: Rule | None, *kinds: str) -> bool:
        """Whether this call is to be spoilt in this way now."""
        if rule is None or rule.kind not in kinds:
            return False
        with self._lock:
            self._met[rule] += 1
            met = self._met[rule] - rule.skip
            fires = met > 0 and (rule.times is None or met <= rule.times)
            if fires:
                self.fired.append(rule)
            return fires


Spoil = Callable[[Reply], Reply | None]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: Proxy

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def setup(self) -> None:
        super().setup()
        self._server = http.client.HTTPConnection(self.proxy.upstream, timeout=120)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client does not wait for the answer
            super().handle()

    def finish(self) -> None:
        self._server.close()
        super().finish()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call, name = self._what()
        rule, fire = self.proxy.rule_for(call, name), self.proxy.fire
        if rule is not None and fire(rule, *REFUSALS):
            self._send(_refusal(*REFUSALS[rule.kind]))
        elif fire(rule, "reset"):
            self._reset()
        else:
            if fire(rule, "latency"):
                time.sleep(LATENCY)
            self._answer(rule, call, name, body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def _what(self) -> tuple[str, str]:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if "list-type" in query:
            return "list", query.get("prefix", [""])[0].partition("/")[2]
        return self.command.lower(), "/".join(unquote(parts.path).split("/")[3:])  # without bucket and place

    def _answer(self, rule: Rule | None, call: str, name: str, body: bytes) -> None:
        reply, fire = self._forward(body), self.proxy.fire
        possible = {kind: spoilt for kind in SPOILT if (spoilt := SPOILT[kind](reply)) is not None}
        self.proxy.seen.append((call, name, frozenset(possible)))
        if fire(rule, "reset after"):
            self._reset()
        elif fire(rule, "timeout after"):
            self._wait_for_the_client_to_leave()
        elif fire(rule, "500 after"):
            self._send(_refusal(*REFUSALS["500"]))
        elif fire(rule, "duplicate"):
            self._send(self._forward(body))
        elif rule is not None and rule.kind in possible and fire(rule, *SPOILT):
            self._send(possible[rule.kind])
        else:
            self._send(reply)

    def _forward(self, body: bytes) -> Reply:
        headers = [(n, v) for n, v in self.headers.items() if n.lower() not in _HOP]
        for attempt in (1, 2):
            try:
                self._server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for n, v in headers:
                    self._server.putheader(n, v)
                self._server.endheaders(body or None)
                came = self._server.getresponse()
                break
            except (http.client.BadStatusLine, ConnectionError):  # the server closed a kept connection
                self._server.close()
                if attempt == 2:
                    raise
        kept = {n: v for n, v in came.getheaders() if n.lower() not in (*_HOP, "content-length")}
        length = came.getheader("Content-Length")
        return Reply(came.status, kept, came.read(), int(length) if self.command == "HEAD" and length else None)

    def _send(self, reply: Reply) -> None:
        self.send_response_only(reply.status)
        for n, v in reply.headers.items():
            self.send_header(n, v)
        stated = len(reply.body) if reply.length is None else reply.length
        if reply.status != 204:
            self.send_header("Content-Length", str(stated))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)
            self.close_connection |= stated != len(reply.body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def _wait_for_the_client_to_leave(self) -> None:
        self.connection.settimeout(60)
        with contextlib.suppress(OSError):
            self.connection.recv(1)
        self.close_connection = True


def _refusal(status: int, code: str) -> Reply:
    text = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>"
    return Reply(status, {"Content-Type": "application/xml"}, text.encode())


# -- replies that are not what they should be; None: there is nothing to spoil ----------------------------------------


def _truncated(reply: Reply) -> Reply | None:
    if reply.status not in (200, 206) or len(reply.body) < 2:
        return None
    return replace(reply, body=reply.body[: len(reply.body) // 2], length=len(reply.body))


def _range(reply: Reply) -> tuple[int, int, int] | None:
    """First and last byte, and size of the object."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", reply.headers.get("Content-Range", ""))
    if found is None or len(reply.body) < 2:
        return None
    first, last, size = map(int, found.groups())
    return first, last, size


def _with_range(reply: Reply, body: bytes, first: int, size: int) -> Reply:
    stated = f"bytes {first}-{first + len(body) - 1}/{size}"
    return replace(reply, body=body, headers={**reply.headers, "Content-Range": stated})


def _short_range(reply: Reply) -> Reply | None:
    """Only the first half, and it says so."""
    stated = _range(reply)
    return None if stated is None else _with_range(reply, reply.body[: len(reply.body) // 2], stated[0], stated[2])


def _wrong_range(reply: Reply) -> Reply | None:
    """Another one, and it says so."""
    stated = _range(reply)
    return None if stated is None else _with_range(reply, reply.body, stated[0] + 1, stated[2] + 1)


def _lying_range(reply: Reply) -> Reply | None:
    """Another one that calls itself what was asked for."""
    moved = reply.body[1:] + reply.body[:1]
    return None if _range(reply) is None or moved == reply.body else replace(reply, body=moved)


def _cut_listing(reply: Reply) -> Reply | None:
    """A page that says it is the last, and is not."""
    text, found = re.subn("<IsTruncated>true</IsTruncated>", "<IsTruncated>false</IsTruncated>", reply.body.decode())
    text = re.sub("<NextContinuationToken>.*?</NextContinuationToken>", "", text, flags=re.DOTALL)
    return replace(reply, body=text.encode()) if found else None


def _omitted_page(reply: Reply) -> Reply | None:
    """A page without names; what comes after it comes."""
    text, found = re.subn("<Contents>.*?</Contents>", "", reply.body.decode(), flags=re.DOTALL)
    text = re.sub(r"<KeyCount>\d+</KeyCount>", "<KeyCount>0</KeyCount>", text)
    return replace(reply, body=text.encode()) if found else None


def _of_listings(spoil: Spoil) -> Spoil:
    return lambda reply: spoil(reply) if b"<ListBucketResult" in reply.body[:200] else None


SPOILT: dict[str, Spoil] = {
    "truncated": _truncated, "short range": _short_range, "wrong range": _wrong_range, "lying range": _lying_range,
    "cut listing": _of_listings(_cut_listing), "omitted page": _of_listings(_omitted_page),
}  # fmt: skip


@contextlib.contextmanager
def serve(place: Place) -> Iterator[Proxy]:
    """A proxy in front of the server of this place."""
    proxy = Proxy(urlsplit(place[1]["client_kwargs"]["endpoint_url"]).netloc)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    proxy.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
