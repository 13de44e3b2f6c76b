"""A headless Chromium, driven by its DevTools protocol: for the pictures in these documents, and
for the tests of the console. Needs Debian's `chromium`, or another one of the path.
"""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
START_S = 60.0
ANSWER_S = 60.0


def find() -> str | None:
    """The browser's path, where there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Failed(Exception):
    """A command of the protocol failed; the message is the browser's answer."""


class Page:
    """One tab. `errors`: of its scripts, and of what it refused to load, oldest first."""

    def __init__(self, connection: ClientConnection) -> None:
        self.errors: list[str] = []
        self._connection = connection
        self._numbers = itertools.count(1)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        """One command of the protocol, and its result. Raises Failed."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": given}))
        while True:
            message = json.loads(self._connection.recv(ANSWER_S))
            self._note(message)
            if message.get("id") == number:
                if "error" in message:
                    raise Failed(f"{method}: {message['error']['message']}")
                result: dict[str, Any] = message["result"]
                return result

    def open(self, url: str) -> None:
        """Go there, and wait until the page is loaded."""
        answer = self.ask("Page.navigate", url=url)
        if answer.get("errorText"):
            raise Failed(f"{url}: {answer['errorText']}")
        self.until("document.readyState === 'complete'")

    def run(self, source: str) -> Any:
        """The value of an expression; of a promise, what it comes to. Raises Failed."""
        answer = self.ask(
            "Runtime.evaluate", expression=source, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise Failed(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def until(self, fact: str, limit_s: float = 30.0) -> None:
        """Wait until an expression is true. Raises Failed."""
        deadline_s = time.monotonic() + limit_s
        while not self.run(f"Boolean({fact})"):
            if time.monotonic() > deadline_s:
                raise Failed(f"not within {limit_s:g} s: {fact}; errors: {self.errors}")
            time.sleep(0.05)  # between two polls

    def size(self, width: int, height: int, scale: float = 1) -> None:
        """The window's size in CSS pixels, and how many dots one has."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def prefers(self, **features: str) -> None:
        """Media features, `prefers_color_scheme="dark"` say."""
        values = [{"name": n.replace("_", "-"), "value": v} for n, v in features.items()]
        self.ask("Emulation.setEmulatedMedia", features=values)

    def press(self, key: str) -> None:
        """One key, with its text where it is a character."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = {"Tab": 9, "Enter": 13, "Escape": 27, "End": 35}.get(key, 0)
        about = {"key": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    def picture(self, path: Path) -> None:
        """Write a screenshot as PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        given = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = given["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if given["entry"]["level"] == "error":
                entry = given["entry"]
                self.errors.append(f"{entry['text']} {entry.get('url', '')}")


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """A browser with an empty tab; gone at the end. Raises Failed where there is none."""
    binary = find()
    if binary is None:
        raise Failed(f"no browser here: none of {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as folder:
        options = [
            "--headless=new",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            "--no-first-run",
            "--no-default-browser-check",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--disable-background-networking",
            "--hide-scrollbars",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ]
        process = subprocess.Popen(
            [binary, *options, "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": folder},
        )
        try:
            address = _address(Path(folder), process)
            # no pings of its own: a browser at work may answer late
            with connect(address, max_size=None, proxy=None, ping_interval=None) as connection:
                yield Page(connection)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    """The web socket of the first tab."""
    import httpx2

    deadline_s = time.monotonic() + START_S
    port_file = folder / "DevToolsActivePort"
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, LookupError, httpx2.HTTPError, StopIteration):
            port = int(port_file.read_text().splitlines()[0])
            tabs = httpx2.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
            return next(str(t["webSocketDebuggerUrl"]) for t in tabs if t["type"] == "page")
        time.sleep(0.05)  # between two polls
    raise Failed("the browser did not start")
