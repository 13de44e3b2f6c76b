"""The memory that a slot reports, compared with Python's figures."""

import json
import sys
import tracemalloc

import pytest

from tests.support import frames
from tests.support.core_subject import NOW_US, CoreSubject, changed

COUNT = 3000


@pytest.mark.parametrize(
    ("stream", "frame", "number"),
    [
        ("trade.BTC_USDC_PERP", frames.TRADE, "t"),
        ("bookTicker.SOL_USDC", frames.BOOK_TICKER, "u"),
        ("ticker.BTC_USDC_PERP", frames.TICKER, "n"),
        ("account.orderUpdate", frames.ORDER_ACCEPTED, "i"),
    ],
)
def test_slot_size_is_about_the_memory_that_it_takes(stream: str, frame: str, number: str) -> None:
    subject = CoreSubject(stream)
    first = json.loads(frame)["data"]
    received = []
    for n in range(COUNT):
        moments = {"E": NOW_US + n} | ({"T": NOW_US + n} if "T" in first else {})
        value = type(first[number])(int(first[number]) + n)
        received.append(changed(frame, **moments, **{number: value}).encode())

    tracemalloc.start()
    try:
        for n, body in enumerate(received):
            subject.now_us = NOW_US + n
            subject.receive(body)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    queue = subject.queue(stream)
    assert len(queue.slots) == COUNT
    # the memory that objects of different messages share varies by some percent
    most = 1.35 if sys.version_info < (3, 12) else 1.5  # newer versions need less memory
    assert 0.7 < queue.bytes / taken < most
