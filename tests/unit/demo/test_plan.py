"""The demo's configuration and environment; nothing of a real bridge reaches its parts."""

import json
from pathlib import Path

import pytest

from bridge.contract.streams import StreamType, parse_stream
from bridge.runtime.config import load_config
from bridge.runtime.embedded import EmbeddedServer
from demo import plan

FOLDER = Path("/here/redis")
ADDRESSES = plan.Addresses(FOLDER, "127.0.0.1:4000")
SERVER = EmbeddedServer("redis://:pass@127.0.0.1:6400/0", 12, joined=False, data_dir=FOLDER)


def test_the_configuration_is_valid_and_points_at_the_demo_alone(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(plan.configuration(ADDRESSES))
    config = load_config(file, env_file=None, environ={})
    assert config.exchange.ws_url == "ws://127.0.0.1:4000"
    assert config.exchange.rest_url == "http://127.0.0.1:4000"
    assert config.redis.is_embedded
    assert config.embedded.data_dir == FOLDER
    assert not config.exchange.is_real


def test_every_type_of_stream_is_there(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(plan.configuration(ADDRESSES))
    names = load_config(file, env_file=None, environ={}).stream_names
    assert {parse_stream(name).type for name in names} == set(StreamType)


def test_nothing_of_a_real_bridge_reaches_a_part() -> None:
    real = {"PATH": "/bin", "BRIDGE_REDIS__URL": "redis://real", "SECRET_KEY": "mine"}
    real |= {"HTTP_PROXY": "http://proxy:3128", "https_proxy": "http://proxy:3128"}
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
    lines = plan.watch_commands(SERVER, "python -m bridge")
    assert lines[:2] == [
        "export BRIDGE_REDIS__URL=embedded BRIDGE_EMBEDDED__DATA_DIR=/here/redis",
        "python -m bridge tap 'trade.*'",
    ]
    read = "REDISCLI_AUTH=$(cat /here/redis/password) redis-cli -p 6400"
    assert lines[2:] == ([f"{read} XREVRANGE trade.SOL_USDC + - COUNT 1"] if has_cli else [])
    assert ":pass@" not in "".join(lines)
