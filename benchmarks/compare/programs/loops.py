"""What people write by hand: websockets and redis-py as they come. It connects again after an
error, tells what it could not write, and goes on.

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
    """Each message by itself."""
    async for frame in socket:
        message = json.loads(frame)
        try:
            await redis.xadd(prefix + message["stream"], fields(message["data"]))
        except RedisError as error:
            print("not written:", repr(error), flush=True)


async def retried(socket: ClientConnection, redis: Redis) -> None:
    """The same, of a client that tries again by itself."""
    await awaited(socket, redis, "retried:")


async def pipelined(socket: ClientConnection, redis: Redis) -> None:
    """What has come goes out together, and grows while Redis is answering."""
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
    """What Redis takes."""
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in data.items()
    }


async def main(how: str, ws_url: str, _rest_url: str, redis_url: str, *markets: str) -> None:
    """Connect again and again."""
    pump = {"awaited": awaited, "retried": retried, "pipelined": pipelined}[how]
    streams = [f"trade.{market}" for market in markets]
    url = urlsplit(redis_url)
    # redis-py tries again ten times where it is given a host, and not at all where an URL
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
