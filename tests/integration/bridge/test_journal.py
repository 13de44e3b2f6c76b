"""Received messages reach Redis once and in order, whichever process is killed."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support import frames, truth
from tests.support.bridge_process import run_bridge, start_bridge
from tests.support.bridge_run import ACCOUNT_STREAMS, entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.proxy import running_proxy
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import RunningSimulator, running_simulator

STREAMS = [
    *(f"{kind}.SOL_USDC_PERP" for kind in ("trade", "depth", "bookTicker", "markPrice", "ticker")),
    *(f"{kind}.BTC_USDC" for kind in ("trade", "depth", "depth.200ms", "kline.1m")),
    *ACCOUNT_STREAMS,
]
SEQUENCED = ("trade.", "depth.")


@pytest.fixture
def server() -> Any:
    with running_redis(appendonly=True) as running_server:
        yield running_server


def count(server: RedisServer, stream: str) -> int:
    with server.client() as client:
        return int(client.xlen(stream))


def faults(server: RedisServer, exchange: RunningSimulator, *, allow: str = "start") -> list[str]:
    """The differences between Redis and what the exchange sent, as texts."""
    assert exchange.ledger is not None
    sent = truth.sent_by_stream(truth.read_ledger(exchange.ledger))
    found = []
    with server.client(decode_responses=True) as client:
        for stream, frames in sent.items():
            stored = entries(client, stream)
            found += truth.compare(stream, frames, stored)
            found += [
                f"{stream}: a gap: {fields}"
                for _, fields in stored
                if fields["type"] == "gap" and fields["cause"] != allow
            ]
    return found


async def complete(server: RedisServer, exchange: RunningSimulator) -> None:
    sent = truth.sent_by_stream(truth.read_ledger(exchange.ledger or Path()))

    def is_complete() -> bool:
        with server.client(decode_responses=True) as client:
            return all(
                len(truth.messages(entries(client, stream))) >= len(frames)
                for stream, frames in sent.items()
            )

    await eventually_async(is_complete, "all sent messages are in Redis", 30)


async def test_redis_killed_and_restarted_while_all_flows(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with (
        running_simulator("--rate", "1000", ledger=ledger) as exchange,
        running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS) as bridge,
    ):
        await eventually_async(lambda: count(server, "trade.BTC_USDC") > 20, "trades are published")
        for _ in range(3):
            server.kill()
            await eventually_async(
                lambda: lost_redis(bridge.log()), "the bridge reports the outage"
            )
            server.start()
            before = count(server, "trade.BTC_USDC")
            await eventually_async(
                lambda before=before: count(server, "trade.BTC_USDC") > before + 10,
                "more trades are published",
            )
        exchange.stop()
        await complete(server, exchange)
        assert await bridge.stop() == 0

    assert faults(server, exchange) == []


async def test_published_messages_are_already_in_the_journal(
    server: RedisServer, tmp_path: Path
) -> None:
    async with (
        running_simulator("--rate", "500") as exchange,
        running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS),
    ):
        await eventually_async(lambda: count(server, "trade.BTC_USDC") > 20, "trades are published")
        journal = tmp_path / "data" / "journal" / f"{0:020}.journal"
        seen = {newest_trade(server)}
        while len(seen) < 30:  # check each trade as soon as Redis has it
            if (number := newest_trade(server)) not in seen:
                is_there = f'"t":{number}}}'.encode() in journal.read_bytes()
                assert is_there, f"trade {number} is in Redis but not in the journal"
                seen.add(number)


def newest_trade(server: RedisServer) -> str:
    with server.client(decode_responses=True) as client:
        [(_, fields)] = client.xrevrange("trade.BTC_USDC", count=1)  # type: ignore[misc]
    return str(fields["trade_id"])


def lost_redis(log: str) -> bool:
    return log.rfind("redis_unavailable") > log.rfind("redis_connected")


async def test_messages_beyond_memory_are_published_once_redis_is_available(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    small = {"buffer_bytes": 1024 * 1024}
    async with (
        running_simulator("--rate", "3000", ledger=ledger) as exchange,
        running_bridge(
            tmp_path, exchange.ws_url, server.url, STREAMS, publish=small
        ) as bridge,
    ):  # fmt: skip
        await eventually_async(lambda: count(server, "trade.BTC_USDC") > 20, "trades are published")
        server.pause()
        await eventually_async(
            lambda: "journal_takes_over" in bridge.log(), "the memory limit is reached"
        )
        await eventually_async(lambda: told_behind(bridge.log()), "the log states the backlog", 30)
        server.resume()
        await eventually_async(
            lambda: "journal_caught_up" in after(bridge.log()), "the journal is read to its end", 40
        )
        exchange.stop()
        await complete(server, exchange)
        assert await bridge.stop() == 0

    assert faults(server, exchange) == []


def told_behind(log: str) -> bool:
    documents = [json.loads(line) for line in log.splitlines() if '"redis_unavailable"' in line]
    return any(line["behind_bytes"] > 0 for line in documents)


def after(log: str) -> str:
    return log[log.rfind("journal_takes_over") :]


async def test_a_bridge_killed_while_redis_is_unavailable_loses_nothing_it_had_received(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with running_simulator("--rate", "1000", ledger=ledger) as exchange:
        async with running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS) as bridge:
            await eventually_async(
                lambda: count(server, "trade.BTC_USDC") > 20, "trades are published"
            )
            server.kill()
            await eventually_async(lambda: lost_redis(bridge.log()), "Redis is unavailable")
            size = journal_bytes(tmp_path)
            await eventually_async(
                lambda: journal_bytes(tmp_path) > size + 100_000,
                "the journal grows during the outage",
            )
            exchange.stop()
            await eventually_async(
                lambda: connections_lost(tmp_path) == {"1", "2"},
                "the journal has the end of both connections",
            )
            bridge.process.send_signal(signal.SIGKILL)
        server.start()
        async with running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS) as again:
            await complete(server, exchange)
            assert await again.stop() == 0

    assert faults(server, exchange) == []


@pytest.mark.parametrize(
    "between",
    ["a recording", pytest.param("another name for the same Redis", marks=pytest.mark.long)],
)
async def test_entries_missing_in_redis_are_written_after_another_use_of_the_journal(
    between: str, server: RedisServer, tmp_path: Path
) -> None:
    ledger, url = tmp_path / "ledger.jsonl", server.url
    async with running_simulator("--rate", "500", ledger=ledger) as exchange:
        async with running_bridge(tmp_path, exchange.ws_url, url, STREAMS) as bridge:
            await eventually_async(
                lambda: count(server, "trade.BTC_USDC") > 20, "trades are published"
            )
            server.stop()
            size = journal_bytes(tmp_path)
            await eventually_async(
                lambda: journal_bytes(tmp_path) > size + 100_000,
                "the journal grows during the outage",
            )
            exchange.stop()
            await eventually_async(
                lambda: "feed_lost" in bridge.log(), "the exchange is disconnected"
            )
            assert await bridge.stop() == 0
        if between == "a recording":
            checkpoint = tmp_path / "data" / "journal" / "checkpoint.json"
            before = checkpoint.stat().st_mtime_ns
            async with running_bridge(
                tmp_path, exchange.ws_url, url, STREAMS, command="record"
            ) as recorder:
                await eventually_async(
                    lambda: checkpoint.stat().st_mtime_ns > before, "the bridge writes a checkpoint"
                )
                assert await recorder.stop() == 0
        else:
            url = url.replace("127.0.0.1", "localhost")
        server.start()
        async with running_bridge(tmp_path, exchange.ws_url, url, STREAMS) as again:
            await complete(server, exchange)
            assert await again.stop() == 0

    assert faults(server, exchange) == []


def connections_lost(folder: Path) -> set[str]:
    """The names of the connections whose end is in the journal."""
    text = "".join(path.read_text() for path in (folder / "data" / "journal").glob("*.journal"))
    lines = (line.split(" ", 4) for line in text.splitlines())
    return {parts[3] for parts in lines if len(parts) > 3 and parts[2] == "L"}


def journal_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "data" / "journal").glob("*.journal*"))


@pytest.mark.parametrize("lost", ["everything", pytest.param("one stream", marks=pytest.mark.long)])
async def test_entries_lost_by_redis_are_backfilled_from_the_journal(
    lost: str, server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with (
        running_simulator("--rate", "500", ledger=ledger) as exchange,
        running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS) as bridge,
    ):
        await eventually_async(lambda: count(server, "trade.BTC_USDC") > 50, "trades are published")
        with server.client() as client:
            if lost == "everything":
                client.flushall()
            else:
                client.delete("trade.BTC_USDC")
        await eventually_async(
            lambda: "redis_lost_entries" in bridge.log(), "the bridge reports the loss"
        )
        await eventually_async(
            lambda: count(server, "trade.BTC_USDC") > 100, "the stream is backfilled"
        )
        exchange.stop()
        await complete(server, exchange)
        assert await bridge.stop() == 0

    found = faults(server, exchange)
    sequenced = [fault for fault in found if fault.startswith(SEQUENCED)]
    assert [fault for fault in sequenced if "redis lost entries" not in fault] == []
    assert [fault for fault in found if "a gap" not in fault] == []


def everything(server: RedisServer, prefix: str = "") -> dict[str, list[Any]]:
    """All entries of the exchange's streams, by stream."""
    with server.client(decode_responses=True) as client:
        return {
            stream: entries(client, prefix + stream)
            for stream in STREAMS
            if client.exists(prefix + stream)
        }


def differences(live: dict[str, list[Any]], again: dict[str, list[Any]]) -> list[str]:
    """The first difference between the two runs of each stream, as texts."""
    found = []
    for stream in live.keys() | again.keys():
        one, other = live.get(stream, []), again.get(stream, [])
        pairs = zip(one, other, strict=False)
        at = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
        if one[at : at + 1] != other[at : at + 1]:
            found.append(f"{stream} at {at}: {one[at : at + 2]} became {other[at : at + 2]}")
    return found


async def test_replay_into_an_empty_redis_gives_the_entries_of_the_live_run(
    server: RedisServer, tmp_path: Path
) -> None:
    async with running_simulator("--rate", "800") as exchange:
        host = exchange.ws_url.removeprefix("ws://").split(":")
        async with (
            running_proxy(host[0], int(host[1])) as proxy,
            running_bridge(
                tmp_path, f"ws://127.0.0.1:{proxy.port}", server.url, STREAMS
            ) as bridge,
        ):  # fmt: skip
            await eventually_async(
                lambda: count(server, "trade.BTC_USDC") > 40, "trades are published"
            )
            proxy.cut()
            await eventually_async(lambda: "feed_lost" in bridge.log(), "the connection is lost")
            more = count(server, "trade.BTC_USDC") + 40
            await eventually_async(
                lambda: count(server, "trade.BTC_USDC") > more, "more trades are published"
            )
            assert await bridge.stop() == 0
    live = everything(server)

    for arguments in ((), ("--speed", "1000")):
        prefix = f"again{len(arguments)}:"
        answer = run_bridge(
            tmp_path, "replay", "data/journal", *arguments,
            BRIDGE_REDIS__URL=server.url, BRIDGE_REDIS__KEY_PREFIX=prefix,
        )  # fmt: skip
        assert answer.returncode == 0, answer.stderr
        assert not (found := differences(live, everything(server, prefix))), "\n".join(found)


async def test_a_recording_needs_no_redis_and_replays_whole(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    async with (
        running_simulator("--rate", "800", ledger=ledger) as exchange,
        running_bridge(
            tmp_path, exchange.ws_url, "redis://127.0.0.1:1/0", STREAMS, command="record"
        ) as recorder,
    ):
        await eventually_async(lambda: journal_bytes(tmp_path) > 500_000, "the journal grows", 40)
        exchange.stop()
        await eventually_async(
            lambda: "feed_lost" in recorder.log(), "the exchange is disconnected"
        )
        assert await recorder.stop() == 0
    answer = run_bridge(tmp_path, "replay", "data/journal", BRIDGE_REDIS__URL=server.url)

    assert answer.returncode == 0, answer.stderr
    assert faults(server, exchange) == []
    with server.client(decode_responses=True) as client:
        kinds = {fields["type"] for _, fields in entries(client, "depth.BTC_USDC")}
    assert "depth_snapshot" in kinds


async def test_a_replay_that_waits_for_redis_reports_it_repeatedly(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000000.journal").write_text(
        '1790915531026001 O 1 {"name":"public-1","streams":["trade.BTC_USDC_PERP"]}\n'
        f"1790915531026999 F 1 {frames.TRADE}\n"
    )
    with running_redis() as server:
        server.stop()
        with start_bridge(
            tmp_path, "replay", str(tmp_path), BRIDGE_REDIS__URL=server.url
        ) as replaying:
            assert replaying.stderr is not None
            logged = [
                line for line, _ in zip(_until_waits(replaying.stderr), range(50), strict=False)
            ]
            assert "Connection refused" in logged[-1] or "Connect call failed" in logged[-1]
            server.start()
            output, _ = replaying.communicate(timeout=40)
        assert output == "replayed 1 frames of 1 streams\n"
        assert count(server, "trade.BTC_USDC_PERP") == 2  # the frame, and the gap `start`
        status = run_bridge(tmp_path, "status", BRIDGE_REDIS__URL=server.url)
        assert "no bridge publishes here; 1 streams are here, as a replay leaves them" in (
            status.stderr
        )


def _until_waits(log: IO[str]) -> Iterator[str]:
    """Yield lines up to the second line that reports waiting."""
    waits = 0
    for line in log:
        yield line
        waits += "replay_waits" in line
        if waits == 2:
            return


def test_journal_content_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "journal"
    folder.mkdir(parents=True)
    segment = folder / "00000000000000000000.journal"
    segment.write_text(
        "1790915531026000 P 0 \n"
        '1790915531026001 O 1 {"name":"public-1","streams":["trade.BTC_USDC_PERP"]}\n'
        f"1790915531026999 F 1 {frames.TRADE}\n"
    )

    info = run_bridge(tmp_path, "journal", "info")
    whole = run_bridge(tmp_path, "journal", "verify", str(folder))
    exported = run_bridge(tmp_path, "journal", "export", str(segment))
    later = run_bridge(tmp_path, "journal", "export", "--from", "2026-10-02T13:00:00")

    assert (info.returncode, whole.returncode, exported.returncode) == (0, 0, 0)
    assert info.stdout.endswith(
        "\nrecords\n           1  frame\n           1  opened\n           1  started\n"
        "\nstreams\n           1  trade.BTC_USDC_PERP\n"
    )
    assert "whole" in whole.stdout
    assert "gap" not in info.stdout
    lines = [json.loads(line) for line in exported.stdout.splitlines()]
    assert lines[2]["body"] == json.loads(frames.TRADE)
    assert (lines[2]["received_us"], lines[2]["kind"]) == (1790915531026999, "frame")
    assert "frame" not in later.stdout
    segment.write_text(segment.read_text() + "rubbish\n")
    damaged = run_bridge(tmp_path, "journal", "verify")
    assert damaged.returncode == 1
    assert "no record at offset" in damaged.stderr


def test_unusual_json_frames_are_exported(tmp_path: Path) -> None:
    nested, half = "[" * 100_000, '{"s":"\\ud800","币":1.10}'
    (tmp_path / "00000000000000000000.journal").write_text(
        f"1790915531026001 F 1 {nested}\n1790915531026002 F 1 {half}\nrubbish\n", encoding="utf-8"
    )

    done = run_bridge(tmp_path, "journal", "export", str(tmp_path), PYTHONIOENCODING="ascii")

    assert done.returncode == 0
    assert done.stderr == "1 damaged lines were left out: verify lists them\n"
    first, second = done.stdout.splitlines()
    assert json.loads(first)["body"] == nested
    assert second.endswith(f'"body":{half}}}')


def test_time_that_is_not_in_a_journal_is_reported(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000000.journal").write_text(
        "1790915531026000 P 0 \n"
        '1790915591026000 N 0 {"account.orderUpdate":[1790915551026000,1790915571026000],'
        '"trade.BTC_USDC_PERP":[1790915541026000,1790915561026000]}\n'
    )
    missing = (
        "2026-10-02T04:32:21.026+00:00 – 2026-10-02T04:32:51.026+00:00: "
        "account.orderUpdate, trade.BTC_USDC_PERP"
    )

    info = run_bridge(tmp_path, "journal", "info", str(tmp_path))
    verified = run_bridge(tmp_path, "journal", "verify", str(tmp_path))
    exported = run_bridge(tmp_path, "journal", "export", str(tmp_path))

    assert f"unwritten {missing}" in info.stdout
    assert verified.returncode == 1
    assert verified.stderr == f"not written: {missing}\n"
    assert json.loads(exported.stdout.splitlines()[1])["kind"] == "missing"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("replay", "nowhere"), "holds no journal"),
        (("journal", "info"), "holds no journal"),
        (("replay", "data", "--speed", "fast"), "--speed"),
        (("journal", "export", "data", "--from", "yesterday"), "write beginning, new, a time"),
        (("journal", "export", "data", "--from", "²"), "write beginning, new, a time"),
        (("replay", "data", "--from", "2026-10-03", "--to", "2026-10-02"), "is not before"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(
    arguments: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    answer = run_bridge(tmp_path, *arguments)

    assert answer.returncode == 2
    assert expected in answer.stderr
    assert "Traceback" not in answer.stderr
