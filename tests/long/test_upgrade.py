"""A version that names one more field of some messages takes over from an earlier one, and runs
together with it: the identity of messages does not depend on the named fields.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import earlier_bridge
from tests.support.bridge_run import DEMO_KEYS, running_bridge
from tests.support.eventually import eventually_async
from tests.support.oracle import verdict
from tests.support.pair import LIMIT_S, TICKING
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import running_simulator
from tests.support.versions import (
    ALL_STREAMS,
    EARLIER,
    MARKETS,
    SHIPPED,
    publishes,
    written,
)

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as running_server:
        yield running_server


async def test_upgrade_after_a_kill_before_the_checkpoint_writes_nothing_twice(
    server: RedisServer, tmp_path: Path
) -> None:
    options = ["--rate", "300", "--accept-key", DEMO_KEYS["PUBLIC_KEY"]]
    options += [word for market in MARKETS for word in ("--market", market)]
    async with running_simulator(*options, ledger=tmp_path / "ledger.jsonl") as exchange:
        async with running_bridge(
            tmp_path, exchange.ws_url, server.url, ALL_STREAMS, program=earlier_bridge.PROGRAM
        ) as earlier:
            await eventually_async(
                lambda: earlier.is_confirmed(TICKING), "the earlier version receives", LIMIT_S
            )
            begun_us = time.time_ns() // 1000
            await publishes(server, EARLIER, liquidations=1)
            earlier.process.kill()
            earlier.process.wait()
        before = written(server)
        # As if there was no checkpoint yet: the bridge receives the whole journal again.
        (tmp_path / "data" / "journal" / "checkpoint.json").unlink(missing_ok=True)

        async with running_bridge(
            tmp_path, exchange.ws_url, server.url, ALL_STREAMS
        ) as bridge:  # fmt: skip
            await publishes(server, SHIPPED)
            exchange.stop()
            await eventually_async(
                lambda: "feed_lost" in bridge.log(), "the exchange is disconnected"
            )
            await eventually_async(
                lambda: not bridge.status()["pending"], "all received messages are in Redis"
            )
            assert await bridge.stop() == 0
            assert "Traceback" not in bridge.log()

    assert verdict(server, exchange, begun_us) == []
    after = written(server)
    assert [counts[EARLIER] for counts in after.values()] == [
        counts[EARLIER] for counts in before.values()
    ]
