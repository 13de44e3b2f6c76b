"""The REST client: an invalid environment variable is reported by name, without its value."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.runtime.checks.clock import check_clock
from bridge.runtime.checks.finding import Finding, Level
from bridge.runtime.checks.markets import fetch_markets
from bridge.runtime.http_client import http_client

URL = "https://exchange.test"
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")

NO_ADDRESS = "in the environment is no proxy's address: write http://host:port, or unset it"
REFUSALS = {
    ("ALL_PROXY", "socks5://host:1080"): "ALL_PROXY in the environment names a SOCKS proxy, for "
    "which the package socksio is missing: write http://host:port, or unset it",
    ("ALL_PROXY", "garbage://host"): f"ALL_PROXY {NO_ADDRESS}",
    ("HTTP_PROXY", "http://host:abc"): f"HTTP_PROXY {NO_ADDRESS}",
    ("https_proxy", "http://user:secret/x@host"): f"https_proxy {NO_ADDRESS}",
    ("https_proxy", "host:99999"): f"https_proxy {NO_ADDRESS}",
    ("HTTPS_PROXY", "http://"): f"HTTPS_PROXY {NO_ADDRESS}",
    ("HTTPS_PROXY", "http://[::1"): f"HTTPS_PROXY {NO_ADDRESS}",
    ("SSL_CERT_FILE", "/no/such/file"): "SSL_CERT_FILE in the environment names no file of "
    "certificates that can be read (FileNotFoundError): give its path, or unset it",
    ("SSL_CERT_FILE", "/dev/null"): "SSL_CERT_FILE in the environment names no file of "
    "certificates that can be read (OSError): give its path, or unset it",
    ("SSL_CERT_FILE", "/dev/zero"): "SSL_CERT_FILE in the environment names no file of "
    "certificates that can be read (OSError): give its path, or unset it",
}


def only(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("name", "value"), REFUSALS)
def test_a_variable_that_is_wrong_is_reported_by_its_name_and_not_its_value(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, {name: value})

    with pytest.raises(ConfigError) as caught:
        http_client(URL, 1.0)

    assert str(caught.value) == REFUSALS[name, value]


def test_certificates_from_a_pipe_are_refused_without_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    only(monkeypatch, {"SSL_CERT_FILE": str(tmp_path / "pipe")})

    with pytest.raises(ConfigError, match="SSL_CERT_FILE in the environment names no file"):
        http_client(URL, 1.0)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"HTTPS_PROXY": "host:3128"},
        {"all_proxy": "http://user:password@host:3128"},
        {"ALL_PROXY": "garbage://host", "NO_PROXY": "localhost, *"},
    ],
)
def test_valid_variables_are_used(
    variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, variables)

    asyncio.run(http_client(URL, 1.0).aclose())


def test_check_reports_wrong_variables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, {"ALL_PROXY": "garbage://host"})

    markets = asyncio.run(fetch_markets(URL, 1.0))
    clock = asyncio.run(check_clock(URL, 1.0))

    assert markets == Finding(
        Level.WRONG,
        "environment",
        "ALL_PROXY in the environment is no proxy's address",
        "write http://host:port, or unset it",
    )
    assert clock.level is Level.NOT_CHECKED
    assert f"ALL_PROXY {NO_ADDRESS}" in clock.found
