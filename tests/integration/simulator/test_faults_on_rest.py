"""The limits on REST requests, and REST replies that fail, lag, are stale or break off."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support import plain_http
from tests.support.eventually import eventually_async
from tests.support.simulator_client import get_signed, listening, signature
from tests.support.simulator_process import RunningSimulator, running_simulator_sync

DEPTH = "/api/v1/depth?symbol=SOL_USDC"
HISTORY = "/api/v1/trades/history?symbol=SOL_USDC"


@pytest.fixture(scope="module")
def sim() -> Iterator[RunningSimulator]:
    arguments = ("--rate", "300", "--seed", "13", "--history-per-minute", "1000")
    with running_simulator_sync(*arguments) as running:
        yield running


@pytest.fixture
async def client(sim: RunningSimulator) -> AsyncIterator[httpx2.AsyncClient]:
    async with plain_http.client(sim.rest_url, timeout=20) as opened:
        yield opened
    plain_http.delete(f"{sim.rest_url}/simulator/faults")


async def test_historical_data_has_a_budget_of_thirty_a_minute() -> None:
    with running_simulator_sync("--rate", "100") as sim:
        async with plain_http.client(sim.rest_url) as client:
            paths = [HISTORY, "/api/v1/trades?symbol=SOL_USDC"] * 15
            statuses = [(await client.get(path)).status_code for path in paths]
            over = await client.get("/api/v1/klines?symbol=SOL_USDC&interval=1m&startTime=0")
            other = await client.get(DEPTH)
    assert statuses == [200] * 30
    assert (over.status_code, over.json()["code"]) == (429, "TOO_MANY_REQUESTS")
    assert other.status_code == 200


async def test_all_requests_have_a_budget_and_each_account_its_own() -> None:
    with running_simulator_sync("--rate", "100", "--rest-per-minute", "5") as sim:
        async with plain_http.client(sim.rest_url) as client:
            statuses = [(await client.get(DEPTH)).status_code for _ in range(7)]
            signed = await get_signed(client, "/api/v1/orders", "orderQueryAll")
            stats = (await client.get("/simulator/stats")).json()
    assert statuses == [200] * 5 + [429] * 2
    assert signed.status_code == 200
    assert stats["rest"] == {"200": 6, "429": 2}


async def test_a_path_fails_for_a_while_and_others_do_not(
    sim: RunningSimulator, client: httpx2.AsyncClient
) -> None:
    sim.fault("rest_status", path="/api/v1/depth", status=429, retry_after_s=3, count=2)
    failed = [await client.get(DEPTH) for _ in range(3)]
    assert [reply.status_code for reply in failed] == [429, 429, 200]
    assert failed[0].headers["Retry-After"] == "3"
    assert failed[0].json() == {"code": "TOO_MANY_REQUESTS", "message": "Too many requests"}


@pytest.mark.parametrize(
    ("body", "kind", "begins"),
    [
        ("html", "text/html", "<html>"),
        ("text", "text/plain", "upstream"),
        ("json", "application/json", "{"),
    ],
)
async def test_an_error_has_the_body_that_was_ordered(
    body: str, kind: str, begins: str, sim: RunningSimulator, client: httpx2.AsyncClient
) -> None:
    sim.fault("rest_status", status=502, body=body, count=1)
    reply = await client.get(DEPTH)
    assert reply.status_code == 502
    assert reply.headers["content-type"].startswith(kind)
    assert reply.text.startswith(begins)


async def test_rest_is_slow(sim: RunningSimulator, client: httpx2.AsyncClient) -> None:
    sim.fault("rest_slow", path="/api/v1/time", delay_s=0.4, count=1)
    begun_s = time.monotonic()
    assert (await client.get("/api/v1/time")).status_code == 200
    assert time.monotonic() - begun_s >= 0.4


async def test_a_stale_depth_is_from_the_cache_unless_a_nonce_bypasses_it(
    sim: RunningSimulator, client: httpx2.AsyncClient
) -> None:
    sim.fault("rest_stale", path="/api/v1/*")
    first = (await client.get(DEPTH)).json()
    trades = (await client.get(HISTORY)).json()

    async def has_moved() -> bool:
        fresh = (await client.get(f"{DEPTH}&_=7")).json()
        return int(fresh["lastUpdateId"]) > int(first["lastUpdateId"])

    await eventually_async(has_moved, "the market has moved")
    stale = await client.get(DEPTH)
    assert stale.json() == first
    assert stale.headers["X-Cache"] == "Hit from cloudfront"
    assert (await client.get(HISTORY)).json() == trades
    assert len((await client.get(f"{DEPTH}&limit=5")).json()["asks"]) == 5


async def test_a_cache_is_filled_again_when_it_is_too_old(
    sim: RunningSimulator, client: httpx2.AsyncClient
) -> None:
    sim.fault("rest_stale", path="/api/v1/depth", age_s=0.2)
    first = (await client.get(DEPTH)).json()

    async def is_refilled() -> bool:
        return bool((await client.get(DEPTH)).json() != first)

    await eventually_async(is_refilled, "the cache is filled again")


@pytest.mark.parametrize("form", ["html", "truncated", "garbage", "empty"])
async def test_fault_broken_body_is_not_json(
    form: str, sim: RunningSimulator, client: httpx2.AsyncClient
) -> None:
    whole = await client.get(DEPTH)
    sim.fault("rest_broken", form=form, count=1)
    reply = await client.get(DEPTH)
    assert reply.status_code == 200
    assert len(reply.content) < len(whole.content) or form == "garbage"
    with pytest.raises(ValueError, match=r".*"):
        json.loads(reply.content)


async def test_fault_deep_json_exceeds_the_parsers_limit(
    sim: RunningSimulator, client: httpx2.AsyncClient
) -> None:
    sim.fault("rest_broken", form="deep", count=1)
    with pytest.raises(RecursionError):
        json.loads((await client.get(DEPTH)).content)


async def test_fault_rest_request_gets_no_reply(
    sim: RunningSimulator, client: httpx2.AsyncClient
) -> None:
    sim.fault("rest_broken", form="reset", count=1)
    with pytest.raises(httpx2.TransportError):
        await client.get(DEPTH)
    sim.fault("rest_broken", form="hang", count=1, for_s=60)
    with pytest.raises(httpx2.ReadTimeout):
        await client.get(DEPTH, timeout=0.4)
    assert (await client.get(DEPTH)).status_code == 200


async def test_every_request_is_in_the_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    with running_simulator_sync("--rate", "10", ledger=ledger) as sim:
        number = sim.fault("rest_status", path="/api/v1/depth", status=503, count=1)
        plain_http.get(sim.rest_url + DEPTH)
        plain_http.get(sim.rest_url + DEPTH)
    documents = [json.loads(line) for line in ledger.read_text().splitlines()]
    rest = [(line["rest"], line["status"], line["by"]) for line in documents if "rest" in line]
    assert rest == [(DEPTH, 503, [number]), (DEPTH, 200, [])]


# The market ---------------------------------------------------------------------------------------


async def test_a_skewed_clock_shows_in_time_frames_and_signatures(
    sim: RunningSimulator, client: httpx2.AsyncClient
) -> None:
    sim.fault("clock_skew", ms=3_600_000)
    ahead_ms = int((await client.get("/api/v1/time")).text) - time.time() * 1000
    assert 3_590_000 < ahead_ms < 3_610_000
    async with listening(sim.ws_url) as listener:
        await listener.subscribe("trade.SOL_USDC")
        trade = await listener.until_stream("trade.SOL_USDC")
        assert trade["T"] / 1e6 - time.time() > 3_500
        await listener.subscribe("account.orderUpdate", signature=signature())
        assert "error" in await listener.until(lambda frame: "error" in frame)
    row = (await client.get("/api/v1/trades?symbol=SOL_USDC&limit=1000")).json()
    assert trade["T"] // 1000 in {each["timestamp"] for each in row if each["id"] == trade["t"]}


async def test_a_market_is_listed_and_delisted_while_it_runs(
    sim: RunningSimulator, client: httpx2.AsyncClient
) -> None:
    async def symbols() -> set[str]:
        return {each["symbol"] for each in (await client.get("/api/v1/markets")).json()}

    async with listening(sim.ws_url) as listener:
        await listener.subscribe("depth.WIF_USDC_PERP", "markPrice.WIF_USDC_PERP")
        sim.fault("list", symbol="WIF_USDC_PERP")
        assert "WIF_USDC_PERP" in await symbols()
        first = await listener.until_stream("depth.WIF_USDC_PERP")
        await listener.until_stream("markPrice.WIF_USDC_PERP")
        depth = (await client.get("/api/v1/depth?symbol=WIF_USDC_PERP")).json()
        assert int(depth["lastUpdateId"]) >= first["u"]
        sim.fault("delist", symbol="WIF_USDC_PERP")
        assert "WIF_USDC_PERP" not in await symbols()
        assert (await client.get("/api/v1/depth?symbol=WIF_USDC_PERP")).status_code == 400
        counted = (await client.get("/simulator/stats")).json()["streams"]["depth.WIF_USDC_PERP"]
        await listener.subscribe("markPrice.SOL_USDC_PERP")
        await listener.until_stream("markPrice.SOL_USDC_PERP")
        streams = (await client.get("/simulator/stats")).json()["streams"]
        assert streams["depth.WIF_USDC_PERP"] == counted


async def test_account_has_no_orders_and_position_in_a_delisted_market() -> None:
    async def symbols(path: str, instruction: str) -> set[str]:
        return {row["symbol"] for row in (await get_signed(client, path, instruction)).json()}

    async def has_all() -> bool:
        orders = await symbols("/api/v1/orders", "orderQueryAll")
        return "BTC_USDC_PERP" in orders & await symbols("/api/v1/position", "positionQuery")

    # with only two markets the account soon has orders and a position in each
    markets = ("--market", "BTC_USDC_PERP", "--market", "SOL_USDC")
    with running_simulator_sync("--rate", "300", *markets) as sim:
        async with plain_http.client(sim.rest_url, timeout=20) as client:
            await eventually_async(has_all, "the account trades in both markets", 40)
            sim.fault("delist", symbol="BTC_USDC_PERP")
            assert "BTC_USDC_PERP" not in await symbols("/api/v1/orders", "orderQueryAll")
            assert "BTC_USDC_PERP" not in await symbols("/api/v1/position", "positionQuery")


async def test_a_burst_changes_the_rate_and_ends(
    sim: RunningSimulator, client: httpx2.AsyncClient
) -> None:
    async def made(for_us: int) -> float:
        """Core events per second within `for_us` µs of engine time."""
        first = (await client.get("/simulator/stats")).json()

        async def is_over() -> bool:
            now = (await client.get("/simulator/stats")).json()
            return bool(now["engine_us"] - first["engine_us"] >= for_us)

        await eventually_async(is_over, "the interval has passed")
        last = (await client.get("/simulator/stats")).json()
        events = last["core_events"] - first["core_events"]
        return float(events) / (last["engine_us"] - first["engine_us"]) * 1e6

    number = sim.fault("burst", rate=3000)
    assert 2000 < await made(500_000) < 4500
    sim.end_fault(number)
    assert 150 < await made(1_000_000) < 600
