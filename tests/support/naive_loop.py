"""A simple loop in place of a bridge, for comparison; it reconnects, and has no other recovery.

    python naive_loop.py WS_URL REDIS_URL STREAM...

The comparison is fair: plain redis-py, one awaited `xadd` per message; an error is printed, and the
loop continues.
"""

import asyncio
import json
import sys
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

PREFIX = "loop:"


async def pump(socket: ClientConnection, redis: Redis, streams: list[str]) -> None:
    """Write each message when it arrives."""
    await socket.send(json.dumps({"method": "SUBSCRIBE", "params": streams}))
    print("subscribed", flush=True)
    async for text in socket:
        message = json.loads(text)
        try:
            await redis.xadd(PREFIX + message["stream"], fields(message["data"]))
        except RedisError as error:
            print("not written:", repr(error), flush=True)


def fields(data: dict[str, Any]) -> dict[Any, Any]:
    """The fields of an entry: texts as they are, other values as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in data.items()
    }


async def main(ws_url: str, redis_url: str, *streams: str) -> None:
    """Connect again after each error."""
    async with Redis.from_url(redis_url) as redis:
        while True:
            try:
                async with connect(ws_url) as socket:
                    await pump(socket, redis, list(streams))
            except (WebSocketException, OSError) as error:
                print("reconnecting:", repr(error), flush=True)
            print("disconnected", flush=True)
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
