"""`python -m bridge tap` as a process, with literal entries in a real Redis."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.view.conftest import TRADE, Bus
from tests.support.command import environment, run_bridge, start_bridge
from tests.support.eventually import eventually
from tests.support.redis_server import running_redis

LIMIT_S = 20.0
FIRST = "22:13:20.000 trade.SOL_USDC  sell 1.50 @ 99.01"
SECOND = "22:13:20.000 trade.SOL_USDC  sell 2.5 @ 99.01"


def test_entries_are_described_as_text(full_bus: Bus, redis_url: str, tmp_path: Path) -> None:
    begin = ("--from", "beginning", "--count", "2")
    done = run_bridge(tmp_path, redis_url, "tap", "trade.SOL_USDC", *begin)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [FIRST, SECOND]


@pytest.mark.parametrize("begin", ["1700000000000-80", "1700000000000-71"])
def test_tap_from_an_id_includes_it(
    full_bus: Bus, redis_url: str, tmp_path: Path, begin: str
) -> None:
    arguments = ("trade.SOL_USDC", "--from", begin, "--count", "1")
    done = run_bridge(tmp_path, redis_url, "tap", *arguments)
    assert done.stdout.splitlines() == [SECOND]


def test_json_is_one_object_a_line(full_bus: Bus, redis_url: str, tmp_path: Path) -> None:
    arguments = ("trade.SOL_USDC", "--from", "beginning", "--count", "1", "--json")
    done = run_bridge(tmp_path, redis_url, "tap", *arguments)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"stream": "trade.SOL_USDC", "id": "1700000000000-70", "fields": TRADE}
    ]


def test_fields_are_reported_as_stored(full_bus: Bus, redis_url: str, tmp_path: Path) -> None:
    arguments = ("trade.SOL_USDC", "--from", "beginning", "--count", "1", "--fields")
    [line] = run_bridge(tmp_path, redis_url, "tap", *arguments).stdout.splitlines()
    assert line.startswith("22:13:20.000 trade.SOL_USDC  1700000000000-70 type=trade symbol=SOL")
    assert line.endswith("received_us=1700000000000900 extra=")


def test_a_pattern_follows_what_it_matches_in_order_of_ids(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    bus.register("trade.A_USDC", "trade.B_USDC", "depth.A_USDC")
    bus.trade("trade.B_USDC", "5-0")
    bus.trade("trade.A_USDC", "6-0")
    bus.trade("trade.B_USDC", "7-0")
    arguments = ("trade.*", "--from", "beginning", "--count", "3", "--json")
    done = run_bridge(tmp_path, redis_url, "tap", *arguments)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["5-0", "6-0", "7-0"]


def test_tap_from_now_prints_only_later_entries(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    process = start_bridge(tmp_path, redis_url, "tap", "trade.SOL_USDC", "--count", "1")
    eventually(lambda: is_blocked(full_bus), "tap waits for entries")
    full_bus.trade("trade.SOL_USDC", "1700000000000-90", quantity="77")
    out, errors = process.communicate(timeout=LIMIT_S)
    assert (out, errors) == ("22:13:20.000 trade.SOL_USDC  sell 77 @ 99.01\n", "")


def test_tap_waits_for_a_missing_stream_and_prints_all_of_it(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    bus.register("trade.SOL_USDC")
    process = start_bridge(tmp_path, redis_url, "tap", "trade.SOL_USDT", "--count", "1")
    assert process.stderr is not None
    assert process.stderr.readline() == (
        "tap: no bridge publishes trade.SOL_USDT yet: waiting (similar: trade.SOL_USDC)\n"
    )
    bus.trade("trade.SOL_USDT", "5-0")
    out, _ = process.communicate(timeout=LIMIT_S)
    assert "trade.SOL_USDT  sell 1.50 @ 99.01" in out


def test_a_new_match_of_a_pattern_is_picked_up_from_its_first_entry(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    process = start_bridge(tmp_path, redis_url, "tap", "trade.*", "--count", "1")
    assert process.stderr is not None
    assert "no stream matches 'trade.*' yet" in process.stderr.readline()
    bus.trade("trade.NEW_USDC", "5-0")
    bus.register("trade.NEW_USDC")
    out, _ = process.communicate(timeout=LIMIT_S)
    assert "trade.NEW_USDC  sell 1.50 @ 99.01" in out


def test_a_name_that_can_be_no_stream_is_refused_with_the_nearest(
    full_bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    done = run_bridge(tmp_path, redis_url, "tap", "trad.SOL_USDC")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: 'trad.SOL_USDC' is not a stream; similar: trade.SOL_USDC")


def test_a_pattern_of_bytes_that_are_no_text_is_refused(redis_url: str, tmp_path: Path) -> None:
    done = run_bridge(tmp_path, redis_url, "tap", os.fsdecode(b"trade.\xff*"))
    assert done.returncode == 2
    assert done.stderr == "error: 'trade.\\udcff*' is no UTF-8 text: no stream has this name\n"


def test_any_stream_in_redis_may_be_followed(bus: Bus, redis_url: str, tmp_path: Path) -> None:
    bus.client.xadd("odd", {"a": "b"}, id="1700000000123-0")
    arguments = ("odd", "--from", "beginning", "--count", "1")
    done = run_bridge(tmp_path, redis_url, "tap", *arguments)
    assert done.stdout == "22:13:20.123 odd  a=b\n"


def test_a_prefix_is_not_shown(bus: Bus, redis_url: str, tmp_path: Path) -> None:
    bus.trade("mine:trade.SOL_USDC", "5-0")
    arguments = ("trade.SOL_USDC", "--from", "beginning", "--count", "1")
    prefix = {"BRIDGE_REDIS__KEY_PREFIX": "mine:"}
    done = run_bridge(tmp_path, redis_url, "tap", *arguments, **prefix)
    assert done.stdout.splitlines() == [FIRST]


def test_tap_invalid_start_is_reported_in_one_sentence(tmp_path: Path, redis_url: str) -> None:
    done = run_bridge(tmp_path, redis_url, "tap", "trade.SOL_USDC", "--from", "yesterday")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --from 'yesterday': write beginning, new, a time such as 2026-09-02T16:44 (UTC), "
        "how long ago (2h), or an entry ID such as 1788368290062-0\n"
    )


def test_ctrl_c_leaves_with_130(full_bus: Bus, redis_url: str, tmp_path: Path) -> None:
    process = start_bridge(tmp_path, redis_url, "tap", "trade.SOL_USDC", "--from", "beginning")
    assert process.stdout is not None
    assert process.stdout.readline() == FIRST + "\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, errors) == (130, "")


def test_tap_whose_reader_closes_the_pipe_is_not_an_error(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    for number in range(1, 3000):
        bus.trade("trade.SOL_USDC", f"{number}-0")
    tap = f"{sys.executable} -m bridge tap trade.SOL_USDC --from beginning"
    done = subprocess.run(
        ["/bin/bash", "-c", f"{tap} | head -n 1; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env=environment(redis_url),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [FIRST]


def test_an_outage_of_redis_loses_nothing(tmp_path: Path) -> None:
    with running_redis(appendonly=True) as server:
        with server.client() as client:
            Bus(client).trade("trade.SOL_USDC", "5-0")
        process = start_bridge(
            tmp_path, server.url, "tap", "trade.SOL_USDC", "--from", "beginning", "--count", "2"
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == FIRST + "\n"
        server.stop()
        assert process.stderr.readline().startswith("tap: Redis does not answer (")
        server.start()
        with server.client() as client:
            Bus(client).trade("trade.SOL_USDC", "6-0", quantity="77")
        out, errors = process.communicate(timeout=LIMIT_S)
    assert (out, errors) == (
        "22:13:20.000 trade.SOL_USDC  sell 77 @ 99.01\n",
        "tap: Redis is back\n",
    )
    assert process.returncode == 0


def test_tap_wrong_password_ends_it_with_one_sentence(tmp_path: Path) -> None:
    with running_redis(password="right") as server:
        url = server.url.replace("right", "wrong")
        done = run_bridge(tmp_path, url, "tap", "trade.SOL_USDC")
    assert done.returncode == 1
    assert done.stderr.startswith("error: Redis refuses: ")
    assert "put user and password into redis.url" in done.stderr
    assert "wrong" not in done.stderr.replace("WRONGPASS", "")


def is_blocked(bus: Bus) -> bool:
    clients = bus.client.client_list()
    return any(c["name"] == "bridge:tap" and c["cmd"] == "xread" for c in clients)


@pytest.mark.parametrize("form", [(), ("--fields",), ("--json",)])
def test_tap_escapes_the_texts_of_entries(
    bus: Bus, redis_url: str, tmp_path: Path, form: tuple[str, ...]
) -> None:
    hostile = "X\r\n22:13:20.000 trade.FORGED  buy\x1b]0;X\x07\x9b2J[red]"
    bus.trade("odd", "1700000000000-70", symbol=hostile, type="unreceived")
    arguments = ("odd", "--from", "beginning", "--count", "1", *form)
    done = run_bridge(tmp_path, redis_url, "tap", *arguments)
    [line] = done.stdout.removesuffix("\n").split("\n")
    assert line.isprintable()
    assert r"X\r\n22:13:20.000 trade.FORGED  buy\u001b]0;X\u0007\u009b2J[red]" in line


def test_tap_skips_and_reports_a_name_in_the_registry_that_is_no_stream(
    bus: Bus, redis_url: str, tmp_path: Path
) -> None:
    bus.register("trade./../../T", "trade.SOL_USDC")
    bus.trade("trade./../../T", "5-0")
    bus.trade("trade.SOL_USDC", "6-0")
    arguments = ("trade.*", "--from", "beginning", "--count", "1")
    done = run_bridge(tmp_path, redis_url, "tap", *arguments)
    assert done.stdout.split()[1] == "trade.SOL_USDC"
    assert done.stderr == ("tap: the registry has 'trade./../../T', which is no stream: skipped\n")
