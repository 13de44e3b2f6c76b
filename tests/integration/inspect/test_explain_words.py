"""The exact output of `bridge explain` for one entry, as text and as JSON."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge.core.records import Frame
from bridge.journal.checkpoint import Checkpoint, write_checkpoint
from tests.support.command import run_bridge
from tests.support.kept import (
    STREAM,
    at_us,
    frame,
    history,
    opened,
    trade_id,
    trades,
    write_journal,
    write_stream,
)

BODY = (
    '{"data":{"e":"trade","E":1788367440100300,"T":1788367440100000,"a":"59887375337",'
    '"b":"59887375336","m":true,"p":"98.96","q":"1.5","s":"SOL_USDC","t":102},'
    '"stream":"trade.SOL_USDC"}'
)
OF_102 = f"""\
trade.SOL_USDC  1788367440100-1020  number 102
in Redis   trade: sell 1.5 @ 98.96
           in Redis, among 4 entries from 1788367440000-1010 to 1788367440300-1040
           before it  1788367440000-1010  sell 1.5 @ 98.96
           behind it  1788367440200-1030  sell 1.5 @ 98.96
times      2026-09-02 16:44:00.100000  happened, in the exchange's engine
           2026-09-02 16:44:00.100300  sent by the exchange, +0.300 ms
           2026-09-02 16:44:00.100900  received by the bridge, +0.600 ms
journal    journal: 2 of its segments, of that time, read
           it was received 2 times: one is used, the rest are duplicates
           2026-09-02 16:44:00.100900  received over connection 1 public-1-a, which the entry was made of
             00000000000000000237.journal at 0 (offset 237 of the journal)
             {BODY}
           2026-09-02 16:44:00.101300  received over connection 2 public-1-b
             00000000000000000237.journal at 211 (offset 448 of the journal)
             {BODY}
           refused near that time: t: Field required
             00000000000000000237.journal at 422 (offset 659 of the journal)
           by the journal's checkpoint it is not settled yet
group      sums (shared): delivered to w1 1 times, last N s ago; pending
not known  when it came into Redis: Redis does not keep that. Not before the bridge received it
           what it changed beyond the results named here: a consumer's results do not name the entries they were made of
"""  # noqa: E501 - as it is printed


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url, decode_responses=True, protocol=2) as one:
        write_stream(one, trades(range(101, 105)))
        one.hset("consumers:groups", "sums", '{"mode":"shared"}')
        one.xgroup_create(STREAM, "sums", id="0")
        one.xreadgroup("sums", "w1", {STREAM: ">"}, count=2)
        yield one


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal of two segments: connections, then 102 over both, a refused message, and 104 from
    REST.
    """
    refused = frame(102).body.replace(b'"t":102', b'"T2":102')
    first = [opened(1, at_us(101), "public-1-a"), opened(2, at_us(101), "public-1-b")]
    folder = write_journal(tmp_path / "journal", first)
    [segment] = folder.iterdir()
    behind = [
        frame(102), frame(102, 2, 400), Frame(at_us(102) + 2000, 1, refused),
        history(104, at_us(105)),
    ]  # fmt: skip
    whole = write_journal(tmp_path / "whole", [*first, *behind])
    lines = (whole / segment.name).read_bytes()[segment.stat().st_size :]
    (folder / f"{segment.stat().st_size:020d}.journal").write_bytes(lines)
    return folder


def explained(folder: Path, redis_url: str, number: str, *more: str) -> str:
    done = run_bridge(
        folder, redis_url, "explain", STREAM, number, "--journal", "journal", *more, COLUMNS="300"
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_explain_describes_the_whole_history_of_an_entry(
    client: "redis.Redis", redis_url: str, tmp_path: Path, journal: Path
) -> None:
    write_checkpoint(journal, Checkpoint(offset=300))
    output = explained(tmp_path, redis_url, "102")
    assert re.sub(r"last [\d.]+ s", "last N s", output) == OF_102
    write_checkpoint(journal, Checkpoint(offset=500))
    assert "by the journal's checkpoint Redis has it" in explained(tmp_path, redis_url, "102")


def test_explain_shows_the_reply_of_a_fetched_trade_and_the_reason_of_a_dead_letter(
    client: "redis.Redis", redis_url: str, tmp_path: Path, journal: Path
) -> None:
    letter: Any = {"entry_id": trade_id(104), "attempts": "5", "error": "ValueError: no"}
    beside = f"consumers:{{{STREAM}}}:sums:dead"
    client.xadd(beside, letter | {"at": "mine.py:7", "worker": "w2"}, id="1788367440400-0")
    lines = [line.strip() for line in explained(tmp_path, redis_url, "104").splitlines()]
    at = lines.index("dead letter 1788367440400-0 by w2, 5 attempts")
    assert lines[at + 1] == "ValueError: no (mine.py:7)"
    at = lines.index("2026-09-02 16:44:00.400000  fetched over REST, from the exchange's history")
    assert lines[at + 1] == "00000000000000000237.journal at 634 (offset 871 of the journal)"
    assert lines[at + 2].startswith('[{"id":104,')


def test_explain_entry_given_back_by_a_worker_is_shown_as_not_begun(
    client: "redis.Redis", redis_url: str, tmp_path: Path, journal: Path
) -> None:
    claim = ("XCLAIM", STREAM, "sums", "w1", 0, trade_id(102), "RETRYCOUNT", 0, "JUSTID")
    client.execute_command(*claim)
    output = explained(tmp_path, redis_url, "102")
    assert "group      sums (shared): given back by w1, not begun; pending\n" in output


def test_json_has_all_that_the_text_has(
    client: "redis.Redis", redis_url: str, tmp_path: Path, journal: Path
) -> None:
    write_checkpoint(journal, Checkpoint(offset=500))
    document: Any = json.loads(explained(tmp_path, redis_url, "102", "--json"))
    ids = {name: document[name]["id"] for name in ("entry", "before", "after")}
    assert ids == {
        "entry": "1788367440100-1020", "before": "1788367440000-1010", "after": "1788367440200-1030"
    }  # fmt: skip
    assert (document["number"], document["in_redis"], document["gap"], document["gap_records"]) == (
        102,
        True,
        None,
        [],
    )
    place = {"segment": "00000000000000000237.journal", "origin": "frame"}
    assert document["journal"] == {
        "read": "journal: 2 of its segments, of that time, read",
        "settled": True,
        "copies": [
            place
            | {"offset": 0, "position": 237, "received_us": 1788367440100900, "connection": 1}
            | {"connection_name": "public-1-a", "body": BODY, "is_stored": True},
            place
            | {"offset": 211, "position": 448, "received_us": 1788367440101300, "connection": 2}
            | {"connection_name": "public-1-b", "body": BODY, "is_stored": False},
        ],
        "rest_book": None,
        "refused": [
            place
            | {"offset": 422, "position": 659, "received_us": 1788367440102000, "connection": 1}
            | {"connection_name": "public-1-a", "fault": "t: Field required"}
        ],
    }
    [group] = document["groups"]
    assert group | {"idle_ms": 0} == {
        "group": "sums", "mode": "shared", "progress": "pending",
        "position": "1788367440100-1020", "worker": "w1", "deliveries": 1, "idle_ms": 0,
        "missed": 0, "letter": None, "results": [],
    }  # fmt: skip
    assert len(document["unknown"]) == 2
