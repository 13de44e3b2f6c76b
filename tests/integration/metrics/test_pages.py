"""Pages over a real socket: accepted and refused requests; no client delays another."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

import pytest
from structlog.testing import capture_logs

from bridge.metrics import pages
from bridge.metrics.pages import MAX_HEAD, MOST_CLIENTS, TEXT, Page, serve
from bridge.runtime.address import Address
from tests.support.eventually import eventually_async


class Numbered:
    """Pages of which `/never` never completes and `/broken` raises."""

    paths: Sequence[str] = ("/one", "/never", "/later", "/broken")

    def __init__(self) -> None:
        self.later = asyncio.Event()

    async def page(self, path: str) -> Page:
        if path == "/later":
            await self.later.wait()
        if path == "/never":
            await asyncio.Event().wait()
        if path == "/broken":
            raise KeyError("a secret")
        return Page(HTTPStatus.OK, TEXT, b"1\n")


@asynccontextmanager
async def served(numbered: Numbered | None = None) -> AsyncIterator[int]:
    """Serve `numbered`; the port."""
    with capture_logs() as logged:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(serve(Address("127.0.0.1", 0), numbered or Numbered()))
            await eventually_async(lambda: logged, "the server listens")
            yield int(logged[0]["address"].rpartition(":")[2])
            task.cancel()


async def ask(port: int, request: bytes) -> bytes:
    """Send a request; the whole reply, empty if the server closed the connection without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        await end(writer)


async def end(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def _is_empty(answer: Awaitable[bytes]) -> bool:
    return await answer == b""


async def _is_page(answer: Awaitable[bytes]) -> bool:
    return (await answer).startswith(b"HTTP/1.1 200")


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_a_page_is_served_its_head_has_no_body_and_the_query_is_ignored() -> None:
    async with served() as port:
        head, _, body = (await ask(port, get("/one?x=1"))).partition(b"\r\n\r\n")
        only_head = await ask(port, get("/one", "HEAD"))

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 2\r\n" in head
    assert body == b"1\n"
    assert only_head == head + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/two"), b"404"),
        (get("/one/../one"), b"404"),
        (get("/one", "POST"), b"405"),
        (b"\x16\x03\x01 garbage\r\n\r\n", b"405"),
    ],
)
async def test_anything_else_is_refused(request_: bytes, status: bytes) -> None:
    async with served() as port:
        assert (await ask(port, request_)).startswith(b"HTTP/1.1 " + status)


async def test_request_that_is_too_long_is_cut_off() -> None:
    async with served() as port:
        assert await ask(port, b"GET /" + b"x" * 3 * MAX_HEAD) == b""
        assert (await ask(port, get("/one"))).startswith(b"HTTP/1.1 200")


async def test_client_that_sends_nothing_is_disconnected_and_delays_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages, "REQUEST_S", 0.1)
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        assert (await ask(port, get("/one"))).startswith(b"HTTP/1.1 200")
        assert await reader.read() == b""
        await end(writer)


async def test_clients_beyond_the_limit_are_refused_and_served_later() -> None:
    numbered = Numbered()
    async with served(numbered) as port:
        waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_CLIENTS)]
        for _, writer in waiting:
            writer.write(get("/later"))

        async def answer() -> bytes:
            return await ask(port, get("/one"))

        await eventually_async(lambda: _is_empty(answer()), "the limit of clients is reached")
        numbered.later.set()
        await eventually_async(lambda: _is_page(answer()), "a client is served again")
        for _, writer in waiting:
            await end(writer)


async def test_idle_clients_are_disconnected_for_a_client_with_a_request() -> None:
    """Otherwise idle clients would make a supervisor restart a healthy bridge."""
    async with served() as port:
        waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_CLIENTS)]

        assert (await ask(port, get("/one"))).startswith(b"HTTP/1.1 200")
        assert await waiting[0][0].read() == b""
        for _, writer in waiting:
            await end(writer)


async def test_page_not_rendered_in_time_gets_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages, "PAGE_S", 0.05)
    async with served() as port:
        assert (await ask(port, get("/never"))).startswith(b"HTTP/1.1 503")


async def test_page_that_cannot_be_made_is_logged_without_its_text_and_the_others_are_served() -> (
    None
):
    with capture_logs() as logged:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(serve(Address("127.0.0.1", 0), Numbered()))
            await eventually_async(lambda: logged, "the server listens")
            port = int(logged[0]["address"].rpartition(":")[2])

            assert (await ask(port, get("/broken"))).startswith(b"HTTP/1.1 500")
            assert (await ask(port, get("/one"))).startswith(b"HTTP/1.1 200")
            task.cancel()

    assert logged[1]["event"] == "page_failed"
    assert logged[1]["error"] == "KeyError"
    assert "secret" not in str(logged)


async def test_waiting_clients_do_not_delay_the_end() -> None:
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("/never"))

    with suppress(ConnectionError):  # the server may close or reset the connection
        assert await reader.read() == b""
    await end(writer)


async def test_occupied_address_is_reported_once_and_used_when_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages, "AGAIN_S", 0.02)
    with socket.socket() as taken, capture_logs() as logged:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(serve(Address("127.0.0.1", port), Numbered()))
            await eventually_async(lambda: logged, "the occupied address is reported")
            await asyncio.sleep(0.1)  # time for several attempts
            assert [each["event"] for each in logged] == ["metrics_not_served"]
            assert "in use" in logged[0]["reason"]
            taken.close()
            await eventually_async(lambda: len(logged) > 1, "the server listens")
            assert (await ask(port, get("/one"))).startswith(b"HTTP/1.1 200")
            task.cancel()
