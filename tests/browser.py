"""A real Chromium without a window, driven over its own protocol by a pipe."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

COMMANDS = ("chromium-headless-shell", "chromium", "google-chrome")  # tests/setup installs the first
OPTIONS = (
    "--headless", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-dev-shm-usage", "--force-color-profile=srgb", "--lang=en",
)  # fmt: skip


class Browser:
    """One page in one process.  What it asked for of the network, and said on its console, is kept."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = send, receive
        self._buffer, self._number, self._session = b"", 0, ""
        self.requests: list[str] = []
        self.blocked: list[str] = []  # of them, by the page's own policy
        self._urls = dict[str, str]()
        self.console: list[str] = []
        self._events: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                return dict(found["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._receive, 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        found = dict(json.loads(message))
        self._keep(found.get("method", ""), found.get("params", {}))
        return found

    def _keep(self, method: str, event: dict[str, Any]) -> None:
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self._urls[event["requestId"]] = event["request"]["url"]
            self.requests.append(event["request"]["url"])
        elif method == "Network.loadingFailed" and event.get("blockedReason") == "csp":
            self.blocked.append(self._urls[event["requestId"]])
        elif method == "Log.entryAdded":
            self.console.append(event["entry"]["text"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
            self.console.append(json.dumps(event))

    def open(self, page: Path, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Load a file in a window of this size, and wait until all of it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self._events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._next()

    def run(self, expression: str) -> Any:
        """The value of JavaScript in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key, down and up."""
        event: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def tree(self) -> list[dict[str, Any]]:
        """What a screen reader is told: role, name, and properties of every node that is not ignored."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            {"role": n["role"]["value"], "name": n.get("name", {}).get("value", ""),
             **{p["name"]: p["value"].get("value") for p in n.get("properties", ())}}
            for n in nodes if not n["ignored"]
        ]  # fmt: skip

    def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def pdf(self) -> bytes:
        """The page on paper."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Started, and ended with the block."""
    command = next(found for c in COMMANDS if (found := shutil.which(c)))
    from_test, to_browser = os.pipe()
    from_browser, to_test = os.pipe()

    def place() -> None:  # the protocol is spoken on 3 and 4
        a, b = os.dup(from_test), os.dup(to_test)
        os.dup2(a, 3)
        os.dup2(b, 4)

    process = subprocess.Popen(
        [command, *OPTIONS, f"--user-data-dir={profile}"], preexec_fn=place, close_fds=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(from_test)
    os.close(to_test)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        os.close(to_browser)  # nobody is left who could tell it anything, so it ends
        process.wait(60)
        os.close(from_browser)
