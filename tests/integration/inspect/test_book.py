"""`bridge book`: the same book from Redis and the archive, and a sentence where there is none."""

import json
from pathlib import Path

import redis

from bridge.contract.entry import decode
from consumers import columns_of, row_of
from consumers.handlers.archive import Files
from tests.support.command import run_bridge
from tests.support.consumer_entries import START_US, depth, depth_snapshot, entry_id
from tests.support.kept import write_stream

STREAM = "depth.SOL_USDC"
SECOND_US = 1_000_000
ENTRIES = {
    entry_id(START_US, 10): depth(10, 10, [("99", "1")], []),
    entry_id(START_US, 10, 2): depth_snapshot(10, [("99", "1")], [("101", "3")]),
    entry_id(START_US + SECOND_US, 11): depth(11, 11, [("99.5", "2")], []),
    entry_id(START_US + 2 * SECOND_US, 12): depth(12, 12, [("99.5", "0.00")], []),
}


def test_the_book_at_a_time_is_the_same_from_redis_and_the_archive(
    redis_url: str, tmp_path: Path
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        write_stream(client, ENTRIES, STREAM)
    rows = [row_of(columns_of(STREAM), one, decode(fields)) for one, fields in ENTRIES.items()]
    Files(tmp_path / "archive", STREAM, private=False).put("0-0", rows)
    asked = ("book", "SOL_USDC", "--archive", "archive", "--at", "2026-09-02T16:44:01.5")
    told = [run_bridge(tmp_path, redis_url, *asked, "--from", one, "--json") for one in SOURCES]
    assert [done.returncode for done in told] == [0, 0]
    of_redis, of_archive = (json.loads(done.stdout) for done in told)
    assert (of_redis["bids"], of_redis["update_id"]) == ([["99.5", "2"], ["99", "1"]], 11)
    assert of_redis | {"source": "archive"} == of_archive
    text = run_bridge(tmp_path, redis_url, *asked).stdout
    assert text.splitlines()[-3:] == [
        "quantity   bid  ask  quantity",
        "       2  99.5  101         3",
        "       1    99               ",
    ]


SOURCES = ("redis", "archive")


def test_before_the_first_snapshot_a_sentence_says_so(redis_url: str, tmp_path: Path) -> None:
    with redis.Redis.from_url(redis_url) as client:
        write_stream(client, ENTRIES, STREAM)
    done = run_bridge(tmp_path, redis_url, "book", "SOL_USDC", "--at", "2026-09-01")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the book cannot be known: redis has no entry of depth.SOL_USDC up to then\n"
    )
