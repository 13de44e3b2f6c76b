"""Entry IDs, and the identity of messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.entry import decode, encode
from bridge.contract.events import BookTicker, Depth, MarkPrice, OrderUpdate, Ticker, Trade
from bridge.contract.identity import (
    BadIdentity,
    EntryId,
    believable_us,
    content_seq,
    event_key,
    order_value,
    place,
)

NOW_US = 1_790_915_531_026_999
HOUR_US = 3_600_000_000


def trade(number: int = 7, engine_us: int = NOW_US, event_us: int = NOW_US) -> Trade:
    return Trade.model_validate(
        {"e": "trade", "s": "SOL_USDC", "p": "1", "q": "2", "t": number, "m": True,
         "E": event_us, "T": engine_us, "received_us": NOW_US}
    )  # fmt: skip


def depth(first: int, last: int) -> Depth:
    return Depth.model_validate(
        {"e": "depth", "s": "SOL_USDC", "U": first, "u": last, "a": [], "b": [],
         "E": NOW_US, "T": NOW_US, "received_us": NOW_US}
    )  # fmt: skip


def fill(trade_id: int = 5, event_us: int = 1, origin: str = "USER") -> OrderUpdate:
    return OrderUpdate.model_validate(
        {"e": "orderFill", "s": "SOL_USDC", "i": "9", "S": "Bid", "o": "LIMIT", "X": "Filled",
         "t": trade_id, "O": origin, "E": event_us, "T": 2, "received_us": NOW_US}
    )  # fmt: skip


def test_an_id_reads_and_writes_as_redis_does_and_compares_by_number() -> None:
    assert str(EntryId.parse("1790915531025-994198700")) == "1790915531025-994198700"
    assert EntryId.parse("5") == EntryId(5, 0)
    assert EntryId.parse("9-1") < EntryId.parse("10-0")
    assert EntryId.parse("1-43303609951").position == 4330360995


def test_a_trade_follows_the_one_before_it_and_a_delta_the_last_update() -> None:
    assert place(trade(99419870)) == (99419870, 99419869)
    assert place(depth(1802083134, 1802083137)) == (1802083137, 1802083133)


@pytest.mark.parametrize("event", [trade(0), depth(0, 5), depth(6, 5), trade(9 * 10**14)])
def test_an_implausible_number_is_refused(event: Trade | Depth) -> None:
    with pytest.raises(BadIdentity):
        place(event)


def test_the_engines_time_is_taken_when_it_is_within_an_hour_of_receiving() -> None:
    assert believable_us(trade(engine_us=NOW_US - HOUR_US), NOW_US) == NOW_US - HOUR_US
    assert believable_us(trade(engine_us=NOW_US + HOUR_US), NOW_US) == NOW_US + HOUR_US


def test_an_implausible_engine_time_is_replaced_by_the_event_time_or_by_none() -> None:
    assert believable_us(trade(engine_us=567, event_us=NOW_US - 5), NOW_US) == NOW_US - 5
    assert believable_us(trade(engine_us=567, event_us=NOW_US + HOUR_US + 1), NOW_US) == 0


def test_states_are_ordered_by_update_id_engine_time_or_event_time() -> None:
    ticker = BookTicker.model_validate(
        {"e": "bookTicker", "s": "X", "a": "1", "A": "1", "b": "1", "B": "1", "u": 77,
         "E": NOW_US, "T": NOW_US, "received_us": NOW_US}
    )  # fmt: skip
    mark = MarkPrice.model_validate(
        {"e": "markPrice", "s": "X", "p": "1", "E": NOW_US, "T": NOW_US - 9, "received_us": NOW_US}
    )
    rolling = Ticker.model_validate(
        {"e": "ticker", "s": "X", "o": "1", "c": "1", "h": "1", "l": "1", "v": "1", "V": "1",
         "n": 1, "E": NOW_US - 3, "received_us": NOW_US}
    )  # fmt: skip

    assert order_value(ticker, believable_us(ticker, NOW_US)) == 77
    assert order_value(mark, believable_us(mark, NOW_US)) == NOW_US - 9
    assert order_value(rolling, believable_us(rolling, NOW_US)) == NOW_US - 3
    assert order_value(mark, believable_us(mark, NOW_US + 2 * HOUR_US)) == 0


def test_the_key_of_a_message_ignores_times_of_emission_and_receipt() -> None:
    one, again = (
        event_key(event, encode(event))
        for event in (
            OrderUpdate.model_validate(
                {"e": "orderAccepted", "s": "X", "i": "9", "S": "Bid", "o": "LIMIT", "X": "New",
                 "E": moment, "T": 2, "received_us": moment}
            )
            for moment in (1, 3)
        )
    )  # fmt: skip

    assert one == again


def test_another_engine_time_is_another_message() -> None:
    first, second = (
        OrderUpdate.model_validate(
            {"e": "orderAccepted", "s": "X", "i": "9", "S": "Bid", "o": "LIMIT", "X": "New",
             "E": 1, "T": engine_us, "received_us": 1}
        )
        for engine_us in (1, 2)
    )  # fmt: skip

    assert event_key(first, encode(first)) != event_key(second, encode(second))


def test_a_fill_is_identified_by_its_trade_alone() -> None:
    live, from_history = fill(origin="USER"), fill(event_us=99, origin="UNKNOWN")

    assert event_key(live, encode(live)) == event_key(from_history, encode(from_history))
    other = fill(trade_id=6)
    assert event_key(live, encode(live)) != event_key(other, encode(other))


def test_the_key_of_a_stored_entry_is_the_key_it_was_sent_with() -> None:
    event = fill()
    stored = decode(
        {
            "type": "orderFill", "symbol": "SOL_USDC", "order_id": "9", "side": "Bid",
            "order_type": "LIMIT", "status": "Filled", "trade_id": "5", "origin": "USER",
            "event_us": "1", "engine_us": "2", "received_us": str(NOW_US),
        }
    )  # fmt: skip

    assert event_key(stored, encode(stored)) == event_key(event, encode(event))


@given(st.integers(0, 2**53))
def test_the_sequence_by_content_has_room_for_a_thousand_in_each_microsecond(us: int) -> None:
    assert content_seq(us) == us % 1000 * 1000
    assert content_seq(us) <= 999_000
