"""A bridge's status in Redis: its time is that of the clock with which viewers compare it."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bridge.contract.streams import Stream, parse_stream
from bridge.core.peers import Peers, PeerStatus
from bridge.core.progress import Progress
from bridge.redis.heartbeat import Heartbeat
from bridge.runtime.clock import SystemClock
from bridge.runtime.keyspace import KeySpace
from bridge.runtime.redis_client import connect
from tests.support.redis_server import running_redis


class ShiftedClock(SystemClock):
    """A machine's clock that is wrong by `shift_us` µs."""

    def __init__(self, shift_us: int) -> None:
        super().__init__()
        self._shift_us = shift_us

    def wall_us(self) -> int:
        return super().wall_us() + self._shift_us

    def now_us(self) -> int:
        return super().now_us() + self._shift_us


class Reporter:
    """A bridge with these streams; `settled` is the position up to which each stream is settled."""

    def __init__(self, *streams: str, settled: Mapping[str, int] | None = None) -> None:
        self._settled = settled or {}
        self._streams = {name: parse_stream(name) for name in streams}

    async def status_in_steps(self) -> Mapping[str, Any]:
        return {"instance": "b"}

    def progress(self) -> Progress:
        return Progress(settled=self._settled)

    def streams(self) -> Mapping[str, Stream]:
        return self._streams

    def leave(self, name: str) -> None:
        self._streams = {each: of for each, of in self._streams.items() if each != name}

    def member(self) -> str:
        return ""

    def elsewhere(self) -> Mapping[str, str]:
        return {}


@pytest.mark.parametrize("shift_s", [-5, 5, -86_400])
async def test_status_has_its_time_by_the_clock_of_redis(redis_url: str, shift_s: int) -> None:
    async with connect(redis_url, name="test", decode_responses=True) as client:
        clock = ShiftedClock(shift_s * 1_000_000)
        me = PeerStatus(instance="b", session="1")
        heartbeat = Heartbeat(client, KeySpace(), Reporter(), me, Peers(), clock)
        await heartbeat.begin()
        before_s, _ = await client.time()
        await heartbeat.beat()
        after_s, _ = await client.time()
        status = json.loads(await client.hget("bridge:status", "b") or "{}")

    assert before_s - 1 <= status["redis_us"] / 1_000_000 <= after_s + 1


async def test_the_registry_in_the_first_shard_has_each_streams_key_in_its_own(
    redis_url: str,
) -> None:
    space = KeySpace("{b}:", 4)
    async with connect(redis_url, name="test", decode_responses=True) as client:
        reporter, clock = Reporter("trade.SOL_USDC", "trade.JUP_USDC"), SystemClock()
        me = PeerStatus(instance="b", session="1")
        heartbeat = Heartbeat(client, space, reporter, me, Peers(), clock)
        await heartbeat.begin()
        await heartbeat.beat()
        lines = await client.hgetall("{b.0}:bridge:streams")

    assert {name: json.loads(line)["key"] for name, line in lines.items()} == {
        "trade.SOL_USDC": "{b.3}:trade.SOL_USDC",
        "trade.JUP_USDC": "{b.0}:trade.JUP_USDC",
    }


async def test_a_stream_left_while_redis_is_unavailable_is_retired_in_the_registry_afterwards(
    redis_url: str,
) -> None:
    async with connect(redis_url, name="test", decode_responses=True) as client:
        reporter = Reporter("trade.SOL_USDC", "trade.JUP_USDC")
        heartbeat, _ = beating(client, reporter)
        await heartbeat.begin()
        await heartbeat.beat()

        reporter.leave("trade.JUP_USDC")
        await client.execute_command("CONFIG", "SET", "maxmemory", "1")
        await heartbeat.beat()
        await client.execute_command("CONFIG", "SET", "maxmemory", "0")
        await heartbeat.beat()
        lines = await client.hgetall("bridge:streams")

    retired = {name: "retired_us" in json.loads(line) for name, line in lines.items()}
    assert retired == {"trade.SOL_USDC": False, "trade.JUP_USDC": True}


def beating(client: Redis, reporter: Reporter | None = None) -> tuple[Heartbeat, Peers]:
    me, peers = PeerStatus(instance="b", session="1"), Peers()
    peers.expect()
    return Heartbeat(client, KeySpace(), reporter or Reporter(), me, peers, SystemClock()), peers


async def test_watermark_more_than_a_minute_ahead_of_redis_is_ignored(
    redis_url: str,
) -> None:
    async with connect(redis_url, name="test", decode_responses=True) as client:
        seconds, _ = await client.time()
        now_us = seconds * 1_000_000
        marks = {"trade.A": now_us + 50_000_000, "trade.B": now_us + 86_400_000_000 * 365}
        await client.hset("bridge:watermarks", mapping=marks)
        heartbeat, peers = beating(client, Reporter(settled={"trade.B": now_us}))

        assert await heartbeat.begin() == {"trade.A": marks["trade.A"]}
        await heartbeat.beat()
        await heartbeat.beat()

        # the value too far in the future is overwritten
        assert peers.watermarks["trade.B"] == now_us


async def test_unwritable_status_is_reported_once_and_again_at_its_end(
    redis_url: str,
) -> None:
    async with connect(redis_url, name="test", decode_responses=True) as client:
        user = ("ACL", "SETUSER", "bridge")
        await client.execute_command(*user, "on", ">secret", "~*", "+@all", "-hset")
        try:
            url = redis_url.replace("redis://", "redis://bridge:secret@")
            with capture_logs() as logs:
                async with connect(url, name="bridge", decode_responses=True) as ours:
                    heartbeat, peers = beating(ours)
                    await heartbeat.begin()
                    await heartbeat.beat()
                    await heartbeat.beat()
                    await client.execute_command(*user, "+hset")
                    await heartbeat.beat()
                    await heartbeat.beat()
        finally:
            await client.execute_command("ACL", "DELUSER", "bridge")

    assert [line["event"] for line in logs] == ["status_unwritable", "status_written_again"]
    assert logs[0]["reason"].endswith("no permissions to run the 'hset' command")
    assert peers.is_known


async def test_a_server_without_the_command_time_keeps_no_bridge_from_beginning() -> None:
    with running_redis(options=("--rename-command", "TIME", "")) as server:
        async with connect(server.url, name="test", decode_responses=True) as client:
            heartbeat, peers = beating(client)
            await heartbeat.begin()
            await heartbeat.beat()
            status = await client.hget("bridge:status", "b")

    assert peers.is_known
    assert abs(json.loads(status or "{}")["redis_us"] - SystemClock().wall_us()) < 5_000_000
