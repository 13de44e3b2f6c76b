"""Lanes that hear an exchange into a real intake, without Redis: what waits can be looked at."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bridge.contract.streams import Stream, parse_stream
from bridge.feed.lane import Lane
from bridge.feed.means import Means, Signer
from bridge.feed.pace import Pace
from bridge.journal.hearing import Hearing
from bridge.pipeline.intake import Intake
from bridge.runtime.config import Exchange
from tests.support.items import fields

QUICK = {
    "open_timeout_s": 5,
    "ping_interval_s": 0.4,
    "ping_timeout_s": 0.4,
    "reconnect_initial_s": 0.02,
    "reconnect_max_s": 0.1,
    "handshakes_per_s": 50,
    "requests_per_s": 1000,
}


def now_us() -> int:
    return time.time_ns() // 1000


@dataclass
class Ears:
    """Lanes over one intake, and what they said."""

    intake: Intake
    means: Means
    lanes: list[Lane] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    rejected: list[tuple[str, int]] = field(default_factory=list)

    def waiting(self, stream: str) -> list[dict[str, str]]:
        """The entries that would go to Redis, in order."""
        return [fields(item) for item in self.intake.lines[stream].pending]

    def numbers(self, stream: str) -> list[int]:
        return [item.position for item in self.intake.lines[stream].pending]

    def gaps(self, stream: str) -> list[str]:
        return [each["cause"] for each in self.waiting(stream) if each["type"] == "gap"]

    def quarantined(self) -> list[dict[str, str]]:
        return [fields(item) for item in self.intake.quarantine.pending]


@asynccontextmanager
async def hearing_lanes(
    url: str,
    names: Iterable[str],
    count: int = 1,
    signer: Signer | None = None,
    **settings: object,
) -> AsyncIterator[Ears]:
    """So many lanes over the same streams, running until the block ends."""
    streams = [parse_stream(name) for name in names]
    intake = Intake(streams, hold_us=0, snapshot_every=0, ask=lambda _: None)
    hearing = Hearing(
        intake,
        buffer_bytes=1 << 30,
        keep_private=True,
        clock_us=now_us,
        on_items=lambda: None,
    )
    exchange = Exchange.model_validate({"ws_url": url, **QUICK, **settings})

    def on_answered(streams: Sequence[Stream]) -> None:
        ears.answered += [stream.name for stream in streams]

    ears = Ears(
        intake,
        Means(
            settings=exchange,
            hearing=hearing,
            clock_us=now_us,
            exchange_us=now_us,
            signer=signer,
            handshakes=Pace(exchange.handshakes_per_s, 8),
            requests=Pace(exchange.requests_per_s, 40),
            on_answered=on_answered,
            on_rejected=lambda name, code: ears.rejected.append((name, code)),
        ),
    )
    ears.lanes = [
        Lane(f"lane-{number}", streams, ears.means, random.Random(number))
        for number in range(count)
    ]
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(lane.run()) for lane in ears.lanes]
        try:
            yield ears
        finally:
            for task in running:
                task.cancel()
