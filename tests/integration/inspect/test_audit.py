"""`bridge audit`: the certificate of a stream, from literal entries."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bridge.contract.entry import decode
from bridge.contract.identity import EntryId
from bridge.contract.streams import parse_stream
from bridge.core.records import Frame
from bridge.inspect import comparison
from bridge.inspect.audit import Audit
from bridge.inspect.certificate import Certificate
from bridge.inspect.redis_stream import reading_redis
from bridge.journal.codec import encode
from bridge.runtime.config import Config
from bridge.runtime.keyspace import KeySpace
from consumers import columns_of, row_of
from consumers.handlers.archive import Files
from tests.support.command import run_bridge
from tests.support.kept import (
    STREAM,
    frame,
    history,
    marked,
    opened,
    trade_id,
    trades,
    write_journal,
    write_stream,
)

FIELDS_OF_A_TICKER = (
    "first_price", "last_price", "high_price", "low_price", "base_volume", "quote_volume", "trades",
)  # fmt: skip
Entries = dict[str, dict[str, str]]
WHOLE: Entries = trades(range(101, 105)) | marked(105, 106) | trades(range(107, 111))


@pytest.fixture
def client(redis_url: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(redis_url, decode_responses=True, protocol=2) as one:
        yield one


def audit(redis_url: str, journal: Path | None = None, archive: Path | None = None) -> Certificate:
    config = Config.model_validate({"redis": {"url": redis_url}})
    with reading_redis(config) as one:
        found = Audit(one, KeySpace(), parse_stream(STREAM), EntryId(0, 0), None)
        found.redis_and_archive("here", archive)
    if journal is not None:
        found.journal(journal)
    return found.certificate


def journal_of(folder: Path, numbers: range) -> Path:
    frames = [frame(n, c, 400 * (c - 1)) for n in numbers for c in (1, 2)]
    return write_journal(folder / "journal", [opened(1, frames[0].received_us - 5000), *frames])


def archive_of(folder: Path, entries: Entries, after: str = "0-0") -> Path:
    rows = [row_of(columns_of(STREAM), one, decode(fields)) for one, fields in entries.items()]
    assert Files(folder / "archive", STREAM, private=False).put(after, rows)
    return folder / "archive"


def test_a_whole_stream_is_the_same_in_redis_journal_and_archive(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    write_stream(client, WHOLE)
    certificate = audit(
        redis_url, journal_of(tmp_path, range(101, 111)), archive_of(tmp_path, WHOLE)
    )
    assert certificate.problems == []
    check, both = certificate.journal, certificate.archive
    assert check is not None
    assert both is not None
    assert (check.same, check.copies, check.in_gaps, check.elsewhere) == (8, 8, 4, 0)
    assert (both.compared, both.only_redis, both.only_archive, both.other) == (9, 0, 0, 0)
    assert certificate.sources[0].content == certificate.sources[1].content


def test_audit_finds_each_of_several_equal_states(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    name, seconds = "ticker.SOL_USDC", range(1_788_368_290, 1_788_368_295)
    candle = {"o": "98", "c": "99", "h": "99.5", "l": "97", "v": "10", "V": "980", "n": 7}
    fields = dict(zip(FIELDS_OF_A_TICKER, candle.values(), strict=True))
    frames = []
    for second in seconds:
        sent_us = second * 1_000_000
        data = {"e": "ticker", "E": sent_us, "s": "SOL_USDC"} | candle
        body = json.dumps({"data": data, "stream": name}).encode()
        frames += [Frame(sent_us + 900, connection, body) for connection in (1, 2)]
        times = {"event_us": sent_us, "engine_us": "", "received_us": sent_us + 900, "extra": ""}
        entry = {"type": "ticker", "symbol": "SOL_USDC"} | fields | times
        client.xadd(name, entry, id=f"{second}000-0")
    journal = write_journal(tmp_path / "journal", frames)

    config = Config.model_validate({"redis": {"url": redis_url}})
    with reading_redis(config) as one:
        found = Audit(one, KeySpace(), parse_stream(name), EntryId(0, 0), None)
        found.redis_and_archive("here", None)
    found.journal(journal)
    check = found.certificate.journal

    assert check is not None
    assert (check.same, check.copies, check.overtaken, check.elsewhere) == (5, 5, 0, 0)


def test_a_journal_that_two_processes_read_is_compared_as_one(
    client: "redis.Redis", redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stream(client, trades(range(101, 105)) | trades(range(107, 111)))
    folder = journal_of(tmp_path, range(101, 108))
    [first] = folder.iterdir()
    after = [frame(n, 2) for n in (104, 107)] + [frame(n) for n in range(108, 113)]
    lines = b"".join(encode(record) for record in (opened(2, after[0].received_us), *after))
    (folder / f"{first.stat().st_size:020d}.journal").write_bytes(lines + b"no line\n")
    whole = audit(redis_url, folder).journal
    monkeypatch.setattr(comparison, "LONG_BYTES", 1)
    assert audit(redis_url, folder).journal == whole
    assert whole is not None
    assert (whole.same, whole.copies, whole.missing, whole.damaged) == (8, 7, 4, 1)


def test_missing_entry_without_a_gap_is_a_problem_in_each_source(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    lacking = {one: fields for one, fields in WHOLE.items() if one != trade_id(103)}
    write_stream(client, lacking)
    certificate = audit(
        redis_url, journal_of(tmp_path, range(101, 111)), archive_of(tmp_path, WHOLE)
    )
    assert certificate.problems == [
        "redis: numbers are missing without a gap at 1 place: 103",
        "journal: 2 messages were received, are not in Redis, and no gap has them: 103 "
        "(00000000000000000000.journal at 998), 103 (00000000000000000000.journal at 1209)",
        f"archive: 0 entries only in Redis, 1 only in the archive, 0 differ: {trade_id(103)}",
    ]


def test_a_message_with_other_content_is_a_problem(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    write_stream(client, WHOLE | {trade_id(110): trades([110])[trade_id(110)] | {"price": "1"}})
    certificate = audit(
        redis_url, journal_of(tmp_path, range(101, 111)), archive_of(tmp_path, WHOLE)
    )
    first, second = certificate.problems
    assert first.startswith("journal: 2 messages differ in Redis: 110 ")
    assert second == (
        f"archive: 0 entries only in Redis, 0 only in the archive, 1 differ: {trade_id(110)}"
    )


def test_fetched_trade_equals_the_one_received_later(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    fetched = trades([102])[trade_id(102)] | {
        "source": "rest", "buyer_order_id": "", "seller_order_id": "", "event_us": "",
    }  # fmt: skip
    write_stream(client, trades([101]) | {trade_id(102): fetched} | trades([103]))
    late = frame(103).received_us + 10_000
    records = [frame(101), frame(103), history(102, late - 20_000), frame(102, late_us=0)]
    certificate = audit(redis_url, write_journal(tmp_path / "journal", records))
    assert certificate.problems == []
    assert certificate.journal is not None
    assert (certificate.journal.fetched, certificate.journal.same) == (1, 3)


def test_only_the_time_that_both_have_is_compared(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    """Redis was trimmed, and the archive has not written its newest rows to a file yet."""
    write_stream(client, {one: WHOLE[one] for one in list(WHOLE)[2:]})
    archive = archive_of(tmp_path, {one: WHOLE[one] for one in list(WHOLE)[:6]})
    certificate = audit(redis_url, journal_of(tmp_path, range(101, 130)), archive)
    assert certificate.problems == []
    assert certificate.archive is not None
    assert certificate.archive.compared == 4


def test_recovered_gap_is_reported_with_its_source(client: "redis.Redis", redis_url: str) -> None:
    write_stream(client, trades([101, 102, 105]))
    record = {
        "type": "gap_record", "symbol": "SOL_USDC", "stream": STREAM, "from": "103", "to": "104",
        "from_us": "", "to_us": "", "cause": "skipped", "recovered": "true",
        "how": "no such trades",
    }  # fmt: skip
    write_stream(client, {"1788367440000-0": record}, "bridge:gaps")
    certificate = audit(redis_url)
    assert certificate.problems == []
    (one,) = certificate.recovered
    assert (one.cause, one.how, one.is_recovered, one.numbers) == (
        "skipped", "no such trades", True, 2,
    )  # fmt: skip


CERTIFICATE = """\
trade.SOL_USDC
redis     redis://HERE
          8 entries from 1788367440000-1010 to 1788367440900-1100: 7 trade, 1 gap
          numbers 101 to 110: broken at 1 place, but for 1 gap
          1 gap: connection lost
          content 40725531400cc65be96607fd52db6da44e565d707bb7e3ed991a6cb963760cdc
archive   archive, up to 1788367440900-1100
          9 entries from 1788367440000-1010 to 1788367440900-1100: 8 trade, 1 gap
          numbers 101 to 110: dense, but for 1 gap
          1 gap: connection lost
          content bb387be7ca9aa1e16bad3a2ea75eb8b4bb36df99e59133a08a8c98052ae754ef
gap log   1 gap: connection lost, 2 numbers, missing
journal   journal
          20 messages of this range, 7 of them further copies; 7 are in Redis as they were received
          4 are inside a gap: received, then given up
compared  archive and Redis: 8 entries are the same in both
WRONG     redis: numbers are missing without a gap at 1 place: 103
WRONG     journal: 2 messages were received, are not in Redis, and no gap has them: 103 \
(00000000000000000000.journal at 998), 103 (00000000000000000000.journal at 1209)
WRONG     archive: 0 entries only in Redis, 1 only in the archive, 0 differ: 1788367440200-1030
"""
GAP_RECORD = {
    "type": "gap_record", "symbol": "SOL_USDC", "stream": STREAM, "from": "105", "to": "106",
    "from_us": "", "to_us": "", "cause": "connection lost", "recovered": "false", "how": "",
}  # fmt: skip


def test_the_certificate_is_shown_as_text_as_json_and_of_a_part(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    write_stream(client, {one: WHOLE[one] for one in WHOLE if one != trade_id(103)})
    write_stream(client, {"1788367440700-0": GAP_RECORD}, "bridge:gaps")
    journal_of(tmp_path, range(101, 111))
    archive_of(tmp_path, WHOLE)
    sources = ("audit", STREAM, "--journal", "journal", "--archive", "archive")

    words = run_bridge(tmp_path, redis_url, *sources, COLUMNS="300")
    plain = run_bridge(tmp_path, redis_url, *sources, "--json")
    part = run_bridge(tmp_path, redis_url, *sources, "--from", trade_id(104), "--json")

    assert words.stdout.replace(redis_url, "redis://HERE") == CERTIFICATE
    document, of_part = json.loads(plain.stdout), json.loads(part.stdout)
    assert [done.returncode for done in (words, plain, part)] == [1, 1, 0]
    assert (document["whole"], len(document["problems"])) == (False, 3)
    [redis_, archive] = document["sources"]
    assert redis_["tally"]["first_breaks"] == [
        {"entry_id": trade_id(104), "run": {"first": 103, "last": 103}}
    ]
    assert archive["tally"]["gaps"] == [
        {
            "entry_id": "1788367440600-1061", "cause": "connection lost",
            "run": {"first": 105, "last": 106}, "span_us": None,
        }
    ]  # fmt: skip
    assert (document["recovered"][0]["numbers"], document["journal"]["missing"]) == (2, 2)
    assert (of_part["whole"], of_part["archive"]["compared"]) == (True, 6)
    assert [one["tally"]["first_id"] for one in of_part["sources"]] == [trade_id(104)] * 2


def test_audit_without_data_certifies_nothing(client: "redis.Redis", redis_url: str) -> None:
    assert audit(redis_url).problems == [
        "there is no entry in this range: nothing can be certified"
    ]


def test_audit_command_prints_the_problems_and_exits_1(
    client: "redis.Redis", redis_url: str, tmp_path: Path
) -> None:
    write_stream(client, trades([101, 102, 105]))
    done = run_bridge(tmp_path, redis_url, "audit", STREAM)
    assert done.returncode == 1
    assert "WRONG" in done.stdout
    assert "without a gap at 1 place" in done.stdout
    part = run_bridge(tmp_path, redis_url, "audit", STREAM, "--to", trade_id(105), "--json")
    document = json.loads(part.stdout)
    assert (part.returncode, document["whole"], document["sources"][0]["tally"]["messages"]) == (
        0,
        True,
        2,
    )
