"""What an item says of its memory, against what Python says."""

import json
import tracemalloc

import pytest

from bridge.contract.streams import parse_stream
from bridge.pipeline.intake import Intake
from tests.support import frames

COUNT = 3000
NOW_US = 1_790_915_531_025_000


@pytest.mark.parametrize(
    ("stream", "frame", "number"),
    [
        ("trade.BTC_USDC_PERP", frames.TRADE, "t"),
        ("bookTicker.SOL_USDC", frames.BOOK_TICKER, "u"),
        ("ticker.BTC_USDC_PERP", frames.TICKER, "n"),
        ("account.orderUpdate", frames.ORDER_ACCEPTED, "i"),
    ],
)
def test_what_waits_takes_about_the_memory_it_is_said_to_take(
    stream: str, frame: str, number: str
) -> None:
    subject = Intake([parse_stream(stream)], hold_us=0, snapshot_every=0, ask=lambda _: None)
    subject.opened(1, [stream])
    heard = []
    for n in range(COUNT):
        message = json.loads(frame)
        value = message["data"][number]
        moments = {"E": NOW_US + n} | ({"T": NOW_US + n} if "T" in message["data"] else {})
        message["data"] |= {number: type(value)(int(value) + n)} | moments
        heard.append(json.dumps(message).encode())

    tracemalloc.start()
    try:
        for n, text in enumerate(heard):
            subject.hear(text, NOW_US + n, 1, 0)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    line = subject.lines[stream]
    assert len(line.pending) == COUNT
    assert 0.7 < line.pending_bytes / taken < 1.3
