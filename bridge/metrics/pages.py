"""A few pages over HTTP, read-only, for monitors and supervisors on this machine or network.

A minimal server: GET and HEAD of exact paths, one request for each connection, and a bound on all
resources that a client can occupy. It knows nothing of the pages' content.
"""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple, Protocol

import structlog

from bridge.runtime.address import Address

log = structlog.get_logger(__name__)

MAX_HEAD = 8 * 1024  # of a request, in bytes
MOST_CLIENTS = 32  # at a time
REQUEST_S = 5.0  # for a client to send its request
PAGE_S = 20.0  # to make a page
REPLY_S = 10.0  # for a client to receive it
AGAIN_S = 5.0  # between two attempts to listen

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
DISCONNECTED = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)


class Page(NamedTuple):
    """One reply."""

    status: HTTPStatus
    kind: str
    body: bytes


class Pages(Protocol):
    """The pages to serve."""

    @property
    def paths(self) -> Sequence[str]:
        """The paths of all pages."""
        ...

    async def page(self, path: str) -> Page:
        """The current page of one of `paths`."""
        ...


async def serve(address: Address, pages: Pages) -> None:
    """Serve the pages until cancelled. Where the address is taken, or not of this machine, that is
    logged once and retried: the process is useful without its pages.
    """
    logged = ""
    while True:
        try:
            async with asyncio.TaskGroup() as tasks:
                await _serve(address, _Clients(pages, tasks))
        except* OSError as group:
            error = group.exceptions[0]
            reason = f"cannot listen on {address}: {getattr(error, 'strerror', '') or error}"
            if reason != logged:
                log.warning("metrics_not_served", reason=reason, again_s=AGAIN_S)
            logged = reason
        await asyncio.sleep(AGAIN_S)


async def _serve(address: Address, clients: "_Clients") -> None:
    """Serve until cancelled. Raises OSError where it cannot listen."""
    server = await asyncio.start_server(
        clients.connected, address.host, address.port, limit=MAX_HEAD
    )
    try:
        host, port = server.sockets[0].getsockname()[:2]
        log.info("metrics_served", address=str(Address(host, port)), paths=list(clients.paths))
        await asyncio.Event().wait()
    finally:
        server.close()  # `serve_forever` would also wait for silent clients


class _Clients:
    """Serves each client in a task of the group."""

    def __init__(self, pages: Pages, tasks: asyncio.TaskGroup) -> None:
        self.paths = pages.paths
        self._pages = pages
        self._tasks = tasks
        self._connected: set[asyncio.StreamWriter] = set()
        self._silent: dict[asyncio.StreamWriter, None] = {}  # without a request yet, by arrival

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Accept a client. At the limit the longest silent one is dropped; else idle clients could
        lock out a supervisor, which would take that for a failure.
        """
        if len(self._connected) >= MOST_CLIENTS and self._silent:
            self._drop(next(iter(self._silent)))
        if len(self._connected) < MOST_CLIENTS:
            self._connected.add(writer)
            self._silent[writer] = None
            self._tasks.create_task(self._serve(reader, writer))
        else:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, from its request to its end."""
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
            self._silent.pop(writer, None)
            method, path = _request(head)
            page = await self._page(method, path)
            writer.write(_reply(page, has_body=method != "HEAD"))
            async with asyncio.timeout(REPLY_S):
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except DISCONNECTED:
            pass  # the client disconnected, is too slow, or does not speak HTTP
        finally:
            self._drop(writer)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._connected.discard(writer)
        self._silent.pop(writer, None)
        writer.transport.abort()

    async def _page(self, method: str, path: str) -> Page:
        if method not in ("GET", "HEAD"):
            return Page(HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"only GET and HEAD\n")
        if path not in self.paths:
            paths = " ".join(self.paths).encode()
            return Page(HTTPStatus.NOT_FOUND, TEXT, b"available: " + paths + b"\n")
        try:
            async with asyncio.timeout(PAGE_S):
                return await self._pages.page(path)
        except TimeoutError:
            body = f"not made within {PAGE_S:g} s\n".encode()
            return Page(HTTPStatus.SERVICE_UNAVAILABLE, TEXT, body)
        except Exception as error:  # noqa: BLE001 - any error: the process continues
            # No traceback: its text may hold data of the account.
            log.warning("page_failed", path=path, error=type(error).__name__)
            return Page(HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, b"failed: see the log\n")


def _request(head: bytes) -> tuple[str, str]:
    """Method and path of a request, without the query; empty where it is invalid."""
    text = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(text) != 3 or not text[2].startswith("HTTP/1."):
        return "", ""
    return text[0], text[1].partition("?")[0]


def _reply(page: Page, *, has_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\n"
        f"Content-Type: {page.kind}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (page.body if has_body else b"")
