"""The REST endpoints over a real socket."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal

import httpx
import pytest

from tests.support import plain_http
from tests.support.simulator_client import PUBLIC_KEY, get_signed, listening, signature
from tests.support.simulator_process import RunningSimulator, running_simulator_sync
from tests.support.simulator_runs import START_US


@pytest.fixture(scope="module")
def sim() -> Iterator[RunningSimulator]:
    with running_simulator_sync("--rate", "300", "--seed", "3") as running:
        yield running


@pytest.fixture(scope="module")
def finished() -> Iterator[RunningSimulator]:
    """A market that has stopped moving: what is asked twice is the same twice."""
    arguments = ["--rate", "2000", "--seed", "2", "--events", "8000", "--start", str(START_US)]
    with running_simulator_sync(*arguments) as running:
        deadline_s = time.monotonic() + 30
        while not plain_http.get(f"{running.rest_url}/simulator/stats").json()["finished"]:
            assert time.monotonic() < deadline_s
        yield running


@pytest.fixture
async def client(sim: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    async with plain_http.client(sim.rest_url) as opened:
        yield opened


@pytest.fixture
async def quiet(finished: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    async with plain_http.client(finished.rest_url) as opened:
        yield opened


async def test_the_plain_endpoints(client: httpx.AsyncClient) -> None:
    status = await client.get("/api/v1/status")
    assert status.text == '{"message":null,"status":"Ok"}'
    assert (await client.get("/api/v1/ping")).text == "pong"
    now = await client.get("/api/v1/time")
    assert now.headers["content-type"].startswith("text/plain")
    assert abs(int(now.text) - time.time() * 1000) < 5000
    missing = await client.get("/api/v1/nothing")
    assert (missing.status_code, missing.text) == (404, "not found")


async def test_markets_and_one_market(client: httpx.AsyncClient) -> None:
    markets = (await client.get("/api/v1/markets")).json()
    assert len(markets) == 9
    assert markets[0] == (await client.get("/api/v1/market?symbol=SOL_USDC")).json()
    perps = (await client.get("/api/v1/markets?marketType=PERP")).json()
    assert {x["marketType"] for x in perps} == {"PERP"}


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/api/v1/depth?symbol=SOL_USDC&limit=7", 400, "text/plain"),
        ("/api/v1/depth?symbol=SOL_USDC&limit=many", 400, "text/plain"),
        ("/api/v1/depth", 400, "text/plain"),
        ("/api/v1/depth?symbol=NO_SUCH", 400, "application/json"),
        ("/api/v1/klines?symbol=SOL_USDC&interval=7m&startTime=1", 400, "text/plain"),
        ("/api/v1/klines?symbol=SOL_USDC&interval=1m", 400, "text/plain"),
        ("/api/v1/trades/history?symbol=SOL_USDC&limit=1000&offset=9001", 400, "application/json"),
        ("/api/v1/orders", 401, "application/json"),
    ],
)
async def test_a_wrong_request_is_refused_in_the_exchange_s_form(
    client: httpx.AsyncClient, path: str, status: int, kind: str
) -> None:
    reply = await client.get(path)
    assert (reply.status_code, reply.headers["content-type"].split(";")[0]) == (status, kind)


async def test_an_unknown_symbol_has_its_own_words(client: httpx.AsyncClient) -> None:
    reply = await client.get("/api/v1/trades?symbol=NO_SUCH")
    assert reply.text == '{"code":"INVALID_CLIENT_REQUEST","message":"Invalid market symbol"}'


async def test_trades_page_from_the_newest_back(quiet: httpx.AsyncClient) -> None:
    trades = (await quiet.get("/api/v1/trades?symbol=SOL_USDC&limit=1000")).json()
    ids = [row["id"] for row in trades]
    assert ids == list(range(ids[0], ids[0] - len(ids), -1))
    path = "/api/v1/trades/history?symbol=SOL_USDC&limit=10&offset=5"
    assert (await quiet.get(path)).json() == trades[5:15]
    for row in trades[:20]:
        product = Decimal(row["price"]) * Decimal(row["quantity"])
        assert Decimal(row["quoteQuantity"]) == product


async def test_candles_equal_the_trades_of_rest(quiet: httpx.AsyncClient) -> None:
    trades = (await quiet.get("/api/v1/trades?symbol=SOL_USDC&limit=1000")).json()
    path = "/api/v1/klines?symbol=SOL_USDC&interval=1s&startTime=0"
    candles = (await quiet.get(path)).json()
    counted = sum(int(candle["trades"]) for candle in candles)
    volume = sum(Decimal(candle["volume"]) for candle in candles)
    assert counted == len(trades)
    assert volume == sum(Decimal(row["quantity"]) for row in trades)
    assert len(candles[0]["start"]) == len("2026-09-01 17:52:00")


async def test_the_ticker_counts_the_same_trades(quiet: httpx.AsyncClient) -> None:
    trades = (await quiet.get("/api/v1/trades?symbol=SOL_USDC&limit=1000")).json()
    ticker = (await quiet.get("/api/v1/ticker?symbol=SOL_USDC")).json()
    assert (ticker["trades"], ticker["lastPrice"]) == (str(len(trades)), trades[0]["price"])
    tickers = (await quiet.get("/api/v1/tickers")).json()
    assert ticker in tickers


async def test_mark_prices_and_open_interest_are_lists(client: httpx.AsyncClient) -> None:
    marks = (await client.get("/api/v1/markPrices?symbol=SOL_USDC_PERP")).json()
    assert [sorted(x) for x in marks] == [
        ["fundingRate", "indexPrice", "markPrice", "nextFundingTimestamp", "symbol"]
    ]
    interest = (await client.get("/api/v1/openInterest")).json()
    assert "FDVEXTD1B_USDC_PREDICTION" in {x["symbol"] for x in interest}


async def test_signed_views_equal_what_the_simulator_knows(quiet: httpx.AsyncClient) -> None:
    known = (await quiet.get("/simulator/account", params={"key": PUBLIC_KEY})).json()
    orders = (await get_signed(quiet, "/api/v1/orders", "orderQueryAll")).json()
    assert orders == known["orders"]
    assert (await get_signed(quiet, "/api/v1/capital", "balanceQuery")).json() == known["balances"]
    positions = await get_signed(quiet, "/api/v1/position", "positionQuery")
    assert positions.json() == known["positions"]
    one = orders[0]
    path, query = "/api/v1/order", {"symbol": one["symbol"], "orderId": one["id"]}
    assert (await get_signed(quiet, path, "orderQuery", **query)).json() == one
    gone = await get_signed(quiet, path, "orderQuery", symbol=one["symbol"], orderId="1")
    assert (gone.status_code, gone.json()["code"]) == (404, "RESOURCE_NOT_FOUND")


async def test_fills_come_by_page_with_the_page_in_the_headers(quiet: httpx.AsyncClient) -> None:
    path, instruction = "/wapi/v1/history/fills", "fillHistoryQueryAll"
    whole = await get_signed(quiet, path, instruction, limit="1000")
    rows = whole.json()
    assert whole.headers["X-TOTAL"] == str(len(rows))
    page = await get_signed(quiet, path, instruction, limit="3", offset="3")
    assert page.json() == rows[3:6]
    assert (page.headers["X-CURRENT-PAGE"], page.headers["X-PAGE-SIZE"]) == ("2", "3")
    oldest = await get_signed(quiet, path, instruction, limit="1000", sortDirection="Asc")
    assert oldest.json() == rows[::-1]
    assert isinstance(rows[0]["tradeId"], int)


async def test_a_signature_over_other_parameters_is_refused(client: httpx.AsyncClient) -> None:
    key, signed, timestamp, window = signature("orderQueryAll")
    headers = {
        "X-API-Key": key,
        "X-Signature": signed,
        "X-Timestamp": timestamp,
        "X-Window": window,
    }
    good = await client.get("/api/v1/orders", headers=headers)
    other = await client.get("/api/v1/orders?symbol=SOL_USDC", headers=headers)
    assert (good.status_code, other.status_code) == (200, 401)
    assert other.text == '{"code":"INVALID_SIGNATURE","message":"Invalid signature"}'


async def test_rest_is_never_behind_the_frames_heard(sim: RunningSimulator) -> None:
    async with (
        listening(sim.ws_url) as listener,
        plain_http.client(sim.rest_url) as client,
    ):
        await listener.subscribe("trade.SOL_USDC")
        for _ in range(5):
            heard = await listener.until_stream("trade.SOL_USDC")
            newest = (await client.get("/api/v1/trades?symbol=SOL_USDC&limit=1")).json()[0]
            assert newest["id"] >= heard["t"]


async def test_the_book_of_the_simulator_is_the_whole_depth(quiet: httpx.AsyncClient) -> None:
    book = (await quiet.get("/simulator/book?symbol=SOL_USDC")).json()
    depth = (await quiet.get("/api/v1/depth?symbol=SOL_USDC")).json()
    assert str(book["u"]) == depth["lastUpdateId"]
    assert (book["asks"], book["bids"]) == (depth["asks"], depth["bids"])
