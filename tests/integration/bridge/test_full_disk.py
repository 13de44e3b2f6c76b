"""A journal that cannot be written: publishing continues, the error is reported, the journal
recovers.

RLIMIT_FSIZE makes the bridge's writes fail as on a full disk.
"""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import truth
from tests.support.bridge_run import entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.redis_server import RedisServer, running_redis
from tests.support.simulator_process import running_simulator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")

STREAMS = ["trade.SOL_USDC", "depth.SOL_USDC", "bookTicker.SOL_USDC"]
FULL_BYTES = 20_000
FRAMES = 100


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis(appendonly=True) as running_server:
        yield running_server


def limit(pid: int, size: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fsync", ["interval", "batch"])
async def test_disk_full_publishing_continues_and_the_journal_recovers(
    fsync: str, server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    journal = tmp_path / "data" / "journal"
    async with (
        running_simulator("--rate", "300", "--market", "SOL_USDC", ledger=ledger) as exchange,
        running_bridge(
            tmp_path, exchange.ws_url, server.url, STREAMS, journal={"fsync": fsync}
        ) as bridge,
    ):  # fmt: skip
        await eventually_async(lambda: bridge.is_confirmed(3), "the bridge receives", 60)
        limit(bridge.process.pid, FULL_BYTES)
        await eventually_async(
            lambda: "journal_failed" in bridge.log(), "the log has journal_failed", 40
        )
        alarm = "cannot write the journal: File too large"
        await eventually_async(
            lambda: bridge.status().get("journal_trouble") == alarm, "status reports the error"
        )
        before = bridge.status()["frames"]
        await eventually_async(
            lambda: bridge.status()["frames"] > before + 100, "more frames are received"
        )
        limit(bridge.process.pid, resource.RLIM_INFINITY)
        await eventually_async(
            lambda: "journal_recovered" in bridge.log(), "the log has journal_recovered"
        )
        await eventually_async(
            lambda: bridge.status().get("journal_trouble") == "", "status reports no error"
        )
        grown = sum(path.stat().st_size for path in journal.glob("*.journal"))
        assert grown > FULL_BYTES // 2
        exchange.stop()
        await eventually_async(lambda: bridge.status()["pending"] == 0, "no entry is pending")
        assert await bridge.stop() == 0

    sent = truth.sent_by_stream(truth.read_ledger(ledger))
    with server.client(decode_responses=True) as client:
        for stream in STREAMS:
            assert truth.compare(stream, sent[stream], entries(client, stream)) == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("is_recovered", [False, True])
async def test_recorder_disk_full_keeps_later_frames_and_shows_the_missing_ones(
    is_recovered: bool, tmp_path: Path
) -> None:
    async with (
        running_simulator("--rate", "300", "--market", "SOL_USDC") as exchange,
        running_bridge(
            tmp_path, exchange.ws_url, "redis://127.0.0.1:1/0", STREAMS, command="record"
        ) as recorder,
    ):
        journal = tmp_path / "data" / "journal"
        await eventually_async(lambda: size(journal) > FULL_BYTES, "the journal grows", 60)
        limit(recorder.process.pid, FULL_BYTES)
        await eventually_async(
            lambda: "journal_failed" in recorder.log(), "the log has journal_failed", 40
        )
        if is_recovered:
            limit(recorder.process.pid, resource.RLIM_INFINITY)
            await eventually_async(
                lambda: "journal_recovered" in recorder.log(), "the log has journal_recovered"
            )
        assert await recorder.stop() == (0 if is_recovered else 1)

    reason = f"not in {Path('data') / 'journal'}: it could not be written"
    assert (reason in recorder.log()) is not is_recovered


def size(journal: Path) -> int:
    return sum(path.stat().st_size for path in journal.glob("*.journal"))


@pytest.mark.timeout(180)
async def test_journal_unopenable_at_the_start_is_opened_later(
    server: RedisServer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    in_the_way = tmp_path / "data"
    in_the_way.write_text("not a folder")
    async with (
        running_simulator("--rate", "300", "--market", "SOL_USDC", ledger=ledger) as exchange,
        running_bridge(tmp_path, exchange.ws_url, server.url, STREAMS) as bridge,
    ):
        await eventually_async(lambda: bridge.is_confirmed(3), "the bridge receives", 60)
        assert "Not a directory" in bridge.status()["journal_trouble"]
        assert bridge.status()["frames"] > 0

        in_the_way.unlink()
        await eventually_async(
            lambda: bridge.status().get("journal_trouble") == "", "the journal is open"
        )
        before = bridge.status()["frames"]
        await eventually_async(
            lambda: bridge.status()["frames"] > before + FRAMES, "more frames are received"
        )
        exchange.stop()
        await eventually_async(lambda: bridge.status()["pending"] == 0, "no entry is pending")
        assert await bridge.stop() == 0

    lines = b"".join(path.read_bytes() for path in (in_the_way / "journal").glob("*.journal"))
    assert lines.count(b" F ") > FRAMES
    assert b" N " not in lines, "the journal has a `missing` record"
    sent = truth.sent_by_stream(truth.read_ledger(ledger))
    with server.client(decode_responses=True) as client:
        for stream in STREAMS:
            assert truth.compare(stream, sent[stream], entries(client, stream)) == []
