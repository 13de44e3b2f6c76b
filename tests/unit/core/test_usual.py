"""The fast path for usual frames returns the same message as the full path."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.contract.entry import field_names
from bridge.contract.entry_form import value_names
from bridge.contract.stream_types import STREAM_SPECS
from bridge.contract.streams import parse_stream
from bridge.core.book import Delta
from bridge.core.content import Content
from bridge.core.peers import Peers
from bridge.core.queue import Resume
from bridge.core.records import Frame
from bridge.core.translate import Rejected
from bridge.core.usual import Message, Together, UsualMessages, judge
from bridge.protocol.envelope import Data, parse
from bridge.protocol.one_pass import Unusual, is_usual, read_usual
from tests.support import frames

USUAL = (
    frames.TRADE, frames.DEPTH, frames.DEPTH_DELETION, frames.DEPTH_EMPTY, frames.BOOK_TICKER,
    frames.TICKER, frames.TICKER.replace('"ticker', '"externalTicker'), frames.KLINE_EMPTY,
    frames.KLINE_OPEN, frames.MARK_PRICE, frames.OPEN_INTEREST,
)  # fmt: skip
NOW_US, HOUR_US = 1_790_915_531_026_999, 3_600_000_000
EMPTY_JSON = ("null", "true", "-0", "1.0", "1e3", "NaN", "[]", "{}", '""')


def read_both_ways(frame: bytes, received_us: int) -> tuple[Message | None, Message | None]:
    """The message from the fast path (None: unusual), and from the full one (None: refused)."""
    queue = Content(parse_stream(json.loads(frame)["stream"]), Peers(), Resume())
    usual = UsualMessages()
    usual.add(queue)
    message, data = usual.read(frame, Together.at(received_us, 1, [queue.name])), parse(frame)
    if not isinstance(data, Data):
        return message, None
    judged = judge(queue, data, Frame(received_us, 1, frame), None)
    return message, None if isinstance(judged, Rejected) else judged[1]


def facts(message: Message) -> list[object]:
    """The values of a message; a book's change as a list, since its class depends on the path."""
    queue, entry, event_us, size, delta = message
    change = delta and [getattr(delta, name) for name in Delta._fields]
    return [queue.name, entry._replace(known_key=None), entry.key, event_us, size, change]


@pytest.mark.parametrize("frame", USUAL)
def test_usual_frame_of_each_public_type_is_read_in_one_pass(frame: str) -> None:
    received_us = json.loads(frame)["data"]["E"] + 5

    message, judged = read_both_ways(frame.encode(), received_us)

    assert message is not None
    assert judged is not None
    assert facts(message) == facts(judged)


def test_usual_frames_here_are_of_every_type_that_is_read_in_one_pass() -> None:
    of = {spec.model.__name__ for spec in STREAM_SPECS.values() if is_usual(spec)}
    here = {parse_stream(json.loads(frame)["stream"]).spec.model.__name__ for frame in USUAL}
    assert here == of


texts = st.sampled_from(
    ["1", "0", "-1", "1.5", "1.", "٣", "9" * 64, "9" * 65, "x", "", "rest", "trade", "depth",
     "2026-09-02T16:44:00", "2026-09-02T16:44:00\n", "1\n", "\x00", "é", str(2**64), str(NOW_US)]
)  # fmt: skip
numbers = st.sampled_from(
    [0, 1, 7, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 9 * 10**14, NOW_US, NOW_US + 5,
     NOW_US - HOUR_US, NOW_US - HOUR_US - 1, 1.5]
)  # fmt: skip
levels = st.lists(st.lists(texts | numbers, max_size=3), max_size=3)
values = (texts | numbers | levels).map(json.dumps) | st.sampled_from(EMPTY_JSON)


@st.composite
def changed_frames(draw: st.DrawFn) -> tuple[bytes, int]:
    """A frame with changed, repeated, missing or reordered fields, or with another stream; and
    its time of receipt in µs.
    """
    frame = json.loads(draw(st.sampled_from(USUAL)))
    received_us = frame["data"]["E"] + draw(st.sampled_from([0, 5, 5, 5, HOUR_US, HOUR_US + 1]))
    data = [(name, json.dumps(value)) for name, value in frame["data"].items()]
    names = st.sampled_from([*frame["data"], "T", "e", "symbol", "received_us", "bridge:source"])
    data += draw(st.lists(st.tuples(names, values), max_size=2))
    gone = draw(st.sampled_from([""] * 20 + [*frame["data"]]))
    data = [each for each in draw(st.permutations(data)) if each[0] != gone]
    stream = draw(st.sampled_from([frame["stream"]] * 5 + ["trade.X", "ticker.X", "depth.200ms.X"]))
    body = ",".join(f"{json.dumps(name)}:{value}" for name, value in data)
    parts = [f'"data":{{{body}}}', f'"stream":"{stream}"']
    parts += draw(st.sampled_from([[]] * 12 + [['"id":1'], ['"x":NaN'], [parts[0]], [parts[1]]]))
    space = draw(st.sampled_from(["", "", " ", "\n"]))
    whole = f"{{{space}{f',{space}'.join(draw(st.permutations(parts)))}}}"
    return whole.encode(), received_us


@given(changed_frames())
@example((b'{"x":NaN,' + frames.TRADE.encode()[1:], NOW_US))
def test_message_of_the_fast_path_equals_that_of_the_full_path(changed: tuple[bytes, int]) -> None:
    message, judged = read_both_ways(*changed)

    if message is not None:
        assert judged is not None
        assert facts(message) == facts(judged)


@pytest.mark.parametrize(
    "frame",
    [
        frames.TRADE.replace("{", '{"more":1,', 1),
        frames.TRADE.replace('"e"', '"more":1,"e"'),
        frames.TRADE.replace('"stream":"trade.', '"stream":"ticker.'),
        frames.TRADE.replace('"t":99419870', '"t":0'),
        frames.TRADE.replace('"T":1790915531025000', '"T":567'),
        frames.LIQUIDATION,
        frames.ORDER_ACCEPTED,
        frames.ERROR_PARSE,
        "rubbish",
    ],
)
def test_frame_that_is_unusual_is_left_to_the_full_path(frame: str) -> None:
    usual = UsualMessages()
    names = ("trade.BTC_USDC_PERP", "ticker.BTC_USDC_PERP", "liquidation", "account.orderUpdate")
    for name in names:
        usual.add(Content(parse_stream(name), Peers(), Resume()))

    assert usual.read(frame.encode(), Together.at(NOW_US, 1, names)) is None


def test_values_are_in_the_order_of_an_entrys_names() -> None:
    _, (stream, (_, read)) = read_usual(frames.BOOK_TICKER.encode())

    model = parse_stream(stream).spec.model
    assert (*value_names(model), "received_us", "extra") == field_names(model)
    assert dict(zip(value_names(model), read, strict=True))["ask_price"] == "98.97"


def test_frame_that_cannot_be_read_raises_unusual() -> None:
    with pytest.raises(Unusual):
        read_usual(b"rubbish")
