"""The WebSocket protocol, with an independent client over a real socket."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from simulator.app import Settings, serve
from simulator.listing import DEFAULT_SYMBOLS
from simulator.server import ClientLimits
from tests.support import plain_http
from tests.support.simulator_client import PUBLIC_KEY, get_signed, listening, signature
from tests.support.simulator_process import RunningSimulator, running_simulator_sync
from tests.support.simulator_runs import plan


@pytest.fixture(scope="module")
def sim() -> Iterator[RunningSimulator]:
    with running_simulator_sync("--rate", "400", "--seed", "5") as running:
        yield running


async def test_each_public_stream_delivers(sim: RunningSimulator) -> None:
    names = {
        "trade.SOL_USDC": "trade",
        "depth.SOL_USDC": "depth",
        "depth.200ms.BTC_USDC": "depth",
        "depth.600ms.BTC_USDC": "depth",
        "depth.1000ms.BTC_USDC": "depth",
        "bookTicker.SOL_USDC": "bookTicker",
        "ticker.SOL_USDC": "ticker",
        "externalTicker.SOL_USDC": "externalTicker",
        "kline.1s.SOL_USDC": "kline",
        "markPrice.AAPL.US_USDC_PERP": "markPrice",
        "liquidation": "liquidation",
        "stockPrice.BRK.B": "stockPrice",
        "stockIndicativeQuote.NVDA": "stockIndicativeQuote",
    }
    async with listening(sim.ws_url) as listener:
        await listener.subscribe(*names)
        missing = set(names)
        while missing:
            frame = await listener.next()
            assert list(frame) == ["data", "stream"]
            assert frame["data"]["e"] == names[frame["stream"]]
            missing.discard(frame["stream"])


@pytest.mark.parametrize(
    ("request_text", "error"),
    [
        ("hello", b'{"id":null,"error":{"code":4002,"message":"Parse error"}}'),
        (
            '{"method":"SUBSCRIBE","params":["nothing.SOL_USDC"],"id":5}',
            b'{"id":null,"error":{"code":4006,"message":"Invalid stream"}}',
        ),
        (
            '{"method":"SUBSCRIBE","params":["depth.100ms.SOL_USDC"]}',
            b'{"id":null,"error":{"code":4008,"message":"Invalid depth window"}}',
        ),
        (
            '{"method":"SUBSCRIBE","params":["account.orderUpdate"]}',
            b'{"id":null,"error":{"code":4003,"message":"Invalid signature"}}',
        ),
    ],
)
async def test_an_error_has_its_exact_bytes_and_the_socket_stays_open(
    sim: RunningSimulator, request_text: str, error: bytes
) -> None:
    async with listening(sim.ws_url) as listener:
        await listener.socket.send(request_text)
        await listener.next()
        assert listener.raw[-1].encode() == error
        await listener.subscribe("trade.SOL_USDC")
        assert (await listener.until_stream("trade.SOL_USDC"))["s"] == "SOL_USDC"


async def test_unknown_symbol_gets_no_message(sim: RunningSimulator) -> None:
    async with listening(sim.ws_url + "/any/path?x=1") as listener:
        await listener.subscribe("depth.NO_SUCH", "depth.5.SOL_USDC", id=1)
        await listener.subscribe("ticker.SOL_USDC")
        assert (await listener.next())["stream"] == "ticker.SOL_USDC"


async def test_subscribing_twice_brings_nothing_twice_and_unsubscribing_ends_it(
    sim: RunningSimulator,
) -> None:
    async with listening(sim.ws_url) as listener:
        await listener.subscribe("depth.SOL_USDC")
        await listener.subscribe("depth.SOL_USDC", "depth.SOL_USDC")
        ids = [(await listener.until_stream("depth.SOL_USDC"))["u"] for _ in range(60)]
        assert ids == list(range(ids[0], ids[0] + 60))
        await listener.ask("UNSUBSCRIBE", "depth.SOL_USDC")
        await listener.subscribe("ticker.SOL_USDC")
        await listener.until_stream("ticker.SOL_USDC")
        streams = [(await listener.next())["stream"] for _ in range(2)]
        assert streams == ["ticker.SOL_USDC"] * 2


async def test_a_book_built_by_the_recipe_equals_the_exchange_s(sim: RunningSimulator) -> None:
    async with (
        listening(sim.ws_url) as listener,
        plain_http.client(sim.rest_url) as client,
    ):
        await listener.subscribe("depth.SOL_USDC")
        await listener.until_stream("depth.SOL_USDC")
        query = {"symbol": "SOL_USDC", "limit": "1000"}
        first = (await client.get("/api/v1/depth", params=query)).json()
        received = [await listener.until_stream("depth.SOL_USDC") for _ in range(50)]
        second = (await client.get("/api/v1/depth", params=query)).json()
        at_id, end_id = int(first["lastUpdateId"]), int(second["lastUpdateId"])
        while received[-1]["u"] < end_id:
            received.append(await listener.until_stream("depth.SOL_USDC"))
        book = {side: dict(_decimals(first[side])) for side in ("asks", "bids")}
        for event in received:
            if not at_id < event["u"] <= end_id:
                continue
            assert event["U"] == at_id + 1
            at_id = event["u"]
            for side, rows in (("asks", event["a"]), ("bids", event["b"])):
                book[side].update(_decimals(rows))
        assert at_id == end_id
        left = {side: {p: q for p, q in book[side].items() if q} for side in book}
        assert left == {side: dict(_decimals(second[side])) for side in ("asks", "bids")}


def _decimals(rows: list[list[str]]) -> list[tuple[Decimal, Decimal]]:
    return [(Decimal(price), Decimal(quantity)) for price, quantity in rows]


async def test_private_streams_agree_with_the_signed_endpoints(sim: RunningSimulator) -> None:
    async with (
        listening(sim.ws_url) as listener,
        plain_http.client(sim.rest_url) as client,
    ):
        await listener.subscribe(
            "account.orderUpdate", "account.balanceUpdate", signature=signature()
        )
        update = await listener.until(lambda x: x["data"]["e"] == "orderAccepted")
        assert update["stream"] == "account.orderUpdate"
        balance = await listener.until_stream("account.balanceUpdate")
        capital = (await get_signed(client, "/api/v1/capital", "balanceQuery")).json()
        assert balance["a"] in capital


async def test_open_positions_are_reported_at_subscription_without_an_event_name(
    sim: RunningSimulator,
) -> None:
    async with listening(sim.ws_url) as listener:
        await listener.subscribe("account.positionUpdate", signature=signature())
        for _ in range(20):
            update = await listener.until(
                lambda frame: frame["data"].get("e") not in (None, "positionClosed")
            )
            symbol = update["data"]["s"]
            stream = f"account.positionUpdate.{symbol}"
            await listener.subscribe(stream, signature=signature())
            first = await listener.until_stream(stream)
            assert first["s"] == symbol
            if "e" not in first:
                return
            # the position was closed meanwhile, and an event came first
            await listener.ask("UNSUBSCRIBE", stream)
        pytest.fail("no open position was sent at its subscription")


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_compression_is_used_when_the_client_offers_it(
    sim: RunningSimulator, compression: str | None
) -> None:
    async with listening(sim.ws_url, compression=compression) as listener:
        headers = listener.socket.response.headers  # type: ignore[union-attr]
        assert ("Sec-WebSocket-Extensions" in headers) is (compression is not None)
        await listener.subscribe("ticker.SOL_USDC")
        assert (await listener.until_stream("ticker.SOL_USDC"))["e"] == "ticker"


async def test_a_client_s_ping_is_answered(sim: RunningSimulator) -> None:
    async with listening(sim.ws_url) as listener:
        await asyncio.wait_for(await listener.socket.ping(), 5)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_stop_sends_close_and_ends(sent: signal.Signals, code: int) -> None:
    with running_simulator_sync("--rate", "500") as sim:
        async with listening(sim.ws_url) as listener:
            await listener.subscribe("depth.SOL_USDC")
            await listener.until_stream("depth.SOL_USDC")
            sim.process.send_signal(sent)
            with pytest.raises(ConnectionClosed) as closed:
                await listener.until(lambda _: False)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
            assert await asyncio.to_thread(sim.process.wait, 5) == code
        assert "Traceback" not in sim.stderr()


class InProcess:
    """The simulator in this process, with shorter limits than the real ones."""

    def __init__(self, client_limits: ClientLimits, rate: float) -> None:
        self._settings = Settings(plan(1, rate=rate), client_limits=client_limits)
        self._stop = asyncio.Event()
        self._address: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> str:
        self._task = asyncio.create_task(
            serve(self._settings, self._stop, self._address.set_result)
        )
        return await self._address

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.wait_for(self._task, 5)


async def test_a_client_is_pinged_and_one_that_never_pongs_is_closed() -> None:
    # The limit is longer than a busy machine delays this process.
    async with InProcess(ClientLimits(ping_every_s=0.05, pong_limit_s=2), rate=1) as address:
        async with listening(f"ws://{address}") as listener:
            await listener.subscribe("ticker.SOL_USDC")
            await listener.until_stream("ticker.SOL_USDC")
        reader, writer = await _bare_socket(address)
        seen = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert seen.count(b"\x89\x00") >= 3
        assert b"\x88\x09\x03\xe9no pong" in seen


async def test_a_slow_client_is_closed_and_the_others_continue() -> None:
    async with (
        InProcess(ClientLimits(queue_frames=500), rate=20_000) as address,
        listening(f"ws://{address}") as quick,
        plain_http.client(f"http://{address}") as client,
    ):
        await quick.subscribe("markPrice.SOL_USDC_PERP")
        slow = await _bare_socket(address)
        names = [f"{kind}.{x}" for kind in ("depth", "trade") for x in DEFAULT_SYMBOLS]
        slow[1].write(_masked(json.dumps({"method": "SUBSCRIBE", "params": names}).encode()))
        slow[1].transport.pause_reading()
        while (await client.get("/simulator/stats")).json()["clients"] != 1:
            await quick.until_stream("markPrice.SOL_USDC_PERP")
        await quick.until_stream("markPrice.SOL_USDC_PERP")
        slow[1].transport.abort()


async def _bare_socket(address: str) -> tuple[asyncio.StreamReader, Any]:
    """A WebSocket after the handshake that replies to nothing by itself."""
    host, port = address.split(":")
    plug = socket.create_connection((host, int(port)))
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader, writer = await asyncio.open_connection(sock=plug)
    writer.write(
        f"GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def _masked(text: bytes) -> bytes:
    """A text frame of 126 to 65,535 bytes, with a mask of zeros."""
    assert 125 < len(text) < 65_536
    return bytes([0x81, 0x80 | 126]) + len(text).to_bytes(2, "big") + bytes(4) + text


def test_the_demo_key_of_the_client_is_one_the_simulator_accepts(sim: RunningSimulator) -> None:
    reply = plain_http.get(f"{sim.rest_url}/simulator/account", params={"key": PUBLIC_KEY})
    assert reply.json()["key"] == PUBLIC_KEY
