"""The kit in shared mode: typed events, acknowledged in batches."""

import asyncio
import os
import sys

from benchmarks.compare.seen import Seen
from bridge.contract.events import Trade
from bridge.runtime.config import load_config
from consumers import Delivery, consumes
from consumers.kit.api.consumer import ConsumerSpec
from consumers.kit.stop import Stop
from consumers.kit.worker.worker import Settings, run_worker


async def main(url: str, count: str, log: str) -> None:
    os.environ["BRIDGE_REDIS__URL"] = url
    seen = Seen(int(count), log)

    @consumes("trade.*", name="kit")
    def handle(delivery: Delivery[Trade]) -> None:
        seen.note(str(delivery.event.trade_id))

    spec = ConsumerSpec(handle)
    settings = Settings(spec, group="kit", name="one", patterns=handle.streams, start="0-0")
    await run_worker(settings, load_config(None), Stop())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
