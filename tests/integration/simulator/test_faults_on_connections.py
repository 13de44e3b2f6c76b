"""Connections that close, hang, lag or are refused, and subscriptions that are not served."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tests.support import plain_http
from tests.support.eventually import eventually_async
from tests.support.simulator_client import Listener, listening, signature
from tests.support.simulator_process import RunningSimulator, running_simulator_sync

DEPTH = "depth.SOL_USDC"


@pytest.fixture(scope="module")
def sim() -> Iterator[RunningSimulator]:
    with running_simulator_sync("--rate", "200", "--seed", "12", "--market", "SOL_USDC") as running:
        yield running


@pytest.fixture(autouse=True)
def _mended(sim: RunningSimulator) -> Iterator[None]:
    yield
    plain_http.delete(f"{sim.rest_url}/simulator/faults")


@pytest.fixture
async def listener(sim: RunningSimulator) -> AsyncIterator[Listener]:
    options = {"ping_interval": None, "close_timeout": 0.1, "max_queue": None}
    async with listening(sim.ws_url, **options) as opened:
        await opened.subscribe(DEPTH)
        await opened.next()
        yield opened


async def until_closed(listener: Listener) -> ConnectionClosed:
    async with asyncio.timeout(20):
        while True:
            try:
                await listener.socket.recv()
            except ConnectionClosed as closed:
                return closed


async def until_silent(listener: Listener, for_s: float) -> None:
    """Receive all frames until none has arrived for `for_s` seconds."""
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(listener.socket.recv(), for_s)


async def test_a_close_frame_has_code_and_reason(sim: RunningSimulator, listener: Listener) -> None:
    sim.fault("close", code=1012, reason="restart")
    closed = await until_closed(listener)
    assert closed.rcvd is not None
    assert (closed.rcvd.code, closed.rcvd.reason) == (1012, "restart")


@pytest.mark.parametrize(("how", "cause"), [("eof", EOFError), ("reset", ConnectionResetError)])
async def test_a_connection_ends_without_a_close_frame(
    how: str, cause: type[Exception], sim: RunningSimulator, listener: Listener
) -> None:
    sim.fault("close", how=how)
    closed = await until_closed(listener)
    assert closed.rcvd is None
    assert isinstance(closed.__cause__, cause)


async def test_only_the_connection_that_was_named_is_closed(
    sim: RunningSimulator, listener: Listener
) -> None:
    async with listening(sim.ws_url) as other:
        await other.subscribe(DEPTH)
        await other.next()
        sim.fault("close", connection=sim.connections()[-1]["number"])
        await until_closed(other)
        await listener.next()


@pytest.mark.parametrize("fault", ["close", "stall"])
async def test_a_half_open_connection_sends_nothing_and_answers_nothing(
    fault: str, sim: RunningSimulator, listener: Listener
) -> None:
    settings = {"how": "silent"} if fault == "close" else {}
    sim.fault(fault, **settings, connection=sim.connections()[-1]["number"])
    pong = await listener.socket.ping()
    await listener.ask("SUBSCRIBE", "nonsense.SOL_USDC")
    await until_silent(listener, 0.7)
    assert not pong.done()
    async with listening(sim.ws_url) as other:
        await other.subscribe(DEPTH)
        await other.next()


async def test_a_stalled_connection_may_still_answer_pings(
    sim: RunningSimulator, listener: Listener
) -> None:
    number = sim.fault("stall", connection="open", pongs=True)
    await (await listener.socket.ping())
    await until_silent(listener, 0.5)
    sim.end_fault(number)
    await listener.next()


async def test_without_pongs_data_continues(sim: RunningSimulator, listener: Listener) -> None:
    number = sim.fault("no_pongs")
    pong = await listener.socket.ping()
    for _ in range(20):
        await listener.next()
    assert not pong.done()
    sim.end_fault(number)
    await (await listener.socket.ping())


async def test_a_slow_network_lets_frames_wait(sim: RunningSimulator, listener: Listener) -> None:
    sim.fault("slow_network", connection="open", bytes_per_s=2_000)
    await eventually_async(lambda: sim.connections()[-1]["waiting"] > 50, "frames are waiting")
    await listener.next()


async def test_slow_network_that_ends_delivers_waiting_frames_at_once(
    sim: RunningSimulator, listener: Listener
) -> None:
    number = sim.fault("slow_network", connection="open", bytes_per_s=1)
    await eventually_async(lambda: sim.connections()[-1]["waiting"] > 20, "frames are waiting")
    sim.end_fault(number)
    for _ in range(20):
        await listener.next()


async def test_fault_error_frame_is_sent_without_a_request(
    sim: RunningSimulator, listener: Listener
) -> None:
    sim.fault("error", code=4007, message="Odd")
    error = await listener.until(lambda frame: "error" in frame)
    assert error == {"id": None, "error": {"code": 4007, "message": "Odd"}}


async def test_forgotten_subscription_is_served_after_a_new_request(
    sim: RunningSimulator, listener: Listener
) -> None:
    await listener.subscribe("trade.SOL_USDC")
    await listener.until_stream("trade.SOL_USDC")
    sim.fault("forget", stream=DEPTH)
    assert sim.connections()[-1]["streams"] == ["trade.SOL_USDC"]
    await listener.subscribe(DEPTH)
    await eventually_async(
        lambda: len(sim.connections()[-1]["streams"]) == 2, "a snapshot follows the reconnect"
    )


@pytest.mark.parametrize("status", [401, 429, 503, 500])
async def test_a_handshake_is_refused_with_a_status(status: int, sim: RunningSimulator) -> None:
    sim.fault("refuse", status=status, retry_after_s=7, count=1)
    with pytest.raises(InvalidStatus) as refused:
        async with listening(sim.ws_url):
            pass
    assert refused.value.response.status_code == status
    assert refused.value.response.headers["Retry-After"] == "7"
    async with listening(sim.ws_url) as listener:
        await listener.subscribe(DEPTH)
        await listener.next()


async def test_a_handshake_is_reset(sim: RunningSimulator) -> None:
    sim.fault("refuse", how="reset", count=1)
    with pytest.raises((InvalidHandshake, ConnectionError, EOFError)):
        async with listening(sim.ws_url):
            pass


async def test_a_handshake_is_never_answered(sim: RunningSimulator) -> None:
    sim.fault("refuse", how="hang", for_s=30)
    with pytest.raises(TimeoutError):
        async with listening(sim.ws_url, open_timeout=0.3):
            pass


@pytest.mark.parametrize(
    ("code", "message"),
    [(4006, "Invalid stream"), (4008, "Invalid depth window"), (4002, "Parse error")],
)
async def test_a_subscription_is_rejected_and_the_rest_continues(
    code: int, message: str, sim: RunningSimulator, listener: Listener
) -> None:
    sim.fault("reject", stream="trade.*", code=code, count=1)
    await listener.subscribe("trade.SOL_USDC", "bookTicker.SOL_USDC")
    error = await listener.until(lambda frame: "error" in frame)
    assert error == {"id": None, "error": {"code": code, "message": message}}
    await listener.until_stream("bookTicker.SOL_USDC")
    assert sim.connections()[-1]["streams"] == ["bookTicker.SOL_USDC", DEPTH]


async def test_a_signature_is_rejected_once_for_the_whole_request(
    sim: RunningSimulator, listener: Listener
) -> None:
    number = sim.fault("reject", stream="account.*", code=4003)
    names = ("account.orderUpdate", "account.balanceUpdate")
    await listener.subscribe(*names, signature=signature())
    await (await listener.socket.ping())
    sim.end_fault(number)
    await listener.subscribe(*names, signature=signature())
    await eventually_async(lambda: len(sim.connections()[-1]["streams"]) == 3, "subscribed")
    await listener.next()
    errors = [text for text in listener.raw if '"error"' in text]
    async with asyncio.timeout(20):
        while not errors:
            await listener.next()
            errors = [text for text in listener.raw if '"error"' in text]
    assert errors == ['{"id":null,"error":{"code":4003,"message":"Invalid signature"}}']


async def test_an_ignored_subscription_is_never_served(
    sim: RunningSimulator, listener: Listener
) -> None:
    sim.fault("ignore", stream="trade.SOL_USDC", count=1)
    await listener.subscribe("trade.SOL_USDC", "bookTicker.SOL_USDC")
    await listener.until_stream("bookTicker.SOL_USDC")
    assert "trade.SOL_USDC" not in sim.connections()[-1]["streams"]
    await listener.subscribe("trade.SOL_USDC")
    await listener.until_stream("trade.SOL_USDC")
    assert {json.loads(text).get("id") for text in listener.raw} == {None}
