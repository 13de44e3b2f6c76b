"""Session faults over TLS, as with the real exchange: TLS has its own closing messages."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.feed import session as session_module
from tests.support import frames
from tests.support.certificates import new_certificates
from tests.support.eventually import eventually_async
from tests.support.receiving_session import Subject, receiving_sessions
from tests.support.scripted_exchange import Client, ScriptedExchange, scripted_exchange

LIQUIDATIONS, TICKERS = "liquidation", "ticker.BTC_USDC_PERP"
NAMES = [LIQUIDATIONS]
PATIENT = {"ping_interval_s": 20, "ping_timeout_s": 20}  # only the test ends a connection
AT_ONCE = {**PATIENT, "reconnect_initial_s": 30, "reconnect_max_s": 60}


@pytest.fixture
async def exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ScriptedExchange]:
    certificates = new_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    monkeypatch.setattr(session_module, "GOOD_QUIET_LIFE_S", 0)
    async with scripted_exchange(tls=certificates.server) as scripted:
        yield scripted


async def begun(exchange: ScriptedExchange, subject: Subject) -> Client:
    """The first client, once its ping is answered and it has received a message."""
    await eventually_async(lambda: subject.granted, "the subscription is granted")
    exchange.clients[0].send(frames.LIQUIDATION)
    await eventually_async(lambda: subject.sink.messages(LIQUIDATIONS), "a message is received")
    return exchange.clients[0]


async def is_back(exchange: ScriptedExchange, subject: Subject) -> None:
    await eventually_async(lambda: len(exchange.clients) == 2, "the session has connected again")
    await eventually_async(
        lambda: subject.session.is_connected, "the session reports that it is connected"
    )


@pytest.mark.parametrize("answers_the_end", [True, False])
async def test_session_reconnects_at_once_after_a_goodbye_with_or_without_tls_shutdown(
    exchange: ScriptedExchange, answers_the_end: bool
) -> None:
    names = [LIQUIDATIONS, TICKERS]  # with a periodic stream no early ping finds the end
    async with receiving_sessions(exchange.url, names, **AT_ONCE) as subject:
        client = await begun(exchange, subject)
        client.close()
        if not answers_the_end:
            client.turn_deaf()

        await is_back(exchange, subject)


@pytest.mark.parametrize("how", ["cut", "hang_up"])
async def test_session_reconnects_after_an_end_without_goodbye(
    exchange: ScriptedExchange, how: str
) -> None:
    async with receiving_sessions(exchange.url, NAMES, **PATIENT) as subject:
        getattr(await begun(exchange, subject), how)()

        await is_back(exchange, subject)
        await eventually_async(lambda: subject.sink.causes(LIQUIDATIONS), "the outage is over")


async def test_half_open_socket_over_tls_is_found_and_replaced(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES) as subject:
        (await begun(exchange, subject)).turn_deaf()

        await is_back(exchange, subject)
        assert subject.session.trouble.endswith("half-open")


async def test_replaced_connection_ends_though_the_exchange_does_not_close_it(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES, **PATIENT) as subject:
        await eventually_async(lambda: subject.granted, "the subscription is granted")
        client = exchange.clients[0]
        client.answers_goodbye = False
        subject.session.replace("a test")
        await eventually_async(lambda: client.said_goodbye, "the old connection gets a close frame")

        await eventually_async(
            lambda: exchange.open == exchange.clients[1:], "the old connection is closed"
        )
        assert subject.sink.causes(LIQUIDATIONS) == []
