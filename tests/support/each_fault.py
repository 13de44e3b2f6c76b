"""Each fault of the exchange in turn, with a bridge: the fate of the affected frames, the causes in
gaps, and no effect on other streams.

Each check prints the time to recovery by fault; docs/operations.md has the times for the shipped
settings (here they are shorter). `tests/chaos` runs all faults, `tests/long/test_faults.py` one of
each kind.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.bridge_run import entries
from tests.support.eventually import eventually_async
from tests.support.orders import order
from tests.support.outage_run import NAMES, Stage, stage
from tests.support.redis_server import running_redis
from tests.support.truth import whole_lines

RATE = 200
LATELY = 5_000
HIT, QUIET = "SOL_USDC", ("BTC_USDC", "SOL_USDC_PERP")
TRADE, DEPTH, TICKER = f"trade.{HIT}", f"depth.{HIT}", f"ticker.{HIT}"
BY_CONTENT = tuple(name for name in NAMES if not name.startswith(("trade.", "depth.")))

Command = dict[str, Any]
Stored = list[tuple[str, dict[str, str]]]

# Faults of single frames, and the resulting fate of a trade and of a book change.
THERE, FETCHED, MARKED = "there", "fetched from history", "in a gap"
FRAMES: Mapping[str, tuple[Command, str, str]] = {
    "dropped": ({"fault": "drop", "count": 3}, FETCHED, MARKED),
    "hidden from all clients": ({"fault": "hide", "count": 3}, FETCHED, MARKED),
    "duplicated": ({"fault": "duplicate", "count": 3, "times": 2}, THERE, THERE),
    "late": ({"fault": "delay", "count": 3, "delay_s": 0.3}, THERE, THERE),
    "too late": ({"fault": "delay", "count": 1, "delay_s": 4.0}, FETCHED, MARKED),
    "out of order": ({"fault": "reorder", "count": 3, "by": 2}, THERE, THERE),
    "stalled and lost": ({"fault": "stall", "for_s": 0.5, "then": "lost"}, FETCHED, MARKED),
    "stalled and late": ({"fault": "stall", "for_s": 0.5, "then": "late"}, THERE, THERE),
    **{
        form: ({"fault": "corrupt", "form": form, "count": 1}, FETCHED, MARKED)
        for form in ("garbage", "invalid_utf8", "truncated", "deep")
    },
    # These frames can be read: the same text in a binary frame, or with a huge field added.
    **{
        form: ({"fault": "corrupt", "form": form, "count": 1}, THERE, THERE)
        for form in ("binary", "giant")
    },
}

LOST, SILENT = frozenset({"connection lost"}), frozenset({"stale"})
SKIPPED, NOTHING = frozenset({"skipped"}), frozenset[str]()
# Faults of a connection, and the possible causes of gaps in streams without numbers: several where
# the order of detection decides.
CONNECTIONS: Mapping[str, tuple[Sequence[Command], frozenset[str]]] = {
    "Close, going away": ([{"fault": "close", "code": 1001}], LOST),
    "ended without Close": ([{"fault": "close", "how": "eof"}], LOST),
    "reset": ([{"fault": "close", "how": "reset"}], LOST),
    "half open": ([{"fault": "close", "how": "silent"}], LOST | SILENT),
    "an error frame": ([{"fault": "error", "code": 4001}], NOTHING),
    "no pongs": ([{"fault": "no_pongs", "connection": "open", "for_s": 6.0}], NOTHING),
    "slow": (
        [{"fault": "slow_network", "connection": "open", "bytes_per_s": 50_000, "for_s": 1.0}],
        NOTHING,
    ),
    "stands still, then goes on": (
        [{"fault": "stall", "connection": "open", "then": "late", "for_s": 2.0}],
        NOTHING,
    ),
    "HTTP 503 at the handshake": (
        [{"fault": "refuse", "status": 503, "for_s": 1.5}, {"fault": "close"}],
        LOST,
    ),
    "HTTP 429 at the handshake": (
        [{"fault": "refuse", "status": 429, "retry_after_s": 2, "count": 1}, {"fault": "close"}],
        LOST,
    ),
    "reset at the handshake": (
        [{"fault": "refuse", "how": "reset", "count": 2}, {"fault": "close", "how": "reset"}],
        LOST,
    ),
    "no answer to the handshake": (
        [{"fault": "refuse", "how": "hang", "count": 1}, {"fault": "close", "how": "eof"}],
        LOST,
    ),
    "a flood": ([{"fault": "burst", "rate": 4000, "for_s": 0.5}], NOTHING),
}

STALE = "stale"  # a reply from a cache; the bridge bypasses caches

# Faults of REST while a trade and a book change are missing: both are recovered, without a gap
# between the trades.
REST: Mapping[str, Command] = {
    "HTTP 503": {"fault": "rest_status", "status": 503, "count": 3},
    "HTTP 429": {"fault": "rest_status", "status": 429, "retry_after_s": 1, "count": 2},
    "HTTP 502 of a proxy": {"fault": "rest_status", "status": 502, "body": "html", "count": 3},
    "an error without a body": {"fault": "rest_status", "status": 500, "body": "empty", "count": 3},
    "slow": {"fault": "rest_slow", "delay_s": 1.0, "for_s": 3.0},
    STALE: {"fault": "rest_stale", "age_s": 60.0, "for_s": 3.0},
    **{
        f"200, and {form}": {"fault": "rest_broken", "form": form, "count": 3}
        for form in ("html", "truncated", "garbage", "empty", "deep", "reset")
    },
    "no answer": {"fault": "rest_broken", "form": "hang", "count": 2},
}


@asynccontextmanager
async def speaking_stage(folder: Path) -> AsyncIterator[Stage]:
    """An exchange, a bridge and a Redis; every public stream has had an entry."""
    with running_redis() as server:
        async with stage(folder, server, seed=3, rate=RATE) as running:
            await all_speak(running)
            yield running


def stored(one: Stage, stream: str) -> Stored:
    return entries(one.client, stream)


def newest(one: Stage, stream: str) -> Stored:
    """The newest entries of a stream, oldest first: enough to cover the last fault."""
    page: Any = one.client.xrevrange(stream, count=LATELY)
    return list(reversed(page))


def causes(stored_entries: Stored) -> set[str]:
    return {fields["cause"] for _, fields in stored_entries if fields["type"] == "gap"} - {"start"}


def touched(one: Stage) -> dict[int, dict[str, list[int]]]:
    """The trade or update IDs that each fault has affected, by stream, by the fault's number."""
    ids_by_fault: dict[int, dict[str, list[int]]] = {}
    for line in whole_lines(one.ledger):
        if '"state":"ended"' in line and "fault" in (note := json.loads(line)):
            fault = note["fault"]
            ids_by_fault[fault["number"]] = {
                stream: each.get("ids", []) for stream, each in fault["streams"].items()
            }
    return ids_by_fault


def fate(stored_entries: Stored, number: int) -> str:
    """The fate of a trade or of a book change."""
    there = [
        fields
        for _, fields in stored_entries
        if fields["type"] in ("trade", "depth")
        and int(fields.get("first_update_id") or fields["trade_id"])
        <= number
        <= int(fields.get("last_update_id") or fields["trade_id"])
    ]
    if len(there) > 1:
        return f"there {len(there)} times"
    if there:
        return FETCHED if there[0].get("source") == "rest" else THERE
    is_marked = any(
        fields["from"] and int(fields["from"]) <= number <= int(fields["to"])
        for _, fields in stored_entries
        if fields["type"] == "gap"
    )
    return MARKED if is_marked else "missing"


async def is_over(one: Stage, number: int) -> None:
    await eventually_async(
        lambda: one.exchange.fault_state(number)["ended_us"], f"fault {number} has ended"
    )


async def touching(one: Stage, stream: str, command: Command) -> int:
    """Order a fault until one has affected a frame of the stream and has ended; its number."""
    while True:
        number = await order(one.exchange, stream=stream, **command)
        await is_over(one, number)
        if one.exchange.fault_state(number)["streams"].get(stream):
            return number


async def is_calm(one: Stage) -> None:
    """Wait until no connection is being replaced: one public and one private one are open."""
    await eventually_async(
        lambda: len(one.exchange.connections()) == 2, "no connection is being replaced", 60
    )


async def says(one: Stage, before: Mapping[str, int], expected: frozenset[str]) -> None:
    """Wait until the ticker's stream has a gap with one of these causes after `before` entries."""
    await eventually_async(
        lambda: causes(stored(one, TICKER)[before[TICKER] :]) & expected,
        f"{TICKER} has a gap with an expected cause",
        60,
    )


async def all_speak(one: Stage, names: Sequence[str] = NAMES) -> None:
    """Wait until each of these public streams has a new entry."""
    public = [name for name in names if not name.startswith("account.")]
    before = {name: one.client.xlen(name) for name in public}
    for name in public:
        await eventually_async(
            lambda name=name: one.client.xlen(name) > before[name], f"{name} has a new entry", 60
        )


async def assert_frames_are_recovered_or_marked(one: Stage, faults: Iterable[str]) -> None:
    """Apply each of these `FRAMES` to a trade and a book change; no other stream is affected."""
    chosen = {what: FRAMES[what] for what in faults}
    ordered: list[tuple[str, str, int]] = []
    for what, (command, *_) in chosen.items():
        ordered += [
            (what, stream, await touching(one, stream, command)) for stream in (TRADE, DEPTH)
        ]
        await all_speak(one, (TRADE, DEPTH))
    verdict = await one.verdict()

    assert verdict.flaws == []
    ids = touched(one)
    outcomes: dict[tuple[str, str], set[str]] = {}
    for what, stream, number in ordered:
        found = stored(one, stream)
        outcomes[what, stream] = {fate(found, each) for each in ids[number][stream]}
    for what, (_, of_trade, of_change) in chosen.items():
        # A delayed trade may have been fetched before it arrived: it is stored once.
        allowed = {of_trade, FETCHED} if of_trade is THERE else {of_trade}
        assert outcomes[what, TRADE] <= allowed, (what, outcomes[what, TRADE])
        assert outcomes[what, DEPTH] == {of_change}, (what, outcomes[what, DEPTH])
    assert causes(stored(one, TRADE)) == NOTHING
    assert causes(stored(one, DEPTH)) == SKIPPED
    for name in NAMES:
        if name not in (TRADE, DEPTH):
            assert causes(stored(one, name)) == NOTHING, name
    rubbish = [what for what, (command, of_trade, _) in chosen.items()
               if command["fault"] == "corrupt" and of_trade is not THERE]  # fmt: skip
    assert len(stored(one, "bridge:quarantine")) == 2 * len(rubbish)


async def assert_connections_recover_and_say_so(one: Stage, faults: Iterable[str]) -> None:
    """Apply each of these `CONNECTIONS`: streams without numbers get a gap with the expected
    cause.
    """
    for what in faults:
        commands, expected = CONNECTIONS[what]
        await is_calm(one)
        before = {name: one.client.xlen(name) for name in NAMES}
        begun_s = time.monotonic()
        numbers = [await order(one.exchange, **command) for command in commands]
        for number in numbers:
            await is_over(one, number)
        if expected:
            await says(one, before, expected)
        await one.is_whole()
        await all_speak(one)
        print(f"{what}: well again after {time.monotonic() - begun_s:.1f} s")

        new = {name: stored(one, name)[before[name] :] for name in NAMES}
        for name in BY_CONTENT:
            assert causes(new[name]) <= expected, (what, name)
            assert bool(causes(new[name])) == bool(expected), (what, name)
        for name in NAMES:
            if name.startswith("trade."):
                assert causes(new[name]) == NOTHING, (what, name)
            elif name.startswith("depth."):
                # A replacement may show missing numbers before the old connection is closed.
                may_skip = SKIPPED if expected >= SILENT else NOTHING
                assert causes(new[name]) <= expected | may_skip, (what, name)
    verdict = await one.verdict()
    assert verdict.flaws == []
    assert "Traceback" not in verdict.log


async def assert_rest_faults_only_delay_recovery(one: Stage, faults: Iterable[str]) -> None:
    """Apply each of these `REST` faults while a trade and a book change are missing."""
    for what in faults:
        command = REST[what]
        begun_s = time.monotonic()
        fault = await order(one.exchange, **command)
        outages = [
            (stream, await order(one.exchange, "hide", stream=stream, count=1))
            for stream in (TRADE, DEPTH)
        ]
        for stream, number in outages:
            await is_over(one, number)
            hidden = one.exchange.fault_state(number)["streams"][stream]["ids"][0]
            expected = FETCHED if stream == TRADE else MARKED
            await eventually_async(
                lambda stream=stream, hidden=hidden, expected=expected: (
                    fate(newest(one, stream), hidden) == expected
                ),
                f"{hidden} of {stream} is {expected} ({what})",
                60,
            )
        await one.is_whole()
        print(f"{what}: well again after {time.monotonic() - begun_s:.1f} s")
        hit = one.exchange.end_fault(fault)["touched"]
        assert (hit == 0) if what == STALE else (hit > 0), what
    verdict = await one.verdict()

    assert verdict.flaws == []
    assert "Traceback" not in verdict.log
    for name in NAMES:
        assert causes(stored(one, name)) == (SKIPPED if name == DEPTH else NOTHING), name
