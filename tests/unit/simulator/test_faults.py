"""Faults in virtual time: their effect on frames, and the same effect for the same seed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.client import Binary, Client
from simulator.engine import Engine
from simulator.faults import reading
from simulator.faults.director import Director
from simulator.faults.reading import BadCommand
from simulator.faults.road import Road
from simulator.faults.running import Running
from simulator.hub import Hub
from simulator.ledger import Ledger
from simulator.player import play_next
from simulator.session import Topic
from tests.support.random_faults import random_script
from tests.support.simulator_runs import START_US, plan

STREAM = "depth.SOL_USDC"


def frame(number: int) -> bytes:
    return b'{"data":{"E":%d,"u":%d},"stream":"depth.SOL_USDC"}' % (number, number)


def client(number: int = 1) -> Client:
    made = Client(10_000, 10_000_000)
    made.number = number
    return made


def taken(client: Client) -> list[bytes]:
    found = []
    while (each := client.pop()) is not None:
        found.append(each)
    return found


def running(**settings: Any) -> Running:
    command = reading.command({"stream": STREAM, **settings})
    return Running(1, command, random.Random(1), 0, None)


def sent(road: Road, count: int, *listeners: Client) -> None:
    for number in range(count):
        road.until(number * 1000)
        road.carry(STREAM, frame(number), listeners)


@given(
    settings=st.sampled_from(
        [
            {"fault": "delay", "delay_s": 0.0035, "share": 0.3},
            {"fault": "reorder", "by": 3, "share": 0.3},
            {"fault": "reorder", "by": 1000, "within_s": 0.002},
            {"fault": "stall", "then": "late"},
        ]
    ),
    count=st.integers(1, 60),
    ends_after=st.integers(0, 60),
)
def test_delayed_frames_arrive_once(settings: dict[str, Any], count: int, ends_after: int) -> None:
    road, listener, fault = Road(), client(), running(**settings)
    road.faults = [fault]
    sent(road, min(count, ends_after), listener)
    fault.ended_us = 1
    road.faults = []
    road.ended(fault)
    for number in range(min(count, ends_after), count):
        road.carry(STREAM, frame(number), [listener])
    road.until(10**9)
    assert sorted(taken(listener)) == sorted(frame(number) for number in range(count))


@given(st.integers(0, 40), st.integers(1, 10))
def test_count_limits_the_number_of_dropped_frames(count: int, limit: int) -> None:
    road, listener, fault = Road(), client(), running(fault="drop", count=limit)
    road.faults = [fault]
    sent(road, count, listener)
    assert taken(listener) == [frame(number) for number in range(limit, count)]
    assert fault.touched == min(count, limit)


def test_hide_affects_all_connections_alike_and_drop_each_separately() -> None:
    first, second = client(1), client(2)
    road = Road()
    road.faults = [running(fault="hide", share=0.5)]
    sent(road, 200, first, second)
    assert taken(first) == (both := taken(second))
    assert 50 < len(both) < 150
    road.faults = [running(fault="drop", share=0.5)]
    sent(road, 200, first, second)
    assert taken(first) != taken(second)


def test_only_the_fault_that_began_first_affects_a_frame() -> None:
    road, listener = Road(), client()
    doubling, losing = running(fault="duplicate", count=1), running(fault="drop", count=1)
    road.faults = [doubling, losing]
    sent(road, 3, listener)
    assert taken(listener) == [frame(0), frame(0), frame(2)]


def test_a_frame_is_sent_only_to_connections_without_the_fault() -> None:
    first, second = client(1), client(2)
    road = Road()
    road.faults = [running(fault="drop", connection=2)]
    way = road.carry(STREAM, frame(1), [second, first])
    assert (way.to, way.kept_from, way.by) == ([1], [2], [1])


def test_nothing_is_kept_for_a_disconnected_client() -> None:
    road, listener = Road(), client()
    road.faults = [running(fault="delay", delay_s=1)]
    sent(road, 3, listener)
    listener.has_ended = True
    road.until(10**9)
    assert taken(listener) == []


def test_a_frame_corrupted_to_binary_is_sent_as_binary() -> None:
    road, listener = Road(), client()
    road.faults = [running(fault="corrupt", form="binary")]
    sent(road, 1, listener)
    (arrived,) = taken(listener)
    assert isinstance(arrived, Binary)
    assert arrived == frame(0)


# Scripts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"fault":"close"}', 'line 1 of f.jsonl: needs "at_s", the seconds from the start'),
        ('\n# so\n{"at_s":-1,"fault":"close"}', 'line 3 of f.jsonl: needs "at_s"'),
        ('{"at_s":true,"fault":"close"}', 'needs "at_s"'),
        ('{"at_s":1,"fault":"clse"}', "line 1 of f.jsonl: there is no fault 'clse'; did you mean"),
        ('{"at_s":1,"fault":"burst","rate":0}', '"rate" is 0: input should be greater than 0'),
        ('{"at_s":1,"fault":"skip","stream":"ticker.SOL_USDC"}', '"stream" is'),
        ('{"at_s":1,"fault":"drop","stream":"account.orders"}', "after account. comes one of"),
        ("[]", "line 1 of f.jsonl: a command is an object"),
        ("{", "line 1 of f.jsonl: this is not JSON"),
    ],
)
def test_a_wrong_line_of_a_script_is_named(text: str, expected: str) -> None:
    with pytest.raises(BadCommand) as error:
        reading.script(text, "f.jsonl")
    assert expected in str(error.value)


def played(folder: Path, seed: int, *, market_seed: int = 7, asked_every_us: int) -> list[bytes]:
    """The ledger's lines for 5 s with random faults and one client."""
    path = folder / f"{seed}-{asked_every_us}.jsonl"
    engine = Engine(plan(market_seed, rate=400, symbols=("SOL_USDC", "BTC_USDC")))
    ledger = Ledger(path, seed=seed, start_us=START_US, markets=list(engine.markets))
    hub = Hub(lambda: 0, ledger)
    script = reading.script(random_script(seed, 4.0, ("SOL_USDC", "BTC_USDC")), "random")
    director = Director(engine, hub, script)
    listener = client()
    hub.enter(listener)
    for stream in ("trade.SOL_USDC", "depth.SOL_USDC", "trade.BTC_USDC", "depth.BTC_USDC"):
        hub.subscribe(listener, Topic(stream))
    for after_us in range(asked_every_us, 5_000_001, asked_every_us):
        _play_until(engine, hub, director, START_US + after_us)
    ledger.close()
    return path.read_bytes().splitlines()


def _play_until(engine: Engine, hub: Hub, director: Director, until_us: int) -> None:
    while play_next(engine, hub, director, until_us):
        pass


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_same_seed_does_the_same_to_the_same_frames(seed: int, tmp_path: Path) -> None:
    slow = played(tmp_path, seed, asked_every_us=250_000)
    fast = played(tmp_path, seed, asked_every_us=1_000)
    assert slow == fast
    assert sum(b'"by":[' in line and b'"frame"' in line for line in slow) > 0
    assert slow != played(tmp_path, seed + 100, asked_every_us=250_000)


def test_faults_leave_the_market_unchanged(tmp_path: Path) -> None:
    """The same seed makes the same trades with every fault of the network."""
    found = []
    for fault in ("drop", "hide", "duplicate"):
        engine = Engine(plan(5, rate=300, symbols=("SOL_USDC",)))
        hub = Hub(lambda: 0)
        director = Director(engine, hub)
        listener = client()
        hub.enter(listener)
        hub.subscribe(listener, Topic(STREAM))
        director.begin(reading.command({"fault": fault, "stream": "*", "share": 0.5}))
        _play_until(engine, hub, director, START_US + 2_000_000)
        found.append((engine.markets["SOL_USDC"].update_id, engine.markets["SOL_USDC"].trade_id))
    assert len(set(found)) == 1


def test_a_skip_every_second_ends_with_its_time() -> None:
    engine = Engine(plan(5, rate=300, symbols=("SOL_USDC",)))
    plain = Engine(plan(5, rate=300, symbols=("SOL_USDC",)))
    director = Director(engine, hub := Hub(lambda: 0))
    settings = {"stream": "trade.SOL_USDC", "ids": 10, "every_s": 1, "for_s": 2.5}
    director.begin(reading.command({"fault": "skip", **settings}))
    _play_until(engine, hub, director, START_US + 5_000_000)
    _play_until(plain, hub, Director(plain, hub), START_US + 5_000_000)
    skipped = engine.markets["SOL_USDC"].trade_id - plain.markets["SOL_USDC"].trade_id
    assert skipped == 30  # 10 IDs at 0, 1 and 2 s
