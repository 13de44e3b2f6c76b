"""Subscription requests, and the streams that an error frame may refer to."""

import pytest

from bridge.contract.streams import parse_stream
from bridge.protocol.subscriptions import Request, State, Subscriptions

NOW_S, NOW_US = 100.0, 1_790_915_531_000_000
NAMES = (
    "trade.SOL_USDC",
    "depth.SOL_USDC",
    "depth.200ms.SOL_USDC",
    "account.orderUpdate",
    "trade.BTC_USDC",
    "liquidation",
)


def subscriptions() -> Subscriptions:
    return Subscriptions([parse_stream(name) for name in NAMES])


def test_request_is_written_as_the_exchange_reads_it() -> None:
    assert (
        Request(("depth.SOL_USDC", "trade.SOL_USDC"), private=False).render()
        == '{"method":"SUBSCRIBE","params":["depth.SOL_USDC","trade.SOL_USDC"]}'
    )
    assert Request(("account.orderUpdate",), private=True).render(("k", "s", "1", "5000")) == (
        '{"method":"SUBSCRIBE","params":["account.orderUpdate"],"signature":["k","s","1","5000"]}'
    )


def test_streams_of_one_kind_share_a_request_and_private_ones_come_last() -> None:
    assert [request.streams for request in subscriptions().requests()] == [
        ("trade.SOL_USDC", "trade.BTC_USDC"),
        ("depth.SOL_USDC",),
        ("depth.200ms.SOL_USDC",),
        ("liquidation",),
        ("account.orderUpdate",),
    ]


def test_long_request_is_cut_into_chunks() -> None:
    request = Request(tuple("abcde"), private=True)

    assert [chunk.streams for chunk in request.chunks(2)] == [("a", "b"), ("c", "d"), ("e",)]
    assert all(chunk.private for chunk in request.chunks(2))


def requested() -> Subscriptions:
    subject = subscriptions()
    subject.requested(NAMES, NOW_S)
    return subject


def test_stream_is_wanted_then_pending_then_confirmed_by_its_first_message() -> None:
    subject = subscriptions()
    trades = subject.by_name["trade.SOL_USDC"]
    assert trades.state is State.WANTED

    subject.requested(NAMES, NOW_S)
    assert trades.state is State.PENDING
    assert subject.requests() == []

    assert subject.received("trade.SOL_USDC", NOW_S + 1, NOW_US + 1) is State.PENDING
    assert subject.received("trade.SOL_USDC", NOW_S + 2, NOW_US + 2) is None
    assert (trades.state, trades.received_s) == (State.CONFIRMED, NOW_S + 2)
    assert trades.last_message_us == NOW_US + 2
    assert trades not in subject.of(State.PENDING)


def test_bad_signature_concerns_the_private_streams() -> None:
    subject = requested()

    assert subject.candidates(4003) == ["account.orderUpdate"]
    subject.reject(["account.orderUpdate"], 4003)
    assert "signature" in subject.by_name["account.orderUpdate"].reason


def test_bad_window_concerns_the_streams_with_a_window() -> None:
    assert requested().candidates(4008) == ["depth.200ms.SOL_USDC"]


def test_stream_that_was_not_requested_cannot_be_refused() -> None:
    assert subscriptions().candidates(4006) == []


def test_unknown_stream_is_not_of_a_type_of_which_messages_come() -> None:
    subject = requested()
    for name in ("trade.BTC_USDC", "depth.SOL_USDC", "account.orderUpdate"):
        subject.received(name, NOW_S, NOW_US)

    assert subject.candidates(4006) == ["liquidation"]


def test_interval_with_messages_proves_no_other_interval() -> None:
    names = ["kline.1m.SOL_USDC", "kline.1m.ETH_USDC", "kline.5m.SOL_USDC"]
    subject = Subscriptions(map(parse_stream, names))
    subject.requested(names, NOW_S)
    subject.received(names[0], NOW_S, NOW_US)

    assert subject.candidates(4006) == ["kline.5m.SOL_USDC"]


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("trade.SOL_USDC", [4001, 4002]),  # another market's trades are received
        ("depth.200ms.SOL_USDC", [4001, 4002, 4006, 4008]),
        ("account.orderUpdate", [4001, 4002, 4003, 4006]),
        ("liquidation", [4001, 4002, 4006]),
    ],
)
def test_error_can_refer_to_a_stream_that_fits_its_code(name: str, codes: list[int]) -> None:
    subject = requested()
    subject.received("trade.BTC_USDC", NOW_S, NOW_US)

    every = (4001, 4002, 4003, 4006, 4008)
    assert [code for code in every if subject.may_mean(name, code)] == codes


def test_refused_stream_is_confirmed_by_a_message() -> None:
    subject = requested()
    subject.reject(["liquidation"], 4006)

    assert subject.received("liquidation", NOW_S, NOW_US) is State.REJECTED

    assert subject.of(State.REJECTED) == []


def test_streams_can_be_added_and_removed() -> None:
    subject = requested()
    subject.add([parse_stream("trade.ETH_USDC"), parse_stream("trade.SOL_USDC")])

    assert [request.streams for request in subject.requests()] == [("trade.ETH_USDC",)]
    assert [request.render() for request in subject.remove(["trade.SOL_USDC", "gone"])] == [
        '{"method":"UNSUBSCRIBE","params":["trade.SOL_USDC"]}'
    ]
    assert "trade.SOL_USDC" not in subject.names()


def test_refused_stream_that_is_accepted_is_pending() -> None:
    subject = requested()
    subject.reject(["liquidation"], 4006)

    subject.accepted("liquidation")
    subject.accepted("gone")

    assert subject.by_name["liquidation"].state is State.PENDING
    assert subject.by_name["liquidation"].reason == ""
    assert subject.of(State.REJECTED) == []


def test_error_can_refer_to_a_stale_stream_which_a_message_confirms() -> None:
    subject = requested()
    subject.received("liquidation", NOW_S, NOW_US)
    subject.stale("liquidation", "no message for 30 s")
    subject.stale("gone", "no message for 30 s")
    assert subject.by_name["liquidation"].reason == "no message for 30 s"
    assert "liquidation" in subject.candidates(4006)

    assert subject.received("liquidation", NOW_S + 1, NOW_US + 1) is State.STALE
    assert subject.by_name["liquidation"].reason == ""
