"""Faults on frames: the frames that an independent client receives, and the ledger's records."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import plain_http
from tests.support.eventually import eventually_async
from tests.support.simulator_client import Listener, listening
from tests.support.simulator_process import RunningSimulator, running_simulator_sync

TRADES = "trade.SOL_USDC"
DEPTH = "depth.SOL_USDC"


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    ledger = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    arguments = ("--rate", "300", "--seed", "11", "--market", "SOL_USDC")
    with running_simulator_sync(*arguments, ledger=ledger) as running:
        yield running


@pytest.fixture
async def listener(sim: RunningSimulator) -> AsyncIterator[Listener]:
    async with listening(sim.ws_url, max_size=None) as opened:
        yield opened
    plain_http.delete(f"{sim.rest_url}/simulator/faults")


async def received_past(listener: Listener, number: int) -> list[int]:
    """All update IDs received, up to the first one above `number`."""
    await listener.until(lambda frame: frame["data"].get("u", 0) > number)
    frames = [json.loads(text) for text in listener.raw]
    return [frame["data"]["u"] for frame in frames if frame["stream"] == DEPTH]


async def touched(sim: RunningSimulator, number: int, frames: int) -> dict[str, Any]:
    """What a fault has done to its stream, once it has affected `frames` frames."""
    await eventually_async(lambda: sim.fault_state(number)["ended_us"], "the fault is over")
    (stream,) = sim.fault_state(number)["streams"].values()
    assert stream["frames"] == frames
    assert isinstance(stream, dict)
    return stream


def missing_ids(ids: list[int]) -> list[int]:
    return sorted(set(range(ids[0], ids[-1] + 1)) - set(ids))


async def test_dropped_frames_do_not_arrive_and_are_named(
    sim: RunningSimulator, listener: Listener
) -> None:
    await listener.subscribe(DEPTH)
    await listener.next()
    lost = await touched(sim, sim.fault("drop", stream=DEPTH, count=3), 3)
    assert missing_ids(await received_past(listener, lost["last"])) == lost["ids"]
    assert (lost["frames"], lost["last"] - lost["first"]) == (3, 2)


async def test_drop_on_one_connection_leaves_the_other_complete(
    sim: RunningSimulator, listener: Listener
) -> None:
    async with listening(sim.ws_url) as other:
        await listener.subscribe(DEPTH)
        await listener.next()
        await other.subscribe(DEPTH)
        await other.next()
        first = sim.connections()[0]["number"]
        lost = await touched(sim, sim.fault("drop", stream=DEPTH, connection=first, count=5), 5)
        assert missing_ids(await received_past(listener, lost["last"])) == lost["ids"]
        assert missing_ids(await received_past(other, lost["last"])) == []


async def test_by_chance_only_a_share_is_touched(sim: RunningSimulator, listener: Listener) -> None:
    await listener.subscribe(DEPTH)
    await listener.next()
    lost = await touched(sim, sim.fault("drop", stream=DEPTH, share=0.3, count=20), 20)
    received = await received_past(listener, lost["last"])
    assert missing_ids(received) == lost["ids"]
    assert lost["last"] - lost["first"] > 25


async def test_hidden_trades_are_in_history_and_skipped_ones_are_not(
    sim: RunningSimulator, listener: Listener
) -> None:
    await listener.subscribe(TRADES)
    ids = [(await listener.until_stream(TRADES))["t"]]
    hidden = (await touched(sim, sim.fault("hide", stream=TRADES, count=2), 2))["ids"]
    while ids[-1] <= hidden[-1]:
        ids.append((await listener.until_stream(TRADES))["t"])
    sim.fault("skip", stream=TRADES, ids=4)
    while len(missing_ids(ids)) == len(hidden):
        ids.append((await listener.until_stream(TRADES))["t"])
    skipped = sorted(set(missing_ids(ids)) - set(hidden))
    async with plain_http.client(sim.rest_url) as client:
        rows = (await client.get("/api/v1/trades/history?symbol=SOL_USDC&limit=1000")).json()
    known = {row["id"] for row in rows}
    assert (len(hidden), len(skipped)) == (2, 4)
    assert known.issuperset(hidden)
    assert known.isdisjoint(skipped)


async def test_duplicates_arrive_twice(sim: RunningSimulator, listener: Listener) -> None:
    await listener.subscribe(DEPTH)
    await listener.next()
    doubled = await touched(sim, sim.fault("duplicate", stream=DEPTH, count=2), 2)
    received = await received_past(listener, doubled["last"])
    assert missing_ids(received) == []
    assert [u for u in received if received.count(u) == 2] == sorted(doubled["ids"] * 2)


async def test_fault_reordered_frame_arrives_after_the_next_ones(
    sim: RunningSimulator, listener: Listener
) -> None:
    await listener.subscribe(DEPTH)
    await listener.next()
    number = sim.fault("reorder", stream=DEPTH, by=2, count=1, within_s=30)
    late = (await touched(sim, number, 1))["first"]
    received = await received_past(listener, late + 3)
    place = received.index(late)
    assert received[place - 3 : place + 2] == [late - 1, late + 1, late + 2, late, late + 3]


async def test_fault_delayed_frame_arrives_late(sim: RunningSimulator, listener: Listener) -> None:
    await listener.subscribe(DEPTH)
    await listener.next()
    number = sim.fault("delay", stream=DEPTH, delay_s=0.1, count=1)
    late = (await touched(sim, number, 1))["first"]
    await listener.until(lambda frame: frame["data"].get("u") == late)
    received = await received_past(listener, late)
    assert missing_ids(sorted(received)) == []
    assert received[received.index(late) - 1] > late + 1


@pytest.mark.parametrize(
    ("form", "is_it"),
    [
        ("garbage", lambda text: text.startswith(b"\x1b[31m <<")),
        ("truncated", lambda text: text.startswith(b'{"data":{"E"') and b"}" not in text[-1:]),
        ("deep", lambda text: text.startswith(b'{"data":[[[[')),
        ("giant", lambda text: len(text) > 2**21 and b'"stream":"depth.SOL_USDC"' in text),
        ("invalid_utf8", lambda text: b"\xff\xfe" in text),
    ],
)
async def test_something_else_arrives_instead_of_a_corrupt_frame(
    form: str, is_it: Callable[[bytes], bool], sim: RunningSimulator, listener: Listener
) -> None:
    await listener.subscribe(DEPTH)
    sim.fault("corrupt", stream=DEPTH, form=form, count=1)
    async with asyncio.timeout(20):
        while not is_it(await listener.socket.recv(decode=False)):
            pass
        assert not is_it(await listener.socket.recv(decode=False))


async def test_fault_binary_frame_has_the_whole_message(
    sim: RunningSimulator, listener: Listener
) -> None:
    await listener.subscribe(DEPTH)
    sim.fault("corrupt", stream=DEPTH, form="binary", count=1)
    async with asyncio.timeout(20):
        while not isinstance(frame := await listener.socket.recv(), bytes):
            pass
    assert json.loads(frame)["stream"] == DEPTH


@pytest.mark.parametrize("then", ["lost", "late"])
async def test_a_stalled_stream_is_silent_while_the_others_continue(
    then: str, sim: RunningSimulator, listener: Listener
) -> None:
    await listener.subscribe(DEPTH, TRADES)
    await listener.next()
    number = sim.fault("stall", stream=DEPTH, then=then)
    began_us = sim.fault_state(number)["began_us"]
    await listener.until(lambda frame: frame["data"]["T"] > began_us + 300_000)
    during = [json.loads(text) for text in listener.raw]
    streams = {frame["stream"] for frame in during if frame["data"]["T"] > began_us + 5_000}
    kept = sim.end_fault(number)["streams"][DEPTH]
    received = await received_past(listener, kept["last"])
    assert streams == {TRADES}
    assert missing_ids(received) == (kept["ids"] if then == "lost" else [])


async def test_ledger_names_withheld_frames_with_connection_and_fault(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    with running_simulator_sync("--rate", "300", "--market", "SOL_USDC", ledger=ledger) as sim:
        async with listening(sim.ws_url) as listener:
            await listener.subscribe(DEPTH)
            await listener.next()
            numbers = [
                sim.fault("drop", stream=DEPTH, count=2),
                sim.fault("duplicate", stream=DEPTH, count=2),
                sim.fault("delay", stream=DEPTH, delay_s=0.05, count=2),
            ]
            late = (await touched(sim, numbers[2], 2))["last"]
            await listener.until(lambda frame: frame["data"].get("u") == late)
            received = await received_past(listener, late + 10)
    lines = [json.loads(line) for line in ledger.read_bytes().splitlines()]
    known = [line for line in lines if "by" in line and "frame" in line]
    dropped, doubled, delayed = ([x for x in known if x["by"] == [n]] for n in numbers)
    assert [(x["to"], x["kept_from"], x["later"]) for x in dropped] == [([], [1], [])] * 2
    assert [(x["to"], x["sent"]) for x in doubled] == [([1, 1], 2)] * 2
    assert [(x["to"], x["later"]) for x in delayed] == [([], [1])] * 2
    ids = {x["frame"]["data"]["u"] for x in dropped}
    assert set(missing_ids(sorted(received))) == ids
    assert [x["late"]["id"] for x in lines if "late" in x] == [
        x["frame"]["data"]["u"] for x in delayed
    ]
    states = [(x["fault"]["number"], x["state"]) for x in lines if "fault" in x]
    assert [state for number, state in states if number == numbers[0]] == ["began", "ended"]
