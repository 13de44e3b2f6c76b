"""Hand-written alternatives to a bridge: the same frames, the same socket library, redis-py.

python -m benchmarks.loop_rows naive|pipelined WS_URL REDIS_URL STREAM...
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.ground import Ground
from benchmarks.measure import Sample
from benchmarks.rows import row

MAX_ENTRIES = 200_000
BATCH = 256


@row("saturated", "loop, redis-py pipeline")
@row("paced", "loop, redis-py pipeline")
@row("latency", "loop, redis-py pipeline")
def pipelined_loop(ground: Ground) -> Sample:
    return _loop(ground, "pipelined")


@row("saturated", "loop, `await xadd`")
@row("paced", "loop, `await xadd`")
@row("latency", "loop, `await xadd`")
def naive_loop(ground: Ground) -> Sample:
    return _loop(ground, "naive")


def _loop(ground: Ground, name: str) -> Sample:
    with ground.exchange() as exchange, ground.redis() as client:
        arguments = (name, exchange.ws_url, ground.redis_url, *ground.workload.streams)
        with ground.program("-m", "benchmarks.loop_rows", *arguments) as process:
            exchange.wait_until_subscribed()
            return ground.published(process, exchange, client)


async def naive(socket: ClientConnection, redis: Redis) -> None:
    """One XADD for each message."""
    async for frame in socket:
        message = json.loads(frame)
        await redis.xadd(
            message["stream"], _fields(message["data"]), maxlen=MAX_ENTRIES, approximate=True
        )


async def pipelined(socket: ClientConnection, redis: Redis) -> None:
    """Pipelines waiting messages; more collect while Redis answers, as in the bridge."""
    waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(10_000)

    async def write() -> None:
        while True:
            pipeline = redis.pipeline(transaction=False)
            message = await waiting.get()
            while True:
                pipeline.xadd(
                    message["stream"],
                    _fields(message["data"]),
                    maxlen=MAX_ENTRIES,
                    approximate=True,
                )
                if len(pipeline) >= BATCH or waiting.empty():
                    break
                message = waiting.get_nowait()
            await pipeline.execute()

    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(write())
        async for frame in socket:
            await waiting.put(json.loads(frame))
        writer.cancel()


def _fields(data: dict[str, Any]) -> dict[Any, Any]:
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in data.items()
    }


async def main(name: str, ws_url: str, redis_url: str, streams: Sequence[str]) -> None:
    """Run a loop until the exchange closes."""
    loop = {"naive": naive, "pipelined": pipelined}[name]
    async with connect(ws_url, compression=None) as socket, Redis.from_url(redis_url) as redis:
        await socket.send(json.dumps({"method": "SUBSCRIBE", "params": list(streams)}))
        await loop(socket, redis)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
