"""The publisher against a Redis that is killed, frozen, disconnected, full or has a key of another
type.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis
from structlog.testing import capture_logs

from bridge.errors import Fatal
from bridge.journal.log import Log
from bridge.journal.segments import SegmentWriter
from bridge.redis import outbox as outbox_module
from bridge.redis import publisher as publisher_module
from bridge.redis.connection import Target
from tests.support import frames
from tests.support.eventually import eventually_async
from tests.support.proxy import running_proxy
from tests.support.publisher_rig import (
    FIRST_PAUSE_S,
    ORDERS,
    TRADES,
    Rig,
    all_trades,
    order_ids,
    running,
    trade_ids,
)
from tests.support.redis_server import RedisServer, running_redis


@pytest.fixture
def server() -> AsyncIterator[RedisServer]:
    with running_redis(appendonly=True) as running_server:
        yield running_server


def now_us() -> int:
    return time.time_ns() // 1000


async def test_publisher_received_messages_are_in_redis_in_order(server: RedisServer) -> None:
    async with running(Rig(server.url)) as rig:
        rig.trades(500)
        rig.orders(100)
        await rig.settled()

    assert trade_ids(server) == all_trades(500)
    assert order_ids(server) == [str(number) for number in range(100)]


async def test_publisher_redis_unavailable_at_the_start_connects_once_it_is_there(
    server: RedisServer,
) -> None:
    server.kill()
    async with running(Rig(server.url)) as rig:
        rig.trades(100)
        await eventually_async(lambda: "cannot connect" in rig.trouble, "the error is reported")
        server.start()
        await rig.settled()

    assert trade_ids(server) == all_trades(100)


async def test_publisher_redis_killed_repeatedly_loses_and_duplicates_nothing(
    server: RedisServer,
) -> None:
    async with running(Rig(server.url)) as rig:
        for _ in range(5):
            rig.trades(300)
            rig.orders(20)
            await asyncio.sleep(0)
            server.kill()
            rig.trades(300)
            server.start()
            await eventually_async(lambda: rig.trouble == "", "connected again")
        await rig.settled()

    assert trade_ids(server) == all_trades(3000)


async def test_publisher_replies_lost_entries_are_there_once(server: RedisServer) -> None:
    async with running_proxy("127.0.0.1", server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with running(Rig(url)) as rig:
            rig.trades(1)
            await rig.settled()
            for turn in range(1, 11):
                proxy.lose_reply()
                rig.trades(100)
                rig.receive(frames.ORDER_ACCEPTED.replace("59887375336", str(rig.sent)))
                await eventually_async(lambda: proxy.replies_lost == turn, "a reply is lost")  # noqa: B023
                await rig.settled()

    assert proxy.replies_lost == 10
    assert trade_ids(server) == all_trades(1001)
    assert order_ids(server) == [str(1 + 100 * turn) for turn in range(1, 11)]


async def test_publisher_frozen_redis_gives_up_the_connection_and_continues_later(
    server: RedisServer,
) -> None:
    async with running(Rig(server.url, timeout_s=0.3)) as rig:
        rig.trades(10)
        await rig.settled()
        server.pause()
        rig.trades(500)
        await eventually_async(lambda: "did not answer" in rig.trouble, "the error is reported")
        server.resume()
        await rig.settled()

    assert trade_ids(server) == all_trades(510)


async def test_publisher_redis_out_of_memory_publishes_once_there_is_room(
    server: RedisServer,
) -> None:
    with server.client() as client:
        async with running(Rig(server.url)) as rig:
            rig.trades(10)
            await rig.settled()
            client.config_set("maxmemory", 1)
            rig.trades(200)
            await eventually_async(lambda: "OOM" in rig.trouble, "the error is reported")
            client.config_set("maxmemory", 0)
            await rig.settled()

    assert trade_ids(server) == all_trades(210)


async def test_publisher_read_only_redis_publishes_once_it_is_a_primary(
    server: RedisServer,
) -> None:
    with server.client() as client:
        async with running(Rig(server.url)) as rig:
            rig.trades(10)
            await rig.settled()
            client.replicaof("127.0.0.1", 1)
            rig.trades(200)
            await eventually_async(lambda: "is a replica" in rig.trouble, "the error is reported")
            client.replicaof("NO", "ONE")
            await rig.settled()

    assert trade_ids(server) == all_trades(210)


async def test_publisher_script_flushed_loads_it_again(server: RedisServer) -> None:
    with server.client() as client:
        async with running(Rig(server.url)) as rig:
            rig.trades(10)
            await rig.settled()
            client.script_flush()
            rig.trades(10)
            await rig.settled()

    assert trade_ids(server) == all_trades(20)


async def test_publisher_key_of_another_type_suspends_that_stream_until_it_is_gone(
    server: RedisServer,
) -> None:
    with server.client() as client:
        client.set(ORDERS, "a string")
        async with running(Rig(server.url)) as rig:
            rig.orders(3)
            rig.trades(100)
            await eventually_async(lambda: len(trade_ids(server)) == 100, "all trades are in Redis")
            reason = rig.queue(ORDERS).reason
            client.delete(ORDERS)
            await eventually_async(lambda: len(order_ids(server)) == 3, "all orders are in Redis")

    assert "WRONGTYPE" in reason
    assert rig.queue(ORDERS).reason == ""


async def test_publisher_second_process_with_the_same_messages_adds_nothing(
    server: RedisServer,
) -> None:
    for _ in range(2):
        async with running(Rig(server.url)) as rig:
            rig.trades(50)
            rig.orders(5)
            await rig.settled()

    assert trade_ids(server) == all_trades(50)
    assert order_ids(server) == ["0", "1", "2", "3", "4"]


async def test_publisher_flushall_without_journal_begins_the_stream_with_its_gap(
    server: RedisServer,
) -> None:
    with server.client(decode_responses=True) as client:
        async with running(Rig(server.url)) as rig:
            rig.trades(10)
            await rig.settled()
            client.flushall()
            rig.trades(10)
            await rig.settled()
        (_, start), *_ = client.xrange(TRADES)

    assert (start["type"], start["cause"]) == ("gap", "redis lost entries")
    assert trade_ids(server) == all_trades(20)[10:]


async def test_publisher_prefix_of_another_account_ends_the_bridge(server: RedisServer) -> None:
    async with running(Rig(server.url, fingerprint="mine")) as rig:
        rig.orders(1)
        await rig.settled()

    with pytest.raises(Fatal, match="key_prefix"):
        await Rig(server.url, fingerprint="another").publisher.run()


async def test_drain_with_redis_unavailable_ends_at_its_deadline(server: RedisServer) -> None:
    server.kill()
    async with running(Rig(server.url)) as rig:
        rig.trades(7)
        await rig.publisher.drain(0.2)

        assert rig.pending == 7


async def test_publisher_password_is_used_and_a_wrong_one_is_reported_without_it() -> None:
    with running_redis(password="hush") as guarded:
        async with running(Rig(guarded.url)) as rig:
            rig.trades(3)
            await rig.settled()
        wrong = guarded.url.replace("hush", "wrong")
        async with running(Rig(wrong)) as rig:
            rig.trades(3)
            await eventually_async(lambda: "WRONGPASS" in rig.trouble, "the error is reported")
            assert "wrong" not in rig.trouble.replace("WRONGPASS", "")

        assert "hush" not in repr(Target.from_url(guarded.url))


async def test_publisher_login_refused_for_a_while_continues_later() -> None:
    with running_redis(password="hush") as guarded, guarded.client() as client:
        async with running(Rig(guarded.url)) as rig:
            rig.trades(10)
            await rig.settled()
            client.config_set("requirepass", "changed")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            rig.trades(200)
            await eventually_async(lambda: "WRONGPASS" in rig.trouble, "the error is reported")
            client.config_set("requirepass", "hush")
            await rig.settled()

        assert trade_ids(guarded) == all_trades(210)


async def test_publisher_redis_loading_its_data_continues_later() -> None:
    slow = (
        "--key-load-delay",
        "50000",  # µs a key: loading takes 15 s; Redis serves clients after each key
        "--loading-process-events-interval-bytes",
        "1024",
        "--rdbcompression",
        "no",
    )
    with running_redis(appendonly=True, options=slow) as server:
        with server.client() as client:
            client.mset({f"filler:{number}": "x" * 2000 for number in range(300)})
            client.bgrewriteaof()
            await eventually_async(
                lambda: not client.info("persistence")["aof_rewrite_in_progress"],
                "the rewrite of the AOF has ended",
            )
        async with running(Rig(server.url)) as rig:
            rig.trades(10)
            await rig.settled()
            server.kill()
            rig.trades(200)
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            await eventually_async(lambda: "LOADING" in rig.trouble, "the error is reported")
            with server.client() as client:
                client.config_set("key-load-delay", 0)
            await starting
            await rig.settled()

        assert trade_ids(server) == all_trades(210)


async def test_outbox_tail_longer_than_a_page_is_read_whole(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "TAIL_PAGE", 7)
    async with running(Rig(server.url)) as rig:
        rig.orders(100)
        await rig.settled()
    async with running(Rig(server.url)) as again:
        again.orders(101)
        await again.settled()

    assert order_ids(server) == [str(number) for number in range(101)]


async def test_publisher_without_a_stream_registers_nothing_and_connects(
    server: RedisServer,
) -> None:
    rig = Rig(server.url, names=())  # as with only patterns, before the markets are known
    with capture_logs() as logged:
        async with running(rig):
            await eventually_async(lambda: rig.trouble == "", "the publisher is connected")
            rig.open()
            rig.trades(3)
            await rig.settled()

    assert [line for line in logged if line["event"] == "redis_unavailable"] == []
    assert trade_ids(server) == all_trades(3)


async def test_publisher_registry_key_of_another_type_is_reported_once_and_publishing_continues(
    server: RedisServer,
) -> None:
    with server.client() as client, capture_logs() as logged:
        client.set("bridge:streams", "a string")
        async with running(Rig(server.url)) as rig:
            rig.trades(3)
            await rig.settled()
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            rig.trades(3)
            await rig.settled()

    assert trade_ids(server) == all_trades(6)
    lines = [line for line in logged if line["event"] == "registry_unwritable"]
    assert [line["reason"][:25] for line in lines] == ["bridge:streams: WRONGTYPE"]


async def test_publisher_account_key_of_another_type_is_reported_with_its_name(
    server: RedisServer,
) -> None:
    with server.client() as client:
        client.rpush("bridge:account", "a list")
        async with running(Rig(server.url, fingerprint="mine")) as rig:
            await eventually_async(
                lambda: "bridge:account: WRONGTYPE" in rig.trouble, "the error is reported"
            )


async def test_publisher_while_redis_is_unavailable_logs_again_how_much_waits(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(publisher_module, "LOG_EVERY_S", 0.1)
    server.kill()
    writer = SegmentWriter(tmp_path, 1_000_000)
    with capture_logs() as logged:
        log = Log(writer, tail_limit_bytes=1_000_000, clock_us=now_us)
        async with running(Rig(server.url, journal=log, buffer_bytes=50_000)) as rig:
            rig.trades(1000)
            pending, behind_bytes = rig.pending, rig.ingest.behind_bytes()
            assert pending < 1000

            def reports() -> list[tuple[int, int]]:
                return [
                    (line["pending"], line["behind_bytes"])
                    for line in logged
                    if line["event"] == "redis_unavailable"
                ]

            await eventually_async(
                lambda: reports().count((pending, behind_bytes)) > 2,
                "the pending entries are logged again",
            )
    writer.close()

    assert behind_bytes > 0


async def test_publisher_server_that_repeats_the_password_has_it_masked() -> None:
    with running_redis(options=("--rename-command", "AUTH", "LOGIN")) as server:
        url = server.url.replace("redis://", "redis://:hush@")
        async with running(Rig(url)) as rig:
            await eventually_async(
                lambda: "unknown command" in rig.trouble, "the error is reported"
            )

    assert "hush" not in rig.trouble
    assert "***" in rig.trouble


def receive_orders(rig: Rig, begun_us: int, numbers: range) -> None:
    """Receive trades as in a replay, with the times of their first receipt."""
    for number in numbers:
        rig.order(number, begun_us + number)
    rig.publisher.pump()


async def test_outbox_messages_received_again_are_written_after_deletion_but_not_after_trimming(
    server: RedisServer,
) -> None:
    begun_us = now_us()
    async with running(Rig(server.url)) as rig:
        receive_orders(rig, begun_us, range(100))
        await rig.settled()
    with server.client() as client:
        client.xtrim(ORDERS, maxlen=20, approximate=False)
        async with running(Rig(server.url)) as again:
            receive_orders(again, begun_us, range(105))
            await again.settled()
        assert order_ids(server) == [str(number) for number in range(80, 105)]

        client.delete(ORDERS)
        async with running(Rig(server.url)) as anew:
            receive_orders(anew, begun_us, range(105))
            await anew.settled()
        assert order_ids(server) == [str(number) for number in range(105)]


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["evalsha", "xadd", "xrevrange", "script|load", "hset"])
async def test_publisher_command_not_allowed_suspends_no_stream_and_continues_once_it_is(
    server: RedisServer, command: str
) -> None:
    with server.client() as client:
        set_user(client)
        url = server.url.replace("redis://", "redis://bridge:pw@")
        async with running(Rig(url)) as rig:
            rig.trades(10)
            rig.orders(3)
            await rig.settled()
            set_user(client, f"-{command}")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            for _ in range(5):
                rig.trades(20)
                await eventually_async(lambda: command in rig.trouble, "the error is reported")
                assert [queue.reason for queue in rig.table] == [""] * len(list(rig.table))
            set_user(client)
            await rig.settled()

    assert trade_ids(server) == all_trades(110)


async def test_publisher_refused_on_each_connection_reports_it_once_and_waits_longer(
    server: RedisServer,
) -> None:
    with server.client() as client:
        set_user(client)
        url = server.url.replace("redis://", "redis://bridge:pw@")
        async with running(Rig(url)) as rig:
            await rig.settled()
            before = connections(client)
            with capture_logs() as logged:
                set_user(client, "-xadd")
                rig.trades(1)
                await eventually_async(
                    lambda: connections(client) > before + 9,
                    "the publisher has connected ten times",
                )
                assert "xadd" in rig.trouble
                # a short connection does not reset the pause
                assert rig.backoff.next_s() > 2 * FIRST_PAUSE_S
                set_user(client)
                await rig.settled()

    counts = Counter(line["event"] for line in logged if line["event"].startswith("redis_"))
    assert counts == {"redis_unavailable": 1, "redis_connected": 1}


def connections(client: redis.Redis) -> int:
    """The number of connections that the server has accepted."""
    return int(client.info("stats")["total_connections_received"])  # type: ignore[index]


async def test_publisher_key_not_allowed_suspends_that_stream_alone(server: RedisServer) -> None:
    with server.client() as client:
        set_user(client, "resetkeys", "~trade.*", "~bridge:*")
        url = server.url.replace("redis://", "redis://bridge:pw@")
        async with running(Rig(url)) as rig:
            rig.orders(3)
            rig.trades(100)
            await eventually_async(lambda: len(trade_ids(server)) == 100, "all trades are in Redis")
            await eventually_async(
                lambda: rig.queue(ORDERS).is_suspended, "the stream is suspended"
            )
            assert "NOPERM" in rig.queue(ORDERS).reason
            set_user(client)
            await eventually_async(lambda: len(order_ids(server)) == 3, "all orders are in Redis")


def set_user(client: redis.Redis, *rules: str) -> None:
    client.execute_command("ACL", "SETUSER", "bridge", "reset", "on", ">pw", "~*", "+@all", *rules)
