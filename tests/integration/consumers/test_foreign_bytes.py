"""Bytes that are not UTF-8 in the kit's keys: they are skipped and end no worker."""

from pathlib import Path

import pytest
import redis

from bridge.runtime.config import Config
from consumers import Consumer, Delivery, Trade
from consumers.kit.api.consumer import ConsumerSpec, Mode
from consumers.kit.stop import Stop
from consumers.kit.worker.worker import Settings, run_worker
from tests.support.consumer_commands import run_here
from tests.support.consumer_entries import START_US, trade

BAD = b"\xff"


@pytest.mark.parametrize("mode_", ["shared", "ordered"])
async def test_bytes_that_are_not_utf8_end_no_worker_and_delay_no_entry(
    redis_url: str, mode_: Mode
) -> None:
    stop, got = Stop(), list[str]()

    class Plain(Consumer):
        name = "plain"
        streams = ("trade.*",)
        mode = mode_

        def on_trade(self, delivery: Delivery[Trade]) -> None:
            got.append(delivery.entry_id)
            if len(got) == 2:
                stop.set()

    with redis.Redis.from_url(redis_url) as client:
        client.hset("bridge:streams", "trade.A", "{}")
        client.hset("bridge:streams", b"trade." + BAD, BAD)
        client.hset("consumers:status", b"plain/" + BAD, BAD)
        client.hset("consumers:groups", BAD, BAD)
        client.zadd("consumers:workers:plain", {BAD: 10**15})
        client.xadd("trade.A", trade(1, START_US), id="1-0")
        client.xadd("trade.A", {"type": BAD}, id="2-0")
        client.xadd("trade.A", trade(2, START_US), id="3-0")
        client.xadd(b"consumers:{trade.A}:plain:dead", {BAD: BAD})
    config = Config.model_validate({"redis": {"url": redis_url}, "retention": {}})
    await run_worker(Settings(ConsumerSpec(Plain), "plain", "w", ("trade.*",), "0-0"), config, stop)
    assert got == ["1-0", "3-0"]


def test_commands_show_bytes_that_are_no_utf8_with_escapes(redis_url: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset("bridge:streams", "trade.A", "{}")
        client.hset("consumers:groups", mapping={BAD: BAD, "plain": "{}"})
        client.xadd(b"consumers:{trade.A}:plain:dead", {"error": BAD, "entry_id": "1-1"})
    listed = run_here(tmp_path, redis_url, "deadletters", "list")
    assert "trade.A 1-1 ×0 \\xff" in listed.stdout
    assert "\\xff" in run_here(tmp_path, redis_url, "status").stdout
