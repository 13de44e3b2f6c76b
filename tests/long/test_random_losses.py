"""Random runs in which Redis loses and refuses entries, and journal and memory fail: every received
message is in Redis once and in order, or in a gap.

Ingest, core, journal and outbox are the real ones, with a Redis in memory. LOSSES_RUNS makes it
longer, LOSSES_SEED begins at another seed.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import pytest

from bridge.runtime.refusals import Refused
from tests.support.full_disk import full
from tests.support.ingest_subject import (
    FIRST,
    NAMES,
    ORDERS,
    TICKERS,
    TRADES,
    IngestSubject,
)
from tests.support.stepped_bridge import history

RUNS = int(os.environ.get("LOSSES_RUNS", "60"))  # of each kind
FIRST_SEED = int(os.environ.get("LOSSES_SEED", "1"))
TOGETHER = 20  # runs of one test
STEPS = 150
AT_REST = 8  # rounds until nothing waits any more
SECOND_US = 1_000_000
RECOVERED_US = 31 * SECOND_US  # more than a missing trade is waited for
JOURNALED, ACCOUNT_APART = "all journaled", "the account not journaled"


class Run:
    """One bridge, what it received, and the faults that can happen to it."""

    def __init__(self, seed: int, kind: str, folder: Path, disk: pytest.MonkeyPatch) -> None:
        self.random = Random(seed)
        self._is_apart = kind == ACCOUNT_APART
        self.subject = IngestSubject(
            folder,
            buffer_bytes=self.random.choice([100_000, 200_000, 400_000]),
            segment_bytes=self.random.choice([5_000, 30_000]),
            keeps_private=not self._is_apart,
        )
        self._disk = disk
        self._disk_is_full = self._is_pruned = False
        self.trades: set[int] = set()
        self.orders: dict[str, int] = {}  # order ID → when it was received, µs
        self.tickers: dict[str, int] = {}  # the engine's time → the same
        self.connect()

    def connect(self) -> None:
        subject = self.subject
        if self._is_apart:
            self._public = subject.connect_to([TRADES, TICKERS])
            self._private = subject.connect_to([ORDERS])
        else:
            self._public = self._private = subject.connect()

    # ---- the exchange ----------------------------------------------------------------------------

    def receive_trades(self) -> None:
        for _ in range(self.random.choice([1, 3, 20, 150])):
            self.trades.add(FIRST + self.subject.sent)
            self.subject.trades(1, self._public)

    def miss_trades(self) -> None:
        self.subject.skip(self.random.choice([1, 2]))

    def receive_orders(self) -> None:
        for _ in range(self.random.choice([1, 5, 60])):
            self.subject.now_us += self.random.choice([1, 1_000, 100_000])
            number = len(self.orders) + 1
            self.orders[str(number)] = self.subject.now_us
            self.subject.order(number, self._private, is_private=self._is_apart)

    def receive_tickers(self) -> None:
        for _ in range(self.random.choice([1, 5, 60])):
            self.subject.now_us += SECOND_US
            self.tickers[str(self.subject.now_us)] = self.subject.now_us
            self.subject.tick(self._public)

    def receive_history(self) -> None:
        last = FIRST + self.subject.sent - 1
        rows = [(number, 1_790_915_531_025) for number in range(max(FIRST, last - 300), last + 1)]
        self.subject.rest_body(TRADES, history(rows))

    def reconnect(self) -> None:
        self.subject.lose(self._public)
        if self._is_apart:
            self.subject.lose(self._private, is_private=True)
        self.subject.now_us += self.random.choice([10, 5 * SECOND_US])
        self.connect()

    # ---- Redis -----------------------------------------------------------------------------------

    def publish(self) -> None:
        limit, loses = self.random.choice([1, 10, 500]), self.random.random() < 0.2
        self.unless_refused(lambda: self.subject.publish(limit, loses_replies=loses))

    def pump(self) -> None:
        self.unless_refused(lambda: self.subject.pump(lambda: self.random.random() < 0.1))

    def unless_refused(self, step: Callable[[], object]) -> None:
        """Run a step; if Redis refuses everything, end the connection as the publisher does."""
        try:
            step()
        except Refused as refused:
            self.subject.outbox.disconnected(str(refused))

    def flush_redis(self) -> None:
        self.subject.server.flush()

    def delete_stream(self) -> None:
        self.subject.server.delete(self.random.choice(NAMES))

    def refuse_stream(self) -> None:
        name = self.random.choice(NAMES)
        self.subject.server.refusals[name] = "WRONGTYPE Operation against a key"

    def refuse_all(self) -> None:
        self.subject.server.refusals[""] = "OOM command not allowed"

    def accept_all(self) -> None:
        self.subject.server.refusals.clear()

    def suspend_streams(self) -> None:
        """As for the streams of a shard whose node is unavailable."""
        self.subject.outbox.disconnected("the node is unavailable")
        chosen = [name for name in NAMES if self.random.random() < 0.5]
        self.subject.suspend(chosen, "its node is unavailable")

    # ---- the bridge ------------------------------------------------------------------------------

    def read_journal(self) -> None:
        for _ in range(self.random.choice([1, 5])):
            self.subject.ingest.step(self.random.choice([1, 7, 100]))

    def wait(self) -> None:
        self.subject.now_us += self.random.choice([100_000, 3 * SECOND_US, RECOVERED_US])

    def fall_behind(self) -> None:
        if self.subject.ingest.is_live and self.random.random() < 0.3:
            self.subject.take_over()

    def flush_journal(self) -> None:
        self.subject.flush()

    def restart(self) -> None:
        if self._is_apart or self._disk_is_full or self.subject.log.is_broken:
            return  # what no journal has would be lost with the process
        self.subject.flush()
        if self.random.random() < 0.8:
            self.subject.save_checkpoint()
        self.subject.kill()
        self.subject.start()
        self.subject.now_us += SECOND_US
        self.connect()

    def prune(self) -> None:
        if not (self._disk_is_full or self.subject.log.is_broken):
            self.subject.flush()
            for _ in range(self.random.choice([1, 3])):
                self.subject.prune()
            self._is_pruned = True

    def fill_disk(self) -> None:
        self.subject.log.flush()
        self._disk.setattr(os, "write", full)
        self._disk_is_full = True

    def free_disk(self) -> None:
        self._disk.undo()
        if self._disk_is_full:
            self.subject.recover()
        self._disk_is_full = False

    # ---- the end ---------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """End all faults; then nothing may be pending after some time."""
        self.free_disk()
        self.accept_all()
        for number in range(AT_REST):
            if number == AT_REST // 2:
                self.receive_trades()
            self.subject.now_us += RECOVERED_US
            self.unless_refused(self.subject.come_to_rest)
        assert self.subject.ingest.is_live
        assert [queue.name for queue in self.subject.table if queue.slots] == []
        held = [queue.name for queue in self.subject.table if queue.is_lost or queue.is_suspended]
        assert held == []

    def check_trades(self) -> None:
        """Once, in order, and every missing number that a received trade has is in a gap."""
        entries = self.subject.server.entries(TRADES)
        stored = [int(entry["trade_id"]) for entry in entries if entry["type"] == "trade"]
        assert stored == sorted(set(stored))
        marked = {
            number
            for entry in entries
            if entry["type"] == "gap" and entry["from"]
            for number in range(int(entry["from"]), int(entry["to"]) + 1)
        }
        missing = self.trades - set(stored) - marked
        assert [number for number in sorted(missing) if number > stored[0]] == []
        if missing and not self._is_pruned:
            assert entries[0]["cause"] in ("redis lost entries", "overflow")

    def check_by_content(self, name: str, field: str, received: Mapping[str, int]) -> None:
        """Once, and each missing one was received within a gap."""
        entries = self.subject.server.entries(name)
        stored = [entry[field] for entry in entries if entry["type"] != "gap"]
        assert len(stored) == len(set(stored))
        gaps = [
            (int(entry["from_us"] or 0), int(entry["to_us"]))
            for entry in entries
            if entry["type"] == "gap"
        ]
        unmarked = [
            key
            for key, at_us in received.items()
            if key not in set(stored) and not any(begin <= at_us <= end for begin, end in gaps)
        ]
        assert unmarked == []


WEIGHTS: Mapping[Callable[[Run], None], float] = {
    Run.receive_trades: 10,
    Run.miss_trades: 2,
    Run.receive_orders: 8,
    Run.receive_tickers: 5,
    Run.receive_history: 3,
    Run.reconnect: 1,
    Run.publish: 10,
    Run.pump: 10,
    Run.flush_redis: 1,
    Run.delete_stream: 1,
    Run.refuse_stream: 1.5,
    Run.refuse_all: 1.5,
    Run.accept_all: 3,
    Run.suspend_streams: 1.5,
    Run.read_journal: 12,
    Run.wait: 4,
    Run.fall_behind: 1,
    Run.flush_journal: 3,
    Run.restart: 0.7,
    Run.prune: 0.7,
    Run.fill_disk: 0.6,
    Run.free_disk: 1.5,
}


@pytest.mark.parametrize("kind", [JOURNALED, ACCOUNT_APART])
@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + RUNS, TOGETHER))
def test_random_losses_leave_every_message_stored_once_or_marked(
    first: int, kind: str, tmp_path: Path
) -> None:
    for seed in range(first, first + TOGETHER):
        with pytest.MonkeyPatch.context() as disk:
            run = Run(seed, kind, tmp_path / str(seed), disk)
            try:
                for step in run.random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=STEPS):
                    step(run)
                run.come_to_rest()
                run.check_trades()
                run.check_by_content(ORDERS, "order_id", run.orders)
                run.check_by_content(TICKERS, "event_us", run.tickers)
            except AssertionError as error:
                raise AssertionError(f"LOSSES_SEED={seed}, {kind}: {error}") from error
            finally:
                disk.undo()
                run.subject.end()
