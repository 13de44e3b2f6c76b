"""Frames rendered from the values of the exchange's examples equal their published bytes."""

from __future__ import annotations

import pytest

from simulator import events, frames
from simulator.orders import Fill, OrderView, PositionView

ORDER = OrderView(
    order_id="59887375336",
    symbol="USDT_USDC",
    side="Ask",
    order_type="LIMIT",
    time_in_force="GTC",
    status="New",
    executed="0",
    executed_quote="0",
    quantity="20",
    quote_quantity="20.1520",
    price="1.0076",
    origin="USER",
    reduce_only=False,
    post_only=True,
)

EXAMPLES = {
    "trade": (
        events.Trade(
            ("trade.BTC_USDC_PERP",),
            1790915531026313,
            1790915531025000,
            "BTC_USDC_PERP",
            "86642.9",
            "0.07206",
            "66605329178",
            "66605319496",
            99419870,
            False,
        ),
        b'{"data":{"E":1790915531026313,"T":1790915531025000,"a":"66605319496","b":"66605329178",'
        b'"e":"trade","m":false,"p":"86642.9","q":"0.07206","s":"BTC_USDC_PERP","t":99419870},'
        b'"stream":"trade.BTC_USDC_PERP"}',
    ),
    "depth": (
        events.Depth(
            ("depth.SOL_USDC",),
            1788367430247494,
            1788367430246081,
            "SOL_USDC",
            4330360995,
            4330360995,
            [("98.97", "22.39")],
            [],
        ),
        b'{"data":{"E":1788367430247494,"T":1788367430246081,"U":4330360995,'
        b'"a":[["98.97","22.39"]],"b":[],"e":"depth","s":"SOL_USDC","u":4330360995},'
        b'"stream":"depth.SOL_USDC"}',
    ),
    "depth of a window": (
        events.Depth(
            ("depth.200ms.SOL_USDC",),
            1736172778162587,
            1736172778151673,
            "SOL_USDC",
            1802083134,
            1802083137,
            [("219.00", "2.98")],
            [("218.12", "0.02"), ("218.60", "22.35"), ("218.61", "13.88")],
        ),
        b'{"data":{"E":1736172778162587,"T":1736172778151673,"U":1802083134,'
        b'"a":[["219.00","2.98"]],"b":[["218.12","0.02"],["218.60","22.35"],["218.61","13.88"]],'
        b'"e":"depth","s":"SOL_USDC","u":1802083137},"stream":"depth.200ms.SOL_USDC"}',
    ),
    "depth with nothing": (
        events.Depth(
            ("depth.ETH_USDC",),
            1754903057555305,
            1754903057554352,
            "ETH_USDC",
            1345937436,
            1345937436,
            [],
            [],
        ),
        b'{"data":{"E":1754903057555305,"T":1754903057554352,"U":1345937436,"a":[],"b":[],'
        b'"e":"depth","s":"ETH_USDC","u":1345937436},"stream":"depth.ETH_USDC"}',
    ),
    "bookTicker": (
        events.BookTicker(
            ("bookTicker.SOL_USDC",),
            1788367430247487,
            1788367430246081,
            "SOL_USDC",
            4330360995,
            "98.97",
            "22.39",
            "98.96",
            "288.77",
        ),
        b'{"data":{"A":"22.39","B":"288.77","E":1788367430247487,"T":1788367430246081,'
        b'"a":"98.97","b":"98.96","e":"bookTicker","s":"SOL_USDC","u":4330360995},'
        b'"stream":"bookTicker.SOL_USDC"}',
    ),
    "ticker": (
        events.Ticker(
            ("ticker.BTC_USDC_PERP",),
            1790134358087727,
            "ticker",
            "BTC_USDC_PERP",
            "85486.3",
            "86625",
            "86812.4",
            "85075.4",
            "1801.83549",
            "154927125.41812",
            32259,
        ),
        b'{"data":{"E":1790134358087727,"V":"154927125.41812","c":"86625","e":"ticker",'
        b'"h":"86812.4","l":"85075.4","n":32259,"o":"85486.3","s":"BTC_USDC_PERP",'
        b'"v":"1801.83549"},"stream":"ticker.BTC_USDC_PERP"}',
    ),
    "kline, empty and closed": (
        events.Kline(
            ("kline.1m.SOL_USDC",),
            1788367440511558,
            "SOL_USDC",
            "2026-09-02T16:43:00",
            "2026-09-02T16:44:00",
            None,
            None,
            None,
            None,
            None,
            0,
            True,
        ),
        b'{"data":{"E":1788367440511558,"e":"kline","s":"SOL_USDC","T":"2026-09-02T16:44:00",'
        b'"X":true,"c":null,"h":null,"l":null,"n":0,"o":null,"t":"2026-09-02T16:43:00","v":null},'
        b'"stream":"kline.1m.SOL_USDC"}',
    ),
    "kline, open": (
        events.Kline(
            ("kline.2h.ETH_USDC",),
            1754519557526056,
            "ETH_USDC",
            "2025-08-06T22:00:00",
            "2025-08-07T00:00:00",
            "3670.150000000",
            "3681.370000000",
            "3667.650000000",
            "3680.520000000",
            "62.2621000",
            255,
            False,
        ),
        b'{"data":{"E":1754519557526056,"e":"kline","s":"ETH_USDC","T":"2025-08-07T00:00:00",'
        b'"X":false,"c":"3680.520000000","h":"3681.370000000","l":"3667.650000000","n":255,'
        b'"o":"3670.150000000","t":"2025-08-06T22:00:00","v":"62.2621000"},'
        b'"stream":"kline.2h.ETH_USDC"}',
    ),
    "markPrice": (
        events.MarkPrice(
            ("markPrice.AAPL.US_USDC_PERP",),
            1790134357847601,
            1790134357846930,
            "AAPL.US_USDC_PERP",
            "340.43",
            "0.00000625",
            "340.52",
            1790136000000,
        ),
        b'{"data":{"E":1790134357847601,"T":1790134357846930,"e":"markPrice","f":"0.00000625",'
        b'"i":"340.52","n":1790136000000,"p":"340.43","s":"AAPL.US_USDC_PERP"},'
        b'"stream":"markPrice.AAPL.US_USDC_PERP"}',
    ),
    "markPrice of a prediction": (
        events.MarkPrice(
            ("markPrice.X_USDC_PREDICTION",), 2, 1, "X_USDC_PREDICTION", "0.4", None, None, None
        ),
        b'{"data":{"E":2,"T":1,"e":"markPrice","p":"0.4","s":"X_USDC_PREDICTION"},'
        b'"stream":"markPrice.X_USDC_PREDICTION"}',
    ),
    "openInterest": (
        events.OpenInterest(
            ("openInterest.SOL_USDC_PERP",), 1694687965941000, "SOL_USDC_PERP", "100"
        ),
        b'{"data":{"E":1694687965941000,"e":"openInterest","o":"100","s":"SOL_USDC_PERP"},'
        b'"stream":"openInterest.SOL_USDC_PERP"}',
    ),
    "liquidation": (
        events.Liquidation(
            ("liquidation",), 1694688638091000, 567, "SOL_USDC", "Bid", "18.70", "10"
        ),
        b'{"data":{"E":1694688638091000,"S":"Bid","T":567,"e":"liquidation","p":"18.70",'
        b'"q":"10","s":"SOL_USDC"},"stream":"liquidation"}',
    ),
    "stockPrice": (
        events.StockPrice(
            ("stockPrice.BRK.B",), 5, "BRK.B", "491.24", "491.26", "491.25", 4, "Regular"
        ),
        b'{"data":{"ask":"491.26","bid":"491.24","e":"stockPrice","mid":"491.25",'
        b'"session":"Regular","symbol":"BRK.B","timestamp":4},"stream":"stockPrice.BRK.B"}',
    ),
    "orderAccepted": (
        events.OrderUpdate(
            ("account.orderUpdate",),
            "key",
            1788368290063153,
            1788368290062979,
            "orderAccepted",
            ORDER,
            None,
            None,
        ),
        b'{"data":{"E":1788368290063153,"O":"USER","Q":"20.1520","S":"Ask",'
        b'"T":1788368290062979,"V":"RejectTaker","X":"New","Z":"0","e":"orderAccepted",'
        b'"f":"GTC","i":"59887375336","o":"LIMIT","p":"1.0076","q":"20","r":false,'
        b'"s":"USDT_USDC","t":null,"y":true,"z":"0"},"stream":"account.orderUpdate"}',
    ),
    "orderCancelled": (
        events.OrderUpdate(
            ("account.orderUpdate",),
            "key",
            1788368293114025,
            1788368293113270,
            "orderCancelled",
            ORDER._replace(status="Cancelled"),
            None,
            None,
        ),
        b'{"data":{"E":1788368293114025,"O":"USER","Q":"20.1520","S":"Ask",'
        b'"T":1788368293113270,"V":"RejectTaker","X":"Cancelled","Z":"0","e":"orderCancelled",'
        b'"f":"GTC","i":"59887375336","o":"LIMIT","p":"1.0076","q":"20","r":false,'
        b'"s":"USDT_USDC","t":null,"y":true,"z":"0"},"stream":"account.orderUpdate"}',
    ),
    "orderFill": (
        events.OrderUpdate(
            ("account.orderUpdate.ETH_USDC",),
            "key",
            1754939110175879,
            1754939110174705,
            "orderFill",
            OrderView(
                order_id="5406825793",
                symbol="ETH_USDC",
                side="Bid",
                order_type="MARKET",
                time_in_force="GTC",
                status="Filled",
                executed="0.0010",
                executed_quote="4.299160",
                quantity="0.0010",
                quote_quantity="4.30",
                origin="USER",
                reduce_only=False,
            ),
            Fill(2888471, "4299.16", "0.0010", "0.000001", "ETH", maker=False),
            None,
        ),
        b'{"data":{"E":1754939110175879,"L":"4299.16","N":"ETH","O":"USER","Q":"4.30",'
        b'"S":"Bid","T":1754939110174705,"V":"RejectTaker","X":"Filled","Z":"4.299160",'
        b'"e":"orderFill","f":"GTC","i":"5406825793","l":"0.0010","m":false,"n":"0.000001",'
        b'"o":"MARKET","q":"0.0010","r":false,"s":"ETH_USDC","t":2888471,"z":"0.0010"},'
        b'"stream":"account.orderUpdate.ETH_USDC"}',
    ),
    "positionOpened": (
        events.PositionUpdate(
            ("account.positionUpdate",),
            "key",
            1754943862040486,
            1754943862040487,
            "positionOpened",
            PositionView(
                symbol="ETH_USDC_PERP",
                position_id=5411399049,
                quantity="0.0010",
                exposure_quantity="0.0010",
                exposure_notional="4.23588650933",
                entry_price="4236.36",
                break_even_price="4238.479",
                mark_price="4235.88650933",
                initial_margin="0.02",
                maintenance_margin="0.0125",
                realised="0",
                unrealised="-0.000473",
            ),
        ),
        b'{"data":{"B":"4236.36","E":1754943862040486,"M":"4235.88650933","P":"-0.000473",'
        b'"Q":"0.0010","T":1754943862040487,"b":"4238.479","e":"positionOpened","f":"0.02",'
        b'"i":5411399049,"l":"0","m":"0.0125","n":"4.23588650933","p":"0","q":"0.0010",'
        b'"s":"ETH_USDC_PERP"},"stream":"account.positionUpdate"}',
    ),
    "balanceUpdate": (
        events.BalanceUpdate(
            ("account.balanceUpdate",),
            "key",
            1788368290063168,
            1788368290062981,
            "USDT",
            "10",
            "20",
            "0",
        ),
        b'{"data":{"A":"10","E":1788368290063168,"L":"20","S":"0","T":1788368290062981,'
        b'"a":"USDT","e":"balanceUpdate"},"stream":"account.balanceUpdate"}',
    ),
    "rfqCandidate": (
        events.RfqUpdate(
            ("account.rfqUpdate",),
            "key",
            1730225490648996,
            1730225490647080,
            "rfqCandidate",
            {
                "R": 113392053149171712,
                "u": 113392054083780608,
                "C": "123",
                "s": "SOL_USDC_RFQ",
                "S": "Bid",
                "q": "10",
                "p": "15.50",
                "X": "New",
            },
        ),
        b'{"data":{"C":"123","E":1730225490648996,"R":113392053149171712,"S":"Bid",'
        b'"T":1730225490647080,"X":"New","e":"rfqCandidate","p":"15.50","q":"10",'
        b'"s":"SOL_USDC_RFQ","u":113392054083780608},"stream":"account.rfqUpdate"}',
    ),
}


@pytest.mark.parametrize(("event", "frame"), EXAMPLES.values(), ids=EXAMPLES.keys())
def test_an_event_becomes_the_exchange_s_own_bytes(event: events.Event, frame: bytes) -> None:
    assert frames.render(event, event.streams[0]) == frame


def test_an_error_never_repeats_the_request_s_id() -> None:
    assert (
        frames.error(4006, "Invalid stream")
        == b'{"id":null,"error":{"code":4006,"message":"Invalid stream"}}'
    )


def test_the_reason_of_an_expiry_is_its_member_r() -> None:
    event = events.OrderUpdate(
        ("account.orderUpdate",), "key", 2, 1, "orderExpired", ORDER, None, "PostOnlyTaker"
    )
    assert b'"R":"PostOnlyTaker","S":"Ask"' in frames.render(event, "account.orderUpdate")
