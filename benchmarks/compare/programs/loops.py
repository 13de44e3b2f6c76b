"""Hand-written loops: websockets and redis-py with their defaults. They reconnect after an error,
print what they could not write, and continue.

    python -m benchmarks.compare.programs.loops HOW WS_URL REST_URL REDIS_URL MARKET…

HOW is awaited, retried or pipelined.
"""

import asyncio
import json
import sys
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

BATCH = 256


async def awaited(socket: ClientConnection, redis: Redis, prefix: str = "awaited:") -> None:
    """One XADD for each message."""
    async for frame in socket:
        message = json.loads(frame)
        try:
            await redis.xadd(prefix + message["stream"], fields(message["data"]))
        except RedisError as error:
            print("not written:", repr(error), flush=True)


async def retried(socket: ClientConnection, redis: Redis) -> None:
    """As `awaited`, with a client that retries by itself."""
    await awaited(socket, redis, "retried:")


async def pipelined(socket: ClientConnection, redis: Redis) -> None:
    """Pipelines waiting messages; more collect while Redis answers."""
    waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue(10_000)

    async def write() -> None:
        while True:
            pipeline = redis.pipeline(transaction=False)
            message = await waiting.get()
            while True:
                pipeline.xadd("pipelined:" + message["stream"], fields(message["data"]))
                if len(pipeline) >= BATCH or waiting.empty():
                    break
                message = waiting.get_nowait()
            try:
                await pipeline.execute()
            except RedisError as error:
                print("not written:", repr(error), flush=True)

    async with asyncio.TaskGroup() as tasks:
        writer = tasks.create_task(write())
        async for frame in socket:
            await waiting.put(json.loads(frame))
        writer.cancel()


def fields(data: dict[str, Any]) -> dict[Any, Any]:
    """The fields as Redis accepts them."""
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in data.items()
    }


async def main(how: str, ws_url: str, _rest_url: str, redis_url: str, *markets: str) -> None:
    """Connect and pump, again after each error."""
    pump = {"awaited": awaited, "retried": retried, "pipelined": pipelined}[how]
    streams = [f"trade.{market}" for market in markets]
    url = urlsplit(redis_url)
    # redis-py retries ten times where it is given a host, and not at all for a URL.
    if how == "retried":
        client = Redis(host=url.hostname or "", port=url.port or 6379)
    else:
        client = Redis.from_url(redis_url)
    async with client as redis:
        while True:
            try:
                async with connect(ws_url) as socket:
                    await socket.send(json.dumps({"method": "SUBSCRIBE", "params": streams}))
                    await pump(socket, redis)
            except* (WebSocketException, OSError) as errors:
                print("reconnecting:", repr(errors), flush=True)
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
