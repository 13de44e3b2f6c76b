"""Literal frames of the exchange and the literal fields of their Redis entries."""

import json

import pytest

from bridge.contract.causes import GapCause
from bridge.contract.entry import BadEntry, decode, encode, field_names
from bridge.contract.events import Event, Gap, Trade
from bridge.contract.fields import plain_decimal
from bridge.contract.streams import parse_stream
from bridge.core.translate import Rejected, translate
from bridge.protocol.envelope import Data, parse
from tests.support import frames

RECEIVED_US = 1790915531026999


def event_of(frame: str) -> Event | Rejected:
    data = parse(frame)
    assert isinstance(data, Data)
    return translate(parse_stream(data.stream), data, frame, RECEIVED_US)


def entry_of(frame: str) -> dict[str, str]:
    event = event_of(frame)
    assert isinstance(event, Event), event
    return dict(zip(field_names(type(event)), encode(event), strict=True))


def changed(frame: str, **changes: object) -> str:
    """The frame with these fields of its data replaced; `...` removes a field."""
    message = json.loads(frame)
    for name, value in changes.items():
        if value is ...:
            del message["data"][name]
        else:
            message["data"][name] = value
    return json.dumps(message)


def test_a_trade_has_these_fields_in_this_order() -> None:
    assert list(entry_of(frames.TRADE).items()) == [
        ("type", "trade"),
        ("symbol", "BTC_USDC_PERP"),
        ("price", "86642.9"),
        ("quantity", "0.07206"),
        ("trade_id", "99419870"),
        ("buyer_order_id", "66605329178"),
        ("seller_order_id", "66605319496"),
        ("buyer_is_maker", "false"),
        ("source", ""),
        ("event_us", "1790915531026313"),
        ("engine_us", "1790915531025000"),
        ("received_us", "1790915531026999"),
        ("extra", ""),
    ]


def test_a_depth_delta_carries_its_levels_as_json_arrays_of_strings() -> None:
    entry = entry_of(frames.DEPTH_200MS)

    assert entry["bids"] == '[["218.12","0.02"],["218.60","22.35"],["218.61","13.88"]]'
    assert entry["asks"] == '[["219.00","2.98"]]'
    assert entry["first_update_id"] == "1802083134"
    assert entry["last_update_id"] == "1802083137"


def test_a_deleted_level_keeps_its_padded_zero() -> None:
    assert entry_of(frames.DEPTH_DELETION)["bids"] == '[["340.32","0.00"]]'


def test_an_empty_depth_frame_is_an_entry_too() -> None:
    entry = entry_of(frames.DEPTH_EMPTY)

    assert (entry["bids"], entry["asks"], entry["last_update_id"]) == ("[]", "[]", "1345937436")


def test_a_book_ticker_names_both_sides() -> None:
    assert list(entry_of(frames.BOOK_TICKER).items())[:7] == [
        ("type", "bookTicker"),
        ("symbol", "SOL_USDC"),
        ("bid_price", "98.96"),
        ("bid_quantity", "288.77"),
        ("ask_price", "98.97"),
        ("ask_quantity", "22.39"),
        ("update_id", "4330360995"),
    ]


def test_an_empty_side_of_a_book_ticker_is_empty() -> None:
    entry = entry_of(changed(frames.BOOK_TICKER, a=None, A=None))

    assert (entry["ask_price"], entry["ask_quantity"]) == ("", "")


def test_a_ticker_has_no_engine_time() -> None:
    entry = entry_of(frames.TICKER)

    assert entry["engine_us"] == ""
    assert entry["last_price"] == "86625"
    assert entry["quote_volume"] == "154927125.41812"
    assert entry["trades"] == "32259"


def test_a_candle_without_trades_has_empty_prices() -> None:
    entry = entry_of(frames.KLINE_EMPTY)

    assert [entry[name] for name in ("open_price", "high_price", "low_price", "close_price")] == [
        "",
        "",
        "",
        "",
    ]
    assert (entry["base_volume"], entry["trades"], entry["closed"]) == ("", "0", "true")
    assert (entry["start_utc"], entry["end_utc"]) == ("2026-09-02T16:43:00", "2026-09-02T16:44:00")


def test_an_open_candle_keeps_every_digit() -> None:
    entry = entry_of(frames.KLINE_OPEN)

    assert (entry["close_price"], entry["base_volume"]) == ("3680.520000000", "62.2621000")
    assert entry["closed"] == "false"


def test_a_mark_price_keeps_twenty_eight_decimals() -> None:
    funding = "-0.0000039641039274236048482914"

    assert entry_of(changed(frames.MARK_PRICE, f=funding))["funding_rate"] == funding


def test_a_prediction_market_has_neither_funding_nor_index() -> None:
    entry = entry_of(changed(frames.MARK_PRICE, f=..., i=..., n=...))

    assert (entry["funding_rate"], entry["index_price"], entry["next_funding_ms"]) == ("", "", "")


def test_open_interest_and_liquidation_follow_the_documentation() -> None:
    assert entry_of(frames.OPEN_INTEREST)["open_interest"] == "100"
    liquidation = entry_of(frames.LIQUIDATION)
    assert (liquidation["side"], liquidation["price"], liquidation["quantity"]) == (
        "Bid",
        "18.70",
        "10",
    )
    assert liquidation["engine_us"] == "567"


def test_an_accepted_order_has_no_fill_and_an_explicit_null_is_none() -> None:
    entry = entry_of(frames.ORDER_ACCEPTED)

    assert (entry["type"], entry["status"], entry["trade_id"]) == ("orderAccepted", "New", "")
    assert (entry["price"], entry["quantity"], entry["quote_quantity"]) == (
        "1.0076",
        "20",
        "20.1520",
    )
    assert (entry["reduce_only"], entry["post_only"], entry["is_maker"]) == ("false", "true", "")


def test_an_order_of_2024_lacks_fields_that_were_added_later() -> None:
    entry = entry_of(frames.ORDER_ACCEPTED_2024)

    assert (entry["order_id"], entry["origin"], entry["post_only"]) == (
        "112191056122806272",
        "",
        "",
    )


def test_a_fill_names_its_trade_price_quantity_and_fee() -> None:
    entry = entry_of(frames.ORDER_FILL)

    assert (entry["trade_id"], entry["fill_price"], entry["fill_quantity"]) == (
        "2888471",
        "4299.16",
        "0.0010",
    )
    assert (entry["fee"], entry["fee_asset"], entry["is_maker"]) == ("0.000001", "ETH", "false")


def test_a_rebate_is_a_negative_fee() -> None:
    assert entry_of(changed(frames.ORDER_FILL, n="-0.000001"))["fee"] == "-0.000001"


def test_every_order_event_has_the_same_fields_in_the_same_order() -> None:
    names = [list(entry_of(frame)) for frame in (frames.ORDER_ACCEPTED, frames.ORDER_FILL)] + [
        list(entry_of(changed(frames.ORDER_ACCEPTED, e=name))) for name in ORDER_EVENTS
    ]

    assert all(each == names[0] for each in names)


ORDER_EVENTS = (
    "orderCancelled",
    "orderExpired",
    "orderModified",
    "triggerPlaced",
    "triggerFailed",
)


def test_a_trigger_quantity_may_be_a_percentage() -> None:
    frame = changed(frames.ORDER_ACCEPTED, e="triggerPlaced", P="60000", B="MarkPrice", Y="80%")

    assert entry_of(frame)["trigger_quantity"] == "80%"


def test_a_position_frame_without_event_name_is_the_position_as_it_stands() -> None:
    assert entry_of(changed(frames.POSITION_OPENED, e=...))["type"] == "position"


def test_a_position_keeps_its_integer_id_and_signed_numbers() -> None:
    entry = entry_of(changed(frames.POSITION_OPENED, q="-0.0010"))

    assert (entry["position_id"], entry["net_quantity"], entry["unrealized_pnl"]) == (
        "5411399049",
        "-0.0010",
        "-0.000473",
    )


def test_position_numbers_printed_as_json_numbers_keep_their_digits() -> None:
    frame = frames.POSITION_OPENED.replace('"4235.88650933"', "4235.886509330000000000001")

    assert entry_of(frame)["mark_price"] == "4235.886509330000000000001"


def test_a_balance_belongs_to_an_asset_not_to_a_symbol() -> None:
    entry = entry_of(frames.BALANCE_UPDATE)

    assert (entry["symbol"], entry["asset"]) == ("", "USDT")
    assert (entry["available"], entry["locked"], entry["staked"]) == ("10", "20", "0")


def test_numbers_beyond_two_to_the_fifty_three_survive() -> None:
    entry = entry_of(frames.RFQ_CANDIDATE)

    assert (entry["rfq_id"], entry["quote_id"]) == ("113392053149171712", "113392054083780608")


def test_integers_may_come_as_digit_strings() -> None:
    entry = entry_of(changed(frames.TRADE, t="99419870", E="1790915531026313"))

    assert (entry["trade_id"], entry["event_us"]) == ("99419870", "1790915531026313")


def test_ids_may_come_as_integers() -> None:
    assert entry_of(changed(frames.ORDER_ACCEPTED, c=4294967295))["client_order_id"] == "4294967295"


def test_unknown_fields_are_kept_as_json() -> None:
    entry = entry_of(changed(frames.TRADE, zz={"new": [1, "é"]}))

    assert entry["extra"] == '{"zz":{"new":[1,"\\u00e9"]}}'


def test_a_field_of_the_exchange_with_the_name_of_ours_does_not_replace_it() -> None:
    entry = entry_of(changed(frames.TRADE, price="1", received_us=5, symbol="X"))

    assert (entry["price"], entry["received_us"], entry["symbol"]) == (
        "86642.9",
        str(RECEIVED_US),
        "BTC_USDC_PERP",
    )
    assert decode(entry).extra == {"price": "1", "received_us": 5, "symbol": "X"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"p": "1e5"}, "p:"),
        ({"p": "-1"}, "p:"),
        ({"p": "NaN"}, "p:"),
        ({"p": "1,5"}, "p:"),
        ({"p": ""}, "p:"),
        ({"p": "9" * 65}, "p:"),
        ({"p": "٣"}, "p:"),
        ({"p": 86642.9}, "p:"),
        ({"p": None}, "p:"),
        ({"p": ...}, "p:"),
        ({"t": 1.5}, "t:"),
        ({"t": True}, "t:"),
        ({"t": -1}, "t:"),
        ({"t": 2**64}, "t:"),
        ({"m": "false"}, "m:"),
        ({"e": "depth"}, "e:"),
        ({"s": 5}, "s:"),
    ],
)
def test_an_invalid_value_is_refused_with_the_name_of_its_field(
    changes: dict[str, object], named: str
) -> None:
    refusal = event_of(changed(frames.TRADE, **changes))

    assert isinstance(refusal, Rejected)
    assert named in refusal.reason


def test_a_refusal_never_shows_the_value() -> None:
    refusal = event_of(changed(frames.ORDER_ACCEPTED, q="secret-amount"))

    assert isinstance(refusal, Rejected)
    assert "secret-amount" not in refusal.reason


ALL_FRAMES = [
    value for name, value in vars(frames).items() if name.isupper() and "ERROR" not in name
]


@pytest.mark.parametrize("frame", ALL_FRAMES)
def test_an_entry_reads_back_as_the_same_event(frame: str) -> None:
    event = event_of(frame)

    assert decode(entry_of(frame)) == event


def test_a_gap_is_written_with_from_and_to() -> None:
    gap = Gap.model_validate(
        {"symbol": "SOL_USDC", "from": 5, "to": 7, "cause": "skipped", "received_us": 9}
    )

    assert dict(zip(field_names(Gap), encode(gap), strict=True)) == {
        "type": "gap",
        "symbol": "SOL_USDC",
        "from": "5",
        "to": "7",
        "from_us": "",
        "to_us": "",
        "cause": "skipped",
        "recovered": "false",
        "occurrence": "",
        "event_us": "",
        "engine_us": "",
        "received_us": "9",
        "extra": "",
    }


def test_a_gap_reads_back_with_what_is_missing() -> None:
    gap = decode({"type": "gap", "from": "5", "to": "7", "cause": "skipped", "received_us": "9"})

    assert isinstance(gap, Gap)
    assert (gap.from_, gap.to, gap.cause, gap.extra) == (5, 7, "skipped", {})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"type": "nonsense"},
        {"type": "trade", "price": "1"},
        {**entry_of(frames.TRADE), "buyer_is_maker": "maybe"},
        {**entry_of(frames.DEPTH), "bids": "[["},
        {**entry_of(frames.TRADE), "extra": "[1]"},
    ],
)
def test_an_entry_that_is_not_of_the_contract_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(BadEntry):
        decode(fields)


def test_a_field_of_a_newer_contract_is_kept() -> None:
    event = decode({**entry_of(frames.TRADE), "mood": "good"})

    assert event.extra == {"mood": "good"}


def test_decode_refuses_the_exchanges_names_of_fields() -> None:
    with pytest.raises(BadEntry):
        decode({"type": "trade", "s": "SOL_USDC", "p": "1", "q": "1", "t": "1", "m": "true"})


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("skipped", GapCause.SKIPPED),
        ("silent", GapCause.STALE),  # spelling before the release of version 1
        ("buffer full", GapCause.OVERFLOW),
        ("of a later version", "of a later version"),
    ],
)
def test_a_cause_is_read_also_as_other_versions_write_it(stored: str, read: str) -> None:
    gap = Gap(from_us=1, to_us=2, cause=GapCause.SKIPPED, received_us=3)
    fields = dict(zip(field_names(Gap), encode(gap), strict=True)) | {"cause": stored}

    event = decode(fields)

    assert isinstance(event, Gap)
    assert event.cause == read
    assert isinstance(event.cause, GapCause) == (type(read) is GapCause)
    assert all(type(value) is str for value in encode(event))


@pytest.mark.parametrize(
    ("number", "stored"),
    [
        ("3.4e-6", "0.0000034"),
        ("-1.50E2", "-150"),
        ("0.100000000000000000000000001", "0.100000000000000000000000001"),
        ("7.0", "7.0"),
    ],
)
def test_a_position_s_json_number_is_stored_by_its_digits_without_exponent(
    number: str, stored: str
) -> None:
    frame = changed(frames.POSITION_OPENED, P="number").replace('"number"', number)

    assert entry_of(frame)["unrealized_pnl"] == stored


@pytest.mark.parametrize(
    ("number", "stored"),
    [("1e999", "1e999"), ("3.40", "3.40"), ("3.4e-6", "0.0000034"), ("[1.50, 2]", ["1.50", 2])],
)
def test_extra_is_json_that_holds_the_digits_of_a_fraction(number: str, stored: object) -> None:
    frame = changed(frames.TRADE, x="number").replace('"number"', number)

    fields = entry_of(frame)

    assert json.loads(fields["extra"], parse_constant=pytest.fail) == {"x": stored}
    assert decode(fields).extra == {"x": stored}


@pytest.mark.parametrize("number", ["1e9999999999", "1" * 70 + ".5", "1e-999", "9.9e64"])
def test_an_implausible_number_is_stored_as_written(number: str) -> None:
    assert plain_decimal(number) == number


def test_an_rfq_with_a_resting_order_has_its_fields() -> None:
    data = {"e": "rfqCancelRequested", "R": 113392053149171712, "s": "SOL_USDC_RFQ", "S": "Bid",
            "q": "10", "p": "15.5", "w": 1, "W": 2, "O": 3, "z": "4", "Z": "62", "l": "1",
            "L": "15.5", "X": "PartiallyFilled", "E": 1, "T": 2}  # fmt: skip

    entry = entry_of(json.dumps({"stream": "account.rfqUpdate", "data": data}))

    named = ("type", "order_expiry_ms", "executed_quantity", "executed_quote_quantity",
             "fill_quantity", "fill_quote_quantity", "status", "extra")  # fmt: skip
    assert [entry[name] for name in named] == [
        "rfqCancelRequested", "3", "4", "62", "1", "15.5", "PartiallyFilled", ""
    ]  # fmt: skip


@pytest.mark.parametrize("stream", ["orderUpdate", "positionUpdate", "balanceUpdate", "rfqUpdate"])
def test_an_account_event_of_an_unknown_name_is_an_entry_with_all_its_fields(stream: str) -> None:
    data = {"e": "somethingNew", "s": "X", "i": "9", "q": "1", "type": "t", "E": 1, "T": 2}

    entry = entry_of(json.dumps({"stream": f"account.{stream}", "data": data}))

    assert list(entry.items()) == [
        ("type", "unknown_event"),
        ("event", "somethingNew"),
        ("symbol", "X"),
        ("occurrence", ""),
        ("event_us", "1"),
        ("engine_us", "2"),
        ("received_us", str(RECEIVED_US)),
        ("extra", '{"i":"9","q":"1","type":"t"}'),
    ]


def test_a_public_message_of_an_unknown_name_is_refused() -> None:
    assert isinstance(event_of(changed(frames.TRADE, e="somethingNew")), Rejected)


def test_an_event_is_made_by_the_names_of_its_fields() -> None:
    event = event_of(frames.TRADE)
    assert isinstance(event, Trade)

    assert Trade(**dict(event)) == event
