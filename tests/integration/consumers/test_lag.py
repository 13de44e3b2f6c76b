"""The lag of groups, also directly after trims and deletes, and missed entries."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ConnectionError, NoPermissionError
from rich.console import Console

from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect
from bridge.runtime.redis_shards import ShardedRedis
from consumers.commands import status
from consumers.kit import lag
from consumers.kit.lag import group_lags
from consumers.kit.redis.keys import Keys
from consumers.kit.redis.registry import Known, _groups_in, known_in
from tests.support import warm
from tests.support.consumer_commands import run_here
from tests.support.consumer_entries import START_US, Fields, entry_id, trade
from tests.support.consumer_worker import LIMIT_S, ROOT, Bench
from tests.support.eventually import eventually
from tests.support.limited_user import as_limited, without
from tests.support.redis_server import free_port, running_redis

pytestmark = pytest.mark.timeout(180)  # several processes each, on a busy machine

STREAM, OTHER = "trade.SOL_USDC", "trade.BTC_USDC"

CONSUMERS = """
import os
import redis
from bridge.contract.events import Trade
from consumers import Consumer, Delivery, Missed

client = redis.Redis.from_url(os.environ["BRIDGE_REDIS__URL"], decode_responses=True)

class Shared(Consumer):
    name = "shared"
    streams = ("trade.*",)
    attempts = 2

    def on_trade(self, delivery: Delivery[Trade]):
        if delivery.event.price == "13":
            raise ValueError("not now")

    async def on_missed(self, missed: Missed):
        client.rpush("missed", f"{self.name} {missed.stream} {missed.entries}")

class Ordered(Shared):
    name = "ordered"
    mode = "ordered"
"""


def last_id(number: int) -> str:
    return entry_id(START_US + number * 1000, number)


def trades(first: int, last: int, price: str = "98.96") -> dict[str, Fields]:
    return {last_id(n): trade(n, START_US + n * 1000, price) for n in range(first, last + 1)}


@pytest.fixture
def filled(bench: Bench) -> Bench:
    (bench.folder / "outside.py").write_text(CONSUMERS)
    bench.register(STREAM, OTHER)
    bench.add(STREAM, trades(1, 100))
    bench.add(OTHER, trades(1, 10))
    return bench


def lags(bench: Bench, group: str) -> dict[str, Any]:
    """The lag of one group, by stream."""

    async def read() -> Any:
        async with connect(bench.url, name="test", decode_responses=True) as client:
            [one] = await group_lags(client, Keys(), group)
            return one.as_dict()

    return {lag["stream"]: lag for lag in asyncio.run(read())["streams"]}


def caught_up(bench: Bench, name: str, number: int) -> None:
    bench.await_group(STREAM, name, last_id(number))


BOTH = pytest.mark.parametrize(("kind", "name"), [("Shared", "shared"), ("Ordered", "ordered")])


@BOTH
def test_lag_is_right_after_deletes_and_trims(filled: Bench, kind: str, name: str) -> None:
    worker = filled.start(f"outside:{kind}")
    caught_up(filled, name, 100)
    assert worker.stop() == 0
    assert lags(filled, name)[STREAM]["lag"] == 0
    filled.add(STREAM, trades(101, 160))
    lag = lags(filled, name)[STREAM]
    assert (lag["lag"], lag["precision"], lag["position"]) == (60, "exact", last_id(100))
    age_s = time.time() - (START_US + 101 * 1000) / 1_000_000
    assert lag["behind_s"] == pytest.approx(age_s, abs=30)
    filled.redis.xdel(STREAM, last_id(120), last_id(160))  # Redis' own lag is null after XDEL
    assert lags(filled, name)[STREAM]["lag"] == 58
    filled.redis.xtrim(STREAM, minid=last_id(131), approximate=False)  # beyond the position
    assert lags(filled, name)[STREAM]["lag"] == 29
    filled.redis.xtrim(STREAM, maxlen=0, approximate=False)
    assert lags(filled, name)[STREAM]["lag"] == 0
    filled.redis.xadd(STREAM, trade(170, START_US), id=last_id(170))  # type: ignore[arg-type]
    assert lags(filled, name)[STREAM]["lag"] == 1


@BOTH
def test_lag_that_is_large_is_read_from_counters(filled: Bench, kind: str, name: str) -> None:
    worker = filled.start(f"outside:{kind}")
    caught_up(filled, name, 100)
    assert worker.stop() == 0
    filled.add(STREAM, trades(101, 3600))
    lag = lags(filled, name)[STREAM]
    assert (lag["lag"], lag["precision"]) == (3500, "counted")


@BOTH
def test_entries_trimmed_unread_are_in_log_status_lag_and_on_missed(
    filled: Bench, kind: str, name: str
) -> None:
    worker = filled.start(f"outside:{kind}")
    caught_up(filled, name, 100)
    assert worker.stop() == 0
    filled.add(STREAM, trades(101, 200))
    filled.redis.xtrim(STREAM, minid=last_id(141), approximate=False)
    worker = filled.start(f"outside:{kind}")
    caught_up(filled, name, 200)
    filled.until(lambda: filled.redis.exists("missed"))
    assert filled.redis.lrange("missed", 0, -1) == [f"{name} {STREAM} 40"]
    assert '"entries": 40' in worker.err
    assert "entries_missed" in worker.err
    filled.until(lambda: filled.status(name, worker).get("missed") == 40)
    assert lags(filled, name)[STREAM]["missed"] == 40
    filled.add(STREAM, trades(201, 300))
    caught_up(filled, name, 300)
    assert filled.redis.llen("missed") == 1


@BOTH
def test_a_position_in_a_trimmed_stream_of_the_past_misses_nothing(
    filled: Bench, kind: str, name: str
) -> None:
    worker = filled.start(f"outside:{kind}")
    caught_up(filled, name, 100)
    filled.redis.xtrim(STREAM, maxlen=0, approximate=False)  # the group had read all entries
    filled.add(STREAM, trades(101, 150))
    caught_up(filled, name, 150)
    filled.redis.xtrim(STREAM, minid=last_id(120), approximate=False)
    filled.add(STREAM, trades(151, 170))
    caught_up(filled, name, 170)
    assert worker.stop() == 0
    assert not filled.redis.exists("missed")


def test_status_shows_pending_dead_letters_and_workers(filled: Bench) -> None:
    filled.add(STREAM, trades(101, 101, price="13"))
    worker = filled.start("outside:Shared")
    filled.until(lambda: filled.redis.xlen(f"consumers:{{{STREAM}}}:shared:dead"))
    assert lags(filled, "shared")[STREAM]["dead"] == 1
    assert worker.stop() == 0
    filled.add(OTHER, trades(11, 12))
    filled.redis.xreadgroup("shared", "somebody", {OTHER: ">"})
    lag = lags(filled, "shared")[OTHER]
    assert (lag["pending"], lag["lag"]) == (2, 0)
    age_s = time.time() - (START_US + 11 * 1000) / 1_000_000
    assert lag["oldest_pending_s"] == pytest.approx(age_s, abs=30)
    worker = filled.start("outside:Shared")
    filled.until(lambda: filled.status("shared", worker))
    done = run_here(filled.folder, filled.url, "status", "--json")
    [one] = json.loads(done.stdout)["groups"]
    assert (one["group"], one["mode"], one["dead"]) == ("shared", "shared", 1)
    assert [w["name"] for w in one["workers"]] == [worker.name]
    shown = run_here(filled.folder, filled.url, "status").stdout
    assert "shared  shared  1 worker  " in shown
    assert "dead letters 1" in shown


def test_status_shows_owners_and_groups_of_other_programs(filled: Bench) -> None:
    filled.redis.xgroup_create(STREAM, "node", last_id(90))
    worker = filled.start("outside:Ordered")
    caught_up(filled, "ordered", 100)
    assert lags(filled, "ordered")[STREAM]["owner"] == worker.name
    assert lags(filled, "node")[STREAM]["lag"] == 10


def test_status_without_groups_names_the_command_to_run(bench: Bench) -> None:
    done = run_here(bench.folder, bench.url, "status")
    assert "no groups yet" in done.stdout


def test_status_of_an_unknown_group_names_the_existing_groups(bench: Bench) -> None:
    bench.redis.hset("consumers:groups", mapping={"candles": '{"mode": "ordered"}', "tail": "{}"})
    for more in ([], ["--json"]):
        done = run_here(bench.folder, bench.url, "status", "--group", "candels", *more)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            "error: there is no group 'candels', there are candles, tail; did you mean candles?\n"
        )
    done = run_here(bench.folder, bench.url, "status", "--group", "tail")
    assert (done.returncode, "candles" in done.stdout) == (0, False)


def test_status_watch_waits_for_an_unknown_group(bench: Bench) -> None:
    bench.redis.hset("consumers:groups", "tail", "{}")
    command = [sys.executable, "-m", "consumers", "status", "--watch", "--group", "nogroup"]
    watch = warm.Process(
        command,
        cwd=bench.folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "BRIDGE_REDIS__URL": bench.url,
            "PYTHONUNBUFFERED": "1",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watch.stdout is not None
        assert watch.stdout.readline() == "there is no group 'nogroup', there are tail\n"
        bench.redis.hset("consumers:groups", "nogroup", "{}")
        assert any(line.startswith("nogroup") for line in watch.stdout)
    finally:
        watch.kill()
        watch.communicate()


def test_status_watch_reports_an_unavailable_redis_once_and_continues(tmp_path: Path) -> None:
    stderr_file = tmp_path / "stderr.txt"
    with running_redis() as server, stderr_file.open("wb") as err:
        watch = warm.Process(
            [sys.executable, "-m", "consumers", "status", "--watch", "--json", "--every", "0.2"],
            cwd=tmp_path,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "BRIDGE_REDIS__URL": server.url,
            },
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
        try:
            assert watch.stdout is not None
            assert watch.stdout.readline() == '{"groups": [], "unavailable_shards": {}}\n'
            server.stop()
            with socket.create_server(("127.0.0.1", server.port)) as silent:
                silent.settimeout(LIMIT_S)
                for _ in range(3):  # each poll opens a connection
                    silent.accept()[0].close()
            server.start()
            with server.client() as client:
                client.hset("consumers:groups", "back", '{"mode": "shared"}')
            assert any('"back"' in line for line in watch.stdout)
            assert stderr_file.read_text().count("cannot be read") == 1
            server.stop()
            eventually(
                lambda: stderr_file.read_text().count("cannot be read") == 2,
                "the next outage is reported",
            )
        finally:
            watch.kill()
            watch.communicate()
    assert "Traceback" not in stderr_file.read_text()


def test_status_without_watch_fails_when_redis_is_unavailable(tmp_path: Path) -> None:
    done = run_here(tmp_path, f"redis://127.0.0.1:{free_port()}/0", "status")
    assert done.returncode == 1
    assert "cannot be read" in done.stderr


async def test_lags_name_and_omit_an_unavailable_shard(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    space = KeySpace("{b}:", 2)
    options = {"name": "test", "decode_responses": True}
    unavailable: dict[int, str] = {}
    async with (
        connect(redis_url, **options) as live,
        connect("redis://127.0.0.1:1/0", **options) as dead,
    ):
        for name in ("trade.JUP_USDC", "trade.ETH_USDC"):  # of shard 0, and of shard 1
            await live.hset(space.key("bridge:streams"), name, "{}")
            await live.xadd(space.key(name), {"a": "b"}, "5-1")
            await live.xgroup_create(space.key(name), "mine", id="0")
        sharded = ShardedRedis([live, dead], ["b.0", "b.1"])
        [one] = await group_lags(sharded, Keys(space), unavailable=unavailable)

    assert [each.stream for each in one.streams] == ["trade.JUP_USDC"]
    status.show([one], unavailable, Console(width=160), as_json=False)
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("shard 1 does not answer: Error 111 connecting to 127.0.0.1:1. ")
    assert first.endswith(". Its streams are left out")
    status.show([one], unavailable, Console(width=160), as_json=True)
    assert list(json.loads(capsys.readouterr().out)["unavailable_shards"]) == ["1"]


async def test_lags_without_any_shard_raise_although_the_registry_was_read_before(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = KeySpace("{b}:", 2)
    options = {"name": "test", "decode_responses": True}
    async with (
        connect(redis_url, **options) as live,
        connect("redis://127.0.0.1:1/0", **options) as dead,
    ):
        for name in ("trade.JUP_USDC", "trade.ETH_USDC"):  # of shard 0, and of shard 1
            await live.hset(space.key("bridge:streams"), name, "{}")
        before = ShardedRedis([live, dead], ["b.0", "b.1"])

        async def read_before(_: object, keys: Keys, *, in_part: bool) -> Known:
            return await known_in(before, keys, in_part=in_part)

        monkeypatch.setattr(lag, "known_in", read_before)
        after = ShardedRedis([dead, dead], ["b.0", "b.1"])

        with pytest.raises(ConnectionError, match="Error 111"):
            await group_lags(after, Keys(space), unavailable={})


async def test_groups_are_found_in_other_shards_without_the_first(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    space = KeySpace("{b}:", 2)
    keys, stream = Keys(space), "trade.ETH_USDC"  # of shard 1
    options = {"name": "test", "decode_responses": True}
    unavailable: dict[int, str] = {}
    async with (
        connect(redis_url, **options) as live,
        connect("redis://127.0.0.1:1/0", **options) as dead,
    ):
        for number in (1, 2, 3):
            await live.xadd(space.key(stream), {"a": "b"}, f"5-{number}")
        for group in ("ordered", "joined", "shared", "of others"):
            await live.xgroup_create(space.key(stream), group, id="5-1")
        await live.hset(keys.position(stream, "ordered"), mapping={"id": "5-2", "token": 7})
        await live.hset(keys.position(stream, "joined"), "id", "5-3")
        await live.hset(keys.settled(stream, "shared"), "missed", 4)
        await live.hset(keys.settled(stream, "shared"), "base", 0)
        await live.xadd(keys.dead(stream, "shared"), {"a": "b"})
        sharded = ShardedRedis([dead, live], ["b.0", "b.1"])
        found = await group_lags(sharded, keys, unavailable=unavailable)
        with pytest.raises(ConnectionError, match="shard 0 does not answer"):
            await group_lags(sharded, keys)
        nothing = ShardedRedis([dead, dead], ["b.0", "b.1"])
        with pytest.raises(ConnectionError, match="shard 0 does not answer"):
            await group_lags(nothing, keys, unavailable={})

    reported = {one.name: (one.mode, one.streams[0].lag, one.as_dict()["dead"]) for one in found}
    assert reported == {
        "ordered": ("ordered", 1, 0), "joined": ("joined", 0, 0), "shared": ("shared", 2, 1),
        "of others": ("", 2, 0),
    }  # fmt: skip
    assert list(unavailable) == [0]
    status.show(found, unavailable, Console(width=160), as_json=False)
    first, verdict, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("shard 0 does not answer: Error 111 connecting to 127.0.0.1:1. ")
    assert first.endswith(". Its streams are left out; nothing is known of workers")
    assert verdict.startswith(
        "1 shard unavailable, 1 dead letters, 4 entries missed: 4 groups, lag 5, at most "
    )


@pytest.mark.parametrize("part", ["position", "settled", "lease", "dead"])
async def test_key_of_another_kind_among_kit_keys_hides_no_group(redis_url: str, part: str) -> None:
    async with connect(redis_url, name="test", decode_responses=True) as client:
        await client.hset("bridge:streams", mapping={STREAM: "{}", OTHER: "{}"})
        await client.hset("consumers:groups", "mine", '{"mode": "shared"}')
        for stream in (STREAM, OTHER):
            await client.xadd(stream, {"a": "b"}, id="5-0")
            await client.xgroup_create(stream, "mine", "0")
        await client.rpush(f"consumers:{{{STREAM}}}:mine:{part}", "x")
        [group] = await group_lags(client, Keys())
    assert {one.stream: one.lag for one in group.streams} == {STREAM: 1, OTHER: 1}


@pytest.mark.parametrize("counted", ["inf", "nan", "-5", "1e300", "9" * 40, "many"])
async def test_counters_written_by_another_program_are_ignored(
    redis_url: str, counted: str
) -> None:
    async with connect(redis_url, name="test", decode_responses=True) as client:
        await client.hset("bridge:streams", STREAM, "{}")
        await client.hset("consumers:groups", "mine", '{"mode": "ordered"}')
        await client.xadd(STREAM, {"a": "b"}, id="5-0")
        await client.xgroup_create(STREAM, "mine", "0")
        beside = f"consumers:{{{STREAM}}}:mine"
        written = dict.fromkeys(("read", "missed", "base", "acked", "skipped", "tries"), counted)
        await client.hset(f"{beside}:position", mapping={"id": "0-0", "token": "1"} | written)
        await client.hset(f"{beside}:settled", mapping=written)
        [group] = await group_lags(client, Keys())
    assert [(one.lag, one.missed) for one in group.streams] == [(1, 0)]


async def test_lag_without_the_right_to_read_groups_is_an_error(redis_url: str) -> None:
    async with connect(redis_url, name="test", decode_responses=True) as redis:
        await redis.xgroup_create("trade.SOL_USDC", "mine", mkstream=True)
        await redis.execute_command(*without("xinfo|groups"))
        assert await _groups_in(redis, Keys(), ["trade.SOL_USDC", "none"]) == ["mine"]
    async with connect(as_limited(redis_url), name="test", decode_responses=True) as limited:
        with pytest.raises(NoPermissionError, match=r"'xinfo\|groups'"):
            await _groups_in(limited, Keys(), ["trade.SOL_USDC", "none"])
