"""From Redis to a handler: the kit against a bare loop of redis-py, which decodes nothing.

python -m benchmarks.consumer_rows bare|shared|batches|ordered REDIS_URL MESSAGES
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from redis.asyncio import Redis

from benchmarks.ground import Broken, Ground
from benchmarks.measure import Sample, rss_mb
from benchmarks.rows import row
from bridge.contract.events import Trade
from bridge.runtime.collector import settle_collector
from bridge.runtime.config import load_config
from consumers import Consumer, Delivery, StopWorker, consumes
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.stop import Stop
from consumers.kit.worker.worker import Settings, run_worker

STREAM = "trade.SOL_USDC"
COUNT = 500  # entries of a read, as in the kit
LIMIT_S = 60
TIMES = 4  # times the usual messages, since these are read quickly


@row("consumers", "loop, redis-py XREADGROUP and XACK, nothing decoded")
def bare_loop(ground: Ground) -> Sample:
    return _read(ground, "bare")


@row("consumers", "kit, shared: typed events, acknowledged in batches")
def kit_shared(ground: Ground) -> Sample:
    return _read(ground, "shared")


@row("consumers", "kit, shared, lists (`on_batch`)")
def kit_batches(ground: Ground) -> Sample:
    return _read(ground, "batches")


@row("consumers", "kit, ordered: position committed in batches")
def kit_ordered(ground: Ground) -> Sample:
    return _read(ground, "ordered")


def _read(ground: Ground, how: str) -> Sample:
    messages = TIMES * len(ground.workload.frames)
    with ground.redis() as client:
        client.hset("bridge:streams", STREAM, "{}")
        random = Random(1)
        # More than are counted: the clock stops at the first of the additional ones.
        for first in range(0, messages + COUNT, COUNT):
            with client.pipeline(transaction=False) as pipeline:
                for number in range(first, first + COUNT):
                    at = f"{1_788_367_440_000 + number}-{number * 10}"
                    pipeline.xadd(STREAM, trade(number, random), id=at)
                pipeline.execute()
    server = ground.redis_s()
    arguments = ("-m", "benchmarks.consumer_rows", how, ground.redis_url, str(messages))
    with ground.program(*arguments) as process:
        process.wait(LIMIT_S)
        output = (ground.folder / "program.log").read_text()
    if process.returncode:
        raise Broken(output[-500:])
    figures = json.loads(output.splitlines()[-1])
    return Sample(
        per_second=messages / figures["seconds"],
        cpu_us=figures["cpu_s"] / messages * 1e6,
        redis_us=(ground.redis_s() - server) / messages * 1e6,
        rss_mb=figures["rss_mb"],
    )


def trade(number: int, random: Random) -> dict[Any, Any]:
    return {
        "type": "trade",
        "symbol": "SOL_USDC",
        "price": f"{random.randint(9000, 9999) / 100}",
        "quantity": f"{random.randint(1, 999) / 100}",
        "trade_id": str(number),
        "buyer_order_id": "111063070525358080",
        "seller_order_id": "111063070525358081",
        "buyer_is_maker": "true" if number % 2 else "false",
        "source": "",
        "event_us": str(1_788_367_440_001_500 + number * 1000),
        "engine_us": str(1_788_367_440_000_000 + number * 1000),
        "received_us": str(1_788_367_440_090_000 + number * 1000),
        "extra": "",
    }


class _Clock:
    """Measures from the arrival of the first message to that of the first not counted: those before
    it are read, handled and, except those in progress, acknowledged.
    """

    def __init__(self, messages: int) -> None:
        self._messages = messages
        self._seen = 0
        self._begun = (0.0, 0.0)
        self._ended = (0.0, 0.0)

    def note(self, messages: int) -> bool:
        """Count arrived messages. Returns whether the measurement is over."""
        if not self._seen:
            self._begun = (time.monotonic(), time.process_time())
        self._seen += messages
        if self._seen <= self._messages:
            return False
        self._ended = (time.monotonic(), time.process_time())
        return True

    def report(self) -> str:
        seconds, cpu = (end - begin for begin, end in zip(self._begun, self._ended, strict=True))
        return json.dumps({"seconds": seconds, "cpu_s": cpu, "rss_mb": rss_mb(os.getpid())})


async def _bare(url: str, clock: _Clock) -> None:
    redis: Redis
    async with Redis.from_url(url, decode_responses=True) as redis:
        await redis.xgroup_create(STREAM, "bare", "0")
        while True:
            found: Any = await redis.xreadgroup("bare", "one", {STREAM: ">"}, count=COUNT)
            for _, entries in found:
                if clock.note(len(entries)):
                    return
                await redis.xack(STREAM, "bare", *[entry_id for entry_id, _ in entries])


def _kit(how: str) -> Callable[[str, _Clock], Coroutine[Any, Any, None]]:
    async def run(url: str, clock: _Clock) -> None:
        os.environ["BRIDGE_REDIS__URL"] = url

        def note(entries: int) -> None:
            if clock.note(entries):
                raise StopWorker

        kind: type[Consumer]
        if how == "batches":

            @consumes("trade.*", name="kit")
            def kind(batch: list[Delivery[Trade]]) -> None:
                note(len(batch))

        else:

            @consumes("trade.*", name="kit", mode=how)  # type: ignore[arg-type]
            def kind(delivery: Delivery[Trade]) -> None:
                note(1)

        settle_collector()  # as `python -m consumers run` does
        settings = Settings(
            ConsumerSpec(kind), group="kit", name="one", patterns=kind.streams, start="0-0"
        )
        await run_worker(settings, load_config(None), Stop())

    return run


def main() -> None:
    how, url, messages = sys.argv[1:]
    clock = _Clock(int(messages))
    work = _bare if how == "bare" else _kit(how)
    asyncio.run(work(url, clock))
    sys.stdout.write(clock.report() + "\n")


if __name__ == "__main__":
    main()
