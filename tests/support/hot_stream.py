"""Workers in this process on one stream with very many entries among many quiet ones."""

import asyncio
import time
from typing import NamedTuple

import redis

from bridge.runtime.config import Config
from consumers import Consumer, Delivery, Trade
from consumers.kit.api.consumer import ConsumerSpec, Mode
from consumers.kit.stop import Stop
from consumers.kit.worker.worker import Settings, run_worker
from tests.support.consumer_entries import START_US, entry_id, trade


class Run(NamedTuple):
    """The number of different entries of the hot stream that were handled, the seconds from the
    first to the last, and the number of reads of all workers.
    """

    handled: int
    took_s: float
    reads: int


async def run_hot_stream(url: str, mode: Mode, streams: int, workers: int, entries: int) -> Run:
    """Run workers until the hot stream's entries are handled; the Redis must be empty before."""
    hot = f"trade.M{streams // 2}_USDC"
    stop, handled, times_s = Stop(), set[str](), list[float]()

    def on_trade(_: Consumer, delivery: Delivery[Trade]) -> None:
        if delivery.stream == hot:
            handled.add(delivery.entry_id)
            times_s.append(time.monotonic())
        if len(handled) == entries:
            stop.set()

    members = {"name": "hot", "streams": ("trade.*",), "mode": mode, "on_trade": on_trade}
    spec = ConsumerSpec(type("Hot", (Consumer,), members))
    config = Config.model_validate({"redis": {"url": url}, "retention": {}})
    with redis.Redis.from_url(url, decode_responses=True) as client:
        _fill(client, hot, streams, entries)
        before = _reads(client)
        await asyncio.gather(
            *(
                run_worker(Settings(spec, "hot", f"w{number}", ("trade.*",), "0-0"), config, stop)
                for number in range(workers)
            )
        )
        return Run(len(handled), times_s[-1] - times_s[0], _reads(client) - before)


def _fill(client: redis.Redis, hot: str, streams: int, entries: int) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for name in [f"trade.M{number}_USDC" for number in range(streams)]:
            pipeline.hset("bridge:streams", name, "{}")
            for n in range(1, entries + 1 if name == hot else 2):
                fields = trade(n, START_US + n * 1000)
                pipeline.xadd(name, fields, id=entry_id(START_US + n * 1000, n))  # type: ignore[arg-type]
        pipeline.execute()


def _reads(client: redis.Redis) -> int:
    stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("xread", "xreadgroup"))
