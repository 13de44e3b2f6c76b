"""nautilus_trader's message bus with its Redis backend, which writes each topic to a stream. It has
no Backpack, so the messages come from websockets and are passed on unchanged.
"""

import asyncio
import json
import sys
from urllib.parse import urlsplit

import msgspec
from nautilus_trader.common.config import DatabaseConfig, MessageBusConfig
from nautilus_trader.core import nautilus_pyo3
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

BUFFER_MS = 10  # the lowest value that its docs recommend


async def main(ws_url: str, _rest_url: str, redis_url: str, *markets: str) -> None:
    redis = urlsplit(redis_url)
    config = MessageBusConfig(
        database=DatabaseConfig(host=redis.hostname, port=redis.port),
        encoding="json",
        buffer_interval_ms=BUFFER_MS,
        streams_prefix="nautilus",
        use_trader_prefix=False,
        use_trader_id=False,
    )
    bus = nautilus_pyo3.RedisMessageBusDatabase(
        trader_id=nautilus_pyo3.TraderId("TRADER-001"),
        instance_id=nautilus_pyo3.UUID4(),
        config_json=msgspec.json.encode(config),
    )
    streams = [f"trade.{market}" for market in markets]
    while True:
        try:
            async with connect(ws_url) as socket:
                await socket.send(json.dumps({"method": "SUBSCRIBE", "params": streams}))
                async for frame in socket:
                    message = json.loads(frame)
                    bus.publish(message["stream"], json.dumps(message["data"]).encode())
        except (WebSocketException, OSError) as error:
            print("reconnecting:", repr(error), flush=True)
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
