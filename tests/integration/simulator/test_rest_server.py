"""The REST endpoints over a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal

import httpx2
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
    """A market that has stopped changing: equal requests get equal replies."""
    arguments = ["--rate", "2000", "--seed", "2", "--events", "8000", "--start", str(START_US)]
    with running_simulator_sync(*arguments) as running:
        deadline_s = time.monotonic() + 30
        while not plain_http.get(f"{running.rest_url}/simulator/stats").json()["finished"]:
            assert time.monotonic() < deadline_s
        yield running


@pytest.fixture
async def client(sim: RunningSimulator) -> AsyncIterator[httpx2.AsyncClient]:
    async with plain_http.client(sim.rest_url) as opened:
        yield opened


@pytest.fixture
async def quiet(finished: RunningSimulator) -> AsyncIterator[httpx2.AsyncClient]:
    async with plain_http.client(finished.rest_url) as opened:
        yield opened


async def test_the_plain_endpoints(client: httpx2.AsyncClient) -> None:
    status = await client.get("/api/v1/status")
    assert status.text == '{"message":null,"status":"Ok"}'
    assert (await client.get("/api/v1/ping")).text == "pong"
    now = await client.get("/api/v1/time")
    assert now.headers["content-type"].startswith("text/plain")
    assert abs(int(now.text) - time.time() * 1000) < 5000
    missing = await client.get("/api/v1/nothing")
    assert (missing.status_code, missing.text) == (404, "not found")


async def test_markets_and_one_market(client: httpx2.AsyncClient) -> None:
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
    client: httpx2.AsyncClient, path: str, status: int, kind: str
) -> None:
    reply = await client.get(path)
    assert (reply.status_code, reply.headers["content-type"].split(";")[0]) == (status, kind)


async def test_an_unknown_symbol_has_its_own_error_text(client: httpx2.AsyncClient) -> None:
    reply = await client.get("/api/v1/trades?symbol=NO_SUCH")
    assert reply.text == '{"code":"INVALID_CLIENT_REQUEST","message":"Invalid market symbol"}'


async def test_trades_page_from_the_newest_back(quiet: httpx2.AsyncClient) -> None:
    trades = (await quiet.get("/api/v1/trades?symbol=SOL_USDC&limit=1000")).json()
    ids = [row["id"] for row in trades]
    assert ids == list(range(ids[0], ids[0] - len(ids), -1))
    path = "/api/v1/trades/history?symbol=SOL_USDC&limit=10&offset=5"
    assert (await quiet.get(path)).json() == trades[5:15]
    for row in trades[:20]:
        product = Decimal(row["price"]) * Decimal(row["quantity"])
        assert Decimal(row["quoteQuantity"]) == product


async def test_candles_equal_the_trades_of_rest(quiet: httpx2.AsyncClient) -> None:
    trades = (await quiet.get("/api/v1/trades?symbol=SOL_USDC&limit=1000")).json()
    path = "/api/v1/klines?symbol=SOL_USDC&interval=1s&startTime=0"
    candles = (await quiet.get(path)).json()
    counted = sum(int(candle["trades"]) for candle in candles)
    volume = sum(Decimal(candle["volume"]) for candle in candles)
    assert counted == len(trades)
    assert volume == sum(Decimal(row["quantity"]) for row in trades)
    assert len(candles[0]["start"]) == len("2026-09-01 17:52:00")


async def test_the_ticker_counts_the_same_trades(quiet: httpx2.AsyncClient) -> None:
    trades = (await quiet.get("/api/v1/trades?symbol=SOL_USDC&limit=1000")).json()
    ticker = (await quiet.get("/api/v1/ticker?symbol=SOL_USDC")).json()
    assert (ticker["trades"], ticker["lastPrice"]) == (str(len(trades)), trades[0]["price"])
    tickers = (await quiet.get("/api/v1/tickers")).json()
    assert ticker in tickers


async def test_mark_prices_and_open_interest_are_lists(client: httpx2.AsyncClient) -> None:
    marks = (await client.get("/api/v1/markPrices?symbol=SOL_USDC_PERP")).json()
    assert [sorted(x) for x in marks] == [
        ["fundingRate", "indexPrice", "markPrice", "nextFundingTimestamp", "symbol"]
    ]
    interest = (await client.get("/api/v1/openInterest")).json()
    assert "FDVEXTD1B_USDC_PREDICTION" in {x["symbol"] for x in interest}


async def test_signed_endpoints_equal_the_simulators_state(quiet: httpx2.AsyncClient) -> None:
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


async def test_fills_come_by_page_with_the_page_in_the_headers(quiet: httpx2.AsyncClient) -> None:
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


async def test_a_signature_over_other_parameters_is_refused(client: httpx2.AsyncClient) -> None:
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


async def test_rest_is_never_behind_the_frames_received(sim: RunningSimulator) -> None:
    async with (
        listening(sim.ws_url) as listener,
        plain_http.client(sim.rest_url) as client,
    ):
        await listener.subscribe("trade.SOL_USDC")
        for _ in range(5):
            received = await listener.until_stream("trade.SOL_USDC")
            newest = (await client.get("/api/v1/trades?symbol=SOL_USDC&limit=1")).json()[0]
            assert newest["id"] >= received["t"]


async def test_the_book_of_the_simulator_is_the_whole_depth(quiet: httpx2.AsyncClient) -> None:
    book = (await quiet.get("/simulator/book?symbol=SOL_USDC")).json()
    depth = (await quiet.get("/api/v1/depth?symbol=SOL_USDC")).json()
    assert str(book["u"]) == depth["lastUpdateId"]
    assert (book["asks"], book["bids"]) == (depth["asks"], depth["bids"])


async def test_simulator_lists_trades_after_a_trade_oldest_first(
    quiet: httpx2.AsyncClient,
) -> None:
    newest = (await quiet.get("/api/v1/trades?symbol=SOL_USDC&limit=3")).json()
    after = newest[-1]["id"]
    document = (await quiet.get(f"/simulator/trades?symbol=SOL_USDC&after={after}")).json()
    assert document == newest[1::-1]
    assert (await quiet.get("/simulator/trades?symbol=SOL_USDC&after=x")).status_code == 404


async def test_assets_and_securities_are_those_of_the_markets(quiet: httpx2.AsyncClient) -> None:
    assets = (await quiet.get("/api/v1/assets")).json()
    [security] = (await quiet.get("/api/v1/securities")).json()

    assert [asset["symbol"] for asset in assets] == ["SOL", "USDC", "BTC", "ETH", "USDT"]
    assert assets[0].keys() == {"coingeckoId", "displayName", "symbol", "tokens"}
    assert security["asset"] == "AAPL.US"
    assert security["sessions"][1] == {
        "maxQuantity": "10000",
        "minQuantity": "0.01",
        "name": "US_EQUITIES_REGULAR",
        "stepSize": "0.01",
    }


@pytest.mark.parametrize(("path", "instruction"), [
    ("/api/v1/orders", "orderQueryAll"),
    ("/wapi/v1/history/orders", "orderHistoryQueryAll"),
    ("/wapi/v1/history/fills", "fillHistoryQueryAll"),
])  # fmt: skip
async def test_rows_of_an_account_are_those_of_the_market_type_requested(
    quiet: httpx2.AsyncClient, path: str, instruction: str
) -> None:
    rows: dict[str, list[str]] = {}
    for wanted in ("SPOT", "PERP", "RFQ"):
        answer = await get_signed(quiet, path, instruction, marketType=wanted)
        rows[wanted] = [row["symbol"] for row in answer.json()]
    everything = (await get_signed(quiet, path, instruction)).json()

    assert all(name.endswith("_USDC") for name in rows["SPOT"])
    assert all(name.endswith("_PERP") for name in rows["PERP"])
    assert all(name.endswith("_RFQ") for name in rows["RFQ"])
    assert rows["SPOT"]
    assert 0 < len(everything) <= sum(map(len, rows.values()))


async def test_order_history_has_the_final_state_of_each_order(quiet: httpx2.AsyncClient) -> None:
    path, instruction = "/wapi/v1/history/orders", "orderHistoryQueryAll"
    orders = (await get_signed(quiet, path, instruction, limit="1000")).json()
    oldest = (await get_signed(quiet, path, instruction, sortDirection="Asc", limit="1")).json()

    assert {order["status"] for order in orders} >= {"Filled", "Expired"}
    assert all(
        (order["expiryReason"] is not None) == (order["status"] == "Expired") for order in orders
    )
    assert orders[-1]["id"] == oldest[0]["id"]
    created = [order["createdAt"] for order in orders]
    assert created == sorted(created, reverse=True)
    one = (await get_signed(quiet, path, instruction, orderId=orders[3]["id"])).json()
    assert one == [orders[3]]


async def test_fills_of_liquidations_are_none(quiet: httpx2.AsyncClient) -> None:
    path, instruction = "/wapi/v1/history/fills", "fillHistoryQueryAll"
    by_the_user = (await get_signed(quiet, path, instruction, fillType="User")).json()

    assert by_the_user == (await get_signed(quiet, path, instruction)).json() != []
    assert (await get_signed(quiet, path, instruction, fillType="Liquidation")).json() == []
    wrong = await get_signed(quiet, path, instruction, fillType="Mine")
    assert (wrong.status_code, wrong.headers["content-type"].split(";")[0]) == (400, "text/plain")


async def test_candles_of_mark_and_index_prices_have_no_volume(quiet: httpx2.AsyncClient) -> None:
    found = {}
    for price_type in ("Last", "Mark", "Index"):
        query = f"symbol=SOL_USDC_PERP&interval=1s&startTime={START_US // 1_000_000}"
        found[price_type] = (
            await quiet.get(f"/api/v1/klines?{query}&priceType={price_type}")
        ).json()[1]

    assert found["Last"]["volume"] != "0"
    for price_type in ("Mark", "Index"):
        assert found[price_type]["volume"] == found[price_type]["trades"] == "0"
        assert abs(Decimal(found[price_type]["close"]) / Decimal(found["Last"]["close"]) - 1) < 0.01
    assert found["Mark"]["close"] != found["Index"]["close"] != found["Last"]["close"]


async def test_an_account_s_settings_and_its_collateral(quiet: httpx2.AsyncClient) -> None:
    account = (await get_signed(quiet, "/api/v1/account", "accountQuery")).json()
    orders = (await get_signed(quiet, "/api/v1/orders", "orderQueryAll")).json()
    margin = (await get_signed(quiet, "/api/v1/capital/collateral", "collateralQuery")).json()
    funds = (await get_signed(quiet, "/api/v1/capital", "balanceQuery")).json()

    assert account["limitOrders"] + account["triggerOrders"] == len(orders)
    assert (account["spotMakerFee"], account["futuresTakerFee"]) == ("8", "5")
    for row in margin["collateral"]:
        held = funds[row["symbol"]]
        assert Decimal(row["totalQuantity"]) == Decimal(held["available"]) + Decimal(held["locked"])
    assert Decimal(margin["assetsValue"]) == sum(
        Decimal(row["balanceNotional"]) for row in margin["collateral"]
    )


async def test_an_open_request_for_a_quote_is_listed_with_its_quote(
    client: httpx2.AsyncClient,
) -> None:
    async def quoted() -> list[dict[str, str]]:
        answer = await get_signed(client, "/api/v1/rfqs", "rfqQuery")
        assert answer.status_code == 200, answer.text
        return [row for row in answer.json() if row["quotes"]]

    found: list[dict[str, str]] = []
    deadline_s = time.monotonic() + 40
    while not (found := await quoted()):
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.05)  # more requests would get HTTP 429
    assert found[0]["symbol"].endswith("_RFQ")
    assert found[0]["status"] == "New"
    assert {quote["rfqId"] for row in found for quote in row["quotes"]} == {found[0]["rfqId"]}  # type: ignore[index]
