"""The same over TLS, which is how the exchange is really heard: it has goodbyes of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.feed import lane as lane_module
from tests.support import frames
from tests.support.certificates import new_certificates
from tests.support.eventually import eventually_async
from tests.support.hearing_lane import Ears, hearing_lanes
from tests.support.scripted_exchange import Client, ScriptedExchange, scripted_exchange

LIQUIDATIONS, TICKERS = "liquidation", "ticker.BTC_USDC_PERP"
NAMES = [LIQUIDATIONS]
PATIENT = {"ping_interval_s": 20, "ping_timeout_s": 20}  # nothing ends a connection but the test
AT_ONCE = {**PATIENT, "reconnect_initial_s": 30, "reconnect_max_s": 60}


@pytest.fixture
async def exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ScriptedExchange]:
    certificates = new_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    monkeypatch.setattr(lane_module, "GOOD_QUIET_LIFE_S", 0)
    async with scripted_exchange(tls=certificates.server) as scripted:
        yield scripted


async def begun(exchange: ScriptedExchange, ears: Ears) -> Client:
    """The first connection, answered and heard."""
    await eventually_async(lambda: ears.answered, "it is answered")
    exchange.clients[0].send(frames.LIQUIDATION)
    await eventually_async(lambda: ears.waiting(LIQUIDATIONS), "it is heard")
    return exchange.clients[0]


async def is_back(exchange: ScriptedExchange, ears: Ears) -> None:
    await eventually_async(lambda: len(exchange.clients) == 2, "it is connected again")
    await eventually_async(lambda: ears.lanes[0].is_connected, "and heard")


@pytest.mark.parametrize("answers_the_end", [True, False])
async def test_after_a_goodbye_it_is_back_at_once_whether_or_not_tls_is_closed(
    exchange: ScriptedExchange, answers_the_end: bool
) -> None:
    names = [LIQUIDATIONS, TICKERS]  # where something ticks, no ping finds the end early
    async with hearing_lanes(exchange.url, names, **AT_ONCE) as ears:
        client = await begun(exchange, ears)
        client.close()
        if not answers_the_end:
            client.turn_deaf()

        await is_back(exchange, ears)


@pytest.mark.parametrize("how", ["cut", "hang_up"])
async def test_after_an_end_without_goodbye_it_is_back(
    exchange: ScriptedExchange, how: str
) -> None:
    async with hearing_lanes(exchange.url, NAMES, **PATIENT) as ears:
        getattr(await begun(exchange, ears), how)()

        await is_back(exchange, ears)
        await eventually_async(lambda: ears.gaps(LIQUIDATIONS), "what was missed is marked")


async def test_a_socket_that_is_open_and_dead_is_found_and_replaced(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES) as ears:
        (await begun(exchange, ears)).turn_deaf()

        await is_back(exchange, ears)
        assert ears.lanes[0].trouble.endswith("half-open")


async def test_one_that_is_replaced_goes_though_the_exchange_does_not_close_it(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES, **PATIENT) as ears:
        await eventually_async(lambda: ears.answered, "it is answered")
        client = exchange.clients[0]
        client.answers_goodbye = False
        ears.lanes[0].renew("a test")
        await eventually_async(lambda: client.said_goodbye, "it is told goodbye")

        await eventually_async(lambda: exchange.open == exchange.clients[1:], "it is gone")
        assert ears.gaps(LIQUIDATIONS) == []
