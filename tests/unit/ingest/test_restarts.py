"""Kills, restarts and flushes of Redis in random order leave no duplicate message or gap.

One bridge with a journal takes random steps; the server is in memory.
"""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.contract.causes import GapCause
from bridge.core.progress import progress
from bridge.core.records import Answered, Lost, Opened, Watermarks
from tests.support import frames
from tests.support.core_subject import (
    BALANCES,
    BOOK_TICKERS,
    ORDERS,
    TICKERS,
    TRADES,
    balance,
    book_ticker,
    changed,
    trade,
)
from tests.support.memory_server import MemoryServer
from tests.support.stepped_bridge import SteppedBridge

NAMES = (TICKERS, ORDERS, BALANCES, "liquidation", BOOK_TICKERS, TRADES)
SECOND_US = 1_000_000
STEPS = 60


class Day:
    """Random steps of the exchange, Redis and the bridge."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.redis = MemoryServer()
        self.bridge = SteppedBridge(folder, self.redis, NAMES)
        self.bridge.ingest.step(1_000)
        self.marks: dict[str, int] = {}  # bridge:watermarks
        self.connection = 0
        self.has_resumed = False
        self.messages = 0
        self.steps: dict[Callable[[], None], float] = {
            self.open: 6, self.answer: 6, self.tick: 8, self.message: 8, self.wait: 8,
            self.publish: 6, self.publish_all: 4, self.read: 8, self.mark: 3, self.resume: 3,
            self.kill: 2, self.lose: 1, self.flush: 2, self.save: 2,
        }  # fmt: skip

    def run(self) -> None:
        for _ in range(STEPS):
            self.bridge.now_us += self.chance.randrange(1_000, 9_000)
            [step] = self.chance.choices(list(self.steps), list(self.steps.values()))
            step()
        for step in (self.open, self.answer, self.tick, self.wait, self.tick, self.resume):
            self.bridge.now_us += SECOND_US
            step()
        for _ in range(20):
            self.bridge.now_us += SECOND_US
            self.bridge.come_to_rest()
        self.bridge.end()

    # ---- the exchange ----------------------------------------------------------------------------

    def open(self) -> None:
        if not self.connection:
            self.connection = self.bridge.ingest.new_connection()
            self.bridge.ingest.take(Opened(self.bridge.now_us, self.connection, "public-1", NAMES))

    def answer(self) -> None:
        if self.connection:
            at_us = self.bridge.now_us
            self.bridge.ingest.take(Answered(at_us, self.connection, at_us))

    def tick(self) -> None:
        self.receive(changed(frames.TICKER, E=self.bridge.now_us))

    def message(self) -> None:
        self.messages += 1
        number, at_us = self.messages, self.bridge.now_us
        self.receive(
            self.chance.choice(
                [
                    changed(frames.ORDER_ACCEPTED, i=str(number), T=at_us, E=at_us),
                    balance(number, at_us),
                    book_ticker(number, at_us),
                    trade(number, at_us),
                ]
            )
        )

    def receive(self, frame: str) -> None:
        if self.connection:
            self.bridge.receive(frame, self.connection)

    def lose(self) -> None:
        if self.connection:
            cause = GapCause.CONNECTION_LOST
            self.bridge.ingest.take(Lost(self.bridge.now_us, self.connection, cause))
            self.connection = 0

    def wait(self) -> None:
        self.bridge.now_us += int(self.chance.choice([0.01, 0.1, 1, 3]) * SECOND_US)

    # ---- Redis -----------------------------------------------------------------------------------

    def flush(self) -> None:
        if self.chance.random() < 0.75:
            self.redis.flush()
            self.marks.clear()
        else:
            for name in (*NAMES, "bridge:gaps"):
                if self.chance.random() < 0.5:
                    self.redis.delete(name)

    # ---- the bridge ------------------------------------------------------------------------------

    def publish(self) -> None:
        limit = self.chance.choice([1, 2, 1_000])
        self.bridge.publish(limit, loses_replies=self.chance.random() < 0.1)

    def publish_all(self) -> None:
        for _ in range(20):
            if not self.bridge.publish(1_000):
                return

    def read(self) -> None:
        self.bridge.log.flush()
        self.bridge.ingest.step(self.chance.choice([1, 3, 10, 1_000]))

    def mark(self) -> None:
        """Write the watermarks, as the heartbeat does."""
        settled = progress([self.bridge.core], is_behind=not self.bridge.ingest.is_live).settled
        for name, us in settled.items():
            self.marks[name] = max(us, self.marks.get(name, 0))

    def resume(self) -> None:
        """Read the watermarks once after a start, as the heartbeat does."""
        if not self.has_resumed:
            self.has_resumed = True
            self.bridge.ingest.take(Watermarks(self.bridge.now_us, dict(self.marks)))

    def kill(self) -> None:
        self.bridge.log.flush()
        self.bridge.kill()
        if self.chance.random() < 0.5:
            self.wait()
        self.bridge.start()
        self.bridge.ingest.step(1_000)
        self.connection, self.has_resumed = 0, False

    def save(self) -> None:
        self.bridge.log.flush()
        self.bridge.save_checkpoint()

    # ---- invariants ------------------------------------------------------------------------------

    def twice(self) -> list[tuple[str, ...]]:
        """Duplicate entries; their times of receipt may differ."""
        found = Counter(
            (name, *(text for field, text in entry.items() if field not in _NOT_CONTENT))
            for name in (*NAMES, "bridge:gaps")
            for entry in self.redis.entries(name)
            if name != TICKERS or entry["type"] == "gap"
        )
        return [entry for entry, count in found.items() if count > 1]


_NOT_CONTENT = ("received_us", "event_us")


def test_outage_reported_by_a_backfill_is_not_reported_again_by_the_journal_after_a_kill(
    tmp_path: Path,
) -> None:
    """A stream that is not backfilled proves the end of the outage: before the kill when the
    backfill is adopted, after it by the stream's message in the journal.
    """
    redis = MemoryServer()
    bridge = SteppedBridge(tmp_path, redis, [TICKERS, ORDERS])
    bridge.come_to_rest()
    first = bridge.connect()
    bridge.receive(changed(frames.TICKER, E=bridge.now_us), first)
    bridge.receive(changed(frames.ORDER_ACCEPTED, T=bridge.now_us, E=bridge.now_us), first)
    bridge.come_to_rest()
    bridge.lose(first)
    bridge.now_us += 5 * SECOND_US
    second = bridge.connect()
    bridge.receive(changed(frames.TICKER, E=bridge.now_us), second)
    bridge.now_us += SECOND_US
    redis.delete(ORDERS)
    bridge.come_to_rest()
    before = [entry.get("cause", "") for entry in redis.entries(ORDERS)]
    assert before == ["redis lost entries", "", "connection lost"]

    bridge.kill()
    bridge.start()
    bridge.now_us += SECOND_US
    bridge.come_to_rest()

    assert [entry.get("cause", "") for entry in redis.entries(ORDERS)] == before
    bridge.end()


@pytest.mark.parametrize("seed", range(60))
def test_restarted_bridge_with_flushed_redis_writes_nothing_twice(
    tmp_path: Path, seed: int
) -> None:
    day = Day(tmp_path, seed)

    day.run()

    assert day.twice() == []
