"""Whatever exchange and network do to a connection: it goes on, and says what was missed."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.feed import lane as lane_module
from tests.support import frames
from tests.support.certificates import new_certificates
from tests.support.eventually import eventually_async
from tests.support.hearing_lane import Ears, hearing_lanes, now_us
from tests.support.redis_server import free_port
from tests.support.scripted_exchange import (
    BINARY,
    TEXT,
    Client,
    ScriptedExchange,
    frame,
    scripted_exchange,
)

TRADES, LIQUIDATIONS, TICKERS = "trade.BTC_USDC_PERP", "liquidation", "ticker.BTC_USDC_PERP"
NAMES = [TRADES, LIQUIDATIONS]
PATIENT = {"ping_interval_s": 20, "ping_timeout_s": 20}  # nothing ends a connection but the test


def trade(number: int) -> str:
    message = json.loads(frames.TRADE)
    message["data"] |= {"t": number, "T": now_us(), "E": now_us()}
    return json.dumps(message)


def say_trades(client: Client, first: int, last: int) -> None:
    for number in range(first, last + 1):
        client.send(trade(number))


@pytest.fixture
async def exchange() -> AsyncIterator[ScriptedExchange]:
    async with scripted_exchange() as scripted:
        yield scripted


async def client_of(exchange: ScriptedExchange, number: int = 1) -> Client:
    """The n-th client, once it has subscribed to everything."""
    await eventually_async(
        lambda: (
            len(exchange.clients) >= number
            and set(exchange.clients[number - 1].subscribed) >= set(NAMES)
        ),
        f"client {number} has subscribed",
    )
    return exchange.clients[number - 1]


async def heard(ears: Ears, last: int) -> None:
    await eventually_async(
        lambda: (ears.numbers(TRADES) or [0])[-1] == last, f"trade {last} is heard"
    )


async def test_a_port_that_refuses_is_tried_again_until_it_opens() -> None:
    port = free_port()
    async with hearing_lanes(f"ws://127.0.0.1:{port}", NAMES) as ears:
        await eventually_async(lambda: ears.lanes[0].attempts > 3, "it is tried again")
        assert "Connect call failed" in ears.lanes[0].trouble
        async with scripted_exchange(port) as exchange:
            (await client_of(exchange)).send(trade(1))
            await heard(ears, 1)
        assert ears.lanes[0].status()["trouble"] == ""


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ws://no-such-host.invalid", "gaierror"),
        ("ws://127.0.0.1:1", "Connect call failed"),
    ],
)
async def test_a_name_or_port_that_leads_nowhere_is_said(url: str, reason: str) -> None:
    async with hearing_lanes(url, NAMES) as ears:
        await eventually_async(lambda: reason in ears.lanes[0].trouble, "the reason is told")
        assert not ears.lanes[0].is_connected


async def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    async with (
        scripted_exchange(tls=new_certificates(tmp_path).server) as exchange,
        hearing_lanes(exchange.url, NAMES) as ears,
    ):
        await eventually_async(lambda: ears.lanes[0].attempts > 2, "it is tried again")
        assert "CERTIFICATE_VERIFY_FAILED" in ears.lanes[0].trouble


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_a_refused_handshake_is_not_repeated_before_the_exchange_says(
    exchange: ScriptedExchange, status: str
) -> None:
    refusal = f"HTTP/1.1 {status}\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    exchange.handshakes = [refusal.encode()]
    async with hearing_lanes(exchange.url, NAMES) as ears:
        await eventually_async(lambda: ears.lanes[0].trouble.startswith("refused"), "it is told")
        assert ears.lanes[0].trouble == f"refused with HTTP {status[:3]}, not before 1 s"
        (await client_of(exchange)).send(trade(1))
        await heard(ears, 1)

    assert exchange.attempts[1] - exchange.attempts[0] >= 0.99


async def test_while_one_connection_is_told_to_wait_no_other_tries(
    exchange: ScriptedExchange,
) -> None:
    refusal = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    exchange.handshakes = [refusal]
    async with hearing_lanes(exchange.url, NAMES, count=2) as ears:
        await eventually_async(
            lambda: any(lane.trouble.startswith("refused") for lane in ears.lanes), "it is told"
        )
        await eventually_async(lambda: exchange.clients, "the other was let in before")
        exchange.clients[0].cut()
        await eventually_async(lambda: len(exchange.attempts) == 4, "both try again")

    told_s, _, *again = sorted(exchange.attempts)
    assert min(again) - told_s >= 0.99


async def test_refusals_without_a_time_are_repeated_later_and_later(
    exchange: ScriptedExchange,
) -> None:
    refusal = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
    exchange.handshakes = [refusal] * 6
    async with hearing_lanes(
        exchange.url, NAMES, reconnect_initial_s=0.05, reconnect_max_s=0.4
    ) as ears:
        (await client_of(exchange)).send(trade(1))
        await heard(ears, 1)

    pauses = [later - earlier for earlier, later in pairwise(exchange.attempts)]
    assert pauses[0] < 0.2 < pauses[-1]  # between 0.025 and 0.05 at first, 0.2 and 0.4 at last


async def test_what_passes_while_a_connection_is_reset_is_marked(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES) as ears:
        client = await client_of(exchange)
        say_trades(client, 1, 20)
        await heard(ears, 20)
        client.cut()

        (await client_of(exchange, 2)).send(trade(23))
        await heard(ears, 23)
        await eventually_async(lambda: ears.gaps(LIQUIDATIONS), "the deaf interval is marked")

        assert ears.gaps(LIQUIDATIONS) == ["connection lost"]
        assert ears.intake.lines[TRADES].pending[-1].cause == "connection lost"


async def test_after_a_goodbye_it_is_back_at_once(
    exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "GOOD_LIFE_S", 0)
    async with hearing_lanes(
        exchange.url, NAMES, reconnect_initial_s=30, reconnect_max_s=60
    ) as ears:
        client = await client_of(exchange)
        say_trades(client, 1, 20)
        client.close()

        (await client_of(exchange, 2)).send(trade(21))
        await heard(ears, 21)

        assert ears.numbers(TRADES) == list(range(1, 22))


async def test_after_a_goodbye_on_a_connection_that_was_quiet_for_long_it_is_back_at_once(
    exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "GOOD_QUIET_LIFE_S", 0)
    async with hearing_lanes(
        exchange.url, [LIQUIDATIONS], **PATIENT, reconnect_initial_s=30, reconnect_max_s=60
    ) as ears:
        await eventually_async(lambda: ears.answered, "it is answered")
        exchange.clients[0].close()

        await eventually_async(lambda: len(exchange.clients) == 2, "it is connected again")


async def test_an_exchange_that_greets_and_hangs_up_is_called_later_and_later(
    exchange: ScriptedExchange,
) -> None:
    def hang_up(client: Client, names: Iterable[str]) -> None:
        say_trades(client, 1, 20)
        client.close()

    exchange.greet = hang_up
    with capture_logs() as said:
        async with hearing_lanes(
            exchange.url, [TRADES], reconnect_initial_s=0.02, reconnect_max_s=10
        ):
            await eventually_async(lambda: len(pauses(said)) >= 5, "it is called again and again")

    for number, pause_s in enumerate(pauses(said)[:5]):
        assert 0.01 * 2**number <= pause_s <= 0.02 * 2**number


async def test_after_a_replacement_took_over_pauses_begin_small_again(
    exchange: ScriptedExchange,
) -> None:
    exchange.handshakes = [b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"] * 6
    with capture_logs() as said:
        async with hearing_lanes(
            exchange.url, [LIQUIDATIONS], **PATIENT, reconnect_initial_s=0.02, reconnect_max_s=100
        ) as ears:
            await eventually_async(lambda: ears.answered, "it is connected and answered")
            ears.lanes[0].renew("a test")
            await eventually_async(
                lambda: any(each["event"] == "feed_replaced" for each in said), "it is replaced"
            )
            exchange.open[0].cut()
            await eventually_async(lambda: len(exchange.clients) == 3, "it is connected again")

    assert pauses(said)[-1] <= 0.02


def pauses(said: Iterable[Mapping[str, Any]]) -> list[float]:
    """Those before each attempt to connect again, as the log has them."""
    return [each["reconnect_s"] for each in said if each["event"] == "feed_lost"]


async def test_a_replacement_that_ends_while_the_old_one_says_goodbye_is_made_again(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, [LIQUIDATIONS], **PATIENT) as ears:
        lane = ears.lanes[0]
        await eventually_async(lambda: ears.answered, "it is answered")
        old = exchange.clients[0]
        old.answers_goodbye = False  # so that the goodbye takes its time
        lane.renew("a test")
        await eventually_async(lambda: old.said_goodbye, "the old one is told goodbye")
        exchange.clients[1].cut()

        await eventually_async(lambda: len(exchange.clients) == 3, "it is connected again")
        await eventually_async(lambda: lane.is_connected, "and the lane says so")


async def test_after_a_goodbye_to_the_old_one_and_its_replacement_it_is_back_at_once(
    exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "GOOD_LIFE_S", 0)
    exchange.greet = lambda client, _: say_trades(client, 1, 20)
    async with hearing_lanes(
        exchange.url, NAMES, **PATIENT, reconnect_initial_s=30, reconnect_max_s=60
    ) as ears:
        lane = ears.lanes[0]
        await client_of(exchange)
        await heard(ears, 20)
        lane.renew("a test")
        await client_of(exchange, 2)
        await eventually_async(
            lambda: len(ears.answered) == 4, "the new one is answered, behind all it brought"
        )
        for client in exchange.clients:
            client.close()

        await client_of(exchange, 3)


async def test_one_that_waits_to_be_replaced_is_not_asked_without_end(
    exchange: ScriptedExchange,
) -> None:
    def tick() -> str:
        message = json.loads(frames.TICKER)
        message["data"]["E"] = now_us()
        return json.dumps(message)

    exchange.greet = lambda client, _: client.send(tick())
    async with hearing_lanes(exchange.url, [TICKERS], **PATIENT) as ears:
        await eventually_async(lambda: ears.answered, "it is answered")
        old = exchange.clients[0]
        old.send(tick())
        ears.lanes[0].renew("a test")
        await eventually_async(lambda: len(ears.answered) == 2, "the new one is answered")
        exchange.clients[1].send(tick())  # which the old one, being stuck, never brings
        asked = len(old.pings)
        await eventually_async(lambda: len(old.pings) >= asked + 6, "the old one is asked")

        first, *_, last = old.pings[asked : asked + 6]
        assert last - first > 0.5  # five times a second, not as fast as it answers
        assert not old.said_goodbye


async def test_a_socket_that_is_open_and_dead_is_found_and_replaced(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES) as ears:
        client = await client_of(exchange)
        say_trades(client, 1, 20)
        await heard(ears, 20)
        exchange.answers_pings = False
        asleep_s = asyncio.get_running_loop().time()

        await eventually_async(lambda: client.is_gone, "it is given up")
        exchange.answers_pings = True
        (await client_of(exchange, 2)).send(trade(21))
        await heard(ears, 21)

        # ping_interval_s and up to a quarter of it, then ping_timeout_s: 0.9 s here
        assert asyncio.get_running_loop().time() - asleep_s < 5
        assert ears.lanes[0].trouble.endswith("half-open")


async def test_a_server_that_never_pongs_but_speaks_is_heard(exchange: ScriptedExchange) -> None:
    exchange.answers_pings = False
    async with hearing_lanes(exchange.url, NAMES) as ears:
        client = await client_of(exchange)
        for number in range(1, 31):
            client.send(trade(number))
            await asyncio.sleep(0.05)  # the pace of a market, for longer than a dead socket lives
        await heard(ears, 30)

        assert len(exchange.clients) == 1
        assert set(ears.answered) == set(NAMES)  # so much time has passed that it must have them


async def test_a_quiet_connection_that_answers_lives(exchange: ScriptedExchange) -> None:
    async with hearing_lanes(exchange.url, NAMES) as ears:
        client = await client_of(exchange)
        await eventually_async(lambda: ears.answered, "it is answered")
        first_us = ears.intake.deafness.heard_up_to_us()[LIQUIDATIONS]

        await eventually_async(
            lambda: ears.intake.deafness.heard_up_to_us()[LIQUIDATIONS] > first_us,
            "its answers prove that nothing was said",
        )
        assert exchange.open == [client]


async def test_rubbish_is_set_aside_whole_and_what_follows_is_heard(
    exchange: ScriptedExchange,
) -> None:
    deep = b'{"stream":"' + TRADES.encode() + b'","data":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    rubbish = [
        (b"rubbish", TEXT),
        (b"\x00\x01\x02", BINARY),
        (b'{"stream":"trade.\xff"', TEXT),
        (deep, TEXT),
        (b'{"stream":"' + TRADES.encode() + b'","data":{"e":"trade"}}', TEXT),
        (b'["an", "array"]', TEXT),
        (b"", TEXT),
    ]
    async with hearing_lanes(exchange.url, NAMES) as ears:
        client = await client_of(exchange)
        client.send(trade(1))
        for body, opcode in rubbish:
            client.send(body, opcode)
        client.send(trade(2).encode(), BINARY)
        await heard(ears, 2)

        assert ears.numbers(TRADES) == [1, 2]
        assert len(ears.quarantined()) == len(rubbish)
        assert len(exchange.clients) == 1


async def test_a_giant_frame_ends_the_connection_not_the_hearing(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES, max_frame_bytes=100_000) as ears:
        client = await client_of(exchange)
        client.send(trade(1))
        await heard(ears, 1)
        client.send(b"[" + b" " * 200_000 + b"]")

        (await client_of(exchange, 2)).send(trade(2))
        await heard(ears, 2)

        assert "1009" in ears.lanes[0].trouble


async def test_frames_that_break_the_protocol_end_the_connection_not_the_hearing(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES) as ears:
        client = await client_of(exchange)
        client.raw(b"\xff\xff\xff\xff")

        (await client_of(exchange, 2)).send(trade(1))
        await heard(ears, 1)


async def test_a_frame_that_trickles_in_is_one(exchange: ScriptedExchange) -> None:
    async with hearing_lanes(exchange.url, NAMES) as ears:
        client = await client_of(exchange)
        for byte in frame(TEXT, trade(1).encode()):
            client.raw(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0)
        await heard(ears, 1)

        assert len(exchange.clients) == 1


async def test_a_flood_is_heard_to_its_end_and_in_order(exchange: ScriptedExchange) -> None:
    async with hearing_lanes(exchange.url, NAMES) as ears:
        client = await client_of(exchange)
        for first in range(1, 20_001, 500):
            say_trades(client, first, first + 499)
            await client.writer.drain()
        await heard(ears, 20_000)

        assert ears.numbers(TRADES) == list(range(1, 20_001))


async def test_nothing_but_rubbish_is_not_listened_to_for_ever(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES) as ears:
        client = await client_of(exchange)
        for _ in range(1500):
            client.send("rubbish")

        (await client_of(exchange, 2)).send(trade(1))
        await heard(ears, 1)

        assert ears.lanes[0].trouble == "it brings nothing but rubbish"


async def test_a_storm_of_resets_does_not_hammer_the_exchange(
    exchange: ScriptedExchange,
) -> None:
    def cut(client: Client, names: Iterable[str]) -> None:
        client.cut()

    exchange.greet = cut
    async with hearing_lanes(
        exchange.url, NAMES, count=6, handshakes_per_s=10, reconnect_max_s=0.02
    ):
        await eventually_async(lambda: len(exchange.attempts) >= 20, "they come again and again")
    took_s = exchange.attempts[19] - exchange.attempts[0]

    assert took_s >= (20 - 8) / 10 * 0.95  # eight at once, then ten a second, over all lanes


async def test_a_stream_that_is_refused_is_told_and_the_rest_goes_on(
    exchange: ScriptedExchange,
) -> None:
    refused = "stockPrice.NVDA"

    def greet(client: Client, names: Iterable[str]) -> None:
        if refused in names:
            client.send(frames.ERROR_INVALID_STREAM)

    exchange.greet = greet
    async with hearing_lanes(exchange.url, [*NAMES, refused, "stockPrice.AAPL"]) as ears:
        client = await client_of(exchange)
        client.send(trade(1))
        await eventually_async(lambda: ears.rejected, "it is refused")
        client.send(trade(2))
        await heard(ears, 2)
        status = ears.lanes[0].status()

        assert ears.rejected == [(refused, 4006)]
        assert status["refused"] == {refused: "the exchange does not know this stream type"}
        assert set(status["pending"]) == {LIQUIDATIONS, "stockPrice.AAPL"}
        assert len(exchange.clients) == 1


async def test_an_error_that_means_nothing_to_us_disturbs_nothing(
    exchange: ScriptedExchange,
) -> None:
    async with hearing_lanes(exchange.url, NAMES) as ears:
        client = await client_of(exchange)
        client.send('{"id":null,"error":{"code":4999,"message":"?"}}')
        client.send('{"id":null,"error":"what"}')
        client.send('{"result":null,"id":1}')
        client.send(trade(1))
        await heard(ears, 1)

        assert len(exchange.clients) == 1
