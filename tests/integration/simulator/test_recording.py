"""Playback of recorded frames, byte by byte, and the ledger's lines."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support import plain_http
from tests.support.simulator_client import listening, signature
from tests.support.simulator_process import running_simulator, running_simulator_sync
from tests.support.simulator_runs import START_US

FRAMES_DIR = os.environ.get("FRAMES_DIR")
real_frames = pytest.mark.skipif(FRAMES_DIR is None, reason="FRAMES_DIR is not set")
RECORDED = [
    '{"data":{"E":1000000,"p":"1.0","s":"SOL_USDC"},"stream":"trade.SOL_USDC"}',
    '{"stream":"account.orderUpdate","data":{"E":1100000,"s":"SOL_USDC"}}',
    '{"id":null,"error":{"code":4002,"message":"Parse error"}}',
    '{ "odd" : "spacing", "data":{"E":1300000}, "stream":"trade.BTC_USDC" }',
]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "frames.jsonl"
    path.write_text("\n".join(RECORDED) + "\n")
    return path


async def test_a_recording_is_played_byte_by_byte_to_its_subscribers(recording: Path) -> None:
    async with (
        running_simulator("--play", str(recording), "--speed", "max") as sim,
        listening(sim.ws_url) as listener,
        listening(sim.ws_url) as other,
    ):
        await other.subscribe("trade.SOL_USDC")
        await listener.subscribe("trade.SOL_USDC", "trade.BTC_USDC")
        await listener.subscribe("account.orderUpdate", signature=signature())
        for _ in RECORDED:
            await listener.next()
        assert listener.raw == RECORDED
        for _ in range(2):
            await other.next()
        assert other.raw == [RECORDED[0], RECORDED[2]]


async def test_private_frames_of_a_recording_need_a_signature(recording: Path) -> None:
    async with (
        running_simulator("--play", str(recording), "--speed", "max") as sim,
        listening(sim.ws_url) as listener,
    ):
        await listener.subscribe("account.orderUpdate", "trade.BTC_USDC")
        assert (await listener.next())["error"]["code"] == 4003
        await listener.next()
        await listener.next()
        assert listener.raw[1:] == [RECORDED[2], RECORDED[3]]


async def test_a_recording_keeps_the_pace_of_its_event_times(recording: Path) -> None:
    async with (
        running_simulator("--play", str(recording), "--speed", "0.5") as sim,
        listening(sim.ws_url) as listener,
    ):
        await listener.subscribe("trade.SOL_USDC", "trade.BTC_USDC")
        await listener.until_stream("trade.SOL_USDC")
        begun_s = time.monotonic()
        await listener.until_stream("trade.BTC_USDC")
        assert time.monotonic() - begun_s > 0.3


async def test_chosen_lines_only_and_rest_knows_the_recorded_markets(recording: Path) -> None:
    arguments = ["--play", str(recording), "--play-lines", "1-2", "--speed", "max"]
    async with (
        running_simulator(*arguments) as sim,
        plain_http.client(sim.rest_url) as client,
    ):
        markets = (await client.get("/api/v1/markets")).json()
        assert [x["symbol"] for x in markets] == ["SOL_USDC"]
        depth = await client.get("/api/v1/depth?symbol=SOL_USDC")
        assert (depth.status_code, depth.json()["code"]) == (404, "RESOURCE_NOT_FOUND")
        async with listening(sim.ws_url) as listener:
            await listener.subscribe("trade.BTC_USDC", "trade.SOL_USDC", "markPrice.SOL_USDC")
            await listener.next()
            while (await client.get("/simulator/stats")).json()["streams"] != {
                "trade.SOL_USDC": 1,
                "account.orderUpdate": 1,
            }:
                pass
            assert listener.raw == RECORDED[:1]


@real_frames
async def test_real_frames_arrive_as_they_were_captured() -> None:
    path = Path(str(FRAMES_DIR)) / "real-frames.jsonl"
    lines = path.read_text().splitlines()[:200]
    streams = sorted({json.loads(line)["stream"] for line in lines})
    arguments = ["--play", str(path), "--play-lines", "1-200", "--speed", "max"]
    async with running_simulator(*arguments) as sim, listening(sim.ws_url) as listener:
        await listener.subscribe(*streams)
        for _ in lines:
            await listener.next()
        assert listener.raw == lines


# The ledger -------------------------------------------------------------------------------------


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def test_ledger_names_sent_frames_with_the_number_of_clients(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    async with (
        running_simulator("--rate", "300", ledger=path) as sim,
        listening(sim.ws_url) as listener,
    ):
        await listener.subscribe("depth.SOL_USDC", "ticker.SOL_USDC")
        for _ in range(80):
            await listener.next()
    header, *body, end = path.read_bytes().splitlines()
    assert json.loads(header)["markets"][0] == "SOL_USDC"
    assert end == b'{"end":true}'
    sent = [
        line.partition(b'"frame":')[2][:-1].decode()
        for line in body
        if b'"sent":1,"to":[1],' in line[:60]
    ]
    assert sent[: len(listener.raw)] == listener.raw
    kinds = Counter(
        x["frame"]["stream"].split(".")[0] for x in map(json.loads, body) if "frame" in x
    )
    assert {"trade", "depth", "account"} <= set(kinds)
    assert "bookTicker" not in kinds


async def test_the_same_seed_writes_the_same_frames_whatever_the_clients_do(
    tmp_path: Path,
) -> None:
    arguments = ["--rate", "1500", "--events", "3000", "--start", str(START_US), "--seed", "9"]
    written: list[list[bytes]] = []
    for number in range(2):
        path = tmp_path / f"ledger-{number}.jsonl"
        async with (
            running_simulator(*arguments, ledger=path) as sim,
            listening(sim.ws_url, max_queue=None) as listener,
            plain_http.client(sim.rest_url) as client,
        ):
            if number:
                await listener.subscribe("depth.SOL_USDC", "trade.BTC_USDC")
                await listener.subscribe("account.orderUpdate", signature=signature())
            while not (await client.get("/simulator/stats")).json()["finished"]:
                await client.get("/api/v1/depth?symbol=SOL_USDC")
        lines = path.read_bytes().splitlines()[1:-1]
        frames = (line.partition(b'"frame":')[2] for line in lines)
        written.append([frame for frame in frames if frame])
    assert written[0] == written[1]
    assert len(written[0]) > 2000


def test_an_account_s_frames_carry_its_key(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with running_simulator_sync("--rate", "100", ledger=path) as sim:
        deadline_s = time.monotonic() + 20
        while b'"account":"' not in path.read_bytes():
            assert time.monotonic() < deadline_s, sim.stderr()
    sent = [entry for entry in entries(path)[1:-1] if "frame" in entry]
    assert sent
    for entry in sent:
        assert ("account" in entry) is entry["frame"]["stream"].startswith("account.")
