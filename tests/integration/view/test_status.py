"""`python -m bridge status` as a process, with literal statuses in a real Redis."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from bridge.view.document import status_schema
from tests.integration.view.conftest import Bus
from tests.support.command import run_bridge
from tests.support.consumer_commands import run_here
from tests.support.limited_user import as_limited, without


def test_status_of_a_healthy_system_exits_0(full_bus: Bus, redis_url: str, tmp_path: Path) -> None:
    done = run_bridge(tmp_path, redis_url, "status")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("tokyo-1", "up for", "4711", "trade.SOL_USDC", "1 gap", "book/w1", "98.97/98.99"):
        assert text in done.stdout
    assert "Quarantined messages: 0" in done.stdout


def test_json_is_one_object_for_programs(full_bus: Bus, redis_url: str, tmp_path: Path) -> None:
    done = run_bridge(tmp_path, redis_url, "status", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["healthy"], document["verdict"]) == (0, True, "")
    assert (document["bridges"][0]["state"], document["gaps"], document["quarantined"]) == (
        "up",
        1,
        0,
    )
    trade = document["streams"]["trade.SOL_USDC"]
    assert (trade["published"], trade["late"], trade["entries"]) == (2, 3, 2)
    assert document["streams"]["depth.SOL_USDC"]["age_us"] is None
    assert document["consumers"][0]["handled"] == 2
    closed = closed_everywhere(status_schema())
    assert [error.message for error in Draft202012Validator(closed).iter_errors(document)] == []


def closed_everywhere(schema: Any) -> Any:
    """The schema, changed to allow only the fields that it names."""
    if isinstance(schema, list):
        return [closed_everywhere(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: closed_everywhere(each) for name, each in schema.items()}
    return closed | {"additionalProperties": False} if "required" in closed else closed


def test_status_counts_the_quarantine_and_shows_its_newest_entry(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    names = ("symbol", "occurrence", "event_us", "engine_us", "extra")
    refused = dict.fromkeys(names, "") | {"type": "quarantined", "stream": "trade.X", "raw": "{}"}
    full_bus.client.xadd("bridge:quarantine", refused | {"reason": "no price", "received_us": "1"})  # type: ignore[arg-type]
    done = run_bridge(tmp_path, redis_url, "status")
    assert "Quarantined messages: 1, the newest: REFUSED trade.X: no price" in done.stdout


def test_an_empty_redis_has_no_bridge(bus: Bus, redis_url: str, tmp_path: Path) -> None:
    done = run_bridge(tmp_path, redis_url, "status")
    assert (done.returncode, done.stdout) == (1, "Quarantined messages: 0\n")
    assert done.stderr == ("error: no bridge has run here: start one with `python -m bridge run`\n")


def test_status_of_a_silent_or_stopped_bridge_is_unhealthy(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    bus.bridge("a", age_s=3600)
    bus.bridge("b", stopped_us=bus.now_us() - 7_200_000_000)
    done = run_bridge(tmp_path, redis_url, "status")
    assert done.returncode == 1
    assert done.stderr == ("error: no bridge is up: a is silent for 60m; b is stopped 2h ago\n")


def test_status_of_a_bridge_without_exchange_is_up_but_unhealthy(
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
    assert "no bridge has run here" in done.stderr


def test_status_unreachable_redis_is_one_line_with_its_password_masked(tmp_path: Path) -> None:
    done = run_bridge(tmp_path, "redis://:hush-hush@127.0.0.1:1/0", "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: Redis at redis://:***@127.0.0.1:1/0 cannot be read: ")
    assert done.stderr.count("\n") == 1
    assert "hush" not in done.stderr


def test_texts_from_redis_are_escaped_and_forge_no_line(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    hostile = "[red]X\r\nerror: forged\x1b]0;X\x07"
    connection = {"name": hostile, "connected": False, "trouble": hostile, "stale": {hostile: "y"}}
    bus.bridge(hostile, connections=[connection], redis_trouble=hostile, host=hostile)
    bus.worker(consumer=hostile, made=hostile)
    bus.client.xadd("bridge:quarantine", {"reason": hostile})
    for command in (["status"], ["status", "--json"], ["top", "--once", "--every", "0.1"]):
        done = run_bridge(tmp_path, redis_url, *command, COLUMNS="300")
        lines = (done.stdout + done.stderr).split("\n")
        assert all(line.isprintable() for line in lines)
        assert not any(line.startswith("error: forged") for line in lines)
        assert "[red]X" in done.stdout


def test_names_in_the_registry_that_are_no_streams_are_counted_and_passed_over(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    full_bus.register("trade.X\x1b[2J", "a/../../T")
    document = json.loads(run_bridge(tmp_path, redis_url, "status", "--json").stdout)
    assert sorted(document["streams"]) == ["depth.SOL_USDC", "trade.SOL_USDC"]
    assert document["unreadable"] == 2
    assert "Skipped: 2 unreadable" in run_bridge(tmp_path, redis_url, "status").stdout


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["--instance", "b"], {}),
        ([], {"BRIDGE_INSTANCE": "b"}),
        (["--own"], {"BRIDGE_INSTANCE": "b"}),
    ],
)
def test_status_of_an_instance_reports_a_frozen_bridge_despite_a_healthy_one(
    bus: Bus, redis_url: str, tmp_path: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    bus.bridge("a")
    bus.bridge("b", age_s=60)
    done = run_bridge(tmp_path, redis_url, "status", *arguments, **variables)
    assert done.returncode == 1
    assert re.fullmatch(r"error: bridge b is silent for 6\ds\n", done.stderr)
    asked_for_a = run_bridge(tmp_path, redis_url, "status", "--instance", "a", **variables)
    assert (asked_for_a.returncode, asked_for_a.stderr) == (0, "")


def test_status_of_an_unknown_instance_is_unhealthy(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    bus.bridge("a")
    done = run_bridge(tmp_path, redis_url, "status", "--instance", "c", "--json")
    assert (done.returncode, done.stderr) == (1, "error: bridge c is not known here\n")
    assert json.loads(done.stdout)["verdict"] == "bridge c is not known here"


def test_own_means_the_hosts_name_where_no_instance_is_set(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    bus.bridge("a")
    assert run_bridge(tmp_path, redis_url, "status").returncode == 0
    assert run_bridge(tmp_path, redis_url, "status", "--own").returncode == 1


@pytest.mark.parametrize("url", ["redis://hush%40hush@127.0.0.1:1/0", "redis://:hush@127.0.0.1:1"])
def test_no_command_shows_a_password_with_or_without_its_colon(tmp_path: Path, url: str) -> None:
    for command in (["status"], ["top", "--once"], ["check", "--show"]):
        done = run_bridge(tmp_path, url, *command, BRIDGE_EXCHANGE__REST_URL="http://127.0.0.1:1")
        assert "***@127.0.0.1:1" in done.stdout + done.stderr
        assert "hush" not in done.stdout + done.stderr
    for command in (["status"], ["deadletters", "list"]):
        done = run_here(tmp_path, url, *command)
        assert "***@127.0.0.1:1" in done.stderr
        assert "hush" not in done.stdout + done.stderr


@pytest.mark.parametrize(("ahead_s", "beat_s", "state"), [(3600, 60, "silent"), (-3600, -60, "up")])
def test_worker_silence_is_measured_by_the_clock_of_redis(
    full_bus: Bus, redis_url: str, tmp_path: Path, ahead_s: int, beat_s: int, state: str
) -> None:
    full_bus.worker(updated_us=full_bus.now_us() + ahead_s * 1_000_000)
    full_bus.beat(age_s=beat_s)
    done = run_bridge(tmp_path, redis_url, "status", "--json")
    assert [one["state"] for one in json.loads(done.stdout)["consumers"]] == [state]


def test_worker_removed_by_its_group_is_shown_as_silent(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    full_bus.client.zrem("consumers:workers:book", "w1/nonce")
    done = run_bridge(tmp_path, redis_url, "status", "--json")
    assert [one["state"] for one in json.loads(done.stdout)["consumers"]] == ["silent"]


def test_the_verdict_comes_first_and_columns_without_anything_are_left_out(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    lines = run_bridge(tmp_path, redis_url, "status").stdout.splitlines()
    assert lines[0] == "healthy: 1 bridge up, 2 streams, 1 gap"
    [heading] = [line for line in lines if line.startswith(" stream ")]
    assert heading.split() == [
        "stream",
        "entries",
        "published",
        "late",
        "gaps",
        "age",
        "marks",
    ]


@pytest.mark.parametrize("command", ["time", "hgetall", "xinfo|stream", "xrevrange", "zrange"])
def test_status_command_not_allowed_is_named_and_nothing_counts_as_absent(
    command: str, full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    full_bus.client.execute_command(*without(command))
    done = run_bridge(tmp_path, as_limited(redis_url), "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be read: " in done.stderr
    assert f"no permissions to run the '{command}' command" in done.stderr
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr
