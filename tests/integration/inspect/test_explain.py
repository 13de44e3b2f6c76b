"""`bridge explain`: the whole history of an entry, from literal entries in Redis and a journal."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge.contract.streams import parse_stream
from bridge.core.records import BodyKind, Frame, Opened, RestBody, SegmentState
from bridge.inspect.groups import Progress
from bridge.inspect.journal_stream import Origin
from bridge.inspect.life import Life, add_journal, in_redis, parse_query
from bridge.inspect.redis_stream import reading_redis
from bridge.journal.codec import encode
from bridge.runtime.config import Config
from bridge.runtime.keyspace import KeySpace
from tests.support.command import run_bridge
from tests.support.consumer_entries import entry_id
from tests.support.kept import (
    STREAM,
    at_us,
    frame,
    history,
    lost,
    marked,
    opened,
    trade_id,
    trades,
    write_journal,
    write_stream,
)

GAP_RECORD = {
    "type": "gap_record", "symbol": "SOL_USDC", "stream": STREAM, "from": "105", "to": "106",
    "from_us": "", "to_us": "", "cause": "connection lost", "recovered": "false", "how": "",
}  # fmt: skip


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url, decode_responses=True, protocol=2) as one:
        write_stream(one, trades(range(101, 105)) | marked(105, 106) | trades(range(107, 111)))
        write_stream(one, {"1-1": GAP_RECORD}, "bridge:gaps")
        yield one


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Two connections: one ends before 105, the other has the trades up to 103 and from 107."""
    both = [frame(n, c, 400 * (c - 1)) for n in (101, 102, 103) for c in (1, 2)]
    return write_journal(
        tmp_path / "journal",
        [
            opened(1, at_us(101) - 2000, "public-1-a"),
            opened(2, at_us(101) - 1000, "public-1-b"),
            *both,
            frame(104),
            lost(1, at_us(104) + 5000),
            lost(2, at_us(104) + 6000),
            opened(3, at_us(107) - 1000),
            *(frame(n, 3) for n in (107, 108)),
            history(109, at_us(110)),
        ],
    )


def explain(redis_url: str, place: str, journal: Path | None = None, stream: str = STREAM) -> Life:
    config = Config.model_validate({"redis": {"url": redis_url}})
    question = parse_query(parse_stream(stream), place)
    with reading_redis(config) as one:
        life = in_redis(one, KeySpace(), question)
    if journal is not None:
        add_journal(life, question, journal)
    return life


def test_an_entry_has_its_neighbours_and_each_copy_of_its_frame(
    client: "redis.Redis", redis_url: str, journal: Path
) -> None:
    life = explain(redis_url, trade_id(102), journal)
    assert life.entry is not None
    assert life.entry.text("trade_id") == "102"
    assert (life.before and life.before.id, life.after and life.after.id) == (
        trade_id(101),
        trade_id(103),
    )
    assert [(copy.place.connection_name, copy.is_stored) for copy in life.copies] == [
        ("public-1-a", True),
        ("public-1-b", False),
    ]
    lines = (journal / life.copies[0].place.segment).read_bytes()
    line = lines[life.copies[0].place.offset :].partition(b"\n")[0]
    assert line.endswith(life.copies[0].body.encode())
    assert b'"t":102' in line


@pytest.mark.parametrize("number", range(101, 111))
def test_explain_of_a_number_finds_its_entry_or_the_gap_that_names_it(
    client: "redis.Redis", redis_url: str, number: int
) -> None:
    life = explain(redis_url, str(number))
    if number in (105, 106):
        assert (life.entry, life.gap and life.gap.text("from")) == (None, "105")
        assert [record.text("cause") for record in life.gap_records] == ["connection lost"]
    else:
        assert life.entry is not None
        assert (life.entry_id, life.gap, life.gap_records) == (trade_id(number), None, [])


def test_number_that_redis_trimmed_long_ago_is_found_in_the_journal(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    earlier_us = at_us(101) - 3 * 3_600_000_000
    heads = [SegmentState(earlier_us + n * 3_600_000_000, {}, {}, ()) for n in (0, 1)]
    first = b"".join(map(encode, (heads[0], opened(1, earlier_us), frame(100, 1, -(10**10)))))
    (tmp_path / f"{0:020}.journal").write_bytes(first)
    (tmp_path / f"{len(first):020}.journal").write_bytes(encode(heads[1]) + encode(frame(101)))

    life = explain(redis_url, "100", tmp_path)

    assert (life.entry, life.before) == (None, None)
    assert [copy.place.segment for copy in life.copies] == [f"{0:020}.journal"]


def test_number_within_a_depth_change_is_found_in_the_journal(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    at = at_us(101)
    name = "depth.SOL_USDC"
    data = {"e": "depth", "E": at, "T": at, "s": "SOL_USDC", "U": 200, "u": 209, "a": [], "b": []}
    body = json.dumps({"data": data, "stream": name}).encode()
    path = write_journal(tmp_path / "journal", [Opened(at, 1, "public-1", [name]),
                                                Frame(at, 1, body)])  # fmt: skip

    life = explain(redis_url, "205", path, name)

    assert [copy.place.received_us for copy in life.copies] == [at]
    assert explain(redis_url, "210", path, name).copies == []


@pytest.mark.parametrize(("number", "expected"), [("7", "older than"), ("2000", "newer than")])
def test_explain_distinguishes_an_unknown_number_from_a_missing_one(
    client: "redis.Redis", redis_url: str, number: str, expected: str
) -> None:
    life = explain(redis_url, number)
    assert (life.entry, life.gap) == (None, None)
    assert expected in life.where


def test_explain_of_a_gap_shows_the_events_of_the_connections(
    client: "redis.Redis", redis_url: str, journal: Path
) -> None:
    life = explain(redis_url, next(iter(marked(105, 106))), journal)
    assert [one.text for one in life.happenings] == [
        "opened as public-1-a, to receive this stream",
        "opened as public-1-b, to receive this stream",
        "ended: connection lost",
        "ended: connection lost",
        "opened as public-1, to receive this stream",
    ]


def test_a_trade_from_history_has_the_rest_reply_as_its_origin(
    client: "redis.Redis", redis_url: str, journal: Path
) -> None:
    life = explain(redis_url, "109", journal)
    assert [copy.place.origin for copy in life.copies] == [Origin.REST]


def test_explain_of_a_snapshot_shows_its_rest_reply(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    us, depth = at_us(101), "depth.SOL_USDC"
    snapshot = {
        "type": "depth_snapshot", "symbol": "SOL_USDC", "update_id": "7", "rest_update_id": "5",
        "bids": '[["98","1"]]', "asks": "[]", "event_us": "", "engine_us": "",
        "received_us": str(us), "extra": "",
    }  # fmt: skip
    write_stream(client, {entry_id(us, 7, 2): snapshot}, depth)
    body = b'{"asks":[],"bids":[],"lastUpdateId":"%d"}'
    replies = [
        RestBody(us - late_us, depth, BodyKind.MAIN, body % number)
        for late_us, number in ((3000, 4), (2000, 5), (1000, 6))
    ]
    life = explain(redis_url, entry_id(us, 7, 2), write_journal(tmp_path / "of it", replies), depth)
    assert life.rest_book is not None
    assert life.rest_book.received_us == us - 2000
    arguments = ("explain", depth, entry_id(us, 7, 2), "--journal", "of it")
    output = run_bridge(tmp_path, redis_url, *arguments).stdout
    assert "2026-09-02 16:43:59.998000  the REST reply that the snapshot was made of" in output


def test_explain_shows_each_groups_progress_with_the_entry(
    client: "redis.Redis", redis_url: str
) -> None:
    beside = f"consumers:{{{STREAM}}}"
    client.hset("consumers:groups", "sums", '{"mode":"shared"}')
    for group in ("sums", "other"):
        client.xgroup_create(STREAM, group, id="0")
    client.xreadgroup("sums", "w1", {STREAM: ">"}, count=3)
    client.xack(STREAM, "sums", trade_id(101), trade_id(103))
    client.xadd(f"{beside}:sums:dead", {"entry_id": trade_id(103), "attempts": "5", "error": "no"})
    client.xadd(f"{beside}:sums:closed", {"open": "1"}, id=trade_id(101))
    client.hset(f"{beside}:sums", mapping={"first_trade_id": "101", "last_trade_id": "101"})

    def of(number: int) -> dict[str, Any]:
        return {one.group: one for one in explain(redis_url, trade_id(number)).groups}

    settled, pending, dead, ahead = (of(number)["sums"] for number in (101, 102, 103, 104))
    assert (settled.progress, settled.mode) == (Progress.SETTLED, "shared")
    assert settled.results == (
        f"{beside}:sums was made of the trades 101 to 101, this one among them",
        f"{beside}:sums:closed has an entry with this ID",
    )
    assert (pending.progress, pending.worker, pending.deliveries) == (Progress.PENDING, "w1", 1)
    assert dead.progress is Progress.DEAD
    assert (dead.letter.attempts, dead.letter.error) == (5, "no")
    assert ahead.progress is Progress.AHEAD
    assert of(101)["other"].progress is Progress.AHEAD


def test_explain_uses_the_position_of_an_ordered_group(
    client: "redis.Redis", redis_url: str
) -> None:
    beside = f"consumers:{{{STREAM}}}:book"
    client.xgroup_create(STREAM, "book", id="0")
    client.hset(f"{beside}:position", mapping={"id": trade_id(102), "trying": trade_id(103)})
    client.hset(f"{beside}:position", "tries", "3")
    client.set(f"{beside}:lease", "w7/abc 12")
    done, trying = (explain(redis_url, str(number)).groups[0] for number in (102, 103))
    assert (done.progress, done.worker) == (Progress.SETTLED, "w7")
    assert (trying.progress, trying.deliveries) == (Progress.IN_HAND, 3)


def test_explain_command_prints_text_and_json(
    client: "redis.Redis", redis_url: str, tmp_path: Path, journal: Path
) -> None:
    arguments = ("explain", STREAM, "105", "--journal", str(journal))
    result = run_bridge(tmp_path, redis_url, *arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert "GAP: 105…106 missing (connection lost)" in result.stdout
    assert "2026-09-02 16:44:00.305000  connection 1 ended: connection lost" in result.stdout
    plain = json.loads(run_bridge(tmp_path, redis_url, *arguments, "--json").stdout)
    assert (plain["in_redis"], plain["gap"]["fields"]["to"]) == (False, "106")


@pytest.mark.parametrize("entry_id", ["0-0", f"{2**64 - 1}-{2**64 - 1}"])
def test_an_id_at_the_end_of_all_ids_is_explained_like_any_other(
    client: "redis.Redis", redis_url: str, entry_id: str
) -> None:
    life = explain(redis_url, entry_id)
    assert life.entry is None
    assert life.where.startswith("not in Redis: ")
    assert (life.before is None) == (entry_id == "0-0")
    assert (life.after is None) == (entry_id != "0-0")


def test_explain_refuses_an_impossible_id_in_one_sentence(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    for arguments, expected in (
        (("trade.SOL_USDC", "yesterday"), "'yesterday' is no entry ID"),
        (("trade.SOL_USDC", f"{2**64}-0"), "'18446744073709551616-0' is no entry ID"),
        (("bookTicker.SOL_USDC", f"{2**64}"), "'18446744073709551616' is no entry ID"),
        (("trades.SOL_USDC", "1-1"), "is not a stream"),
        (("trade.SOL_USDC", "101", "--journal", "nowhere"), "nowhere holds no journal"),
    ):
        done = run_bridge(tmp_path, redis_url, "explain", *arguments)
        assert done.returncode == 2
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
    assert run_bridge(tmp_path, redis_url, "explain", STREAM, "7").returncode == 1
