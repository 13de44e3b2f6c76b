"""FastStream's stream subscriber with a group, as in its docs."""

import asyncio
import sys
from typing import Any

from faststream import FastStream
from faststream.redis import RedisBroker, StreamSub

from benchmarks.compare.seen import Seen


async def main(url: str, count: str, log: str) -> None:
    seen = Seen(int(count), log)
    broker = RedisBroker(url)
    stream = StreamSub("trade.SOL_USDC", group="faststream", consumer="one", last_id="0")

    @broker.subscriber(stream=stream)
    async def handle(trade: dict[str, Any]) -> None:
        seen.note(trade["trade_id"])

    await FastStream(broker).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
