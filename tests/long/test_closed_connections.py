"""A closed connection's memory is freed however it ended, without a garbage collection."""

import gc
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.support.certificates import new_certificates
from tests.support.eventually import eventually_async
from tests.support.receiving_session import Subject, receiving_sessions
from tests.support.scripted_exchange import Client, ScriptedExchange, frame, scripted_exchange

LIQUIDATIONS = "liquidation"
RECONNECTS = 100
LIMIT, TOO_BIG = 400_000, 800_000
SETTINGS = {
    "ping_interval_s": 20,
    "ping_timeout_s": 20,
    "reconnect_initial_s": 0.0001,
    "reconnect_max_s": 0.0002,
    "handshakes_per_s": 100_000,
    "max_frame_bytes": LIMIT,
    "compression": True,
}
# Bytes per connection, including the test's exchange, without a garbage collection: reference
# cycles of asyncio and the library. A message is four times as large, a TLS buffer twice.
MOST_BYTES_KEPT = 100_000


def bomb() -> bytes:
    """A small compressed frame that unpacks to more than the size limit of a message."""
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(b" " * TOO_BIG) + packer.flush(zlib.Z_SYNC_FLUSH)
    return b"\xc1" + frame(1, data.removesuffix(b"\x00\x00\xff\xff"))[1:]


BOMB = bomb()
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000


def half_a_message(client: Client) -> None:
    client.raw(frame(1, b"x" * LIMIT)[:-1])
    client.hang_up()


ENDS: dict[str, Callable[[Client], None]] = {
    "reset": lambda client: client.cut(),
    "goodbye": lambda client: client.close(),
    "half a message": half_a_message,
    "too big": lambda client: client.raw(frame(1, b"x" * TOO_BIG)),
    "protocol error": lambda client: client.raw(b"\xff" * 100_000),
    "bomb": lambda client: client.raw(BOMB),
}


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


async def reconnects(exchange: ScriptedExchange, subject: Subject, count: int) -> None:
    until = subject.session.attempts + count
    await eventually_async(
        lambda: subject.session.attempts >= until, "the session has reconnected", 120
    )
    exchange.clients.clear()
    exchange.attempts.clear()
    subject.sink.records.clear()


async def bytes_kept(exchange: ScriptedExchange) -> float:
    """The bytes that each of RECONNECTS connections leaves, which all end in the same way."""
    with capture_logs() as logged:
        async with receiving_sessions(exchange.url, [LIQUIDATIONS], **SETTINGS) as subject:
            await reconnects(exchange, subject, 10)  # fill what is created once
            objects = len(gc.get_objects())
            with no_garbage_collection():
                tracemalloc.start()
                await reconnects(exchange, subject, RECONNECTS)
                logged.clear()
                kept, _ = tracemalloc.get_traced_memory()
                tracemalloc.stop()
            # Only garbage is left: no object of the bridge refers to it.
            assert len(gc.get_objects()) - objects < RECONNECTS
    return kept / RECONNECTS


@pytest.mark.parametrize("how", ENDS)
async def test_connection_that_ended_keeps_no_memory(how: str) -> None:
    async with scripted_exchange(compresses=True) as exchange:
        exchange.greet = lambda client, names: ENDS[how](client)

        assert await bytes_kept(exchange) < MOST_BYTES_KEPT


async def test_connection_whose_handshake_was_refused_keeps_no_memory() -> None:
    async with scripted_exchange() as exchange:
        exchange.handshakes = [REFUSAL] * (2 * RECONNECTS)

        assert await bytes_kept(exchange) < MOST_BYTES_KEPT


@pytest.fixture
async def over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ScriptedExchange]:
    certificates = new_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    async with scripted_exchange(tls=certificates.server, compresses=True) as scripted:
        yield scripted


@pytest.mark.parametrize("how", ["goodbye", "bomb"])
async def test_connection_over_tls_that_ended_keeps_no_memory(
    over_tls: ScriptedExchange, how: str
) -> None:
    over_tls.greet = lambda client, names: ENDS[how](client)

    assert await bytes_kept(over_tls) < MOST_BYTES_KEPT
