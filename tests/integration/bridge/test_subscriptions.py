"""Streams that are listed, delisted, silent, mistyped or refused while a bridge runs."""

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.support.bridge_run import BridgeRun, entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.orders import end, order, ticked
from tests.support.simulator_process import RunningSimulator, running_simulator

MARKET, PERP = "SOL_USDC", "SOL_USDC_PERP"
EDGE_US = 500_000
QUICK = {"reconnect_initial_s": 0.05, "reconnect_max_s": 0.5, "markets_every_s": 1}


def urls(exchange: RunningSimulator, **settings: object) -> dict[str, object]:
    return {"ws_url": exchange.ws_url, "rest_url": exchange.rest_url, **QUICK, **settings}


def client_of(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def gaps(client: redis.Redis, stream: str) -> list[str]:
    return [each["cause"] for _, each in entries(client, stream) if each["type"] == "gap"]


def rewrite(folder: Path, **sections: object) -> None:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | sections))


def streams_of(bridge: BridgeRun) -> Mapping[str, Any]:
    streams: Mapping[str, Any] = bridge.status().get("streams", {})
    return streams


def holds_hangups(pid: int) -> bool:
    """Whether the process blocks or catches SIGHUP."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [line for line in status.splitlines() if line.startswith(("SigBlk", "SigCgt"))]
    return any(int(line.split()[1], 16) >> (signal.SIGHUP - 1) & 1 for line in masks)


async def grows(client: redis.Redis, stream: str, more: int = 3) -> None:
    wanted = client.xlen(stream) + more
    await eventually_async(lambda: client.xlen(stream) >= wanted, f"{stream} grows")


async def test_a_pattern_follows_listings_and_delistings(tmp_path: Path, redis_url: str) -> None:
    client = client_of(redis_url)
    markets = ["--market", MARKET, "--market", "ETH_USDC"]
    async with running_simulator("--rate", "200", *markets) as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, ["trade.*", "ticker.*_USDC"], exchange=urls(exchange)
    ) as bridge:  # fmt: skip
        for stream in (f"trade.{MARKET}", "trade.ETH_USDC", f"ticker.{MARKET}"):
            await grows(client, stream)
        await order(exchange, "list", symbol="WIF_USDC")
        await grows(client, "trade.WIF_USDC")
        await grows(client, "ticker.WIF_USDC", 1)
        await order(exchange, "delist", symbol="ETH_USDC")
        await eventually_async(
            lambda: "retired_us" in str(client.hget("bridge:streams", "trade.ETH_USDC")),
            "the registry marks the stream as retired",
        )
        await eventually_async(
            lambda: "trade.ETH_USDC" not in streams_of(bridge), "the status omits the stream"
        )
        await grows(client, f"trade.{MARKET}")

        assert client.xlen("trade.ETH_USDC") > 0
        assert bridge.log().count("feed_connected") == 1
        assert client.xlen("bridge:quarantine") == 0
        assert "Traceback" not in bridge.log()


async def test_pattern_without_a_matching_market_waits_for_a_listing(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    async with running_simulator("--rate", "200") as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, ["trade.WIF_*"], exchange=urls(exchange)
    ) as bridge:  # fmt: skip
        await eventually_async(
            lambda: client.hlen("bridge:status") > 0, "the bridge writes a status without a stream"
        )
        await order(exchange, "list", symbol="WIF_USDC")
        await grows(client, "trade.WIF_USDC")

        assert "Traceback" not in bridge.log()


async def test_restart_without_a_readable_list_keeps_the_earlier_streams(
    tmp_path: Path, redis_url: str
) -> None:
    client, stream = client_of(redis_url), f"trade.{MARKET}"
    async with running_simulator("--rate", "200") as exchange:
        settings = urls(exchange)
        async with running_bridge(
            tmp_path, exchange.ws_url, redis_url, ["trade.*"], exchange=settings
        ):
            await grows(client, stream)
        await order(exchange, "rest_status", status=403, path="/api/v1/markets")
        async with running_bridge(
            tmp_path, exchange.ws_url, redis_url, ["trade.*"], exchange=settings
        ) as bridge:
            await grows(client, stream)
            await eventually_async(
                lambda: "403" in bridge.status().get("stream_troubles", {}).get("trade.*", ""),
                "the refusal is in the status",
            )


async def test_bridge_continues_on_any_reply_for_the_list_of_markets(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    async with running_simulator("--rate", "200") as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, ["trade.*"], exchange=urls(exchange)
    ) as bridge:  # fmt: skip
        await grows(client, f"trade.{MARKET}")
        await order(exchange, "rest_broken", form="deep", count=6)
        await eventually_async(
            lambda: "markets_unreadable" in bridge.log(), "the log has markets_unreadable"
        )
        await grows(client, f"trade.{MARKET}")
        await order(exchange, "list", symbol="WIF_USDC")
        await grows(client, "trade.WIF_USDC")

        assert "nested too deeply" in bridge.log()
        assert "Traceback" not in bridge.log()
        assert bridge.log().count("feed_connected") == 1


async def test_a_hangup_changes_streams_without_dropping_a_connection(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    before = [f"trade.{MARKET}", f"ticker.{MARKET}"]
    after = [f"trade.{MARKET}", f"depth.{MARKET}", f"ticker.{PERP}"]
    async with running_simulator("--rate", "200") as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, before, exchange=urls(exchange)
    ) as bridge:  # fmt: skip
        for stream in before:
            await grows(client, stream, 2)
        rewrite(tmp_path, streams=after, retention={"depth": {"max_entries": 123_456}})
        bridge.process.send_signal(signal.SIGHUP)
        for stream in after:
            await grows(client, stream, 2)
        await eventually_async(
            lambda: set(streams_of(bridge)) >= set(after), "status has the new streams"
        )
        await eventually_async(
            lambda: before[1] not in streams_of(bridge), "status omits the removed stream"
        )
        left = client.xlen(before[1])
        await ticked(exchange, before[1], 2)
        await grows(client, f"ticker.{PERP}", 1)

        assert client.xlen(before[1]) == left
        assert bridge.log().count("feed_connected") == 1
        assert gaps(client, f"trade.{MARKET}") == ["start"]
        [reloaded] = [line for line in bridge.log().splitlines() if "config_reloaded" in line]
        assert json.loads(reloaded)["changed"] == ["streams", "retention.depth"]

        rewrite(tmp_path, streams=before)
        bridge.process.send_signal(signal.SIGHUP)
        await eventually_async(
            lambda: gaps(client, before[1]) == ["unsubscribed"], "the missed interval has a gap"
        )
        assert await bridge.stop() == 0
        assert '"left": 0' in bridge.log().splitlines()[-1]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
async def test_hangup_during_the_start_is_handled_after_it(tmp_path: Path, redis_url: str) -> None:
    async with running_simulator("--rate", "200") as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, [f"trade.{MARKET}"], exchange=urls(exchange)
    ) as bridge:  # fmt: skip
        await eventually_async(
            lambda: holds_hangups(bridge.process.pid), "the process handles SIGHUP"
        )
        bridge.process.send_signal(signal.SIGHUP)
        await eventually_async(
            lambda: "config_reloaded" in bridge.log(), "the configuration is reloaded"
        )
        assert '"changed": []' in bridge.log()
        await grows(client_of(redis_url), f"trade.{MARKET}")


async def test_reload_of_a_wrong_configuration_is_refused_and_the_old_one_kept(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    async with running_simulator("--rate", "200") as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, [f"trade.{MARKET}"], exchange=urls(exchange)
    ) as bridge:  # fmt: skip
        await grows(client, f"trade.{MARKET}")
        good = yaml.safe_load((tmp_path / "config.yaml").read_text())
        for streams, expected in (
            (["trad.SOL_USDC"], "did you mean trade.SOL_USDC?"),
            ([], "is empty"),
            (["account.orderUpdate"], "needs a restart"),
        ):
            rewrite(tmp_path, streams=streams)
            bridge.process.send_signal(signal.SIGHUP)
            await eventually_async(
                lambda expected=expected: expected in bridge.log(), f"{expected} is logged"
            )
        for text, count in (("", 4), ("[" * 5_000, 5)):
            (tmp_path / "config.yaml").write_text(text)
            bridge.process.send_signal(signal.SIGHUP)
            await eventually_async(
                lambda count=count: bridge.log().count("config_refused") == count,
                "the configuration is refused",
            )
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(good))
        rewrite(tmp_path, streams=[f"trade.{MARKET}"], publish={"hold_s": 9.0})
        bridge.process.send_signal(signal.SIGHUP)
        await eventually_async(
            lambda: '"publish.hold_s"' in bridge.log(),
            "the setting that needs a restart is reported",
        )
        rewrite(
            tmp_path,
            snapshots={"depth_every_updates": 1000},
            retention={"depth": {"max_entries": 5000}},
        )
        bridge.process.send_signal(signal.SIGHUP)
        await eventually_async(
            lambda: '"retention.depth"' in bridge.log(),
            "the refused retention is reported",
        )
        await grows(client, f"trade.{MARKET}")

        assert bridge.log().count("config_refused") == 5
        assert "it names no streams any more" in bridge.log()
        assert "nested too deeply" in bridge.log()
        assert "Traceback" not in bridge.log()


async def test_mistyped_market_is_reported_with_the_nearest_and_as_unhealthy(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    async with running_simulator("--rate", "200") as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, ["trade.SOL_USDC", "trade.SOL_USCD"],
        exchange=urls(exchange),
    ) as bridge:  # fmt: skip
        await eventually_async(
            lambda: bridge.status().get("stream_troubles"), "status reports the stream"
        )
        (trouble,) = bridge.status()["stream_troubles"].items()
        await grows(client, "trade.SOL_USDC")

        assert trouble[0] == "trade.SOL_USCD"
        assert trouble[1].startswith(
            "SOL_USCD is not listed by the exchange; did you mean SOL_USDC"
        )
        assert bridge.log().count("stream_not_listed") == 1
        assert client.hkeys("bridge:streams") == ["trade.SOL_USDC"]


async def test_subscription_forgotten_by_the_exchange_is_renewed(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    stream = f"markPrice.{PERP}"
    async with running_simulator("--rate", "200") as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, [stream, f"trade.{PERP}"],
        exchange=urls(exchange, silence_s=6),
    ) as bridge:  # fmt: skip
        await grows(client, stream, 2)
        await order(exchange, "forget", stream=stream)
        await eventually_async(lambda: gaps(client, stream), "the silent interval has a gap")
        await grows(client, stream, 3)

        assert gaps(client, stream) == ["stale"]
        assert bridge.log().count("feed_connected") == 1  # no reconnect was needed
        assert gaps(client, f"trade.{PERP}") == ["start"]


@pytest.mark.parametrize(
    ("ends", "settings"),
    [
        ("it is found", {"silence_s": 6}),
        pytest.param("its connection breaks", {"silence_s": 600}, marks=pytest.mark.long),
        pytest.param(
            "its connection is replaced",
            {"silence_s": 600, "max_connection_age_s": 6},
            marks=pytest.mark.long,
        ),
    ],
)
async def test_gap_of_a_forgotten_subscription_begins_at_its_last_message(
    ends: str, settings: dict[str, object], tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    stream, other = f"bookTicker.{MARKET}", f"bookTicker.{PERP}"
    markets = ["--market", MARKET, "--market", PERP]
    async with running_simulator("--rate", "300", *markets) as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, [stream, other], exchange=urls(exchange, **settings)
    ) as bridge:  # fmt: skip
        await grows(client, other)
        await grows(client, stream)
        await order(exchange, "forget", stream=stream)
        if ends == "its connection breaks":
            await grows(client, other, 150)
            await order(exchange, "close", how="reset")
        await eventually_async(lambda: gaps(client, stream), "the missed interval has a gap")
        await grows(client, stream)
        stored = [fields for _, fields in entries(client, stream)]
        [gap] = [fields for fields in stored if fields["type"] == "gap"]
        from_us, to_us = int(gap["from_us"]), int(gap["to_us"])
        said_us = [int(fields["event_us"]) for fields in stored if fields["type"] == "bookTicker"]

        assert gap["cause"] == ("connection lost" if "breaks" in ends else "stale")
        assert to_us - from_us > 1_500_000
        assert from_us - max(us for us in said_us if us < to_us - EDGE_US) < EDGE_US
        assert [len(gaps(client, each)) for each in (stream, other)] == [1, "breaks" in ends]
        assert "Traceback" not in bridge.log()


async def test_a_stream_that_stays_silent_gets_another_connection(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    stream = f"ticker.{MARKET}"
    async with running_simulator("--rate", "200") as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, [stream, f"trade.{MARKET}"],
        exchange=urls(exchange, silence_s=6),
    ) as bridge:  # fmt: skip
        await grows(client, stream, 2)
        await order(exchange, "stall", stream=stream, connection=1)
        await eventually_async(
            lambda: "stream_stale" in bridge.log(), "the stream is reported as stale"
        )
        await eventually_async(
            lambda: "feed_replaced" in bridge.log(), "the connection is replaced"
        )
        await grows(client, stream, 2)
        await eventually_async(
            lambda: "stream_received_again" in bridge.log(), "the stream is received again"
        )
        await eventually_async(
            lambda: not bridge.status()["stream_troubles"], "status reports no stream"
        )

        assert "stale" in gaps(client, stream)
        assert gaps(client, f"trade.{MARKET}") == ["start"]


async def test_quiet_market_is_not_reported_as_silent(tmp_path: Path, redis_url: str) -> None:
    client = client_of(redis_url)
    ledger = tmp_path / "ledger.jsonl"

    def is_probed_twice() -> bool:
        return ledger.read_text().count("/api/v1/depth?symbol=SOL_USDC&limit=5") >= 8

    async with running_simulator(
        "--events", "100", "--rate", "100", ledger=ledger
    ) as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, [f"depth.{MARKET}", f"bookTicker.{MARKET}"],
        exchange=urls(exchange, silence_s=1),
    ) as bridge:  # fmt: skip
        await eventually_async(is_probed_twice, "both streams were probed twice")

        assert client.xlen(f"depth.{MARKET}") > 1
        assert "stream_stale" not in bridge.log()
        assert gaps(client, f"bookTicker.{MARKET}") == []


async def test_liquidations_that_are_refused_are_received_in_the_other_form(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    markets = ["--market", PERP, "--market", MARKET]  # one perpetual: it has all liquidations
    async with running_simulator("--rate", "500", *markets) as exchange:
        await order(exchange, "reject", stream="liquidation", code=4006)
        async with running_bridge(
            tmp_path, exchange.ws_url, redis_url, ["liquidation", f"trade.{PERP}"],
            exchange=urls(exchange),
        ) as bridge:  # fmt: skip
            await eventually_async(
                lambda: f"liquidation.{PERP}" in streams_of(bridge), "each market is requested"
            )
            await eventually_async(
                lambda: client.xlen(f"liquidation.{PERP}"), "liquidations are published", 40
            )
            assert bridge.status()["stream_troubles"] == {}


async def test_skewed_clock_is_reported_and_signatures_stay_valid(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    async with running_simulator("--rate", "300") as exchange:
        await order(exchange, "clock_skew", ms=30_000)
        async with running_bridge(
            tmp_path, exchange.ws_url, redis_url, ["account.orderUpdate"], exchange=urls(exchange)
        ) as bridge:  # fmt: skip
            await eventually_async(
                lambda: any(each["type"] == "orderAccepted"
                            for _, each in entries(client, "account.orderUpdate")),
                "private messages are published",
            )  # fmt: skip
            await eventually_async(
                lambda: bridge.status().get("clock_offset_us"), "the clock's offset is measured"
            )

            assert 29_000_000 < bridge.status()["clock_offset_us"] < 31_000_000
            assert '"clock_skewed"' in bridge.log()
            await eventually_async(
                lambda: not any(each["refused"] for each in bridge.status()["connections"]),
                "no stream is refused any more",
            )


async def test_account_refused_for_a_while_gets_a_gap_and_recovers(
    tmp_path: Path, redis_url: str
) -> None:
    client = client_of(redis_url)
    stream, public = "account.orderUpdate", f"ticker.{MARKET}"

    def refused(bridge: BridgeRun) -> bool:
        return any(each["refused"] for each in bridge.status().get("connections", []))

    async with running_simulator("--rate", "300") as exchange, running_bridge(
        tmp_path, exchange.ws_url, redis_url, [stream, public], exchange=urls(exchange, silence_s=3)
    ) as bridge:  # fmt: skip
        await grows(client, stream)
        number = await order(exchange, "reject", stream="account.*", code=4003)
        from_us = time.time_ns() // 1000
        await order(exchange, "close", how="reset")
        await eventually_async(lambda: refused(bridge), "the subscription is refused")
        await grows(client, public, 1)
        assert "connection lost" not in gaps(client, stream)  # the outage is still open

        await end(exchange, number)
        to_us = time.time_ns() // 1000
        await eventually_async(lambda: not refused(bridge), "the subscription is granted", 40.0)
        await eventually_async(
            lambda: "connection lost" in gaps(client, stream), "the outage has a gap"
        )
        await grows(client, stream)

        [gap] = [fields for _, fields in entries(client, stream)
                 if fields.get("cause") == "connection lost"]  # fmt: skip
        assert int(gap["from_us"]) <= from_us
        assert int(gap["to_us"]) >= to_us
        assert bridge.log().count("subscription_refused") == 1
