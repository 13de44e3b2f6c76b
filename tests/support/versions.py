"""An earlier version of the bridge before, or together with, the current one."""

from pathlib import Path

from tests.support import earlier_bridge
from tests.support.bridge_run import entries
from tests.support.eventually import eventually_async
from tests.support.oracle import gaps, verdict
from tests.support.pair import LIMIT_S, STREAMS, pair
from tests.support.redis_server import RedisServer

EARLIER, SHIPPED = 0, 1
MARKETS = ("SOL_USDC", "SOL_USDC_PERP")
ALL_STREAMS = (*STREAMS, "liquidation")
# The number of messages that a version writes at least before the other one continues.
ENOUGH = {"bookTicker.SOL_USDC": 50, "account.orderUpdate": 5, "account.balanceUpdate": 5}


def written(server: RedisServer) -> dict[str, tuple[int, int]]:
    """The number of messages of these streams from the earlier version, and from the current
    one.
    """
    counts = {}
    with server.client(decode_responses=True) as client:
        for stream in (*ENOUGH, "liquidation"):
            extras = [
                bool(fields["extra"])
                for _, fields in entries(client, stream)
                if fields["type"] != "gap" and not fields["type"].endswith("_snapshot")
            ]
            counts[stream] = sum(extras), len(extras) - sum(extras)
    return counts


async def publishes(server: RedisServer, version: int, *, liquidations: int = 0) -> None:
    """Wait until this version has written ENOUGH of each stream."""
    before = written(server)
    enough = {**ENOUGH, "liquidation": liquidations}

    def is_enough() -> bool:
        now = written(server)
        return all(
            now[stream][version] >= before[stream][version] + count
            for stream, count in enough.items()
        )

    await eventually_async(is_enough, f"version {version} publishes", LIMIT_S)


async def side_by_side(server: RedisServer, folder: Path, earlier: str) -> list[str]:
    """Run an earlier version, named `earlier`, and the current one on one Redis; the faults in
    Redis.

    `a` publishes the content streams, `b` does while `a` is frozen.
    """
    first, second = (EARLIER, SHIPPED) if earlier == "a" else (SHIPPED, EARLIER)
    programs = {earlier: earlier_bridge.PROGRAM}
    async with pair(
        folder, server, markets=MARKETS, streams=ALL_STREAMS, programs=programs
    ) as both:
        await publishes(server, first)
        both.freeze("a")
        await publishes(server, second, liquidations=1)
        both.thaw("a")
        await both.know_each_other()
        await publishes(server, first)
        await both.finish()
        return [*verdict(server, both.exchange, both.begun_us), *gaps(server)]
