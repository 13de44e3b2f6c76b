"""Every deployment waits long enough for a stopping process to write its data."""

import re
from typing import Any

import pytest
import yaml

from bridge.runtime.config import Config
from consumers import Consumer
from tests.integration.deploy import units
from tests.integration.deploy.compose import ROOT, services

CONFIG = Config()
# the longest wait for Redis
REDIS_S = CONFIG.redis.connect_timeout_s + CONFIG.redis.command_timeout_s
BRIDGE_S = CONFIG.publish.drain_s + REDIS_S
CONSUMER_S = Consumer.time_limit_s + REDIS_S
EXPORTER_S = REDIS_S


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)s?", text)
    assert found, text
    return float(found[1])


def pods() -> dict[str, dict[str, Any]]:
    """The pod specification of each workload, by name."""
    found = {}
    for name in ("bridge", "consumers", "exporter"):
        file = ROOT / "deploy" / "kubernetes" / "base" / f"{name}.yaml"
        for document in yaml.safe_load_all(file.read_text("utf-8")):
            if document["kind"] in ("StatefulSet", "Deployment"):
                found[document["metadata"]["name"]] = document["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize(
    ("service", "needed_s"),
    [
        ("backpack-bridge", BRIDGE_S),
        ("backpack-consumer@", CONSUMER_S),
        ("backpack-exporter", EXPORTER_S),
        ("backpack-console", EXPORTER_S),
    ],
)
def test_systemd_waits_longer_than_stopping_takes(service: str, needed_s: float) -> None:
    assert seconds(units.one(service, "TimeoutStopSec")) > needed_s


@pytest.mark.parametrize(
    ("service", "needed_s"),
    [
        ("bridge", BRIDGE_S),
        *((name, CONSUMER_S) for name in ("candles", "book", "orders", "tail", "exporter")),
    ],
)
def test_compose_waits_longer_than_stopping_takes(service: str, needed_s: float) -> None:
    assert seconds(services()[service]["stop_grace_period"]) > needed_s


@pytest.mark.parametrize(
    ("name", "needed_s"),
    [("bridge", BRIDGE_S), ("candles", CONSUMER_S), ("exporter", EXPORTER_S)],
)
def test_kubernetes_waits_longer_than_stopping_takes(name: str, needed_s: float) -> None:
    assert pods()[name]["terminationGracePeriodSeconds"] > needed_s


def test_memory_limit_of_a_bridge_exceeds_twice_its_buffer() -> None:
    given = {
        "systemd": units.one("backpack-bridge", "MemoryMax"),
        "compose": services()["bridge"]["deploy"]["resources"]["limits"]["memory"],
        "kubernetes": pods()["bridge"]["containers"][0]["resources"]["limits"]["memory"],
    }
    for where, text in given.items():
        found = re.fullmatch(r"(\d+)(m|M|Mi)", text)
        assert found, text
        assert int(found[1]) * 1024 * 1024 > 2 * CONFIG.publish.buffer_bytes, where
