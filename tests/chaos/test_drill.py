"""Each fault once: the metric changes, the alert fires (with Prometheus, if installed), `/readyz`,
`status`, `top` and the console name the cause, and all report health again after the repair.
"""

import re
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest

from deploy.dashboard import expressions
from tests.support import plain_http
from tests.support.bridge_run import BridgeRun
from tests.support.consumer_worker import Worker
from tests.support.drill import LIMIT_S, Drill, a_bridge, drill
from tests.support.eventually import eventually_async
from tests.support.process_pages import ProcessPages, serves

pytest.importorskip("prometheus_client", reason="the extra `metrics`")
pytestmark = pytest.mark.timeout(400)

PICKY = """
import os
import redis
from consumers import Consumer, Delivery, Trade

client = redis.Redis.from_url(os.environ["BRIDGE_REDIS__URL"], decode_responses=True)

class Picky(Consumer):
    name = "picky"
    streams = ("trade.*",)
    attempts = 2

    def on_trade(self, delivery: Delivery[Trade]):
        if client.get("poison") == str(delivery.event.trade_id):
            raise ValueError("this one I cannot")
"""
TICKER = "ticker.SOL_USDC"


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Drill]:
    async with drill(tmp_path) as running:
        yield running


def unhealthy(reason: str) -> str:
    return f'backpack_unhealthy{{reason="{reason}"}}'


def end_faults(one: Drill) -> None:
    plain_http.delete(f"{one.exchange.rest_url}/simulator/faults").raise_for_status()


async def exchange_gone(one: Drill) -> None:
    """All connections close, and new ones are refused."""
    one.exchange.fault("refuse", status=503)
    one.exchange.fault("close", how="reset")

    await one.names(
        "exchange_disconnected", "public-1 is not connected to the exchange: refused with HTTP 503"
    )
    await one.shows(
        one.bridge_pages, 'backpack_connection_up{connection="public-1"}', lambda n: n == 0
    )
    for cause in ("refused", "broken"):
        counted = f'backpack_connections_ended_total{{cause="{cause}"}}'
        await one.shows(one.bridge_pages, counted, lambda n: n > 0)
    await one.viewers_say("public-1 is not connected to the exchange")
    await one.fires("BackpackExchangeDisconnected")

    end_faults(one)
    await one.is_well()
    await one.is_quiet("BackpackExchangeDisconnected")


async def one_stream_stale(one: Drill) -> None:
    """One stream gets no messages."""
    one.exchange.fault("drop", stream=TICKER)

    await one.names("stream_not_received", f"{TICKER} is not received")
    await one.shows(
        one.bridge_pages, f'backpack_stream_trouble{{stream="{TICKER}"}}', lambda n: n == 1
    )
    await one.viewers_say(f"{TICKER} is not received")
    await one.fires("BackpackStreamTroubled")

    end_faults(one)
    await one.is_well()
    await one.is_quiet("BackpackStreamTroubled")


async def redis_down(one: Drill) -> None:
    """The server is stopped."""
    one.server.stop()

    await one.names("redis_unwritable", "publishing waits")
    await one.shows(one.bridge_pages, "backpack_redis_up", lambda n: n == 0)
    await one.shows(one.bridge_pages, "backpack_pending_entries", lambda n: n > 0)
    await one.shows(one.exporter_pages, "backpack_exporter_redis_up", lambda n: n == 0)
    assert one.exporter_pages.reasons() == ["redis_unavailable"]
    assert one.exporter_pages.is_alive()
    await nobody_reads(one)
    await one.fires("BackpackRedisUnwritable")
    await one.fires("BackpackExporterBlind")

    one.server.start()
    await one.is_well()
    await one.shows(one.exporter_pages, "backpack_exporter_redis_up", lambda n: n == 1)
    await one.is_quiet("BackpackRedisUnwritable")


async def nobody_reads(one: Drill) -> None:
    """All viewers report that Redis is unavailable."""
    assert "cannot be read" in one.status()
    assert "cannot be read" in one.top()
    await eventually_async(
        lambda: one.seen_in_console().startswith("Redis does not answer"),
        "the console reports the outage",
        LIMIT_S,
    )


async def redis_frozen(one: Drill) -> None:
    """Redis is suspended."""
    one.server.pause()

    await one.names("redis_unwritable", "Redis did not answer in time|publishing waits")
    await one.shows(
        one.bridge_pages, 'backpack_redis_errors_total{kind="disconnects"}', lambda n: n > 0
    )
    await one.shows(one.exporter_pages, "backpack_exporter_redis_up", lambda n: n == 0)
    await nobody_reads(one)
    await one.fires("BackpackRedisUnwritable")

    one.server.resume()
    await one.is_well()
    await one.is_quiet("BackpackRedisUnwritable")


async def disk_full(one: Drill) -> None:
    """The journal cannot be written."""
    if sys.platform != "linux":
        return  # prlimit exists on Linux only
    limit(one.bridge, 10_000)

    await one.names("journal_broken", "cannot write the journal")
    await one.shows(one.bridge_pages, "backpack_journal_up", lambda n: n == 0)
    await one.viewers_say("the journal: cannot write")
    await one.fires("BackpackJournalBroken")

    limit(one.bridge, resource.RLIM_INFINITY)
    await one.is_well()
    await one.is_quiet("BackpackJournalBroken")


def limit(bridge: BridgeRun, size: int) -> None:
    """Limit the size of a file that the process may write: its writes fail as on a full disk."""
    resource.prlimit(bridge.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def key_of_another_kind(one: Drill) -> None:
    """Another program uses a stream's key."""
    with one.server.client() as client:
        client.delete(TICKER)
        client.set(TICKER, "of another program")

        await one.names("stream_suspended", f"{TICKER} is suspended: .*WRONGTYPE")
        await one.shows(
            one.bridge_pages, 'backpack_redis_errors_total{kind="stream_refusals"}', lambda n: n > 0
        )
        await one.shows(one.bridge_pages, 'backpack_streams{state="suspended"}', lambda n: n == 1)
        await one.viewers_say(f"{TICKER} is suspended")
        await one.fires("BackpackStreamTroubled")

        client.delete(TICKER)
        await one.is_well()
        assert cast("int", client.xlen(TICKER)) > 0
    await one.is_quiet("BackpackStreamTroubled")


async def memory_full(one: Drill) -> None:
    """Redis refuses every write."""
    with one.server.client() as client:
        client.config_set("maxmemory", "1mb")

        await one.names("redis_unwritable", "OOM")
        await one.shows(
            one.bridge_pages, 'backpack_redis_errors_total{kind="refusals"}', lambda n: n > 0
        )
        series = one.exporter_pages.series()
        assert (
            series["backpack_redis_memory_used_bytes"] > series["backpack_redis_memory_max_bytes"]
        )
        await one.viewers_say("OOM")
        await one.fires("BackpackRedisUnwritable")
        await one.fires("BackpackRedisMemoryFull")

        client.config_set("maxmemory", "1gb")
        await one.is_well()
    await one.is_quiet("BackpackRedisUnwritable")
    await one.is_quiet("BackpackRedisMemoryFull")


async def consumer_dead_and_poison_entry(one: Drill) -> None:
    """The only worker is killed; the next one gets an entry that its handler cannot process."""
    (one.folder / "outside.py").write_text(PICKY)
    worker = start_worker(one, "first")
    alive, lag = (
        'backpack_group_workers{group="picky"}',
        'backpack_group_lag_entries{group="picky"}',
    )
    dead = 'backpack_group_dead_letters{group="picky"}'
    try:
        await one.shows(one.exporter_pages, alive, lambda n: n == 1)
        took = 'backpack_group_handled_seconds_count{group="picky"}'
        await one.shows(one.exporter_pages, took, lambda n: n > 0)
        await eventually_async(lambda: serves(worker.err), "the worker serves its pages", LIMIT_S)
        pages = ProcessPages(worker.err)
        await eventually_async(pages.is_ready, "the worker is ready", LIMIT_S)
        worker.kill()
        await one.shows(one.exporter_pages, alive, lambda n: n == 0)
        await one.shows(one.exporter_pages, lag, lambda n: n > 0)
        assert not pages.is_alive(timeout_s=2)
        assert "0 workers" in one.consumers("status")
        for viewer in (one.top, one.seen_in_console):
            await eventually_async(
                lambda says=viewer: re.search(r"picky/\S+ is silent|picky/\S+: SILENT", says()),
                f"{viewer.__name__} names the consumer",
                LIMIT_S,
            )
        await one.fires("BackpackNoWorkers")

        poison(one)
        worker = start_worker(one, "second")
        await one.shows(one.exporter_pages, alive, lambda n: n == 1)
        await one.is_quiet("BackpackNoWorkers")
        await one.shows(one.exporter_pages, dead, lambda n: n == 1)
        assert "dead letters 1" in one.consumers("status")
        assert "this one I cannot" in one.consumers("deadletters", "list", "--group", "picky")
        assert re.search(r"picky/.*, 2 failed", one.top())
        await eventually_async(
            lambda: (
                [
                    each["group"]
                    for each in one.console.beginning(page="consumers")[1]["letters"]
                    if "this one I cannot" in each["error"]
                ]
                == ["picky"]
            ),
            "the console shows the dead letter",
            LIMIT_S,
        )
        await one.fires("BackpackDeadLetters")

        with one.server.client() as client:
            client.delete("poison")
        one.consumers("deadletters", "retry", "picky", "--all")
        await one.shows(one.exporter_pages, dead, lambda n: n == 0)
        await one.is_quiet("BackpackDeadLetters")
        await one.is_well()
    finally:
        if worker.process.poll() is None:
            worker.kill()


def start_worker(one: Drill, name: str) -> Worker:
    return Worker(
        one.folder,
        one.server.url,
        *("outside:Picky", "--health", "127.0.0.1:0", "--lease", "2"),
        name=name,
    )


def poison(one: Drill) -> None:
    """Make the newest trade, which is not read yet, one that the handler cannot process."""
    with one.server.client() as client:
        [(_, fields)] = cast(
            "list[tuple[str, dict[str, str]]]", client.xrevrange("trade.SOL_USDC", count=1)
        )
        client.set("poison", fields["trade_id"])


async def second_bridge_frozen(one: Drill) -> None:
    """The second bridge is suspended."""
    status_of_b = 'backpack_bridge_last_status_timestamp_seconds{bridge="b"}'
    async with a_bridge(one.folder, one.exchange, one.server, "b") as other:
        await eventually_async(lambda: serves(other.log()), "b serves its pages", LIMIT_S)
        pages = ProcessPages(other.log())
        await eventually_async(pages.is_ready, "b is ready", LIMIT_S)
        await one.shows(one.bridge_pages, "backpack_peers", lambda n: n == 1)
        other.process.send_signal(signal.SIGSTOP)
        try:
            await one.shows(one.bridge_pages, "backpack_peers", lambda n: n == 0)
            last = one.exporter_pages.series()[status_of_b]
            await one.viewers_say("(?i)bridge b is silent", "--instance", "b")
            assert not pages.is_alive(timeout_s=2), "the suspended bridge reports that it is alive"
            assert one.exporter_pages.series()[status_of_b] == last
            await one.fires("BackpackBridgeSilent")
            assert one.bridge_pages.is_ready(), "the other bridge is not ready"
        finally:
            other.process.send_signal(signal.SIGCONT)
        await one.shows(one.bridge_pages, "backpack_peers", lambda n: n == 1)
        await one.shows(one.exporter_pages, status_of_b, lambda n: n > last)
        await eventually_async(pages.is_ready, "b is ready", LIMIT_S)
        await one.is_quiet("BackpackBridgeSilent")
        assert await other.stop() == 0


BROKEN: Mapping[str, Sequence[Callable[[Drill], Awaitable[None]]]] = {
    "bridge": (
        exchange_gone, one_stream_stale, key_of_another_kind, memory_full, redis_frozen, disk_full,
        redis_down,
    ),
    "consumers and a second bridge": (consumer_dead_and_poison_entry, second_bridge_frozen),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
async def test_each_fault_is_named_and_health_returns_after_the_repair(
    what: str, one: Drill
) -> None:
    for broken in BROKEN[what]:
        begun_s = time.monotonic()
        try:
            await broken(one)
        except BaseException as error:
            error.add_note(f"while this was broken: {broken.__name__}")
            raise
        print(f"{broken.__name__}: {time.monotonic() - begun_s:.1f} s")


async def test_wrong_clock_is_named_by_all_views_until_a_restart_finds_it_right(
    tmp_path: Path,
) -> None:
    async with drill(tmp_path, clock_off_ms=30_000) as one:
        await one.names("clock_skewed", "this machine's clock is")
        await one.shows(
            one.bridge_pages, "backpack_clock_offset_seconds", lambda s: 25 < abs(s) < 35
        )
        await one.viewers_say("this machine's clock is")
        await one.fires("BackpackClockSkewed")

        assert await one.bridge.stop() == 0
        end_faults(one)
        async with a_bridge(tmp_path, one.exchange, one.server, "a") as bridge:
            await eventually_async(
                lambda: ProcessPages(bridge.log()).address != one.bridge_pages.address,
                "the bridge serves its pages",
                LIMIT_S,
            )
            pages = ProcessPages(bridge.log())
            await eventually_async(pages.is_ready, "the bridge is ready", LIMIT_S)
            assert pages.series()[unhealthy("clock_skewed")] == 0
            await eventually_async(
                lambda: '"healthy": true' in one.status("--json"),
                "status reports a healthy bridge",
                60,
            )
            await one.is_quiet("BackpackClockSkewed")
            assert await bridge.stop() == 0


OF_SEVERAL_SHARDS = ("backpack_redis_shard_up",)  # one server has no shards


async def test_every_expression_of_the_dashboard_finds_series_of_real_pages(one: Drill) -> None:
    """Except the series of faults, which a healthy system lacks."""
    if not one.monitor.is_here:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    (one.folder / "outside.py").write_text(PICKY)
    with one.server.client() as client:
        client.config_set("maxmemory", "1gb")
    worker = start_worker(one, "first")
    try:
        for expression in expressions():
            if expression in OF_SEVERAL_SHARDS:
                continue
            series = expression.removesuffix(" > 0").replace("[5m]", "[1m]")
            await eventually_async(
                lambda series=series: one.monitor.values(series), f"{series} has values", LIMIT_S
            )
        assert one.monitor.firing() == {"BackpackWatchdog"}
    finally:
        worker.kill()
