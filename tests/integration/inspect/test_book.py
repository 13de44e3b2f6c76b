"""`bridge book`: the same book from Redis and from the archive, and an error if there is none."""

import json
from pathlib import Path

import pytest
import redis

from bridge.contract.entry import decode
from bridge.core.records import BodyKind, Frame, Opened, RestBody
from consumers import columns_of, row_of
from consumers.handlers.archive import Files
from tests.support.command import run_bridge
from tests.support.consumer_entries import START_US, depth, depth_snapshot, entry_id, gap
from tests.support.kept import write_journal, write_stream

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
    arguments = ("book", "SOL_USDC", "--archive", "archive", "--at", "2026-09-02T16:44:01.5")
    runs = [run_bridge(tmp_path, redis_url, *arguments, "--from", one, "--json") for one in SOURCES]
    assert [done.returncode for done in runs] == [0, 0]
    of_redis, of_archive = (json.loads(done.stdout) for done in runs)
    assert (of_redis["bids"], of_redis["update_id"]) == ([["99.5", "2"], ["99", "1"]], 11)
    assert of_redis | {"source": "archive"} == of_archive
    text = run_bridge(tmp_path, redis_url, *arguments).stdout
    assert text.splitlines()[-3:] == [
        "quantity   bid  ask  quantity",
        "       2  99.5  101         3",
        "       1    99               ",
    ]


SOURCES = ("redis", "archive")


def journal_of_the_same(folder: Path) -> None:
    """Write the changes as they were received, and the REST reply that they are joined with."""
    seconds = ((10, 0, '["99","1"]'), (11, 1, '["99.5","2"]'), (12, 2, '["99.5","0.00"]'))
    changes = [
        Frame(
            START_US + at_s * SECOND_US + 900, 1,
            f'{{"data":{{"e":"depth","E":{START_US + at_s * SECOND_US},"s":"SOL_USDC",'
            f'"T":{START_US + at_s * SECOND_US},"U":{number},"u":{number},"b":[{bid}],"a":[]}},'
            f'"stream":"{STREAM}"}}'.encode(),
        )
        for number, at_s, bid in seconds
    ]  # fmt: skip
    reply = b'{"asks":[["101","3"]],"bids":[["99","1"]],"lastUpdateId":"10","timestamp":0}'
    body = RestBody(START_US + 1000, STREAM, BodyKind.MAIN, reply)
    begun = Opened(START_US - 1000, 1, "public-1", [STREAM])
    write_journal(folder / "journal", [begun, changes[0], body, *changes[1:]])


@pytest.mark.parametrize(
    ("at", "update", "bids"),
    [
        ("2026-09-02T16:44:00.999", 10, [["99", "1"]]),
        ("2026-09-02T16:44:01", 11, [["99.5", "2"], ["99", "1"]]),
    ],
)
def test_book_at_the_time_of_a_change_includes_it_in_each_source(
    redis_url: str, tmp_path: Path, at: str, update: int, bids: list[list[str]]
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        write_stream(client, ENTRIES, STREAM)
    rows = [row_of(columns_of(STREAM), one, decode(fields)) for one, fields in ENTRIES.items()]
    Files(tmp_path / "archive", STREAM, private=False).put("0-0", rows)
    journal_of_the_same(tmp_path)
    arguments = ("book", "SOL_USDC", "--archive", "archive", "--journal", "journal", "--at", at)
    for source in ("redis", "archive", "journal"):
        done = run_bridge(tmp_path, redis_url, *arguments, "--from", source, "--json")
        document = json.loads(done.stdout)
        assert (document["source"], document["update_id"], document["bids"]) == (
            source,
            update,
            bids,
        )


def test_book_after_an_entry_lacks_later_changes_of_the_same_millisecond(
    redis_url: str, tmp_path: Path
) -> None:
    changes = [
        Frame(
            START_US + 900 + number, 1,
            f'{{"data":{{"e":"depth","E":{START_US},"s":"SOL_USDC","T":{START_US},"U":{number},'
            f'"u":{number},"b":[["{number}","1"]],"a":[]}},"stream":"{STREAM}"}}'.encode(),
        )
        for number in (10, 11, 12)
    ]  # fmt: skip
    reply = b'{"asks":[["101","3"]],"bids":[["10","1"]],"lastUpdateId":"10","timestamp":0}'
    body = RestBody(START_US + 950, STREAM, BodyKind.MAIN, reply)
    begun = Opened(START_US - 1000, 1, "public-1", [STREAM])
    write_journal(tmp_path / "journal", [begun, changes[0], body, *changes[1:]])
    place = entry_id(START_US, 11)
    arguments = ("book", "SOL_USDC", "--from", "journal", "--journal", "journal", "--at", place)

    found = json.loads(run_bridge(tmp_path, redis_url, *arguments, "--json").stdout)

    assert (found["update_id"], found["bids"]) == (11, [["11", "1"], ["10", "1"]])
    assert f"after entry {place}" in run_bridge(tmp_path, redis_url, *arguments).stdout


def test_as_many_levels_are_reported_as_were_requested_the_best_first(
    redis_url: str, tmp_path: Path
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        write_stream(client, ENTRIES, STREAM)
    arguments = ("book", "SOL_USDC", "--at", "2026-09-02T16:44:01", "--levels", "1", "--json")
    document = json.loads(run_bridge(tmp_path, redis_url, *arguments).stdout)
    assert (document["bids"], document["asks"]) == ([["99.5", "2"]], [["101", "3"]])


@pytest.mark.parametrize("source", SOURCES)
def test_book_is_refused_if_a_later_gap_may_reach_before_its_time(
    redis_url: str, tmp_path: Path, source: str
) -> None:
    marked = dict(gap(14, first=13)) | {"cause": "stale"}
    entries = ENTRIES | {entry_id(START_US + 9 * SECOND_US, 14, 1): marked}
    with redis.Redis.from_url(redis_url) as client:
        write_stream(client, entries, STREAM)
    rows = [row_of(columns_of(STREAM), one, decode(fields)) for one, fields in entries.items()]
    Files(tmp_path / "archive", STREAM, private=False).put("0-0", rows)
    arguments = ("book", "SOL_USDC", "--archive", "archive", "--from", source)
    done = run_bridge(tmp_path, redis_url, *arguments, "--at", "2026-09-02T16:44:05")
    assert done.returncode == 1
    assert "the updates 13 to 14 are missing (stale, gap " in done.stderr


def test_book_missing_in_all_streams_reports_the_reason_of_the_exact_stream(
    redis_url: str, tmp_path: Path
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        write_stream(client, ENTRIES, STREAM)
        write_stream(client, ENTRIES, "depth.1000ms.SOL_USDC")
    done = run_bridge(tmp_path, redis_url, "book", "SOL_USDC", "--at", "2026-09-01")
    assert done.stderr == (
        "error: the book cannot be known: redis has no entry of depth.SOL_USDC up to then\n"
    )


def test_book_before_the_first_snapshot_is_an_error_of_one_sentence(
    redis_url: str, tmp_path: Path
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        write_stream(client, ENTRIES, STREAM)
    done = run_bridge(tmp_path, redis_url, "book", "SOL_USDC", "--at", "2026-09-01")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the book cannot be known: redis has no entry of depth.SOL_USDC up to then\n"
    )
