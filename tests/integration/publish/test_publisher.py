"""The publisher against a real Redis that is killed, frozen, cut off, full or of a wrong type."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.contract import keys
from bridge.errors import Fatal
from bridge.publish import publisher as publisher_module
from bridge.publish.wire import Target
from tests.support import frames
from tests.support.eventually import eventually_async
from tests.support.proxy import running_proxy
from tests.support.publisher_rig import (
    FIRST,
    ORDERS,
    TRADES,
    Rig,
    all_trades,
    now_us,
    order_ids,
    running,
    trade_ids,
)
from tests.support.redis_server import RedisServer, running_redis


@pytest.fixture
def server() -> AsyncIterator[RedisServer]:
    with running_redis(appendonly=True) as running_server:
        yield running_server


async def test_what_was_heard_is_in_redis_in_order(server: RedisServer) -> None:
    async with running(Rig(server.url)) as rig:
        rig.trades(500)
        rig.orders(100)
        await rig.settled()

    assert trade_ids(server) == all_trades(500)
    assert order_ids(server) == [str(number) for number in range(100)]


async def test_redis_away_at_the_start_is_waited_for(server: RedisServer) -> None:
    server.kill()
    async with running(Rig(server.url)) as rig:
        rig.trades(100)
        await eventually_async(lambda: "cannot connect" in rig.publisher.trouble, "trouble is said")
        server.start()
        await rig.settled()

    assert trade_ids(server) == all_trades(100)


async def test_killed_and_restarted_again_and_again_nothing_is_lost_or_doubled(
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
            await eventually_async(lambda: rig.publisher.trouble == "", "connected again")
        await rig.settled()

    assert trade_ids(server) == all_trades(3000)


async def test_a_reply_that_never_comes_is_neither_lost_nor_doubled(server: RedisServer) -> None:
    async with running_proxy("127.0.0.1", server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        async with running(Rig(url)) as rig:
            rig.trades(1)
            await rig.settled()
            for turn in range(1, 11):
                proxy.lose_reply()
                rig.trades(100)
                rig.hear(frames.ORDER_ACCEPTED.replace("59887375336", str(rig.sent)))
                await eventually_async(lambda: proxy.replies_lost == turn, "the answer is lost")  # noqa: B023
                await rig.settled()

    assert proxy.replies_lost == 10
    assert trade_ids(server) == all_trades(1001)
    assert order_ids(server) == [str(1 + 100 * turn) for turn in range(1, 11)]


async def test_a_frozen_redis_is_waited_for(server: RedisServer) -> None:
    async with running(Rig(server.url, timeout_s=0.3)) as rig:
        rig.trades(10)
        await rig.settled()
        server.pause()
        rig.trades(500)
        await eventually_async(lambda: "did not answer" in rig.publisher.trouble, "trouble is said")
        server.resume()
        await rig.settled()

    assert trade_ids(server) == all_trades(510)


async def test_out_of_memory_is_waited_for(server: RedisServer) -> None:
    with server.client() as client:
        async with running(Rig(server.url)) as rig:
            rig.trades(10)
            await rig.settled()
            client.config_set("maxmemory", 1)
            rig.trades(200)
            await eventually_async(lambda: "OOM" in rig.publisher.trouble, "trouble is said")
            client.config_set("maxmemory", 0)
            await rig.settled()

    assert trade_ids(server) == all_trades(210)


async def test_a_read_only_redis_is_waited_for(server: RedisServer) -> None:
    with server.client() as client:
        async with running(Rig(server.url)) as rig:
            rig.trades(10)
            await rig.settled()
            client.replicaof("127.0.0.1", 1)
            rig.trades(200)
            await eventually_async(lambda: "READONLY" in rig.publisher.trouble, "trouble is said")
            client.replicaof("NO", "ONE")
            await rig.settled()

    assert trade_ids(server) == all_trades(210)


async def test_the_script_is_loaded_again_when_redis_forgot_it(server: RedisServer) -> None:
    with server.client() as client:
        async with running(Rig(server.url)) as rig:
            rig.trades(10)
            await rig.settled()
            client.script_flush()
            rig.trades(10)
            await rig.settled()

    assert trade_ids(server) == all_trades(20)


async def test_a_stream_that_fails_alone_does_not_hold_up_the_others(server: RedisServer) -> None:
    with server.client() as client:
        client.set(ORDERS, "a string")
        async with running(Rig(server.url)) as rig:
            rig.orders(3)
            rig.trades(100)
            await eventually_async(lambda: len(trade_ids(server)) == 100, "the trades are there")
            parked = rig.intake.lines[ORDERS].parked
            client.delete(ORDERS)
            rig.intake.lines[ORDERS].redeem()
            rig.publisher.wake()
            await eventually_async(lambda: len(order_ids(server)) == 3, "the orders follow")

    assert "WRONGTYPE" in parked


async def test_a_second_bridge_after_the_first_adds_nothing_that_is_there(
    server: RedisServer,
) -> None:
    for _ in range(2):
        async with running(Rig(server.url)) as rig:
            rig.trades(50)
            rig.orders(5)
            await rig.settled()

    assert trade_ids(server) == all_trades(50)
    assert order_ids(server) == ["0", "1", "2", "3", "4"]


async def test_flushed_in_the_middle_the_stream_begins_anew_and_says_so(
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


async def test_private_streams_of_another_account_are_refused(server: RedisServer) -> None:
    async with running(Rig(server.url, fingerprint="mine")) as rig:
        rig.orders(1)
        await rig.settled()

    with pytest.raises(Fatal, match="key_prefix"):
        await Rig(server.url, fingerprint="another").publisher.run()


async def test_a_drain_ends_at_its_deadline_and_says_what_is_left(server: RedisServer) -> None:
    server.kill()
    async with running(Rig(server.url)) as rig:
        rig.trades(7)

        assert await rig.publisher.drain(0.2) == 7


async def test_a_password_is_used_and_a_wrong_one_is_said() -> None:
    with running_redis(password="hush") as guarded:
        async with running(Rig(guarded.url)) as rig:
            rig.trades(3)
            await rig.settled()
        wrong = guarded.url.replace("hush", "wrong")
        async with running(Rig(wrong)) as rig:
            rig.trades(3)
            await eventually_async(lambda: "WRONGPASS" in rig.publisher.trouble, "trouble is said")
            assert "wrong" not in rig.publisher.trouble.replace("WRONGPASS", "")

        assert "hush" not in repr(Target.from_url(guarded.url))


async def test_a_login_that_is_refused_for_a_while_is_waited_for() -> None:
    with running_redis(password="hush") as guarded, guarded.client() as client:
        async with running(Rig(guarded.url)) as rig:
            rig.trades(10)
            await rig.settled()
            client.config_set("requirepass", "changed")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            rig.trades(200)
            await eventually_async(lambda: "WRONGPASS" in rig.publisher.trouble, "trouble is said")
            client.config_set("requirepass", "hush")
            await rig.settled()

        assert trade_ids(guarded) == all_trades(210)


async def test_a_redis_that_loads_its_data_is_waited_for() -> None:
    slow = (
        "--key-load-delay",
        "2000",
        "--loading-process-events-interval-bytes",
        "1024",
        "--aof-use-rdb-preamble",
        "no",
    )
    with running_redis(appendonly=True, options=slow) as server:
        with server.client() as client:
            client.mset({f"key:{number}": "x" for number in range(10)})
            for number in range(3000):  # six seconds of loading: it is asked in several of them
                client.set(f"filler:{number}", "x" * 100)
        async with running(Rig(server.url)) as rig:
            rig.trades(10)
            await rig.settled()
            server.kill()
            rig.trades(200)
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            await eventually_async(lambda: "LOADING" in rig.publisher.trouble, "trouble is said")
            await starting
            await rig.settled()

        assert trade_ids(server) == all_trades(210)


async def test_a_tail_longer_than_a_page_is_told_whole(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "TAIL_PAGE", 7)
    async with running(Rig(server.url)) as rig:
        rig.orders(100)
        await rig.settled()
    async with running(Rig(server.url)) as again:
        again.orders(101)
        await again.settled()

    assert order_ids(server) == [str(number) for number in range(101)]


async def test_without_a_stream_yet_nothing_is_registered_and_nothing_fails(
    server: RedisServer,
) -> None:
    rig = Rig(server.url)
    lines = dict(rig.intake.lines)
    rig.intake.lines.clear()  # as with patterns alone, until the list of markets is read
    with capture_logs() as said:
        async with running(rig):
            await eventually_async(lambda: rig.publisher.trouble == "", "connected")
            rig.intake.lines.update(lines)
            rig.trades(3)
            await rig.settled()

    assert [line for line in said if line["event"] == "redis_unavailable"] == []
    assert trade_ids(server) == all_trades(3)


async def test_a_registry_that_cannot_be_written_is_told_and_publishing_goes_on(
    server: RedisServer,
) -> None:
    with server.client() as client, capture_logs() as said:
        client.set("bridge:streams", "a string")
        async with running(Rig(server.url)) as rig:
            rig.trades(3)
            await rig.settled()
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            rig.trades(3)
            await rig.settled()

    assert trade_ids(server) == all_trades(6)
    told = [line for line in said if line["event"] == "registry_unwritable"]
    assert [(line["key"], line["reason"][:9]) for line in told] == [("bridge:streams", "WRONGTYPE")]


async def test_an_owner_that_cannot_be_read_is_told_with_its_key(server: RedisServer) -> None:
    with server.client() as client:
        client.rpush("bridge:account", "a list")
        async with running(Rig(server.url, fingerprint="mine")) as rig:
            await eventually_async(lambda: "WRONGTYPE" in rig.publisher.trouble, "trouble is said")

    assert "bridge:account" in rig.publisher.trouble


async def test_while_redis_is_away_it_is_said_again_and_again_how_far_behind(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "SAY_EVERY_US", 100_000)
    server.kill()
    with capture_logs() as said:
        async with running(Rig(server.url, behind_bytes=lambda: 4_000)) as rig:
            rig.trades(7)
            await eventually_async(lambda: len(said) > 2, "it is said again")

    last = said[-1]
    assert (last["event"], last["pending"], last["behind_bytes"]) == ("redis_unavailable", 7, 4_000)


async def test_a_name_that_is_no_hosts_is_a_trouble_not_a_crash() -> None:
    async with running(Rig("redis://a..b:6379/0")) as rig:
        await eventually_async(lambda: "'a..b'" in rig.publisher.trouble, "trouble is said")


async def test_a_server_that_repeats_the_password_does_not_have_it_told() -> None:
    with running_redis(options=("--rename-command", "AUTH", "LOGIN")) as server:
        url = server.url.replace("redis://", "redis://:hush@")
        async with running(Rig(url)) as rig:
            await eventually_async(
                lambda: "unknown command" in rig.publisher.trouble, "trouble is said"
            )

    assert "hush" not in rig.publisher.trouble
    assert "***" in rig.publisher.trouble


def hear_orders(rig: Rig, begun_us: int, numbers: range) -> None:
    """As a journal tells them again: with the times they were heard at first."""
    for number in numbers:
        frame = frames.ORDER_ACCEPTED.replace("59887375336", str(number))
        rig.intake.hear(frame, begun_us + number, 1, 0)
    rig.publisher.wake()


async def test_what_retention_took_is_not_written_again_and_what_was_deleted_is(
    server: RedisServer,
) -> None:
    begun_us = now_us()
    async with running(Rig(server.url)) as rig:
        hear_orders(rig, begun_us, range(100))
        await rig.settled()
    with server.client() as client:
        client.xtrim(ORDERS, maxlen=20, approximate=False)
        async with running(Rig(server.url)) as again:
            hear_orders(again, begun_us, range(105))
            await again.settled()
        assert order_ids(server) == [str(number) for number in range(80, 105)]

        client.delete(ORDERS)
        async with running(Rig(server.url)) as anew:
            hear_orders(anew, begun_us, range(105))
            await anew.settled()
        assert order_ids(server) == [str(number) for number in range(105)]


async def test_a_gap_that_the_ledger_does_not_know_is_noted_when_it_is_heard_again(
    server: RedisServer,
) -> None:
    with server.client(decode_responses=True) as client:
        for _ in range(2):
            async with running(Rig(server.url)) as rig:
                for line in rig.intake.every_line():
                    line.hear_again()
                rig.trades(3)
                rig.sent += 2
                rig.trades(3)
                rig.intake.missing.wait_no_longer()
                await rig.settled()
            entries: Any = client.xrange(keys.GAPS)
            told = [(fields["from"], fields["to"]) for _, fields in entries]
            assert told == [(str(FIRST + 3), str(FIRST + 4))]
            client.delete(keys.GAPS)  # as if the first had been killed before it came to that
