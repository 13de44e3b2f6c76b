"""`consumers.read`: a range of a stream in a script, in an event loop and in a notebook."""

import itertools
import re
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge.contract.events import Event, Gap, Trade
from bridge.errors import ConfigError, Transient
from consumers import NotUnderstood, TrimmedAway, read
from consumers.kit.reading.range_scan import FIRST, LAST, PAGE_ENTRIES
from consumers.kit.reading.read import Reading
from consumers.kit.redis.keys import Keys
from tests.support.command import ROOT
from tests.support.consumer_entries import START_US, Fields, entry_id, gap, trade
from tests.support.redis_server import free_port, running_redis

TRADES = "trade.SOL_USDC"


@pytest.fixture
def client(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[redis.Redis]:
    """Redis at the address that `read` takes from the environment."""
    monkeypatch.setenv("BRIDGE_REDIS__URL", redis_url)
    monkeypatch.chdir(tmp_path)
    one = redis.Redis.from_url(redis_url, decode_responses=True, protocol=2)
    one.hset("bridge:streams", TRADES, "{}")
    yield one
    one.close()


def seconds_of_trades(count: int, first: int = 1) -> dict[str, Fields]:
    """One trade per second, by entry ID."""
    found = {}
    for n in range(first, first + count):
        at_us = START_US + n * 1_000_000
        found[entry_id(at_us, n)] = trade(n, at_us, price=f"{n}.50")
    return found


def add(client: redis.Redis, entries: dict[str, Fields]) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for at, fields in entries.items():
            pipeline.xadd(TRADES, fields, id=at)  # type: ignore[arg-type]
        pipeline.execute()


def numbers(start: str | None = None, end: str | None = None) -> list[int]:
    return [one.event.trade_id for one in read(TRADES, start, end, of=Trade)]


def test_read_gives_all_of_a_stream_over_many_pages_in_order(client: redis.Redis) -> None:
    count = 2 * PAGE_ENTRIES + 7
    add(client, seconds_of_trades(count))
    found = list(read(TRADES))
    assert [one.entry_id for one in found] == list(seconds_of_trades(count))
    assert found[0].stream == TRADES
    assert isinstance(found[0].event, Trade)
    assert found[0].event.price == "1.50"


def test_read_continues_after_a_page_that_is_exactly_full(client: redis.Redis) -> None:
    add(client, seconds_of_trades(2 * PAGE_ENTRIES))
    assert len(list(read(TRADES))) == 2 * PAGE_ENTRIES


async def test_read_takes_full_pages_from_a_replica_and_the_rest_from_the_primary(
    client: redis.Redis, redis_url: str
) -> None:
    entries = seconds_of_trades(3 * PAGE_ENTRIES)
    add(client, entries)
    with running_redis() as lagging, lagging.client() as other:
        add(other, dict(itertools.islice(entries.items(), PAGE_ENTRIES + 100)))
        reading: Reading[Event] = Reading(
            TRADES, FIRST, LAST, Event, redis_url, Keys(), replica=lagging.url
        )
        assert [one.entry_id for one in reading] == list(entries)
        assert [one.entry_id async for one in reading] == list(entries)
        requested = other.info("commandstats")["cmdstat_xrange"]["calls"]
    assert requested >= 4  # two pages for each of two reads
    # the replica is stopped: only the primary is read
    assert [one.entry_id for one in reading] == list(entries)


def test_read_from_a_time_leaves_out_the_end_time(client: redis.Redis) -> None:
    add(client, seconds_of_trades(20))
    assert numbers("2026-09-02T16:44:05", "2026-09-02T16:44:08") == [5, 6, 7]


def test_read_from_an_id_leaves_out_the_end_id(client: redis.Redis) -> None:
    add(client, seconds_of_trades(20))
    ids = list(seconds_of_trades(20))
    assert numbers(ids[3], ids[5]) == [4, 5]


def test_read_up_to_the_beginning_gives_nothing(client: redis.Redis) -> None:
    add(client, seconds_of_trades(3))
    assert numbers("beginning", "beginning") == numbers(None, "0-0") == []


async def test_read_with_async_for_gives_the_same(client: redis.Redis) -> None:
    add(client, seconds_of_trades(PAGE_ENTRIES + 3))
    found = [one.event.trade_id async for one in read(TRADES, of=Trade)]
    assert found == list(range(1, PAGE_ENTRIES + 4))


async def test_plain_for_works_where_a_loop_runs_as_in_a_notebook(client: redis.Redis) -> None:
    add(client, seconds_of_trades(3))
    assert numbers() == [1, 2, 3]
    assert len(read(TRADES).to_pandas()) == 3


def test_one_class_of_events_and_the_frames(client: redis.Redis) -> None:
    add(client, {entry_id(START_US, 0, 1): gap(0)} | seconds_of_trades(3))
    assert [one.event.cause for one in read(TRADES, of=Gap)] == ["start"]
    pandas = read(TRADES, of=Trade).to_pandas(decimals="float")
    assert pandas["price"].sum() == 7.5
    assert "cause" not in pandas.columns
    polars = read(TRADES).to_polars()
    assert polars["type"].to_list() == ["gap", "trade", "trade", "trade"]
    assert polars["price"].to_list() == [None, "1.50", "2.50", "3.50"]


def test_reading_iterated_again_includes_later_entries(client: redis.Redis) -> None:
    add(client, seconds_of_trades(2))
    reading = read(TRADES)
    assert len(list(reading)) == 2
    add(client, seconds_of_trades(1, first=3))
    assert len(list(reading)) == 3


def test_read_of_a_growing_stream_ends(client: redis.Redis) -> None:
    add(client, seconds_of_trades(PAGE_ENTRIES))
    found = []
    for one in read(TRADES, of=Trade):
        found.append(one.event.trade_id)
        add(client, seconds_of_trades(1, first=PAGE_ENTRIES + len(found)))
    assert found == list(range(1, PAGE_ENTRIES + 1))


def test_read_needs_no_more_memory_for_a_longer_range(client: redis.Redis) -> None:
    def peak(entries: int) -> int:
        tracemalloc.start()
        try:
            assert sum(1 for _ in read(TRADES, None, str(START_US // 1000 + entries * 1000 + 1)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    add(client, seconds_of_trades(8 * PAGE_ENTRIES))
    peak(PAGE_ENTRIES)  # fill caches before the measurement
    assert peak(8 * PAGE_ENTRIES) < 2 * peak(2 * PAGE_ENTRIES)


def test_read_of_an_unknown_stream_is_an_error_with_the_nearest_name(client: redis.Redis) -> None:
    with pytest.raises(ConfigError, match=r"there is no stream trade\.SOL_USD; did you mean trade"):
        list(read("trade.SOL_USD"))
    assert list(read(TRADES)) == []  # registered, but without entries


def test_read_of_a_key_that_is_no_stream_is_an_error(client: redis.Redis) -> None:
    with pytest.raises(ConfigError, match="WRONGTYPE"):
        list(read("bridge:streams"))


def test_read_warns_of_entries_that_are_not_kept(client: redis.Redis) -> None:
    add(client, seconds_of_trades(10))
    client.xtrim(TRADES, maxlen=4, approximate=False)
    with pytest.warns(TrimmedAway, match="begins at 1788367447000-70"):
        assert numbers("2026-09-02T16:44:05") == [7, 8, 9, 10]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numbers("2026-09-02T16:44:08") == [8, 9, 10]
        assert numbers() == [7, 8, 9, 10]


def test_a_stream_that_was_never_trimmed_may_begin_later_than_requested(
    client: redis.Redis,
) -> None:
    add(client, seconds_of_trades(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numbers("2026-09-01") == [1, 2]


@pytest.mark.parametrize("how", ["trimmed", "deleted"])
def test_read_warns_of_entries_that_are_trimmed_while_it_reads(
    client: redis.Redis, how: str
) -> None:
    add(client, seconds_of_trades(3 * PAGE_ENTRIES))
    scan = iter(read(TRADES, of=Trade))
    next(scan)
    if how == "trimmed":
        client.xtrim(TRADES, maxlen=10, approximate=False)
    else:
        client.delete(TRADES)
    with pytest.warns(TrimmedAway, match=how):
        rest = list(scan)
    assert len(rest) == PAGE_ENTRIES - 1 + (10 if how == "trimmed" else 0)


def test_read_skips_an_entry_outside_the_contract_with_a_warning(client: redis.Redis) -> None:
    add(client, seconds_of_trades(1))
    client.xadd(TRADES, {"hello": "world"}, id="1888368290062-0")
    with pytest.warns(NotUnderstood, match="1888368290062-0 was passed over: entry of unknown"):
        assert numbers() == [1]


def test_the_research_of_the_documents_runs(client: redis.Redis) -> None:
    page = (ROOT / "docs" / "samples.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if "turnover" in block]
    seconds, micros = client.time()  # type: ignore[misc]
    now_us: Any = seconds * 1_000_000 + micros
    for n in range(1, 4):
        at_us = now_us - 10_000_000 + n
        client.xadd(TRADES, trade(n, at_us, "2.5", "4"), id=entry_id(at_us, n))  # type: ignore[arg-type]
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["turnover"] == 30.0
    assert names["frame"]["price"].tolist() == [2.5, 2.5, 2.5]


def test_read_accepts_an_age_as_text(client: redis.Redis) -> None:
    seconds, _ = client.time()  # type: ignore[misc]
    for n, ago_s in ((1, 7300), (2, 7100), (3, 30)):
        at_us: Any = (seconds - ago_s) * 1_000_000
        client.xadd(TRADES, trade(n, at_us), id=entry_id(at_us, n))  # type: ignore[arg-type]
    assert numbers("2h") == [2, 3]
    assert numbers("2h", "1h") == [2]
    assert numbers(None, "2h") == [1]


def test_read_takes_another_address_and_prefix(client: redis.Redis, redis_url: str) -> None:
    client.xadd(f"replay:{TRADES}", trade(5, START_US), id="1-50")  # type: ignore[arg-type]
    [one] = read(TRADES, url=redis_url, key_prefix="replay:")
    assert (one.stream, one.entry_id) == (TRADES, "1-50")


def test_read_fails_without_the_password_when_redis_is_unavailable(client: redis.Redis) -> None:
    url = f"redis://:hidden@127.0.0.1:{free_port()}/0"
    with pytest.raises(Transient, match=r"redis://:\*\*\*@127") as caught:
        list(read(TRADES, url=url))
    assert "hidden" not in str(caught.value)
