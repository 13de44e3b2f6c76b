"""`python -m bridge status` as a real process, on literal statuses in a real Redis."""

import json
from pathlib import Path

from tests.integration.watch.conftest import Bus
from tests.support.command import run_bridge


def test_a_healthy_system_is_told_and_the_exit_code_is_0(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    done = run_bridge(tmp_path, redis_url, "status")
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("tokyo-1", "up for", "4711", "trade.SOL_USDC", "1 gap", "book/w1", "98.97/98.99"):
        assert words in done.stdout
    assert "Quarantined messages: 0" in done.stdout


def test_json_is_one_object_for_programs(full_bus: Bus, redis_url: str, tmp_path: Path) -> None:
    done = run_bridge(tmp_path, redis_url, "status", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["healthy"], told["verdict"]) == (0, True, "")
    assert (told["bridges"][0]["state"], told["gaps"], told["quarantined"]) == ("up", 1, 0)
    trade = told["streams"]["trade.SOL_USDC"]
    assert (trade["published"], trade["late"], trade["entries"]) == (2, 3, 2)
    assert told["streams"]["depth.SOL_USDC"]["age_us"] is None
    assert told["consumers"][0]["handled"] == 2


def test_the_quarantine_is_counted_and_its_newest_told(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    names = ("symbol", "twin", "event_us", "engine_us", "extra")
    refused = dict.fromkeys(names, "") | {"type": "quarantined", "stream": "trade.X", "raw": "{}"}
    full_bus.client.xadd("bridge:quarantine", refused | {"reason": "no price", "received_us": "1"})  # type: ignore[arg-type]
    done = run_bridge(tmp_path, redis_url, "status")
    assert "Quarantined messages: 1, the newest: REFUSED trade.X: no price" in done.stdout


def test_an_empty_redis_has_no_bridge(bus: Bus, redis_url: str, tmp_path: Path) -> None:
    done = run_bridge(tmp_path, redis_url, "status")
    assert done.returncode == 1
    assert done.stderr == (
        "error: no bridge has been here: start one with `python -m bridge run`\n"
    )


def test_a_silent_and_a_stopped_bridge_are_no_living_one(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    bus.bridge("a", age_s=3600)
    bus.bridge("b", stopped_us=bus.now_us() - 7_200_000_000)
    done = run_bridge(tmp_path, redis_url, "status")
    assert done.returncode == 1
    assert done.stderr == ("error: no bridge is up: a is silent for 60m; b is stopped 2h ago\n")


def test_a_bridge_without_its_exchange_is_up_but_not_healthy(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    bus.bridge(connections=[{"name": "public-1", "connected": False, "trouble": "timed out"}])
    done = run_bridge(tmp_path, redis_url, "status", "--json")
    assert done.returncode == 1
    assert done.stderr == (
        "error: bridge tokyo-1 is up, but public-1 is not connected to the exchange: timed out\n"
    )
    assert json.loads(done.stdout)["healthy"] is False


def test_one_healthy_bridge_of_two_is_enough(bus: Bus, redis_url: str, tmp_path: Path) -> None:
    bus.bridge("a", age_s=60)
    bus.bridge("b")
    assert run_bridge(tmp_path, redis_url, "status").returncode == 0


def test_a_prefix_separates_two_systems(full_bus: Bus, redis_url: str, tmp_path: Path) -> None:
    done = run_bridge(tmp_path, redis_url, "status", BRIDGE_REDIS__KEY_PREFIX="other:")
    assert "no bridge has been here" in done.stderr


def test_an_unreachable_redis_is_one_line_with_its_password_masked(tmp_path: Path) -> None:
    done = run_bridge(tmp_path, "redis://:hush-hush@127.0.0.1:1/0", "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: Redis at redis://:***@127.0.0.1:1/0 cannot be read: ")
    assert done.stderr.count("\n") == 1
    assert "hush" not in done.stderr
