"""Parsing of text frames into envelopes, without exceptions for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.protocol.envelope import Ack, Data, Malformed, Refusal, parse
from tests.support import frames


def test_a_message_of_a_stream() -> None:
    envelope = parse(frames.OPEN_INTEREST)

    assert envelope == Data(
        "openInterest.SOL_USDC_PERP",
        {"e": "openInterest", "E": 1694687965941000, "s": "SOL_USDC_PERP", "o": "100"},
    )


@pytest.mark.parametrize(
    ("frame", "code", "message"),
    [
        (frames.ERROR_INVALID_STREAM, 4006, "Invalid stream"),
        (frames.ERROR_PARSE, 4002, "Parse error"),
        (frames.ERROR_WINDOW, 4008, "Invalid depth window"),
        (frames.ERROR_SIGNATURE, 4003, "Invalid signature"),
        ('{"error":{}}', 0, ""),
    ],
)  # fmt: skip
def test_an_error_frame(frame: str, code: int, message: str) -> None:
    assert parse(frame) == Refusal(code, message)


def test_a_success_reply_is_tolerated() -> None:
    assert parse('{"result":null,"id":1}') == Ack()


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "nonsense",
        "[]",
        "5",
        "{}",
        '{"stream":"trade.X"}',
        '{"stream":5,"data":{}}',
        '{"stream":"trade.X","data":[]}',
        '{"stream":"trade.X","data":{"p":NaN}}',
        '{"stream":"trade.X","data":{"p":"\\ud800"}}',
        '{"data":' * 100_000,
        "[" * 1_000_000,
        b"\xff\xfe",
        b'{"stream":"trade.\xff","data":{}}',
        '{"a":' + "9" * 10_000 + "}",
    ],
)
def test_a_malformed_frame_is_returned_as_a_value(frame: str | bytes) -> None:
    assert isinstance(parse(frame), Malformed)


@given(st.text() | st.binary())
def test_no_text_raises_an_exception(frame: str | bytes) -> None:
    parse(frame)
