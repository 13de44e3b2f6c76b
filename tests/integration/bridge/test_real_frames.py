"""Frames captured from the live exchange, sent by the simulator through the bridge to Redis."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support import truth
from tests.support.bridge_run import entries, running_bridge
from tests.support.eventually import eventually_async
from tests.support.simulator_process import running_simulator

FRAMES_DIR = os.environ.get("FRAMES_DIR", "")
pytestmark = pytest.mark.skipif(
    not FRAMES_DIR, reason="FRAMES_DIR is not set: no captured frames here"
)


def frames() -> list[dict[str, Any]]:
    path = Path(FRAMES_DIR) / "real-frames.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def stored(client: redis.Redis, stream: str) -> int:
    return len(truth.messages(entries(client, stream)))


async def test_a_recording_of_two_hundred_frames_arrives_whole_and_in_order(
    tmp_path: Path, redis_url: str
) -> None:
    sent: dict[str, list[dict[str, Any]]] = {}
    for frame in frames()[:200]:
        sent.setdefault(frame["stream"], []).append(frame["data"])
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    recording = str(Path(FRAMES_DIR) / "real-frames.jsonl")
    arguments = ["--play", recording, "--play-lines", "1-200", "--speed", "max"]

    async with (
        running_simulator(*arguments) as exchange,
        running_bridge(tmp_path, exchange.ws_url, redis_url, list(sent)) as bridge,
    ):
        await eventually_async(
            lambda: all(stored(client, stream) >= len(sent[stream]) for stream in sent),
            "all frames are in Redis",
        )
        assert await bridge.stop() == 0

    faults = [
        fault
        for stream in sent
        for fault in truth.compare(stream, sent[stream], entries(client, stream))
    ]
    assert faults == []
    assert client.xlen("bridge:quarantine") == 0
    assert len(sent) == 4


@pytest.mark.parametrize("line", range(201, 221))
async def test_a_single_captured_frame_arrives_whole(
    line: int, tmp_path: Path, redis_url: str
) -> None:
    frame = frames()[line - 1]
    stream = frame.get("stream", "trade.SOL_USDC")
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    recording = str(Path(FRAMES_DIR) / "real-frames.jsonl")
    arguments = ["--play", recording, "--play-lines", f"{line}-{line}", "--speed", "max"]

    async with (
        running_simulator(*arguments) as exchange,
        running_bridge(tmp_path, exchange.ws_url, redis_url, [stream]) as bridge,
    ):
        if "error" in frame:
            code, message = str(frame["error"]["code"]), frame["error"]["message"]
            await eventually_async(
                lambda: code in bridge.log() and message in bridge.log(),
                "the error frame is reported",
            )
        else:
            await eventually_async(lambda: stored(client, stream) == 1, "the frame is in Redis")
        assert await bridge.stop() == 0

    if "stream" in frame:
        assert truth.compare(stream, [frame["data"]], entries(client, stream)) == []
    assert client.xlen("bridge:quarantine") == 0
