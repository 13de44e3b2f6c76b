"""What all tests share: markers by folder, no sockets in unit tests, a private Redis."""

import os
import socket
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests.support.redis_server import redis_server, redis_url

__all__ = ["redis_server", "redis_url"]

HERE = Path(__file__).parent
FOLDERS_WITH_MARKER = ("unit", "integration", "chaos")

# A loaded machine is slow, not wrong: no deadlines. CI draws the same examples each time.
_quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("dev", deadline=None, max_examples=100, suppress_health_check=_quiet)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        if folder in FOLDERS_WITH_MARKER:
            item.add_marker(folder)
    items.sort(
        key=_seconds_given, reverse=True
    )  # the longest begin first, none is left for the end


def _seconds_given(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


@pytest.fixture(autouse=True)
def _unit_tests_open_no_connection(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.node.get_closest_marker("unit") is None:
        return

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a unit test opened a connection: it belongs to tests/integration")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
