"""The proxy's part of the messages for a failed handshake with the exchange."""

import pytest
from websockets.exceptions import InvalidProxy

from bridge.feed.handshake import describe_failure, describe_proxy, handshake
from bridge.runtime.config import Exchange


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http", "https", "all", "ws", "wss", "socks", "no"):
        for variable in (f"{name}_proxy", f"{name}_PROXY".upper()):
            monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("url", ["wss://ws.backpack.exchange", "ws://127.0.0.1:8765", "wss://["])
def test_without_a_proxy_nothing_is_reported_of_one(url: str) -> None:
    assert describe_proxy(url) == ""


def test_the_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:3128")

    assert describe_proxy("wss://ws.backpack.exchange") == (
        ", through the proxy proxy:3128 that the environment names"
    )


def test_an_address_that_is_requested_directly_has_no_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "backpack.exchange")

    assert describe_proxy("wss://ws.backpack.exchange") == ""


def test_a_proxy_without_a_scheme_is_one_of_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "me:secret@proxy:3128")
    exchange = Exchange(ws_url="wss://ws.backpack.exchange")

    assert handshake(exchange).proxy == "http://me:secret@proxy:3128"
    assert describe_proxy(exchange.ws_url) == (
        ", through the proxy proxy:3128 that the environment names"
    )


async def test_an_invalid_proxy_is_reported_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "quic://me:secret@proxy")

    with pytest.raises(InvalidProxy) as caught:
        await handshake(Exchange(ws_url="wss://ws.backpack.exchange"))

    assert describe_failure(caught.value) == (
        "the environment names an invalid proxy: write http://host:port"
    )
