"""Faults of the exchange and the network: the session continues, and each outage is recorded."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.contract.causes import GapCause
from bridge.core.counters import EndCause
from bridge.core.records import Answered, Lost
from bridge.feed import session as session_module
from tests.support import frames
from tests.support.certificates import new_certificates
from tests.support.eventually import eventually_async
from tests.support.receiving_session import Subject, now_us, receiving_sessions
from tests.support.redis_server import free_port
from tests.support.scripted_exchange import (
    BINARY,
    PING,
    TEXT,
    Client,
    ScriptedExchange,
    frame,
    scripted_exchange,
)

TRADES, LIQUIDATIONS, TICKERS = "trade.BTC_USDC_PERP", "liquidation", "ticker.BTC_USDC_PERP"
NAMES = [TRADES, LIQUIDATIONS]
PATIENT = {"ping_interval_s": 20, "ping_timeout_s": 20}  # only the test ends a connection


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
    """The n-th client, once it has subscribed to all of NAMES."""
    await eventually_async(
        lambda: (
            len(exchange.clients) >= number
            and set(exchange.clients[number - 1].subscribed) >= set(NAMES)
        ),
        f"client {number} has subscribed",
    )
    return exchange.clients[number - 1]


async def received(subject: Subject, last: int) -> None:
    await eventually_async(
        lambda: (subject.numbers(TRADES) or [0])[-1] == last, f"trade {last} is received"
    )


async def test_session_tries_a_port_that_refuses_until_it_opens() -> None:
    port = free_port()
    async with receiving_sessions(f"ws://127.0.0.1:{port}", NAMES) as subject:
        await eventually_async(lambda: subject.session.attempts > 3, "the session connects again")
        assert "Connect call failed" in subject.session.trouble
        async with scripted_exchange(port) as exchange:
            (await client_of(exchange)).send(trade(1))
            await received(subject, 1)
            await client_of(exchange)  # the first client: no connection ended after it opened
            assert set(subject.connector.ends) == {EndCause.UNREACHABLE}
            assert subject.connector.ends.total() == subject.session.attempts - 1
        assert subject.session.status()["trouble"] == ""


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ws://no-such-host.invalid", "gaierror"),
        ("ws://127.0.0.1:1", "Connect call failed"),
    ],
)
async def test_session_reports_why_a_name_or_port_is_unreachable(url: str, reason: str) -> None:
    async with receiving_sessions(url, NAMES) as subject:
        await eventually_async(lambda: reason in subject.session.trouble, "the reason is reported")
        assert not subject.session.is_connected


async def test_session_refuses_a_certificate_of_an_unknown_authority(tmp_path: Path) -> None:
    async with (
        scripted_exchange(tls=new_certificates(tmp_path).server) as exchange,
        receiving_sessions(exchange.url, NAMES) as subject,
    ):
        await eventually_async(lambda: subject.session.attempts > 2, "the session connects again")
        assert "CERTIFICATE_VERIFY_FAILED" in subject.session.trouble


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_refused_handshake_is_not_repeated_before_the_time_that_the_exchange_gives(
    exchange: ScriptedExchange, status: str
) -> None:
    refusal = f"HTTP/1.1 {status}\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    exchange.handshakes = [refusal.encode()]
    async with receiving_sessions(exchange.url, NAMES) as subject:
        await eventually_async(
            lambda: subject.session.trouble.startswith("refused"), "the refusal is reported"
        )
        assert subject.session.trouble == f"refused with HTTP {status[:3]}, not before 1 s"
        (await client_of(exchange)).send(trade(1))
        await received(subject, 1)

    assert exchange.attempts[1] - exchange.attempts[0] >= 0.99


def redirect(url: str) -> bytes:
    head = f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n"
    return head.encode()


async def test_redirect_to_another_host_or_port_is_not_followed(
    exchange: ScriptedExchange,
) -> None:
    async with scripted_exchange() as other:
        exchange.handshakes = [redirect(other.url)]
        async with receiving_sessions(exchange.url, NAMES) as subject:
            await client_of(exchange)
            assert other.attempts == []
            assert subject.session.trouble == (
                f"refused with HTTP 302, a redirect to 127.0.0.1:{other.port}: not followed"
            )


async def test_redirect_to_another_path_of_the_same_host_is_followed(
    exchange: ScriptedExchange,
) -> None:
    exchange.handshakes = [redirect("/elsewhere")]
    async with receiving_sessions(exchange.url, NAMES) as subject:
        await client_of(exchange)

        assert subject.session.attempts == 1
        assert len(exchange.attempts) == 2


async def test_no_session_connects_during_the_wait_of_another(
    exchange: ScriptedExchange,
) -> None:
    refusal = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
    exchange.handshakes = [refusal]
    async with receiving_sessions(exchange.url, NAMES, count=2) as subject:
        await eventually_async(
            lambda: any(session.trouble.startswith("refused") for session in subject.sessions),
            "the refusal is reported",
        )
        await eventually_async(lambda: exchange.clients, "the other session has connected")
        exchange.clients[0].cut()
        await eventually_async(lambda: len(exchange.attempts) == 4, "both sessions connect again")

    told_s, _, *again = sorted(exchange.attempts)
    assert min(again) - told_s >= 0.99


async def test_handshake_refused_without_a_time_gets_longer_pauses(
    exchange: ScriptedExchange,
) -> None:
    refusal = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
    exchange.handshakes = [refusal] * 6
    async with receiving_sessions(
        exchange.url, NAMES, reconnect_initial_s=0.05, reconnect_max_s=0.4
    ) as subject:
        (await client_of(exchange)).send(trade(1))
        await received(subject, 1)

    pauses = [later - earlier for earlier, later in pairwise(exchange.attempts)]
    assert pauses[0] < 0.2 < pauses[-1]  # first 0.025 to 0.05 s, last 0.2 to 0.4 s


async def test_connection_that_is_reset_leaves_an_outage_in_every_stream(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES) as subject:
        client = await client_of(exchange)
        await eventually_async(lambda: subject.granted, "the subscription is granted")
        say_trades(client, 1, 20)
        await received(subject, 20)
        client.cut()

        (await client_of(exchange, 2)).send(trade(23))
        await received(subject, 23)
        await eventually_async(lambda: subject.sink.causes(LIQUIDATIONS), "the outage is over")

        assert subject.sink.causes(LIQUIDATIONS) == [GapCause.CONNECTION_LOST]
        assert subject.sink.causes(TRADES) == [GapCause.CONNECTION_LOST]


async def test_session_reconnects_at_once_after_a_goodbye(
    exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "GOOD_LIFE_S", 0)
    async with receiving_sessions(
        exchange.url, NAMES, reconnect_initial_s=30, reconnect_max_s=60
    ) as subject:
        client = await client_of(exchange)
        say_trades(client, 1, 20)
        client.close()

        (await client_of(exchange, 2)).send(trade(21))
        await received(subject, 21)

        assert subject.numbers(TRADES) == list(range(1, 22))


async def test_session_reconnects_at_once_after_a_goodbye_on_a_quiet_connection(
    exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "GOOD_QUIET_LIFE_S", 0)
    async with receiving_sessions(
        exchange.url, [LIQUIDATIONS], **PATIENT, reconnect_initial_s=30, reconnect_max_s=60
    ) as subject:
        await eventually_async(lambda: subject.granted, "the subscription is granted")
        exchange.clients[0].close()

        await eventually_async(
            lambda: len(exchange.clients) == 2, "the session has connected again"
        )


async def test_exchange_that_closes_at_once_gets_longer_pauses(
    exchange: ScriptedExchange,
) -> None:
    def hang_up(client: Client, names: Iterable[str]) -> None:
        say_trades(client, 1, 20)
        client.close()

    exchange.greet = hang_up
    with capture_logs() as logged:
        async with receiving_sessions(
            exchange.url, [TRADES], reconnect_initial_s=0.02, reconnect_max_s=10
        ):
            await eventually_async(
                lambda: len(pauses(logged)) >= 5, "the session has reconnected 5 times"
            )

    for number, pause_s in enumerate(pauses(logged)[:5]):
        assert 0.01 * 2**number <= pause_s <= 0.02 * 2**number


async def test_pauses_begin_small_again_after_a_replacement_took_over(
    exchange: ScriptedExchange,
) -> None:
    exchange.handshakes = [b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"] * 6
    with capture_logs() as logged:
        async with receiving_sessions(
            exchange.url, [LIQUIDATIONS], **PATIENT, reconnect_initial_s=0.02, reconnect_max_s=100
        ) as subject:
            await eventually_async(lambda: subject.granted, "the subscription is granted")
            subject.session.replace("a test")
            await eventually_async(
                lambda: any(each["event"] == "feed_replaced" for each in logged),
                "the connection is replaced",
            )
            exchange.open[0].cut()
            await eventually_async(
                lambda: len(exchange.clients) == 3, "the session has connected again"
            )

    assert pauses(logged)[-1] <= 0.02


def pauses(logged: Iterable[Mapping[str, Any]]) -> list[float]:
    """The logged pauses before each attempt to reconnect, in seconds."""
    return [each["reconnect_s"] for each in logged if each["event"] == "feed_lost"]


class Clock:
    """The bridge's wall clock, which a test sets."""

    def __init__(self) -> None:
        self.ahead_us = 0

    def __call__(self) -> int:
        return now_us() + self.ahead_us


@pytest.mark.parametrize("step_s", [-90, -4_000, 4_000])
async def test_wall_clock_that_is_set_delays_no_replacement_and_no_reconnect(
    exchange: ScriptedExchange, step_s: int
) -> None:
    clock = Clock()
    async with receiving_sessions(
        exchange.url, [LIQUIDATIONS], clock_us=clock, **PATIENT
    ) as subject:
        await eventually_async(lambda: subject.granted, "the subscription is granted")
        subject.session.replace("a test")
        await eventually_async(
            lambda: len(subject.granted) == 2, "the new connection's subscription is granted"
        )
        clock.ahead_us = step_s * 1_000_000
        await eventually_async(
            lambda: exchange.clients[0].said_goodbye, "the old connection gets a close frame", 5
        )
        exchange.clients[1].cut()
        await eventually_async(
            lambda: len(exchange.clients) == 3, "the session has connected again", 5
        )
        await eventually_async(
            lambda: len(subject.granted) == 3, "the subscription is granted again", 5
        )


async def test_records_that_are_no_frames_are_flushed_at_once(exchange: ScriptedExchange) -> None:
    async with receiving_sessions(exchange.url, [LIQUIDATIONS], **PATIENT) as subject:
        sink = subject.sink
        await eventually_async(lambda: sink.kept(Answered), "the ping is answered")
        assert sink.flushed == len(sink.records)
        exchange.clients[0].cut()
        await eventually_async(lambda: sink.kept(Lost), "the loss is recorded")
        assert sink.flushed == len(sink.records)


async def test_replacement_that_ends_while_the_old_one_is_closed_is_made_again(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, [LIQUIDATIONS], **PATIENT) as subject:
        session = subject.session
        await eventually_async(lambda: subject.granted, "the subscription is granted")
        old = exchange.clients[0]
        old.answers_goodbye = False  # the closing handshake stays unfinished
        session.replace("a test")
        await eventually_async(lambda: old.said_goodbye, "the old connection gets a close frame")
        exchange.clients[1].cut()

        await eventually_async(
            lambda: len(exchange.clients) == 3, "the session has connected again"
        )
        await eventually_async(
            lambda: session.is_connected, "the session reports that it is connected"
        )


async def test_order_to_replace_a_connection_that_is_being_replaced_makes_no_third_one(
    exchange: ScriptedExchange,
) -> None:
    with capture_logs() as logged:
        async with receiving_sessions(exchange.url, [LIQUIDATIONS], **PATIENT) as subject:
            session = subject.session
            await eventually_async(lambda: subject.granted, "the subscription is granted")
            session.replace("one stream is stale")
            await eventually_async(lambda: len(exchange.clients) == 2, "the new one has connected")
            session.replace("another stream is stale")
            await eventually_async(
                lambda: any(each["event"] == "feed_replaced" for each in logged),
                "the connection is replaced",
            )
            await asyncio.sleep(0.5)

            assert len(exchange.clients) == 2
            session.replace("the new one is stale")
            await eventually_async(lambda: len(exchange.clients) == 3, "it is replaced")


async def test_session_reconnects_at_once_after_a_goodbye_to_both_connections(
    exchange: ScriptedExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "GOOD_LIFE_S", 0)
    exchange.greet = lambda client, _: say_trades(client, 1, 20)
    async with receiving_sessions(
        exchange.url, NAMES, **PATIENT, reconnect_initial_s=30, reconnect_max_s=60
    ) as subject:
        session = subject.session
        await client_of(exchange)
        await received(subject, 20)
        session.replace("a test")
        await client_of(exchange, 2)
        await eventually_async(
            lambda: len(subject.granted) == 4, "the new connection's subscriptions are granted"
        )
        for client in exchange.clients:
            client.close()

        await client_of(exchange, 3)


async def test_connection_that_waits_to_be_closed_is_not_probed_without_a_pause(
    exchange: ScriptedExchange,
) -> None:
    def tick() -> str:
        message = json.loads(frames.TICKER)
        message["data"]["E"] = now_us()
        return json.dumps(message)

    exchange.greet = lambda client, _: client.send(tick())
    async with receiving_sessions(exchange.url, [TICKERS], **PATIENT) as subject:
        subject.sink.keeps_open = (
            True  # the old connection stays open: it lacks messages of the new one
        )
        await eventually_async(lambda: subject.granted, "the subscription is granted")
        old = exchange.clients[0]
        old.send(tick())
        subject.session.replace("a test")
        await eventually_async(
            lambda: len(subject.granted) == 2, "the new connection's subscription is granted"
        )
        before = len(old.pings)
        await eventually_async(
            lambda: len(old.pings) >= before + 6, "the old connection gets pings"
        )

        first, *_, last = old.pings[before : before + 6]
        assert last - first > 0.5  # five pings a second, not one per pong
        assert not old.said_goodbye


async def test_half_open_socket_is_found_and_replaced(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES) as subject:
        client = await client_of(exchange)
        say_trades(client, 1, 20)
        await received(subject, 20)
        exchange.answers_pings = False
        asleep_s = asyncio.get_running_loop().time()

        await eventually_async(lambda: client.is_gone, "the connection is closed")
        exchange.answers_pings = True
        (await client_of(exchange, 2)).send(trade(21))
        await received(subject, 21)

        # ping_interval_s and up to a quarter of it, then ping_timeout_s: 0.9 s here
        assert asyncio.get_running_loop().time() - asleep_s < 5
        assert subject.session.trouble.endswith("half-open")


async def test_server_that_never_pongs_but_sends_frames_is_received(
    exchange: ScriptedExchange,
) -> None:
    exchange.answers_pings = False
    async with receiving_sessions(exchange.url, NAMES) as subject:
        client = await client_of(exchange)
        for number in range(1, 31):
            client.send(trade(number))
            await asyncio.sleep(0.05)  # steady frames, for longer than the ping timeout
        await received(subject, 30)

        assert len(exchange.clients) == 1
        assert set(subject.granted) == set(NAMES)  # it inferred both subscriptions


async def test_quiet_connection_with_pongs_stays_open(exchange: ScriptedExchange) -> None:
    async with receiving_sessions(exchange.url, NAMES) as subject:
        client = await client_of(exchange)
        await eventually_async(lambda: subject.granted, "the subscription is granted")
        first_us = subject.sink.kept(Answered)[0].at_us

        await eventually_async(
            lambda: (subject.sink.kept(Answered)[-1].pinged_us or 0) > first_us,
            "a later ping is answered",
        )
        assert exchange.open == [client]


async def test_invalid_messages_reach_the_sink_unchanged_and_later_ones_are_received(
    exchange: ScriptedExchange,
) -> None:
    deep = b'{"stream":"' + TRADES.encode() + b'","data":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    without_fields = b'{"stream":"' + TRADES.encode() + b'","data":{"e":"trade"}}'
    rubbish = [
        (b"rubbish", TEXT),
        (b"\x00\x01\x02", BINARY),
        (b'{"stream":"trade.\xff"', TEXT),
        (deep, TEXT),
        (without_fields, TEXT),
        (b'["an", "array"]', TEXT),
        (b"", TEXT),
    ]
    async with receiving_sessions(exchange.url, NAMES) as subject:
        client = await client_of(exchange)
        client.send(trade(1))
        for body, opcode in rubbish:
            client.send(body, opcode)
        client.send(trade(2).encode(), BINARY)
        await eventually_async(
            lambda: len(subject.sink.messages(TRADES)) == 3, "all trades are received"
        )

        received = subject.sink.messages(TRADES)
        assert [b'"t":' in body.replace(b" ", b"") for body in received] == [True, False, True]
        assert subject.sink.rubbish == [body for body, _ in rubbish if body != without_fields]
        assert len(exchange.clients) == 1


async def test_giant_frame_ends_the_connection_and_not_the_session(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES, max_frame_bytes=100_000) as subject:
        client = await client_of(exchange)
        client.send(trade(1))
        await received(subject, 1)
        client.send(b"[" + b" " * 200_000 + b"]")

        (await client_of(exchange, 2)).send(trade(2))
        await received(subject, 2)

        assert "1009" in subject.session.trouble


async def test_exchange_that_pings_and_never_reads_the_pongs_is_given_up(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES, **PATIENT) as subject:
        client = await client_of(exchange)
        client.turn_deaf()
        pings = frame(PING, b"x" * 125) * 1000
        while not client.is_gone and not subject.session.trouble.startswith("the exchange does"):
            client.raw(pings)
            await asyncio.sleep(0)
        await eventually_async(
            lambda: subject.session.trouble == "the exchange does not read what it is sent",
            "the stalled exchange is reported",
        )
        (await client_of(exchange, 2)).send(trade(1))
        await received(subject, 1)


async def test_frame_that_breaks_the_protocol_ends_the_connection_and_not_the_session(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES) as subject:
        client = await client_of(exchange)
        client.raw(b"\xff\xff\xff\xff")

        (await client_of(exchange, 2)).send(trade(1))
        await received(subject, 1)


async def test_frame_that_arrives_byte_by_byte_is_one_message(exchange: ScriptedExchange) -> None:
    async with receiving_sessions(exchange.url, NAMES) as subject:
        client = await client_of(exchange)
        for byte in frame(TEXT, trade(1).encode()):
            client.raw(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0)
        await received(subject, 1)

        assert len(exchange.clients) == 1


async def test_burst_is_received_completely_and_in_order(exchange: ScriptedExchange) -> None:
    async with receiving_sessions(exchange.url, NAMES) as subject:
        client = await client_of(exchange)
        for first in range(1, 20_001, 500):
            say_trades(client, first, first + 499)
            await client.writer.drain()
        await received(subject, 20_000)

        assert subject.numbers(TRADES) == list(range(1, 20_001))


async def test_connection_with_only_invalid_messages_is_closed(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES) as subject:
        client = await client_of(exchange)
        for _ in range(1500):
            client.send("rubbish")

        (await client_of(exchange, 2)).send(trade(1))
        await received(subject, 1)

        assert subject.session.trouble == "it sends only invalid frames"


async def test_repeated_resets_keep_the_rate_of_connects_limited(
    exchange: ScriptedExchange,
) -> None:
    def cut(client: Client, names: Iterable[str]) -> None:
        client.cut()

    exchange.greet = cut
    async with receiving_sessions(
        exchange.url, NAMES, count=6, handshakes_per_s=10, reconnect_max_s=0.02
    ):
        await eventually_async(
            lambda: len(exchange.attempts) >= 20, "the session connects 20 times"
        )
    took_s = exchange.attempts[19] - exchange.attempts[0]

    # Eight attempts at once, then ten a second, over all sessions; the first may be recorded late.
    assert took_s >= (20 - 8) / 10 * 0.8


async def test_refused_stream_is_reported_and_the_rest_continues(
    exchange: ScriptedExchange,
) -> None:
    refused = "stockPrice.NVDA"

    def greet(client: Client, names: Iterable[str]) -> None:
        if refused in names:
            client.send(frames.ERROR_INVALID_STREAM)

    exchange.greet = greet
    async with receiving_sessions(exchange.url, [*NAMES, refused, "stockPrice.AAPL"]) as subject:
        client = await client_of(exchange)
        client.send(trade(1))
        await eventually_async(lambda: subject.rejected, "the stream is refused")
        client.send(trade(2))
        await received(subject, 2)
        status = subject.session.status()

        assert subject.rejected == [(refused, 4006)]
        assert status["refused"] == {refused: "the exchange does not know this stream type"}
        assert set(status["pending"]) == {LIQUIDATIONS, "stockPrice.AAPL"}
        assert len(exchange.clients) == 1


async def test_error_of_an_unknown_code_disturbs_nothing(
    exchange: ScriptedExchange,
) -> None:
    async with receiving_sessions(exchange.url, NAMES) as subject:
        client = await client_of(exchange)
        client.send('{"id":null,"error":{"code":4999,"message":"?"}}')
        client.send('{"id":null,"error":"what"}')
        client.send('{"result":null,"id":1}')
        client.send(trade(1))
        await received(subject, 1)

        assert len(exchange.clients) == 1
