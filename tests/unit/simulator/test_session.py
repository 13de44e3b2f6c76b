"""The simulator's replies to requests: no reply to valid ones, an error frame to invalid ones."""

from __future__ import annotations

import json

import pytest

from bridge.contract.stream_types import StreamType
from simulator.session import Session, Topic, stream_error

KEY = "zDIJj9qneWIY0IYZ5aXoHcNMCm+XDhVcTssiT0HyY0A="
GOLDEN = "JET04e2DKxa3MzJX+vHAvZ2t85IDCQV0Yvkne6ZioCLxZhaDPHACzfEFkaACTR+J2WlVJjGX2nICcJMwOK8zAw=="
NOW_MS = 1_614_550_000_000
PARSE_ERROR = b'{"id":null,"error":{"code":4002,"message":"Parse error"}}'
INVALID_SIGNATURE = b'{"id":null,"error":{"code":4003,"message":"Invalid signature"}}'
INVALID_STREAM = b'{"id":null,"error":{"code":4006,"message":"Invalid stream"}}'
INVALID_WINDOW = b'{"id":null,"error":{"code":4008,"message":"Invalid depth window"}}'


def request(method: str, *names: str, **members: object) -> str:
    return json.dumps({"method": method, "params": list(names), **members})


@pytest.fixture
def session() -> Session:
    return Session((KEY,))


def test_a_successful_request_has_no_reply(session: Session) -> None:
    answer = session.receive(request("SUBSCRIBE", "trade.SOL_USDC", "depth.SOL_USDC", id=7), NOW_MS)
    assert answer.errors == []
    assert answer.started == [Topic("trade.SOL_USDC"), Topic("depth.SOL_USDC")]


def test_subscribing_again_starts_nothing_again(session: Session) -> None:
    session.receive(request("SUBSCRIBE", "trade.SOL_USDC"), NOW_MS)
    answer = session.receive(request("SUBSCRIBE", "trade.SOL_USDC", "trade.SOL_USDC"), NOW_MS)
    assert (answer.errors, answer.started) == ([], [])


def test_unsubscribing_stops_what_was_started_and_only_that(session: Session) -> None:
    session.receive(request("SUBSCRIBE", "trade.SOL_USDC"), NOW_MS)
    answer = session.receive(request("UNSUBSCRIBE", "trade.SOL_USDC", "trade.BTC_USDC"), NOW_MS)
    assert (answer.errors, answer.stopped) == ([], [Topic("trade.SOL_USDC")])
    assert session.topics == set()


@pytest.mark.parametrize(
    "name",
    [
        "trade.NO_SUCH",
        "depth.5.SOL_USDC",
        "depth.200ms.SOL_USDC",
        "depth.600ms.AAPL.US_USDC_PERP",
        "depth.1000ms.SOL_USDC",
        "kline.1month.SOL_USDC",
        "liquidation",
        "liquidation.SOL_USDC_PERP",
        "stockPrice.BRK.B",
        "stockIndicativeQuote.NVDA",
        "externalTicker.SOL_USDC",
    ],
)
def test_a_known_kind_of_stream_is_never_an_error(session: Session, name: str) -> None:
    assert session.receive(request("SUBSCRIBE", name), NOW_MS).errors == []


@pytest.mark.parametrize(
    "name", ["trades.SOL_USDC", "SOL_USDC@trade", "", "kline.7m.SOL_USDC", "kline.SOL_USDC"]
)
def test_an_unknown_kind_of_stream_is_error_4006(session: Session, name: str) -> None:
    answer = session.receive(request("SUBSCRIBE", name, "trade.SOL_USDC", id=3), NOW_MS)
    assert answer.errors == [INVALID_STREAM]
    assert answer.started == [Topic("trade.SOL_USDC")]


def test_a_depth_window_that_does_not_exist_is_error_4008(session: Session) -> None:
    answer = session.receive(request("SUBSCRIBE", "depth.100ms.SOL_USDC"), NOW_MS)
    assert (answer.errors, answer.started) == ([INVALID_WINDOW], [])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "[]",
        "1",
        b"\xff",
        "[" * 100_000,
        '{"method":"PING"}',
        '{"method":"subscribe","params":["trade.SOL_USDC"]}',
        '{"method":"SUBSCRIBE"}',
        '{"method":"SUBSCRIBE","params":"trade.SOL_USDC"}',
        '{"method":"SUBSCRIBE","params":[1]}',
    ],
)
def test_what_is_not_a_request_is_error_4002(session: Session, text: str | bytes) -> None:
    assert session.receive(text, NOW_MS).errors == [PARSE_ERROR]


def test_a_signed_request_starts_private_streams_of_the_signer(session: Session) -> None:
    text = request(
        "SUBSCRIBE",
        "account.orderUpdate",
        "account.positionUpdate.SOL_USDC_PERP",
        "trade.SOL_USDC",
        signature=[KEY, GOLDEN, "1614550000000", "5000"],
    )
    answer = session.receive(text, NOW_MS)
    assert answer.errors == []
    assert answer.started == [
        Topic("account.orderUpdate", KEY),
        Topic("account.positionUpdate.SOL_USDC_PERP", KEY),
        Topic("trade.SOL_USDC"),
    ]


def test_without_a_valid_signature_private_streams_are_error_4003(session: Session) -> None:
    answer = session.receive(request("SUBSCRIBE", "account.orderUpdate", "trade.SOL_USDC"), NOW_MS)
    assert answer.errors == [INVALID_SIGNATURE]
    assert answer.started == [Topic("trade.SOL_USDC")]


def test_a_private_stream_that_does_not_exist_is_error_4006(session: Session) -> None:
    signature = [KEY, GOLDEN, "1614550000000", "5000"]
    text = request("SUBSCRIBE", "account.order", signature=signature)
    assert session.receive(text, NOW_MS).errors == [INVALID_STREAM]


@pytest.mark.parametrize("kind", StreamType)
def test_every_stream_type_of_the_bridge_exists(kind: StreamType) -> None:
    name = f"{kind}.1m.SOL_USDC" if kind == "kline" else f"{kind}.SOL_USDC"
    assert stream_error(name) is None


def test_private_streams_are_left_without_a_signature(session: Session) -> None:
    signature = [KEY, GOLDEN, "1614550000000", "5000"]
    session.receive(request("SUBSCRIBE", "account.orderUpdate", signature=signature), NOW_MS)
    answer = session.receive(request("UNSUBSCRIBE", "account.orderUpdate"), NOW_MS)
    assert answer.stopped == [Topic("account.orderUpdate", KEY)]
