"""Small parts of the simulator: decimals, listings, candle bounds, hub, ledger, REST bodies."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import frames, playback, rest_bodies
from simulator.candles import INTERVALS, PricedCandles, candle_end, candle_start
from simulator.client import Client
from simulator.decimals import exact, padded, plain, trimmed
from simulator.engine import Engine
from simulator.events import OpenInterest
from simulator.hub import Hub, always_recorded
from simulator.ledger import Ledger
from simulator.listing import MarketType, listing
from simulator.session import Topic
from simulator.windows import Windows
from tests.support.simulator_runs import plan, run


@given(st.integers(-(10**12), 10**12), st.integers(0, 8))
def test_decimals_state_the_same_number_in_every_spelling(units: int, places: int) -> None:
    value = exact(units, places)
    assert Decimal(padded(units, places)) == value
    assert Decimal(trimmed(units, places)) == value
    assert trimmed(units, places) == plain(value)


def test_padded_keeps_zeros_and_trimmed_drops_them() -> None:
    assert (padded(867000, 1), trimmed(867000, 1)) == ("86700.0", "86700")
    assert (padded(0, 5), trimmed(0, 5)) == ("0.00000", "0")
    assert (padded(12, 0), trimmed(100, 0)) == ("12", "100")


def test_a_symbol_names_its_market() -> None:
    stock = listing("AAPL.US_USDC_PERP")
    assert (stock.base, stock.quote, stock.market_type) == ("AAPL.US", "USDC", MarketType.PERP)
    assert stock.rwa_type == "STOCK"
    assert listing("kSHIB_USDC_PERP").base == "kSHIB"
    assert listing("NEVERSEEN_USDC") == listing("NEVERSEEN_USDC")  # the same each time
    assert listing("ODD_USDC_PREDICTION").highest_price == 999


@pytest.mark.parametrize("symbol", ["", "SOL", "SOL-USDC", "SOL_USDC_RFQ", "SOL_usdc"])
def test_an_invalid_market_symbol_cannot_be_listed(symbol: str) -> None:
    with pytest.raises(ValueError, match="not a market symbol"):
        listing(symbol)


@given(st.sampled_from(INTERVALS), st.integers(0, 4_000_000_000_000))
def test_every_moment_lies_in_its_candle(interval: str, at_ms: int) -> None:
    start = candle_start(interval, at_ms)
    assert start <= at_ms < candle_end(interval, start)
    assert candle_start(interval, candle_end(interval, start)) == candle_end(interval, start)


def test_weeks_start_on_monday_and_months_on_the_first() -> None:
    at_ms = int(datetime(2026, 11, 23, 3, tzinfo=UTC).timestamp() * 1000)
    week = datetime.fromtimestamp(candle_start("1w", at_ms - 1) / 1000, UTC)
    month = candle_start("1month", at_ms)
    assert week.weekday() == 0
    assert datetime.fromtimestamp(month / 1000, UTC) == datetime(2026, 11, 1, tzinfo=UTC)
    assert datetime.fromtimestamp(candle_end("1month", month) / 1000, UTC) == datetime(
        2026, 12, 1, tzinfo=UTC
    )


EVENT = OpenInterest(("openInterest.SOL_USDC_PERP",), 5, "SOL_USDC_PERP", "1")


def test_the_hub_sends_to_subscribers_only_and_stops_on_request() -> None:
    hub, listener, other = Hub(lambda: 0), Client(10, 1000), Client(10, 1000)
    topic = Topic("openInterest.SOL_USDC_PERP")
    hub.subscribe(listener, topic)
    hub.put(EVENT)
    hub.unsubscribe(listener, topic)
    hub.put(EVENT)
    assert listener.pop() is not None
    assert listener.pop() is None
    assert other.pop() is None
    assert hub.counts == {"openInterest.SOL_USDC_PERP": 2}


def test_a_client_whose_queue_is_full_is_dropped_and_its_queue_freed() -> None:
    client = Client(3, 1000)
    for _ in range(4):
        client.push(b"frame")
    assert client.too_slow.is_set()
    assert client.pop() is None
    client.push(b"frame")
    assert client.pop() is None


def test_a_queue_is_bounded_in_bytes_too() -> None:
    client = Client(1000, 100)
    client.push(b"x" * 101)
    assert client.too_slow.is_set()


@pytest.mark.parametrize(
    ("stream", "always"),
    [
        ("trade.SOL_USDC", True),
        ("depth.AAPL.US_USDC_PERP", True),
        ("depth.200ms.SOL_USDC", False),
        ("bookTicker.SOL_USDC", False),
        ("account.orderUpdate", True),
        ("account.orderUpdate.SOL_USDC", False),
        ("liquidation", False),
    ],
)
def test_what_the_ledger_always_records(stream: str, always: bool) -> None:
    assert always_recorded(stream) is always


def test_the_ledger_holds_frames_as_they_are_between_header_and_end(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path, seed=7, start_us=1, markets=["SOL_USDC"])
    hub = Hub(lambda: 99, ledger)
    client = Client(10, 1000)
    hub.put(EVENT)
    hub.enter(client)
    hub.subscribe(client, Topic("openInterest.SOL_USDC_PERP"))
    hub.put(EVENT)
    hub.leave(client)
    hub.put(EVENT)
    ledger.close()
    frame = (
        b'{"data":{"E":5,"e":"openInterest","o":"1","s":"SOL_USDC_PERP"},'
        b'"stream":"openInterest.SOL_USDC_PERP"}'
    )
    assert path.read_bytes().splitlines() == [
        b'{"seed":7,"start_us":1,"markets":["SOL_USDC"]}',
        b'{"at_us":99,"connection":1,"state":"opened"}',
        b'{"at_us":99,"connection":1,"subscribed":"openInterest.SOL_USDC_PERP"}',
        b'{"at_us":99,"sent":1,"to":[1],"frame":' + frame + b"}",
        b'{"at_us":99,"connection":1,"state":"ended","sent":0,"left":1}',
        b'{"at_us":99,"sent":0,"to":[],"frame":' + frame + b"}",
        b'{"end":true}',
    ]


def test_a_recording_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    lines = [
        '{"data":{"E":5,"s":"SOL_USDC"},"stream":"trade.SOL_USDC"}',
        '{"id":null,"error":{"code":4002,"message":"Parse error"}}',
        '{"stream":"stockPrice.BRK.B","data":{"symbol":"BRK.B"}}',
    ]
    path.write_text("\n".join(lines) + "\n")
    recorded = playback.load(path)
    assert [x.frame.decode() for x in recorded] == lines
    assert [x.stream for x in recorded] == ["trade.SOL_USDC", None, "stockPrice.BRK.B"]
    assert [x.event_us for x in recorded] == [5, None, None]
    assert [x.symbol for x in playback.listings(recorded)] == ["SOL_USDC"]
    assert [x.frame.decode() for x in playback.load(path, 2, 2)] == lines[1:2]


def test_a_line_that_is_no_frame_is_named(tmp_path: Path) -> None:
    path = tmp_path / "frames.jsonl"
    path.write_text('{"id":null}\nrubbish\n')
    with pytest.raises(ValueError, match="line 2 of"):
        playback.load(path)


def test_rest_trades_are_the_newest_first_and_page_by_offset() -> None:
    engine = Engine(plan(1, symbols=("SOL_USDC",)))
    run(engine, 20)
    market = engine.markets["SOL_USDC"]
    ids = [row["id"] for row in rest_bodies.trades(market, 50)]
    assert ids == list(range(market.trade_id, market.trade_id - 50, -1))
    assert [row["id"] for row in rest_bodies.trades(market, 5, 10)] == ids[10:15]


def test_rest_depth_has_ascending_bids_and_asks_and_keeps_the_best() -> None:
    engine = Engine(plan(1, symbols=("BTC_USDC_PERP",)))
    body = rest_bodies.depth(engine.markets["BTC_USDC_PERP"], 5, 1)
    bids = [Decimal(price) for price, _ in body["bids"]]
    asks = [Decimal(price) for price, _ in body["asks"]]
    assert (len(bids), len(asks)) == (5, 5)
    assert bids == sorted(bids)
    assert asks == sorted(asks)
    top = engine.markets["BTC_USDC_PERP"].book.top()
    assert (bids[-1], asks[0]) == (exact(top.bid or 0, 1), exact(top.ask or 0, 1))
    assert body["lastUpdateId"] == "6730019257"


def test_rest_candles_leave_the_running_one_out() -> None:
    engine = Engine(plan(1, symbols=("SOL_USDC",)))
    run(engine, 130)
    now_ms = engine.played_us // 1000
    start_ms = engine.plan.start_us // 1000
    candles = PricedCandles(engine.markets["SOL_USDC"].candles, 2, 2)
    bodies = rest_bodies.klines(candles, "1m", start_ms=start_ms, end_ms=now_ms + 1, now_ms=now_ms)
    assert [x["start"] for x in bodies] == ["2026-09-21 14:13:00", "2026-09-21 14:14:00"]
    assert all(isinstance(value, str) for value in bodies[0].values())


def test_a_market_body_has_the_exchange_s_members() -> None:
    body = rest_bodies.market(listing("SOL_USDC"))
    assert (body["marketType"], body["baseSymbol"], body["quoteSymbol"]) == ("SPOT", "SOL", "USDC")
    assert body["filters"]["price"]["tickSize"] == "0.01"
    assert body["filters"]["quantity"]["stepSize"] == "0.01"
    assert rest_bodies.market(listing("BTC_USDC_PERP"))["fundingInterval"] == 3_600_000


def test_events_are_json_and_streams_are_named_by_type_and_symbol() -> None:
    engine = Engine(plan(1))
    kinds: set[str] = set()
    for event in run(engine, 65):
        for stream in event.streams:
            frame = json.loads(frames.render(event, stream))
            assert frame["stream"] == stream
            kinds.add(stream.split(".")[0])
    assert kinds == {
        "trade",
        "depth",
        "bookTicker",
        "ticker",
        "externalTicker",
        "kline",
        "markPrice",
        "openInterest",
        "liquidation",
        "stockPrice",
        "stockIndicativeQuote",
        "account",
    }


def test_a_window_covers_updates_that_change_nothing_and_keeps_the_last_quantity() -> None:
    windows = Windows(listing("SOL_USDC"))
    windows.note(10, 1, [], [])
    windows.note(20, 2, [("99.00", "5.00")], [("98.00", "1.00")])
    windows.note(30, 3, [("98.50", "2.00"), ("99.00", "0.00")], [])
    windows.note(40, 4, [], [])
    event = windows.cut(200, 50)
    assert event is not None
    assert (event.first_id, event.last_id, event.engine_us, event.event_us) == (1, 4, 40, 50)
    assert event.asks == [("98.50", "2.00"), ("99.00", "0.00")]
    assert event.bids == [("98.00", "1.00")]
    assert windows.cut(200, 60) is None
    longer = windows.cut(600, 70)
    assert longer is not None
    assert longer.asks == event.asks
