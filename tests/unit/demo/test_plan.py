"""What the demo runs with, and what must never reach it."""

import json
from pathlib import Path

import pytest

from bridge.contract.streams import StreamType, parse_stream
from bridge.runtime.config import load_config
from demo import plan

ADDRESSES = plan.Addresses("redis://127.0.0.1:6400/0", "127.0.0.1:4000")


def test_the_configuration_is_valid_and_points_at_the_demo_alone(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(plan.configuration(ADDRESSES))
    config = load_config(file, env_file=None, environ={})
    assert config.exchange.ws_url == "ws://127.0.0.1:4000"
    assert config.exchange.rest_url == "http://127.0.0.1:4000"
    assert config.redis.url == "redis://127.0.0.1:6400/0"
    assert not config.exchange.is_real


def test_every_type_of_stream_is_there(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(plan.configuration(ADDRESSES))
    names = load_config(file, env_file=None, environ={}).stream_names
    assert {parse_stream(name).type for name in names} == set(StreamType)


def test_nothing_of_a_real_bridge_reaches_a_part() -> None:
    real = {"PATH": "/bin", "BRIDGE_REDIS__URL": "redis://real", "SECRET_KEY": "mine"}
    assert plan.environment(real, Path("/here"), with_keys=False) == {
        "PATH": "/bin",
        "PYTHONPATH": "/here",
        "PYTHONUNBUFFERED": "1",
    }
    assert plan.environment(real, Path("/here"), with_keys=True)["SECRET_KEY"] != "mine"


def test_keys_are_in_no_command_and_no_configuration() -> None:
    written = plan.configuration(ADDRESSES) + json.dumps(
        [
            plan.simulator_command("python", 200.0),
            plan.bridge_command("python", Path("config.yaml")),
            plan.consumer_command("python", Path("config.yaml"), "book"),
        ]
    )
    keys = plan.environment({}, Path("/here"), with_keys=True)
    assert keys["SECRET_KEY"] not in written
    assert keys["PUBLIC_KEY"] not in written


@pytest.mark.parametrize("has_cli", [True, False])
def test_redis_cli_is_named_only_where_it_is(
    has_cli: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_cli:
        (tmp_path / "redis-cli").write_text("#!/bin/sh\n")
        (tmp_path / "redis-cli").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    lines = plan.ways_to_look("redis://127.0.0.1:6400/0", "python")
    assert lines[0] == ("BRIDGE_REDIS__URL=redis://127.0.0.1:6400/0 python -m bridge tap 'trade.*'")
    assert lines[1:] == (
        ["redis-cli -p 6400 XREVRANGE trade.SOL_USDC + - COUNT 1"] if has_cli else []
    )
