"""What is said to subscribe, and what an error frame can be about."""

from bridge.contract.streams import parse_stream
from bridge.protocol.subscriptions import Request, Subscriptions

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


def test_a_request_is_written_as_the_exchange_reads_it() -> None:
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


def test_a_long_request_is_cut() -> None:
    request = Request(tuple("abcde"), private=True)

    assert [chunk.streams for chunk in request.chunks(2)] == [("a", "b"), ("c", "d"), ("e",)]
    assert all(chunk.private for chunk in request.chunks(2))


def test_a_stream_is_confirmed_by_its_first_message() -> None:
    subject = subscriptions()

    assert subject.heard("trade.SOL_USDC") is True
    assert subject.heard("trade.SOL_USDC") is False
    assert "trade.SOL_USDC" not in subject.pending()


def test_a_bad_signature_concerns_the_private_streams() -> None:
    subject = subscriptions()

    assert subject.refuse(4003) == ["account.orderUpdate"]
    assert "signature" in subject.refused["account.orderUpdate"]


def test_a_bad_window_concerns_the_windows() -> None:
    assert subscriptions().refuse(4008) == ["depth.200ms.SOL_USDC"]


def test_an_unknown_stream_is_not_of_a_type_that_has_spoken() -> None:
    subject = subscriptions()
    for name in ("trade.BTC_USDC", "depth.SOL_USDC", "account.orderUpdate"):
        subject.heard(name)

    assert subject.refuse(4006) == ["liquidation"]


def test_a_stream_that_speaks_after_all_is_not_refused() -> None:
    subject = subscriptions()
    subject.refuse(4006)

    subject.heard("liquidation")

    assert "liquidation" not in subject.refused
