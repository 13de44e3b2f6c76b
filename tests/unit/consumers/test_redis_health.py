"""A worker's log lines while Redis is unavailable."""

from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from consumers.kit.redis_health import RedisHealth
from consumers.kit.stop import Stop


async def test_an_outage_of_one_of_several_shards_is_reported_once_with_its_number() -> None:
    health, over = RedisHealth("redis://h/0", 2), Stop()
    over.set()
    with capture_logs() as lines:
        for connection in ("read", "settle"):
            await health.down(connection, RedisConnectionError("refused"), over)
        assert health.trouble == "shard 2: refused"
        health.up("read")
        health.up("settle")

    assert [(line["event"], line["shard"]) for line in lines] == [
        ("redis_unavailable", 2), ("redis_connected", 2),
    ]  # fmt: skip
    assert health.trouble == ""


async def test_an_outage_of_one_redis_names_no_shard() -> None:
    health, over = RedisHealth("redis://h/0"), Stop()
    over.set()
    with capture_logs() as lines:
        await health.down("read", RedisConnectionError("refused"), over)

    assert health.trouble == "refused"
    assert ["shard" in line for line in lines] == [False]
