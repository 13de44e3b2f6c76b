"""An HTTP server on the loopback that receives alerts, and fails as scripted."""

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Received(NamedTuple):
    """A request: its path, headers and JSON."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class WebhookServer:
    """`then`: the behaviour at the next requests: a status, `hang`, `drip`, `endless`, or `drop`;
    200 by default.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.then: deque[int | str] = deque()
        self.always: int | str = 200
        self.over = threading.Event()

    def next(self) -> int | str:
        return self.then.popleft() if self.then else self.always


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, webhook: WebhookServer) -> None:
        self.webhook = webhook
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors: tests include clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        webhook: WebhookServer = self.server.webhook  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        webhook.received.append(Received(self.path, dict(self.headers.items()), body))
        how = webhook.next()
        if how == "drop":
            self.connection.close()
        elif how == "hang":
            webhook.over.wait()
        elif how == "drip":
            while not webhook.over.wait(0.05):  # a byte every 50 ms, never a complete reply
                self.wfile.write(b"H")
                self.wfile.flush()
        elif how == "endless":
            self.send_response(200)
            self.end_headers()
            while not webhook.over.is_set():
                self.wfile.write(b"x" * 65_536)
        else:
            self.send_response(int(how))
            self.send_header("Content-Length", "0")
            self.send_header("Location", "/elsewhere")
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Suppress the request log."""


@contextmanager
def running_webhook() -> Iterator[tuple[WebhookServer, str]]:
    """Start the server; the server and its base URL."""
    webhook = WebhookServer()
    server = _Server(webhook)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield webhook, f"http://127.0.0.1:{server.server_port}"
    finally:
        webhook.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
