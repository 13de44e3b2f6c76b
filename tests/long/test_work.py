"""The work per message as counts, not times, so that a regression shows on any machine.

From frames to acknowledged entries, with a journal and a real Redis. Of messages read together, 128
share a write, a few script calls and a turn of the event loop; single messages have their own.
Raise a limit only for a good reason, and state it here.
"""

import asyncio
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import redis

from benchmarks.workload import Workload, make
from bridge.core.records import BodyKind, RestBody
from bridge.journal.log import Log
from bridge.journal.segments import SegmentWriter
from tests.support.publisher_rig import Rig, running

BRIDGE = str(Path(__file__).resolve().parents[2] / "bridge")
WARM, COUNTED = 1_024, 2_048  # messages; multiples of those read together
SEGMENT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Work:
    """The average work per message: functions entered by the bridge's code, its own and those in C;
    system calls; script calls and bytes received by Redis.
    """

    own_calls: float
    c_calls: float
    received: float  # from Redis: each is a turn of the event loop
    sent: float  # to Redis
    written: float  # to the journal
    scripts: float
    redis_bytes: float


LIMITS = {
    128: Work(18, 21, 0.02, 0.02, 0.01, 0.04, 275),
    1: Work(95, 80, 1.05, 1.05, 1.05, 1.05, 545),
}


class Counting:
    """Counts the calls that `sys.setprofile` reports for this thread."""

    def __init__(self) -> None:
        self.own_calls = self.c_calls = 0
        self.system_calls: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        file = frame.f_code.co_filename
        is_ours = file.startswith((BRIDGE, "<encoder"))
        if event == "call":
            self.own_calls += is_ours
        elif event == "c_call":
            self.c_calls += is_ours
            self.system_calls[argument.__qualname__] += 1


@pytest.mark.parametrize("together", LIMITS)
async def test_work_of_a_message_stays_within_its_limits(
    together: int, redis_url: str, tmp_path: Path
) -> None:
    workload = make(WARM + COUNTED)
    journal = Log(
        SegmentWriter(tmp_path, SEGMENT_BYTES), tail_limit_bytes=SEGMENT_BYTES, clock_us=now_us
    )
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        async with running(Rig(redis_url, names=workload.streams, journal=journal)) as rig:
            await rig.settled()
            take_books(rig, workload)
            await publish(rig, workload.frames[:WARM], 128)
            counting, before = Counting(), of_redis(client)
            sys.setprofile(counting)
            try:
                await publish(rig, workload.frames[WARM:], together)
            finally:
                sys.setprofile(None)
            after = of_redis(client)

    calls = counting.system_calls
    counts = [counting.own_calls, counting.c_calls]
    counts += [calls["socket.recv"], calls["socket.send"], calls["write"]]
    counts += [now - then for then, now in zip(before, after, strict=True)]
    work, limits = Work(*[count / COUNTED for count in counts]), asdict(LIMITS[together])
    assert {name: cost for name, cost in asdict(work).items() if cost > limits[name]} == {}


def take_books(rig: Rig, workload: Workload) -> None:
    for symbol, book in workload.books.items():
        if (name := f"depth.{symbol}") in workload.streams:
            rig.ingest.take(RestBody(now_us(), name, BodyKind.MAIN, book.encode()))


async def publish(rig: Rig, frames: Any, together: int) -> None:
    """Receive `together` frames at once, and the next ones once Redis has them."""
    for start in range(0, len(frames), together):
        rig.ingest.take_frames(now_us(), rig.connection, frames[start : start + together])
        rig.publisher.pump()
        while rig.table.ready:
            await asyncio.sleep(0)


def of_redis(client: redis.Redis) -> tuple[int, int]:
    """The calls of scripts, and the bytes that Redis has received."""
    info: dict[str, Any] = client.info("everything")  # type: ignore[assignment]
    return info.get("cmdstat_evalsha", {"calls": 0})["calls"], info["total_net_input_bytes"]


def now_us() -> int:
    return time.time_ns() // 1000
