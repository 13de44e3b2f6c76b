"""Account events of an unknown or invalid form are written to their stream."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.entry import decode_within, encode
from bridge.contract.identity import event_key
from bridge.contract.streams import parse_stream
from tests.support import frames
from tests.support.core_subject import BALANCES, NOW_US, ORDERS, CoreSubject, changed

POSITIONS = "account.positionUpdate"
ORDER = {
    "e": "orderFill", "s": "SOL_USDC", "i": "59", "S": "Bid", "o": "LIMIT", "X": "Filled",
    "p": "86.1", "E": NOW_US, "T": NOW_US,
}  # fmt: skip
UNREAD = {"received_us": str(NOW_US), "occurrence": ""}


def frame(stream: str, data: object) -> str:
    return json.dumps({"stream": stream, "data": data})


def received(stream: str, data: object) -> list[dict[str, str]]:
    """Receive a message that is also quarantined; return the stream's queued entries."""
    core = CoreSubject(stream)
    assert core.receive(frame(stream, data)) == stream
    assert len(core.quarantined()) == 1
    return core.named(stream)


def unknown(event: str = "", symbol: str = "", us: str = "", **extra: object) -> dict[str, str]:
    text = json.dumps(extra, separators=(",", ":"), sort_keys=True) if extra else ""
    times = {"event_us": us, "engine_us": us}
    return UNREAD | times | {
        "type": "unknown_event", "event": event, "symbol": symbol, "extra": text
    }  # fmt: skip


REST = {name: value for name, value in ORDER.items() if name not in "esET"}
US = str(NOW_US)


@pytest.mark.parametrize(
    ("stream", "data", "entry"),
    [
        (ORDERS, ORDER | {"S": "Buy"}, unknown("orderFill", "SOL_USDC", US, **REST | {"S": "Buy"})),
        (ORDERS, ORDER | {"p": 86}, unknown("orderFill", "SOL_USDC", US, **REST | {"p": 86})),
        (ORDERS, ORDER | {"e": 7}, unknown("", "SOL_USDC", US, **REST, e=7)),
        (ORDERS, ORDER | {"e": ""}, unknown("", "SOL_USDC", US, **REST, e="")),
        (ORDERS, ORDER | {"e": "x" * 200}, unknown("", "SOL_USDC", US, **REST, e="x" * 200)),
        (ORDERS, ORDER | {"e": ["x"]}, unknown("", "SOL_USDC", US, **REST, e=["x"])),
        (ORDERS, ORDER | {"e": {"x": 1}}, unknown("", "SOL_USDC", US, **REST, e={"x": 1})),
        (ORDERS, ORDER | {"e": "orderSplit", "s": 5, "E": "soon", "T": -1},
         unknown("orderSplit", **REST, s=5, E="soon", T=-1)),
        (ORDERS, [ORDER], unknown(data=[ORDER])),
        (ORDERS, {}, unknown()),
        (ORDERS, "hello", unknown(data="hello")),
        (ORDERS, {"e": "orderFill", "bridge:type": "gap", "bridge:occurrence": 3},
         unknown("orderFill", **{"bridge:type": "gap", "bridge:occurrence": 3})),
        (BALANCES, {"a": "SOL", "A": "1"}, unknown(a="SOL", A="1")),
        (POSITIONS, {"e": None, "s": "SOL_USDC"}, unknown("", "SOL_USDC")),
        (POSITIONS, {"s": "SOL_USDC", "q": {"long": 3.4e-6}},
         unknown("", "SOL_USDC", q={"long": "0.0000034"})),
    ],
    ids=str,
)  # fmt: skip
def test_account_event_of_an_unknown_form_is_written_to_its_stream(
    stream: str, data: object, entry: dict[str, str]
) -> None:
    [found] = received(stream, data)

    assert json.loads(found.pop("extra") or "null") == json.loads(entry.pop("extra") or "null")
    assert found == entry


def test_account_event_with_a_decimal_that_is_a_number_is_read_by_its_digits() -> None:
    [found] = received(ORDERS, ORDER | {"p": 86.10})

    assert (found["type"], found["price"], found["extra"]) == ("orderFill", "86.1", "")


def test_account_event_of_an_unknown_form_is_no_unknown_event_and_its_copies_are_numbered() -> None:
    core = CoreSubject(ORDERS)
    core.receive(frame(ORDERS, {"e": "orderFill"}))
    core.receive(frame(ORDERS, {"e": "orderFill"}))

    assert core.core.unknown_events.counts == {}
    assert [found["occurrence"] for found in core.named(ORDERS)] == ["", "1"]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (rb'"\ud800"', "\ud800"),
        (b"NaN", "NaN"),
        (b'"\xff"', "\ufffd"),
        (b"[1.50, -Infinity]", ["1.50", "-Infinity"]),
    ],
)
def test_account_event_with_invalid_json_values_is_written_to_its_stream(
    value: bytes, kept: object
) -> None:
    core = CoreSubject(ORDERS)
    core.receive(b'{"stream":"account.orderUpdate","data":{"e":"orderFill","c":%b}}' % value)

    [found] = core.named(ORDERS)
    assert (found["type"], found["event"]) == ("unknown_event", "orderFill")
    assert json.loads(found["extra"]) == {"c": kept}


@pytest.mark.parametrize(
    "raw",
    [
        b'{"stream":"account.orderUpdate","data":{"e":"orderFill"',
        b'{"stream":"account.orderUpdate","data":' + b"[" * 100_000,
        b'{"stream":["account."],"data":NaN}',
        b'["account.", NaN]',
    ],
)
def test_account_message_that_is_not_json_is_quarantined_only(raw: bytes) -> None:
    core = CoreSubject(ORDERS)
    core.receive(raw)

    assert core.named(ORDERS) == []
    assert len(core.quarantined()) == 1


def test_public_message_of_an_unknown_form_is_written_to_no_stream() -> None:
    core = CoreSubject("trade.SOL_USDC")
    core.receive(frame("trade.SOL_USDC", [1]))
    core.receive(changed(frames.TRADE.replace("BTC_USDC_PERP", "SOL_USDC"), p=1))

    assert core.named("trade.SOL_USDC") == []
    assert len(core.quarantined()) == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=5),
    lambda below: st.lists(below, max_size=3)
    | st.dictionaries(st.text("esETqipS", max_size=2), below, max_size=3),
    max_leaves=6,
)  # fmt: skip
NAMES = st.sampled_from([*ORDER, "a", "A", "L", "q", "n", "m", "R", "zz", "type", "extra"])
STREAMS = ("orderUpdate", "positionUpdate", "balanceUpdate", "rfqUpdate")


@given(st.sampled_from(STREAMS), st.dictionaries(NAMES, JSON, max_size=4), st.booleans())
def test_account_message_of_any_form_is_an_entry_that_is_found_in_redis_by_its_content(
    kind: str, values: dict[str, Any], is_order: bool
) -> None:
    name = f"account.{kind}"
    core = CoreSubject(name)
    core.receive(frame(name, (ORDER if is_order else {}) | values))
    [slot] = core.queue(name).slots
    stored = dict(zip(slot.entry.names, slot.entry.values, strict=True))

    event = decode_within(parse_stream(name).spec, stored)

    assert event_key(event, encode(event)) == slot.entry.key
