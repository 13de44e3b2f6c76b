"""Parsing of listen addresses."""

import pytest

from bridge.errors import ConfigError
from bridge.runtime.address import Address
from bridge.runtime.config import Config, load_config


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9464", "127.0.0.1", 9464),
        ("[::1]:0", "::1", 0),
        ("localhost:65535", "localhost", 65_535),
    ],
)
def test_host_and_port_are_read_and_written_alike(text: str, host: str, port: int) -> None:
    address = Address.parse(text)

    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize(
    "text",
    [
        "9464",
        ":9464",
        "127.0.0.1",
        "127.0.0.1:",
        "h:70000",
        "::1:9464",
        "http://h:1",
        "h:1 ",
        "a..b:1",
        f"{'x' * 64}:1",
    ],
)
def test_other_texts_are_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be host:port, such as 127\.0\.0\.1:9464"):
        Address.parse(text)


def test_metrics_are_off_by_default_and_a_wrong_address_is_a_mistake_of_the_configuration() -> None:
    assert Config().metrics.address is None
    environ = {"BRIDGE_METRICS__LISTEN": "127.0.0.1:9464"}
    assert load_config(None, None, environ).metrics.address == Address("127.0.0.1", 9464)
    with pytest.raises(ConfigError, match=r"metrics\.listen must be host:port"):
        load_config(None, None, {"BRIDGE_METRICS__LISTEN": "9464"})
