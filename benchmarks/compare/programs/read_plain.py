"""redis-py's XREADGROUP and XACK, as in its guide: new entries, acknowledged once handled."""

import asyncio
import sys
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import ResponseError

from benchmarks.compare.seen import Seen

STREAM, GROUP, COUNT = "trade.SOL_USDC", "plain", 500


async def main(url: str, count: str, log: str) -> None:
    seen = Seen(int(count), log)
    async with Redis.from_url(url, decode_responses=True) as redis:
        try:
            await redis.xgroup_create(STREAM, GROUP, "0")
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        while True:
            try:
                found: Any = await redis.xreadgroup(GROUP, "one", {STREAM: ">"}, COUNT, block=1000)
                for _, entries in found:
                    for _, fields in entries:
                        seen.note(fields["trade_id"])
                    await redis.xack(STREAM, GROUP, *[entry for entry, _ in entries])
            except Unreachable as error:
                print(repr(error), flush=True)
                await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
